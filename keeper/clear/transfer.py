"""Transfer: what was won and lost at a venue becomes tokens, wherever the collateral is.

    unsettled < 0 ── loser's vaults ───▶ house     settlement asset first, then others less haircut
                  └─ insurance ────────▶ house     once the loser holds nothing more
                  └─ shared loss                   once insurance is empty: pro rata on profits
    unsettled > 0 ── house ────────────▶ winner    never more than the house holds

Results are netted over a window of ticks. A transfer counts for the amount it clears, rounded
against who pays, and moves two entries of the ledger by opposite amounts (keeper/venue/ledger.py).
Tokens in flight are counted as gone for whoever pays, so nothing is promised twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from keeper.clear.money import Purse, Purses, available, paying_amount, paying_value
from keeper.clear.outstanding import room, taken_tokens
from keeper.leaves import transfer_leaf
from keeper.legs import LegKind
from keeper.margin.adl import pro_rata
from keeper.margin.breaker import Action
from keeper.margin.engine import Engine
from keeper.margin.marks import Unpriced
from keeper.network import ChainSpec
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import stopped
from keeper.snapshot.marks import engine_at
from keeper.units import PPM, ChainId
from keeper.venue.book import (
    LEDGER_STATE,
    SystemAccount,
    house_account,
    pot_account,
    system_account,
    system_accounts,
    unsettled,
)
from keeper.venue.ledger import Key, Ledger, Pending, decode

MAX_PER_VIEW = 96
"""Transfers of one view: a fifth of what a proposal may carry, so no other rule is starved."""


@dataclass(frozen=True, slots=True)
class Movement:
    """Tokens of one purse to another account, and the µUSD that it clears for `debtor`."""

    purse: Purse
    to: bytes
    amount: int
    value: int
    entries: tuple[tuple[Key, int], ...]


@dataclass(frozen=True, slots=True)
class TransferRule:
    """Clears realised results; its state is the ledger."""

    name: str = LEDGER_STATE

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return Ledger().encode()

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the next ledger and the transfers of this view."""
        heights = {chain: block.number for chain, block in context.cut.items()}
        ledger = decode(state).advance(context.tables, heights)
        window = context.tick // context.parameters.clearing.netting_ticks
        cursed = any(stopped(context, Action.SIGN, chain) for chain in context.cut)
        if window <= ledger.window or cursed:  # nobody's loss is shared while a purse is unsure
            return ledger.encode(), ()
        most = room(context, MAX_PER_VIEW)
        purses = available(context, taken_tokens(context.outstanding))
        made: list[Decision] = []
        for spec in context.network.chains:
            if spec.id not in context.tables or spec.id not in context.cut:
                continue
            if spec.contract("Perps") is None:
                continue
            venue = Clearing(context, spec, ledger, purses, most - len(made))
            decisions, ledger = venue.clear()
            made += decisions
        ledger = replace(ledger, window=window)
        return ledger.encode(), tuple(sorted(made, key=lambda decision: decision.order))


class Clearing:
    """One venue's netting in one view.

    Invariants: no purse pays more than it holds after what is in flight; every movement's entries
    sum to zero.
    """

    def __init__(
        self, context: Context, spec: ChainSpec, ledger: Ledger, purses: Purses, room: int
    ) -> None:
        self.context, self.spec, self.ledger, self.purses = context, spec, ledger, purses
        self.room = room
        self.house = house_account(context.network, spec.id)
        self.insurance = system_account(context.network, SystemAccount.INSURANCE)

    def clear(self) -> tuple[list[Decision], Ledger]:
        """Return the transfers, and the ledger with them pending."""
        venue = self.spec.contract("Perps")
        if venue is None:
            return [], self.ledger
        apart = {self.house, pot_account(self.context.network, venue)}
        least = self.context.parameters.clearing.transfer_minimum
        due = {
            account: amount
            for account, amount in self._due(venue).items()
            if account not in apart and abs(amount) >= least
        }
        made: list[Decision] = []
        for account in sorted(due):
            if due[account] < 0:
                made += self._issue(self._collect(venue, account, -due[account]))
        made += self._issue(self._pay(venue, {a: v for a, v in due.items() if v > 0}))
        return made, self.ledger

    def _due(self, venue: bytes) -> dict[bytes, int]:
        """Return account → unsettled µUSD that no transfer in flight clears."""
        records = self.context.tables[self.spec.id]
        due = unsettled(self.spec, records, self.ledger)
        for (chain, at, account), amount in self.ledger.in_flight().items():
            if chain == self.spec.id and at == venue:
                due[account] = due.get(account, 0) - amount
        return due

    def _entries(self, venue: bytes, account: bytes, value: int) -> tuple[tuple[Key, int], ...]:
        """Return entries that settle `value` of the account against the house."""
        return (
            ((self.spec.id, venue, account), value),
            ((self.spec.id, venue, self.house), -value),
        )

    def _collect(self, venue: bytes, account: bytes, owed: int) -> Iterator[Movement]:
        """Yield payments of a loss: own collateral, then insurance, then the shared loss."""
        left = owed
        for movement in self._draw(venue, account, account, left):
            left -= movement.value
            yield movement
        if left == 0 or self._is_open(account) or self._can_pay_later(account):
            return
        for movement in self._draw(venue, self.insurance, account, left):
            left -= movement.value
            yield movement
        if left and not self._can_pay_later(self.insurance):
            self._share_loss(venue, account, left)

    def _draw(self, venue: bytes, payer: bytes, account: bytes, owed: int) -> Iterator[Movement]:
        """Yield movements from a payer's purses to the house that clear a loss of `account`."""
        for purse in self.purses.of(payer, self.spec.id):
            if owed == 0:
                return
            amount, value = paying_amount(purse, owed)
            if value == 0:
                continue
            owed -= value
            yield Movement(purse, self.house, amount, value, self._entries(venue, account, -value))

    def _can_pay_later(self, account: bytes) -> bool:
        """Return whether an account holds something of worth, in flight or unpriced included."""
        assets = self.context.parameters.margin.asset_of
        for leg in self.context.legs.get(account, ()):
            if leg.kind is not LegKind.COLLATERAL or not leg.size:
                continue
            if leg.market in self.context.parameters.clearing.settlement_assets:
                return True
            mark, asset = self.context.prices.get(leg.market), assets.get(leg.market)
            if asset is not None:
                price = mark.price_e8 if mark is not None else 0
                worth = leg.size * price * (PPM - asset.haircut_ppm)
                if price == 0 or worth >= PPM * 10 ** (asset.decimals + 2):
                    return True
        return False

    def _is_open(self, account: bytes) -> bool:
        """Return whether an account holds a position: its loss can wait for the liquidation."""
        legs = self.context.legs.get(account, ())
        return any(leg.size and leg.kind is LegKind.PERP for leg in legs)

    def _share_loss(self, venue: bytes, account: bytes, loss: int) -> None:
        """Book a loss that nobody can pay against the venue's profits, pro rata."""
        profits = profits_at(self.context, self.spec, self.ledger)
        profits.pop(account, None)
        shares = pro_rata(loss, profits)
        shared = sum(shares.values())
        entries = [((self.spec.id, venue, account), -shared)]
        entries += [((self.spec.id, venue, who), share) for who, share in shares.items() if share]
        self.ledger = self.ledger.book(tuple(entries))

    def _pay(self, venue: bytes, due: dict[bytes, int]) -> Iterator[Movement]:
        """Yield payments of profits, pro rata when the house holds too little for all."""
        held = sum(paying_value(purse) for purse in self.purses.of(self.house, self.spec.id))
        for account, want in pro_rata(min(held, sum(due.values())), due).items():
            left = want
            for purse in self.purses.of(self.house, self.spec.id, account):
                if left == 0:
                    break
                amount, value = paying_amount(purse, left, to_owner=True)
                if value == 0:
                    continue
                left -= value
                entries = self._entries(venue, account, value)
                yield Movement(purse, account, amount, value, entries)

    def _issue(self, movements: Iterable[Movement]) -> list[Decision]:
        """Return decisions for movements, taking their tokens and numbering them."""
        made = []
        for movement in movements:
            if self.room <= 0:
                break
            self.room -= 1
            self.purses.take(movement.purse, movement.amount)
            decision = self._decision(movement)
            pending = Pending(
                decision.leaf,
                decision.chain,
                decision.contract,
                decision.expiry,
                movement.entries,
            )
            self.ledger = replace(
                self.ledger,
                pending=(*self.ledger.pending, pending),
                nonce=self.ledger.nonce + 1,
            )
            made.append(decision)
        return made

    def _decision(self, movement: Movement) -> Decision:
        purse, nonce = movement.purse, self.ledger.nonce
        blocks = self.context.parameters.clearing.transfer_blocks
        expiry = self.context.cut[purse.chain].number + blocks
        return Decision(
            kind="Transfer",
            chain=purse.chain,
            contract=purse.vault,
            key=nonce.to_bytes(8, "big"),
            leaf=transfer_leaf(
                self.context.network.id,
                self.context.epoch,
                purse.chain,
                purse.vault,
                source=purse.account,
                to=movement.to,
                token=purse.token,
                amount=movement.amount,
                nonce=nonce,
                expiry=expiry,
            ),
            fields=(purse.account, movement.to, purse.token, movement.amount, nonce, expiry),
            expiry=expiry,
            holds=((purse.account, movement.value),),
        )


def profits_at(context: Context, spec: ChainSpec, ledger: Ledger) -> dict[bytes, int]:
    """Return account → profit at a chain's venue, unrealised and unsettled together; no losses."""
    engine: Engine = engine_at(context)
    due = unsettled(spec, context.tables[spec.id], ledger)
    apart = system_accounts(context.network)
    venue: tuple[ChainId, bytes | None] = (spec.id, spec.contract("Perps"))
    found = {}
    for account in sorted(set(context.legs) | set(due)):
        if account in apart:
            continue
        legs = [
            leg
            for leg in context.legs.get(account, ())
            if leg.kind is LegKind.PERP and (leg.chain, leg.venue) == venue
        ]
        try:
            profit = engine.margin(engine.rows(legs)).equity + due.get(account, 0)
        except Unpriced:
            continue
        if profit > 0:
            found[account] = profit
    return found
