"""The simulated beacon as a process: follows an execution chain, serves a beacon node's REST.

    python -m keeper.devnet.beacon_node --rpc http://127.0.0.1:8545 --port 5052

    /eth/v1/beacon/genesis                              JSON
    /eth/v1/beacon/headers/finalized                    JSON: the root to start a client from
    /eth/v1/beacon/light_client/bootstrap/{root}        SSZ
    /eth/v1/beacon/light_client/updates?start_period=P&count=N
    /eth/v1/beacon/light_client/finality_update
    /eth/v1/beacon/light_client/optimistic_update
    /devnet/faults?participation=60&stalled=1           sets `Faults`, and shows them

Paths and bytes are those of the beacon APIs, so the client needs to know nothing of the devnet.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import trio

from keeper.chain.http import HttpRpc
from keeper.chain.rpc import Rpc
from keeper.config import LightClientConfig
from keeper.devnet.beacon import FORK_VERSION, SimulatedBeacon
from keeper.devnet.chains import free_port
from keeper.devnet.warden import Guard
from keeper.errors import RemoteFault, UnreachableError
from keeper.observe.light_client.rest import SSZ
from keeper.observe.light_client.ssz import Update, sha256, uint
from keeper.web.client import get_json
from keeper.web.server import Response, Route, Server

LIGHT = "/eth/v1/beacon/light_client"
MAX_UPDATES = 128
POLL_S = 0.25
READY_S = 60.0
SLOTS_PER_EPOCH = 2
"""With a slot a second, a block is final after four to six seconds."""
EPOCHS_PER_PERIOD = 64
"""A committee serves two minutes, so a devnet sees many."""
_CATCH_UP = 256
"""Blocks anvil keeps, and so the longest way back to a block we know."""


def fork_digest(beacon: SimulatedBeacon) -> bytes:
    """Return the context bytes before each update (compute_fork_digest)."""
    return sha256(FORK_VERSION.ljust(32, b"\0") + beacon.spec.genesis_validators_root)[:4]


class BeaconNode:
    """Serves one simulated beacon chain."""

    def __init__(self, beacon: SimulatedBeacon, rpc: Rpc, host: str, port: int) -> None:
        self.beacon, self._rpc = beacon, rpc
        self.server = Server(host, port, self._routes())

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Follow and serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.server.run)
            task_status.started()
            while True:
                await self.follow()
                await trio.sleep(POLL_S)

    async def follow(self) -> None:
        """Take the blocks that are new, and what replaced those that are gone."""
        try:
            missing = [await self._block("eth_getBlockByNumber", "latest")]
            while missing[-1] and not self._known(missing[-1]):
                if len(missing) >= _CATCH_UP or int(missing[-1]["number"], 16) <= 1:
                    break
                missing.append(await self._block("eth_getBlockByHash", missing[-1]["parentHash"]))
        except RemoteFault:
            return  # the chain does not answer: no block is made, as on any beacon chain
        for block in reversed([each for each in missing if each]):
            self.beacon.add(block)
        for each in self.beacon.blocks[-_CATCH_UP:]:
            self.server.routes.setdefault(
                f"{LIGHT}/bootstrap/0x{each.root.hex()}", self._bootstrap(each.root)
            )

    def _known(self, block: dict[str, Any]) -> bool:
        return self.beacon.knows(bytes.fromhex(block["hash"][2:]))

    async def _block(self, method: str, which: str) -> dict[str, Any]:
        found: dict[str, Any] | None = await self._rpc.call(method, [which, False])
        return found or {}

    def _routes(self) -> dict[str, Route]:
        return {
            "/eth/v1/beacon/genesis": self._genesis,
            "/eth/v1/beacon/headers/finalized": self._finalized,
            f"{LIGHT}/updates": self._updates,
            f"{LIGHT}/finality_update": lambda _: _ssz(
                self.beacon.newest(), Update.encode_finality
            ),
            f"{LIGHT}/optimistic_update": lambda _: _ssz(
                self.beacon.newest(), Update.encode_optimistic
            ),
            "/devnet/faults": self._faults,
        }

    def _genesis(self, _: str) -> Response:
        return _data(
            {
                "genesis_time": str(self.beacon.genesis_time),
                "genesis_validators_root": "0x" + self.beacon.spec.genesis_validators_root.hex(),
                "genesis_fork_version": "0x" + FORK_VERSION.hex(),
            }
        )

    def _finalized(self, _: str) -> Response:
        block = self.beacon.finalized()
        return _missing() if block is None else _data({"root": "0x" + block.root.hex()})

    def _bootstrap(self, root: bytes) -> Route:
        def answer(_: str) -> Response:
            found = self.beacon.bootstrap(root)
            return _missing() if found is None else Response(found.encode(), content_type=SSZ)

        return answer

    def _updates(self, query: str) -> Response:
        values = dict(parse_qsl(query))
        first, body = int(values.get("start_period", "0")), b""
        for period in range(first, first + min(int(values.get("count", "1")), MAX_UPDATES)):
            update = self.beacon.best(period)
            if update is not None:
                chunk = fork_digest(self.beacon) + update.encode()
                body += uint(len(chunk), 8) + chunk
        return Response(body, content_type=SSZ)

    def _faults(self, query: str) -> Response:
        for name, value in parse_qsl(query):
            if name in asdict(self.beacon.faults):
                setattr(
                    self.beacon.faults,
                    name,
                    int(value) if name == "participation" else value not in ("0", "false"),
                )
        return _data(asdict(self.beacon.faults))


def _data(value: dict[str, Any]) -> Response:
    return Response(json.dumps({"data": value}).encode())


def _missing() -> Response:
    return Response(b'{"code":404,"message":"not available"}', 404)


def _ssz(update: Update | None, encode: Any) -> Response:
    return _missing() if update is None else Response(encode(update), content_type=SSZ)


async def genesis_time(rpc: Rpc) -> int:
    """Return the time of slot 0: that of the execution chain's genesis."""
    block = await rpc.call("eth_getBlockByNumber", ["0x0", False])
    return int(block["timestamp"], 16)


async def serve(rpc_url: str, host: str, port: int, slots_per_epoch: int) -> None:
    """Serve a beacon chain over the execution chain at an address, until cancelled."""
    rpc = HttpRpc(rpc_url)
    beacon = SimulatedBeacon(
        await genesis_time(rpc),
        slots_per_epoch=slots_per_epoch,
        epochs_per_period=EPOCHS_PER_PERIOD,
    )
    await BeaconNode(beacon, rpc, host, port).run()


@asynccontextmanager
async def run_beacon(rpc_url: str, output: Path, guard: Guard) -> AsyncIterator[LightClientConfig]:
    """Run the process for the length of the block; yield what a keeper needs to follow it.

    Args:
        rpc_url: of the execution chain, which goes on by itself.
        output: where the process writes what it has to say.
        guard: told the process, so that it ends with ours.

    Raises:
        UnreachableError: it makes nothing final in time.
    """
    port = free_port()
    command = [sys.executable, "-m", "keeper.devnet.beacon_node", "--rpc", rpc_url]
    command += ["--port", str(port), "--slots-per-epoch", str(SLOTS_PER_EPOCH)]
    with output.open("ab") as file:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        await guard(process.pid)
        told: dict[str, Any] = {}
        final: dict[str, Any] = {}
        with trio.move_on_after(READY_S):
            while "data" not in final and process.poll() is None:
                await trio.sleep(POLL_S)
                told = await get_json("127.0.0.1", port, "/eth/v1/beacon/genesis") or {}
                final = await get_json("127.0.0.1", port, "/eth/v1/beacon/headers/finalized") or {}
        if "data" not in final or "data" not in told:
            raise UnreachableError("the simulated beacon makes nothing final", where=str(output))
        yield LightClientConfig(
            f"http://127.0.0.1:{port}",
            bytes.fromhex(final["data"]["root"][2:]),
            int(told["data"]["genesis_time"]),
            bytes.fromhex(told["data"]["genesis_validators_root"][2:]),
            ((0, bytes.fromhex(told["data"]["genesis_fork_version"][2:])),),
            seconds_per_slot=1,
            slots_per_epoch=SLOTS_PER_EPOCH,
            epochs_per_period=EPOCHS_PER_PERIOD,
        )
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(prog="keeper.devnet.beacon_node")
    parser.add_argument("--rpc", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots-per-epoch", type=int, default=SLOTS_PER_EPOCH)
    chosen = parser.parse_args()
    trio.run(serve, chosen.rpc, chosen.host, chosen.port, chosen.slots_per_epoch)


if __name__ == "__main__":
    main()
