"""The durable log: what a keeper must remember to stay honest, and what it can tell the late.

    votes         every vote of its own, before it is sent          fsync
    proposals     the body of every block it voted for or holds     fsync
    certificates  of every view                                      fsync
    finals        the chain: view → digest                           fsync
    evidence      conflicting pairs of others                        fsync
    opened        the configs this keeper may vote in without a doppelganger wait      fsync

Both implementations pass the same tests. A log that has not been opened for a config, because it
was lost or never made, makes the core wait until its former self cannot contradict it.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from keeper.errors import RemoteFault, StoreError
from keeper.store import Store
from p2p.agreement.evidence import Evidence
from p2p.types import Certificate, Kind, Message, Proposal, Vote
from p2p.wire import decode, digest_of, encode

HISTORY_VIEWS = 20_000
"""Views behind the final one that are kept, whatever their epoch, since views count on over epochs:
five hours at one a second. A keeper that is later than that jumps; without a bound, bodies of 50 kB
fill 4 GB a day."""
_PRUNE_EVERY = 256
"""Final views between two prunings: each costs one scan of an index."""


@dataclass(frozen=True, slots=True)
class Final:
    """One block of the final chain."""

    epoch: int
    view: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """This keeper never voted under `config` before this log, or waited until that is past."""

    config: bytes


Record = Opened | Vote | Proposal | Certificate | Final | Evidence


@dataclass(frozen=True, slots=True)
class Restored:
    """What the log holds that the core needs to go on: everything after the last final view."""

    opened: bool
    votes: tuple[Vote, ...]
    proposals: tuple[Proposal, ...]
    certificates: tuple[Certificate, ...]
    final: Final | None
    final_tick: int


class Log(Protocol):
    """Durable memory of one keeper; `write` returns when the records survive a power loss."""

    def write(self, records: Sequence[Record]) -> None:
        """Append records, all or none."""
        ...

    def restore(self, epoch: int, config: bytes) -> Restored:
        """Return where an epoch stood."""
        ...

    def proposal(self, epoch: int, view: int, digest: bytes) -> Proposal | None:
        """Return a block's body."""
        ...

    def certificate(self, epoch: int, kind: Kind, view: int) -> Certificate | None:
        """Return the certificate of a kind for a view."""
        ...

    def votes(self, epoch: int, view: int) -> tuple[Vote, ...]:
        """Return this keeper's own votes in a view."""
        ...

    def finals(self, epoch: int, from_view: int, limit: int) -> tuple[Final, ...]:
        """Return final blocks after a view, oldest first."""
        ...

    def evidence(self) -> tuple[Evidence, ...]:
        """Return every pair kept, oldest first."""
        ...


class MemoryLog:
    """A log for simulations: what was written survives a simulated crash of the core."""

    def __init__(self, history_views: int = HISTORY_VIEWS) -> None:
        self._history_views = history_views
        self._opened: set[bytes] = set()
        self._votes: dict[tuple[int, int], dict[Kind, Vote]] = {}
        self._proposals: dict[tuple[int, int, bytes], Proposal] = {}
        self._certificates: dict[tuple[int, int, Kind], Certificate] = {}
        self._finals: dict[tuple[int, int], Final] = {}
        self._evidence: list[Evidence] = []

    def write(self, records: Sequence[Record]) -> None:
        """Append records."""
        for record in records:
            match record:
                case Opened():
                    self._opened.add(record.config)
                case Vote():
                    held = self._votes.setdefault((record.epoch, record.view), {})
                    held.setdefault(record.kind, record)
                case Proposal():
                    key = (record.epoch, record.view, digest_of(record))
                    self._proposals.setdefault(key, record)
                case Certificate():
                    place = (record.epoch, record.view, record.kind)
                    self._certificates.setdefault(place, record)
                case Final():
                    self._finals[record.epoch, record.view] = record
                    if record.view % _PRUNE_EVERY == 0:
                        self._prune(record.view - self._history_views)
                case Evidence():
                    self._evidence.append(record)

    def _prune(self, below: int) -> None:
        self._votes = {k: v for k, v in self._votes.items() if k[1] >= below}
        self._finals = {k: v for k, v in self._finals.items() if k[1] >= below}
        self._proposals = {k: v for k, v in self._proposals.items() if k[1] >= below}
        self._certificates = {k: v for k, v in self._certificates.items() if k[1] >= below}

    def restore(self, epoch: int, config: bytes) -> Restored:
        """Return where an epoch stood."""
        final = max(
            (f for (e, _), f in self._finals.items() if e == epoch),
            key=lambda f: f.view,
            default=None,
        )
        after = final.view if final else 0
        tick = self._proposals[epoch, final.view, final.digest].tick if final else 0
        return Restored(
            config in self._opened,
            tuple(
                vote
                for (e, view), held in sorted(self._votes.items())
                if e == epoch and view >= after
                for vote in held.values()
            ),
            tuple(
                self._proposals[key]
                for key in sorted(self._proposals)
                if key[0] == epoch and key[1] > after
            ),
            tuple(
                self._certificates[key]
                for key in sorted(self._certificates)
                if key[0] == epoch and key[1] >= after
            ),
            final,
            tick,
        )

    def proposal(self, epoch: int, view: int, digest: bytes) -> Proposal | None:
        """Return a block's body."""
        return self._proposals.get((epoch, view, digest))

    def certificate(self, epoch: int, kind: Kind, view: int) -> Certificate | None:
        """Return the certificate of a kind for a view."""
        return self._certificates.get((epoch, view, kind))

    def votes(self, epoch: int, view: int) -> tuple[Vote, ...]:
        """Return this keeper's own votes in a view."""
        held = self._votes.get((epoch, view), {})
        return tuple(held[kind] for kind in Kind if kind in held)

    def finals(self, epoch: int, from_view: int, limit: int) -> tuple[Final, ...]:
        """Return final blocks after a view, oldest first."""
        views = sorted(v for e, v in self._finals if e == epoch and v > from_view)
        return tuple(self._finals[epoch, view] for view in views[:limit])

    def evidence(self) -> tuple[Evidence, ...]:
        """Return every pair kept, oldest first."""
        return tuple(self._evidence)


_SCHEMA = (
    "CREATE TABLE agreement_opened (config BLOB PRIMARY KEY)",
    "CREATE TABLE agreement_votes (epoch INTEGER, view INTEGER, kind INTEGER, raw BLOB NOT NULL,"
    " PRIMARY KEY (epoch, view, kind)) WITHOUT ROWID",
    "CREATE TABLE agreement_proposals (epoch INTEGER, view INTEGER, digest BLOB,"
    " raw BLOB NOT NULL, PRIMARY KEY (epoch, view, digest))",
    "CREATE TABLE agreement_certificates (epoch INTEGER, view INTEGER, kind INTEGER,"
    " raw BLOB NOT NULL, PRIMARY KEY (epoch, view, kind))",
    "CREATE TABLE agreement_finals (epoch INTEGER, view INTEGER, digest BLOB NOT NULL,"
    " PRIMARY KEY (epoch, view)) WITHOUT ROWID",
    "CREATE TABLE agreement_evidence (id INTEGER PRIMARY KEY, config BLOB NOT NULL,"
    " first BLOB NOT NULL, second BLOB NOT NULL, UNIQUE (first, second))",
)


_PRUNE = tuple(
    f"DELETE FROM agreement_{table} WHERE view < ?"  # noqa: S608 - our own table names
    for table in ("votes", "proposals", "certificates", "finals")
)


class StoreLog:
    """The log of a real keeper, in its database; every write is one fsynced transaction."""

    def __init__(self, store: Store, history_views: int = HISTORY_VIEWS) -> None:
        self._store, self._history_views = store, history_views
        store.table("agreement", 1, *_SCHEMA)

    def write(self, records: Sequence[Record]) -> None:
        """Append records, all or none."""
        with self._store.durable() as rows:
            for record in records:
                rows.execute(*_insert(record))
                if isinstance(record, Final) and record.view % _PRUNE_EVERY == 0:
                    below = record.view - self._history_views
                    for statement in _PRUNE:
                        rows.execute(statement, (below,))

    def restore(self, epoch: int, config: bytes) -> Restored:
        """Return where an epoch stood."""
        read = self._store.read
        opened = read("SELECT 1 FROM agreement_opened WHERE config = ?", (config,))
        last = read(
            "SELECT view, digest FROM agreement_finals WHERE epoch = ? ORDER BY view DESC LIMIT 1",
            (epoch,),
        )
        final = Final(epoch, _int(last[0][0]), _raw(last[0][1])) if last else None
        after = final.view if final else 0
        body = self.proposal(epoch, final.view, final.digest) if final else None
        return Restored(
            bool(opened),
            tuple(_vote(raw) for raw in self._raws("votes", epoch, after)),
            tuple(_proposal(raw) for raw in self._raws("proposals", epoch, after + 1)),
            tuple(_certificate(raw) for raw in self._raws("certificates", epoch, after)),
            final,
            body.tick if body else 0,
        )

    def _raws(self, table: str, epoch: int, from_view: int) -> list[object]:
        query = f"SELECT raw FROM agreement_{table} WHERE epoch = ? AND view >= ? ORDER BY view"  # noqa: S608 - `table` is one of our own names
        return [row[0] for row in self._store.read(query, (epoch, from_view))]

    def proposal(self, epoch: int, view: int, digest: bytes) -> Proposal | None:
        """Return a block's body."""
        found = self._store.read(
            "SELECT raw FROM agreement_proposals WHERE epoch = ? AND view = ? AND digest = ?",
            (epoch, view, digest),
        )
        return _proposal(found[0][0]) if found else None

    def certificate(self, epoch: int, kind: Kind, view: int) -> Certificate | None:
        """Return the certificate of a kind for a view."""
        found = self._store.read(
            "SELECT raw FROM agreement_certificates WHERE epoch = ? AND view = ? AND kind = ?",
            (epoch, view, int(kind)),
        )
        return _certificate(found[0][0]) if found else None

    def votes(self, epoch: int, view: int) -> tuple[Vote, ...]:
        """Return this keeper's own votes in a view."""
        found = self._store.read(
            "SELECT raw FROM agreement_votes WHERE epoch = ? AND view = ? ORDER BY kind",
            (epoch, view),
        )
        return tuple(_vote(row[0]) for row in found)

    def finals(self, epoch: int, from_view: int, limit: int) -> tuple[Final, ...]:
        """Return final blocks after a view, oldest first."""
        found = self._store.read(
            "SELECT view, digest FROM agreement_finals WHERE epoch = ? AND view > ?"
            " ORDER BY view LIMIT ?",
            (epoch, from_view, limit),
        )
        return tuple(Final(epoch, _int(view), _raw(digest)) for view, digest in found)

    def evidence(self) -> tuple[Evidence, ...]:
        """Return every pair kept, oldest first."""
        found = self._store.read("SELECT config, first, second FROM agreement_evidence ORDER BY id")
        return tuple(Evidence(_raw(c), _vote(a), _vote(b)) for c, a, b in found)


def _insert(record: Record) -> tuple[str, tuple[object, ...]]:
    match record:
        case Opened():
            return ("INSERT OR IGNORE INTO agreement_opened VALUES (?)", (record.config,))
        case Vote():
            return (
                "INSERT OR IGNORE INTO agreement_votes VALUES (?, ?, ?, ?)",
                (record.epoch, record.view, int(record.kind), encode(record)),
            )
        case Proposal():
            return (
                "INSERT OR IGNORE INTO agreement_proposals VALUES (?, ?, ?, ?)",
                (record.epoch, record.view, digest_of(record), encode(record)),
            )
        case Certificate():
            return (
                "INSERT OR IGNORE INTO agreement_certificates VALUES (?, ?, ?, ?)",
                (record.epoch, record.view, int(record.kind), encode(record)),
            )
        case Final():
            return (
                "INSERT OR IGNORE INTO agreement_finals VALUES (?, ?, ?)",
                (record.epoch, record.view, record.digest),
            )
        case Evidence():
            return (
                "INSERT OR IGNORE INTO agreement_evidence (config, first, second) VALUES (?, ?, ?)",
                (record.config, encode(record.first), encode(record.second)),
            )


_T = TypeVar("_T", bound=Message)


def _raw(value: object) -> bytes:
    if type(value) is not bytes:
        raise StoreError("the agreement log holds a value of the wrong type")
    return value


def _int(value: object) -> int:
    if type(value) is not int:
        raise StoreError("the agreement log holds a value of the wrong type")
    return value


def _read(raw: object, kind: type[_T]) -> _T:
    with contextlib.suppress(RemoteFault):
        message = decode(_raw(raw))
        if isinstance(message, kind):
            return message
    raise StoreError(
        f"the agreement log holds no {kind.__name__} where one was written",
        remedy="restore the database from a backup; without the vote log do not sign",
    )


def _vote(raw: object) -> Vote:
    return _read(raw, Vote)


def _proposal(raw: object) -> Proposal:
    return _read(raw, Proposal)


def _certificate(raw: object) -> Certificate:
    return _read(raw, Certificate)
