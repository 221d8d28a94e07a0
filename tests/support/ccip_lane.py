"""A CCIP lane between two made-up chains: its ends, a message over it, and the log of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from eth_abi.abi import encode

from keeper.chain.port import BlockRef, Log
from keeper.hashing import keccak
from keeper.route.bridges.ccip import MESSAGE_SENT
from keeper.route.bridges.ccip_facts import CcipEnd, Committee, word
from keeper.route.bridges.ccip_lane import FINAL, Ccip
from keeper.route.bridges.message import CcipMessage, CcipTokens
from keeper.route.bridges.port import Timing
from keeper.units import BlockNumber, ChainId, symbol

USDC = symbol("USDC")
COMMITTEE = Committee(b"KEEP", tuple(bytes([place]) * 20 for place in (1, 2, 3)), 2)
NAMES = (
    *("router", "on_ramp", "off_ramp", "registry", "rmn"),
    *("resolver", "verifier", "token", "pool"),
)


def end(chain: int, lock_box: bytes = b"") -> CcipEnd:
    places = {name: bytes([16 * chain + place]) * 20 for place, name in enumerate(NAMES)}
    return CcipEnd(ChainId(chain), 100 + chain, first_block=0, **places, lock_box=lock_box)


HERE, THERE = end(1, b"\x77" * 20), end(2)
LANE = Ccip(USDC, 6, [HERE, THERE], COMMITTEE, verifier=keccak(b"us"), timing=Timing(1, 2))
RECIPIENT = b"\x55" * 20


def hexed(*raws: bytes) -> list[str]:
    return ["0x" + raw.hex() for raw in raws]


def told(kinds: str, *values: Any) -> bytes:
    return encode(kinds.split(), values)


MESSAGE = CcipMessage(
    source=HERE.selector,
    destination=THERE.selector,
    number=4,
    execution_gas=300_000,
    receive_gas=0,
    finality=FINAL,
    verifiers=keccak(b"list"),
    on_ramp=word(HERE.on_ramp),
    off_ramp=THERE.off_ramp,
    sender=word(b"\x44" * 20),
    receiver=RECIPIENT,
)
TOKENS = CcipTokens(
    1_234, word(HERE.pool), word(HERE.token), THERE.token, RECIPIENT, (6).to_bytes(32, "big")
)


def raw_of(tokens: CcipTokens = TOKENS, **changes: Any) -> bytes:
    return replace(MESSAGE, **{"token_transfer": tokens.encode(), **changes}).encode()


BLOCK = BlockRef(THERE.chain, BlockNumber(9), keccak(b"block"))


def log(address: bytes, topics: Sequence[bytes], data: bytes, transaction: bytes = b"\1") -> Log:
    return Log(BLOCK, 0, transaction, address, tuple(topics), data)


def sent_log(raw: bytes, **changes: Any) -> Log:
    kinds = "address uint256 bytes (address,uint32,uint32,uint256,bytes)[] bytes[]"
    # the amount beside the message is the sender's word, before fees: it is not what arrives
    data = told(kinds, "0x" + "00" * 20, 10**9, raw, [], [])
    topics = (MESSAGE_SENT, word(THERE.selector.to_bytes(8, "big")), word(b"\x44" * 20))
    made = log(HERE.on_ramp, (*topics, keccak(raw)), data)
    return replace(made, **changes)
