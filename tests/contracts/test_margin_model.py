"""The EVM computes the same margin to the bit: over 2,000 accounts, extremes and sign changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_abi.abi import decode, encode

from keeper.margin import book as books
from keeper.margin.batch import available, evaluate_book, rows
from keeper.margin.engine import Row
from keeper.margin.marks import Marks
from tests.support import margin_books as support
from tests.support.anvil import anvil_binary, chain_of

__all__ = ["anvil_binary"]
boa = pytest.importorskip("boa", reason="titanoboa is not installed")
vyper = pytest.importorskip("vyper", reason="vyper is not installed")
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


def calldata(selector: bytes, legs: list[tuple[int, ...]], fixed: bytes) -> bytes:
    """Return a call's bytes; the legs are static structs, so their words just follow each other."""
    words = [len(legs), *(word for leg in legs for word in leg)]
    body = b"".join(word.to_bytes(32, "big", signed=True) for word in words)
    head = (64).to_bytes(32, "big") + (64 + len(body)).to_bytes(32, "big")
    return selector + head + body + fixed


def cases(accounts: int) -> Iterator[tuple[str, bytes, set[tuple[int, ...]]]]:
    """Return a name, a call's bytes, and what the engines say: one value if they agree."""
    ids = vyper.compile_code(SOURCE.read_text(), output_formats=["method_identifiers"])
    (text,) = ids["method_identifiers"].values()
    selector = bytes.fromhex(text[2:].zfill(8))
    for seed, extreme in ((21, 0.0), (22, 0.03), (23, 0.25)):
        book = books.build(support.accounts(accounts, seed, extreme))
        marks = support.marks(seed)
        margins = [evaluate_book(book, marks, name) for name in available()]
        fixed = encode((TERMS,), (terms(marks),))[32:]
        for index in range(accounts):
            legs = [encoded(row, marks) for row in rows(book, marks, index)]
            expected: set[tuple[int, ...]] = {engine.row(index)[:7] for engine in margins}
            name = f"seed {seed}, account {index}"
            yield name, calldata(selector, legs, fixed), expected


def test_the_evm_equals_every_engine_in_python() -> None:
    model = boa.load(str(SOURCE))
    for name, data, expected in cases(8):
        output = boa.env.execute_code(to_address=model.address, data=data).output
        assert {decode(("int256",) * 7, output)} == expected, name


@pytest.mark.anvil
async def test_the_evm_equals_every_engine_over_two_thousand_accounts(anvil_binary: Path) -> None:
    runtime = boa.load_partial(str(SOURCE)).compiler_data.bytecode_runtime
    target, count = "0x" + "be" * 20, 0
    async with chain_of(anvil_binary, 31_577) as anvil:
        await anvil.rpc.call("anvil_setCode", [target, "0x" + runtime.hex()])
        for name, data, expected in cases(700):
            call = {"to": target, "data": "0x" + data.hex()}
            output = bytes.fromhex((await anvil.rpc.call("eth_call", [call, "latest"]))[2:])
            assert {decode(("int256",) * 7, output)} == expected, name
            count += 1
    assert count >= 2_000
