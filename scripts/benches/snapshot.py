"""Trees: a million leaves kept up to date, and ten thousand against the peers, in the same run.

Peers: npm @openzeppelin/merkle-tree 1.0.8, murky-tree 1.2.0, multiproof 0.1.10 (in an environment
of its own, since it needs an older eth-abi). All hash the same rows and must find the same root.
"""

import gc
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from eth_abi.abi import encode

from keeper.hashing import BACKEND, keccak, type_hash
from keeper.margin.batch import NUMBA, available
from keeper.margin.book import Book
from keeper.margin.leaves import state_leaves, state_root, state_tree
from keeper.margin.tree import STATE_TYPE, Tree
from keeper.merkle import merkle_root, verify_proof
from keeper.node.member import rules
from keeper.observe.table import Log
from scripts.benches import _books
from scripts.benches._figure import at_least, at_most, figure
from tests.support.clearing_world import ETH, USD, A, B, World, address, trader

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
KINDS = ["bytes32", "uint256", "bytes32", "uint64", "bytes32", "uint32"]
LEAVES = 10_000
BALANCE = type_hash("Balance(bytes32,address,uint256)")
POSITION = type_hash("Position(bytes32,bytes32,int256,int256,int256)")
NPM = "1.0.8"
MULTIPROOF = "0.1.10"
NODE_SCRIPT = """
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";
import { readFileSync } from "node:fs";
const { kinds, rows } = JSON.parse(readFileSync(0, "utf8"));
let best = Infinity, tree;
for (let i = 0; i < 3; i++) {
  const start = process.cpuUsage();
  tree = StandardMerkleTree.of(rows, kinds, { sortLeaves: false });
  const used = process.cpuUsage(start);
  best = Math.min(best, (used.user + used.system) / 1e6);
}
const start = process.cpuUsage();
for (let i = 0; i < 200; i++) tree.getProof(i * 37);
const used = process.cpuUsage(start);
const proof = (used.user + used.system) / 2e8;
process.stdout.write(JSON.stringify({ root: tree.root, seconds: best, proof }));
"""
PYTHON_SCRIPT = """
import json, sys, time
kinds, rows, module = (lambda d: (d["kinds"], d["rows"], d["module"]))(json.load(sys.stdin))
raw = lambda row: [bytes.fromhex(x[2:]) if x.startswith("0x") else int(x) for x in row]
rows = [raw(row) for row in rows]
tree_type = __import__(module).StandardMerkleTree
best = float("inf")
for _ in range(2):
    start = time.process_time()
    if module == "murky_tree":
        tree = tree_type.of(rows, kinds, sort_leaves=False)
    else:
        tree = tree_type.of(rows, kinds)
    best = min(best, time.process_time() - start)
print(json.dumps({"root": tree.root, "seconds": best}))
"""


def best_cpu(run: object, times: int = 5) -> float:
    """Return the least CPU seconds of some runs."""
    assert callable(run)
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def rows_of(book: Book) -> list[list[str]]:
    """Return the fields of every state leaf as text."""
    tag = "0x" + type_hash(STATE_TYPE).hex()
    return [
        [
            *(tag, str(i), "0x" + book.account(i).hex()),
            *(str(book.seqs[i]), "0x" + book.legs_hash(i).hex(), str(book.flags[i])),
        ]
        for i in range(len(book))
    ]


def npm_peer(rows: list[list[str]]) -> dict[str, object] | None:
    """Return what npm's tree needs, or None where node or npm is missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    folder = CACHE / "npm" / "openzeppelin-merkle-tree"
    if node is None or npm is None:
        return None
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private":true,"type":"module"}')
        package = f"@openzeppelin/merkle-tree@{NPM}"
        subprocess.run([npm, "install", "--no-audit", "--no-fund", package], cwd=folder, check=True)
    script = folder / "bench.mjs"
    script.write_text(NODE_SCRIPT)
    return ask([node, str(script)], {"kinds": KINDS, "rows": rows})


def python_peer(python: str, module: str, rows: list[list[str]]) -> dict[str, object]:
    """Return what a Python peer's tree needs."""
    return ask([python, "-c", PYTHON_SCRIPT], {"kinds": KINDS, "rows": rows, "module": module})


def multiproof_python() -> str | None:
    """Return the Python of multiproof's own environment, made at first use."""
    folder = CACHE / "bench" / "multiproof"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", f"multiproof=={MULTIPROOF}"]
        if subprocess.run(install, check=False).returncode:
            shutil.rmtree(folder)
            return None
    return str(python)


def ask(command: list[str], data: dict[str, object]) -> dict[str, object]:
    """Return the JSON a peer prints."""
    done = subprocess.run(
        command, input=json.dumps(data), capture_output=True, text=True, check=True, timeout=300
    )
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def peers() -> None:
    """Ten thousand leaves, hashing and tree, ours in Python without numba."""
    book = _books.book(LEAVES)
    rows = rows_of(book)
    leaves = state_leaves(book)
    roots = {"0x" + merkle_root(given).hex() for given in (leaves, sorted(leaves))}
    ours = best_cpu(lambda: merkle_root(state_leaves(book)))
    figure("snapshot.tree.10k", ours * 1_000, "ms")
    if NUMBA in available():
        state_root(book, NUMBA)
        fast = best_cpu(lambda: state_root(book, NUMBA))
        figure("snapshot.tree.10k.numba", fast * 1_000, "ms")
    multiproof = multiproof_python()
    found = {
        "npm": (npm_peer(rows), 40.0),
        "multiproof": (python_peer(multiproof, "multiproof", rows) if multiproof else None, 25.0),
        "murky": (python_peer(sys.executable, "murky_tree", rows), 8.0),
    }
    for name, (peer, goal) in found.items():
        if peer is None:
            sys.stderr.write(f"{name} is not available here\n")
            at_least(f"snapshot.tree.10k.vs_{name}", 0.0, "x", goal)
            continue
        assert peer["root"] in roots, f"{name} finds another root"  # multiproof always sorts
        at_least(f"snapshot.tree.10k.vs_{name}", float(str(peer["seconds"])) / ours, "x", goal)
    tree = Tree(state_leaves(book))
    proof = best_cpu(lambda: [tree.proof(i * 37) for i in range(200)]) / 200
    figure("snapshot.proof", proof * 1e6, "us")
    npm = found["npm"][0]
    if npm is not None:
        figure("snapshot.proof.vs_npm", float(str(npm["proof"])) / proof, "x")
    leaf = tree.leaf(5)
    checked = best_cpu(lambda: verify_proof(tree.root, leaf, tree.proof(5)))
    figure("snapshot.verify", checked * 1e6, "us")


def incremental() -> None:
    """A thousand of a million leaves changed, spread over the tree."""
    book = _books.book(1_000_000)
    start = time.process_time()
    tree = state_tree(book)
    figure("snapshot.tree.1M", time.process_time() - start, "s")
    best = float("inf")
    gc.collect()
    gc.freeze()
    gc.disable()
    for turn in range(40):
        changes = {i * 997 + turn: keccak(f"{turn}/{i}".encode()) for i in range(1_000)}
        start = time.process_time()
        tree.update(changes)
        best = min(best, time.process_time() - start)
    at_most("snapshot.update.1000_of_1M", best * 1_000, "ms", 10.0)
    one = best_cpu(lambda: tree.update({5: keccak(str(time.process_time()).encode())}))
    figure("snapshot.update.1_of_1M", one * 1e6, "us")


def agreed_view(count: int = 4_000) -> None:
    """A whole agreed derivation with every decision rule: accounts of two legs on two chains."""
    net = World(rules=rules())
    token = net.token(A).rjust(32, b"\0")
    coins, positions = [], []
    for i in range(count):
        size = 10**8 if i % 2 else -(10**8)
        values = encode(["int256"] * 3, [size, -20 * size, 0])
        topics = (BALANCE, trader(i), token)
        coins.append(Log(address(A, "Vault"), topics, encode(["uint256"], [1_000 * USD])))
        positions.append(Log(address(B, "Perps"), (POSITION, trader(i), ETH), values))
    net.chains[A].table = net.chains[A].table.apply(coins)
    net.chains[B].table = net.chains[B].table.apply(positions)
    net.view()  # everybody is new: registers them
    figure("snapshot.agreed_view", count / best_cpu(net.view, 4), "accounts/s")


if __name__ == "__main__":
    sys.stderr.write(f"keccak: {BACKEND}\n")
    peers()
    agreed_view()
    incremental()
