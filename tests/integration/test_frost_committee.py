"""`keeper committee` between processes over libp2p: one key, or the name of who is missing."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper import committee, home, keys
from keeper.cli.committee import app
from keeper.committee import Card, Plan
from keeper.errors import ConfigError, KeyFileError
from p2p.frost import keyfile
from p2p.frost.keys import KeyShare
from tests.support.clearing_world import NETWORK
from tests.support.p2p_ports import free_ports
from tests.support.shared import ROOT

PASSWORD = "only a test"


def make_home(folder: Path, index: int, port: int) -> Path:
    (folder / "network.json").write_text(json.dumps(NETWORK.to_json()))
    (folder / "password").write_text(PASSWORD)
    place = folder / f"home{index}"
    home.make(
        place,
        folder / "network.json",
        {chain.id: ("http://127.0.0.1:1",) for chain in NETWORK.chains},
        PASSWORD,
        mode="shadow",
        p2p_port=port,
        http_port=port + 1,
        password_file=folder / "password",
        work=keyfile.QUICK,
    )
    return place


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keeper", "committee", *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def keeper(*arguments: str) -> str:
    """A verb that needs no network runs in this process."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("committee")
    return [make_home(folder, i, port) for i, port in enumerate(free_ports(3))]


def address(place: Path) -> str:
    found = re.search(r'listen = "([^"]+)"', (place / "keeper.toml").read_text())
    assert found is not None
    return found[1]


@pytest.mark.libp2p
def test_operators_make_one_key_and_never_another_over_it(homes: list[Path]) -> None:
    folder = homes[0].parent
    cards = [folder / f"card{i}.json" for i in range(3)]
    for place, card in zip(homes, cards, strict=True):
        where = ["--address", address(place), "--out", str(card)]
        keeper("join", "--home", str(place), *where)
    plan_file = folder / "committee.json"
    arguments = [*map(str, cards), "--home", str(homes[0]), "--out", str(plan_file), "--json"]
    config = json.loads(keeper("create", *arguments))["config"]

    def accept(place: Path, wait: int) -> subprocess.Popen[str]:
        options = ["--config", config, "--wait", str(wait), "--linger", "3", "--quick-keys"]
        return start("accept", str(plan_file), "--home", str(place), *options, "--json")

    # alone, an operator is told who is missing, and no key is made
    process = accept(homes[0], 5)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "hello: waiting for member" in err
    for missing in (1, 2):
        assert f"{Plan.load(plan_file).name_of(missing)} sent nothing" in err
    assert not list(folder.glob("home*/keys/share-*"))

    crew = [accept(place, 60) for place in homes]
    said: list[dict[str, Any]] = []
    for process in crew:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(json.loads(out))
    assert len({row["group_key"] for row in said}) == 1
    assert {row["signers"] for row in said} == {"2 of 3"}
    assert [row["member"] for row in said] == [0, 1, 2]

    with pytest.raises(KeyFileError, match="never overwritten"):
        keeper("accept", str(plan_file), "--home", str(homes[0]), "--config", config)
    with pytest.raises(ConfigError, match="somebody holds another"):
        keeper("accept", str(plan_file), "--home", str(homes[0]), "--config", "0x" + "11" * 32)

    (row,) = json.loads(keeper("status", "--home", str(homes[1]), "--json"))
    assert row["group_key"] == said[0]["group_key"]
    assert row["record"] == "sound"

    share_file = homes[2] / "keys" / "share-1.key"
    lost = keyfile.load_key_share(share_file, PASSWORD.encode())
    share_file.unlink()
    keeper("recover", str(homes[0] / "keys" / "recovery-1.bin"), "--home", str(homes[2]))
    found = keyfile.load_key_share(share_file, PASSWORD.encode())
    assert isinstance(found, KeyShare)
    assert found.signing_share == lost.signing_share

    # the third loses everything; the other two deal the same key anew
    for path in (homes[2] / "keys").glob("*-1.*"):
        path.unlink()
    options = ["--config", config, "--dealers", "0,1", "--wait", "60", "--linger", "3"]
    group = ["--group", str(homes[0] / "keys" / "group-1.bin")]
    crew = [
        start(
            *("reshare", str(plan_file), "--home", str(place), *options, *group),
            *("--quick-keys", "--json"),
        )
        for place in homes
    ]
    for process in crew:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out)["group_key"] == said[0]["group_key"]
    renewed = keyfile.load_key_share(share_file, PASSWORD.encode())
    assert renewed.signing_share != lost.signing_share
    assert renewed.group.verifying_key == lost.group.verifying_key
    names = sorted(path.name for path in (homes[0] / "keys").glob("*-1.*"))
    assert names == [
        *("group-1.bin", "group-1.retired-1.bin", "recovery-1.bin", "recovery-1.retired-1.bin"),
        *("share-1.key", "share-1.retired-1.key"),
    ]
    (row,) = json.loads(keeper("status", "--home", str(homes[2]), "--json"))
    assert row["record"] == "sound"


def cards_of(homes: list[Path]) -> tuple[Card, ...]:
    opened = [keys.load(place / "keys", PASSWORD) for place in homes]
    return tuple(Card.make(NETWORK.id, k, "/ip4/127.0.0.1/tcp/4001") for k in opened)


def test_a_card_is_bound_to_both_keys(homes: list[Path], tmp_path: Path) -> None:
    first, second, _ = cards_of(homes)
    assert first.is_genuine
    for forged in (
        replace(first, listen="/ip4/6.6.6.6/tcp/1"),
        replace(first, address=second.address),
        replace(first, peer_id=second.peer_id),
        replace(first, by_operator=second.by_operator),
        replace(first, by_identity=second.by_identity),
        replace(first, by_operator=bytes(65)),
        replace(first, network=bytes(32)),
    ):
        assert not forged.is_genuine
        path = tmp_path / "card.json"
        path.write_text(forged.to_json())
        with pytest.raises(ConfigError, match="not signed"):
            Card.load(path)


def test_a_plan_is_what_its_hash_says(homes: list[Path], tmp_path: Path) -> None:
    cards = cards_of(homes)
    plan = Plan(NETWORK.id, 1, NETWORK.digest(), cards)
    path = tmp_path / "committee.json"
    path.write_text(plan.to_json())
    assert Plan.load(path) == plan
    assert plan.terms().min_signers == 2
    assert plan.seat_of(keys.load(homes[1] / "keys", PASSWORD)) == 1
    path.write_text(plan.to_json().replace('"epoch": 1', '"epoch": 2'))
    with pytest.raises(ConfigError, match="config hash"):
        Plan.load(path)
    with pytest.raises(ConfigError, match="its own"):
        Plan(NETWORK.id, 1, NETWORK.digest(), (cards[0], cards[0]))
    with pytest.raises(ConfigError, match="another network"):
        Plan(bytes(32), 1, NETWORK.digest(), cards)
    with pytest.raises(ConfigError, match="not in the committee"):
        Plan(NETWORK.id, 1, bytes(32), cards[:2]).seat_of(keys.load(homes[2] / "keys", PASSWORD))


def test_a_key_of_an_epoch_is_not_made_twice(tmp_path: Path) -> None:
    files = committee.Files(tmp_path, 7)
    files.check_free()
    files.share.write_bytes(b"there")
    with pytest.raises(KeyFileError, match="key of that epoch"):
        files.check_free()
    assert list(committee.Files.all(tmp_path)) == [files]
