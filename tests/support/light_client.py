"""Official light-client vectors: Snappy, steps, and the client they start from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are another package

from keeper.chain.codec import header_rlp
from keeper.devnet.beacon import Block, SimulatedBeacon
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.observe.light_client.beacon import LightClient
from keeper.observe.light_client.spec import BeaconSpec
from keeper.observe.light_client.ssz import (
    Bootstrap,
    Update,
    decode_bootstrap,
    decode_finality_update,
    decode_update,
)
from keeper.observe.light_client.trust import from_bootstrap
from keeper.reasons import Reason

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
        state = from_bootstrap(self.spec(), trusted, bootstrap)
        return LightClient(self.spec(), state, bootstrap.header.beacon.slot)


def execution_block(
    number: int, parent: bytes, timestamp: int, state: bytes = b""
) -> dict[str, Any]:
    """Return a JSON-RPC block of a made-up execution chain; its hash follows from its fields."""
    block = {
        "parentHash": "0x" + parent.hex(),
        "sha3Uncles": "0x" + bytes(32).hex(),
        "miner": "0x" + bytes(20).hex(),
        "stateRoot": "0x" + (state or keccak(b"state %d" % number)).hex(),
        "transactionsRoot": "0x" + bytes(32).hex(),
        "receiptsRoot": "0x" + keccak(b"receipts %d" % number).hex(),
        "logsBloom": "0x" + bytes(256).hex(),
        "difficulty": "0x0",
        "number": hex(number),
        "gasLimit": hex(30_000_000),
        "gasUsed": hex(21_000),
        "timestamp": hex(timestamp),
        "extraData": "0x" + b"made up".hex(),
        "mixHash": "0x" + keccak(b"randao %d" % number).hex(),
        "nonce": "0x" + bytes(8).hex(),
        "baseFeePerGas": hex(7),
        "withdrawalsRoot": "0x" + bytes(32).hex(),
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
    }
    return block | {"hash": "0x" + keccak(header_rlp(block)).hex()}


class World:
    """A simulated beacon over a made-up execution chain, one block a slot, without sockets."""

    name = "world"

    def __init__(
        self, size: int = SIZE, slots_per_epoch: int = 8, epochs_per_period: int = 8
    ) -> None:
        self.beacon = SimulatedBeacon(
            0, size=size, slots_per_epoch=slots_per_epoch, epochs_per_period=epochs_per_period
        )
        self.now = 0
        self.blocks: dict[bytes, dict[str, Any]] = {}
        self._tip = bytes(32)

    def grow(self, slots: int) -> None:
        """Let time pass; a block is made in every slot unless the chain is stalled."""
        for _ in range(slots):
            self.now += 1
            block = execution_block(self.now, self._tip, self.now)
            if self.beacon.add(block):
                self._tip = from_hex(block["hash"])
                self.blocks[self._tip] = block

    def final(self) -> Block:
        """Return what the newest signed block makes final."""
        block = self.beacon.blocks[-2].finalized
        assert block is not None
        return block

    def client(self) -> LightClient:
        """A client that starts from the newest final block."""
        root = self.final().root
        bootstrap = self.beacon.bootstrap(root)
        assert bootstrap is not None
        spec = self.beacon.spec
        return LightClient(spec, from_bootstrap(spec, root, bootstrap), self.now)

    def update(self) -> Update:
        update = self.beacon.newest()
        assert update is not None
        return update

    async def bootstrap(self, root: bytes, size: int) -> Bootstrap:
        found = self.beacon.bootstrap(root)
        if found is None:
            raise RemoteFault(self.name, Reason.ENDPOINT_DOWN, "HTTP status 404")
        return decode_bootstrap(found.encode(), size)

    async def updates(self, first: int, count: int, size: int) -> list[Update]:
        found = [self.beacon.best(period) for period in range(first, first + count)]
        return [decode_update(each.encode(), size) for each in found if each is not None]

    async def finality_update(self, size: int) -> Update:
        return decode_finality_update(self.update().encode_finality(), size)
