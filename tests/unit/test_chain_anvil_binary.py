"""The pinned binary: taken from the cache if it is the right one, refused if it is another."""

import hashlib
from pathlib import Path

import pytest

from keeper.devnet import chains
from keeper.errors import ConfigError, UnreachableError

CONTENT = b"#!/bin/true\n"


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pin = ("@foundry-rs/anvil-linux-amd64", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(chains, "_PINNED", {("Linux", "x86_64"): pin})


def fetch(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def fetched(package: str, scratch: Path) -> Path:
        asked.append(package)
        (scratch / "anvil").write_bytes(content)
        return scratch / "anvil"

    monkeypatch.setattr(chains, "_fetch", fetched)
    return asked


@pytest.mark.usefixtures("pinned")
def test_it_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fetch(CONTENT, monkeypatch)
    binary = chains.ensure_anvil(tmp_path)
    assert binary.read_bytes() == CONTENT
    assert binary.stat().st_mode & 0o100
    assert chains.ensure_anvil(tmp_path) == binary
    assert len(asked) == 1
    binary.write_bytes(b"tampered")
    assert chains.ensure_anvil(tmp_path).read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.usefixtures("pinned")
def test_another_binary_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(b"something else", monkeypatch)
    with pytest.raises(ConfigError, match="not the pinned one"):
        chains.ensure_anvil(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_pin_the_path_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv")
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/{name}")
    assert chains.ensure_anvil(tmp_path) == Path("/opt/anvil")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UnreachableError, match="no pinned anvil"):
        chains.ensure_anvil(tmp_path)


def test_the_development_phrase_gives_the_well_known_key() -> None:
    assert chains.mnemonic_key(0).hex().startswith("ac0974bec39a17e3")
