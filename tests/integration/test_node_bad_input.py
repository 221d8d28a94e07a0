"""An operator's mistake is one paragraph: what, where, what to do; status 1, nothing torn."""

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from keeper import home as home_folder
from keeper.devnet.chains import free_port
from keeper.parameters import Parameters
from keeper.units import ChainId
from p2p.frost.keyfile import QUICK
from tests.support.anvil import chain_of
from tests.support.shared import ROOT
from tests.support.snapshots import CHAIN, SPEC

PASSWORD = "correct horse"


def network_file(folder: Path) -> Path:
    spec = dataclasses.replace(SPEC, parameters=Parameters.devnet([CHAIN]).encode())
    path = folder / "network.json"
    path.write_text(json.dumps(spec.to_json()))
    return path


def make_home(folder: Path, url: str = "http://127.0.0.1:1", http_port: int = 0) -> Path:
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    home = folder / "home"
    home_folder.make(
        home,
        network_file(folder),
        {ChainId(CHAIN): (url,)},
        PASSWORD,
        mode="shadow",
        p2p_port=free_port(),
        http_port=http_port or free_port(),
        password_file=password,
        work=QUICK,
    )
    return home


def run(home: Path, *arguments: str) -> str:
    """Run the node until it gives up; return its one paragraph."""
    done = subprocess.run(
        [sys.executable, "-m", "keeper", "run", "--home", str(home), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_there_is_no_home(tmp_path: Path) -> None:
    error = run(tmp_path)
    assert "keeper.toml" in error
    assert "keeper init" in error


def test_an_unknown_key_in_the_configuration(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    path = home / "keeper.toml"
    path.write_text(path.read_text().replace("[http]", "[http]\ntypo = 1"))
    error = run(home)
    assert "unknown key 'typo' in [http]" in error
    assert str(path) in error


def test_an_impossible_mode(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    path = home / "keeper.toml"
    path.write_text(path.read_text().replace('mode = "shadow"', 'mode = "yolo"'))
    assert "is not one of off, shadow, dry, live" in run(home)


def test_a_wrong_password(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (tmp_path / "password").write_text("wrong\n")
    error = run(home)
    assert "passphrase is wrong or the file is damaged" in error
    assert "operator.key" in error


def test_a_damaged_key_file(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    path = home / "keys" / "operator.key"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    assert "operator.key" in run(home)
    assert path.read_bytes() == bytes(raw)


def test_a_key_file_others_may_read(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (home / "keys" / "identity.key").chmod(0o644)
    assert "chmod 600" in run(home)


def test_a_broken_network_descriptor(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (home / "network.json").write_text("{}")
    error = run(home)
    assert "network descriptor" in error
    assert "copy network.json" in error


def test_a_damaged_database(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (home / "keeper.db").write_bytes(b"this is no database" * 100)
    error = run(home)
    assert "database" in error
    assert "keeper.db" in error


def test_the_http_port_is_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        error = run(make_home(tmp_path, http_port=port))
    assert str(port) in error
    assert "[http] port" in error


@pytest.mark.anvil
def test_an_endpoint_that_does_not_answer(tmp_path: Path) -> None:
    error = run(make_home(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert f"chain {CHAIN} cannot be reached" in error


@pytest.mark.anvil
async def test_an_endpoint_of_another_chain(tmp_path: Path, anvil_binary: Path) -> None:
    async with chain_of(anvil_binary, 1337) as anvil:
        home = make_home(tmp_path, anvil.url)
        error = await trio.to_thread.run_sync(run, home)
    assert f"serves chain 1337, not {CHAIN}" in error
