"""CCIP 2.0's real contracts read and write the same messages, and stop where they are cursed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from eth_abi.abi import decode, encode

from keeper.chain.port import Receipt
from keeper.ecdsa import sign
from keeper.hashing import keccak, type_hash
from keeper.keys import address_of
from keeper.route.bridges.ccip import (
    committee_proof,
    cursed_read,
    execute,
    fee_read,
    is_cursed,
    message_of,
    send,
    signed_digest,
    stage_of,
    state_read,
)
from keeper.route.bridges.message import (
    ANY2EVM,
    EVM2ANY,
    ccip_extra_args,
    decode_any2evm,
    decode_ccip,
    encode_evm2any,
)
from keeper.route.bridges.port import Send, Stage
from tests.support.anvil import anvil_binary
from tests.support.ccip_contracts import AWAY, KEYS, TAG, End, joined

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
RECEIVED = type_hash("MessageReceived(bytes32,uint64,bytes,bytes,(address,uint256)[])")


async def dispatch(here: End, there: End, data: bytes) -> tuple[bytes, bytes]:
    """Send data over the real router; return (message id, encoded message) of its event."""
    extra = ccip_extra_args(200_000, True)
    receiver = there.parts["receiver"].raw.rjust(32, b"\0")
    message = (receiver, data, [], bytes(20), extra)
    ((_, held, *_),) = decode([EVM2ANY], encode_evm2any(*message))
    assert held == data
    router, chain = here.parts["router"].raw, here.site.chain.id
    (fee,) = decode(["uint256"], await here.read(fee_read(chain, router, there.selector, message)))
    assert fee > 0
    (receipt,) = await here.site.run([send(chain, router, there.selector, message, fee)])
    on_ramp = here.parts["on"].raw
    found = [(log, message_of(on_ramp, there.selector, log)) for log in receipt.logs]
    ((log, raw),) = [(log, raw) for log, raw in found if raw]
    return log.topics[3], raw


def proof(message: bytes, keys: Sequence[bytes]) -> bytes:
    digest = signed_digest(TAG, message)
    return committee_proof(TAG, {address_of(key): sign(key, digest) for key in keys})


def delivery(there: End, raw: bytes, shown: bytes) -> Send:
    resolver = there.parts["resolver"].raw
    return execute(there.site.chain.id, there.parts["off"].raw, raw, [resolver], [shown])


async def stage(there: End, message: bytes) -> Stage:
    read = state_read(there.site.chain.id, there.parts["off"].raw, message)
    return stage_of(await there.read(read))


def received(receipt: Receipt) -> list[tuple[bytes, int, bytes, bytes]]:
    kinds = ["bytes32", "uint64", "bytes", "bytes", "(address,uint256)[]"]
    found = [decode(kinds, log.data) for log in receipt.logs if log.topics[0] == RECEIVED]
    return [decode_any2evm(encode([ANY2EVM], [row]))[:4] for row in found]


async def test_the_real_ramps_read_and_write_our_messages(anvil_binary: Path) -> None:
    async with joined(anvil_binary) as (home, away):
        for here, there in ((home, away), (away, home)):
            name, raw = await dispatch(here, there, b"margin snapshot")
            message = decode_ccip(raw)
            assert (message.encode(), message.id) == (raw, name)
            assert (message.source, message.destination) == (here.selector, there.selector)
            assert message.number == 1
            assert message.on_ramp == here.parts["on"].raw.rjust(32, b"\0")
            assert message.off_ramp == there.parts["off"].raw
            assert message.receiver == there.parts["receiver"].raw
            assert message.sender == bytes.fromhex(here.site.shop.me[2:]).rjust(32, b"\0")
            assert message.data == b"margin snapshot"

            # a message of our own making with another payload is not the one that was sent
            forged = replace(message, data=b"margin snapshop")
            wrong = [
                (raw, proof(name, KEYS[:2])),
                (raw, proof(name, (*KEYS[:2], keccak(b"stranger")))),
                (raw, proof(forged.id, KEYS[:3])),
                (forged.encode(), proof(name, KEYS[:3])),
            ]
            for shown, signed in wrong:
                await there.site.attempt(delivery(there, shown, signed))
                assert await stage(there, name) is Stage.SENT
                assert await stage(there, forged.id) is Stage.SENT
            receipt = await there.site.attempt(delivery(there, raw, proof(name, KEYS[1:])))
            assert receipt.succeeded
            assert await stage(there, name) is Stage.ARRIVED
            sender = message.sender
            assert received(receipt) == [(name, here.selector, sender, b"margin snapshot")]
            again = await there.site.attempt(delivery(there, raw, proof(name, KEYS[:3])))
            assert received(again) == []


async def test_a_cursed_lane_stands_still_until_it_is_uncursed(anvil_binary: Path) -> None:
    async with joined(anvil_binary) as (home, away):
        name, raw = await dispatch(home, away, b"x")
        read = cursed_read(AWAY, away.parts["rmn"].raw, home.selector)
        assert not is_cursed(await away.read(read))
        subject = home.selector.to_bytes(16, "big")
        await away.parts["rmn"].tx("curse(bytes16)", subject)
        assert is_cursed(await away.read(read))
        assert is_cursed(b"")
        good = delivery(away, raw, proof(name, KEYS[:3]))
        assert not (await away.site.attempt(good)).succeeded
        await away.parts["rmn"].tx("uncurse(bytes16)", subject)
        assert (await away.site.attempt(good)).succeeded
        assert await stage(away, name) is Stage.ARRIVED
