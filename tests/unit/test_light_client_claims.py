"""Optimistic claims: what refutes them, what does not, and when they count."""

from dataclasses import replace

import pytest

from keeper.chain.codec import header_rlp
from keeper.chain.port import BlockRef
from keeper.hashing import keccak
from keeper.observe.light_client.claims import (
    HISTORY,
    HISTORY_WINDOW,
    MAX_OPEN,
    Claim,
    Claims,
    HeaderChallenge,
    HistoryChallenge,
    Standing,
    judge,
)
from keeper.observe.light_client.output_root import Anchor
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Timestamp
from tests.support.light_client import execution_block
from tests.support.light_client_tries import state_of, storage_of

CHAIN = ChainId(31502)
STATE = keccak(b"state")
HEADER = header_rlp(execution_block(20, bytes(32), 1_000, STATE))
TRUE = Claim(BlockRef(CHAIN, BlockNumber(20), keccak(HEADER)), STATE, b"\x0c" * 20, 100)
FORGED = replace(TRUE, ref=replace(TRUE.ref, hash=keccak(b"a block nobody made")))
OTHER_STATE = replace(TRUE, state_root=keccak(b"another"))
OTHER_NUMBER = replace(TRUE, ref=replace(TRUE.ref, number=BlockNumber(21)))
ANYBODY = b"\x0a" * 20


def _history(
    number: int = 25, *, chain: ChainId = CHAIN, stored: bytes = TRUE.ref.hash
) -> HistoryChallenge:
    slot = TRUE.ref.number % HISTORY_WINDOW
    storage = storage_of({slot: int.from_bytes(stored, "big")})
    state = state_of({HISTORY: storage})
    later = Anchor(BlockRef(chain, BlockNumber(number), b"\7" * 32), state.root, Timestamp(0))
    return HistoryChallenge(later, state.proof(HISTORY), storage.proof(slot.to_bytes(32, "big")))


def _proven(_: Anchor) -> bool:
    return True


@pytest.mark.parametrize("claim", [OTHER_STATE, OTHER_NUMBER])
def test_a_claim_against_its_own_header_is_refuted(claim: Claim) -> None:
    assert judge(claim, HeaderChallenge(HEADER), _proven).refuted


def test_a_block_that_is_not_in_the_history_is_refuted() -> None:
    ruling = judge(FORGED, _history(), _proven)
    assert ruling.refuted
    assert TRUE.ref.hash.hex() in ruling.detail


def test_a_true_claim_stands_against_everything() -> None:
    other = header_rlp(execution_block(20, b"\1" * 32, 1_000, STATE))
    for challenge, reason in (
        (HeaderChallenge(HEADER), Reason.WRONG_HEADER),
        (HeaderChallenge(other), Reason.WRONG_HEADER),
        (HeaderChallenge(b"\xff"), Reason.MALFORMED),
        (HeaderChallenge(b"\xc0"), Reason.MALFORMED),
        (_history(), Reason.WRONG_HEADER),
        (_history(chain=ChainId(1)), Reason.WRONG_HEADER),
        (_history(20), Reason.STALE),
        (_history(20 + HISTORY_WINDOW + 1), Reason.STALE),
        (_history(stored=bytes(32)), Reason.BAD_PROOF),
        (replace(_history(stored=b"\1" * 32), slot=()), Reason.BAD_PROOF),
    ):
        ruling = judge(TRUE, challenge, _proven)
        assert (ruling.refuted, ruling.reason) == (False, reason)


def test_a_history_that_nobody_proved_refutes_nothing() -> None:
    ruling = judge(FORGED, _history(), lambda _: False)
    assert (ruling.refuted, ruling.reason) == (False, Reason.BAD_PROOF)


def test_every_flipped_byte_of_a_challenge_is_refused() -> None:
    challenge = _history()
    for name in ("account", "slot"):
        nodes: tuple[bytes, ...] = getattr(challenge, name)
        for at, node in enumerate(nodes):
            for byte in range(len(node)):
                bad = node[:byte] + bytes([node[byte] ^ 1 << byte % 8]) + node[byte + 1 :]
                changed = (*nodes[:at], bad, *nodes[at + 1 :])
                spoilt = HistoryChallenge(
                    challenge.later,
                    changed if name == "account" else challenge.account,
                    changed if name == "slot" else challenge.slot,
                )
                assert not judge(FORGED, spoilt, _proven).refuted


def test_a_claim_is_accepted_after_its_period_and_not_before() -> None:
    claims = Claims(challenge_period=10, min_bond=100)
    assert claims.add(TRUE, now=5) is None
    assert claims.anchor(TRUE.ref) is None
    assert claims.tick(15) == ()
    assert claims.standing(TRUE) is Standing.PENDING
    assert claims.tick(16) == (TRUE,)
    assert claims.standing(TRUE) is Standing.ACCEPTED
    assert claims.anchor(TRUE.ref) == STATE
    late = claims.challenge(TRUE, HeaderChallenge(HEADER), ANYBODY, _proven, 16)
    assert late.reason is Reason.PAST_DEADLINE
    claims.forget(6)
    assert claims.standing(TRUE) is None


def test_a_challenge_in_the_last_instant_counts_and_is_final() -> None:
    claims = Claims(10, 100)
    claims.add(OTHER_STATE, 5)
    assert claims.challenge(OTHER_STATE, HeaderChallenge(HEADER), ANYBODY, _proven, 15).refuted
    assert claims.standing(OTHER_STATE) is Standing.REFUTED
    assert claims.winner(OTHER_STATE) == ANYBODY
    assert claims.tick(100) == ()
    assert claims.anchor(OTHER_STATE.ref) is None
    again = claims.challenge(OTHER_STATE, HeaderChallenge(HEADER), b"\2" * 20, _proven, 15)
    assert again.reason is Reason.DUPLICATE
    assert claims.winner(OTHER_STATE) == ANYBODY
    assert claims.add(OTHER_STATE, 16) is Reason.DUPLICATE


def test_two_accepted_roots_of_one_block_are_none() -> None:
    claims = Claims(10, 100)
    other = replace(OTHER_STATE, claimant=b"\x0d" * 20)
    assert claims.add(TRUE, 0) is claims.add(other, 0) is None
    assert set(claims.tick(11)) == {TRUE, other}
    assert claims.anchor(TRUE.ref) is None


def test_what_is_not_taken() -> None:
    claims = Claims(10, 100)
    assert claims.add(replace(TRUE, bond=99), 0) is Reason.NOT_ADMITTED
    for number in range(MAX_OPEN):
        assert claims.add(replace(TRUE, claimant=number.to_bytes(20, "big")), 0) is None
    assert claims.add(TRUE, 0) is Reason.QUEUE_FULL
    unknown = claims.challenge(TRUE, HeaderChallenge(HEADER), ANYBODY, _proven, 0)
    assert unknown.reason is Reason.MISSING_BODY
    with pytest.raises(ValueError, match="must last"):
        Claims(0, 1)
