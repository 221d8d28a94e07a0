"""The check names each way of not being a pure function, and passes an honest policy."""

import pytest

from policies.check import check_policy, clocks_in
from policies.host import PolicySpec
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


def test_a_coarse_clock_is_found_in_the_source() -> None:
    text = "import time, datetime\nx = time.time()\ny = datetime.datetime.now()\n"
    assert clocks_in(text) == ["time.time in line 2", "datetime.now in line 3"]
