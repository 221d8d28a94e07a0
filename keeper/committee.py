"""The files of a committee's key: cards, the plan that all operators agree on, shares, records.

    Card   one operator's address and peer, signed by both of its keys, so nobody can be misbound
    Plan   all cards in member order, network, epoch, parameters ──▶ config, `p2p.types.Committee`
    Files  keys/share-E.key sealed, recovery-E.bin and group-E.bin public; never overwritten:
           a reshare retires them under another name

A plan carries no secret; operators compare its config hash by voice or mail.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coincurve import PrivateKey, PublicKey
from eth_utils.address import to_checksum_address

from keeper.errors import ConfigError, KeyFileError
from keeper.hashing import keccak
from keeper.keys import Keys
from p2p import identity
from p2p.frost import keyfile
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.suite import TR
from p2p.frost.transcript import Recovery, Terms
from p2p.types import Committee, Member

_DOMAIN = b"flowkeeper/committee/card/1"


def digest_of(text: str, where: str) -> bytes:
    """Return the 32 bytes of 0x text.

    Raises:
        ConfigError: it is no 32-byte hex.
    """
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ConfigError(f"{text!r} is not 32 bytes of hex", where=where)
    return raw


@dataclass(frozen=True, slots=True)
class Card:
    """One operator's word on where and who it is."""

    network: bytes
    address: bytes
    peer_id: bytes
    listen: str
    by_operator: bytes
    by_identity: bytes

    @classmethod
    def make(cls, network: bytes, keys: Keys, listen: str) -> "Card":
        """Sign a card with both keys."""
        digest = _preimage(network, keys.address, keys.peer_id, listen)
        return cls(
            network,
            keys.address,
            keys.peer_id,
            listen,
            PrivateKey(keys.operator).sign_recoverable(digest, hasher=None),
            identity.sign(keys.identity, digest),
        )

    @property
    def dial_address(self) -> str:
        """The multiaddress with its peer."""
        return f"{self.listen}/p2p/{identity.peer_id_text(self.peer_id)}"

    @property
    def is_genuine(self) -> bool:
        """Whether both keys signed it."""
        digest = _preimage(self.network, self.address, self.peer_id, self.listen)
        try:
            public = PublicKey.from_signature_and_message(self.by_operator, digest, hasher=None)
        except ValueError:
            return False
        signer = keccak(public.format(compressed=False)[1:])[12:]
        return signer == self.address and identity.is_signed_by(
            self.peer_id, digest, self.by_identity
        )

    def to_json(self) -> str:
        """Return the text of a card file."""
        return json.dumps(self.fields(), indent=1) + "\n"

    def fields(self) -> dict[str, str]:
        """Return the fields of a card file."""
        return {
            "network": "0x" + self.network.hex(),
            "address": to_checksum_address(self.address),
            "peer": identity.peer_id_text(self.peer_id),
            "listen": self.listen,
            "by_operator": "0x" + self.by_operator.hex(),
            "by_identity": "0x" + self.by_identity.hex(),
        }

    @classmethod
    def load(cls, path: Path) -> "Card":
        """Read and check a card file. Raises ConfigError."""
        return cls.of(_json(path), str(path))

    @classmethod
    def of(cls, fields: Any, where: str) -> "Card":
        """Return the card of its fields. Raises ConfigError."""
        try:
            card = cls(
                bytes.fromhex(fields["network"][2:]),
                bytes.fromhex(fields["address"][2:]),
                identity.peer_id_from_text(fields["peer"]),
                str(fields["listen"]),
                bytes.fromhex(fields["by_operator"][2:]),
                bytes.fromhex(fields["by_identity"][2:]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a card: {error}", where=where) from error
        if not card.is_genuine:
            raise ConfigError(
                "the card is not signed by its operator and its peer",
                where=where,
                remedy="ask for it again: keeper committee join",
            )
        return card


def _preimage(network: bytes, address: bytes, peer: bytes, listen: str) -> bytes:
    return keccak(_DOMAIN + network + address + peer + listen.encode())


@dataclass(frozen=True, slots=True)
class Plan:
    """Who will hold the key of an epoch."""

    network: bytes
    epoch: int
    parameters: bytes
    cards: tuple[Card, ...]

    def __post_init__(self) -> None:
        if self.epoch < 1:
            raise ConfigError(f"epoch {self.epoch} is below 1", where="--epoch")
        if any(card.network != self.network for card in self.cards):
            raise ConfigError("a card is of another network", remedy="ask for it again")
        for name, values in (
            ("operator", [card.address for card in self.cards]),
            ("peer", [card.peer_id for card in self.cards]),
        ):
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"every member needs its own {name}")

    @property
    def committee(self) -> Committee:
        """The committee as the agreement knows it."""
        members = tuple(Member(card.address, card.peer_id) for card in self.cards)
        return Committee(self.network, self.epoch, members, self.parameters)

    @property
    def config(self) -> bytes:
        """The hash every operator signs."""
        return self.committee.config

    def terms(self, old: GroupKey | None = None, dealers: tuple[int, ...] = ()) -> Terms:
        """Return what the ceremony is about: a new key, or `old` dealt anew by some members."""
        hosts = tuple(card.peer_id for card in self.cards)
        place = (self.network, self.epoch, self.config)
        try:
            return Terms(TR, self.committee.quorum, hosts, *place, old, dealers)
        except ValueError as error:
            raise ConfigError(str(error), where="--dealers") from error

    def seat_of(self, keys: Keys) -> int:
        """Return this operator's member index. Raises ConfigError."""
        for index, card in enumerate(self.cards):
            if (card.address, card.peer_id) == (keys.address, keys.peer_id):
                return index
        raise ConfigError(
            "this home is not in the committee file",
            where=to_checksum_address(keys.address),
            remedy="give your card to whoever creates the file: keeper committee join",
        )

    def name_of(self, member: int) -> str:
        """Return how a member is spoken of."""
        card = self.cards[member]
        peer = identity.peer_id_text(card.peer_id)
        return f"member {member} ({to_checksum_address(card.address)}, {peer})"

    def to_json(self) -> str:
        """Return the text of a committee file."""
        value = {
            "version": 1,
            "network": "0x" + self.network.hex(),
            "epoch": self.epoch,
            "parameters": "0x" + self.parameters.hex(),
            "config": "0x" + self.config.hex(),
            "members": [card.fields() for card in self.cards],
        }
        return json.dumps(value, indent=1) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read and check a committee file. Raises ConfigError."""
        raw = _json(path)
        try:
            plan = cls(
                digest_of(raw["network"], str(path)),
                int(raw["epoch"]),
                digest_of(raw["parameters"], str(path)),
                tuple(Card.of(item, str(path)) for item in raw["members"]),
            )
            config = digest_of(raw["config"], str(path))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a committee file: {error}", where=str(path)) from error
        if config != plan.config:
            raise ConfigError("the config hash is not that of the members", where=str(path))
        return plan


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the file: {error}", where=str(path)) from error


@dataclass(frozen=True, slots=True)
class Files:
    """What a home keeps of one epoch's key."""

    folder: Path
    epoch: int

    @property
    def share(self) -> Path:
        """The sealed share."""
        return self.folder / f"share-{self.epoch}.key"

    @property
    def record(self) -> Path:
        """The public record of the ceremony."""
        return self.folder / f"recovery-{self.epoch}.bin"

    @property
    def group(self) -> Path:
        """The public group key: what a member that lost its share asks another for."""
        return self.folder / f"group-{self.epoch}.bin"

    @classmethod
    def all(cls, folder: Path) -> Iterator["Files"]:
        """Iterate over the epochs a home holds shares of, ascending."""
        epochs = (path.stem.removeprefix("share-") for path in folder.glob("share-*.key"))
        for epoch in sorted(int(text) for text in epochs if text.isdigit()):
            yield cls(folder, epoch)

    def check_free(self) -> None:
        """Refuse to run a ceremony whose result could not be kept. Raises KeyFileError."""
        for path in (self.share, self.record, self.group):
            if path.exists():
                raise KeyFileError(
                    "this home has a key of that epoch already",
                    where=str(path),
                    remedy="keys are never overwritten: a new key is a new epoch",
                )

    def save(
        self, share: KeyShare, recovery: Recovery, password: bytes, work: keyfile.Work
    ) -> None:
        """Write the share sealed, then the public files. Raises KeyFileError."""
        keyfile.save_key_share(self.share, share, password, os.urandom, work)
        keyfile.write_new(self.record, recovery.encode())
        keyfile.write_new(self.group, share.group.encode())

    def replace(
        self, share: KeyShare, recovery: Recovery, password: bytes, work: keyfile.Work
    ) -> tuple[Path, ...]:
        """Write new files aside, retire the old ones, then put the new in place.

        Returns:
            The retired files: worthless for signing once all members have resharded, and for the
            operator to delete.

        Raises:
            KeyFileError: a file cannot be written.
        """
        fresh = Files(self.folder / "fresh", self.epoch)
        fresh.folder.mkdir(mode=0o700, exist_ok=True)
        fresh.save(share, recovery, password, work)
        retired = []
        for path in (self.share, self.record, self.group):
            if path.exists():
                retired.append(_free_name(path))
                path.rename(retired[-1])
        for new, path in zip(
            (fresh.share, fresh.record, fresh.group),
            (self.share, self.record, self.group),
            strict=True,
        ):
            new.rename(path)
        fresh.folder.rmdir()
        return tuple(retired)


def _free_name(path: Path) -> Path:
    number = 1
    while (found := path.with_name(f"{path.stem}.retired-{number}{path.suffix}")).exists():
        number += 1
    return found
