"""A sealed snapshot for people and strangers: its summary, and proofs of single facts.

account ─▶ state leaf (and watch leaf, if near its limit) ─▶ root in the header ─▶ seal
"""

from typing import Any

from keeper.leaves import HEADER
from keeper.margin.proof import SealedFact, Struct
from keeper.margin.tree import STATE_TYPE, WATCH_TYPE
from keeper.merkle import merkle_proof
from keeper.snapshot.archive import Archived
from keeper.snapshot.derive import (
    Setting,
    Snapshot,
    decision_leaves,
    watch_leaves,
    watched,
)
from keeper.snapshot.header import HEADER_TYPE, header_values
from keeper.snapshot.registry import whole_tree
from keeper.units import symbol_text


def summary(archived: Archived) -> dict[str, Any]:
    """Return a sealed or final view as plain values."""
    header = archived.header
    return {
        "epoch": header.epoch,
        "view": header.view,
        "tick": header.tick,
        "root": archived.root,
        "sealed": archived.seal is not None,
        "accounts": header.totals.accounts,
        "equity_uusd": header.totals.equity,
        "imr_uusd": header.totals.imr,
        "mmr_uusd": header.totals.mmr,
        "cut": {str(ref.chain): {"number": ref.number, "hash": ref.hash} for ref in header.cut},
        "state_root": header.state_root,
        "watch_root": header.watch_root,
        "price_root": header.price_root,
        "decisions": [
            {"kind": one.kind, "chain": one.chain, "leaf": one.leaf} for one in archived.decisions
        ],
    }


def account_of(snapshot: Snapshot, account: bytes) -> dict[str, Any] | None:
    """Return what a snapshot says of one account, or None when it does not know it."""
    entry = snapshot.book.registry.get(account)
    if entry is None:
        return None
    margin = snapshot.margins.get(account)
    value: dict[str, Any] = {
        "account": account,
        "index": entry.index,
        "sequence": entry.sequence,
        "legs_hash": entry.legs_hash,
        "legs": [
            {
                "chain": leg.chain,
                "venue": leg.venue,
                "market": symbol_text(leg.market),
                "kind": leg.kind.name.lower(),
                "size": leg.size,
                "quote_uusd": leg.quote,
                "funding": leg.funding,
            }
            for leg in snapshot.legs.get(account, ())
        ],
    }
    if margin is not None:
        value |= {
            "equity_uusd": margin.equity,
            "imr_uusd": margin.imr,
            "mmr_uusd": margin.mmr,
            "requirement_uusd": margin.requirement,
            "free_collateral_uusd": margin.free_collateral,
            "health_ppm": margin.health_ppm,
            "healthy": margin.healthy,
        }
    return value


def prove_account(
    setting: Setting, snapshot: Snapshot, archived: Archived, group_key: int, account: bytes
) -> list[SealedFact]:
    """Return the proof of an account's state, and of its margin where it is watched.

    Args:
        setting: the epoch's constants.
        snapshot: the state of the view.
        archived: the same view with its seal.
        group_key: x-only key that sealed it.
        account: 32 bytes.

    Raises:
        ValueError: the view is not sealed here, or does not know the account.
    """
    entry = snapshot.book.registry.get(account)
    if archived.seal is None or entry is None:
        raise ValueError("the view is not sealed here, or does not know the account")
    registry = snapshot.book.registry
    tree = snapshot.tree if len(snapshot.tree) == len(registry) else whole_tree(registry)
    fact = Struct(STATE_TYPE, (entry.index, account, entry.sequence, entry.legs_hash, 0))
    facts = [_fact(setting, archived, group_key, "state", fact, tuple(tree.proof(entry.index)))]
    parameters = snapshot.parameters(setting)
    near = watched(parameters, snapshot.margins)
    if account in near:
        margin = snapshot.margins[account]
        values = (
            account,
            margin.equity,
            margin.imr,
            margin.mmr,
            max(0, margin.health_ppm),
            setting.epoch,
        )
        leaves = watch_leaves(parameters, setting.epoch, snapshot.margins)
        proof = merkle_proof(leaves, near.index(account))
        watch = Struct(WATCH_TYPE, values)
        facts.append(_fact(setting, archived, group_key, "watch", watch, proof))
    return facts


def _fact(
    setting: Setting,
    archived: Archived,
    group_key: int,
    tree: str,
    fact: Struct,
    proof: tuple[bytes, ...],
) -> SealedFact:
    header = archived.header
    assert archived.seal is not None, "the caller has checked it"
    leaves = decision_leaves(setting, header, archived.decisions)
    return SealedFact(
        tree=tree,
        fact=fact,
        proof=proof,
        header=Struct(HEADER_TYPE, header_values(header)),
        header_leaf=Struct(HEADER, (setting.network.id, header.epoch, header.view, header.hash())),
        header_proof=merkle_proof(leaves, 0),
        network=setting.network.id,
        epoch=header.epoch,
        view=header.view,
        root=archived.root,
        rx=archived.seal[0],
        s=archived.seal[2],
        group_key=group_key,
    )
