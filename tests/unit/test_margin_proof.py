"""A proof file carries a fact to its seal; every link that is changed is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from coincurve import PrivateKey
from typer.testing import CliRunner

from keeper.cli import snapshot as snapshot_cli
from keeper.hashing import keccak
from keeper.leaves import seal_message
from keeper.margin.proof import SealedFact, Struct, dumps, fault, loads
from keeper.margin.tree import STATE_TYPE, Tree, state_leaf
from keeper.merkle import merkle_proof, merkle_root

NETWORK = keccak(b"net")
HEADER = "SnapshotHeader(uint16 version,uint64 view,bytes32 prices,bytes32 state,bytes32 watch)"
HEADER_LEAF = "Header(bytes32 network,uint32 epoch,uint64 view,bytes32 headerHash)"
RANKS = "Award(bytes32 network,uint32 epoch,uint64 chain,int256 price)"


def signed(fact: SealedFact) -> bool:
    """Stand for the group's signature: over network, epoch, view and root."""
    words = fact.network + fact.epoch.to_bytes(4, "big") + fact.view.to_bytes(8, "big") + fact.root
    return fact.s == int.from_bytes(keccak(words), "big")


def sealed(fact: SealedFact) -> SealedFact:
    words = fact.network + fact.epoch.to_bytes(4, "big") + fact.view.to_bytes(8, "big") + fact.root
    return replace(fact, s=int.from_bytes(keccak(words), "big"))


def state_fact() -> SealedFact:
    rows = [(i, keccak(bytes([i])), i + 1, keccak(b"legs"), 0) for i in range(5)]
    tree = Tree(state_leaf(*row) for row in rows)
    header = Struct(HEADER, (1, 9, keccak(b"p"), tree.root, keccak(b"w")))
    leaf = Struct(HEADER_LEAF, (NETWORK, 3, 9, header.hash()))
    decisions = [keccak(b"other"), leaf.leaf()]
    fact = SealedFact(
        tree="state",
        fact=Struct(STATE_TYPE, rows[2]),
        proof=tuple(tree.proof(2)),
        header=header,
        header_leaf=leaf,
        header_proof=tuple(merkle_proof(decisions, 1)),
        network=NETWORK,
        epoch=3,
        view=9,
        root=merkle_root(decisions),
        rx=7,
        s=0,
        group_key=5,
    )
    return sealed(fact)


def decision_fact() -> SealedFact:
    award = Struct(RANKS, (NETWORK, 3, 10, -5))
    rows = [award.leaf(), keccak(b"x"), keccak(b"y")]
    return sealed(
        replace(
            state_fact(),
            tree="decision",
            fact=award,
            proof=tuple(merkle_proof(rows, 0)),
            header=None,
            header_leaf=None,
            header_proof=(),
            root=merkle_root(rows),
        )
    )


@pytest.mark.parametrize("fact", [state_fact(), decision_fact()])
def test_a_fact_survives_its_file_and_is_proven(fact: SealedFact) -> None:
    assert loads(dumps(fact)) == fact
    assert fault(fact, signed) is None


def test_every_broken_link_is_named() -> None:
    fact = state_fact()
    header, leaf = fact.header, fact.header_leaf
    assert header is not None
    assert leaf is not None
    state = fact.fact.values
    other = Struct(HEADER, (*header.values[:3], keccak(b"z"), header.values[4]))
    wrong = {
        "state root": replace(fact, fact=Struct(STATE_TYPE, (*state[:2], 99, *state[3:]))),
        "not the one": replace(fact, header=other),
        "is missing": replace(fact, header=None),
        "not under the sealed root": replace(fact, header_proof=(keccak(b"no"),)),
        "another view": replace(fact, view=8),
        "another network": replace(fact, epoch=4),
        "signature": replace(fact, s=1),
        "no tree": replace(fact, tree="price list"),
        "malformed": replace(fact, fact=Struct("State", state)),
        "has 5 fields": replace(fact, fact=Struct(STATE_TYPE, state[1:])),
        "watch root": replace(fact, tree="watch"),
    }
    for words, broken in wrong.items():
        found = fault(broken, signed)
        assert found is not None
        assert words in found
    decision = decision_fact()
    swapped = replace(decision, fact=Struct(RANKS, (NETWORK, 3, 10, 5)))
    assert "not under the sealed root" in str(fault(swapped, signed))
    overflow = replace(decision, fact=Struct(RANKS, (NETWORK, 3, 2**64, 5)))
    assert "malformed" in str(fault(overflow, signed))


def test_what_is_no_proof_file_is_refused() -> None:
    good = dumps(state_fact())
    for text in (
        "",
        "[]",
        "{}",
        good.replace("flowkeeper-proof", "other"),
        good.replace('"epoch": 3', '"epoch": "3"'),
        good.replace('"proof": [', '"proof": 5, "x": ['),
        good.replace('"0x', '"0y', 1),
    ):
        with pytest.raises(ValueError, match="not a proof file"):
            loads(text)


STRANGE = ["foo", "uint256[", "(", "uint256[99999999999]", "bytes33", "tuple", "uint7", "()", ""]


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("part", ["fact", "header", "header_leaf"])
def test_a_struct_of_strange_types_is_a_fault_and_no_crash(kind: str, part: str) -> None:
    good = state_fact()
    struct: Struct = getattr(good, part)
    strange = replace(struct, type=struct.type.replace("uint64", kind, 1))
    wrong = replace(good, **{part: strange})
    assert fault(loads(dumps(wrong)), signed) is not None


# --- keeper snapshot verify -----------------------------------------------------------------------

SECRET = PrivateKey(keccak(b"group"))
GROUP = SECRET.public_key_xonly.format()


def certified(fact: SealedFact) -> SealedFact:
    """Return a fact under a real BIP340 signature."""
    message = seal_message(fact.network, fact.epoch, fact.view, fact.root)
    raw = SECRET.sign_schnorr(message)
    numbers = {"rx": raw[:32], "s": raw[32:], "group_key": GROUP}
    return replace(fact, **{name: int.from_bytes(v, "big") for name, v in numbers.items()})


def verified(path: Path, fact: SealedFact, key: bytes = GROUP) -> tuple[int, dict[str, object]]:
    path.write_text(dumps(fact))
    done = CliRunner().invoke(
        snapshot_cli.app, ["verify", str(path), "--group-key", "0x" + key.hex(), "--json"]
    )
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, json.loads(done.output)


def test_the_verb_proves_a_fact_under_the_key_one_trusts(tmp_path: Path) -> None:
    good, path = certified(state_fact()), tmp_path / "proof"
    code, said = verified(path, good)
    assert (code, said["valid"], said["view"]) == (0, True, 9)
    assert isinstance(said["fact"], dict)
    assert said["fact"]["seq"] == 3
    wrongs = [
        (replace(good, s=good.s ^ 1), "signature"),
        (replace(good, rx=2**300), "signature"),
        (replace(good, group_key=0), "signature"),
        (replace(good, proof=good.proof[:-1]), "not under"),
        (replace(good, fact=replace(good.fact, type="State(")), "no struct type"),
    ]
    for wrong, word in wrongs:
        code, said = verified(path, wrong)
        assert (code, said["valid"]) == (1, False)
        assert word in str(said["fault"])
    code, said = verified(path, good, keccak(b"another committee"))
    assert (code, said["fault"]) == (1, "it is sealed by another key than the one you trust")
