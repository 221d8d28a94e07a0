"""Where a peer can be dialled: records signed by the peer itself, so anyone may pass them on.

    joining keeper ── my record ──► bootstrap keeper
                   ◄── records of every member it knows ──

Newest counter wins. Only records of admitted peers are kept, so strangers cannot grow the book.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgpack

from p2p.identity import is_peer_id, is_signed_by, sign

DOMAIN = b"flowkeeper-addresses-1"
ADDRESSES_MAX = 8
ADDRESS_CHARS = 128
RECORDS_MAX = 128
"""Records in one exchange: the largest committee and its candidates."""


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """A peer's own word on where it listens. `counter` grows (nanoseconds of its clock)."""

    peer: bytes
    counter: int
    addresses: tuple[str, ...]
    signature: bytes

    def packed(self) -> list[object]:
        """Return the fields as they travel."""
        return [self.peer, self.counter, list(self.addresses), self.signature]


def _message(peer: bytes, counter: int, addresses: Iterable[str]) -> bytes:
    return DOMAIN + bytes(msgpack.packb([peer, counter, list(addresses)]))


def make_record(
    seed: bytes, peer: bytes, counter: int, addresses: tuple[str, ...]
) -> AddressRecord:
    """Return our own record, signed."""
    signature = sign(seed, _message(peer, counter, addresses))
    return AddressRecord(peer, counter, addresses, signature)


def pack_records(records: Iterable[AddressRecord]) -> bytes:
    """Return the bytes of an exchange."""
    return bytes(msgpack.packb([record.packed() for record in records]))


def unpack_records(frame: bytes) -> tuple[AddressRecord, ...]:
    """Return the records of an exchange; signatures are checked by the book.

    Raises:
        ValueError: the bytes are not an exchange.
    """
    try:
        rows = msgpack.unpackb(
            frame, raw=False, strict_map_key=True, max_array_len=RECORDS_MAX, max_map_len=0
        )
    except Exception as error:  # msgpack raises half a dozen kinds on junk
        raise ValueError("not an address exchange") from error
    if not isinstance(rows, list):
        raise ValueError("not a list of records")
    return tuple(_record(row) for row in rows)


def _record(row: object) -> AddressRecord:
    match row:
        case [bytes() as peer, int() as counter, list() as addresses, bytes() as signature]:
            texts = tuple(a for a in addresses if isinstance(a, str) and len(a) <= ADDRESS_CHARS)
            if (
                len(texts) == len(addresses) <= ADDRESSES_MAX
                and is_peer_id(peer)
                and 0 <= counter < 1 << 64
                and len(signature) == 64
            ):
                return AddressRecord(peer, counter, texts, signature)
        case _:
            pass
    raise ValueError("not an address record")


class AddressBook:
    """Addresses by peer: what the operator configured, then what peers signed."""

    def __init__(self, known: Iterable[tuple[bytes, str]] = ()) -> None:
        self._known: dict[bytes, tuple[str, ...]] = {}
        self._records: dict[bytes, AddressRecord] = {}
        for peer, address in known:
            self._known[peer] = (*self._known.get(peer, ()), address)

    def learn(self, record: AddressRecord) -> bool:
        """Keep a record if it is newer and its own signature holds; returns whether it was new.

        Raises:
            ValueError: the signature is not the peer's.
        """
        held = self._records.get(record.peer)
        if held is not None and held.counter >= record.counter:
            return False
        message = _message(record.peer, record.counter, record.addresses)
        if not is_signed_by(record.peer, message, record.signature):
            raise ValueError("an address record is not signed by its peer")
        self._records[record.peer] = record
        return True

    def keep_only(self, peers: frozenset[bytes]) -> None:
        """Forget the records of everybody else."""
        self._records = {p: record for p, record in self._records.items() if p in peers}

    def addresses(self, peer: bytes) -> tuple[str, ...]:
        """Return where to dial a peer: its own record first."""
        record = self._records.get(peer)
        mine = record.addresses if record is not None else ()
        return mine + tuple(a for a in self._known.get(peer, ()) if a not in mine)

    def lives(self, host: str) -> bool:
        """Return whether some peer we know says it lives at this host."""
        places = [*self._known.values(), *(record.addresses for record in self._records.values())]
        return any(address.split("/")[2:3] == [host] for place in places for address in place)

    def bootstrap(self) -> tuple[bytes, ...]:
        """Return the configured peers, sorted."""
        return tuple(sorted(self._known))

    def records(self) -> tuple[AddressRecord, ...]:
        """Return every record held, by peer."""
        return tuple(self._records[peer] for peer in sorted(self._records))
