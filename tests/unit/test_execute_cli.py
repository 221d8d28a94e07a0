"""`keeper tx` over a ledger with one task of each kind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keeper import config
from keeper.chain.port import BlockRef, Receipt
from keeper.cli.main import app
from keeper.errors import ConfigError
from keeper.execute.fees import Offer
from keeper.execute.intent import Intent, Lane, State
from keeper.execute.ledger import Attempt, Ledger, Moved, Planned, Signed
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei

CHAIN = ChainId(7)
Run = Callable[..., str]


def key(number: int) -> bytes:
    return bytes([number]) * 32


def plan(number: int) -> Intent:
    why = f"reason {number}"
    return Intent(
        key(number), CHAIN, Lane.URGENT, bytes(20), b"", BlockNumber(9), Wei(10**15), 0, why
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    text = config.render(
        mode="live",
        password_file="",
        p2p_port=4001,
        bootstrap=(),
        http_port=9640,
        endpoints={CHAIN: ("http://127.0.0.1:1",)},
    )
    (tmp_path / "keeper.toml").write_text(text)
    settings = config.load(tmp_path)
    store = Store(settings.store_file)
    ledger = Ledger(store)
    attempt = Attempt(b"\xaa" * 32, b"raw", Offer(Wei(1), Wei(2)), 21_000, 5)
    receipt = Receipt(
        attempt.hash, BlockRef(CHAIN, BlockNumber(6), b"\xbb" * 32), True, 21_000, Wei(10**9), ()
    )
    ledger.apply([Planned(plan(n)) for n in (1, 2, 3)], 1_700_000_000)
    ledger.apply(
        [
            Signed(key(1), bytes(20), 0, attempt),
            Moved(key(1), State.SENT),
            Moved(key(1), State.MINED, receipt=receipt),
            Moved(key(1), State.FINAL, receipt=receipt),
            Moved(key(2), State.DROPPED, Reason.OVER_CAP),
        ],
        1_700_000_001,
    )
    store.close()

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["tx", *arguments, "--home", str(tmp_path)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return invoke


def test_list(run: Run) -> None:
    rows = json.loads(run("list", "--json"))
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("planned", None),
        ("dropped", "over_cap"),
        ("succeeded", None),
    ]
    assert rows[2]["fee_wei"] == 21_000 * 10**9
    assert len(json.loads(run("list", "--json", "--state", "dropped"))) == 1
    assert len(json.loads(run("list", "--json", "--limit", "1"))) == 1
    assert "succeeded" in run("list")


def test_show_finds_by_task_and_by_transaction(run: Run) -> None:
    for name in ("0x0101", "aaaa"):
        shown = json.loads(run("show", name, "--json"))
        assert shown["task"] == "0x" + "01" * 32
        assert [each["hash"] for each in shown["attempts"]] == ["0x" + "aa" * 32]
    assert "the task" in run("show", "01")
    with pytest.raises(ConfigError, match="no task starts"):
        run("show", "ff")
    with pytest.raises(ConfigError, match="no hex text"):
        run("show", "task")


def test_explain(run: Run) -> None:
    text = run("explain", "01")
    for word in ("reason 1", "planned", "signed", "sent", "mined", "final", "It succeeded."):
        assert word in text
    assert "more than the task allows" in run("explain", "02")
    assert "still open" in json.loads(run("explain", "03", "--json"))["advice"]
