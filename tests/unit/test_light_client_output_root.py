"""From an L1 state root to an account of a rollup, and every way that should not lead there."""

from dataclasses import replace

import pytest

from keeper.chain.port import BlockRef
from keeper.hashing import keccak
from keeper.observe.light_client.output_root import (
    Anchor,
    BadOutput,
    OutputProof,
    prove_l2_account,
    verify_output,
)
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Timestamp
from tests.support.light_client_tries import (
    INDEX,
    PASSER,
    POSTED,
    ROLLUP,
    USER,
    rollup_case,
    state_of,
    storage_of,
)


def test_an_account_of_the_rollup_is_proven_from_l1() -> None:
    l1, proof, account = rollup_case()
    l2 = verify_output(l1, ROLLUP, proof)
    assert (l2.ref.chain, l2.ref.number, l2.ref.hash) == (10, 4_321, keccak(proof.header))
    assert l2.timestamp == 499_000
    assert prove_l2_account(l2, USER, account)[:2] == (1, 77)
    with pytest.raises(BadOutput):
        prove_l2_account(l2, USER, account[:-1])


def test_the_layout_of_the_oracle() -> None:
    base = int.from_bytes(keccak(bytes(31) + b"\3"), "big")
    assert ROLLUP.slots(0) == (base, base + 1)
    assert ROLLUP.slots(2) == (base + 4, base + 5)


def test_an_output_counts_only_after_its_challenge_period() -> None:
    l1, proof, _ = rollup_case()
    early = replace(l1, timestamp=Timestamp(POSTED + 999))
    with pytest.raises(BadOutput) as bad:
        verify_output(early, ROLLUP, proof)
    assert bad.value.reason is Reason.TOO_FAR_AHEAD


def test_another_height_than_posted_is_refused() -> None:
    l1, proof, _ = rollup_case(number=4_322)
    with pytest.raises(BadOutput, match="not 4322"):
        verify_output(l1, ROLLUP, proof)


def test_every_flipped_byte_is_refused() -> None:
    l1, proof, _ = rollup_case()

    def flips(raw: bytes) -> list[bytes]:
        return [raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :] for at in range(len(raw))]

    wrong = [replace(proof, header=bad) for bad in flips(proof.header)]
    wrong += [replace(proof, message_passer=bad) for bad in flips(PASSER)]
    for name in ("account", "root_slot", "meta_slot"):
        nodes: tuple[bytes, ...] = getattr(proof, name)
        for at, node in enumerate(nodes):
            for bad in flips(node):
                changed = (*nodes[:at], bad, *nodes[at + 1 :])
                wrong.append(
                    OutputProof(
                        proof.index,
                        changed if name == "account" else proof.account,
                        changed if name == "root_slot" else proof.root_slot,
                        changed if name == "meta_slot" else proof.meta_slot,
                        proof.message_passer,
                        proof.header,
                    )
                )
    assert len(wrong) > 1_000
    for each in wrong:
        with pytest.raises(BadOutput):
            verify_output(l1, ROLLUP, each)


@pytest.mark.parametrize("change", ["index", "state", "passer", "header"])
def test_other_parts_are_refused(change: str) -> None:
    l1, proof, _ = rollup_case()
    match change:
        case "index":
            proof = replace(proof, index=INDEX + 1)
        case "state":
            l1 = replace(l1, state_root=keccak(b"another"))
        case "passer":
            proof = replace(proof, message_passer=PASSER + b"\0")
        case _:
            proof = replace(proof, header=b"\xc0")
    with pytest.raises(BadOutput):
        verify_output(l1, ROLLUP, proof)


def test_an_output_that_was_never_posted() -> None:
    storage = storage_of({})
    first, second = ROLLUP.slots(0)
    l1 = state_of({ROLLUP.oracle: storage})
    anchor = Anchor(BlockRef(ChainId(1), BlockNumber(1), bytes(32)), l1.root, Timestamp(10**9))
    nodes = [storage.proof(slot.to_bytes(32, "big")) for slot in (first, second)]
    proof = OutputProof(0, l1.proof(ROLLUP.oracle), nodes[0], nodes[1], PASSER, b"\xc0")
    with pytest.raises(BadOutput, match="there is no output 0"):
        verify_output(anchor, ROLLUP, proof)
