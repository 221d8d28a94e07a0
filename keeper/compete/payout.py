"""Paying the pools out: what prices put aside for members and for keepers that keep their word.

    committee account   ─▶ members by the views whose payload carries their observation
    consistency account ─▶ keepers by executions as rank 0 against no-shows, over all time
    protocol account    ─▶ winners, for the gas of their executions and half of what they saved

Once every `reward_ticks`, as `Transfer` decisions from the pool's own vault balances, settlement
assets only. What rounding or the minimum leaves stays in the pool for the next time. A gas refund
is a debt of the protocol account: what it cannot pay now it owes the next time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from keeper.compete.rewards import consistency, gas_refund, participation, pool_shares
from keeper.leaves import transfer_leaf
from keeper.snapshot.decisions import Context, Decision
from keeper.units import PPM, ChainId
from keeper.venue.awards import absences, executions
from keeper.venue.book import SystemAccount, system_account
from keeper.venue.vault import balances

MAX_PER_VIEW = 48
"""Payments of one view: a pool for 31 members and half of another; the rest waits its turn."""


@dataclass(frozen=True, slots=True)
class Payout:
    """The rule's state.

    Args:
        epoch: whose members `counts` is about.
        counts: views per member since the last payment.
        window: the last period that was paid for.
        nonce: numbers payments.
        refunded: keeper → µUSD of gas refunded over all time, sorted.
    """

    epoch: int = 0
    counts: tuple[int, ...] = ()
    window: int = 0
    nonce: int = 0
    refunded: tuple[tuple[bytes, int], ...] = ()

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        refunded = [[keeper, str(amount)] for keeper, amount in self.refunded]
        packed: bytes = msgpack.packb([self.epoch, self.counts, self.window, self.nonce, refunded])
        return packed


def decode(raw: bytes) -> Payout:
    """Return the state that `encode` wrote."""
    epoch, counts, window, nonce, refunded = msgpack.unpackb(raw, use_list=False)
    return Payout(epoch, counts, window, nonce, tuple((who, int(much)) for who, much in refunded))


@dataclass(frozen=True, slots=True)
class Payment:
    """One transfer of a pool and what it is worth, µUSD."""

    keeper: bytes
    value: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class PayoutRule:
    """Pays the three pools."""

    name: str = "payout"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return Payout().encode()

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the counts after this view, and the payments when their time has come."""
        before = decode(state)
        size = len(context.members)
        bitmap = sum(1 << one.member for one in context.observed)
        known = before.epoch == context.epoch and len(before.counts) == size
        counts = before.counts if known else (0,) * size
        seen = participation((bitmap,), size)
        now = tuple(a + b for a, b in zip(counts, seen, strict=True))
        due = context.tick // context.parameters.competition.reward_ticks
        if due <= before.window:
            after = Payout(context.epoch, now, before.window, before.nonce, before.refunded)
            return after.encode(), ()
        owed = _owed(context, dict(before.refunded))
        pools = (
            (SystemAccount.COMMITTEE, dict(zip(context.members, now, strict=True)), False),
            (SystemAccount.PROTOCOL, owed, True),
            (SystemAccount.CONSISTENCY, _promises(context), False),
        )
        made: list[Payment] = []
        paid: dict[SystemAccount, list[Payment]] = {}
        for pool, weights, capped in pools:
            room = MAX_PER_VIEW - len(made)
            paid[pool] = _pay(context, pool, weights, before.nonce + len(made), capped)[:room]
            made += paid[pool]
        refunded = dict(before.refunded)
        for payment in paid[SystemAccount.PROTOCOL]:
            refunded[payment.keeper] = refunded.get(payment.keeper, 0) + payment.value
        left = (0,) * size if paid[SystemAccount.COMMITTEE] else now
        nonce = before.nonce + len(made)
        after = Payout(context.epoch, left, due, nonce, tuple(sorted(refunded.items())))
        decisions = sorted((one.decision for one in made), key=lambda decision: decision.order)
        return after.encode(), tuple(decisions)


def _promises(context: Context) -> dict[bytes, int]:
    """Return keeper → consistency weight over all awards that ended on any chain."""
    results = []
    for spec, records in context.seen_chains():
        results += [(e.keeper, True) for e in executions(spec, records) if e.rank == 0]
        results += [(a.keeper, False) for a in absences(spec, records)]
    return consistency(results)


def _owed(context: Context, refunded: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return keeper → µUSD of gas still to be refunded, over all its executions as rank 0."""
    rules = context.parameters.competition
    total: dict[bytes, int] = {}
    for spec, records in context.seen_chains():
        for one in executions(spec, records):
            if one.rank == 0:
                spent = one.spent // rules.bond_per_unit
                refund = gas_refund(spent, rules.gas_allowance, one.bonus)
                total[one.keeper] = total.get(one.keeper, 0) + refund
    return {keeper: max(0, owed - refunded.get(keeper, 0)) for keeper, owed in total.items()}


def _pay(
    context: Context,
    pool: SystemAccount,
    weights: Mapping[bytes, int],
    nonce: int,
    capped: bool,
) -> list[Payment]:
    """Return payments of one pool by weight, from every vault that holds some of it.

    Args:
        context: the view's inputs.
        pool: who pays.
        weights: keeper → share; if `capped`, the µUSD it is owed and never paid more than.
        nonce: of the first payment.
        capped: whether the weights are debts.
    """
    account, left = system_account(context.network, pool), dict(weights)
    assets = context.parameters.clearing.settlement_assets
    made: list[Payment] = []
    for spec, records in context.seen_chains():
        vault = spec.contract("Vault")
        units = {t.address: 10**t.decimals for t in spec.tokens if t.asset in assets}
        for owner, token, held in balances(spec, records):
            if vault is None or owner != account or token not in units:
                continue
            free = max(0, held - _in_flight(context, spec.id, account, token))
            worth = free * PPM // units[token]
            shares = pool_shares(min(worth, sum(left.values())) if capped else worth, left)
            for keeper, value in shares.items():
                if value >= context.parameters.clearing.transfer_minimum:
                    to = context.network.account(keeper)
                    at, amount = (spec.id, vault, token), value * units[token] // PPM
                    decision = _transfer(context, at, account, to, amount, nonce + len(made))
                    made.append(Payment(keeper, value, decision))
                    left[keeper] -= value if capped else 0
    return made


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
