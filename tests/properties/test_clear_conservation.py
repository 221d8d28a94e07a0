"""Laws of clearing under any order: decisions arrive late, twice, never, after they expired, or in
blocks that are taken back.

A run is a few hundred moves of owners, messengers and chains, drawn from a seed. With prices that
stand still nothing an owner does may leave an account below its initial requirement, whatever
credits and releases are in flight. With prices that move, sums stay exact and no sealed decision
ever finds its tokens gone. Negative controls show that the laws notice a rule that forgets what is
in flight.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.clear import credit, outstanding, release, transfer
from keeper.clear.conservation import imbalances
from keeper.snapshot.decisions import Decision
from keeper.units import ChainId
from keeper.venue.book import system_accounts
from keeper.venue.ledger import Ledger, decode
from tests.support.clearing_world import (
    BTC,
    E8,
    ETH,
    HOUSE,
    INSURANCE,
    NETWORK,
    UNIT,
    USD,
    WETH,
    A,
    B,
    Refused,
    World,
    trader,
)

TRADERS = tuple(trader(number) for number in range(1, 4))
HARMLESS = ("decision used", "decision expired", "no such request", "a newer request is open")
ROUNDING = 100
"""µUSD: one a trade is rounded against the account, and a run has fewer trades than this."""


def attempt(call: Callable[[], None]) -> str:
    """Return why the contract refuses, or nothing."""
    try:
        call()
    except Refused as refused:
        return str(refused)
    return ""


class Run:
    """One drawn history; `step` makes one move, `check` holds after every move."""

    def __init__(self, seed: int, still: bool) -> None:
        self.random, self.still = Random(seed), still
        self.world = World()
        self.counts: Counter[str] = Counter()
        self.lowest: dict[tuple[ChainId, bytes], int] = {}
        for account in TRADERS:
            self.world.deposit(account, A, self.random.randint(100, 2_000) * USD)
        self.world.deposit(HOUSE, A, 500 * USD)
        self.world.view()

    def step(self) -> None:
        move, who, place = self.random.random(), self._who(), self._place()
        if move < 0.06:
            self.world.deposit(who, place, self.random.randint(1, 200) * USD)
        elif move < 0.1:
            self.world.deposit(who, place, self.random.randint(1, 10**17), WETH)
        elif move < 0.25:
            self.ask_credit(who, place)
        elif move < 0.35:
            self.ask_release(who, place)
        elif move < 0.5:
            self.open(who, place)
        elif move < 0.62:
            self.close(who, place)
        elif move < 0.76:
            self.bring()
        elif move < 0.79:
            for _ in range(self.random.choice([1, 10, 40, 121])):
                self.world.chains[place].mine()
        elif move < 0.83:
            self.reorganise()
        elif move < 0.88:
            self.change_world()
        else:
            for _ in range(self.random.randint(1, 5)):
                self.world.view()

    def _who(self) -> bytes:
        return self.random.choice(TRADERS)

    def _place(self) -> ChainId:
        return self.random.choice([A, B])

    def ask_credit(self, who: bytes, place: ChainId) -> None:
        margin = self.world.snapshot.margins.get(who)
        if margin is not None and margin.equity > 0:
            percent = self.random.choice([10, 20, 30, 45, 60, 65, 100])
            self.world.request_credit(who, margin.equity * percent // 100, place)
            if self.random.random() < 0.8:
                self.world.view()
            if self.random.random() < 0.8:
                self.bring_fresh()

    def ask_release(self, who: bytes, place: ChainId) -> None:
        amount = self.world.balance(who, place) * self.random.choice([5, 20, 50, 80, 100]) // 100
        if amount:
            self.world.request_withdraw(who, place, amount)
            if self.random.random() < 0.8:
                self.world.view()

    def open(self, who: bytes, place: ChainId) -> None:
        """Take all, or half, of what the credit in force allows."""
        market, part = self.random.choice([ETH, BTC]), self.random.choice([1, 2])
        held, _ = self.world.chains[place].positions.get((who, market), (0, 0))
        sign = (1 if held > 0 else -1) if held else self.random.choice([1, -1])
        limit = self.world.chains[place].credits.get(who, (0, 0, 0))[0]
        size = limit * 20 * UNIT * 100 // self.world.prices[market] // part
        while size:
            refusal = attempt(partial(self.world.increase, who, sign * size, market, place))
            if not refusal:
                self.counts["opened"] += 1
                return
            assert refusal in ("credit expired", "above the credit")
            size = size * 2 // 3 if "above" in refusal else 0

    def close(self, who: bytes, place: ChainId) -> None:
        for (account, market), (size, _) in sorted(self.world.chains[place].positions.items()):
            if size and (account == who or self.random.random() < 0.5):
                self.world.close(account, market, place)
                self.counts["closed"] += 1
                total = self.world.chains[place].realised[account]
                lowest = self.lowest.get((place, account), 0)
                self.lowest[place, account] = min(lowest, total)

    def change_world(self) -> None:
        if self.still:
            return
        move = self.random.randint(-25, 25)
        self.world.prices[ETH] = max(E8, self.world.prices[ETH] * (100 + move) // 100)
        self.world.prices[WETH] = self.world.prices[ETH]
        if self.random.random() < 0.3:
            self.world.deposit(INSURANCE, A, self.random.randint(1, 200) * USD)

    def reorganise(self) -> None:
        """Bring decisions into blocks that are taken back before they are final, perhaps again."""
        before = self.counts.copy()
        with self.world.abandoned():
            self.bring_fresh()
            self.bring()
        self.counts = before
        self.counts["reorganised"] += 1
        if self.random.random() < 0.5:
            self.bring_fresh()

    def bring_fresh(self) -> None:
        for decision in self.world.snapshot.book.outstanding:
            self._bring(decision)

    def bring(self) -> None:
        if self.random.random() < 0.5:
            self.bring_fresh()
        elif self.world.sealed:
            self._bring(self.random.choice(self.world.sealed[-12:]))

    def _bring(self, decision: Decision) -> None:
        if decision.kind in ("Award", "Penalty", "Attestation"):
            return
        refusal = attempt(partial(self.world.bring, decision))
        assert refusal in ("", *HARMLESS), refusal
        if not refusal:
            self.counts[decision.kind] += 1

    def check(self) -> None:
        world = self.world
        tables = {chain: model.table for chain, model in world.chains.items()}
        assert imbalances(NETWORK, tables, world.snapshot.book.rules, world.moved) == ()
        ledger = decode(world.snapshot.book.rules["transfer"]).advance(tables, {})
        for (chain, _, account), settled in ledger.settled.items():
            if account in TRADERS:
                assert settled >= self.lowest.get((chain, account), 0), "charged more than was lost"
        if self.still:
            apart = system_accounts(NETWORK)
            for account, margin in world.snapshot.margins.items():
                if account not in apart:
                    assert margin.free_collateral >= -ROUNDING, margin
                    assert margin.healthy


def run(seed: int, still: bool, steps: int) -> Counter[str]:
    one = Run(seed, still)
    for _ in range(steps):
        one.step()
        one.check()
    return one.counts


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_nobody_comes_below_the_requirement_by_what_is_in_flight(seed: int) -> None:
    run(seed, still=True, steps=60)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_sums_are_exact_and_no_decision_finds_its_tokens_gone(seed: int) -> None:
    run(seed, still=False, steps=60)


def test_the_runs_exercise_every_decision() -> None:
    total: Counter[str] = Counter()
    for seed in range(4):
        total += run(seed, still=False, steps=150)
    kinds = ("Credit", "Release", "Transfer", "opened", "closed", "reorganised")
    assert min(total[kind] for kind in kinds) >= 4, total


def _finds_a_fault(still: bool) -> bool:
    for seed in range(60):
        try:
            run(seed, still, steps=60)
        except AssertionError:
            return True
    return False


def test_control_forgetting_credits_in_flight_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (credit, release):
        monkeypatch.setattr(module, "living_limits", lambda context, decisions: {})
    assert _finds_a_fault(still=True)


def test_control_a_limit_at_face_value_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        outstanding, "worst_requirement", lambda engine, legs, limits: sum(limits.values())
    )
    assert _finds_a_fault(still=True)


def test_control_forgetting_releases_in_flight_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit, "legs_after_releases", lambda network, who, legs, flying: legs)
    one, who = Run(1, still=True), TRADERS[0]
    held = one.world.balance(who, A)
    one.world.request_withdraw(who, A, held * 9 // 10)
    one.world.view()
    one.world.request_credit(who, held * 4 // 10)
    one.world.view()
    one.bring_fresh()
    one.open(who, B)
    one.world.view()
    with pytest.raises(AssertionError):
        one.check()


def test_control_paying_a_result_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "taken_tokens", lambda decisions: {})
    monkeypatch.setattr(Ledger, "in_flight", lambda self: {})
    assert _finds_a_fault(still=False)
