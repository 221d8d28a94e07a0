"""Official light-client vectors: Snappy, steps, and the client they start from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are another package

from keeper.observe.light_client.beacon import BeaconSpec, LightClient
from keeper.observe.light_client.ssz import decode_bootstrap

SIZE = 32
"""Members of a sync committee in the minimal preset."""


def unsnappy(raw: bytes) -> bytes:
    """Return what a raw Snappy block holds (format_description.txt of google/snappy)."""
    length, at, shift = 0, 0, 0
    while True:
        length |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            break
    out = bytearray()
    while at < len(raw):
        tag, kind = raw[at] >> 2, raw[at] & 3
        at += 1
        if kind == 0:
            extra = max(tag - 59, 0)
            size = (int.from_bytes(raw[at : at + extra], "little") if extra else tag) + 1
            at += extra
            out += raw[at : at + size]
            at += size
            continue
        if kind == 1:
            size, offset, at = 4 + (tag & 7), (tag >> 3) << 8 | raw[at], at + 1
        else:
            width = 2 if kind == 2 else 4
            size, offset = tag + 1, int.from_bytes(raw[at : at + width], "little")
            at += width
        for _ in range(size):
            out.append(out[-offset])
    assert len(out) == length
    return bytes(out)


def from_hex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@dataclass(frozen=True)
class Case:
    """One folder of vectors."""

    folder: Path

    def load(self, name: str) -> Any:
        return yaml.safe_load((self.folder / name).read_text())

    def raw(self, name: str) -> bytes:
        return unsnappy((self.folder / f"{name}.ssz_snappy").read_bytes())

    def spec(self) -> BeaconSpec:
        meta, config = self.load("meta.yaml"), self.load("config.yaml")
        version = config["ELECTRA_FORK_VERSION"].to_bytes(4, "big")
        root = from_hex(meta["genesis_validators_root"])
        return BeaconSpec(
            root, ((0, version),), SIZE, slots_per_epoch=8, epochs_per_period=8, trusting_slots=512
        )

    def client(self) -> LightClient:
        trusted = from_hex(self.load("meta.yaml")["trusted_block_root"])
        bootstrap = decode_bootstrap(self.raw("bootstrap"), SIZE)
        return LightClient(self.spec(), trusted, bootstrap, bootstrap.header.beacon.slot)
