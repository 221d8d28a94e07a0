"""`keeper account` and `keeper auction` on a home whose archive holds a world's views."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keeper.cli import account, challenge
from keeper.cli.main import app
from keeper.contracts import abi_type, artifact
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.hashing import keccak
from keeper.snapshot.archive import Archive
from keeper.store import Store
from tests.support.clearing_world import ETH, NETWORK, UNIT, USD, A, B, World, trader

ALICE = trader(1)
KEEPER = b"\x33" * 20


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home with an award in its newest view, served from a world instead of endpoints."""
    store = Store(tmp_path / "keeper.db")
    archive = Archive(store)
    world = World()
    world.bond(KEEPER)
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_credit(ALICE, 400 * USD)
    for decision in world.view().decisions:
        world.bring(decision)
    archive.add(b"1" * 32, world.snapshot, 0)
    world.increase(ALICE, 4 * UNIT)
    world.prices[ETH] = 1_820 * 10**8
    world.view()
    task = world.competition.tasks[0]
    world.auction({KEEPER: {task.target.subject: 10 * USD}})
    archive.add(b"2" * 32, world.snapshot, 0)
    store.close()
    spec = type(NETWORK)(
        NETWORK.id,
        NETWORK.genesis_time_ms,
        NETWORK.tick_ms,
        NETWORK.hub,
        NETWORK.chains,
        world.parameters.encode(),
    )
    (tmp_path / "network.json").write_text(json.dumps(spec.to_json()))

    async def tables(*_: object) -> dict[int, object]:
        return {chain: model.table for chain, model in world.chains.items()}

    class Settings:
        store_file = tmp_path / "keeper.db"
        network_file = tmp_path / "network.json"

    monkeypatch.setattr(account, "_tables", tables)
    monkeypatch.setattr("keeper.config.load", lambda home: Settings())
    return tmp_path


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_account_show_tells_legs_margin_and_certainty(home: Path) -> None:
    out = run("account", "show", "0x" + ALICE.hex(), "--home", str(home), "--json")
    value = json.loads(out)
    assert value["certified"] is True
    assert value["healthy"] is False
    assert {leg["chain"] for leg in value["legs"]} == {A, B}
    assert {leg["kind"] for leg in value["legs"]} == {"collateral", "perp"}


def test_account_by_owner_and_as_a_table(home: Path) -> None:
    owner = (1_001).to_bytes(20, "big").hex()
    out = run("account", "show", owner, "--home", str(home))
    assert "collateral" in out
    assert ALICE.hex()[:20] in out.replace("\n", "")


def test_account_trace_lists_decisions(home: Path) -> None:
    out = run("account", "trace", ALICE.hex(), "--home", str(home), "--json")
    assert [row["kind"] for row in json.loads(out)] == ["Credit", "Award"]
    assert "Credit" in run("account", "trace", ALICE.hex(), "--home", str(home))


def test_auction_list_and_show(home: Path) -> None:
    value = json.loads(run("auction", "list", "--home", str(home), "--json"))
    (award,) = value["awards"]
    assert award["ranks"] == ["0x" + KEEPER.hex()]
    assert award["last"] > award["open_at"]
    assert "Awards" in run("auction", "list", "--home", str(home))
    task = award["task"].removeprefix("0x")
    (shown,) = json.loads(run("auction", "show", task[:10], "--home", str(home), "--json"))
    assert shown["state"] == "awarded"
    assert [row["kind"] for row in shown["decisions"]] == ["Award"]
    assert "price_uusd" in run("auction", "show", ALICE.hex(), "--home", str(home))


@pytest.mark.parametrize("true", [True, False])
def test_challenge_says_whether_the_chain_contradicts(
    home: Path, monkeypatch: pytest.MonkeyPatch, true: bool
) -> None:
    archive = Archive(Store(home / "keeper.db"))
    view = archive.newest()
    assert view is not None
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_withdraw(ALICE, A, 100 * USD)
    world.view(skip=view.header.view)
    (release,) = world.snapshot.decisions
    archive.add(b"3" * 32, world.snapshot, 0)
    leaf = "0x" + release.leaf.hex()
    with pytest.raises(ConfigError, match="no sealed view"):
        CliRunner().invoke(app, ["challenge", leaf, "--home", str(home)], catch_exceptions=False)
    archive.add_seal(world.snapshot.header.view, (1, 2, 3), 0)
    ref = world.snapshot.cut[A]
    sent = []

    async def block_hash(_: object, asked: object) -> bytes:
        assert asked == ref
        return ref.hash if true else b"\1" * 32

    def send(_: object, chain: int, secret: bytes, sends: list[Send]) -> list[str]:
        sent.append((chain, sends[0].to, sends[0].data[:4]))
        return ["0xabc"]

    monkeypatch.setattr(challenge, "_block_hash", block_hash)
    monkeypatch.setattr(challenge, "send", send)
    value = json.loads(run("challenge", leaf, "--home", str(home), "--json"))
    assert value["contradicted"] is not true
    assert sent == []
    (home / "key").write_text("11" * 32)
    out = run("challenge", leaf, "--home", str(home), "--key", str(home / "key"))
    assert "0xabc" in out
    ((chain, to, called),) = sent
    assert (chain, to) == (A, release.contract)
    assert called == challenge_selector()


def challenge_selector() -> bytes:
    entry = next(e for e in artifact("Vault").abi if e.get("name") == "challenge")
    types = ",".join(abi_type(one) for one in entry["inputs"])
    return keccak(f"challenge({types})".encode())[:4]


def test_unknown_names_are_errors_with_a_remedy(home: Path) -> None:
    wrong = (("auction", "show", "ff" * 9), ("account", "show", "zz"), ("challenge", ""))
    for words in wrong:
        result = CliRunner().invoke(app, [*words, "--home", str(home)])
        assert result.exit_code != 0
        assert isinstance(result.exception, ConfigError)
