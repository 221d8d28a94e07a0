"""Breakers inside agreed views: tripped by what was observed, told to chains, followed back."""

from dataclasses import dataclass, replace

from keeper.clear.breakers import BreakerRule, decode
from keeper.margin.breaker import EVERYWHERE, Action, Level, Rule
from keeper.observe.observation import SeenHead
from keeper.parameters import Parameters
from keeper.snapshot.decisions import Decision, Observed
from tests.support.clearing_world import ETH, USD, A, B, ModelChain, World, fields, trader

ALICE = trader(1)


def patient() -> Parameters:
    """Return parameters under which the world's slow blocks are young."""
    base = Parameters.devnet([A, B])
    return replace(base, breakers=replace(base.breakers, state_soft_age_s=10**9))


@dataclass
class BreakerWorld(World):
    """The world with the breaker rule alone; `forged` heads are seen by some members too."""

    forged: tuple[SeenHead, ...] = ()
    forgers: int = 0

    def observed(self, tick: int) -> tuple[Observed, ...]:
        seen = list(super().observed(tick))
        for i in range(self.forgers):
            heads = tuple(sorted((*seen[i].body.heads, *self.forged)))
            seen[i] = replace(seen[i], body=replace(seen[i].body, heads=heads))
        return tuple(seen)

    def rules_of(self) -> set[Rule]:
        board, _, _ = decode(self.snapshot.book.rules["breakers"])
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
    released = net.view(skip=20).decisions
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
    made = net.view().decisions
    assert net.rules_of() == {Rule.NEGATIVE}
    assert told(made) == {(c, EVERYWHERE, int(Action.WITHDRAW), 2) for c in (A, B)}
    net.chains[B].set_position(ALICE, ETH, 0, 0)
    for _ in range(50):
        assert net.rules_of() == {Rule.NEGATIVE}
        net.view()
    net.view()
    assert net.rules_of() == set()


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
