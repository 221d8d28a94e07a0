"""The check names each way of not being a pure function, and passes an honest policy."""

import importlib

import pytest
import trio

from policies.api import Act
from policies.check import check_policy, clocks_in
from policies.discover import describe, installed
from policies.host import PolicyHost, PolicySpec
from policies.situations import crash
from tests.support.policy_views import market_view, plugin

VIEWS = [market_view(number, accounts=4) for number in range(1, 13)]
NAMES = [
    ("Clock", "clock or chance"),
    ("Chance", "clock or chance"),
    ("SetOrder", "set order"),
    ("HiddenState", "hidden state"),
    ("LookAhead", "look-ahead"),
    ("Positional", "permutation"),
    ("Slow", "budget"),
    ("Crashing", "contract"),
    ("Networking", "contract"),
]


@pytest.mark.parametrize(("name", "cause"), NAMES, ids=[name for name, _ in NAMES])
async def test_each_impurity_is_named(
    name: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.check.clocks_in", lambda _text: [])  # one file holds all sins
    spec = PolicySpec(name, plugin(name), budget_ms=40 if name == "Slow" else 1000)
    report = await check_policy(spec, VIEWS)
    assert not report.ok
    failed = [finding.name for finding in report.findings if finding.ok is False]
    assert failed == [cause], report.findings


@pytest.mark.parametrize(
    "target",
    [
        plugin("Honest"),
        plugin("Carried"),
        "policies.liquidation:Liquidation",
        "policies.observer:Observer",
    ],
)
async def test_an_honest_policy_passes(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if target.startswith("/"):
        monkeypatch.setattr("policies.check.clocks_in", lambda _text: [])
    seen: list[str] = []
    report = await check_policy(
        PolicySpec("honest", target, budget_ms=1000),
        VIEWS,
        progress=lambda label, _done, _total: seen.append(label),
    )
    assert report.ok, report.findings
    assert set(seen) >= {"reference", "again", "hash seed", "shifted", "shuffled", "extremes"}


BUILT_INS = [one.target for one in installed() if one.target.startswith("policies.")]


@pytest.mark.parametrize("target", BUILT_INS)
async def test_every_built_in_passes_where_there_is_something_for_it_to_do(target: str) -> None:
    report = await check_policy(
        PolicySpec("x", target, budget_ms=5_000), crash(16, 20), describe(target)["schema"]
    )
    assert report.ok, report.findings


@pytest.mark.parametrize("name", ["Liquidation", "Routing", "Filling"])
async def test_a_policy_decides_in_its_process_as_in_this_one(name: str) -> None:
    """What the host brings back is what the policy says, state carried along; and it does act."""
    module = importlib.import_module(f"policies.{name.lower()}")
    policy, state, acts = getattr(module, name)(), b"", 0
    host = PolicyHost(PolicySpec(name, f"policies.{name.lower()}:{name}", budget_ms=5_000))
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        for view in crash(40, 20):
            decisions, state = policy.decide(view, state)
            outcome = await host.outcome(view)
            assert outcome.fault == ""
            assert outcome.decisions == tuple(decisions)
            assert outcome.state == state
            acts += sum(isinstance(one, Act) for one in decisions)
        nursery.cancel_scope.cancel()
    assert acts > 0


def test_a_coarse_clock_is_found_in_the_source() -> None:
    text = "import time, datetime\nx = time.time()\ny = datetime.datetime.now()\n"
    assert clocks_in(text) == ["time.time in line 2", "datetime.now in line 3"]
