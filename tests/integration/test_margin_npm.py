"""Proofs of our trees verify with npm @openzeppelin/merkle-tree, and tampered ones do not."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from keeper.hashing import keccak, type_hash
from keeper.margin.leaves import state_leaves
from keeper.margin.tree import STATE_TYPE, ZERO, Tree, state_leaf
from keeper.merkle import merkle_proof, merkle_root

VERSION = "1.0.8"
FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "npm" / "openzeppelin-merkle-tree"
KINDS = ["bytes32", "uint256", "bytes32", "uint64", "bytes32", "uint32"]
SCRIPT = """
import { StandardMerkleTree, SimpleMerkleTree } from "@openzeppelin/merkle-tree";
import { readFileSync } from "node:fs";
const { kinds, rows, root, proofs, padded, decisions } = JSON.parse(readFileSync(0, "utf8"));
const verify = (at, row, proof) => StandardMerkleTree.verify(at, kinds, row, proof);
const simple = (leaves) => SimpleMerkleTree.of(leaves, { sortLeaves: false });
const tree = simple(decisions);
process.stdout.write(JSON.stringify({
  verified: rows.map((row, i) => verify(root, row, proofs[i])),
  tampered: rows.map((row, i) => verify(root, [row[0], "77", ...row.slice(2)], proofs[i])),
  swapped: rows.map((row, i) => verify(root, row, proofs[(i + 1) % rows.length])),
  padded: simple(padded).root,
  leaf: StandardMerkleTree.of(rows, kinds, { sortLeaves: false }).leafHash(rows[0]),
  decisionRoot: tree.root,
  decisionProofs: decisions.map((_, i) => tree.getProof(i)),
}));
"""

pytestmark = pytest.mark.npm


@pytest.fixture(scope="module")
def folder() -> Path:
    """Return a folder with the pinned package, or skip saying why there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    if not (FOLDER / "node_modules").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "package.json").write_text('{"private":true,"type":"module"}')
        package = f"@openzeppelin/merkle-tree@{VERSION}"
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--save-exact", package],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(FOLDER)
            pytest.skip(f"npm cannot fetch {package}: {done.stderr.strip()[-200:]}")
    return FOLDER


def test_proofs_interoperate_both_ways(folder: Path) -> None:
    count = 21
    fields = [(i, keccak(bytes([i])), 2**40 + i, keccak(b"l%d" % i), i % 3) for i in range(count)]
    tree = Tree(state_leaf(*row) for row in fields)
    hexed = ["0x" + tree.leaf(i).hex() for i in range(count)]
    rows = [
        ["0x" + type_hash(STATE_TYPE).hex(), str(i), "0x" + a.hex(), str(s), "0x" + h.hex(), str(f)]
        for i, a, s, h, f in fields
    ]
    data = {
        "kinds": KINDS,
        "rows": rows,
        "root": "0x" + tree.root.hex(),
        "proofs": [["0x" + node.hex() for node in tree.proof(i)] for i in range(count)],
        "padded": hexed + ["0x" + ZERO.hex()] * (32 - count),
        "decisions": hexed,
    }
    script = folder / "interop.mjs"
    script.write_text(SCRIPT)
    node = shutil.which("node")
    assert node is not None
    out = subprocess.run(
        [node, str(script)],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(out.stdout)
    assert found["verified"] == [True] * count
    assert found["tampered"] == found["swapped"] == [False] * count
    assert found["padded"] == "0x" + tree.root.hex()
    assert found["leaf"] == hexed[0]
    decisions = [tree.leaf(i) for i in range(count)]
    assert found["decisionRoot"] == "0x" + merkle_root(decisions).hex()
    for i, proof in enumerate(found["decisionProofs"]):
        assert proof == ["0x" + node.hex() for node in merkle_proof(decisions, i)]


def test_a_book_has_the_leaves_of_its_fields() -> None:
    from keeper.margin import book as books

    book = books.build((keccak(bytes([i])), i, i % 2, []) for i in range(4))
    expected = [
        state_leaf(i, book.account(i), i, book.legs_hash(i), i % 2) for i in range(len(book))
    ]
    assert state_leaves(book) == expected
