"""CCIP 2.0's real contracts read and write the same messages, and stop where they are cursed.

The package is BUSL-1.1: fetched at test time, never committed. Contracts are set up as small as
they go: router, ramps, fee quoter, and a verifier of four keepers with a threshold of three.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode, encode

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Receipt
from keeper.hashing import keccak, type_hash
from keeper.route.bridges.ccip import (
    committee_proof,
    cursed_read,
    execute,
    fee_read,
    is_cursed,
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
from keeper.route.bridges.multisig import address_of, sign
from keeper.route.bridges.port import Read, Send, Stage
from keeper.units import ChainId
from tests.support.anvil import anvil_binary, chain_of
from tests.support.hyperlane_contracts import Site
from tests.support.policy_contracts import AAVE, Contract, Workshop, package

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
CCIP = "@chainlink/contracts-ccip@2.0.0"
WETH = "artifacts/contracts/dependencies/weth/WETH9.sol/WETH9.json"
HOME, AWAY = ChainId(31_783), ChainId(31_784)
TAG = b"KEEP"
KEYS = tuple(keccak(f"signer {place}".encode()) for place in range(4))
EVM_FAMILY = bytes.fromhex("2812d52c")
MESSAGE_SENT = type_hash(
    "CCIPMessageSent(uint64,address,bytes32,address,uint256,bytes,"
    "(address,uint32,uint32,uint256,bytes)[],bytes[])"
)
RECEIVED = type_hash("MessageReceived(bytes32,uint64,bytes,bytes,(address,uint256)[])")


def selector(chain: ChainId) -> int:
    return 10**18 + chain


@cache
def artifact(name: str) -> tuple[list[Any], str]:
    folder = package(CCIP)
    abi = json.loads((folder / "abi" / "latest" / f"{name}.json").read_text())
    return abi, (folder / "bytecode" / "latest" / f"{name}.bin").read_text().strip()


@dataclass
class End:
    """One chain with CCIP's contracts."""

    site: Site
    parts: dict[str, Contract]

    @property
    def selector(self) -> int:
        return selector(self.site.chain.id)

    async def read(self, one: Read) -> bytes:
        (done,) = await self.site.chain.calls([one.call], (await self.site.chain.head()).ref)
        return done.output if done.ok else b""


async def _deploy(shop: Workshop, chain: ChainId) -> dict[str, Contract]:
    async def make(name: str, *args: Any) -> Contract:
        return await shop.deploy(*artifact(name), *args)

    parts = {"weth": await shop.make(AAVE, WETH), "link": await shop.token("LINK", 18)}
    parts["rmn"] = await make("rmn", [shop.me])
    proxy = parts["proxy"] = await make("rmn_proxy_contract", parts["rmn"].address)
    parts["router"] = await make("router", parts["weth"].address, proxy.address)
    registry = await make("token_admin_registry")
    link = parts["link"].address
    parts["fees"] = await make("fee_quoter", (2 * 10**20, link), [shop.me], [], [])
    dynamic = (shop.me, shop.me)
    parts["verifier"] = await make("committee_verifier", dynamic, ["ipfs://"], proxy.address, TAG)
    parts["resolver"] = await make("versioned_verifier_resolver")
    parts["executor"] = await make("executor", 10, (shop.me, bytes(4), False))
    number = selector(chain)
    parts["on"] = await make(
        "onramp",
        (number, proxy.address, 10_000_000, registry.address),
        (parts["fees"].address, False, shop.me),
    )
    ramp = (number, 5_000, proxy.address, registry.address, 12_000)
    parts["off"] = await make("offramp", ramp)
    parts["receiver"] = await make("maybe_revert_message_receiver", False)
    return parts


async def _join(here: End, there: End) -> None:
    """Open the lane from here to there, and take what comes from there."""
    mine, other = here.parts, there.selector
    limits = (True, 30_000, 3_000_000, 50_000, 16, EVM_FAMILY, 25, 90_000, 200_000, 10, 90)
    await mine["fees"].tx("applyDestChainConfigUpdates", [(other, limits)])
    prices = [(mine["link"].address, 15 * 10**18), (mine["weth"].address, 2_000 * 10**18)]
    await mine["fees"].tx("updatePrices", (prices, [(other, 10**12)]))
    router, resolver = mine["router"].address, mine["resolver"].address
    checks = (router, other, False, 10, 150_000, 6 + 64 * 4)
    await mine["verifier"].tx("applyRemoteChainConfigUpdates", [checks])
    signers = [here.site.shop.web3.to_checksum_address(address_of(key)) for key in KEYS]
    await mine["verifier"].tx("applySignatureConfigs", [], [(other, 3, signers)])
    at = mine["verifier"].address
    await mine["resolver"].tx("applyInboundImplementationUpdates", [(TAG, at)])
    await mine["resolver"].tx("applyOutboundImplementationUpdates", [(other, at)])
    await mine["executor"].tx("applyDestChainUpdates", [], [(other, (5, True))])
    ramp = (
        other, router, 20, False, 10, 25, 100_000, [resolver], [], mine["executor"].address,
        there.parts["off"].raw,
    )  # fmt: skip
    await mine["on"].tx("applyDestChainConfigUpdates", [ramp])
    from_there = [encode(["address"], [there.parts["on"].address])]
    source = (router, other, True, from_there, [resolver], [])
    await mine["off"].tx("applySourceChainConfigUpdates", [source])
    await mine["router"].tx(
        "applyRampUpdates",
        [(other, mine["on"].address)],
        [],
        [(other, mine["off"].address)],
    )


@asynccontextmanager
async def joined(binary: Path) -> AsyncIterator[tuple[End, End]]:
    async with AsyncExitStack() as stack:
        ends = []
        for chain in (HOME, AWAY):
            anvil = await stack.enter_async_context(chain_of(binary, chain))
            port = EvmChain(chain, [anvil.url], Depth(1), attempt_s=10)
            stack.push_async_callback(port.aclose)
            shop = Workshop(anvil)
            ends.append(End(Site(shop, port, {}), await _deploy(shop, chain)))
        await _join(ends[0], ends[1])
        await _join(ends[1], ends[0])
        yield ends[0], ends[1]


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
    kinds = ["address", "uint256", "bytes", "(address,uint32,uint32,uint256,bytes)[]", "bytes[]"]
    (log,) = [log for log in receipt.logs if log.topics[0] == MESSAGE_SENT]
    return log.topics[3], decode(kinds, log.data)[2]


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
