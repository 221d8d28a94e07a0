"""`keeper bond` on a real chain: a bond from its first coin to its last."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from typer.testing import CliRunner

from keeper import home as home_folder
from keeper.cli.main import app
from keeper.contracts import encode_call
from keeper.devnet.chains import Anvil
from keeper.devnet.deploy import UNBONDING_S, account_id, deploy_chain
from keeper.devnet.wallet import Send, Wallet
from keeper.hashing import keccak
from keeper.network import NetworkSpec
from keeper.parameters import Parameters
from keeper.units import ChainId
from p2p.frost.keyfile import QUICK
from tests.support.anvil import chain_of

pytestmark = pytest.mark.anvil
HUB = ChainId(31501)
ETHER = 10**18
NETWORK = keccak(b"bond cli")


async def deployed(anvil: Anvil) -> NetworkSpec:
    """Return a network of one chain that holds the bonds."""
    parameters = Parameters.devnet([HUB])
    spec = await deploy_chain(
        Wallet(anvil.rpc, HUB, anvil.key(0)),
        NETWORK,
        parameters,
        hub=True,
        venue=False,
        markets=[],
        assets=[("USDC", 10**8)],
        receivers=[account_id(NETWORK, bytes(19) + bytes([at])) for at in range(4)],
    )
    return NetworkSpec(NETWORK, 0, 500, HUB, (spec,), parameters.encode())


class Desk:
    """An operator at its shell."""

    def __init__(self, anvil: Anvil, folder: Path, spec: NetworkSpec) -> None:
        self.anvil, self.home, self.admin = anvil, folder / "home", folder / "admin.key"
        (folder / "network.json").write_text(json.dumps(spec.to_json()))
        self.admin.write_text(anvil.key(3).hex())
        self.password = folder / "password"
        self.password.write_text("secret\n")
        self.made = home_folder.make(
            self.home,
            folder / "network.json",
            {HUB: (anvil.url,)},
            "secret",
            mode="off",
            p2p_port=4001,
            http_port=9640,
            bootstrap=(),
            password_file=self.password,
            work=QUICK,
        )

    async def invoke(self, *words: str, code: int = 0) -> Any:
        """Run `keeper bond WORDS` in a thread, as it runs its own loop."""
        arguments = ["bond", *words, "--home", str(self.home), "--json"]
        result = await trio.to_thread.run_sync(partial(CliRunner().invoke, app, arguments))
        assert result.exit_code == code, result.output or repr(result.exception)
        return json.loads(result.stdout) if code == 0 else result

    async def refused(self, *words: str) -> str:
        """Return the message of a command that must fail with a `FlowkeeperError`."""
        result = await self.invoke(*words, code=1)
        return str(result.exception)


async def test_a_bond_from_its_first_coin_to_its_last(anvil_binary: Path, tmp_path: Path) -> None:
    async with chain_of(anvil_binary, HUB) as anvil:
        spec = await deployed(anvil)
        desk = Desk(anvil, tmp_path, spec)
        funds = ["0x" + desk.made.address.hex(), hex(10 * ETHER)]
        await anvil.rpc.call("anvil_setBalance", funds)
        admin = Wallet(anvil.rpc, HUB, anvil.key(3)).address
        assert (await desk.invoke("status"))["status"] == "none"
        joined = await desk.invoke("join", "--admin", "0x" + admin.hex(), "--amount", "2.5")
        assert (joined["status"], joined["bond_wei"]) == ("active", 5 * ETHER // 2)
        assert joined["competes"] is True
        posted = await desk.invoke("post", "--amount", "0.5")
        assert posted["bond_wei"] == 3 * ETHER
        key = ("--admin-key", str(desk.admin))
        assert "reverted" in await desk.refused("unjail", *key)
        left = await desk.invoke("leave", *key)
        assert (left["status"], left["competes"]) == ("leaving", False)
        payee = "0x" + keccak(b"payee")[:20].hex()
        assert "reverted" in await desk.refused("withdraw", *key, "--to", payee)
        await anvil.rpc.call("evm_increaseTime", [UNBONDING_S])
        gone = await desk.invoke("withdraw", *key, "--to", payee)
        assert (gone["status"], gone["bond_wei"]) == ("none", 0)
        assert int(await anvil.rpc.call("eth_getBalance", [payee, "latest"]), 16) == 3 * ETHER
        assert "reverted" in await desk.refused("claim", "--to", payee)


async def test_only_the_admin_takes_a_bond_out(anvil_binary: Path, tmp_path: Path) -> None:
    async with chain_of(anvil_binary, HUB) as anvil:
        spec = await deployed(anvil)
        desk = Desk(anvil, tmp_path, spec)
        funds = ["0x" + desk.made.address.hex(), hex(10 * ETHER)]
        await anvil.rpc.call("anvil_setBalance", funds)
        admin = Wallet(anvil.rpc, HUB, anvil.key(4)).address
        await desk.invoke("join", "--admin", "0x" + admin.hex(), "--amount", "1")
        stranger = ("--admin-key", str(desk.admin))
        assert "reverted" in await desk.refused("leave", *stranger)
        bonds = spec.chain(HUB).contract("Bonds")
        leave = encode_call("Bonds", "leave", desk.made.address)
        await Wallet(anvil.rpc, HUB, anvil.key(4)).send(Send(bonds, leave))
        assert (await desk.invoke("status"))["status"] == "leaving"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("withdraw", "--to", "0x12", "--admin-key", "{key}"), "no address"),
        (("withdraw", "--to", "0x" + "00" * 20, "--admin-key", "{key}"), "no address"),
        (("claim", "--to", "nobody"), "no address"),
        (("join", "--admin", "0x1", "--amount", "1"), "no address"),
        (("join", "--admin", "0x" + "11" * 20, "--amount", "NaN"), "no amount"),
        (("post", "--amount", "Infinity"), "no amount"),
        (("post", "--amount", "-1"), "no amount"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("11" * 32)
    arguments = [word.format(key=tmp_path / "key") for word in words]
    result = CliRunner().invoke(app, ["bond", *arguments, "--home", str(tmp_path)])
    assert result.exit_code != 0
    assert said in str(result.exception) or said in result.output
