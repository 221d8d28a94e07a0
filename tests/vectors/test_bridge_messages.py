"""Message bytes of Hyperlane and CCIP: the layout of the contracts, and exactly one message."""

from dataclasses import fields, replace

import pytest
from eth_abi.abi import decode, encode
from hypothesis import given
from hypothesis import strategies as st

from keeper.hashing import keccak, type_hash
from keeper.route.bridges.message import (
    EXTRA_ARGS_V1,
    EXTRA_ARGS_V2,
    HYPERLANE_HEAD,
    CcipMessage,
    CcipTokens,
    HyperlaneMessage,
    ccip_extra_args,
    checkpoint_digest,
    decode_any2evm,
    decode_ccip,
    decode_ccip_tokens,
    decode_hyperlane,
    encode_evm2any,
)

WORD = keccak(b"word")
HYPERLANE = HyperlaneMessage(7, 31_501, WORD, 31_502, keccak(b"to"), b"hello")
CCIP = CcipMessage(
    *(1, 2, 3, 400_000, 200_000, b"\0\0\0\x01", WORD),
    *(WORD, b"\x01" * 20, WORD, b"\x02" * 20),
    data=b"eighteen bytes yes",
)


def test_a_hyperlane_message_is_packed_as_its_library_packs_it() -> None:
    raw = HYPERLANE.encode()
    head = "03" + "00000007" + "00007b0d" + WORD.hex() + "00007b0e" + keccak(b"to").hex()
    assert raw == bytes.fromhex(head) + b"hello"
    assert len(raw) == HYPERLANE_HEAD + 5
    assert HYPERLANE.id == keccak(raw)


def test_a_checkpoint_is_signed_over_domain_root_index_and_message() -> None:
    domain = keccak((31_501).to_bytes(4, "big") + WORD + b"HYPERLANE")
    inner = keccak(domain + keccak(b"root") + bytes(3) + b"\x05" + HYPERLANE.id)
    signed = keccak(b"\x19Ethereum Signed Message:\n32" + inner)
    assert checkpoint_digest(31_501, WORD, keccak(b"root"), 5, HYPERLANE.id) == signed
    assert checkpoint_digest(31_501, WORD, keccak(b"root"), 6, HYPERLANE.id) != signed


def test_a_ccip_message_has_the_codecs_least_size() -> None:
    empty = replace(CCIP, on_ramp=b"", off_ramp=b"", sender=b"", receiver=b"", data=b"")
    assert len(empty.encode()) == 79  # MessageV1Codec's base size
    assert len(CCIP.encode()) == 79 + 32 + 20 + 32 + 20 + 18
    assert CCIP.id == keccak(CCIP.encode())


def test_extra_args_begin_with_the_tag_of_their_name() -> None:
    assert type_hash("CCIP EVMExtraArgsV1")[:4] == EXTRA_ARGS_V1
    assert type_hash("CCIP EVMExtraArgsV2")[:4] == EXTRA_ARGS_V2
    assert decode(("uint256",), ccip_extra_args(9)[4:]) == (9,)
    assert decode(("uint256", "bool"), ccip_extra_args(9, True)[4:]) == (9, True)


def test_the_structs_of_a_sender_and_a_receiver() -> None:
    token = b"\x07" * 20
    raw = encode_evm2any(WORD, b"data", [(token, 5)], bytes(20), ccip_extra_args(9))
    types = "(bytes,bytes,(address,uint256)[],address,bytes)"
    ((receiver, data, tokens, fee, extra),) = decode([types], raw)
    assert (receiver, data, fee, extra) == (WORD, b"data", "0x" + "00" * 20, ccip_extra_args(9))
    assert tokens == (("0x" + token.hex(), 5),)
    types = "(bytes32,uint64,bytes,bytes,(address,uint256)[])"
    came = encode([types], [(WORD, 3, b"from", b"data", [(token, 5)])])
    assert decode_any2evm(came) == (WORD, 3, b"from", b"data", ((token, 5),))
    with pytest.raises(ValueError, match="Any2EVM"):
        decode_any2evm(came[:64])


small = st.binary(max_size=40)


@given(st.integers(0, 2**32 - 1), st.binary(max_size=200))
def test_a_hyperlane_message_reads_back(nonce: int, body: bytes) -> None:
    message = replace(HYPERLANE, nonce=nonce, body=body)
    assert decode_hyperlane(message.encode()) == message


@given(st.integers(0, 2**64 - 1), small, small, small)
def test_a_ccip_message_reads_back(number: int, data: bytes, blob: bytes, transfer: bytes) -> None:
    message = replace(
        CCIP, number=number, data=data, destination_blob=blob, token_transfer=transfer
    )
    assert decode_ccip(message.encode()) == message
    assert len(fields(message)) == 14


@given(st.integers(min_value=0, max_value=200))
def test_a_message_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"cut short|version"):
        decode_ccip(CCIP.encode()[:size])
    with pytest.raises(ValueError, match=r"cut short|version"):
        decode_hyperlane(HYPERLANE.encode()[: min(size, HYPERLANE_HEAD - 1)])


def test_odd_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="after the message"):
        decode_ccip(CCIP.encode() + b"\0")
    for raw in (b"\x02" + CCIP.encode()[1:], b"\x04" + HYPERLANE.encode()[1:]):
        with pytest.raises(ValueError, match="version"):
            decode_ccip(raw)
        with pytest.raises(ValueError, match="version"):
            decode_hyperlane(raw)
    with pytest.raises(ValueError, match="32 bytes"):
        replace(HYPERLANE, sender=b"\x01" * 20).encode()
    with pytest.raises(ValueError, match="verifiers"):
        replace(CCIP, finality=b"").encode()
    with pytest.raises(OverflowError):
        replace(CCIP, sender=bytes(256)).encode()


TOKENS = CcipTokens(5, WORD, keccak(b"token"), b"\x03" * 20, b"\x04" * 20, bytes(31) + b"\x06")


def test_a_ccip_token_transfer_has_the_codecs_layout() -> None:
    empty = CcipTokens(0, b"", b"", b"", b"")
    assert len(empty.encode()) == 39  # MessageV1Codec's base size of a token transfer
    parts = ("01", "00" * 31 + "05", "20", WORD.hex(), "20", keccak(b"token").hex())
    rest = ("14", "03" * 20, "14", "04" * 20, "0020", "00" * 31 + "06")
    assert TOKENS.encode().hex() == "".join((*parts, *rest))


@given(st.integers(0, 2**256 - 1), st.lists(small, min_size=5, max_size=5))
def test_a_ccip_token_transfer_reads_back(amount: int, parts: list[bytes]) -> None:
    tokens = CcipTokens(amount, *parts)
    assert decode_ccip_tokens(tokens.encode()) == tokens


def test_a_ccip_token_transfer_is_read_only_if_it_is_exactly_one() -> None:
    raw = TOKENS.encode()
    for size in range(len(raw)):
        with pytest.raises(ValueError, match="cut short"):
            decode_ccip_tokens(raw[:size])
    with pytest.raises(ValueError, match="bytes after"):
        decode_ccip_tokens(raw + b"\0")
    with pytest.raises(ValueError, match="another version"):
        decode_ccip_tokens(b"\2" + raw[1:])
    with pytest.raises(OverflowError):
        replace(TOKENS, token=bytes(256)).encode()
