"""A devnet that is kept: one more keeper joins, is seated, and a member that lies is slashed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from keeper import keys, network
from keeper.chain.http import HttpRpc
from keeper.contracts import decode_result, encode_call
from keeper.devnet.chains import ensure_anvil
from keeper.devnet.cluster import PASSWORD
from keeper.devnet.control import Control, read
from keeper.errors import FlowkeeperError
from keeper.venue.bonds import SLASHED, BondStatus
from keeper.web.client import get_json
from p2p.agreement.signing import EcdsaSigner, vote_hash
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_from_text
from p2p.service import Channel
from p2p.types import Committee, Kind, Member, Vote
from p2p.wire import encode
from tests.support.shared import ROOT

pytestmark = [pytest.mark.anvil, pytest.mark.libp2p]
UP_S = 120
AHEAD = 4  # views by which the liar's votes run ahead, so that they are still open on arrival
SLASH_TICKS = 10  # from the lie to the block that takes the bond


@contextmanager
def kept(folder: Path) -> Iterator[Control]:
    """Run an idle devnet for the length of the block."""
    try:
        ensure_anvil(Path.home() / ".cache" / "flowkeeper")
    except FlowkeeperError as error:
        pytest.skip(f"no anvil: {error}")
    said = folder.with_suffix(".out")
    command = ["devnet", "up", "--json", "--scenario", "idle", "--keep", "--dir"]
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "keeper", *command, str(folder)], cwd=ROOT, stdout=out
        )
    try:
        deadline = time.monotonic() + UP_S
        while "running in" not in said.read_text():
            assert process.poll() is None, "the devnet ended"
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        yield read(folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def until(what: str, ask: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """Ask again until the answer is true, for at most so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = await ask()
        if answer:
            return answer
        await trio.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")


@contextmanager
def joining(folder: Path) -> Iterator[None]:
    """Let one more keeper join for the length of the block."""
    joiner = subprocess.Popen([sys.executable, "-m", "keeper", "join", str(folder)], cwd=ROOT)
    try:
        yield
    finally:
        joiner.send_signal(signal.SIGTERM)
        joiner.wait(20)


async def follows(home: Path) -> dict[str, Any] | None:
    """Return the status of a node that has seen a seal, or None."""
    try:
        text = await trio.Path(home / "keeper.toml").read_text()
    except OSError:
        return None
    port = int(text.split("[http]")[1].split("port = ")[1].split()[0])
    value: dict[str, Any] | None = await get_json("127.0.0.1", port, "/status")
    return value if value and value.get("sealed_view", 0) > 0 and value["seals"] > 0 else None


async def test_a_keeper_joins_and_follows_what_it_verified(tmp_path: Path) -> None:
    with kept(tmp_path / "net") as control, joining(control.folder):
        value = await until("following", partial(follows, control.folder / "joiner"), 60)
        assert value["final_view"] > 0
        await seats(control)
        await slashes_a_liar(control)


async def seats(control: Control) -> None:
    """Wait until the joiner votes and seals with the others in the next epoch, on every chain."""
    homes = [Path(one["home"]) for one in control.keepers] + [control.folder / "joiner"]

    async def seated() -> list[dict[str, Any]] | None:
        values = [await follows(home) for home in homes]
        found = [v for v in values if v and v["epoch"] == 2 and v["phase"] == "member"]
        sealed = [v for v in found if v["members"] == 5 and v["sealed_view"] > v["began"] + 4]
        return sealed if len(sealed) == len(homes) else None

    values = await until("epoch 2", seated, 120)
    assert sorted(value["member"] for value in values) == [0, 1, 2, 3, 4]
    spec = network.load(control.folder / "network.json")
    for chain in spec.chains:
        rpc, contract = HttpRpc(control.chains[str(chain.id)]), chain.contract("Committee")
        assert contract is not None
        call = {
            "to": "0x" + contract.hex(),
            "data": "0x" + encode_call("Committee", "current").hex(),
        }
        assert int(await rpc.call("eth_call", [call, "latest"]), 16) == 2
        await rpc.aclose()


def vote(committee: Committee, signer: EcdsaSigner, view: int, digest: bytes) -> Vote:
    """Return a signed notarize vote."""
    me = committee.index_of(signer.address)
    assert me is not None
    signature = signer.sign(vote_hash(committee, Kind.NOTARIZE, view, digest))
    return Vote(committee.epoch, Kind.NOTARIZE, view, digest, me, signature)


async def slashes_a_liar(control: Control) -> None:
    """Speak as a member whose process is gone: two notarize votes for one view."""
    spec = network.load(control.folder / "network.json")
    homes = [*(Path(one["home"]) for one in control.keepers), control.folder / "joiner"]
    opened = [keys.load(home / "keys", PASSWORD) for home in homes]
    members = tuple(
        sorted((Member(one.address, one.peer_id) for one in opened), key=lambda m: m.address)
    )
    committee = Committee(spec.id, 2, members, spec.digest())
    liar = opened[3]
    stop(homes[3])
    signer = EcdsaSigner(liar.operator)
    known = tuple(one["address"] for one in control.keepers[:-1])
    p2p = Libp2pNetwork(liar.identity, "/ip4/127.0.0.1/tcp/0", known)
    others = frozenset(peer_id_from_text(text.rsplit("/", 1)[1]) for text in known)
    p2p.allow(others, others)
    rpc = HttpRpc(control.chains[str(spec.hub)])
    bonds = spec.chain(spec.hub).contract("Bonds")
    assert bonds is not None

    async def tombstoned() -> bool:
        status = await get_json("127.0.0.1", control.keepers[0]["http_port"], "/status")
        for n in (1, 2):
            lie = vote(committee, signer, status["view"] + AHEAD, bytes([n]) * 32)
            p2p.broadcast(bytes((Channel.AGREEMENT,)) + encode(lie))
        call = {
            "to": "0x" + bonds.hex(),
            "data": "0x" + encode_call("Bonds", "stake", liar.address).hex(),
        }
        raw = bytes.fromhex((await rpc.call("eth_call", [call, "latest"]))[2:])
        ((amount, _, _, _, state),) = decode_result("Bonds", "stake", raw)
        return bool(state == BondStatus.TOMBSTONED and amount == 0)

    async def linked() -> bool:
        return sum(row.connected for row in p2p.peers()) == len(others)

    async with trio.open_nursery() as nursery:
        await nursery.start(p2p.run)
        await until("links to all others", linked, 30)
        lied = int(time.time() * 1000 - spec.genesis_time_ms) // spec.tick_ms
        await until("the slash", tombstoned, 30)
        nursery.cancel_scope.cancel()
    slashed = await slashed_at(rpc, bonds, liar.address)
    await rpc.aclose()
    ticks = (slashed * 1000 - spec.genesis_time_ms) // spec.tick_ms - lied
    assert ticks <= SLASH_TICKS, f"the bond was taken {ticks} ticks after the lie"


async def slashed_at(rpc: HttpRpc, bonds: bytes, keeper: bytes) -> int:
    """Return the timestamp of the block in which another keeper's evidence took a bond."""
    topics = ["0x" + SLASHED.hex(), "0x" + keeper.rjust(32, b"\0").hex()]
    query = {"address": "0x" + bonds.hex(), "fromBlock": "0x0", "topics": topics}
    (log,) = await rpc.call("eth_getLogs", [query])
    block = await rpc.call("eth_getBlockByHash", [log["blockHash"], False])
    assert log["data"][-40:] != keeper.hex()  # the reporter
    return int(block["timestamp"], 16)


def stop(home: Path) -> None:
    """End the keeper process of a home, which this test's devnet started."""
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError):
            continue
        if f"run\0--home\0{home}\0" in line:
            os.kill(int(entry.name), signal.SIGKILL)
