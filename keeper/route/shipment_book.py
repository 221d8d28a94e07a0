"""Shipments on disk: written before anything is sent, read again at every start.

What is open is kept until it ends; of the rest, what a window still counts and the newest `KEPT`,
whose latencies are what a lane is known by.
"""

import sqlite3
from typing import Any

import msgpack

from keeper.route.bridges.port import Crossing, Transfer
from keeper.route.shipments import Shipment, State
from keeper.store import Store
from keeper.units import ChainId

_VERSION = 1
_TABLES = (
    """CREATE TABLE shipment (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, open INTEGER NOT NULL,
        decided_ms INTEGER NOT NULL, body BLOB NOT NULL)""",
    "CREATE INDEX shipment_open ON shipment (open, decided_ms)",
)
KEPT = 512
"""Shipments that ended: twice what a lane's quantiles are made of, 0.5 kB each."""


class ShipmentBook:
    """The table of shipments.

    Invariants: a shipment is on disk before anything of it is sent; `all` is in the order in which
    they were decided; its size is bounded by `KEPT`, what is open, and a window's most.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table("shipments", _VERSION, *_TABLES)

    def all(self) -> list[Shipment]:
        """Return every shipment that is kept."""
        rows = self._store.read("SELECT body FROM shipment ORDER BY number")
        return [_read(body) for (body,) in rows]

    def put(self, *shipments: Shipment) -> None:
        """Write shipments, new or changed; they are on disk when this returns."""
        with self._store.durable() as rows:
            for one in shipments:
                rows.execute(
                    "INSERT INTO shipment (id, open, decided_ms, body) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET open = excluded.open, body = excluded.body",
                    (one.id, one.open, one.decided_ms, _body(one)),
                )

    def forget(self, since_ms: int) -> int:
        """Drop what ended, was decided before a time, and is not among the newest `KEPT`."""
        with self._store.cached() as rows:
            done: sqlite3.Cursor = rows.execute(
                "DELETE FROM shipment WHERE open = 0 AND decided_ms < ? AND number NOT IN"
                " (SELECT number FROM shipment WHERE open = 0 ORDER BY number DESC LIMIT ?)",
                (since_ms, KEPT),
            )
            return done.rowcount


def _body(one: Shipment) -> bytes:
    sent = one.transfer
    packed: bytes = msgpack.packb(
        [
            *(one.id, one.task, one.crossing.origin, one.crossing.destination),
            *(one.crossing.asset, one.bridge, one.verifier),
            *(str(number) for number in (one.amount, one.brings, one.value)),
            *(one.decided_ms, one.p95_ms, one.first, one.why, one.state.value),
            *(one.left_ms, one.ended_ms, one.timed, one.told),
            None if sent is None else [sent.id, sent.recipient, str(sent.amount), sent.payload],
        ]
    )
    return packed


def _read(body: bytes) -> Shipment:
    row: list[Any] = msgpack.unpackb(body)
    name, task, origin, destination, asset, bridge, verifier, *rest = row
    amount, brings, value, decided, p95, first, why, state, left, ended, timed, told, sent = rest
    crossing, transfer = Crossing(ChainId(origin), ChainId(destination), asset), None
    if sent is not None:
        known, recipient, arrives, payload = sent
        transfer = Transfer(known, crossing, recipient, int(arrives), payload)
    sizes = int(amount), int(brings), int(value)
    places = name, task, crossing, bridge, verifier
    ends = ended, timed, told
    return Shipment(*places, *sizes, decided, p95, first, why, State(state), left, transfer, *ends)
