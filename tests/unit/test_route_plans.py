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
from keeper.route.plans import plain_plan, plan_of
from keeper.route.quote import Quote, Request, quote
from tests.support.route_markets import END, START, small_graph

AMOUNT = 3 * 10**11
Plan = dict[str, Any]


def asked() -> Quote:
    target = END._replace(asset=small_graph().swaps[0].assets[1])
    return quote(small_graph(), Request(START, target, AMOUNT, 600_000, ((b"\x07" * 32, 5),)))


def test_a_plan_reads_back_as_it_was() -> None:
    found = asked()
    again = plan_of(json.dumps(plain_plan(found)), small_graph(), "plan")
    assert again == replace(found, solver="", left_out=())
    assert found.hops


def write(folder: Path, plan: Plan, graph: Graph) -> tuple[str, str]:
    (folder / "plan.json").write_text(json.dumps(plan))
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
    plan = plain_plan(asked())
    done = check(tmp_path, plan, small_graph(), "--json")
    assert (done.exit_code, json.loads(done.output)["check"]) == (0, "ok")
    assert "no plan delivers over" in check(tmp_path, plan, small_graph()).output


def changed(plan: Plan, change: Callable[[Plan], Any]) -> Plan:
    made: Plan = json.loads(json.dumps(plan))
    change(made)
    return made


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda plan: plan.update(delivered=plan["delivered"] + 1), "does not deliver"),
        (lambda plan: plan.update(bound=plan["bound"] * 9 // 10), "is below"),
        (lambda plan: plan.update(bound=plan["bound"] * 2), "gap of"),
        (lambda plan: plan.update(sent=1), "sends another amount"),
        (lambda plan: plan["hops"].pop(0), "more than is there"),
        (lambda plan: plan["hops"][0].update(amount=AMOUNT + 1), "more than is there"),
        (lambda plan: plan["hops"][0].update(least_out=AMOUNT), "does not give"),
        (lambda plan: plan["hops"][0].update(done_ms=0), "slower than claimed"),
        (lambda plan: plan.update(prices_x96=plan["prices_x96"][1:]), "other tokens"),
        (lambda plan: plan.update(prices_x96=["0", *plan["prices_x96"][1:]]), "below its worth"),
        (lambda plan: plan["request"].update(deadline_ms=1), "not usable here"),
        (lambda plan: plan["request"].update(amount=AMOUNT // 2), "more than is there"),
    ],
    ids=range(12),
)
def test_a_plan_that_says_what_is_not_so_is_refused(
    tmp_path: Path, change: Callable[[Plan], Any], why: str
) -> None:
    done = check(tmp_path, changed(plain_plan(asked()), change), small_graph())
    assert done.exit_code == 1, done.output
    assert why in " ".join(done.output.split()), done.output


def test_the_readers_own_view_counts(tmp_path: Path) -> None:
    graph, plan = small_graph(), plain_plan(asked())
    dear = replace(graph, lanes=tuple(replace(one, fee_ppm=9_000) for one in graph.lanes))
    done = check(tmp_path, plan, dear)
    assert (done.exit_code, done.exception and type(done.exception)) == (1, SystemExit)
    bare = check(tmp_path, plan, replace(graph, lanes=()))
    assert isinstance(bare.exception, ConfigError)
    assert "no way through" in str(bare.exception)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.pop("hops"),
        lambda plan: plan.update(hops=[plan["hops"][0]] * 5_000),
        lambda plan: plan.update(hops=7),
        lambda plan: plan.update(bound=float("inf")),
        lambda plan: plan.update(bound=True),
        lambda plan: plan.update(delivered=1 << 256),
        lambda plan: plan.update(prices_x96=[float("inf")]),
        lambda plan: plan.update(prices_x96=["9" * 5_000]),
        lambda plan: plan["request"].update(amount=-1),
        lambda plan: plan["request"].update(to=plan["request"]["from"]),
        lambda plan: plan["request"].update(limits={"0x07": "many"}),
        lambda plan: plan["request"].update(exclude=[7]),
        lambda plan: plan["hops"][0].update(venue="0xzz"),
        lambda plan: plan["hops"][0].update({"from": "nowhere"}),
        lambda plan: plan["hops"][0].update(amount=1.5),
    ],
    ids=range(15),
)
def test_what_is_no_plan_is_no_crash(change: Callable[[Plan], Any]) -> None:
    text = json.dumps(changed(plain_plan(asked()), change))
    with pytest.raises(ConfigError, match="not a plan over this graph"):
        plan_of(text, small_graph(), "plan")


@pytest.mark.parametrize("text", ["", "[]", "7", "[" * 100_000])
def test_what_is_no_json_object_is_no_crash(text: str) -> None:
    with pytest.raises(ConfigError, match="not a plan over this graph"):
        plan_of(text, small_graph(), "plan")
