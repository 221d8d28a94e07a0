"""Who may change what is written down completely, and nothing can be changed behind it."""

from pathlib import Path

import pytest

from keeper.contracts import artifact

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "keeper" / "contracts"
PAGE = ROOT / "docs" / "contracts.md"
BEGIN, END = "<!-- powers: begin -->\n", "\n<!-- powers: end -->"
NAMES = sorted(
    path.stem
    for path in FOLDER.glob("*.vy")
    if path.stem[0].isupper() and not path.stem.startswith("Dev")
)
WAYS = ("is_delegate_call", "selfdestruct", "create_minimal_proxy_to", "create_copy_of", "create_")
ONCE = {"Bonds": "bind", "Committee": "genesis", "Perps": "bind", "Vault": "bind"}
"""The deployer's only calls; each works once."""


def written() -> dict[str, dict[str, str]]:
    """Return contract → function → who, as the page says."""
    text = PAGE.read_text()
    lines = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].splitlines()[2:]
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        contract, functions, who = (cell.strip() for cell in line.strip("|").split("|"))
        for function in functions.split(", "):
            assert function not in found.setdefault(contract, {}), f"{contract}.{function} twice"
            found[contract][function] = who
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_function_that_changes_something_is_written_down(name: str) -> None:
    changing = {
        entry["name"]
        for entry in artifact(name).abi
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    assert set(written()[name]) == changing


def test_the_deployer_keeps_no_right() -> None:
    rights = {
        contract: function
        for contract, functions in written().items()
        for function, who in functions.items()
        if "deployer" in who
    }
    assert rights == ONCE
    for name in ONCE:
        source = (FOLDER / f"{name}.vy").read_text()
        if "initializes: gated" in source:
            source = (FOLDER / "gated.vy").read_text()
        assert source.count("self.deployer = empty(address)") == 1
        assert source.count("== self.deployer") == 1


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.vy")), ids=lambda path: path.stem)
def test_no_source_delegates_creates_or_destroys(path: Path) -> None:
    assert [way for way in WAYS if way in path.read_text()] == []
