"""`keeper route` and the routing policy, by example."""

import json
from pathlib import Path

from click.testing import Result
from msgspec import structs
from typer.testing import CliRunner

from keeper.cli.route import app
from keeper.errors import ConfigError
from keeper.units import symbol
from policies.api import Act, BridgeQuote, Holding, MarketView, Skip, Wide, decoder, encoder
from policies.routing import Memory, Routing, RoutingConfig

USDC = symbol("USDC")
LANE = {
    "bridge": "0x" + "01" * 20,
    "origin": 1,
    "destination": 10,
    "asset": "USDC",
    "fee_fixed": 0,
    "fee_ppm": 500,
    "p50_ms": 30000,
    "p95_ms": 60000,
    "capacity": "1000000000000",
    "security": "bonded",
    "verifier": "0x" + "01" * 32,
}


def run(tmp_path: Path, verb: str, *options: str) -> str:
    cursed = {**LANE, "bridge": "0x" + "02" * 20, "fee_ppm": 1, "cursed": True}
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"lanes": [LANE, cursed]}))
    ends = ["--from", "1:USDC", "--to", "10:USDC", "--amount", "1000000000"]
    found = CliRunner().invoke(app, [verb, "--graph", str(path), *ends, *options])
    assert found.exit_code == 0, found.output
    return found.output


def test_quote_and_explain(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "explain", "--json"))
    assert found["check"] == "ok"
    plan = found["plan"]
    assert plan["delivered"] == 999_500_000 <= plan["certificate"]["bound"]
    assert [row["why"] for row in found["left_out"]] == ["cursed"]
    assert "999500000" in run(tmp_path, "quote")
    drawn = run(tmp_path, "explain")
    assert "└─ 1000000000 ─▶" in drawn
    assert "peer's check: ok" in drawn
    assert (
        json.loads(run(tmp_path, "quote", "--deadline", "59", "--json"))["plan"]["delivered"] == 0
    )


def balance(tmp_path: Path, *options: str) -> Result:
    lanes = [
        LANE,
        {**LANE, "bridge": "0x" + "02" * 20, "verifier": "0x" + "02" * 32, "fee_ppm": 900},
        {**LANE, "bridge": "0x" + "03" * 20, "asset": "WETH", "fee_ppm": 0},
    ]
    path = tmp_path / "lanes.json"
    path.write_text(json.dumps({"lanes": lanes}))
    words = ["rebalance", "--graph", str(path), "--asset", "USDC", "--gas", "1=1000"]
    return CliRunner().invoke(app, [*words, "--surplus", "1=3000000", *options])


def test_rebalance_shows_moves_cost_and_bound(tmp_path: Path) -> None:
    need = ("--need", "10=1000000")
    found = json.loads(balance(tmp_path, *need, "--json").output)
    (move,) = found["moves"]
    assert (found["status"], move["bridges"]) == ("optimal", ["0x" + "01" * 20])
    assert move["arrives"] >= 1_000_000
    assert found["bound"] <= found["cost"]
    loss = 2  # a millionth of the amount, rounded up
    assert found["cost"] == move["amount"] - move["arrives"] + 1000 + loss
    limited = (*need, "--limit", "0x" + "01" * 32 + "=400000", "--json")
    other = json.loads(balance(tmp_path, *limited).output)
    # a second send costs more gas than the cheaper lane saves on what its limit leaves
    assert [move["bridges"] for move in other["moves"]] == [["0x" + "02" * 20]]
    assert other["cost"] > found["cost"]
    free = json.loads(balance(tmp_path, *limited, "--gas", "10=1").output)
    assert free == other, "gas is paid where a send starts"
    assert "no plan costs less than" in balance(tmp_path, *need).output
    late = balance(tmp_path, *need, "--deadline", "59")
    assert (late.exit_code, "infeasible" in late.output) == (0, True)


def test_intents_are_netted_before_anything_moves(tmp_path: Path) -> None:
    asked = ("--intent", "1:10=700000", "--intent", "10:1=300000", "--json")
    found = json.loads(balance(tmp_path, *asked).output)
    assert found["netted"] == 600_000
    (move,) = found["moves"]
    assert 400_000 <= move["arrives"] < 400_100
    even = ("--intent", "1:10=5", "--intent", "10:1=5", "--json")
    nothing = json.loads(balance(tmp_path, *even).output)
    assert (nothing["netted"], nothing["moves"], nothing["status"]) == (10, [], "optimal")
    for text in ("1:10", "1:1=5", "1:10=0"):
        assert isinstance(balance(tmp_path, "--intent", text).exception, ConfigError)


def test_rebalance_says_what_is_wrong_with_an_amount(tmp_path: Path) -> None:
    for options in (("--need", "10"), ("--need", "10=-1"), ("--need", "10=1", "--need", "10=2")):
        done = balance(tmp_path, *options)
        assert isinstance(done.exception, ConfigError), options
    odd = balance(tmp_path, "--need", "10=1", "--limit", "verifier")
    assert "is not a limit" in str(odd.exception)


def view(in_flight: int, fee: int = 500, now: int = 1_000) -> MarketView:
    return MarketView(
        1,
        now,
        0,
        inventory=(
            Holding(1, USDC, Wide(10**10)),
            Holding(10, USDC, Wide(10**6), Wide(in_flight)),
        ),
        bridges=(BridgeQuote(b"\x01" * 20, 1, 10, USDC, fee, 0, 30_000, 60_000, 2, Wide(10**9)),),
    )


def test_the_routing_policy_orders_once_and_not_at_any_price() -> None:
    policy = Routing(RoutingConfig(floor=10**8))
    (act,), state = policy.decide(view(0), b"")
    assert isinstance(act, Act)
    assert act.steps[0].kind == "bridge"
    again, _ = policy.decide(view(2 * 10**8), state)
    assert again == []
    (skip,), _ = policy.decide(view(0, fee=9_000), b"")
    assert isinstance(skip, Skip)


def holdings(now: int, home: int, away: int, coming: int = 0) -> MarketView:
    inventory = (Holding(1, USDC, Wide(home)), Holding(10, USDC, Wide(away), Wide(coming)))
    return structs.replace(view(0, now=now), inventory=inventory)


def means(state: bytes) -> dict[int, int]:
    return {row.chain: int(row.mean) for row in decoder(Memory)(state).seen}


def test_its_own_moves_are_no_demand() -> None:
    policy = Routing(RoutingConfig(floor=10**8, weight_ppm=1_000_000))
    (act,), state = policy.decide(holdings(0, 10**10, 10**6), b"")
    assert isinstance(act, Act)
    amount = int(dict(act.steps[0].numbers)["amount"])
    _, sent = policy.decide(holdings(60_000, 10**10 - amount, 10**6, amount), state)
    assert means(sent) == {1: 0, 10: 0}
    _, came = policy.decide(holdings(120_000, 10**10 - amount, 10**6 + amount), sent)
    assert means(came) == {1: 0, 10: 0}
    # not carried out: then what left was somebody else's doing
    _, other = policy.decide(holdings(60_000, 10**10 - amount, 10**6), state)
    assert means(other)[1] == amount * 10**6 // 60_000
    _, spent = policy.decide(holdings(180_000, 10**10 - amount, amount), came)
    assert means(spent)[10] == 10**6 * 10**6 // 60_000


def test_what_own_transfers_did_is_no_demand_even_where_in_flight_hides_it() -> None:
    policy = Routing(RoutingConfig(floor=10**8, weight_ppm=1_000_000))
    _, state = policy.decide(holdings(0, 10**10, 10**6, 500), b"")

    def seen(home: int, away: int, own: tuple[int, int] | None) -> dict[int, int]:
        view = holdings(60_000, home, away, 500)
        if own is not None:
            rows = (
                structs.replace(row, own=Wide(amount))
                for row, amount in zip(view.inventory, own, strict=True)
            )
            view = structs.replace(view, inventory=tuple(rows))
        return means(policy.decide(view, state)[1])

    # one arrives as the next one leaves: as much is in flight as before
    assert seen(10**10 - 500, 10**6 + 500, (-500, 500)) == {1: 0, 10: 0}
    assert seen(10**10 - 500, 10**6 + 500, None) != {1: 0, 10: 0}, "the control: it is not told"
    came_back = seen(10**10 + 500, 10**6, (500, 0))
    assert came_back == {1: 0, 10: 0}
    assert seen(10**10 - 600, 10**6, (-500, 0))[1] > 0, "what others took is demand"


def test_coin_is_a_cost_and_is_not_sent() -> None:
    policy = Routing(RoutingConfig(floor=10**8))
    (lane,) = view(0).bridges
    cheap, dear = (
        structs.replace(view(0), bridges=(structs.replace(lane, coin_cost=cost),))
        for cost in (10**5, 10**6)
    )
    (act,), _ = policy.decide(cheap, b"")
    (free,), _ = policy.decide(view(0), b"")
    assert isinstance(act, Act)
    assert isinstance(free, Act)
    assert act.steps == free.steps
    (skip,), _ = policy.decide(dear, b"")
    assert isinstance(skip, Skip)


def test_a_memory_that_cannot_be_read_is_none() -> None:
    policy = Routing(RoutingConfig(floor=10**8))
    fresh = policy.decide(view(0), b"")
    for odd in (b"\x00", b"garbage", encoder().encode([(1, 2, b"x", "3", "4", "5")])):
        assert policy.decide(view(0), odd) == fresh
    huge = structs.replace(view(0), inventory=(Holding(1, USDC, Wide((1 << 127) - 1)),))
    _, state = policy.decide(huge, b"")
    _, state = policy.decide(
        structs.replace(huge, now_ms=1_001, inventory=(Holding(1, USDC, Wide(0)),)), state
    )
    assert means(state)[1] == (1 << 126) - 1
