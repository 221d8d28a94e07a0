"""Committee.vy believes a FROST seal and a finality certificate, and nothing that resembles one."""

import csv
import json
from collections.abc import Iterator
from typing import Any

import pytest

from keeper import leaves
from keeper.hashing import abi_hash, keccak
from keeper.merkle import merkle_proof, merkle_root
from p2p.frost.aggregate import Signature, aggregate
from p2p.frost.group import SECP256K1_GROUP
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.round1 import generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SigningPackage, sign
from p2p.frost.signer import seal_digest
from p2p.frost.suite import TR, Identifier
from p2p.types import block_digest
from tests.support.contracts import (
    NETWORK,
    World,
    address_of,
    compact,
    members,
    vote_digest,
)
from tests.support.frost import deal, seeded
from tests.support.shared import shared_path

N = SECP256K1_GROUP.order
P = SECP256K1_GROUP.field
ROOT = keccak(b"root")
CONFIG = keccak(b"config")
TIMELOCK, GRACE = 10, 100


def frost_sign(
    group: GroupKey, shares: dict[Identifier, KeyShare], message: bytes, seed: object = 0
) -> Signature:
    chosen = list(shares)[: group.min_signers]
    nonces = [generate_nonces(shares[i], seeded((seed, i))) for i in chosen]
    package = SigningPackage(message, sorted_commitments([n.commitments for n in nonces]))
    session = Session(group, package)
    made = {i: sign(session, shares[i], n) for i, n in zip(chosen, nonces, strict=True)}
    signature = aggregate(session, made)
    assert isinstance(signature, Signature)
    return signature


class Hall:
    """A deployed committee with a FROST group of 3 of 4."""

    def __init__(self) -> None:
        self.world = World(exact=True)
        self.world.env.evm.patch.block_number = 1_000
        self.world.deploy("Committee", NETWORK, TIMELOCK, GRACE)
        self.group, self.shares = deal(3, 4)
        self.next, self.next_shares = deal(5, 7, seed="next")

    def genesis(self, sender: str = "deployer") -> None:
        self.world.call(
            "Committee",
            "genesis",
            1,
            int.from_bytes(self.group.x_only, "big"),
            CONFIG,
            members(4),
            sender=sender,
        )

    def seal(
        self, epoch: int = 1, view: int = 5, root: bytes = ROOT, network: bytes = NETWORK
    ) -> tuple[Any, ...]:
        digest = seal_digest(network, epoch, view, root)
        return (epoch, view, root, *frost_sign(self.group, self.shares, digest).evm())

    def accepts(self, seal: tuple[Any, ...]) -> bool:
        return bool(self.world.call("Committee", "verify_seal", *seal).value)

    def change(self, **other: Any) -> tuple[Any, ...]:
        fields = {
            "next_epoch": 2,
            "group_key": int.from_bytes(self.next.x_only, "big"),
            "config": keccak(b"next config"),
            "members_hash": abi_hash(("address[]",), (members(7),)),
            "old_expiry": 1_050,
        }
        return tuple({**fields, **other}.values())

    def change_leaf(self, change: tuple[Any, ...], **place: Any) -> bytes:
        at = {
            "network": NETWORK,
            "epoch": 1,
            "chain": self.world.chain,
            "contract": self.world.at["Committee"],
        }
        names = ("next_epoch", "group_key", "config", "members_hash", "old_expiry")
        return leaves.committee_change_leaf(
            *{**at, **place}.values(), **dict(zip(names, change, strict=True))
        )

    def sealed_change(
        self, change: tuple[Any, ...], view: int = 5, **place: Any
    ) -> tuple[tuple[Any, ...], tuple[bytes, ...]]:
        rows = (self.change_leaf(change, **place), keccak(b"other"))
        return self.seal(view=view, root=merkle_root(rows)), merkle_proof(rows, 0)

    def propose(self, change: tuple[Any, ...], view: int = 5, **place: Any) -> Any:
        seal, proof = self.sealed_change(change, view, **place)
        return self.world.call("Committee", "propose_change", seal, proof, change)


@pytest.fixture(scope="module")
def deployed() -> Hall:
    hall = Hall()
    hall.genesis()
    return hall


@pytest.fixture
def hall(deployed: Hall) -> Iterator[Hall]:
    deployed.world.exact = False
    with deployed.world.env.anchor():
        yield deployed


def test_every_bip340_vector(hall: Hall) -> None:
    with (shared_path("vectors") / "bip340.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 19
    for row in table:
        message, raw = bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
        rx, s = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
        root = pow(pow(rx, 3, P) + 7, (P + 1) // 4, P)
        ry = root if root % 2 == 0 else P - root
        px, expected = int(row["public key"], 16), row["verification result"] == "TRUE"
        if len(message) == 32:
            got = hall.world.call("Committee", "verify_bip340", px, message, rx, ry, s).value
            assert got == expected, row
        got = hall.world.call("Committee", "verify_bip340_bytes", px, message, rx, ry, s).value
        assert got == expected, row


def test_the_published_taproot_frost_signature(hall: Hall) -> None:
    path = shared_path("vectors/frost") / "secp256k1-tr-vectors.json"
    vector = json.loads(path.read_text())
    raw = bytes.fromhex(vector["final_output"]["sig"])
    px = int(vector["inputs"]["verifying_key_key"].removeprefix("02"), 16)
    message = bytes.fromhex(vector["inputs"]["message"])
    rx, ry, s = Signature.decode(TR, raw).evm()
    assert hall.world.call("Committee", "verify_bip340_bytes", px, message, rx, ry, s).value


def test_a_frost_seal_is_believed(hall: Hall) -> None:
    for view in range(1, 9):
        assert hall.accepts(hall.seal(view=view))


@pytest.mark.parametrize("seed", range(12))
def test_keys_and_nonces_of_both_parities(hall: Hall, seed: int) -> None:
    group, shares = deal(2, 3, seed=("parity", seed))
    digest = keccak(bytes([seed]))
    rx, ry, s = frost_sign(group, shares, digest, seed).evm()
    px = int.from_bytes(group.x_only, "big")
    assert ry % 2 == 0
    assert hall.world.call("Committee", "verify_bip340", px, digest, rx, ry, s).value


def test_anything_else_is_not_believed(hall: Hall) -> None:
    epoch, view, root, rx, ry, s = hall.seal()
    for other in (
        (2, view, root, rx, ry, s),
        (0, view, root, rx, ry, s),
        (epoch, view + 1, root, rx, ry, s),
        (epoch, view, keccak(root), rx, ry, s),
        (epoch, view, root, rx ^ 1, ry, s),
        (epoch, view, root, rx, ry ^ 2, s),
        (epoch, view, root, rx, P - ry, s),
        (epoch, view, root, rx, ry, s ^ 1),
        (epoch, view, root, rx, ry, N - s),
        (epoch, view, root, rx, ry, 0),
        (epoch, view, root, rx, ry, N),
        (epoch, view, root, rx, ry, s + N if s + N < 2**256 else 2**256 - 1),
        (epoch, view, root, P, ry, s),
        (epoch, view, root, rx + P if rx + P < 2**256 else 2**256 - 1, ry, s),
        (epoch, view, root, rx, P, s),
        (epoch, view, root, 0, 0, s),
    ):
        assert not hall.accepts(other), other
    assert not hall.accepts(hall.seal(network=keccak(b"another network")))
    assert hall.accepts((epoch, view, root, rx, ry, s))


def test_a_seal_is_taken_once_by_each_caller(hall: Hall) -> None:
    seal = hall.seal()
    hall.world.call("Committee", "take", seal, sender="first")
    with hall.world.reverts("committee: taken before"):
        hall.world.call("Committee", "take", seal, sender="first")
    with hall.world.reverts("committee: taken before"):
        hall.world.call("Committee", "take", hall.seal(root=keccak(b"x")), sender="first")
    hall.world.call("Committee", "take", seal, sender="second")
    hall.world.call("Committee", "take", hall.seal(view=6), sender="first")
    with hall.world.reverts("committee: bad seal"):
        hall.world.call("Committee", "take", (*seal[:5], seal[5] ^ 1), sender="third")


def test_keys_out_of_range_verify_nothing(hall: Hall) -> None:
    _, _, _, rx, ry, s = hall.seal()
    for px in (0, N, N + 1, P, 2**256 - 1, 5):
        assert not hall.world.call("Committee", "verify_bip340", px, ROOT, rx, ry, s).value


def test_genesis_happens_once_and_by_the_deployer() -> None:
    hall = Hall()
    with hall.world.reverts("committee: not the deployer"):
        hall.genesis(sender="stranger")
    hall.genesis()
    with hall.world.reverts("committee: not the deployer"):
        hall.genesis()
    assert hall.world.call("Committee", "current").value == 1
    assert hall.world.call("Committee", "network").value == NETWORK
    got = hall.world.call("Committee", "members", 1).value
    assert [bytes.fromhex(address[2:]) for address in got] == members(4)
    assert hall.world.call("Committee", "quorum", 1).value == 3
    assert hall.world.call("Committee", "is_member", 1, members(4)[2]).value
    assert not hall.world.call("Committee", "is_member", 1, members(5)[4]).value
    assert not hall.world.call("Committee", "is_member", 2, members(4)[2]).value


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epoch": 0}, "committee: epoch zero"),
        ({"key": 0}, "committee: bad group key"),
        ({"key": N}, "committee: bad group key"),
        ({"key": 5}, "committee: bad group key"),
        ({"config": bytes(32)}, "committee: empty config"),
        ({"members": []}, "committee: no members"),
        ({"members": [bytes(20)]}, "committee: empty member"),
        ({"members": [b"\x01" * 20, b"\x02" * 20, b"\x01" * 20]}, "committee: repeated member"),
    ],
)
def test_a_bad_genesis_is_refused(changes: dict[str, Any], reason: str) -> None:
    hall = Hall()
    fields = {
        "epoch": 1,
        "key": int.from_bytes(hall.group.x_only, "big"),
        "config": CONFIG,
        "members": members(4),
    }
    with hall.world.reverts(reason):
        hall.world.call("Committee", "genesis", *{**fields, **changes}.values(), sender="deployer")


# ---- rotation


def test_the_old_committee_names_the_next_after_a_timelock(hall: Hall) -> None:
    change = hall.change()
    receipt = hall.propose(change)
    (event,) = hall.world.events(receipt, "Committee", "ChangeProposed")
    assert event["ready_at"] == hall.world.block + TIMELOCK
    (used,) = hall.world.events(receipt, "Committee", "LeafUsed")
    assert used["leaf"] == hall.change_leaf(change)
    hall.world.mine(TIMELOCK - 1)
    with hall.world.reverts("committee: timelocked"):
        hall.world.call("Committee", "activate", members(7))
    hall.world.mine(1)
    with hall.world.reverts("committee: other members"):
        hall.world.call("Committee", "activate", members(4))
    hall.world.call("Committee", "activate", members(7))
    assert hall.world.call("Committee", "current").value == 2
    assert hall.world.call("Committee", "quorum", 2).value == 5
    # both keys count until the old one expires
    old = hall.seal(view=9)
    digest = seal_digest(NETWORK, 2, 9, ROOT)
    new = (2, 9, ROOT, *frost_sign(hall.next, hall.next_shares, digest).evm())
    assert hall.accepts(old)
    assert hall.accepts(new)
    assert hall.world.call("Committee", "expiry", 1).value == 1_050
    hall.world.mine(1_050 - hall.world.block)
    assert not hall.accepts(old)
    assert not hall.world.call("Committee", "is_active", 1).value
    assert hall.accepts(new)
    with hall.world.reverts("committee: nothing pending"):
        hall.world.call("Committee", "activate", members(7))


def test_an_old_key_cannot_outlive_the_grace(hall: Hall) -> None:
    hall.propose(hall.change(old_expiry=2**64 - 1))
    hall.world.mine(TIMELOCK)
    hall.world.call("Committee", "activate", members(7))
    assert hall.world.call("Committee", "expiry", 1).value == hall.world.block + GRACE


def test_an_old_committee_cannot_change_the_next(hall: Hall) -> None:
    hall.propose(hall.change())
    hall.world.mine(TIMELOCK)
    hall.world.call("Committee", "activate", members(7))
    with hall.world.reverts("committee: not the current epoch"):
        hall.propose(hall.change(next_epoch=3), view=99)


def test_a_later_word_replaces_a_pending_change(hall: Hall) -> None:
    hall.propose(hall.change())
    hall.world.mine(5)
    with hall.world.reverts("committee: older view"):
        hall.propose(hall.change(old_expiry=1_060))
    hall.propose(hall.change(old_expiry=1_060), view=6)
    hall.world.mine(TIMELOCK - 1)
    with hall.world.reverts("committee: timelocked"):
        hall.world.call("Committee", "activate", members(7))


def test_bad_changes_are_refused(hall: Hall) -> None:
    world, change = hall.world, hall.change()
    for fields, reason in (
        ({"next_epoch": 1}, "committee: not the next epoch"),
        ({"next_epoch": 3}, "committee: not the next epoch"),
        ({"group_key": 5}, "committee: bad group key"),
        ({"config": bytes(32)}, "committee: empty config"),
    ):
        with world.reverts(reason):
            hall.propose(hall.change(**fields))
    for place in (
        {"network": keccak(b"x")},
        {"epoch": 2},
        {"chain": 5},
        {"contract": b"\x01" * 20},
    ):
        with world.reverts("committee: not in the root"):
            hall.propose(change, **place)
    seal, proof = hall.sealed_change(change)
    with world.reverts("committee: not in the root"):
        world.call("Committee", "propose_change", seal, proof, hall.change(old_expiry=7))
    with world.reverts("committee: bad seal"):
        world.call("Committee", "propose_change", (*seal[:5], seal[5] ^ 1), proof, change)


# ---- finality certificates


def certificate(
    signers: list[int], view: int = 5, root: bytes = ROOT, **other: Any
) -> tuple[tuple[Any, ...], list[tuple[bytes, bytes]]]:
    """Return (fields of verify_votes but the signatures, the signatures)."""
    block = {"parent_view": 4, "parent": keccak(b"p"), "tick": 77, "body": keccak(b"b")}
    digest = block_digest(block["parent_view"], block["parent"], 77, block["body"], root)  # type: ignore[arg-type]  # a mixed dict
    vote = vote_digest(1, other.get("config", CONFIG), other.get("kind", 3), view, digest)
    sigs = [compact(World.key(f"operator {i}"), vote) for i in signers]
    bitmap = sum(1 << i for i in signers)
    return (1, view, root, *block.values(), bitmap), sigs


def test_a_quorum_of_votes_is_believed(hall: Hall) -> None:
    for signers in ([0, 1, 2], [0, 2, 3], [1, 2, 3], [0, 1, 2, 3]):
        fields, sigs = certificate(signers)
        assert hall.world.call("Committee", "verify_votes", *fields, sigs).value


def test_votes_that_are_not_a_quorum_are_not_believed(hall: Hall) -> None:
    def believed(fields: tuple[Any, ...], sigs: list[tuple[bytes, bytes]]) -> bool:
        return bool(hall.world.call("Committee", "verify_votes", *fields, sigs).value)

    fields, sigs = certificate([0, 1, 2])
    assert believed(fields, sigs)
    assert not believed(*certificate([0, 1]))
    assert not believed(*certificate([0, 1, 2], kind=1))
    assert not believed(*certificate([0, 1, 2], config=keccak(b"other")))
    assert not believed(*certificate([0, 1, 4]))
    assert not believed(fields, sigs[:2])
    assert not believed(fields, [*sigs, sigs[0]])
    assert not believed(fields, [sigs[1], sigs[0], sigs[2]])
    assert not believed(fields, [sigs[0], sigs[0], sigs[0]])
    for at, other in ((0, 2), (1, 6), (2, keccak(b"x")), (3, 5), (4, keccak(b"y")), (5, 78)):
        assert not believed((*fields[:at], other, *fields[at + 1 :]), sigs)
    assert not believed((*fields[:7], 0b1111), sigs)
    assert not believed((*fields[:7], 0b0111 | 1 << 200), sigs)
    r, vs = sigs[0]
    high = (N - int.from_bytes(vs, "big") % 2**255).to_bytes(32, "big")
    assert not believed(fields, [(r, high), *sigs[1:]])
    assert not believed(fields, [(bytes(32), bytes(32)), *sigs[1:]])


def test_a_stuck_group_rotates_by_votes(hall: Hall) -> None:
    change = hall.change()
    rows = (hall.change_leaf(change), keccak(b"other"))
    fields, sigs = certificate([1, 2, 3], root=merkle_root(rows))
    proof = merkle_proof(rows, 0)
    hall.world.call("Committee", "propose_change_by_votes", fields, sigs, proof, change)
    with hall.world.reverts("committee: bad certificate"):
        hall.world.call("Committee", "propose_change_by_votes", fields, sigs[:2], proof, change)
    hall.world.mine(TIMELOCK)
    hall.world.call("Committee", "activate", members(7))
    assert hall.world.call("Committee", "current").value == 2


def test_votes_of_an_expired_committee_are_not_believed(hall: Hall) -> None:
    hall.propose(hall.change(old_expiry=0))
    hall.world.mine(TIMELOCK)
    hall.world.call("Committee", "activate", members(7))
    fields, sigs = certificate([0, 1, 2])
    assert not hall.world.call("Committee", "verify_votes", *fields, sigs).value


def test_operators_are_those_of_the_votes() -> None:
    assert address_of(World.key("operator 0")) == members(4)[0]


def test_gas_stays_within_its_goals() -> None:
    from scripts.benches._gas_committee import gas_figures

    figures = gas_figures()
    for name, (value, limit) in figures.items():
        assert limit is None or value <= limit, f"{name}: {value} > {limit}"
    sizes = {value for name, (value, _) in figures.items() if name.startswith("verify only")}
    assert max(sizes) - min(sizes) <= 100
