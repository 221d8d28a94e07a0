"""`keeper policy`: each verb as an operator types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper import config as configs
from keeper.cli.policy import app
from keeper.units import ChainId
from policies.api import Act
from policies.host import PolicySpec
from policies.liquidation import Liquidation
from policies.record import (
    Awarded,
    Bid,
    Decided,
    Received,
    RecordWriter,
    Sent,
    Viewed,
    state_hash,
    view_hash,
)
from tests.support.policy_views import market_view

SERIES = "timestamp,openTick,lowestTick,highestTick,closeTick\n" + "".join(
    f"2023-08-17 00:{minute:02d}:00,{201_000 + minute * 60},{201_000 + minute * 60 - 20},"
    f"{201_000 + minute * 60 + 90},{201_000 + minute * 60 + 60}\n"
    for minute in range(40)
)


def run(*words: str, status: int = 0) -> Any:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == status, done.output + repr(done.exception)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    (folder / "series.csv").write_text(SERIES)
    made = run("convert", str(folder / "series.csv"), str(folder / "a.fkrec"), "--accounts", "40")
    assert made["ticks"] == 40 * 6
    return folder / "a.fkrec"


def test_every_verb_has_help() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout
    for verb in ("new", "list", "schema", "check", "backtest", "shadow", "explain", "promote"):
        assert verb in listed
        done = CliRunner().invoke(app, [verb, "--help"])
        assert done.exit_code == 0
        assert "--json" in done.stdout


def test_list_and_schema() -> None:
    names = {one["name"] for one in run("list")}
    assert {"liquidation", "deleverage", "observer"} <= names
    assert run("schema", "liquidation")["kind"] == "liquidation"


@pytest.mark.parametrize("kind", ["liquidation", "hedging"])
def test_a_new_package_passes_its_own_checks(tmp_path: Path, kind: str) -> None:
    made = run("new", "half_close", "--kind", kind, "--folder", str(tmp_path))
    found = run("check", made["policy"], "--config", str(tmp_path / "half_close" / "config.json"))
    assert found["ok"], found


def test_the_new_packages_test_passes_and_its_code_is_tidy(tmp_path: Path) -> None:
    run("new", "half_close", "--folder", str(tmp_path))
    here = tmp_path / "half_close"
    for command in (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_half_close.py"],
        ["-m", "ruff", "check", "--isolated", "--select", "F,B", "."],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=here, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_check_fails_with_status_1(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    run("new", "bad", "--folder", str(tmp_path / "x"))
    text = (tmp_path / "x" / "bad" / "bad.py").read_text()
    text = text.replace("import msgspec\n", "import time\n\nimport msgspec\n")
    bad.write_text(text.replace("(view, state)\n", "(view, str(time.time_ns()).encode())\n"))
    bad.write_text(
        bad.read_text().replace(
            "return [self._patient(view, one) for one in decisions]",
            "return list(decisions)[time.time_ns() % 2 :]",
        )
    )
    found = run("check", f"{bad}:Bad", status=1)
    assert not found["ok"]


def test_backtests_agree_to_the_byte_and_write_a_page(record: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    words = ("backtest", str(record), "--vs", "observer")
    first = run(*words, "--html", str(page))
    html = page.read_bytes()
    assert run(*words, "--html", str(page)) == first
    assert page.read_bytes() == html
    ours, idle = first["policies"]
    assert ours["executed"] > 0
    assert ours["net"] > 0 == idle["net"]
    assert ours["net"] == ours["gross"] - ours["paid"]
    assert ours["regret"] < idle["regret"]
    text = page.read_text()
    assert text.count("<svg") == 4
    assert "http" not in text.replace("http-equiv", "")


def test_no_shows_cost_their_lock(record: Path) -> None:
    found = run("backtest", str(record), "--no-show-ppm", "1000000")["policies"][0]
    assert found["executed"] == 0
    assert found["no_shows"] > 0


def test_a_damaged_record_is_refused_with_its_place(record: Path, tmp_path: Path) -> None:
    bent = bytearray(record.read_bytes())
    bent[len(bent) // 2] ^= 1
    (tmp_path / "bent.fkrec").write_bytes(bytes(bent))
    done = CliRunner().invoke(app, ["backtest", str(tmp_path / "bent.fkrec")])
    assert done.exit_code == 1
    assert "byte" in str(done.exception)


@pytest.fixture(scope="module")
def node_record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Act]:
    """What a node writes: views, decisions, one bid that won, its transaction and receipt."""
    path = tmp_path_factory.mktemp("node") / "record.fkrec"
    policy, state = Liquidation(), b""
    with RecordWriter(path, {"keeper": "test"}) as record:
        acts = []
        for number in range(1, 6):
            view = market_view(number, accounts=3)
            decisions, state = policy.decide(view, state)
            acts += [one for one in decisions if isinstance(one, Act)]
            record.append(Viewed(view))
            record.append(
                Decided(number, "liquidation", "liquidation", tuple(decisions), state_hash(state))
            )
        act = acts[0]
        record.append(Bid(1, act.task, act.price))
        record.append(Awarded(1, act.task, (b"\x01" * 20,), act.price - 1))
        record.append(Sent(act.task, "liquidate", 31337, b"\x02" * 32))
        record.append(Received(act.task, "liquidate", 31337, b"\x02" * 32, 1, 9, 9, 100, 99))
        record.append(Awarded(1, b"\x09" * 32, (b"\x01" * 20,), 1))
    return path, act


def test_explain_tells_the_story_and_replays_it(node_record: tuple[Path, Act]) -> None:
    path, act = node_record
    found = run("explain", act.task.hex()[:12], str(path), "--policy", "liquidation")
    assert found["decisions"][0]["why"] == act.why
    assert found["views"][0]["hash"] == "0x" + view_hash(market_view(1, accounts=3)).hex()
    assert found["receipts"][0]["realised"] == 99
    assert (found["replay"]["views"], found["replay"]["different"]) == (5, [])
    other = run("explain", act.task.hex(), str(path), "--policy", "observer")
    assert other["replay"]["different"] == [1, 2, 3, 4, 5]


def test_replay_compares_byte_for_byte(node_record: tuple[Path, Act]) -> None:
    same = run("replay", str(node_record[0]))
    assert (same["views"], same["different"], same["same"]) == (5, [], True)
    other = run("replay", str(node_record[0]), "--policy", "observer", status=1)
    assert other["different"] == [1, 2, 3, 4, 5]
    assert other["digest"] != same["digest"]


def test_a_nodes_record_is_backtested_against_the_bids_it_heard(
    node_record: tuple[Path, Act], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    words = ("backtest", str(node_record[0]), "--vs", "observer", "--html", str(page))
    found = run(*words)
    assert run(*words) == found, "equal inputs give an equal report"
    ours, idle = found["policies"]
    assert found["settings"] is None
    assert (ours["ticks"], ours["tasks"], ours["executed"], ours["lost"]) == (5, 15, 1, 0)
    assert ours["paid"] == node_record[1].price - 1
    assert ours["net"] == ours["gross"] - ours["paid"] > 0
    assert (idle["executed"], idle["lost"], idle["net"]) == (0, 1, 0)
    assert 0 < ours["regret"] < idle["regret"]
    assert "5 views of a node" in page.read_text()
    done = CliRunner().invoke(app, ["backtest", str(node_record[0]), "--desk", "aave"])
    assert "no views of desk 'aave'" in str(done.exception)


def test_explain_asks_for_more_digits(node_record: tuple[Path, Act]) -> None:
    done = CliRunner().invoke(app, ["explain", "", str(node_record[0])])
    assert "more of its digits" in str(done.exception)


def test_shadow_compares_with_the_winner(node_record: tuple[Path, Act]) -> None:
    found = run("shadow", "liquidation", str(node_record[0]))
    assert (found["views"], found["awarded"], found["would_win"], found["unseen"]) == (5, 2, 1, 1)


def home_of(folder: Path, mode: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "keeper.toml").write_text(
        configs.render(
            mode=mode,
            password_file="",
            p2p_port=4001,
            bootstrap=(),
            http_port=9640,
            endpoints={ChainId(1): ("http://127.0.0.1:1",)},
        )
    )
    return folder


def test_promote_climbs_one_rung_at_a_time(tmp_path: Path) -> None:
    home = home_of(tmp_path / "home", "off")
    before = (home / "keeper.toml").read_text()
    done = CliRunner().invoke(app, ["promote", "liquidation", "--home", str(home), "--to", "dry"])
    assert "skips shadow" in str(done.exception)
    done = CliRunner().invoke(app, ["promote", "observer", "--home", str(home), "--to", "shadow"])
    assert "which no node runs" in str(done.exception)
    assert (home / "keeper.toml").read_text() == before
    for mode in ("shadow", "dry", "live"):
        found = run("promote", "liquidation", "--home", str(home), "--to", mode)
        assert found["mode"] == mode
    loaded = configs.load(home)
    assert loaded.policies["liquidation"] == "liquidation"
    assert "# What this node may do" in (home / "keeper.toml").read_text()
    assert run("promote", "liquidation", "--home", str(home), "--to", "off")["mode"] == "off"
    for mode in ("shadow", "dry"):
        assert run("promote", "routing", "--home", str(home), "--to", mode)["kind"] == "routing"
    assert configs.load(home).policies == {"liquidation": "liquidation", "routing": "routing"}


def test_a_policy_that_fails_its_checks_stays_in_the_shadow(tmp_path: Path) -> None:
    home = home_of(tmp_path / "home", "shadow")
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import itertools\nfrom policies.api import Kind, Manifest, Skip\n"
        "from policies.observer import Observer, ObserverConfig\n"
        "COUNT = itertools.count()\n"
        "class Bad(Observer):\n"
        "    manifest = Manifest(kind=Kind.LIQUIDATION, config=ObserverConfig)\n"
        "    def decide(self, view, state):\n"
        "        return [Skip(t.task, str(next(COUNT))) for t in view.tasks], state\n"
    )
    done = CliRunner().invoke(app, ["promote", f"{bad}:Bad", "--home", str(home), "--to", "dry"])
    assert "does not pass its checks" in str(done.exception)
    assert configs.load(home).mode == "shadow"


def test_unknown_names_say_what_is_known() -> None:
    done = CliRunner().invoke(app, ["check", "nobody"])
    assert "liquidation" in str(done.exception)
    assert PolicySpec("x", "y").hash_seed == 0
