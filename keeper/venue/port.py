"""What a venue adapter does: account tables in, legs out; decisions and plan steps in, calls out.

    Records (one chain at one block) ──▶ VenueReader.legs ──▶ account → legs
    Decision under a seal, plan step ──▶ venue/calls.py ────▶ Call (address, data)

An adapter knows one contract family. It reads records, never a node: what is not in the records at
the agreed block does not exist.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from keeper.legs import Leg
from keeper.network import ChainSpec
from keeper.units import ChainId


class Records(Protocol):
    """The records of one chain at one block; `keeper.observe.table.Table` is one."""

    def get(self, address: bytes, *topics: bytes) -> bytes | None:
        """Return the data of the last event with exactly these topics, or None."""
        ...

    def records(self, address: bytes, topic: bytes) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
        """Yield (indexed topics after the first, data) of one event of one contract, sorted."""
        ...


Tables = Mapping[ChainId, Records]


class VenueReader(Protocol):
    """Reads the legs that one contract family on one chain records."""

    def __call__(self, spec: ChainSpec, records: Records) -> dict[bytes, list[Leg]]:
        """Return account → its legs there, unsorted; empty where the chain has no such venue."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A contract call without gas, nonce, fee or key: those belong to keeper/execute."""

    chain: ChainId
    to: bytes
    data: bytes
