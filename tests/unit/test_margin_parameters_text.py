"""Parameters as people write them: JSON there and back, differences, and `keeper parameters`."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper.cli import parameters as cli
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.parameters import Parameters, VenueParameters
from keeper.parameters.text import differences, parse, plain
from keeper.units import ChainId
from tests.support.clearing_world import GENESIS_MS, NETWORK, A, B, World, address

BASE = Parameters.devnet([A, B])
runner = CliRunner()


def edited(**fields: Any) -> dict[str, Any]:
    """Return the set as JSON with some fields of the margin section changed."""
    value = deepcopy(plain(BASE))
    value["margin"] |= fields
    return json.loads(json.dumps(value))


def test_a_set_survives_its_text() -> None:
    venue = VenueParameters(ChainId(A), bytes(range(20)), 1)
    for one in (BASE, replace(BASE, margin=replace(BASE.margin, venues=(venue,)))):
        assert parse(json.loads(json.dumps(plain(one)))) == one
    assert plain(BASE)["margin"]["markets"][0]["symbol"] == "ETH-USD"


WRONG: list[tuple[Any, str]] = [
    ([], "missing or unknown"),
    ({}, "missing or unknown"),
    (edited(leg_cost="1"), "margin.leg_cost is no whole number"),
    (edited(leg_cost=True), "margin.leg_cost is no whole number"),
    (edited(leg_cost=2**70), "margin.leg_cost is no whole number"),
    (edited(leg_cost=1.0), "margin.leg_cost is no whole number"),
    (edited(markets={}), "margin.markets is no list"),
    (edited(more=1), "margin: more is missing or unknown"),
    (edited(underlyings=[]), "impossible"),
    (edited(assets=[plain(BASE.margin.assets[0]) | {"symbol": 7}]), "symbol is no text"),
    (edited(assets=[plain(BASE.margin.assets[0]) | {"symbol": "0xzz"}]), "assets"),
    (edited(assets=[plain(BASE.margin.assets[0]) | {"symbol": "é"}]), "assets"),
]


@pytest.mark.parametrize(("value", "word"), WRONG)
def test_what_is_wrong_is_named(value: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse(value)


def test_differences_name_the_field() -> None:
    margin = BASE.margin
    new = replace(BASE, margin=replace(margin, leg_cost=7, assets=margin.assets[:-1]))
    assert list(differences(BASE, BASE)) == []
    assert list(differences(BASE, new)) == [
        ("margin.assets[2]", plain(margin.assets[2]), None),
        ("margin.leg_cost", margin.leg_cost, 7),
    ]


# --- the verb -------------------------------------------------------------------------------------


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> World:
    """A network whose newest final state the verb reads; sent transactions are kept."""
    world = World(parameters=BASE)
    world.view()
    world.sealed = []

    def state(home: Path) -> Any:
        tables = {chain: model.table for chain, model in world.chains.items()}
        spec = replace(NETWORK, parameters=BASE.encode())
        view = SimpleNamespace(header=world.snapshot.header)
        return cli.State(spec, view, world.snapshot.book, tables, ())  # type: ignore[arg-type]  # only the header of a view is asked

    monkeypatch.setattr(cli, "load_state", state)
    return world


def verb(*arguments: str) -> Any:
    done = runner.invoke(cli.app, [*arguments, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.output)


def logged(net: World, raw: bytes) -> None:
    at = GENESIS_MS // 1000 + net.number // 2
    signature = "ParametersProposed(uint64,bytes)"
    net.chains[A].log("Breaker", signature, [], ["uint64", "bytes"], at, raw)
    net.view()


def test_show_tells_what_is_in_force_and_what_is_proposed(net: World) -> None:
    found = verb("show")
    assert (parse(found["set"]), found["proposed"], found["refused"]) == (BASE, None, None)
    step = replace(BASE, margin=replace(BASE.margin, leg_cost=BASE.margin.leg_cost + 1))
    logged(net, step.encode())
    open_ = verb("show")["proposed"]
    assert open_["changes"] == [["margin.leg_cost", 100_000, 100_001]]
    assert open_["refused"] is None
    assert 0 < open_["wait_s"] <= BASE.breakers.step_delay_s
    assert "judged in" in runner.invoke(cli.app, ["show"]).output
    net.view(skip=2 * BASE.breakers.step_delay_s)
    found = verb("show")
    assert (parse(found["set"]), found["proposed"]) == (step, None)
    logged(net, BASE.encode()[:-1])
    assert "do not decode" in verb("show")["proposed"]["refused"]
    net.view(skip=2 * BASE.breakers.step_delay_s)
    assert "do not decode" in verb("show")["refused"]


def test_propose_sends_only_what_keepers_would_take(
    net: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, list[Send]]] = []

    def send(settings: Any, chain: int, secret: bytes, sends: list[Send]) -> list[str]:
        sent.append((chain, sends))
        return ["0x01"]

    monkeypatch.setattr(cli, "send", send)
    monkeypatch.setattr(cli.config, "load", lambda home: None)
    key, file = tmp_path / "key", tmp_path / "set"
    key.write_text("11" * 32)
    file.write_text(json.dumps(edited(leg_cost=110_000)))
    assert verb("propose", str(file), "--key", str(key), "--dry")["sent"] == []
    assert sent == []
    done = verb("propose", str(file), "--key", str(key))
    assert done["changes"] == [["margin.leg_cost", 100_000, 110_000]]
    ((chain, (one,)),) = sent
    raw = parse(edited(leg_cost=110_000)).encode()
    assert (chain, one.to) == (A, address(A, "Breaker"))
    assert one.data == encode_call("Breaker", "propose_parameters", raw)
    for value, word in ((edited(leg_cost=110_001), "larger"), ({"a": 1}, "missing or unknown")):
        file.write_text(json.dumps(value))
        with pytest.raises(ConfigError, match=word):
            verb("propose", str(file), "--key", str(key))
    assert len(sent) == 1
