"""The durable ledger: what this keeper wants done, signed, and saw done. Written before sending.

    planned ──▶ signed ──▶ sent ──▶ mined ──▶ final
       │          │  └──────┼────────▲ │
       │          │         ◀── reorg ─┘
       ▼          ▼         ▼
    dropped     superseded (its nonce went to a cancellation or to a stranger)

A task owns at most one nonce; all transactions signed for it are its lineage (`tx_attempt`), and at
most one of them can be mined. A change that no arrow allows raises, so a bug stops the keeper
before it sends anything twice.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from keeper.chain.port import Receipt
from keeper.errors import LocalError
from keeper.execute.fees import Offer
from keeper.execute.intent import CLOSED, Effect, Intent, Lane, Outcome, State, Status
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei

_VERSION = 1
_TABLES = (
    """CREATE TABLE tx_task (
        key BLOB PRIMARY KEY, digest BLOB NOT NULL, chain INTEGER NOT NULL, lane TEXT NOT NULL,
        recipient BLOB NOT NULL, data BLOB NOT NULL, value TEXT NOT NULL,
        deadline INTEGER NOT NULL, fee_cap TEXT NOT NULL, why TEXT NOT NULL,
        effect_to BLOB, effect_data BLOB, effect_expect BLOB,
        state TEXT NOT NULL, sender BLOB, nonce INTEGER, reason TEXT, detail TEXT,
        transaction_hash BLOB, block INTEGER, block_hash BLOB, success INTEGER, fee TEXT,
        UNIQUE (chain, sender, nonce)) WITHOUT ROWID""",
    """CREATE INDEX tx_open ON tx_task (chain, lane, nonce)
        WHERE state IN ('planned', 'signed', 'sent', 'mined')""",
    """CREATE TABLE tx_attempt (
        hash BLOB PRIMARY KEY, key BLOB NOT NULL REFERENCES tx_task, raw BLOB NOT NULL,
        cancels INTEGER NOT NULL, tip TEXT NOT NULL, max_fee TEXT NOT NULL,
        gas INTEGER NOT NULL, block INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX tx_lineage ON tx_attempt (key)",
    """CREATE TABLE tx_event (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL,
        text TEXT NOT NULL)""",
    "CREATE INDEX tx_story ON tx_event (key)",
)

_ARROWS: dict[State | None, frozenset[State]] = {
    None: frozenset({State.PLANNED}),
    State.PLANNED: frozenset({State.SIGNED, State.DROPPED, State.SUPERSEDED}),
    State.SIGNED: frozenset({State.SIGNED, State.SENT, State.MINED, State.SUPERSEDED}),
    State.SENT: frozenset({State.SENT, State.SIGNED, State.MINED, State.SUPERSEDED}),
    State.MINED: frozenset({State.MINED, State.SENT, State.FINAL, State.SUPERSEDED}),
    State.FINAL: frozenset(),
    State.DROPPED: frozenset(),
    State.SUPERSEDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of a task; `cancels` marks the self-transfer that frees the nonce."""

    hash: bytes
    raw: bytes
    offer: Offer
    gas: int
    block: int
    cancels: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A new task."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction of this task exists; the first one fixes sender and nonce."""

    key: bytes
    sender: bytes
    nonce: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Moved:
    """A task goes to another state."""

    key: bytes
    state: State
    reason: Reason | None = None
    detail: str = ""
    receipt: Receipt | None = None


Change = Planned | Signed | Moved


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the ledger has it; `attempts` in the order they were signed."""

    intent: Intent
    state: State
    sender: bytes | None
    nonce: int | None
    attempts: tuple[Attempt, ...]
    outcome: Outcome

    @property
    def open(self) -> bool:
        """Return whether something can still happen."""
        return self.state not in CLOSED


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a task's story."""

    at: int
    state: str
    text: str


_COLUMNS = (
    "key, chain, lane, recipient, data, value, deadline, fee_cap, why, effect_to, effect_data,"
    " effect_expect, state, sender, nonce, reason, detail, transaction_hash, block, block_hash,"
    " success, fee"
)


class Ledger:
    """The tables of the execution room.

    Invariants: a task's state follows the drawing; (chain, sender, nonce) belongs to one task; a
    transaction's bytes are on disk before anybody can send them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table("execution", _VERSION, *_TABLES)

    def apply(self, changes: Iterable[Change], at: int) -> None:
        """Write changes in order, on disk when this returns.

        Args:
            changes: one durable transaction: all or none.
            at: unix seconds, for the story.

        Raises:
            LocalError: no arrow leads there, or another intent has this key.
        """
        with self._store.durable() as rows:
            for change in changes:
                match change:
                    case Planned(intent):
                        self._plan(rows, intent, at)
                    case Signed():
                        self._sign(rows, change, at)
                    case Moved():
                        self._move(rows, change, at)

    def _plan(self, rows: sqlite3.Connection, intent: Intent, at: int) -> None:
        effect = intent.effect
        probe = (None,) * 3 if effect is None else (effect.to, effect.data, effect.expect)
        added = rows.execute(
            "INSERT INTO tx_task (key, digest, chain, lane, recipient, data, value, deadline,"
            " fee_cap, why, effect_to, effect_data, effect_expect, state)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING",
            (
                *(intent.key, intent.digest, intent.chain, intent.lane.value, intent.to),
                *(intent.data, str(intent.value), intent.deadline, str(intent.fee_cap)),
                *(intent.why, *probe, State.PLANNED.value),
            ),
        )
        if added.rowcount == 1:
            self._tell(rows, intent.key, at, State.PLANNED, intent.why)
            return
        found = rows.execute("SELECT digest FROM tx_task WHERE key = ?", (intent.key,)).fetchone()
        if found[0] != intent.digest:
            raise LocalError(
                "another intent has this key",
                where=intent.key.hex(),
                remedy="a task id names one effect; give the new one its own",
            )

    def _sign(self, rows: sqlite3.Connection, change: Signed, at: int) -> None:
        self._check(rows, change.key, State.SIGNED)
        attempt = change.attempt
        updated = rows.execute(
            "UPDATE tx_task SET state = ?, sender = ?, nonce = ? WHERE key = ?"
            " AND (nonce IS NULL OR (sender = ?2 AND nonce = ?3))",
            (State.SIGNED.value, change.sender, change.nonce, change.key),
        )
        if updated.rowcount != 1:
            raise LocalError("a task keeps its nonce", where=change.key.hex())
        rows.execute(
            "INSERT INTO tx_attempt VALUES (?,?,?,?,?,?,?,?)",
            (
                *(attempt.hash, change.key, attempt.raw, attempt.cancels),
                *(str(attempt.offer.tip), str(attempt.offer.max_fee), attempt.gas, attempt.block),
            ),
        )
        what = "cancellation " if attempt.cancels else ""
        text = (
            f"{what}{attempt.hash.hex()} nonce {change.nonce} tip {attempt.offer.tip}"
            f" max fee {attempt.offer.max_fee} at block {attempt.block}"
        )
        self._tell(rows, change.key, at, State.SIGNED, text)

    def _move(self, rows: sqlite3.Connection, change: Moved, at: int) -> None:
        self._check(rows, change.key, change.state)
        seen = change.receipt
        if change.state in (State.MINED, State.FINAL) or seen is not None:
            assert seen is not None, "mined and final come with their receipt"
            mined: tuple[object, ...] = (
                *(seen.transaction, seen.block.number, seen.block.hash, seen.succeeded),
                str(seen.fee),
            )
        else:
            mined = (None,) * 5
        rows.execute(
            "UPDATE tx_task SET state = ?, reason = ?, detail = ?, transaction_hash = ?, block = ?,"
            " block_hash = ?, success = ?, fee = ? WHERE key = ?",
            (
                *(change.state.value, change.reason and change.reason.value, change.detail),
                *(*mined, change.key),
            ),
        )
        text = change.detail or (change.reason.value if change.reason else "")
        if seen is not None:
            how = "succeeded" if seen.succeeded else "reverted"
            text = f"{seen.transaction.hex()} {how} in {seen.block} fee {seen.fee} {text}".strip()
        self._tell(rows, change.key, at, change.state, text)

    @staticmethod
    def _check(rows: sqlite3.Connection, key: bytes, state: State) -> None:
        found = rows.execute("SELECT state FROM tx_task WHERE key = ?", (key,)).fetchone()
        if found is None or state not in _ARROWS[State(found[0])]:
            raise LocalError(
                f"a task cannot go from {found and found[0]} to {state.value}", where=key.hex()
            )

    @staticmethod
    def _tell(rows: sqlite3.Connection, key: bytes, at: int, state: State, text: str) -> None:
        rows.execute(
            "INSERT INTO tx_event (key, at, state, text) VALUES (?,?,?,?)",
            (key, at, state.value, text),
        )

    # reading ---------------------------------------------------------------------------------

    def task(self, key: bytes) -> Task | None:
        """Return one task."""
        rows = self._store.read(f"SELECT {_COLUMNS} FROM tx_task WHERE key = ?", (key,))  # noqa: S608 constant columns
        return self._task(rows[0]) if rows else None

    def open_tasks(self, chain: ChainId, lane: Lane) -> list[Task]:
        """Return what is not closed, by nonce, unsigned last in the order of arrival."""
        rows = self._store.read(
            f"SELECT {_COLUMNS} FROM tx_task WHERE chain = ? AND lane = ?"  # noqa: S608 constant columns
            " AND state IN ('planned', 'signed', 'sent', 'mined') ORDER BY nonce IS NULL, nonce,"
            " (SELECT MIN(id) FROM tx_event WHERE tx_event.key = tx_task.key)",
            (chain, lane.value),
        )
        return [self._task(row) for row in rows]

    def recent(self, limit: int = 50, state: State | None = None) -> list[Task]:
        """Return the newest tasks, of one state if asked."""
        where, arguments = ("WHERE state = ?", (state.value,)) if state else ("", ())
        rows = self._store.read(
            f"SELECT {_COLUMNS} FROM tx_task {where} ORDER BY"  # noqa: S608 constant text
            " (SELECT MIN(id) FROM tx_event WHERE tx_event.key = tx_task.key) DESC LIMIT ?",
            (*arguments, limit),
        )
        return [self._task(row) for row in rows]

    def find(self, prefix: str) -> list[bytes]:
        """Return keys that start with a hex prefix, or have a transaction that does."""
        like = prefix.removeprefix("0x").upper() + "%"
        rows = self._store.read(
            "SELECT key FROM tx_task WHERE hex(key) LIKE ?"
            " UNION SELECT key FROM tx_attempt WHERE hex(hash) LIKE ? ORDER BY 1 LIMIT 20",
            (like, like),
        )
        return [bytes(row[0]) for row in rows]

    def next_nonce(self, chain: ChainId, sender: bytes) -> int:
        """Return one more than the highest nonce ever given out for an account."""
        rows = self._store.read(
            "SELECT COALESCE(MAX(nonce), -1) + 1 FROM tx_task WHERE chain = ? AND sender = ?",
            (chain, sender),
        )
        return int(rows[0][0])

    def story(self, key: bytes) -> list[Event]:
        """Return what happened to a task, oldest first."""
        rows = self._store.read(
            "SELECT at, state, text FROM tx_event WHERE key = ? ORDER BY id", (key,)
        )
        return [Event(*row) for row in rows]

    def _attempts(self, key: bytes) -> tuple[Attempt, ...]:
        rows = self._store.read(
            "SELECT hash, raw, tip, max_fee, gas, block, cancels FROM tx_attempt WHERE key = ?"
            " ORDER BY cancels, CAST(length(max_fee) AS INTEGER), max_fee",
            (key,),
        )
        return tuple(
            [
                Attempt(h, raw, Offer(Wei(int(tip)), Wei(int(fee))), gas, block, bool(cancels))
                for h, raw, tip, fee, gas, block, cancels in rows
            ]
        )

    def _task(self, row: tuple[object, ...]) -> Task:
        values: list[object] = list(row)
        key, chain, lane, to, data, value, deadline, cap, why = values[:9]
        probe, state = values[9:12], State(str(values[12]))
        sender, nonce, reason, detail, transaction, block, block_hash, success, fee = values[13:]
        intent = Intent(
            key,  # type: ignore[arg-type]  # columns have these types, here and below
            ChainId(chain),  # type: ignore[arg-type]
            Lane(str(lane)),
            to,  # type: ignore[arg-type]
            data,  # type: ignore[arg-type]
            BlockNumber(deadline),  # type: ignore[arg-type]
            Wei(int(str(cap))),
            int(str(value)),
            str(why),
            None if probe[0] is None else Effect(*probe),  # type: ignore[arg-type]
        )
        outcome = Outcome(
            intent.key,
            _status(state, success),
            None if reason is None else Reason(str(reason)),
            transaction or b"",  # type: ignore[arg-type]
            block or 0,  # type: ignore[arg-type]
            block_hash or b"",  # type: ignore[arg-type]
            int(str(fee or 0)),
            str(detail or ""),
        )
        return Task(intent, state, sender, nonce, self._attempts(intent.key), outcome)  # type: ignore[arg-type]


def _status(state: State, success: object) -> Status:
    """Return what a submitter is told: only a receipt that says so is a success."""
    match state:
        case State.MINED | State.FINAL:
            return Status.SUCCEEDED if success == 1 else Status.REVERTED
        case State.SUPERSEDED:
            return Status.SUPERSEDED
        case State.DROPPED:
            return Status.DROPPED
        case State.PLANNED | State.SIGNED | State.SENT:
            return Status.RECORDED
