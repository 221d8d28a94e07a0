"""The desk's own rules: what an act may ask, whom it looks at, what configuration says."""

from pathlib import Path

import msgspec
import pytest

from keeper import config as configs
from keeper.compete.task import Target
from keeper.compete.task import Task as OpenTask
from keeper.desk.limits import MAX_LOSS_PPM, act_fault, judged, most_profit
from keeper.desk.reload import fixed_changes
from keeper.desk.roster import MAX_NEAR, SLICE, Roster
from keeper.desk.settings import AaveSpec, PerpSpec, venues_of
from keeper.errors import ConfigError
from keeper.node.market import wishes_of
from keeper.store import Store
from keeper.units import PPM, ChainId, symbol
from policies.api import Act, Holding, MarketView, PlanStep, Price, Skip, Task, Term, Wide
from policies.discover import describe
from policies.liquidation import Liquidation
from tests.support.policy_views import CHAIN, VENUE

WETH, USDC = symbol("WETH"), symbol("USDC")
OWNER, ROUTER = b"\0" * 12 + b"\x07" * 20, b"\x08" * 20
change = msgspec.structs.replace

TASK = Task(
    b"t" * 32, OWNER, CHAIN, VENUE, USDC, Wide(2**100),
    (Term(USDC, 40_000, 800_000), Term(WETH, 50_000, 825_000)), 0,
)  # fmt: skip
VIEW = MarketView(
    1, 1_000, 1,
    prices=(Price(WETH, 2_000 * 10**8, 18, 0), Price(USDC, 10**8, 6, 0)),
    inventory=(Holding(CHAIN, USDC, Wide(5_000 * 10**6)),),
    tasks=(TASK,),
)  # fmt: skip
CLOSE = PlanStep(
    "liquidate", CHAIN, "liquidate", VENUE, (("size", Wide(1_000 * 10**6)),),
    (("account", OWNER), ("collateral", WETH), ("market", USDC)),
)  # fmt: skip
SALE = PlanStep(
    "swap", CHAIN, "swap", ROUTER,
    (("amount", Wide(525 * 10**15)), ("least_out", Wide(1_040 * 10**6))),
    (("asset_in", WETH), ("asset_out", USDC)),
    ("liquidate",),
)  # fmt: skip
ACT = Act(TASK.task, 0, Wide(1_000 * 10**6), 1_000, "why", 40 * 10**6, (CLOSE, SALE))


def step(of: PlanStep, **names: object) -> PlanStep:
    return change(of, **names)


def numbers(of: PlanStep, **values: int) -> PlanStep:
    merged = {**dict(of.numbers), **{name: Wide(value) for name, value in values.items()}}
    return change(of, numbers=tuple(sorted(merged.items())))


def blobs(of: PlanStep, **values: bytes) -> PlanStep:
    return change(of, blobs=tuple(sorted({**dict(of.blobs), **values}.items())))


def test_an_honest_act_passes() -> None:
    assert act_fault(VIEW, ACT) == ""
    assert act_fault(VIEW, change(ACT, steps=(CLOSE,))) == ""


BAD = {
    "no such task": change(ACT, task=b"x" * 32),
    "steps, this one 0": change(ACT, steps=()),
    "steps, this one 4": change(ACT, steps=(CLOSE, SALE, SALE, SALE)),
    "not the task's liquidation": change(ACT, steps=(SALE, CLOSE)),
    "is not the task's": change(ACT, steps=(blobs(CLOSE, account=b"\0" * 32), SALE)),
    "the task's liq": change(ACT, steps=(step(CLOSE, venue=ROUTER), SALE)),
    "the task's liqu": change(ACT, steps=(step(CLOSE, chain=1), SALE)),
    "a size of -5": change(ACT, size=Wide(-5), steps=(numbers(CLOSE, size=-5),)),
    "a size of 7": change(ACT, steps=(numbers(CLOSE, size=7), SALE)),
    "more than this keeper has": change(
        ACT, size=Wide(6_000 * 10**6), steps=(numbers(CLOSE, size=6_000 * 10**6),)
    ),
    "seizes what": change(ACT, steps=(blobs(CLOSE, collateral=symbol("DAI")),)),
    "is no sale": change(ACT, steps=(CLOSE, step(SALE, kind="transfer"))),
    "is no sale on chain": change(ACT, steps=(CLOSE, step(SALE, chain=1))),
    "does not sell what was seized": change(ACT, steps=(CLOSE, blobs(SALE, asset_in=USDC))),
    "for what was repaid": change(ACT, steps=(CLOSE, blobs(SALE, asset_out=WETH))),
    "sells nothing": change(ACT, steps=(CLOSE, numbers(SALE, amount=0))),
    "below the price": change(ACT, steps=(CLOSE, numbers(SALE, least_out=900 * 10**6))),
}


@pytest.mark.parametrize("why", BAD)
def test_an_act_beyond_its_task_is_refused(why: str) -> None:
    assert why in act_fault(VIEW, BAD[why])


def test_a_sale_may_ask_for_no_less_than_the_limit_below_the_price() -> None:
    worth = 525 * 10**15 * 2_000 // 10**12
    edge = worth * (PPM - MAX_LOSS_PPM) // PPM
    assert act_fault(VIEW, change(ACT, steps=(CLOSE, numbers(SALE, least_out=edge)))) == ""
    below = change(ACT, steps=(CLOSE, numbers(SALE, least_out=edge - 1)))
    assert "below the price" in act_fault(VIEW, below)
    priceless = change(VIEW, prices=VIEW.prices[1:])
    assert "has a price" in act_fault(priceless, ACT)


def test_acts_of_one_view_are_one_a_task_and_together_within_the_funds() -> None:
    other = change(TASK, task=b"u" * 32)
    view = change(VIEW, tasks=(TASK, other))
    big = numbers(CLOSE, size=3_000 * 10**6)
    first = change(ACT, size=Wide(3_000 * 10**6), steps=(big,))
    second = change(first, task=other.task)
    faults = [fault for _, fault in judged(view, [first, first, second, ACT, Skip(b"", "")])]
    assert faults[0] == ""
    assert "second act" in faults[1]
    assert "more than this keeper has" in faults[2]
    assert "second act" in faults[3]
    assert len(faults) == 4
    small = change(ACT, task=other.task)
    assert [fault for _, fault in judged(view, [first, small])] == ["", ""]


def test_a_bid_is_for_a_task_there_is_and_from_nothing_to_the_agreed_bonus() -> None:
    target = Target(ChainId(CHAIN), OWNER, VENUE, USDC)
    task = OpenTask(b"i" * 32, target, 1, 10, 1_000, 50, 5, 7)
    tasks = {b"t" * 32: task, b"s" * 32: task}

    def bid(price: int, name: bytes = b"t" * 32) -> Act:
        return Act(name, price, Wide(1), 1, "", profit=price)

    asked = [
        bid(20),
        bid(70),
        bid(-1),
        bid(0),
        bid(9, b"x" * 32),
        Skip(b"t" * 32, ""),
        bid(4, b"s" * 32),
    ]
    wishes = wishes_of(asked, tasks, {b"s" * 32})
    assert [(one.price, one.standing) for one in wishes] == [
        (20, False),
        (50, False),
        (0, False),
        (4, True),
    ]


def test_a_sale_without_a_seizure_is_refused() -> None:
    plain = change(CLOSE, blobs=tuple(x for x in CLOSE.blobs if x[0] != "collateral"))
    assert act_fault(VIEW, change(ACT, steps=(plain,))) == ""
    assert "nobody seized" in act_fault(VIEW, change(ACT, steps=(plain, SALE)))


def test_gas_is_bounded_by_the_bonus_and_not_by_the_policys_word() -> None:
    boast = change(ACT, profit=10**30)
    assert most_profit(VIEW, boast) == most_profit(VIEW, ACT) == 1_000 * 10**6 * 50_000 // PPM


def people(count: int) -> list[bytes]:
    return [number.to_bytes(20, "big") for number in range(1, count + 1)]


def test_everybody_is_looked_at_in_turn_and_the_near_always() -> None:
    store = Store(":memory:")
    roster = Roster(store, "aave", 10)
    assert (roster.scanned, roster.look()) == (9, [])
    everybody = people(2 * SLICE + 10)
    roster.add(everybody, 50)
    roster.note([], [(900_000, everybody[3])])
    seen: set[bytes] = set()
    for _ in range(3):
        looked = roster.look()
        assert everybody[3] in looked
        assert len(looked) <= SLICE + 1
        seen |= set(looked)
        roster.note(looked, [(900_000, everybody[3])])
    assert seen == set(everybody)
    again = Roster(store, "aave", 10)
    assert (again.scanned, len(again)) == (50, len(everybody))
    assert len(Roster(store, "perp", 0)) == 0


def test_dust_accounts_cannot_crowd_out_the_sick() -> None:
    roster = Roster(Store(":memory:"), "aave", 0)
    dust = people(3 * MAX_NEAR)
    roster.add(dust, 1)
    roster.note(dust, [(1_100_000 - place, user) for place, user in enumerate(dust)])
    looked = set(roster.look())
    assert len(looked) <= MAX_NEAR + SLICE
    assert set(dust[-MAX_NEAR:]) <= looked, "the sickest are kept"


AAVE = {
    "kind": "aave_v3",
    "chain": 1,
    "pool": "0x" + "01" * 20,
    "data": "0x" + "02" * 20,
    "oracle": "0x" + "03" * 20,
    "tokens": {"WETH": "0x" + "04" * 20, "USDC": "0x" + "05" * 20},
    "coin": "WETH",
    "router": "0x" + "06" * 20,
    "quoter": "0x" + "07" * 20,
    "sales": ["WETH USDC 500"],
    "first_block": 9,
}
PERP = {
    "kind": "perp_v2",
    "chain": 10,
    **dict.fromkeys(("clearing", "balance", "config", "base", "coin_feed"), "0x" + "09" * 20),
    "market": "ETH-USD",
}


def test_venues_are_read_from_the_configuration() -> None:
    one, two = venues_of({"perp": PERP, "aave": AAVE}, "keeper.toml")
    assert (one.name, one.chain, one.first_block) == ("aave", ChainId(1), 9)
    assert isinstance(one.what, AaveSpec)
    assert one.what.sales == ((WETH, USDC, 500),)
    assert isinstance(two.what, PerpSpec)
    assert two.first_block == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "compound"}, "is none of aave_v3, perp_v2"),
        ({"pool": "0x12"}, "is no address"),
        ({"poool": 1}, "unknown key 'poool'"),
        ({"oracle": None}, "oracle is missing"),
        ({"coin": "ETH"}, "coin 'ETH' is none of the tokens"),
        ({"sales": ["WETH DAI 500"]}, "names none of the tokens"),
        ({"router": None}, "router is missing"),
        ({"chain": "x"}, "invalid literal"),
    ],
)
def test_a_wrong_section_says_what_is_wrong(changes: dict[str, object], why: str) -> None:
    row = {key: value for key, value in {**AAVE, **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=why):
        venues_of({"aave": row}, "keeper.toml")


def test_settings_and_coins_are_read_and_unknown_kinds_refused(tmp_path: Path) -> None:
    text = configs.render(
        mode="shadow", password_file="", p2p_port=1, bootstrap=(), http_port=2,
        endpoints={ChainId(1): ("http://127.0.0.1:1",)},
    )  # fmt: skip
    path = tmp_path / "keeper.toml"
    path.write_text(text + "\n[policy.liquidation]\ntarget_ppm = 1_050_000\n")
    loaded = configs.load(tmp_path)
    assert loaded.settings_of("liquidation") == {"target_ppm": 1_050_000}
    assert loaded.settings_of("routing") == {}
    assert loaded.coins == {ChainId(1): symbol("ETH-USD")}
    path.write_text(text.replace("rpc =", 'coin = "POL-USD"\nrpc ='))
    assert configs.load(tmp_path).coins == {ChainId(1): symbol("POL-USD")}
    path.write_text(text + "\n[policy.magic]\nx = 1\n")
    with pytest.raises(ConfigError, match="magic"):
        configs.load(tmp_path)


def test_only_fields_marked_updatable_change_live() -> None:
    module = f"{Liquidation.__module__}:{Liquidation.__name__}"
    schema = describe(module)["schema"]
    assert fixed_changes(schema, {}, {"target_ppm": 1_050_000, "min_profit": 5}) == []
    assert fixed_changes(schema, {"ttl_ms": 1}, {"window_ms": 5, "nonsense": 1}) == [
        "nonsense",
        "ttl_ms",
        "window_ms",
    ]


def test_a_view_without_the_act_is_another_view() -> None:
    other = change(VIEW, tasks=(change(TASK, chain=7),))
    assert "not the task's" in act_fault(other, ACT)
