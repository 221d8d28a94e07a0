"""Breakers inside agreed views: tripped by what was observed, told to chains, followed back."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import pytest

from keeper.clear.breakers import BreakerRule, decode
from keeper.clear.credit import CreditRule
from keeper.clear.release import ReleaseRule
from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.margin.breaker import EVERYWHERE, GRADES, Action, Level, Rule, allowed, chain_scope
from keeper.observe.observation import SeenHead
from keeper.parameters import Parameters
from keeper.snapshot.decisions import Decision, Observed
from tests.support.clearing_world import (
    ETH,
    GENESIS_MS,
    HOUSE,
    INSURANCE,
    UNIT,
    USD,
    A,
    B,
    ModelChain,
    World,
    fields,
    trader,
)

ALICE = trader(1)


def patient() -> Parameters:
    """Return parameters under which the world's slow blocks are young."""
    base = Parameters.devnet([A, B])
    limits = replace(base.breakers, state_soft_age_s=10**9, state_hard_age_s=10**9)
    return replace(base, breakers=limits)


@dataclass
class BreakerWorld(World):
    """The world with the breaker rule alone; `forged` heads are seen by some members too."""

    forged: tuple[SeenHead, ...] = ()
    forgers: int = 0
    answers: dict[bytes, list[int]] = field(default_factory=dict)

    def observed(self, tick: int) -> tuple[Observed, ...]:
        seen = list(super().observed(tick))
        for i in range(self.forgers):
            heads = tuple(sorted((*seen[i].body.heads, *self.forged)))
            seen[i] = replace(seen[i], body=replace(seen[i].body, heads=heads))
        for i, one in enumerate(seen):
            prices = tuple(
                replace(p, price_e8=self.answers[p.market][i]) if p.market in self.answers else p
                for p in one.body.prices
            )
            seen[i] = replace(one, body=replace(one.body, prices=prices))
        return tuple(seen)

    def rules_of(self) -> set[Rule]:
        board = decode(self.snapshot.book.rules["breakers"]).board
        return {trip.rule for trip in board}

    def tell(self, decision: Decision) -> None:
        """Bring a change to the model of Breaker.vy."""
        scope, action, level, nonce, until = fields(decision)
        model = self.chains[decision.chain]
        model.use("Breaker", decision.leaf)
        graded(model, scope, action, level, nonce, until)


def graded(
    model: ModelChain, scope: bytes, action: int, level: int, nonce: int, until: int
) -> None:
    model.log(
        "Breaker",
        "Graded(bytes32,uint8,uint8,uint64,uint64)",
        [scope, action.to_bytes(32, "big")],
        ["uint8", "uint64", "uint64"],
        *(level, nonce, until),
    )


def paused(
    model: ModelChain, scope: bytes = EVERYWHERE, now: bool = True, liquidate_at: int = 0
) -> None:
    signature, types = "PauseChanged(bytes32,bool,uint64)", ["bool", "uint64"]
    model.log("Breaker", signature, [scope], types, now, liquidate_at)


def world() -> BreakerWorld:
    made = BreakerWorld(rules=(BreakerRule(),), parameters=patient())
    assert made.view().decisions == ()
    return made


def told(decisions: tuple[Decision, ...]) -> set[tuple[int, bytes, int, int]]:
    return {(d.chain, *fields(d)[:3]) for d in decisions}


def test_a_price_far_from_its_mean_stops_entry_and_is_released() -> None:
    net = world()
    for _ in range(5):
        net.view(skip=20)
    net.prices[ETH] = net.prices[ETH] * 80 // 100
    made = net.view(skip=20).decisions
    assert net.rules_of() == {Rule.ORACLE}
    stop = {
        (c, ETH, int(a), 2) for c in (A, B) for a in (Action.OPEN, Action.INCREASE, Action.WITHDRAW)
    }
    assert told(made) == stop | {(c, ETH, int(Action.LIQUIDATE), 1) for c in (A, B)}
    assert net.view().decisions == ()  # all are on their way
    for decision in made:
        net.tell(decision)
    assert net.view().decisions == ()
    net.prices[ETH] = net.prices[ETH] * 100 // 80
    hold = net.parameters.breakers.hold_s
    assert net.view(skip=2 * hold - 4).decisions == ()
    released = net.view(skip=2).decisions
    assert net.rules_of() == set()
    assert {(d.chain, fields(d)[1], fields(d)[2], fields(d)[3]) for d in released} == {
        (c, int(a), 0, 2)
        for c in (A, B)
        for a in (Action.OPEN, Action.INCREASE, Action.WITHDRAW, Action.LIQUIDATE)
    }


def test_an_account_below_zero_gates_withdrawals_for_its_blocks() -> None:
    net = world()
    net.chains[A].set_balance(ALICE, net.token(A), 10 * USD)
    net.chains[B].set_position(ALICE, ETH, 10**8, -3_000 * USD)
    net.chains[A].set_balance(INSURANCE, net.token(A), 10_000 * USD)  # so that nothing cascades
    made = net.view().decisions
    assert net.rules_of() == {Rule.NEGATIVE}
    assert told(made) == {(c, EVERYWHERE, int(Action.WITHDRAW), 2) for c in (A, B)}
    net.chains[B].set_position(ALICE, ETH, 0, 0)
    for _ in range(50):
        assert net.rules_of() == {Rule.NEGATIVE}
        net.view()
    net.view()
    assert net.rules_of() == set()


@pytest.mark.parametrize(
    ("answers", "tripped"),
    [
        ([100, 100, 100, 100], False),
        ([1, 100, 100, 100], False),  # f = 1: one liar stretches nothing
        ([100, 100, 101, 10**6], False),
        ([100, 100, 103, 103], True),
        ([100, 101, 104, 10**6], True),
    ],
)
def test_answers_that_lie_apart_make_a_price_uncertain(answers: list[int], tripped: bool) -> None:
    net = world()
    net.answers = {ETH: [net.prices[ETH] * part // 100 for part in answers]}
    net.view()
    assert net.rules_of() == ({Rule.ORACLE} if tripped else set())
    assert not tripped or "uncertain" in decode(net.snapshot.book.rules["breakers"]).board[0].why


def test_a_price_that_nobody_saw_for_a_moment_is_no_fault_and_for_long_is() -> None:
    net = world()
    seen = dict(net.prices)
    for seconds, tripped in ((1, False), (100, False), (19, False), (2, True)):
        net.prices = {}  # every answer came too late
        net.view(skip=2 * seconds - 1)
        assert net.rules_of() == ({Rule.ORACLE} if tripped else set())
    net.prices = seen
    net.view()
    assert net.rules_of() == {Rule.ORACLE}
    net.view(skip=2 * net.parameters.breakers.hold_s)
    assert net.rules_of() == set()


def test_dust_that_clearing_leaves_gates_nobody() -> None:
    net = world()
    least = net.parameters.clearing.transfer_minimum
    net.chains[B].set_position(ALICE, ETH, 0, 0)
    net.chains[B].add_realised(ALICE, -least)
    net.chains[B].add_realised(HOUSE, least)
    assert net.view().decisions == ()
    net.chains[B].add_realised(ALICE, -1)
    net.chains[B].add_realised(HOUSE, 1)
    net.view()
    assert net.rules_of() == {Rule.NEGATIVE}


def test_broken_finality_curses_a_chain_until_governance_lifts_it() -> None:
    net = world()
    old = net.chains[B].head()
    net.view()
    net.forged = (replace(old, hash=b"\x66" * 32),)
    net.forgers = 1  # f = 1: one member alone proves nothing
    assert net.view().decisions == ()
    net.forgers = 2
    made = net.view().decisions
    assert net.rules_of() == {Rule.CURSE}
    assert told(made) == {(B, EVERYWHERE, int(action), 3) for action in Action}
    assert all(decision.expiry == 0 for decision in made)
    net.forged, net.forgers = (), 0
    for decision in made:
        net.tell(decision)
    for _ in range(3):
        assert net.view().decisions == ()
        assert net.rules_of() == {Rule.CURSE}
    for action in Action:
        graded(net.chains[B], EVERYWHERE, int(action), int(Level.CLOSED), 1, 0)
    assert net.view().decisions == ()
    assert net.rules_of() == set()


def test_an_old_state_is_told_to_its_own_chain_only() -> None:
    net = BreakerWorld(rules=(BreakerRule(),))
    net.view()
    for _ in range(70):
        net.chains[A].mine()
    made = net.view(mine=True, skip=140).decisions
    assert net.rules_of() == {Rule.STATE_AGE}
    assert {chain for chain, *_ in told(made)} == {B}


# --- pauses ---------------------------------------------------------------------------------------

PAUSE = {int(action) for action, _ in GRADES[Rule.PAUSE]}


def test_a_pause_of_the_hub_is_told_to_every_other_chain_and_its_grace_too() -> None:
    net = world()
    paused(net.chains[A])
    made = net.view().decisions
    assert net.rules_of() == {Rule.PAUSE}
    assert told(made) == {(B, EVERYWHERE, action, 2) for action in PAUSE}
    for decision in made:
        net.tell(decision)
    for _ in range(3):
        assert net.view().decisions == ()
    paused(net.chains[A], now=False, liquidate_at=10**10)
    made = net.view().decisions
    assert told(made) == {(B, EVERYWHERE, a, 0) for a in PAUSE - {int(Action.LIQUIDATE)}}
    board = decode(net.snapshot.book.rules["breakers"]).board
    level, whys = allowed(board, Action.LIQUIDATE, [])
    assert level == Level.STOP
    assert "repaired" in whys[0]
    for decision in made:
        net.tell(decision)
    grace = net.parameters.breakers.grace_s
    assert net.view(skip=2 * (grace - 5)).decisions == ()
    made = net.view(skip=20).decisions
    assert told(made) == {(B, EVERYWHERE, int(Action.LIQUIDATE), 0)}
    assert net.rules_of() == set()


def test_a_pause_of_another_chain_or_of_a_scope_is_that_chains_own() -> None:
    net = world()
    paused(net.chains[B])
    paused(net.chains[B], ETH)
    assert net.view().decisions == ()  # B holds it itself; A is not concerned
    board = decode(net.snapshot.book.rules["breakers"]).board
    assert [(trip.rule, trip.scope) for trip in board] == [(Rule.PAUSE, chain_scope(B))]
    paused(net.chains[A], ETH)
    assert told(net.view().decisions) == {(B, ETH, action, 2) for action in PAUSE}


def everything(**limits: Any) -> World:
    """Return a world in which breakers meet the rules that they hold back."""
    base = patient()
    parameters = replace(base, breakers=replace(base.breakers, **limits))
    rules = (BreakerRule(), ReleaseRule(), CreditRule(), AwardRule())
    net = World(rules=rules, parameters=parameters)
    net.deposit(ALICE, A, 10_000 * USD)
    net.deposit(INSURANCE, A, 10_000 * USD)
    net.view()
    return net


def kinds(net: World) -> set[str]:
    return {decision.kind for decision in net.snapshot.decisions}


def test_nothing_is_granted_on_a_chain_that_paused_itself() -> None:
    net = everything()
    paused(net.chains[A])
    net.request_withdraw(ALICE, A, USD)
    net.request_credit(ALICE, 100 * USD)
    for _ in range(3):
        net.view()
        assert not kinds(net) & {"Release", "Credit"}  # the credit waits: the pause is on its way
    paused(net.chains[A], now=False, liquidate_at=1)
    net.view()
    assert "Release" in kinds(net)


def test_no_task_is_made_in_a_chains_grace() -> None:
    until = GENESIS_MS // 1000 + 40
    for liquidate_at, tasks in ((until, False), (1, True)):
        net = everything()
        net.chains[B].set_position(ALICE, ETH, 10 * UNIT, -29_900 * USD)
        paused(net.chains[B], now=False, liquidate_at=liquidate_at)
        net.view()
        assert bool(net.competition.tasks) == tasks
    while net.chains[B].number < 39:
        net.view()
    net.view()
    assert net.competition.tasks


# --- cascades -------------------------------------------------------------------------------------


def thin(net: World, depth: int) -> World:
    """Return the world with another depth of every traded market, µUSD."""
    margin = net.parameters.margin
    shallow = tuple(replace(u, depth=min(u.depth, depth)) for u in margin.underlyings)
    net.parameters = replace(net.parameters, margin=replace(margin, underlyings=shallow))
    net.setting = replace(net.setting, parameters=net.parameters)
    return net


def crowd(net: World, members: int = 20) -> None:
    """Let accounts stand one after another below the price, each to be liquidated a bit later."""
    for i in range(members):
        net.deposit(trader(100 + i), A, (300 + 20 * i) * USD)
        net.chains[B].set_position(trader(100 + i), ETH, 2 * UNIT, -4_000 * USD)


def test_liquidations_that_would_feed_themselves_slow_entry_and_liquidation() -> None:
    slow = {int(a) for a in (Action.OPEN, Action.INCREASE, Action.LIQUIDATE)}
    deep, shallow = everything(), thin(everything(), 100_000 * USD)
    for net in (deep, shallow):
        crowd(net)
        net.view()
    board = decode(deep.snapshot.book.rules["breakers"]).board
    assert board == ()
    board = decode(shallow.snapshot.book.rules["breakers"]).board
    assert [trip.rule for trip in board] == [Rule.CASCADE]
    assert "multiplier" in board[0].why
    changes = [d for d in shallow.snapshot.decisions if d.kind == "BreakerChange"]
    assert told(tuple(changes)) == {(c, EVERYWHERE, a, 1) for c in (A, B) for a in slow}
    for i in range(20):
        shallow.chains[B].set_position(trader(100 + i), ETH, 0, 0)
    shallow.view(skip=2 * shallow.parameters.breakers.hold_s)
    board = decode(shallow.snapshot.book.rules["breakers"]).board
    assert board == ()


def test_bad_debt_at_a_probed_fall_is_compared_with_the_insurance_fund() -> None:
    for fund, begin, tripped in ((10_000, 0, False), (10, 0, True), (10, 10**12, False)):
        net = everything(bad_debt_begin=begin)
        net.chains[A].set_balance(INSURANCE, net.token(A), fund * USD)
        net.chains[B].set_position(ALICE, ETH, 100 * UNIT, -209_000 * USD)  # 1,000 left
        net.view()
        board = decode(net.snapshot.book.rules["breakers"]).board
        assert [trip.rule for trip in board] == [Rule.CASCADE] * tripped
        assert not tripped or "bad debt" in board[0].why


def test_a_slowed_increase_needs_more_and_a_slowed_window_closes_less() -> None:
    largest = {}
    for slowed in (False, True):
        net = everything(cascade_ppm=10**12, insurance_ppm=10**12)
        if slowed:
            for action in (Action.INCREASE, Action.LIQUIDATE):
                graded(net.chains[B], EVERYWHERE, int(action), int(Level.SLOW), 1, 0)
        low, high = 0, 10_000
        while high - low > 1:  # the largest credit that is given
            asked = (low + high) // 2
            one = deepcopy(net)
            one.request_credit(ALICE, asked * USD)
            one.view()
            low, high = (asked, high) if "Credit" in kinds(one) else (low, asked)
        net.chains[B].set_position(ALICE, ETH, 5_000 * UNIT, -10_009_900 * USD)
        net.view()
        (task,) = net.competition.tasks
        largest[slowed] = (low, task.value)
    assert largest[True][0] < largest[False][0]
    window = net.parameters.liquidation.window_value
    assert largest[False][1] > window // 4 >= largest[True][1] > window // 5


def test_a_price_far_from_its_mean_holds_back_who_stands_in_it() -> None:
    net = everything()
    net.deposit(trader(2), A, 500 * USD)
    net.chains[B].set_position(ALICE, ETH, UNIT, -2_000 * USD)
    for _ in range(5):
        net.view(skip=20)
    net.prices[ETH] = net.prices[ETH] * 120 // 100  # what a manipulator would withdraw against
    net.request_withdraw(ALICE, A, 100 * USD)
    net.request_withdraw(trader(2), A, 100 * USD)
    made = [net.view(skip=20)]
    made += [net.view() for _ in range(3)]
    released = {fields(d)[0] for one in made for d in one.decisions if d.kind == "Release"}
    assert released == {trader(2)}  # no position, so no price is asked
    net.request_credit(ALICE, 10 * USD)
    net.view()
    assert "Credit" not in kinds(net)
    net.prices[ETH] = net.prices[ETH] * 100 // 120
    net.view(skip=20)
    for _ in range(60):
        net.view()
    assert ALICE in {fields(d)[0] for d in net.sealed if d.kind == "Release"}


# --- chains that nobody can rely on ---------------------------------------------------------------


def test_collateral_of_a_cursed_chain_secures_nothing_elsewhere() -> None:
    for cursed in (False, True):
        net = everything()
        net.deposit(trader(3), B, 10_000 * USD)  # perhaps it never happened
        net.deposit(trader(3), A, 50 * USD)
        net.chains[A].set_position(trader(3), ETH, UNIT // 100, -20 * USD)
        net.view()
        if cursed:
            graded(net.chains[B], EVERYWHERE, int(Action.SIGN), int(Level.CURSED), 1, 0)
        net.request_withdraw(trader(3), A, 49 * USD)
        net.request_credit(trader(3), 100 * USD, A)
        net.request_withdraw(ALICE, A, USD)
        net.view()
        served = {fields(d)[0] for d in net.snapshot.decisions if d.kind in ("Credit", "Release")}
        assert served == ({ALICE} if cursed else {ALICE, trader(3)})


def test_a_gain_on_a_cursed_chain_secures_nothing_elsewhere() -> None:
    for cursed in (False, True):
        net = everything(cascade_ppm=10**12)
        net.deposit(trader(3), A, 1_000 * USD)
        net.chains[B].set_position(trader(3), ETH, UNIT, -1_000 * USD)  # a gain of 1,000 there
        net.view()
        if cursed:
            graded(net.chains[B], EVERYWHERE, int(Action.SIGN), int(Level.CURSED), 1, 0)
        net.request_withdraw(trader(3), A, 900 * USD)
        net.view()
        assert ("Release" in kinds(net)) != cursed
        if cursed:  # its own collateral still answers for its position
            net.request_withdraw(trader(3), A, 100 * USD)
            net.view()
            assert "Release" in kinds(net)


def test_collateral_of_a_chain_not_heard_of_for_the_hard_age_secures_nothing_elsewhere() -> None:
    for hard, given in ((10**9, True), (60, False)):
        net = everything(state_hard_age_s=hard)
        net.deposit(trader(3), A, 10_000 * USD)
        net.view()
        for _ in range(70):
            net.chains[B].mine()
        net.request_credit(trader(3), 100 * USD)
        net.chains[B].mine()
        net.view(mine=False, skip=140)
        assert ("Credit" in kinds(net)) == given


def test_no_result_is_cleared_while_a_chain_is_cursed() -> None:
    net = World(rules=(BreakerRule(), TransferRule()), parameters=patient())
    net.deposit(ALICE, A, 100 * USD)
    net.chains[B].add_realised(ALICE, -50 * USD)
    net.chains[B].add_realised(HOUSE, 50 * USD)
    graded(net.chains[A], EVERYWHERE, int(Action.SIGN), int(Level.CURSED), 1, 0)
    for _ in range(8):
        assert net.view().decisions == ()
    graded(net.chains[A], EVERYWHERE, int(Action.SIGN), int(Level.CLOSED), 1, 0)
    for _ in range(8):
        net.view()
    assert [decision.kind for decision in net.sealed] == ["Transfer"]


# --- what leaves ----------------------------------------------------------------------------------


def banked(left_ppm: int, **limits: Any) -> World:
    """Return a world in which a share of a big vault is left, whoever took the rest."""
    net = everything(**limits)
    token = net.token(A)
    for i in range(10):
        net.deposit(trader(50 + i), A, 100_000 * USD)
    net.view()
    net.view(skip=2 * net.parameters.breakers.outflow_window_s)
    for i in range(10):
        net.chains[A].set_balance(trader(50 + i), token, 100_000 * left_ppm)
    net.request_withdraw(trader(50), A, USD)
    net.view()
    return net


def test_too_much_that_leaves_a_vault_stops_its_token_until_the_window_ends() -> None:
    net = banked(600_000)
    scope = net.token(A).rjust(32, b"\0")
    board = decode(net.snapshot.book.rules["breakers"]).board
    assert [(trip.rule, trip.scope) for trip in board] == [(Rule.OUTFLOW, scope)]
    assert "are left" in board[0].why
    changes = tuple(d for d in net.snapshot.decisions if d.kind == "BreakerChange")
    assert told(changes) == {(A, scope, int(Action.WITHDRAW), 2)}  # no other chain has the token
    assert "Release" not in kinds(net)
    for decision in changes:
        action, level, nonce, until = fields(decision)[1:]
        net.chains[A].use("Breaker", decision.leaf)
        graded(net.chains[A], scope, action, level, nonce, until)
    net.deposit(trader(49), A, 10**6 * USD)  # what comes back does not reopen it early
    net.view(skip=20)
    assert "Release" not in kinds(net)
    net.view(skip=2 * net.parameters.breakers.outflow_window_s)
    assert decode(net.snapshot.book.rules["breakers"]).board == ()
    released = tuple(d for d in net.snapshot.decisions if d.kind == "BreakerChange")
    assert told(released) == {(A, scope, int(Action.WITHDRAW), 0)}


@pytest.mark.parametrize(
    ("left_ppm", "limits"), [(710_000, {}), (0, {"outflow_begin": 2_000_000 * USD})]
)
def test_what_may_leave_trips_nothing(left_ppm: int, limits: dict[str, int]) -> None:
    net = banked(left_ppm, **limits)
    assert decode(net.snapshot.book.rules["breakers"]).board == ()


def test_who_moves_in_and_out_uses_nothing_up() -> None:
    net = everything()
    token = net.token(A)
    net.deposit(trader(50), A, 1_000_000 * USD)
    net.view()
    net.view(skip=2 * net.parameters.breakers.outflow_window_s)
    for _ in range(20):
        for amount in (750_000, 1_000_000):
            net.chains[A].set_balance(trader(50), token, amount * USD)
            net.view()
            assert decode(net.snapshot.book.rules["breakers"]).board == ()


def test_a_state_made_before_windows_were_kept_is_read() -> None:
    memory = decode(msgpack.packb([[], [[ETH, [[1, 2]]]], [[A, [[3, b"x"]]]]]))
    assert (memory.windows, memory.samples, memory.cuts) == ({}, {ETH: [(1, 2)]}, {A: [(3, b"x")]})
    assert decode(memory.encode()) == memory
