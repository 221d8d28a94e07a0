"""Execution gas of seals: verify only, with the epoch registry, with a replay slot.

Every figure is one transaction with cold storage, without the 21,000 and the calldata. Committees
of 3/4 … 21/31 sign for real with FROST, so that "flat in t" is measured; q ECDSA recovers of a
finality certificate stand beside it.
"""

from typing import Any

from keeper.hashing import keccak
from p2p.frost.aggregate import Signature, aggregate
from p2p.frost.round1 import generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SigningPackage, sign
from p2p.frost.signer import seal_digest
from p2p.types import block_digest
from tests.support.contracts import NETWORK, World, compact, members, vote_digest
from tests.support.frost import deal, seeded

SIZES = ((3, 4), (5, 7), (11, 16), (21, 31))
CONFIG = keccak(b"config")
ROOT = keccak(b"root")
Figures = dict[str, tuple[int, int | None]]
"""Name → (gas, the most it should be)."""


def _signed(world: World, t: int, n: int, view: int) -> tuple[int, bytes, tuple[int, int, int]]:
    group, shares = deal(t, n, seed=("gas", t))
    digest = seal_digest(NETWORK, 1, view, ROOT)
    chosen = group.identifiers[:t]
    nonces = [generate_nonces(shares[i], seeded(("gas", t, i))) for i in chosen]
    package = SigningPackage(digest, sorted_commitments([n.commitments for n in nonces]))
    session = Session(group, package)
    made = {i: sign(session, shares[i], n) for i, n in zip(chosen, nonces, strict=True)}
    signature = aggregate(session, made)
    assert isinstance(signature, Signature)
    return int.from_bytes(group.x_only, "big"), digest, signature.evm()


def _votes(n: int, quorum: int) -> tuple[Any, ...]:
    parent, body = keccak(b"parent"), keccak(b"body")
    digest = vote_digest(1, CONFIG, 3, 5, block_digest(4, parent, 77, body, ROOT))
    sigs = [compact(World.key(f"operator {i}"), digest) for i in range(quorum)]
    return (1, 5, ROOT, 4, parent, 77, body, (1 << quorum) - 1, sigs)


def gas_figures(sizes: tuple[tuple[int, int], ...] = SIZES) -> Figures:
    """Return every figure; names sort by what is measured, then by committee."""
    figures: Figures = {}
    for t, n in sizes:
        world = World(exact=True)
        world.deploy("Committee", NETWORK, 10, 100)
        world.deploy("Snapshots", world.at["Committee"])
        px, digest, evm = _signed(world, t, n, 5)
        world.call("Committee", "genesis", 1, px, CONFIG, members(n), sender="deployer")
        name = f"{t}/{n}"
        only = world.call("Committee", "verify_bip340", px, digest, *evm)
        registry = world.call("Committee", "verify_seal", 1, 5, ROOT, *evm)
        taken = world.call("Committee", "take", (1, 5, ROOT, *evm))
        stored = world.call("Snapshots", "ensure", (1, 5, ROOT, *evm))
        votes = world.call("Committee", "verify_votes", *_votes(n, t))
        assert only.value
        assert registry.value
        assert votes.value
        figures[f"verify only {name}"] = (only.execution, 4_600)
        figures[f"verify with registry {name}"] = (registry.execution, 9_200)
        figures[f"verify with replay slot {name}"] = (taken.execution, 32_000)
        figures[f"verify and keep the root in Snapshots {name}"] = (stored.execution, None)
        figures[f"{t} x ecrecover {name}"] = (votes.execution, None)
    return figures
