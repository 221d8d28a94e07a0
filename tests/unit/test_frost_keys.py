"""Key shares: values that hide their secret, files that are sealed and never overwritten."""

import copy
import logging
import pickle
from pathlib import Path

import pytest

from keeper.errors import KeyFileError
from p2p.frost import keyfile
from p2p.frost.dkg import Participant
from p2p.frost.keys import GroupKey, KeyShare, lagrange
from p2p.frost.nonces import NoncePool
from p2p.frost.round1 import generate_nonces
from p2p.frost.secret import Secret
from p2p.frost.suite import SUITES, TR, Identifier
from tests.support.frost import deal, seeded


@pytest.mark.parametrize("name", sorted(SUITES))
def test_group_key_round_trip(name: str) -> None:
    group, _ = deal(3, 5, SUITES[name])
    assert GroupKey.decode(group.encode()) == group
    with pytest.raises(ValueError):
        GroupKey.decode(group.encode() + b"\0")
    with pytest.raises(ValueError):
        GroupKey.decode(group.encode()[:-1])


def test_key_share_must_fit_its_group() -> None:
    group, shares = deal(2, 3)
    with pytest.raises(ValueError, match="does not belong"):
        KeyShare(Identifier(1), shares[Identifier(2)].signing_share, group)


def test_lagrange_interpolates_at_zero() -> None:
    order = TR.group.order
    points = {2: 7 + 3 * 2, 5: 7 + 3 * 5}
    total = sum(lagrange(i, list(points), order) * y for i, y in points.items()) % order
    assert total == 7


def secrets_of_every_kind() -> list[object]:
    _, shares = deal(2, 3)
    share = shares[Identifier(1)]
    pool = NoncePool(share, 1, seeded(1))
    pool.publish(Identifier(2), 3)
    ids = [Identifier(1), Identifier(2)]
    participant = Participant(TR, ids[0], ids, 2, seeded(2))
    return [
        share,
        share.signing_share,
        generate_nonces(share, seeded(3)),
        pool,
        participant,
    ]


@pytest.mark.parametrize("index", range(5))
def test_secrets_are_not_printed_pickled_or_copied(index: int, caplog: object) -> None:
    value = secrets_of_every_kind()[index]
    _, shares = deal(2, 3)
    hidden = shares[Identifier(1)].signing_share.reveal()
    for text in (repr(value), str(value), f"{value}", f"{value!r}"):
        assert hidden.hex() not in text
        assert repr(bytes(hidden)) not in text
        assert str(int.from_bytes(hidden, "big")) not in text
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            spread(value)


def test_secrets_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    _, shares = deal(2, 3)
    hidden = shares[Identifier(1)].signing_share.reveal().hex()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("state %r %s", secrets_of_every_kind(), shares)
    assert hidden not in caplog.text
    assert "hidden" in caplog.text


def test_wiped_secret_is_unusable() -> None:
    secret = Secret(b"\x01" * 32)
    secret.wipe()
    secret.wipe()
    assert secret.wiped
    with pytest.raises(ValueError, match="wiped"):
        secret.reveal()


def test_sealed_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "share.key"
    _, shares = deal(2, 3)
    share = shares[Identifier(2)]
    keyfile.save_key_share(path, share, b"pass", seeded(1), keyfile.QUICK)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = keyfile.load_key_share(path, b"pass")
    assert loaded.signing_share == share.signing_share
    assert loaded.group == share.group
    assert share.signing_share.reveal() not in path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["share.key"]


def test_sealed_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "share.key"
    _, shares = deal(2, 3)
    keyfile.save_key_share(path, shares[Identifier(1)], b"a", seeded(1), keyfile.QUICK)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="there already"):
        keyfile.save_key_share(path, shares[Identifier(2)], b"b", seeded(2), keyfile.QUICK)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["share.key"]


def test_sealed_file_refusals(tmp_path: Path) -> None:
    path = tmp_path / "share.key"
    _, shares = deal(2, 3)
    keyfile.save_key_share(path, shares[Identifier(1)], b"right", seeded(1), keyfile.QUICK)
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        keyfile.load_key_share(path, b"wrong")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others may read"):
        keyfile.load_key_share(path, b"right")
    with pytest.raises(KeyFileError, match="cannot read"):
        keyfile.load_key_share(tmp_path / "absent", b"right")


def test_every_damaged_byte_is_noticed() -> None:
    raw = keyfile.seal(b"plain", b"pass", b"tag", seeded(1), keyfile.QUICK)
    for index in range(len(raw)):
        damaged = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(KeyFileError):
            keyfile.unseal(damaged, b"pass")
