"""A plan is read back against the reader's own graph, and refused where it says what is not so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from keeper.cli.route import app
from keeper.errors import ConfigError
from keeper.route.files import plain_lane, plain_swap
from keeper.route.graph import Graph
from keeper.route.plans import plain_plan, plan_of, quote_of, read_plan
from keeper.route.quote import Quote, Request, quote
from keeper.units import ChainId
from tests.support.route_markets import END, START, small_graph

AMOUNT = 3 * 10**11
HERE = f"{START.chain}:USDC"
Plan = dict[str, Any]


def asked() -> Quote:
    target = END._replace(asset=small_graph().swaps[0].assets[1])
    return quote(small_graph(), Request(START, target, AMOUNT, 600_000, ((b"\x07" * 32, 5),)))


def planned() -> Plan:
    return plain_plan(plan_of(small_graph(), asked()))


def test_a_plan_reads_back_as_it_was() -> None:
    found = asked()
    plan = read_plan(json.loads(json.dumps(planned())), "plan")
    assert plan == plan_of(small_graph(), found)
    assert quote_of(small_graph(), plan) == replace(found, solver="")
    assert found.hops
    assert found.certificate.loads


def test_views_may_differ_in_places(tmp_path: Path) -> None:
    """Nothing comes back from a further chain, but it changes the order of what is priced."""
    graph = small_graph()
    away = replace(graph.lanes[1], bridge=b"\x77" * 20, destination=ChainId(0))
    wide = replace(graph, lanes=(*graph.lanes, away))
    plan = plain_plan(plan_of(wide, quote(wide, asked().request)))
    assert plan["certificate"]["prices"].keys() - planned()["certificate"]["prices"] == {"0:USDC"}
    assert check(tmp_path, plan, graph).exit_code == 0
    short = check(tmp_path, planned(), wide)
    assert isinstance(short.exception, ConfigError)
    assert "no price for 0:USDC" in str(short.exception)


def write(folder: Path, plan: Plan, graph: Graph) -> tuple[str, str]:
    (folder / "plan.json").write_text(json.dumps({"plan": plan}))
    rows = {
        "swaps": [plain_swap(swap) for swap in graph.swaps],
        "lanes": [plain_lane(lane) for lane in graph.lanes],
    }
    (folder / "graph.json").write_text(json.dumps(rows))
    return str(folder / "plan.json"), str(folder / "graph.json")


def check(folder: Path, plan: Plan, graph: Graph, *options: str) -> Result:
    paths = write(folder, plan, graph)
    return CliRunner().invoke(app, ["check", paths[0], "--graph", paths[1], *options])


def test_a_sound_plan_passes(tmp_path: Path) -> None:
    plan = planned()
    done = check(tmp_path, plan, small_graph(), "--json")
    assert (done.exit_code, json.loads(done.output)["check"]) == (0, "ok")
    assert "no plan delivers over" in check(tmp_path, plan, small_graph()).output


def bound(plan: Plan, by: int, of: int) -> None:
    plan["certificate"]["bound"] = plan["certificate"]["bound"] * by // of


def test_what_a_plan_was_asked_to_leave_out_is_shown(tmp_path: Path) -> None:
    """Its bound is only for what was asked: one that shuts a lane out is the best without it."""
    graph = small_graph()
    without = quote(graph, replace(asked().request, exclude=frozenset({graph.lanes[1].bridge})))
    plan = plain_plan(plan_of(graph, without))
    told = " ".join(check(tmp_path, plan, graph).output.split())
    for said in ("ok", "not over 0x0202", "600000 ms", "5 behind 0x0707"):
        assert said in told
    assert json.loads(check(tmp_path, plan, graph, "--json").output)["request"] == plan["request"]


def changed(plan: Plan, change: Callable[[Plan], Any]) -> Plan:
    made: Plan = json.loads(json.dumps(plan))
    change(made)
    return made


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda plan: plan.update(delivered=plan["delivered"] + 1), "does not deliver"),
        (lambda plan: bound(plan, 9, 10), "is below"),
        (lambda plan: bound(plan, 2, 1), "gap of"),
        (lambda plan: plan.update(sent=1), "sends another amount"),
        (lambda plan: plan["hops"].pop(0), "more than is there"),
        (lambda plan: plan["hops"][0].update(amount=AMOUNT + 1), "more than is there"),
        (lambda plan: plan["hops"][0].update(least_out=AMOUNT), "does not give"),
        (lambda plan: plan["certificate"]["prices"].update({HERE: "0"}), "below its worth"),
        (lambda plan: plan["request"].update(deadline_ms=1), "not usable here"),
        (lambda plan: plan["request"].update(amount=AMOUNT // 2), "more than is there"),
    ],
    ids=range(10),
)
def test_a_plan_that_says_what_is_not_so_is_refused(
    tmp_path: Path, change: Callable[[Plan], Any], why: str
) -> None:
    done = check(tmp_path, changed(planned(), change), small_graph())
    assert done.exit_code == 1, done.output
    assert why in " ".join(done.output.split()), done.output


def test_the_readers_own_view_counts(tmp_path: Path) -> None:
    graph, plan = small_graph(), planned()
    dear = replace(graph, lanes=tuple(replace(one, fee_ppm=9_000) for one in graph.lanes))
    done = check(tmp_path, plan, dear)
    assert (done.exit_code, done.exception and type(done.exception)) == (1, SystemExit)
    bare = check(tmp_path, plan, replace(graph, lanes=()))
    assert isinstance(bare.exception, ConfigError)
    assert "no way through" in str(bare.exception)
    slow = replace(
        graph, lanes=tuple(replace(one, p95_ms=max(one.p95_ms, 600_000)) for one in graph.lanes)
    )
    swaps = replace(slow, swaps=tuple(replace(one, latency_ms=1) for one in graph.swaps))
    assert check(tmp_path, plan, slow).exit_code == 0, "times are the reader's own"
    assert "past its deadline" in check(tmp_path, plan, swaps).output


def sealed(**fields: Any) -> Callable[[Plan], Any]:
    return lambda plan: plan["certificate"].update(fields)


def request(**fields: Any) -> Callable[[Plan], Any]:
    return lambda plan: plan["request"].update(fields)


def hop(**fields: Any) -> Callable[[Plan], Any]:
    return lambda plan: plan["hops"][0].update(fields)


MANY = {f"{chain}:USDC": "1" for chain in range(5_000)}


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.pop("hops"),
        lambda plan: plan.update(hops=[plan["hops"][0]] * 5_000),
        lambda plan: plan.update(hops=7),
        lambda plan: plan.update(hops={"0": plan["hops"][0]}),
        lambda plan: plan.update(extra=1),
        lambda plan: plan.update(delivered=1 << 256),
        sealed(bound=float("inf")),
        sealed(bound=True),
        sealed(bound=0),
        sealed(extra=1),
        sealed(prices=[float("inf")]),
        sealed(prices={"1:USDC": float("inf")}),
        sealed(prices={"1:USDC": "9" * 5_000}),
        sealed(prices={"1:USDC": 5}),
        sealed(prices={"1:USDC": "5", "01:USDC": "6"}),
        sealed(prices=MANY),
        sealed(loads={}),
        sealed(loads={"0x" + "08" * 32: "5"}),
        sealed(loads={"0x07": "5"}),
        sealed(loads={"07" * 32: "5", "0x" + "07" * 32: "6"}),
        request(amount=-1),
        request(amount=0),
        request(to=f"{START.chain}:USDC"),
        request(limits={"0x" + "07" * 32: "many"}),
        request(limits={"0x07": 5}),
        request(exclude=[7]),
        request(exclude="0x" + "07" * 20),
        request(extra=1),
        hop(venue="0xzz"),
        hop(**{"from": "nowhere"}),
        hop(amount=1.5),
        hop(done_ms=0),
    ],
    ids=range(32),
)
def test_what_is_no_plan_is_no_crash(change: Callable[[Plan], Any]) -> None:
    assert plain_plan(read_plan(planned(), "plan")) == planned()  # the control
    with pytest.raises(ConfigError, match="cannot read the plan"):
        read_plan(changed(planned(), change), "plan")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{}", "[" * 100_000, '{"plan": ' * 100_000, '{"plan": 1e999}', " " * (1 << 21)],
    ids=range(8),
)
def test_what_is_no_json_object_is_no_crash(tmp_path: Path, text: str) -> None:
    paths = write(tmp_path, planned(), small_graph())
    Path(paths[0]).write_text(text)
    done = CliRunner().invoke(app, ["check", paths[0], "--graph", paths[1]])
    assert isinstance(done.exception, ConfigError)
