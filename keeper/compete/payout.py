"""Paying the pools out: what prices put aside for members and for keepers that keep their word.

    committee account   ─▶ members by the views whose payload carries their observation
    consistency account ─▶ keepers by executions as rank 0 against no-shows, over all time

Once every `reward_ticks`, as `Transfer` decisions from the pool's own vault balances, settlement
assets only. What rounding or the minimum leaves stays in the pool for the next time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from keeper.compete.rewards import consistency, participation, pool_shares
from keeper.leaves import transfer_leaf
from keeper.snapshot.decisions import Context, Decision
from keeper.units import ChainId
from keeper.venue.awards import absences, executions
from keeper.venue.book import SystemAccount, system_account
from keeper.venue.vault import balances

MAX_PER_VIEW = 64
"""Payments of one view: two pools for 31 members; the rest waits for the next time."""


@dataclass(frozen=True, slots=True)
class PayoutRule:
    """Pays the two pools; its state counts views per member since the last payment."""

    name: str = "payout"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return _encode(0, (), 0, 0)

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the counts after this view, and the payments when their time has come."""
        epoch, counts, window, nonce = msgpack.unpackb(state, use_list=False)
        size = len(context.members)
        bitmap = sum(1 << one.member for one in context.observed)
        seen = participation((bitmap,), size)
        before = counts if epoch == context.epoch and len(counts) == size else (0,) * size
        now = tuple(a + b for a, b in zip(before, seen, strict=True))
        due = context.tick // context.parameters.competition.reward_ticks
        if due <= window:
            return _encode(context.epoch, now, window, nonce), ()
        committee = dict(zip(context.members, now, strict=True))
        made = _pay(context, SystemAccount.COMMITTEE, committee, nonce)
        kept = _pay(context, SystemAccount.CONSISTENCY, _promises(context), nonce + len(made))
        made = [*made, *kept][:MAX_PER_VIEW]
        left = (0,) * size if made else now
        decisions = tuple(sorted(made, key=lambda decision: decision.order))
        return _encode(context.epoch, left, due, nonce + len(made)), decisions


def _encode(epoch: int, counts: tuple[int, ...], window: int, nonce: int) -> bytes:
    packed: bytes = msgpack.packb([epoch, counts, window, nonce])
    return packed


def _promises(context: Context) -> dict[bytes, int]:
    """Return keeper → consistency weight over all awards that ended on any chain."""
    results = []
    for spec in context.network.chains:
        records = context.tables.get(spec.id)
        if records is not None:
            results += [(e.keeper, True) for e in executions(spec, records) if e.rank == 0]
            results += [(a.keeper, False) for a in absences(spec, records)]
    return consistency(results)


def _pay(
    context: Context, pool: SystemAccount, weights: Mapping[bytes, int], nonce: int
) -> list[Decision]:
    """Return payments of one pool by weight, from every vault that holds some of it."""
    account = system_account(context.network, pool)
    assets = context.parameters.clearing.settlement_assets
    made: list[Decision] = []
    for spec in context.network.chains:
        records, vault = context.tables.get(spec.id), spec.contract("Vault")
        if records is None or vault is None or spec.id not in context.cut:
            continue
        tokens = {token.address for token in spec.tokens if token.asset in assets}
        for owner, token, held in balances(spec, records):
            if owner != account or token not in tokens:
                continue
            free = held - _in_flight(context, spec.id, account, token)
            for keeper, amount in pool_shares(max(0, free), weights).items():
                if amount >= context.parameters.clearing.transfer_minimum:
                    to = context.network.account(keeper)
                    at = (spec.id, vault, token)
                    made.append(_transfer(context, at, account, to, amount, nonce + len(made)))
    return made[:MAX_PER_VIEW]


def _in_flight(context: Context, chain: ChainId, account: bytes, token: bytes) -> int:
    """Return what transfers on their way take from a pool."""
    return sum(
        decision.fields[3]
        for decision in context.outstanding
        if decision.kind == "Transfer"
        and decision.chain == chain
        and (decision.fields[0], decision.fields[2]) == (account, token)
        and isinstance(decision.fields[3], int)
    )


def _transfer(
    context: Context,
    at: tuple[ChainId, bytes, bytes],
    source: bytes,
    to: bytes,
    amount: int,
    nonce: int,
) -> Decision:
    chain, vault, token = at
    expiry = context.cut[chain].number + context.parameters.clearing.transfer_blocks
    leaf = transfer_leaf(
        context.network.id,
        context.epoch,
        chain,
        vault,
        source=source,
        to=to,
        token=token,
        amount=amount,
        nonce=nonce,
        expiry=expiry,
    )
    return Decision(
        kind="Transfer",
        chain=chain,
        contract=vault,
        key=b"payout" + nonce.to_bytes(8, "big"),
        leaf=leaf,
        fields=(source, to, token, amount, nonce, expiry),
        expiry=expiry,
    )
