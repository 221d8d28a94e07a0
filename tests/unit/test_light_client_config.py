"""The `[light_client.CHAIN]` section: read back as written, refused when impossible."""

from pathlib import Path

import pytest

from keeper import config
from keeper.config import LightClientConfig
from keeper.errors import ConfigError
from keeper.observe.light_client.service import configured
from keeper.store import Store
from keeper.units import ChainId

CHAIN = ChainId(31501)
SETTINGS = LightClientConfig(
    "http://127.0.0.1:5052",
    b"\1" * 32,
    1_700_000_000,
    b"\2" * 32,
    ((0, b"\5\0\0\0"), (9, b"\6\0\0\0")),
    seconds_per_slot=1,
    slots_per_epoch=4,
    epochs_per_period=64,
)


def _home(folder: Path, extra: str) -> Path:
    text = config.render(
        mode="off",
        password_file="",
        p2p_port=4001,
        bootstrap=(),
        http_port=8080,
        endpoints={CHAIN: ("http://127.0.0.1:8545",)},
    )
    (folder / "keeper.toml").write_text(text + extra)
    return folder


def test_a_rendered_section_is_read_back(tmp_path: Path) -> None:
    assert config.load(_home(tmp_path, "")).light_clients == {}
    read = config.load(_home(tmp_path, SETTINGS.render(CHAIN)))
    assert read.light_clients == {CHAIN: SETTINGS}
    service = configured(CHAIN, SETTINGS, Store(":memory:"), lambda: 1_700_000_042.9)
    assert service.spec.forks == SETTINGS.forks
    assert service.spec.committee_size == 512
    assert service.spec.trusting_slots == 14 * 86_400
    assert service.anchor() is None
    assert service._now() == 42


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("31501", "31502", "31502"),
        ("trusted_root", "trusted", "unknown key"),
        ('"0x' + "01" * 32, '"0x' + "01" * 31, "32 bytes"),
        ("slots_per_epoch = 4", "slots_per_epoch = 0", "at least 1"),
        ('forks = { "0" = "0x05000000", "9" = "0x06000000" }', "forks = {}", "needs a fork"),
        ("genesis_time = 1700000000\n", "", "genesis_time"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = SETTINGS.render(CHAIN)
    assert old in text
    with pytest.raises(ConfigError, match=says):
        config.load(_home(tmp_path, text.replace(old, new)))


def test_an_address_that_is_none(tmp_path: Path) -> None:
    wrong = LightClientConfig("ftp://x", b"\1" * 32, 0, b"\2" * 32, ((0, b"\5\0\0\0"),))
    with pytest.raises(ConfigError, match="http"):
        configured(CHAIN, wrong, Store(":memory:"))
