"""`keeper doctor` before a real chain with real contracts: what it says, and what it misses not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from keeper import config, home, keys
from keeper.cli.doctor import examine
from keeper.contracts import encode_call
from keeper.devnet.deploy import Market, deploy_chain
from keeper.devnet.wallet import Send, Wallet
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.network import NetworkSpec
from keeper.node.doctor.finding import Finding, Grade
from keeper.parameters import Parameters
from keeper.units import ChainId, symbol
from p2p.frost.keyfile import QUICK
from tests.support.anvil import anvil_binary, chain_of
from tests.support.p2p_ports import free_ports

__all__ = ["anvil_binary"]
pytestmark = pytest.mark.anvil
A = ChainId(31_579)


def worst(found: list[Finding]) -> dict[str, Grade]:
    grades: dict[str, Grade] = {}
    for one in found:
        rank = list(Grade).index
        known = grades.get(one.check, Grade.FINE)
        grades[one.check] = max(known, one.grade, key=rank)
        assert one.grade is Grade.FINE or one.remedy
    return grades


async def test_the_preflight_follows_what_becomes_of_a_keeper(
    anvil_binary: Path, tmp_path: Path
) -> None:
    network, parameters = os.urandom(32), Parameters.devnet([A])
    async with chain_of(anvil_binary, A) as anvil:
        wallet = Wallet(anvil.rpc, A, anvil.key(0))
        chain = await deploy_chain(
            wallet,
            network,
            parameters,
            hub=True,
            venue=True,
            markets=[Market(symbol("ETH-USD"), 3_000 * 10**8)],
            assets=[("USDC", 10**8)],
            receivers=[os.urandom(32) for _ in range(4)],
        )
        spec = NetworkSpec(network, 0, 500, A, (chain,), parameters.encode())
        file, password = tmp_path / "network.json", tmp_path / "password"
        file.write_text(json.dumps(spec.to_json()))
        password.touch(0o600)
        password.write_text("secret\n")
        p2p_port, http_port = free_ports(2)
        mine = home.make(
            tmp_path / "home",
            file,
            {A: (anvil.url,)},
            "secret",
            mode="live",
            p2p_port=p2p_port,
            http_port=http_port,
            password_file=password,
            work=QUICK,
        )

        async def look() -> dict[str, Grade]:
            run: Callable[[], list[Finding]] = lambda: list(  # noqa: E731  a thread runs it
                examine(tmp_path / "home", offline=False)
            )
            return worst(await trio.to_thread.run_sync(run))

        poor = await look()
        expected: dict[str, Any] = dict.fromkeys(
            (f"chain_{A}", f"chain_{A}_contracts", f"chain_{A}_breaker", "keys", "network"),
            Grade.FINE,
        )
        assert expected.items() <= poor.items()
        assert poor["bond"] is Grade.ODD
        assert poor[f"chain_{A}_gas"] is Grade.BAD  # live, and nothing to pay with
        coins = [Send(lane_address(mine.operator, lane), value=10**18) for lane in Lane]
        await wallet.send(*coins)
        opened = keys.load(config.load(tmp_path / "home").keys, "secret")
        own = Wallet(anvil.rpc, A, opened.operator)
        bonds, breaker = chain.contract("Bonds"), chain.contract("Breaker")
        join = encode_call("Bonds", "join", wallet.address, opened.peer_id)
        await wallet.send(Send(own.address, value=200 * 10**18))
        await own.send(Send(bonds, join, 100 * 10**18, gas=500_000))
        rich = await look()
        assert (rich["bond"], rich[f"chain_{A}_gas"]) == (Grade.FINE, Grade.FINE)
        assert Grade.BAD not in rich.values()
        await wallet.send(Send(breaker, encode_call("Breaker", "pause", bytes(32))))
        assert (await look())[f"chain_{A}_breaker"] is Grade.ODD
    assert (await look())[f"chain_{A}"] is Grade.BAD  # the chain is gone
