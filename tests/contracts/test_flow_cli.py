"""`keeper flow` and `keeper intent` on a home whose archive holds the views of real contracts."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper.cli import account
from keeper.cli import bring as cli_bring
from keeper.cli import flow as cli_flow
from keeper.cli import flow_plan as cli_plan
from keeper.cli import flow_reduce as cli_reduce
from keeper.cli import intent as cli_intent
from keeper.cli import intent_signed as cli_signed
from keeper.cli.main import app
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.intent.order import OnchainOrder, Order, word
from keeper.settle.terms import read_flow
from keeper.snapshot.archive import Archive
from keeper.snapshot.decisions import Price
from keeper.store import Store
from keeper.units import ChainId, symbol
from keeper.venue.escrow import Flow
from keeper.venue.port import Call
from tests.support.contracts import (
    E8,
    ETH_USD,
    USD,
    World,
    account_id,
    give_credit,
    set_price,
)
from tests.support.flow_net import FIRST, LAG, PURSE, Net, rolled_back, small_world


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
        for who in ("alice", "bob"):
            (folder / f"{who}.key").write_text(World.key(who).hex())

    @property
    def flow(self) -> Flow:
        return read_flow(self.net.spec, json.loads((self.folder / "flow.json").read_text()), "flow")

    def draft(self, deposit: int = 0) -> str:
        """Write flow.json from legs.json, with a deposit in every leg; return its path."""
        legs, out = self.folder / "legs.json", str(self.folder / "flow.json")
        legs.write_text(json.dumps([row | {"deposit": deposit} for row in rows(self.net)]))
        made = self.run("flow", "draft", str(legs), "--out", out)
        assert made["flow"] == hexed(self.flow.id)
        return out

    def play(self, who: str) -> None:
        """Let the chains take what a person's verbs sent last."""
        for chain, secret, sends in self.sent:
            assert secret == World.key(who)
            for one in sends:
                assert one.to is not None
                self.net.do(Call(ChainId(chain), one.to, one.data), who)
        self.sent.clear()

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
            assert to == made.net.worlds[chain - FIRST].at[name]
            return made.net.worlds[chain - FIRST].call(name, function, *args).values

        monkeypatch.setattr(account, "_tables", tables)
        monkeypatch.setattr("keeper.config.load", lambda _: made)
        for module in (cli_flow, cli_intent, cli_signed, cli_bring):
            monkeypatch.setattr(module, "send", send)
        for module in (cli_flow, cli_intent, cli_signed):
            monkeypatch.setattr(module, "ask", ask)
            monkeypatch.setattr(module, "head_time", lambda *_: made.net.worlds[0].now)
        for module in (cli_plan, cli_reduce):
            monkeypatch.setattr(module, "ask", ask)
        monkeypatch.setattr(cli_plan, "seen_lately", lambda *_: {})  # test_flow_seen.py reads logs
        yield made


def prepare(home: Home) -> None:
    flow = home.flow
    for index, who in enumerate(("alice", "bob")):
        home.net.send(index, "Escrow", "prepare", *flow.entry(index), sender=who)


def stages(home: Home) -> list[int]:
    flow = home.flow
    return [
        int(world.call("Escrow", "stage", flow.id, leg.hash).value)
        for world, leg in zip(home.net.worlds, flow.legs, strict=True)
    ]


def test_open_locks_the_legs_of_one_payer(home: Home) -> None:
    flow, key = home.draft(), str(home.folder / "alice.key")
    assert home.run("flow", "open", flow)["flow"] == hexed(home.flow.id)
    assert home.sent == []
    home.run("flow", "open", flow, "--key", key)
    del home.sent[1:]  # it ran once for a machine and once for a person
    home.play("alice")
    assert stages(home) == [2, 0]
    home.run("flow", "open", flow, "--key", key)
    assert home.sent == []  # nothing is left to do


def test_deposits_come_first_and_a_lock_waits_for_all_of_them(home: Home) -> None:
    flow = home.draft(deposit=5)
    keys = {who: str(home.folder / f"{who}.key") for who in ("alice", "bob")}
    home.run("flow", "open", flow, "--key", keys["alice"])
    del home.sent[1:]
    home.play("alice")
    assert stages(home) == [1, 0]
    words = ["flow", "lock", flow, "--key", keys["alice"], "--home", str(home.folder)]
    early = CliRunner().invoke(app, words)
    assert isinstance(early.exception, ConfigError)
    assert "the deposit of leg 1 is not placed" in str(early.exception)
    home.run("flow", "open", flow, "--key", keys["bob"])
    del home.sent[1:]
    home.play("bob")
    home.run("flow", "lock", flow, "--key", keys["alice"])
    del home.sent[1:]
    home.play("alice")
    assert stages(home) == [2, 1]
    home.net.day()  # bob does not lock
    home.view()
    for decision in home.net.outstanding():
        home.net.bring(decision)
    home.view()
    (shown,) = home.run("flow", "status")
    assert (shown["outcome"], shown["late"]) == ("abort", [1])
    assert [leg["state"] for leg in shown["legs"]] == ["locked", "deposit lost"]
    home.run("flow", "pay", shown["flow"], "--key", keys["alice"])
    assert [chain for chain, _, _ in home.sent[:2]] == [FIRST, FIRST + 1]
    del home.sent[2:]
    home.play("alice")
    assert [home.net.held(1, who) for who in ("alice", "bob")] == [PURSE + 5, PURSE - 5]
    assert home.net.conserved()


def test_open_refuses_a_stranger_and_bad_files(home: Home) -> None:
    flow, out = home.draft(), str(home.folder / "out.json")
    stranger = home.folder / "stranger.key"
    stranger.write_text("11" * 32)
    bad = home.folder / "bad.json"
    made = json.loads(Path(flow).read_text())
    first = rows(home.net)[0]
    for words, text in (
        (("flow", "open", flow, "--key", str(stranger)), ""),
        (("flow", "open", flow, "--key", str(bad)), ""),
        (("flow", "open", str(bad)), "{"),
        (("flow", "open", str(bad)), "[]"),
        (("flow", "open", str(bad)), json.dumps(made | {"number": -1})),
        (("flow", "open", str(bad)), json.dumps(made | {"epoch": 1 << 32})),
        (("flow", "open", str(bad)), json.dumps(made | {"lock_by": "soon"})),
        (("flow", "open", str(bad)), json.dumps(made | {"arm_by": made["lock_by"] - 60})),
        (("flow", "draft", str(bad), "--out", out), "[]"),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"amount": 1.5}])),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"deposit": -1}])),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"chain": 5}])),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"token": "EUR"}])),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"receiver": "11" * 32}])),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first] * 17)),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"into": "Bank"}])),
        (("flow", "draft", str(bad), "--out", out), json.dumps([first | {"market": "x" * 33}])),
        (
            ("flow", "draft", str(bad), "--out", out),
            json.dumps([first | {"market": "ETH-USD", "account": -1}]),
        ),
        (
            ("flow", "draft", str(bad), "--out", out, "--within", "300"),
            json.dumps([first | {"deposit": 1}]),
        ),
        (("flow", "trace", "ff"), ""),
        (("intent", "status", "ff"), ""),
    ):
        bad.write_text(text)
        home.view()
        result = CliRunner().invoke(app, [*words, "--home", str(home.folder)])
        assert isinstance(result.exception, ConfigError), words
    assert home.sent == []
    assert not Path(out).exists()


def test_status_trace_and_pay_follow_a_flow(home: Home) -> None:
    home.draft()
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
    del home.sent[2:]
    home.play("alice")
    home.view()
    (flow,) = home.run("flow", "status", flow["flow"])
    assert [leg["state"] for leg in flow["legs"]] == ["paid", "paid"]


def test_a_plan_is_the_best_way_now(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.view()
    near, far = (home.net.worlds[0].actor(who) for who in ("bob", "carol"))
    ends = {"origin": FIRST, "destination": FIRST + 1, "asset": "USDC"}
    rates = (
        {"fee_ppm": 1_000, "p50_ms": 1, "p95_ms": 2},
        {"fee_ppm": 9_000, "p50_ms": 1, "p95_ms": 2},
    )
    rows = [
        {"maker": hexed(one), **ends, **rate} for one, rate in zip((near, far), rates, strict=True)
    ]
    offers, out = home.folder / "offers.json", home.folder / "planned.json"
    offers.write_text(json.dumps(rows))
    words = ["flow", "plan", str(offers), "--from", f"{FIRST}:USDC", "--to", f"{FIRST + 1}:USDC"]
    words += ["--payer", hexed(home.net.worlds[0].actor("alice")), "--out", str(out)]
    words += ["--account", "11" * 32]
    level = 0

    def state(folder: Path) -> Any:
        """What the node certified, where prices are agreed and vaults stand on every chain."""
        made = account.load_state(folder)
        prices = {symbol("USDC"): Price(symbol("USDC"), 10**8, False)}
        contracts = [
            tuple(sorted((*chain.contracts, ("Vault", b"\x0b" * 20), ("Breaker", b"\x0c" * 20))))
            for chain in made.spec.chains
        ]
        chains = tuple(
            replace(chain, contracts=some)
            for chain, some in zip(made.spec.chains, contracts, strict=True)
        )
        return replace(
            made, spec=replace(made.spec, chains=chains), book=replace(made.book, prices=prices)
        )

    def ask(_: object, chain: int, to: bytes, name: str, function: str, *args: object) -> Any:
        if name == "Breaker":
            return (level if args[0] == near.ljust(32, b"\0") else 0,)
        return home.net.worlds[chain - FIRST].call(name, function, *args).values

    for more, text in (
        ([], "no health"),
        (["--amount", "100"], "no agreed price"),
        (["--amount", "100", "--account", "11"], "no margin account"),
        (["--amount", "100", "--payer", "11"], "no address"),
    ):
        result = CliRunner().invoke(app, [*words, *more, "--home", str(home.folder)])
        assert isinstance(result.exception, ConfigError), more
        assert text in str(result.exception), more
    monkeypatch.setattr(cli_plan, "load_state", state)
    monkeypatch.setattr(cli_plan, "ask", ask)
    home.run(*words, "--amount", "500")
    first, last = json.loads(out.read_text())
    assert (first["receiver"], last["payer"]) == (hexed(near),) * 2
    assert (first["amount"], last["amount"], last["receiver"]) == (501, 500, "0x" + "11" * 32)
    level = 2  # a breaker stops the cheaper maker
    assert home.run(*words, "--amount", "500")["left_out"][0][1] == "cursed"
    assert json.loads(out.read_text())[0]["receiver"] == hexed(far)
    result = CliRunner().invoke(app, [*words, "--amount", "1001", "--home", str(home.folder)])
    assert "no lanes bring 1001" in str(result.exception)


def test_positions_at_two_venues_are_reduced_by_one_flow(home: Home) -> None:
    net, sizes = home.net, (10 * E8, -4 * E8)
    alice, key = net.worlds[0].actor("alice"), str(home.folder / "alice.key")
    legs, out = home.folder / "reduce.json", str(home.folder / "flow.json")
    words = ["flow", "reduce", "--owner", hexed(alice), "--out", str(legs)]

    def refused(*more: str) -> str:
        result = CliRunner().invoke(app, [*words, *more, "--home", str(home.folder)])
        assert isinstance(result.exception, ConfigError), more
        return str(result.exception)

    home.view()
    assert "has 0 positions" in refused()
    for at, size in enumerate(sizes):
        give_credit(net.worlds[at], "alice", 100_000 * USD)
        net.send(at, "Perps", "increase", 0, ETH_USD, size, 0, sender="alice")
    home.view()
    assert "does not bring the health" in refused()  # it has no collateral: the fees are a debt
    net.send(1, "Perps", "reduce", 0, ETH_USD, 4 * E8, 0, sender="alice")
    for world in net.worlds:
        set_price(world, "ETH", 2_200)
    net.prices[ETH_USD] = 2_200 * E8  # the long has a profit, and then a hedge
    net.send(1, "Perps", "increase", 0, ETH_USD, -4 * E8, 0, sender="alice")
    home.view()
    assert "no address" in refused("--owner", "0x11")
    assert "has 0 positions" in refused("--market", "BTC-USD")
    made = home.run(*words, "--health", "3000000")
    assert made["health_ppm_before"] < 3_000_000 <= made["health_ppm_after"]
    assert [row["chain"] for row in made["legs"]] == [FIRST, FIRST + 1]
    assert [row["market"] for row in made["legs"]] == ["ETH-USD", "ETH-USD"]
    closes = [row["amount"] for row in made["legs"]]
    assert abs(closes[0] * 4 - closes[1] * 10) < 10  # the same share of what is open
    both = home.run("flow", "draft", str(legs), str(home.folder / "legs.json"), "--out", out)
    assert [leg["amount"] for leg in both["legs"]] == [*closes, 100, 70]  # and payments with it
    drafted = home.run("flow", "draft", str(legs), "--out", out)
    assert [leg["market"] for leg in drafted["legs"]] == ["ETH-USD", "ETH-USD"]
    home.run("flow", "open", out, "--key", key)
    assert [len(sends) for _, _, sends in home.sent] == [1, 1, 1, 1]  # nothing to approve
    del home.sent[2:]
    home.play("alice")
    assert stages(home) == [2, 2]
    home.view()
    for decision in net.outstanding():
        net.bring(decision)
    home.view()
    home.run("flow", "pay", drafted["flow"], "--key", key)
    del home.sent[2:]
    home.play("alice")
    home.view()
    (flow,) = home.run("flow", "status", drafted["flow"])
    assert [leg["state"] for leg in flow["legs"]] == ["reduced", "reduced"]
    assert flow["legs"][0]["does"] == "reduces ETH-USD of account 0"
    left = [
        world.call("Perps", "position", account_id(alice), ETH_USD).value[0] for world in net.worlds
    ]
    assert left == [10 * E8 - closes[0], closes[1] - 4 * E8]


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
