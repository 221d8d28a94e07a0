"""Every attack that docs/competition.md lists names tests that exist, and none is left out."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "competition.md"
HEAD = "| attack | answer | test | twin |"
WANTED = (
    *("shill second bid", "selective non-reveal", "late bid", "bond used twice"),
    *("chain", "epoch", "contract", "task", "withdraw while locked", "t−1 signatures"),
    *("unpaid price", "early rank", "healed account", "heal-then-sicken", "reorg"),
    *("copied calldata", "fee-on-transfer", "re-entrant", "bidding high", "sybil"),
    *("expired epoch",),
)
"""The attacks that the protocol was designed against; the page may list more."""


def rows(text: str) -> list[list[str]]:
    """Return the cells of the table's rows."""
    lines = text[text.index(HEAD) :].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def names(path: Path) -> set[str]:
    """Return the tests of a file."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def faults(text: str) -> list[str]:
    """Return what is wrong with a page's table."""
    table = rows(text)
    said = " / ".join(row[0].lower() for row in table)
    found = [f"no row about {attack}" for attack in WANTED if attack not in said]
    for attack, _, *tests in table:
        if tests[0] == tests[1]:
            found.append(f"{attack}: the twin is the test itself; say `same`")
        for test in tests:
            if test == "same":
                continue
            file, _, name = test.strip("`").partition("::")
            path = TESTS / file
            if not path.is_file() or name not in names(path):
                found.append(f"{attack}: no test {test}")
    return found


def test_every_attack_names_its_tests() -> None:
    assert faults(PAGE.read_text()) == []


def test_the_check_notices_a_test_that_is_gone_and_an_attack_left_out() -> None:
    text = PAGE.read_text()
    assert faults(text.replace("test_copied_calldata", "test_copied")) != []
    assert faults(text.replace("| copied calldata |", "| something else |")) != []
