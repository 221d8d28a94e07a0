"""`keeper flow` and `keeper intent` on a home whose archive holds the views of real contracts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper.cli import account
from keeper.cli import flow as cli_flow
from keeper.cli import intent as cli_intent
from keeper.cli.main import app
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.intent.order import OnchainOrder, Order, word
from keeper.settle.terms import Terms, make_terms, read_legs
from keeper.snapshot.archive import Archive
from keeper.store import Store
from tests.support.contracts import EPOCH, NETWORK, World
from tests.support.flow_net import FIRST, LAG, Net, rolled_back, small_world


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(2)]


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


def rows(net: Net) -> list[dict[str, Any]]:
    first, second = net.worlds
    alice, bob = hexed(first.actor("alice")), hexed(first.actor("bob"))
    return [
        {"chain": FIRST, "payer": alice, "token": "USDC", "amount": 100, "receiver": bob},
        {
            "chain": FIRST + 1,
            "payer": bob,
            "token": hexed(second.at["DevToken"]),
            "amount": 70,
            "receiver": alice,
        },
    ]


class Home:
    """A home of a node that has followed a net, and what its verbs sent to chains."""

    def __init__(self, folder: Path, net: Net) -> None:
        self.folder, self.net = folder, net
        self.store_file, self.network_file = folder / "keeper.db", folder / "network.json"
        self.sent: list[tuple[int, bytes, list[Send]]] = []
        self.network_file.write_text(json.dumps(net.spec.to_json()))
        self.archive = Archive(Store(self.store_file))
        (folder / "legs.json").write_text(json.dumps(rows(net)))
        (folder / "alice.key").write_text(World.key("alice").hex())

    @property
    def terms(self) -> Terms:
        return make_terms(NETWORK, EPOCH, 0, read_legs(self.net.spec, rows(self.net), "legs"))

    def view(self) -> None:
        self.net.mine(LAG + 1)
        if self.net.view():
            self.archive.add(self.net.snapshot.header.hash(), self.net.snapshot, 0)
        self.archive.add(self.net.snapshot.header.hash(), self.net.snapshot, 0)

    def run(self, *words: str) -> Any:
        result = CliRunner().invoke(app, [*words, "--home", str(self.folder), "--json"])
        assert result.exit_code == 0, result.output or repr(result.exception)
        plain = CliRunner().invoke(app, [*words, "--home", str(self.folder)])
        assert plain.exit_code == 0
        return json.loads(result.stdout)


@pytest.fixture
def home(deployed: list[World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with rolled_back(deployed):
        made = Home(tmp_path, Net(deployed))

        async def tables(*_: object) -> dict[int, object]:
            blocks = zip(made.net.spec.chains, made.net.blocks, strict=True)
            return {chain.id: held[-1 - LAG].table for chain, held in blocks}

        def send(_: object, chain: int, secret: bytes, sends: list[Send]) -> list[str]:
            made.sent.append((chain, secret, sends))
            return ["0x01"] * len(sends)

        def ask(_: object, chain: int, to: bytes, name: str, function: str, *args: object) -> Any:
            return made.net.worlds[chain - FIRST].call(name, function, *args).values

        monkeypatch.setattr(account, "_tables", tables)
        monkeypatch.setattr("keeper.config.load", lambda _: made)
        for module in (cli_flow, cli_intent):
            monkeypatch.setattr(module, "send", send)
            monkeypatch.setattr(module, "ask", ask)
        monkeypatch.setattr(cli_intent, "head_time", lambda *_: made.net.worlds[0].now)
        yield made


def prepare(home: Home) -> None:
    terms = home.terms
    for index, (leg, who) in enumerate(zip(terms.legs, ("alice", "bob"), strict=True)):
        args = (terms.nonce, terms.hashes, index, leg.token, leg.amount, leg.receiver)
        home.net.send(index, "Escrow", "prepare", *args, sender=who)


def test_open_locks_the_legs_of_one_payer(home: Home) -> None:
    legs, key = str(home.folder / "legs.json"), str(home.folder / "alice.key")
    shown = home.run("flow", "open", legs)
    assert shown["flow"] == hexed(home.terms.id)
    assert home.sent == []
    home.run("flow", "open", legs, "--key", key)
    (chain, secret, (approve, lock)) = home.sent[0]
    assert (chain, secret) == (FIRST, World.key("alice"))
    world = home.net.worlds[0]
    assert (approve.to, lock.to) == (world.at["DevToken"], world.at["Escrow"])
    for call in (approve, lock):
        result = world.env.execute_code(
            to_address=hexed(call.to or b""), sender=hexed(world.actor("alice")), data=call.data
        )
        assert not result.is_error
    assert world.call("Escrow", "legs", home.terms.id, 0).value[2] == 100


def test_open_refuses_a_stranger_and_bad_legs(home: Home) -> None:
    legs = str(home.folder / "legs.json")
    stranger = home.folder / "stranger.key"
    stranger.write_text("11" * 32)
    bad = home.folder / "bad.json"
    for words, text in (
        (("flow", "open", legs, "--key", str(stranger)), ""),
        (("flow", "open", legs, "--number", "64"), ""),
        (("flow", "open", legs, "--key", str(bad)), ""),
        (("flow", "open", str(bad)), "{"),
        (("flow", "open", str(bad)), "[]"),
        (("flow", "open", str(bad)), json.dumps([rows(home.net)[0] | {"amount": 1.5}])),
        (("flow", "open", str(bad)), json.dumps([rows(home.net)[0] | {"chain": 5}])),
        (("flow", "open", str(bad)), json.dumps([rows(home.net)[0] | {"token": "EUR"}])),
        (("flow", "open", str(bad)), json.dumps(rows(home.net)[:1] * 2)),
        (("flow", "trace", "ff"), ""),
        (("intent", "status", "ff"), ""),
    ):
        bad.write_text(text)
        home.view()
        result = CliRunner().invoke(app, [*words, "--home", str(home.folder)])
        assert isinstance(result.exception, ConfigError), words
    assert home.sent == []


def test_status_trace_and_pay_follow_a_flow(home: Home) -> None:
    prepare(home)
    home.net.mine()
    home.view()
    (flow,) = home.run("flow", "status")
    assert flow["outcome"] == "commit"
    assert [leg["state"] for leg in flow["legs"]] == ["locked", "locked"]
    assert [leg["settled"] for leg in flow["legs"]] == ["waiting", "waiting"]
    for decision in home.net.outstanding():
        home.net.bring(decision)
    home.view()
    traced = home.run("flow", "trace", flow["flow"][:12])
    assert [row["outcome"] for row in traced["decisions"]] == ["commit", "commit"]
    assert {leg["settled"] for leg in traced["legs"]} == {"commit"}
    home.run("flow", "pay", flow["flow"], "--key", str(home.folder / "alice.key"))
    assert {chain for chain, _, _ in home.sent} == {FIRST, FIRST + 1}
    for index in range(2):
        home.net.send(index, "Escrow", "pay", home.terms.id, index, sender="bob")
    home.view()
    (flow,) = home.run("flow", "status", flow["flow"])
    assert [leg["state"] for leg in flow["legs"]] == ["paid", "paid"]


def test_an_intent_is_opened_and_followed(home: Home) -> None:
    here, there = home.net.worlds
    row = {
        "origin": FIRST,
        "destination": FIRST + 1,
        "input_token": "USDC",
        "input_amount": 100,
        "output_token": "USDC",
        "output_amount": 90,
        "recipient": hexed(there.actor("carol")),
        "fill_within_s": 60,
    }
    path, key = home.folder / "order.json", str(home.folder / "alice.key")
    path.write_text(json.dumps(row))
    made = home.run("intent", "open", str(path), "--key", key, "--dry")
    assert home.sent == []
    home.run("intent", "open", str(path), "--key", key)
    (_, _, (_, call)) = home.sent[0]
    receipt = here.env.execute_code(
        to_address=hexed(call.to or b""), sender=hexed(here.actor("alice")), data=call.data
    )
    assert not receipt.is_error
    wanted = Order(
        here.at["DevToken"],
        *(100, word(there.at["DevToken"]), 90, word(there.actor("carol")), bytes(32)),
        *(there.chain, word(there.at["Intents"])),
    )
    assert made["origin_data"] == hexed(wanted.origin_data(made["fill_deadline"]))
    # opened again through the net, so that it sees the logs
    asked = OnchainOrder(here.now + 60, wanted.encode())
    struct = (asked.fill_deadline, asked.order_data_type, asked.order_data)
    home.net.send(0, "Intents", "open", struct, sender="alice")
    home.view()
    (shown,) = home.run("intent", "status")
    assert shown["state"] == "open"
    data = wanted.origin_data(asked.fill_deadline)
    payee = word(here.actor("bob"))
    order_id = bytes.fromhex(shown["order"][2:])
    home.net.send(1, "Intents", "fill", order_id, data, payee, sender="bob")
    home.view()
    assert home.run("intent", "status", shown["order"])[0]["state"] == "paying the filler"
    home.net.bring(home.net.outstanding()[0])
    home.view()
    assert home.run("intent", "status")[0]["state"] == "filled and paid"


@pytest.mark.parametrize(
    "change",
    [{"origin": 5}, {"recipient": "0x11"}, {"output_amount": 0}, {"input_token": "EUR"}],
)
def test_impossible_orders_are_refused(home: Home, change: dict[str, Any]) -> None:
    row = {
        "origin": FIRST,
        "destination": FIRST + 1,
        "input_token": "USDC",
        "input_amount": 100,
        "output_token": "USDC",
        "output_amount": 90,
        "recipient": "0x" + "11" * 20,
    }
    with pytest.raises(ConfigError):
        cli_intent.read_order(home.net.spec, row | change, "order.json")
    with pytest.raises(ConfigError):  # a margin account, where there is no vault
        cli_intent.read_order(home.net.spec, row | {"recipient": "11" * 32}, "order.json")


def test_a_margin_deadline_needs_an_account_whose_health_holds(home: Home) -> None:
    home.view()
    path, key = home.folder / "order.json", home.folder / "alice.key"
    row = {
        "origin": FIRST,
        "destination": FIRST + 1,
        "input_token": "USDC",
        "input_amount": 100,
        "output_token": "USDC",
        "output_amount": 90,
        "recipient": "0x" + "11" * 20,
        "health_ppm": 1_050_000,
    }
    path.write_text(json.dumps(row))
    words = ["intent", "open", str(path), "--key", str(key), "--home", str(home.folder)]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError)
    assert "health" in str(result.exception)
    assert home.sent == []
