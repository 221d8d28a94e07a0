"""Risk curves against brute force, the report's figures, its file, its plot and its verbs."""

import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgpack
import numpy as np
import pytest
from typer.testing import CliRunner

from keeper.cli import breaker as breaker_cli
from keeper.cli import risk as risk_cli
from keeper.errors import LocalError
from keeper.legs import Leg, LegKind
from keeper.margin import book as books
from keeper.margin import dump, stress
from keeper.margin.batch import evaluate_book
from keeper.margin.breaker import next_board
from keeper.margin.marks import Marks
from keeper.margin.plot import dollars, svg
from keeper.margin.readings import Paused
from keeper.margin.report import Report, cascade_reading, export, report
from keeper.metrics import Metrics
from keeper.parameters import Parameters
from keeper.units import PPM, ChainId, symbol

A = ChainId(31337)
ETH, USDC = symbol("ETH-USD"), symbol("USDC")
PARAMETERS = Parameters.devnet((31337, 31338))
DEPTH = 10**12
runner = CliRunner()


def tick(count: int = 200, age: int = 5) -> dump.TickFile:
    """Return longs and shorts of one ETH each, with more and more collateral."""
    rows = []
    for i in range(count):
        size, cash = (10**8, -2_000 * PPM) if i % 3 else (-(10**8), 2_000 * PPM)
        legs = [
            Leg(A, b"\x01" * 20, USDC, LegKind.COLLATERAL, (100 + 5 * i) * PPM),
            Leg(A, b"\x02" * 20, ETH, LegKind.PERP, size, cash),
        ]
        rows.append((i.to_bytes(32, "big"), 0, 0, legs))
    marks = Marks({ETH: 2_000 * 10**8, USDC: 10**8}, {}, PARAMETERS.margin, {A: age})
    return dump.TickFile(PARAMETERS, marks, books.build(rows))


def found(count: int = 200) -> Report:
    one = tick(count)
    return report(one.book, one.marks, PARAMETERS.breakers, DEPTH, returns=[-0.3, 0.2, -0.01] * 50)


@pytest.mark.parametrize("falling", [True, False])
def test_the_curve_is_what_repricing_says(falling: bool) -> None:
    one = tick()
    margins = evaluate_book(one.book, one.marks)
    curve = stress.curve(margins, falling)
    for move in (0, 10_000, 50_000, 100_000, 300_000, 450_000):
        signed = -move if falling else move
        again = evaluate_book(one.book, stress.shocked(one.marks, {0: signed, 1: signed}))
        sick = again.equity < again.requirement
        exact = int(margins.gross[sick].sum())
        assert abs(curve.liquidated(move) - exact) <= 3 * 2_000 * PPM  # accounts at the threshold
        debt = -int(np.minimum(again.equity, 0).sum())
        assert abs(curve.bad_debt(move) - debt) <= 2 + len(one.book) * 20


def test_a_cascade_goes_further_in_a_thin_market() -> None:
    one = tick()
    curve = stress.curve(evaluate_book(one.book, one.marks))
    deep, thin = curve.cascade_ppm(100_000, 10**15), curve.cascade_ppm(100_000, 10**11)
    assert 100_000 <= deep < thin <= PPM
    assert curve.multiplier_ppm(100_000, 10**11) > PPM > curve.multiplier_ppm(100_000, 10**15)
    assert stress.worst_multiplier_ppm(curve, 10**11, 300_000) >= curve.multiplier_ppm(0, 10**11)
    assert curve.cascade_ppm(0, 10**18) == curve.cascade_ppm(0, 10**18) < 1_000


def test_value_at_risk_is_the_tail() -> None:
    losses = np.arange(1.0, 101.0)
    assert stress.value_at_risk(losses, 0.95) == (95.0, 97.5)
    for wrong in ((losses, 1.0), (np.zeros(0), 0.5)):
        with pytest.raises(ValueError, match="value at risk"):
            stress.value_at_risk(*wrong)


def test_concentration_is_the_herfindahl_index() -> None:
    assert stress.concentration(np.array([5, 0, 0])) == 10_000
    assert stress.concentration(np.ones(100, np.int64)) == 100
    assert stress.concentration(np.zeros(3, np.int64)) == 0


def test_the_report_adds_up() -> None:
    one, of = tick(), found()
    margins = evaluate_book(one.book, one.marks)
    assert (of.equity, of.imr, of.mmr) == margins.totals()
    assert sum(of.histogram) == of.count == 200
    assert sum(of.histogram[:4]) == of.unhealthy
    assert sum(of.histogram[:6]) == of.watched
    assert of.exposure == (sum(100 + 5 * i for i in range(200)) * PPM, 0, 0, 0)
    assert [p.liquidated for p in of.points] == sorted(p.liquidated for p in of.points)
    assert of.stresses[1].bad_debt > of.stresses[0].bad_debt
    assert 0 < of.var <= of.shortfall
    reading = cascade_reading(of, 5)
    assert (reading.bad_debt, reading.insurance) == (of.probe_bad_debt, 5)
    with pytest.raises(ValueError, match="depth"):
        report(one.book, one.marks, PARAMETERS.breakers, -1)


def test_an_empty_book_has_a_report_and_a_plot() -> None:
    of = found(0)
    assert (of.count, of.gross, of.hhi, of.unhealthy) == (0, 0, 0, 0)
    ElementTree.fromstring(svg(of))


def test_every_figure_is_exported() -> None:
    metrics = Metrics()
    export(found(), metrics)
    export(found(), metrics)
    text = metrics.exposition().decode()
    for name in (
        'keeper_risk_health_accounts{below="1.2"}',
        'keeper_risk_liquidated_usd{fall="0.05"}',
        'keeper_risk_exposure_usd{class="canonical"}',
        'keeper_risk_state_age_seconds{chain="31337"} 5.0',
        "keeper_risk_cascade_ratio",
        "keeper_risk_concentration_hhi",
        "keeper_risk_var_usd",
        "keeper_risk_shortfall_usd",
    ):
        assert name in text


def test_the_plot_is_svg_with_both_curves() -> None:
    root = ElementTree.fromstring(svg(found()))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [line.get("stroke") for line in lines] == ["#c0392b", "#2c3e50"]
    points = [p.split(",") for p in str(lines[0].get("points")).split()]
    assert all(0 <= float(x) <= 760 and 0 <= float(y) <= 420 for x, y in points)


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 $"), (1_500_000 * PPM, "1.5 M$"), (-2_000 * PPM, "-2.0 k$")]
)
def test_dollars_are_short(amount: int, text: str) -> None:
    assert dollars(amount) == text


def test_a_tick_survives_its_file(tmp_path: Path) -> None:
    one = tick(20)
    board = next_board((), [Paused(ETH)], 7, PARAMETERS.breakers)
    raw = dump.dump(dump.TickFile(one.parameters, one.marks, one.book, board))
    again = dump.load(raw)
    assert again.board == board
    assert dump.dump(again) == raw
    broken = tmp_path / "broken"
    broken.write_bytes(raw[:-3])
    with pytest.raises(LocalError, match="not a tick file"):
        dump.read(broken)
    with pytest.raises(LocalError, match="cannot read"):
        dump.read(tmp_path / "absent")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tick"
    path.write_bytes(dump.dump(tick(60, age=90)))
    return path


def test_keeper_risk_prints_a_table_json_and_a_plot(file: Path, tmp_path: Path) -> None:
    shown = runner.invoke(risk_cli.app, [str(file)])
    assert shown.exit_code == 0
    for word in ("cascade multiplier", "Prices fall", "bridge class", "90 s"):
        assert word in shown.output
    plot = tmp_path / "curve.svg"
    value = runner.invoke(
        risk_cli.app, [str(file), "--json", "--svg", str(plot), "--engine", "numpy"]
    )
    assert json.loads(value.output)["count"] == 60
    ElementTree.fromstring(plot.read_text())
    assert runner.invoke(risk_cli.app, [str(file), "--engine", "abacus"]).exit_code == 2


def test_keeper_breaker_lists_and_explains(file: Path, tmp_path: Path) -> None:
    shown = runner.invoke(breaker_cli.app, ["list", str(file), "--json", "--insurance", "0"])
    rows = {row["rule"]: row for row in json.loads(shown.output)}
    assert rows["state_age"]["scope"] == "chain:31337"
    assert "90 s old" in rows["state_age"]["why"]
    assert rows["state_age"]["grades"]["withdraw"] == "stop"
    table = runner.invoke(breaker_cli.app, ["list", str(file)])
    assert "state_age" in table.output
    calm = tmp_path / "calm"
    calm.write_bytes(dump.dump(tick(10)))
    assert "every breaker is closed" in runner.invoke(breaker_cli.app, ["list", str(calm)]).output
    told = runner.invoke(breaker_cli.app, ["explain", "curse"])
    assert "governance lifts it" in told.output
    every = json.loads(runner.invoke(breaker_cli.app, ["explain", "--json"]).output)
    assert len(every) == 8


# --- files of somebody else -----------------------------------------------------------------------

ODD_VALUES = [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, b"", bytes(32), None, True, 1.5, "x", [], {}]


def spoiled(value: Any, draw: random.Random, share: float = 0.08) -> Any:
    """Return a decoded file with some values exchanged and some bits flipped."""
    if draw.random() < share:
        return draw.choice(ODD_VALUES)
    if isinstance(value, list):
        return [spoiled(item, draw, share) for item in value]
    if isinstance(value, bytes) and value and draw.random() < share:
        raw = bytearray(value)
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        return bytes(raw)
    return value


def test_a_spoiled_tick_is_an_error_with_words_and_nothing_else() -> None:
    draw, refused = random.Random(8), 0
    whole = msgpack.unpackb(dump.dump(tick(5)), strict_map_key=False)
    inner = msgpack.unpackb(whole[6], strict_map_key=False)
    for turn in range(600):
        book = msgpack.packb(spoiled(inner, draw)) if turn % 2 else whole[6]
        body = [spoiled(item, draw) for item in whole[2:]] if not turn % 2 else whole[2:]
        parts = [*whole[:2], *body]
        parts[6] = book if turn % 2 else parts[6]
        raw = msgpack.packb(parts)
        try:
            risk_cli.reported(dump.load(raw), None, draw.choice(["python", "numpy"]))
        except LocalError:
            refused += 1
    assert 100 < refused < 600


def test_a_book_of_numbers_beyond_the_guards_is_refused() -> None:
    one = tick(3)
    one.book.size[1] = 2**62
    with pytest.raises(ValueError, match="62 bits"):
        books.load(books.dump(one.book))
    one = tick(3)
    one.book.scales[0] = 7
    with pytest.raises(ValueError, match="scale"):
        books.load(books.dump(one.book))


def test_a_leg_without_a_price_is_told(tmp_path: Path) -> None:
    one = tick(3)
    bare = Marks({USDC: 10**8}, {}, PARAMETERS.margin, {A: 5})
    path = tmp_path / "tick"
    path.write_bytes(dump.dump(dump.TickFile(PARAMETERS, bare, one.book)))
    for app, arguments in ((risk_cli.app, [str(path)]), (breaker_cli.app, ["list", str(path)])):
        done = runner.invoke(app, arguments)
        assert isinstance(done.exception, LocalError)
        assert "ETH-USD" in done.exception.what
