"""The built-in deleverage policy: shrink an account one trusts it with, before others may.

    requirement ≤ equity < start ─▶ reduce the perp leg that frees most per unit closed
    no leg restores the target alone ─▶ reduce several, largest relief first

It acts only on accounts named in its configuration: reducing is a right the owner gave this keeper.
It opens nothing, moves no collateral and bids for nothing, so it is safe to leave running.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from keeper.units import PPM, ppm_ceil, symbol_text
from policies import sizing
from policies.api import (
    PERP,
    Account,
    Act,
    Decision,
    Kind,
    Leg,
    Manifest,
    MarketView,
    PlanStep,
    Skip,
    Wide,
    legs_of,
)
from policies.books import Books


class DeleverageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set."""

    accounts: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Account ids (hex) whose owners let this keeper reduce them.",
            extra_json_schema={"updatable": True},
        ),
    ] = ()
    start_ppm: Annotated[
        int, msgspec.Meta(ge=1_000_000, le=3_000_000, description="Act below this health.")
    ] = 1_050_000
    target_ppm: Annotated[
        int, msgspec.Meta(ge=1_000_000, le=4_000_000, description="Health to restore.")
    ] = 1_150_000
    margin_ppm: Annotated[
        int,
        msgspec.Meta(ge=1_000, le=1_000_000, description="Requirement a closed unit frees."),
    ] = 50_000
    cost_ppm: Annotated[
        int, msgspec.Meta(ge=0, le=100_000, description="What closing a unit costs.")
    ] = 1_000
    max_age_ms: Annotated[
        int, msgspec.Meta(ge=0, description="Oldest price to act on, in milliseconds.")
    ] = 60_000


def task_of(account: bytes) -> bytes:
    """Return the id under which an account's reduction is asked for: one is open at a time."""
    return hashlib.blake2b(b"deleverage" + account, digest_size=32).digest()


class Deleverage:
    """Reduces the positions of accounts it was given, before they can be liquidated."""

    manifest: ClassVar[Manifest] = Manifest(
        kind=Kind.DELEVERAGE, config=DeleverageConfig, wants=("accounts", "prices")
    )

    def __init__(self, config: DeleverageConfig | None = None) -> None:
        self.config = config or DeleverageConfig()
        self._mine = frozenset(
            bytes.fromhex(text.removeprefix("0x")) for text in self.config.accounts
        )

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return one decision per trusted account that is below the start."""
        books = Books(view)
        found: list[Decision] = [
            self._reduce(books, account)
            for account in sorted(view.accounts, key=lambda one: one.account)
            if account.account in self._mine
            and account.equity * PPM < self.config.start_ppm * account.requirement
        ]
        return found, state

    def _reduce(self, books: Books, account: Account) -> Decision:
        task = task_of(account.account)
        legs = [leg for leg in legs_of(account) if leg.kind == PERP and leg.size]
        if not legs:
            return Skip(task, "the account holds no position to reduce")
        fault = books.price_fault({leg.market for leg in legs}, self.config.max_age_ms)
        if fault:
            return Skip(task, fault)
        steps: list[PlanStep] = []
        equity, requirement = account.equity, account.requirement
        for leg in sorted(legs, key=lambda one: (-_notional(books, one), one.market, one.venue)):
            notional = _notional(books, leg)
            value = sizing.least_close(
                equity,
                requirement,
                notional,
                self.config.margin_ppm,
                self.config.cost_ppm,
                self.config.target_ppm,
            )
            if value <= 0:
                break
            price = books.prices[leg.market]
            size = min(abs(leg.size), sizing.size_for(value, price.price, price.decimals))
            equity -= ppm_ceil(value, self.config.cost_ppm)
            requirement -= value * self.config.margin_ppm // PPM
            steps.append(
                PlanStep(
                    f"reduce-{len(steps)}",
                    leg.chain,
                    "reduce",
                    leg.venue,
                    (("size", Wide(size)),),
                    (("account", account.account), ("market", leg.market)),
                )
            )
        names = ", ".join(symbol_text(leg.market) for leg in legs[: len(steps)])
        why = f"reduce {names}: health {account.health_ppm} ppm, target {self.config.target_ppm}"
        size = sum(int(step.numbers[0][1]) for step in steps)
        return Act(task, 0, Wide(size), 5_000, why, 0, tuple(steps))


def _notional(books: Books, leg: Leg) -> int:
    price = books.prices[leg.market]
    return sizing.value_ceil(abs(leg.size), price.price, price.decimals)
