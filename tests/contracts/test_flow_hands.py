"""What anyone may do by hand: bring, pay, escape, collect, and open what another has signed."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper.cli import flow as cli_flow
from keeper.cli import intent as cli_intent
from keeper.cli import intent_signed
from keeper.cli.main import app
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError, LocalError
from keeper.venue.intents import orders
from tests.contracts.test_flow_cli import Home, deployed, hexed, home, prepare, stages
from tests.support.contracts import Reverted
from tests.support.flow_net import ESCAPE, FIRST, LAG, PURSE

__all__ = ["deployed", "home"]


def refused(home: Home, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--home", str(home.folder)])
    assert isinstance(result.exception, ConfigError), words
    return str(result.exception)


def seal_all(home: Home) -> None:
    """Give every view of the archive the seal that its root has."""
    for decision in home.net.outstanding():
        seal, _ = home.net.sealed[decision.leaf]
        home.archive.add_seal(seal[1], seal[3:], 0)


def test_anyone_brings_a_certified_decision(home: Home) -> None:
    home.draft()
    prepare(home)
    home.net.mine(LAG)
    home.view()
    key = str(home.folder / "alice.key")
    listed = home.run("snapshot", "bring")
    assert [(row["kind"], row["sealed"]) for row in listed] == [("FlowOutcome", False)] * 2
    assert "not here yet" in refused(home, "snapshot", "bring", listed[0]["leaf"], "--key", key)
    seal_all(home)
    assert {row["sealed"] for row in home.run("snapshot", "bring")} == {True}
    assert "0 decisions" in refused(home, "snapshot", "bring", "ffff", "--key", key)
    assert "2 decisions" in refused(home, "snapshot", "bring", "--key", key)
    for row in listed:
        home.run("snapshot", "bring", row["leaf"][:14], "--key", key)
        del home.sent[1:]
        home.play("alice")
    assert home.run("flow", "status")[0]["outcome"] == "commit"
    outcomes = [w.call("Escrow", "outcome", home.flow.id).value for w in home.net.worlds]
    assert outcomes == [1, 1]
    home.view()
    assert home.run("snapshot", "bring") == []


def test_one_leg_that_cannot_be_paid_keeps_no_other_waiting(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.draft()
    prepare(home)
    home.net.mine()
    home.view()
    for decision in home.net.outstanding():
        home.net.bring(decision)
    home.view()
    sent: list[int] = []

    def send(_: object, chain: int, secret: bytes, sends: list[Send]) -> list[str]:
        if chain == FIRST:
            raise LocalError("a transaction reverted: escrow: token refused")
        sent.append(chain)
        return ["0x01"]

    monkeypatch.setattr(cli_flow, "send", send)
    words = ["flow", "pay", hexed(home.flow.id), "--key", str(home.folder / "alice.key")]
    result = CliRunner().invoke(app, [*words, "--home", str(home.folder), "--json"])
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)["refused"]
    assert (row["chain"], sent) == (FIRST, [FIRST + 1])
    assert "token refused" in row["error"]


def test_a_payer_escapes_when_no_outcome_comes(home: Home) -> None:
    flow, key = home.draft(), str(home.folder / "alice.key")
    home.run("flow", "escape", flow, "--key", key)
    assert home.sent == []  # nothing of it is locked
    prepare(home)
    home.run("flow", "escape", flow, "--key", key)
    del home.sent[1:]
    with pytest.raises(Reverted, match="still waiting"):
        home.play("alice")
    home.net.worlds[0].mine(ESCAPE)
    home.play("alice")
    assert stages(home) == [3, 2]
    assert home.net.held(0, "alice") == PURSE


def order(home: Home, **changes: Any) -> Path:
    """Write an order of alice's, and return its file."""
    path = home.folder / "order.json"
    row = {
        "origin": FIRST,
        "destination": FIRST + 1,
        "input_token": "USDC",
        "input_amount": 100,
        "output_token": "USDC",
        "output_amount": 90,
        "recipient": hexed(home.net.worlds[1].actor("carol")),
        "fill_within_s": 60,
    }
    path.write_text(json.dumps(row | changes))
    return path


def test_a_signed_order_is_opened_by_anybody(home: Home) -> None:
    signed, world = home.folder / "signed.json", home.net.worlds[0]
    alice, bob = (str(home.folder / f"{who}.key") for who in ("alice", "bob"))
    made = home.run("intent", "sign", str(order(home)), "--key", alice, "--out", str(signed))
    assert home.sent == []
    made = json.loads(signed.read_text())
    shown = home.run("intent", "open-for", str(signed), "--key", bob)
    del home.sent[1:]
    home.play("bob")
    (seen,) = orders(home.net.spec.chains[0], home.net.tables[0])
    assert hexed(seen.id) == shown["order"]
    assert (seen.user, home.net.held(0, "alice")) == (world.actor("alice"), PURSE - 100)
    home.run("intent", "open-for", str(signed), "--key", bob)
    del home.sent[1:]
    with pytest.raises(Reverted, match="nonce used"):
        home.play("bob")
    for change in (
        {"nonce": made["nonce"] ^ 1},
        {"fill_deadline": made["fill_deadline"] + 1},
        {"user": hexed(world.actor("bob"))},
        {"signature": "0x" + "11" * 65},
        {"signature": "0x" + "00" * 64 + "1b"},
        {"order_data": "0x00"},
        {"nonce": -1},
        {"nonce": "7"},
    ):
        signed.write_text(json.dumps(made | change))
        assert "signed order" in refused(home, "intent", "open-for", str(signed), "--key", bob)
    for text in ("{", "[]"):
        signed.write_text(text)
        refused(home, "intent", "open-for", str(signed), "--key", bob)
    world.call("DevToken", "approve", world.at["Intents"], 99, sender="alice")
    signed.write_text(json.dumps(made))
    said = refused(home, "intent", "open-for", str(signed), "--key", bob)
    assert "lets the settler take 99 of the 100" in said
    elsewhere, signature = intent_signed.signed_order(made, "signed.json")
    assert intent_signed.plain(elsewhere, signature) == made


def test_an_input_comes_back_by_escape_and_what_is_owed_is_collected(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, world = str(home.folder / "alice.key"), home.net.worlds[0]
    home.run("intent", "open", str(order(home)), "--key", key)
    del home.sent[1:]
    home.play("alice")
    home.view()
    (shown,) = home.run("intent", "status")
    home.run("intent", "escape", shown["order"][:10], "--key", key)
    del home.sent[1:]
    with pytest.raises(Reverted, match="still waiting"):
        home.play("alice")
    world.mine(1, 9 * 86_400)
    home.play("alice")
    assert home.net.held(0, "alice") == PURSE
    refused(home, "intent", "escape", "ff", "--key", key)
    words = ["intent", "collect", hexed(world.actor("alice")), "--chain", str(FIRST)]
    assert home.run(*words, "--token", "USDC") == {"owed": 0}
    assert "nothing is owed" in refused(home, *words, "--token", "USDC", "--key", key)
    refused(home, *words, "--token", "EUR")
    refused(home, "intent", "collect", "0x11", "--chain", str(FIRST), "--token", "USDC")
    monkeypatch.setattr(cli_intent, "ask", lambda *_: (5,))
    home.run(*words, "--token", "USDC", "--key", key)
    token = world.at["DevToken"]
    assert home.sent[0][2][0].data == encode_call("Intents", "collect", world.actor("alice"), token)
