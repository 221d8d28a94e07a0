"""A final header, a real chain's state root, an account: proven end to end over real sockets."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from keeper.chain import codec
from keeper.chain.evm import EvmChain
from keeper.chain.port import BlockRef, Finalized, Header
from keeper.devnet.beacon import SimulatedBeacon
from keeper.devnet.beacon_node import BeaconNode, genesis_time
from keeper.devnet.chains import Anvil, free_port
from keeper.hashing import keccak
from keeper.observe.light_client.claims import HISTORY, Claim, HistoryChallenge, judge
from keeper.observe.light_client.output_root import (
    Anchor,
    OutputProof,
    Rollup,
    output_root,
    prove_l2_account,
    verify_output,
)
from keeper.observe.light_client.rest import BeaconRest
from keeper.observe.light_client.service import LightClientService
from keeper.observe.light_client.spec import BeaconSpec
from keeper.observe.light_client.trust import TrustBook
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, ChainId
from keeper.web.client import get_json
from tests.support.anvil import anvil_binary, chain_of
from tests.support.chains import CHAIN, ECHO, ECHO_CODE, Watcher

__all__ = ["anvil_binary"]

pytestmark = pytest.mark.anvil

STORE = bytes.fromhex("5e" * 20)
STORE_CODE = "0x602035600035" + "5500"
"""Stores the second word of the call data in the slot that the first word names."""
DEV = bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266")


@dataclass
class Line:
    """A chain, its beacon, and the light client that follows it over REST."""

    anvil: Anvil
    node: BeaconNode
    service: LightClientService

    @property
    def beacon(self) -> SimulatedBeacon:
        return self.node.beacon

    def now(self) -> int:
        return self.beacon.blocks[-1].slot

    async def mine(self, blocks: int) -> None:
        await _mine(self.anvil, blocks)
        await self.node.follow()
        await self.service.step()

    def final(self) -> Header:
        """The final block as the light client knows it, with nothing from an endpoint."""
        header = self.service.anchor()
        assert header is not None
        return header

    def anchor(self) -> Anchor:
        header = self.final()
        return Anchor(header.ref, header.state_root, header.timestamp)


@asynccontextmanager
async def _line(binary: Path, size: int = 32, blocks: int = 20) -> AsyncIterator[Line]:
    async with chain_of(binary, CHAIN, no_mining=True) as anvil, trio.open_nursery() as nursery:
        await anvil.rpc.call("anvil_setCode", [codec.to_hex(ECHO), ECHO_CODE])
        await anvil.rpc.call("anvil_setCode", [codec.to_hex(STORE), STORE_CODE])
        beacon = SimulatedBeacon(await genesis_time(anvil.rpc), size=size)
        port = free_port()
        node = BeaconNode(beacon, anvil.rpc, "127.0.0.1", port)
        await nursery.start(node.server.run)
        await _mine(anvil, blocks)
        await node.follow()
        url = f"http://127.0.0.1:{port}"
        found = await get_json("127.0.0.1", port, "/eth/v1/beacon/headers/finalized")
        line = Line(anvil, node, None)  # type: ignore[arg-type]  # made in the next line
        root = bytes.fromhex(found["data"]["root"][2:])
        book = TrustBook(Store(":memory:"), CHAIN, beacon.spec, root)
        line.service = LightClientService(CHAIN, BeaconRest(url), beacon.spec, root, line.now, book)
        await line.service.step()
        assert line.service.trouble == ""
        yield line
        nursery.cancel_scope.cancel()


async def _mine(anvil: Anvil, blocks: int) -> None:
    """Mine blocks that are one second apart, however fast this is."""
    await anvil.rpc.call("anvil_mine", [hex(blocks), "0x1"])


async def _send(anvil: Anvil, to: bytes, data: bytes) -> None:
    message = {"from": codec.to_hex(DEV), "to": codec.to_hex(to), "data": codec.to_hex(data)}
    await anvil.rpc.call("eth_sendTransaction", [message | {"gas": hex(200_000)}])


async def _nodes(
    anvil: Anvil, address: bytes, slots: list[int], number: int
) -> tuple[tuple[bytes, ...], list[tuple[bytes, ...]]]:
    """Return the proof nodes of an account and of its slots."""
    keys = ["0x" + slot.to_bytes(32, "big").hex() for slot in slots]
    found = await anvil.rpc.call("eth_getProof", [codec.to_hex(address), keys, hex(number)])

    def nodes(proof: list[str]) -> tuple[bytes, ...]:
        return tuple([codec.data(node) for node in proof])

    return nodes(found["accountProof"]), [nodes(each["proof"]) for each in found["storageProof"]]


async def test_from_the_committee_of_512_to_an_account(anvil_binary: Path) -> None:
    async with _line(anvil_binary, size=512) as line:
        await _send(line.anvil, ECHO, b"\x2a" * 32)
        await line.mine(1)
        await line.mine(12)
        assert line.service.trouble == ""
        final = line.final()
        chain = EvmChain(CHAIN, [line.anvil.url], line.service.finality, poll_s=0.02)
        proof = await chain.proof(ECHO, [0, 1], final)
        assert proof.slots == ((0, int.from_bytes(b"\x2a" * 32, "big")), (1, 0))
        watcher = Watcher()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.run, watcher.emit)
                event = await watcher.until(Finalized)
                nursery.cancel_scope.cancel()
        assert event == Finalized(final.ref)
        block = await line.anvil.rpc.call("eth_getBlockByNumber", [hex(final.ref.number), False])
        assert codec.header(CHAIN, block).state_root == final.state_root


async def test_a_chain_that_the_committee_did_not_sign_is_never_final(anvil_binary: Path) -> None:
    async with _line(anvil_binary) as line, chain_of(anvil_binary, CHAIN, no_mining=True) as twin:
        await twin.mine(30)
        chain = EvmChain(CHAIN, [twin.url], line.service.finality, poll_s=0.02)
        watcher = Watcher()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.run, watcher.emit)
                await watcher.until_head(chain)
                await twin.mine(5)
                await watcher.until_head(chain)
                nursery.cancel_scope.cancel()
        assert not [event for event in watcher.events if isinstance(event, Finalized)]


async def test_the_beacon_follows_block_by_block(anvil_binary: Path) -> None:
    async with _line(anvil_binary) as line:
        anchor = line.final().ref.number
        for _ in range(6):
            count = len(line.beacon.blocks)
            await line.node.follow()
            assert len(line.beacon.blocks) == count
            for _ in range(4):
                await line.mine(1)
            assert len(line.beacon.blocks) == count + 4
            assert line.service.trouble == ""
        assert line.final().ref.number >= anchor + 20


async def test_the_beacon_follows_a_reorg(anvil_binary: Path) -> None:
    async with _line(anvil_binary) as line:
        gone = line.beacon.blocks[-1].execution.block_hash
        await line.anvil.rpc.call("anvil_reorg", [2, []])
        await line.mine(12)
        assert line.service.trouble == ""
        hashes = [each.execution.block_hash for each in line.beacon.blocks]
        assert gone not in hashes
        for each in line.beacon.blocks:
            which = [hex(each.execution.number), False]
            block = await line.anvil.rpc.call("eth_getBlockByNumber", which)
            assert codec.data(block["hash"]) == each.execution.block_hash
        slots = [each.slot for each in line.beacon.blocks]
        assert slots == sorted(set(slots))


async def test_a_rollup_proven_from_the_final_block_of_its_l1(anvil_binary: Path) -> None:
    l2_id = ChainId(31502)
    async with (
        _line(anvil_binary) as line,
        chain_of(anvil_binary, l2_id, no_mining=True) as l2,
    ):
        await l2.mine(3)
        block = await l2.rpc.call("eth_getBlockByNumber", ["0x3", False])
        header = codec.header(l2_id, block)
        passer = keccak(b"message passer")
        rollup = Rollup(l2_id, STORE, challenge_period_s=2)
        first, second = rollup.slots(0)
        committed = output_root(header.state_root, passer, header.ref.hash)
        posted = int(
            (await line.anvil.rpc.call("eth_getBlockByNumber", ["latest", False]))["timestamp"], 16
        )
        await _send(line.anvil, STORE, first.to_bytes(32, "big") + committed)
        meta = 3 << 128 | posted
        await _send(line.anvil, STORE, second.to_bytes(32, "big") + meta.to_bytes(32, "big"))
        await line.mine(1)
        await line.mine(12)
        final = line.anchor()
        account, slots = await _nodes(line.anvil, STORE, [first, second], final.ref.number)
        proof = OutputProof(0, account, slots[0], slots[1], passer, codec.header_rlp(block))
        proven = verify_output(final, rollup, proof)
        assert (proven.ref, proven.state_root) == (header.ref, header.state_root)
        nodes, _ = await _nodes(l2, DEV, [], 3)
        assert prove_l2_account(proven, DEV, nodes)[1] == 10_000 * 10**18


async def test_a_false_claim_falls_to_the_history_in_a_final_block(anvil_binary: Path) -> None:
    async with _line(anvil_binary) as line:
        final = line.anchor()
        number = final.ref.number - 2
        block = await line.anvil.rpc.call("eth_getBlockByNumber", [hex(number), False])
        header = codec.header(CHAIN, block)
        account, slots = await _nodes(line.anvil, HISTORY, [number % 8_191], final.ref.number)
        challenge = HistoryChallenge(final, account, slots[0])
        true = Claim(header.ref, header.state_root, DEV, 1)
        forged = replace(true, ref=BlockRef(CHAIN, BlockNumber(number), keccak(b"no block")))

        def is_proven(block: Anchor) -> bool:
            return block == line.anchor()

        assert judge(forged, challenge, is_proven).refuted
        assert not judge(true, challenge, is_proven).refuted


async def _wait(ask: Any) -> None:
    with trio.fail_after(60):
        while not await ask():  # noqa: ASYNC110 another process's state: there is no event
            await trio.sleep(0.1)


async def test_the_process_and_its_faults_over_rest(anvil_binary: Path) -> None:
    """The simulated beacon as a process of its own: 512 keys, followed, then made to misbehave."""
    async with chain_of(anvil_binary, CHAIN, no_mining=True) as anvil:
        await _mine(anvil, 30)
        port, start = free_port(), await genesis_time(anvil.rpc)
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                "-m",
                "keeper.devnet.beacon_node",
                "--rpc",
                anvil.url,
                f"--port={port}",
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            found: Any = None

            async def up() -> bool:
                nonlocal found
                found = await get_json("127.0.0.1", port, "/eth/v1/beacon/headers/finalized")
                return isinstance(found, dict) and "data" in found

            await _wait(up)
            told = await get_json("127.0.0.1", port, "/eth/v1/beacon/genesis")
            assert int(told["data"]["genesis_time"]) == start
            spec = BeaconSpec(
                bytes.fromhex(told["data"]["genesis_validators_root"][2:]),
                ((0, bytes.fromhex(told["data"]["genesis_fork_version"][2:])),),
                slots_per_epoch=2,
                epochs_per_period=64,
            )
            head = await anvil.rpc.call("eth_getBlockByNumber", ["latest", False])
            now = int(head["timestamp"], 16) - start + 100
            root = bytes.fromhex(found["data"]["root"][2:])
            source = BeaconRest(f"http://127.0.0.1:{port}")
            book = TrustBook(Store(":memory:"), CHAIN, spec, root)
            service = LightClientService(CHAIN, source, spec, root, lambda: now, book)
            await service.step()
            assert service.trouble == ""
            before = service.anchor()
            assert before is not None
            shown = await get_json("127.0.0.1", port, "/devnet/faults?participation=60")
            assert shown["data"]["participation"] == 60
            await _mine(anvil, 12)

            async def refused() -> bool:
                await service.step()
                return service.health().reason is Reason.LOW_PARTICIPATION

            await _wait(refused)
            assert service.anchor() == before
            await get_json("127.0.0.1", port, "/devnet/faults?participation=100")
            await _mine(anvil, 1)

            async def moved() -> bool:
                await service.step()
                return service.anchor() != before

            await _wait(moved)
            assert service.trouble == ""
        finally:
            process.kill()
            await process.wait()


def test_the_paths_are_those_of_a_beacon_node() -> None:
    node = BeaconNode(SimulatedBeacon(0, size=32), None, "127.0.0.1", 0)  # type: ignore[arg-type]  # never asked
    assert (
        json.loads(node.server.routes["/eth/v1/beacon/genesis"]("").body)["data"]["genesis_time"]
        == "0"
    )
    assert node.server.routes["/eth/v1/beacon/light_client/finality_update"]("").status == 404
    assert node.server.routes["/eth/v1/beacon/light_client/updates"]("").body == b""
