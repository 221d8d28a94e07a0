"""What the agreement produces is what the contracts accept: evidence from a run, certificates."""

from keeper.hashing import keccak
from p2p.agreement.evidence import slash_arguments
from p2p.agreement.signing import EcdsaSigner, Signer
from p2p.types import Committee, Member
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
