"""The EVM computes the same margin to the bit: over 2,000 accounts, extremes and sign changes."""

from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode, encode

from keeper.margin import book as books
from keeper.margin.batch import available, evaluate_book, rows
from keeper.margin.engine import Row
from keeper.margin.marks import Marks
from tests.support import margin_books as support

boa = pytest.importorskip("boa", reason="titanoboa is not installed")
TERMS = "(int256,int256,int256,int256[3][],int256[],int256[])"
SOURCE = Path(__file__).with_name("MarginModel.vy")


def terms(marks: Marks) -> tuple[object, ...]:
    p = marks.parameters
    return (
        p.leg_cost,
        p.positive_pnl_ppm,
        p.initial_scenario_ppm,
        [list(row) for row in p.scenarios],
        [u.basis_ppm for u in p.underlyings],
        [p.bridge_class_ppm[c.bridge_class] for c in p.chains],
    )


def encoded(row: Row, marks: Marks) -> tuple[int, ...]:
    rate, size, quote, paid = row
    chain = [c.chain for c in marks.parameters.chains].index(marks.venues[rate.venue][0])
    numbers = (rate.kind, size, quote, paid, rate.price, rate.divisor, rate.weight)
    ratios = (rate.maintenance, rate.maintenance_floor, rate.initial, rate.initial_floor)
    rest = (rate.concentration, rate.latency, rate.funding, rate.underlying, rate.group, chain)
    return (*numbers, *ratios, *rest)


def calldata(model: Any, legs: list[tuple[int, ...]], fixed: bytes) -> bytes:
    """Return a call's bytes; the legs are static structs, so their words just follow each other."""
    words = [len(legs), *(word for leg in legs for word in leg)]
    body = b"".join(word.to_bytes(32, "big", signed=True) for word in words)
    head = (64).to_bytes(32, "big") + (64 + len(body)).to_bytes(32, "big")
    return bytes(model.margin.method_id) + head + body + fixed


def test_the_evm_equals_every_engine() -> None:
    model = boa.load(str(SOURCE))
    count = 0
    for seed, extreme, accounts in ((21, 0.0, 700), (22, 0.03, 700), (23, 0.25, 700)):
        book = books.build(support.accounts(accounts, seed, extreme))
        marks = support.marks(seed)
        margins = {name: evaluate_book(book, marks, name) for name in available()}
        fixed = encode((TERMS,), (terms(marks),))[32:]
        for index in range(accounts):
            legs = [encoded(row, marks) for row in rows(book, marks, index)]
            data = calldata(model, legs, fixed)
            output = boa.env.execute_code(to_address=model.address, data=data).output
            found = decode(("int256",) * 7, output)
            for name, engine in margins.items():
                assert found == engine.row(index)[:7], f"{name}, seed {seed}, account {index}"
            count += 1
    assert count >= 2_000
