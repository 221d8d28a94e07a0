"""Committed artefacts are those of the sources, and every source says what it is for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from keeper.contracts import artifact, decode_result, deploy_data, encode_call, topic
from keeper.hashing import type_hash

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "keeper" / "contracts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.vy") if path.stem[0].isupper())


def test_committed_artefacts_are_those_of_the_sources() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "compile-contracts"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_check_names_a_stale_artefact(tmp_path: Path) -> None:
    committed = json.loads((FOLDER / "artifacts" / "DevFeed.json").read_text())
    code = f"""
import importlib.machinery, importlib.util, pathlib, sys
loader = importlib.machinery.SourceFileLoader("cc", {str(ROOT / "scripts/compile-contracts")!r})
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("cc", loader))
loader.exec_module(module)
module.ARTIFACTS = pathlib.Path({str(tmp_path)!r})
sys.exit(module.main(["--check", "DevFeed"]))
"""
    committed["bytecode"] += "00"
    (tmp_path / "DevFeed.json").write_text(json.dumps(committed))
    (tmp_path / "Gone.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "DevFeed: the committed artefact is not that of the source" in done.stdout
    assert "Gone: an artefact without a source" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_contract_fits_a_chain_and_is_documented(name: str) -> None:
    source = (FOLDER / f"{name}.vy").read_text()
    assert "@license Apache-2.0" in source
    assert "@notice" in source
    made = artifact(name)
    assert len(made.bytecode) < 2 * 24_576  # EIP-3860; EIP-170 for the runtime follows at deploy
    for block in source.split("@external\n")[1:]:
        head = block[: block.index('"""') + 3] if '"""' in block else block
        assert '"""' in head, f"{name}: {block.splitlines()[1]} has no NatSpec"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Breaker"])
def test_no_contract_that_holds_value_has_an_owner(name: str) -> None:
    # the breaker holds nothing: its governor can hold back, and that is written down
    functions = {e["name"] for e in artifact(name).abi if e["type"] == "function"}
    banned = {"set_owner", "transfer_ownership", "pause", "upgrade", "set_admin", "rescue"}
    assert not functions & banned


def test_calls_are_encoded_by_name() -> None:
    assert encode_call("DevToken", "mint", b"\x01" * 20, 5)[:4].hex() == "40c10f19"
    assert decode_result("DevToken", "decimals", bytes(31) + b"\x06") == (6,)
    assert topic("Vault", "Balance") == type_hash("Balance(bytes32,address,uint256)")
    assert deploy_data("DevToken", "a", "b", 6).startswith(artifact("DevToken").bytecode)
    with pytest.raises(KeyError, match="has no function nothing"):
        encode_call("DevToken", "nothing")
