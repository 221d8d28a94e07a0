"""Gas of the contracts, on the committed bytecode; `--docs` writes the table of docs/contracts.md.

Overhead of the winner and of evidence have goals; k-of-n ECDSA in place of the seal is the peer.
"""

import sys

from scripts.benches._figure import at_least, at_most, figure
from scripts.benches._gas_committee import gas_figures
from tests.support.contract_gas import measure, write_docs


def main() -> bool:
    """Print one figure per row and the ratios to the peer; return whether every goal is met."""
    rows = measure()
    good = [
        figure(row.name, row.gas, "gas")
        if row.limit is None
        else at_most(row.name, row.gas, "gas", row.limit)
        for row in rows
    ]
    gas = {row.name: row.gas for row in rows}
    few, many = gas["Awards.execute: winner, n = 4"], gas["Awards.execute: winner, n = 31"]
    good.append(at_most("winner at n = 31 over n = 4", many / few, "ratio", 1.001))
    seal = gas["seal, exec: with the epoch's key and expiry"]
    for name, least in (("3-of-4", 2.0), ("11-of-16", 6.0), ("21-of-31", 10.0)):
        ratio = gas[f"{name} ECDSA votes, exec"] / seal
        good.append(at_least(f"{name} ECDSA votes over the seal", ratio, "ratio", least))
    for name, (value, limit) in gas_figures().items():
        if limit is None:
            good.append(figure(name, value, "gas"))
        else:
            good.append(at_most(name, value, "gas", limit))
    if "--docs" in sys.argv:
        write_docs(rows)
    return all(good)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
