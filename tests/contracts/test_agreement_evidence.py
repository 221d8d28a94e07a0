"""What the agreement produces is what the contracts accept: evidence from a run, certificates."""

from keeper.hashing import keccak
from p2p.agreement.certificate import finality_arguments
from p2p.agreement.evidence import slash_arguments
from p2p.agreement.signing import EcdsaSigner, Signer
from p2p.types import Committee, Kind, Member
from tests.simulation.byzantine.equivocator import Equivocator
from tests.support.agreement_cluster import Cluster, Keeper, Weather
from tests.support.contracts import EPOCH, ETHER, NETWORK, World

SIZE, LIAR = 4, 1


def secret(index: int) -> bytes:
    return World.key(f"keeper {index}")


class Real(Keeper):
    """A keeper with the key that its bond is registered under."""

    @property
    def signer(self) -> Signer:
        return EcdsaSigner(secret(self.index))


class RealEquivocator(Equivocator):
    """The same, lying."""

    @property
    def signer(self) -> Signer:
        return EcdsaSigner(secret(self.index))


def test_evidence_of_a_run_takes_the_bond_of_who_lied_and_of_nobody_else(world: World) -> None:
    for index in range(SIZE):
        admin = world.actor(f"admin {index}")
        world.call("Bonds", "join", admin, b"peer", sender=f"keeper {index}", value=2 * ETHER)
    members = tuple(
        Member(EcdsaSigner(secret(index)).address, b"peer %d" % index) for index in range(SIZE)
    )
    committee = Committee(NETWORK, EPOCH, members, keccak(b"parameters"))
    cluster = Cluster(
        SIZE, 3, weather=Weather(calm_at=0.0), committee=committee, keeper=Real,
        liars={LIAR: RealEquivocator}, scheme=EcdsaSigner(secret(0)),
    )  # fmt: skip
    cluster.run(2.0)
    evidence = cluster.keepers[0].evidence[0]
    assert evidence.culprit == LIAR
    world.actor("reporter")
    world.call("Bonds", "slash_conflict", *slash_arguments(evidence), sender="reporter")
    stakes = [
        world.call("Bonds", "stake", world.actor(f"keeper {index}")).value[0]
        for index in range(SIZE)
    ]
    assert stakes[LIAR] == 0
    assert [stake for index, stake in enumerate(stakes) if index != LIAR] == [2 * ETHER] * 3


class Operator(Keeper):
    """A keeper with the key that the on-chain committee knows it by."""

    @property
    def signer(self) -> Signer:
        return EcdsaSigner(World.key(f"operator {self.index}"))


def test_a_certificate_of_a_run_proves_its_root_on_chain(world: World) -> None:
    keys = [World.key(f"operator {index}") for index in range(SIZE)]
    members = tuple(Member(EcdsaSigner(key).address, b"peer %d" % i) for i, key in enumerate(keys))
    committee = Committee(NETWORK, EPOCH, members, keccak(b"parameters"))
    object.__setattr__(committee, "config", keccak(b"config"))  # the one of the test world
    cluster = Cluster(
        SIZE, 3, weather=Weather(calm_at=0.0), committee=committee, keeper=Operator,
        scheme=EcdsaSigner(keys[0]),
    )  # fmt: skip
    log = cluster.run(1.0).keepers[0].log
    final = log.finals(EPOCH, 0, 9)[2]
    block = log.proposal(EPOCH, final.view, final.digest)
    proof = log.certificate(EPOCH, Kind.FINALIZE, final.view)
    assert block is not None
    assert proof is not None
    arguments = finality_arguments(block, proof)
    assert world.call("Committee", "verify_votes", *arguments).value
    world.call("Snapshots", "ensure_votes", *arguments)
    lie = (*arguments[:2], keccak(b"another root"), *arguments[3:])
    assert not world.call("Committee", "verify_votes", *lie).value
