"""The gas table of the documentation is what the committed bytecode costs, and meets its goals."""

from tests.support.contract_gas import documented, measure


def test_the_documented_gas_is_measured_and_within_its_limits() -> None:
    rows = measure()
    assert [row for row in rows if row.limit is not None and row.gas > row.limit] == []
    by_name = {row.name: row.gas for row in rows}
    few, many = (by_name[f"Awards.execute: winner, n = {n}"] for n in (4, 31))
    assert abs(many - few) < 100  # calldata bytes that happen to be zero
    shown = documented()
    assert list(shown) == [row.name for row in rows], "stale: scripts/benches/gas.py --docs"
    for row in rows:
        assert abs(shown[row.name] - row.gas) <= row.gas // 100, f"stale: {row}"
