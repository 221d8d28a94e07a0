"""The bytes of a flight record: entries with checksums, and the plain form of what is in them.

    file    = entry …            entry = length (4) ‖ crc32 (4) ‖ msgpack
    header  ["flowkeeper-record", 1, committee, me, timing, begins]
    input   ["in", now, name, arguments…]
    answer  ["ans", question, value]       the application, the log and the signer, in order
    output  ["out", keccak of the effects]

A torn tail, as a crash leaves, is cut off; a wrong checksum inside is an error. A file is not
believed: what does not have this form is a `StoreError`.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

import msgpack
from eth_abi.exceptions import EncodingError

from keeper.errors import RemoteFault, StoreError
from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.agreement.application import NotYet, Valid, Verdict, Wrong
from p2p.agreement.chain import Start
from p2p.agreement.effects import Effect, Timing
from p2p.agreement.inputs import (
    Close,
    Input,
    Jump,
    Observed,
    Received,
    Retry,
    Shown,
    Started,
    Ticked,
)
from p2p.agreement.log import Final, Log, Record, Restored
from p2p.types import (
    Certificate,
    Committee,
    History,
    Kind,
    Member,
    Message,
    Proposal,
    SignedObservation,
    Vote,
)
from p2p.wire import MAX_FRAME, decode, encode

_MAGIC, _VERSION = "flowkeeper-record", 1
_Said = TypeVar("_Said", bound=Message)
_MAX_ENTRY = 64 * MAX_FRAME
"""Bytes of an entry: the largest is what the log restored at start."""


def effects_digest(effects: Sequence[Effect]) -> bytes:
    """Return a digest of effects: equal only if they are equal, in order."""
    return keccak(repr(tuple(effects)).encode())


# entries


def pack_entry(*entry: Any) -> bytes:
    """Return the bytes of one entry."""
    raw = bytes(msgpack.packb(list(entry)))
    return len(raw).to_bytes(4, "big") + zlib.crc32(raw).to_bytes(4, "big") + raw


def entries(file: BinaryIO, where: str = "record") -> Iterator[list[Any]]:
    """Yield the entries of a record.

    Raises:
        StoreError: an entry inside the file is damaged.
    """
    while len(head := file.read(8)) == 8:
        length, crc = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if length > _MAX_ENTRY:
            raise StoreError("the record is damaged: impossible length", where=where)
        raw = file.read(length)
        if len(raw) < length:
            return
        if zlib.crc32(raw) != crc:
            raise StoreError("the record is damaged: wrong checksum", where=where)
        yield _entry(raw, where)


def _entry(raw: bytes, where: str) -> list[Any]:
    try:
        value = msgpack.unpackb(raw, raw=False, use_list=True)
    except Exception as error:  # msgpack raises half a dozen kinds on junk
        raise StoreError("the record is damaged: no msgpack", where=where) from error
    if not isinstance(value, list) or not value:
        raise StoreError("the record is damaged: an entry is no list", where=where)
    return value


# the header


def pack_header(committee: Committee, me: int, timing: Timing, begins: Start) -> bytes:
    """Return the first entry."""
    members = [[member.address, member.peer_id] for member in committee.members]
    named = [committee.network, committee.epoch, members, committee.parameters_digest]
    durations = pack_timing(timing)
    start = [begins.view, begins.tick]
    return pack_entry(_MAGIC, _VERSION, named, me, durations, start)


def pack_timing(timing: Timing) -> list[float]:
    """Return the durations of a timing in the order of its fields."""
    return [
        timing.genesis, timing.tick_s, timing.bound_s, timing.grace_s, timing.skip_s,
        timing.heartbeat_s,
    ]  # fmt: skip


def read_header(entry: list[Any]) -> tuple[Committee, int, Timing, Start]:
    """Return committee, member, timing and start of the epoch of a record.

    Raises:
        StoreError: this is no record, or not of this version.
    """
    match entry:
        case [magic, version, *_] if (magic, version) != (_MAGIC, _VERSION):
            pass
        case [
            _,
            _,
            [network, epoch, list() as rows, parameters],
            int() as me,
            list() as durations,
            [int() as view, int() as tick],
        ]:
            try:
                members = tuple(Member(address, peer) for address, peer in rows)
                committee = Committee(network, epoch, members, parameters)
                timing = Timing(*map(float, durations))
            except (TypeError, ValueError, EncodingError) as error:
                raise StoreError("the record's header cannot be read") from error
            finite = all(map(math.isfinite, pack_timing(timing)))
            if 0 <= me < committee.size and finite and timing.tick_s > 0:
                return committee, me, timing, Start(view, tick)
        case _:
            pass
    raise StoreError("not a record of this version")


# inputs


def pack_input(happened: Input) -> tuple[Any, ...]:
    """Return the plain form of an input."""
    match happened:
        case Received(member, message):
            return ("received", member, encode(message))
        case Observed(observation):
            return ("observed", encode(observation))
        case Jump(history):
            return ("jump", encode(history))
        case Close(view):
            return ("close", view)
        case Shown(heads):
            return ("shown", [list(head) for head in heads])
        case Started() | Ticked() | Retry():
            return (type(happened).__name__.lower(),)


def read_input(value: list[Any], committee: Committee) -> Input:
    """Return an input.

    Raises:
        StoreError: it is none.
    """
    match value:
        case ["received", int() as member, raw] if 0 <= member < committee.size:
            return Received(member, _decoded(raw))
        case ["observed", raw]:
            return Observed(_message(raw, SignedObservation))
        case ["jump", raw]:
            return Jump(_message(raw, History))
        case ["close", int() as view]:
            return Close(view)
        case ["shown", list() as heads]:
            return Shown(tuple(_head(head) for head in heads))
        case ["started"]:
            return Started()
        case ["ticked"]:
            return Ticked()
        case ["retry"]:
            return Retry()
        case _:
            raise StoreError(f"the record holds an unknown input {value[:1]}")


def _head(value: Any) -> tuple[int, int]:
    match value:
        case [int() as chain, int() as height]:
            return chain, height
        case _:
            raise StoreError("the record holds a head that is none")


def pack_verdict(verdict: Verdict) -> list[Any]:
    """Return the plain form of what an application says of a block."""
    match verdict:
        case Valid(root):
            return ["valid", root]
        case Wrong(reason, detail):
            return ["wrong", reason.value, detail]
        case NotYet(missing):
            return ["not yet", missing]


def read_verdict(value: Any) -> Verdict:
    """Return a verdict.

    Raises:
        StoreError: it is none.
    """
    match value:
        case ["valid", bytes() as root]:
            return Valid(root)
        case ["wrong", str() as reason, str() as detail] if reason in set(Reason):
            return Wrong(Reason(reason), detail)
        case ["not yet", str() as missing]:
            return NotYet(missing)
        case _:
            raise StoreError("the record holds an unknown verdict")


# what the log answers


class LogAnswers:
    """A log whose answers go through `_told`: recorded, or played back."""

    def _told(self, question: str, ask: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def _inner(self) -> Log:
        raise NotImplementedError

    def write(self, records: Sequence[Record]) -> None:
        """Pass on; there is no answer."""
        self._inner().write(records)

    def restore(self, epoch: int, config: bytes) -> Restored:
        """Return where an epoch stood."""
        return _restored(
            self._told("restore", lambda: _pack_restored(self._inner().restore(epoch, config)))
        )

    def proposal(self, epoch: int, view: int, digest: bytes) -> Proposal | None:
        """Return a block's body."""
        found = self._told(
            "proposal", lambda: _pack_all([self._inner().proposal(epoch, view, digest)])
        )
        return next(iter(_messages(found, Proposal)), None)

    def certificate(self, epoch: int, kind: Kind, view: int) -> Certificate | None:
        """Return the certificate of a kind for a view."""
        found = self._told(
            "certificate", lambda: _pack_all([self._inner().certificate(epoch, kind, view)])
        )
        return next(iter(_messages(found, Certificate)), None)

    def votes(self, epoch: int, view: int) -> tuple[Vote, ...]:
        """Return this keeper's own votes in a view."""
        found = self._told("votes", lambda: _pack_all(self._inner().votes(epoch, view)))
        return _messages(found, Vote)

    def finals(self, epoch: int, from_view: int, limit: int) -> tuple[Final, ...]:
        """Return final blocks after a view, oldest first."""
        found = self._told(
            "finals",
            lambda: [[f.view, f.digest] for f in self._inner().finals(epoch, from_view, limit)],
        )
        if not isinstance(found, list):
            raise StoreError("the record holds no list of final blocks where one was written")
        return tuple(_final([epoch, *v] if isinstance(v, list) else v) for v in found)

    def evidence(self) -> tuple[Any, ...]:
        """Return what the inner log kept; the core never asks."""
        return self._inner().evidence()


def _decoded(raw: Any) -> Message:
    try:
        return decode(raw)
    except (RemoteFault, TypeError) as error:
        raise StoreError("the record holds a message that does not decode") from error


def _message(raw: Any, kind: type[_Said]) -> _Said:
    message = _decoded(raw)
    if not isinstance(message, kind):
        raise StoreError(f"the record holds no {kind.__name__} where one was written")
    return message


def _pack_all(found: Sequence[Message | None]) -> list[bytes]:
    return [encode(message) for message in found if message is not None]


def _messages(found: Any, kind: type[_Said]) -> tuple[_Said, ...]:
    if not isinstance(found, list):
        raise StoreError(f"the record holds no list of {kind.__name__} where one was written")
    return tuple(_message(raw, kind) for raw in found)


def _final(value: Any) -> Final:
    match value:
        case [int() as epoch, int() as view, bytes() as digest]:
            return Final(epoch, view, digest)
        case _:
            raise StoreError("the record holds no final block where one was written")


def _pack_restored(r: Restored) -> list[Any]:
    final = [r.final.epoch, r.final.view, r.final.digest] if r.final else None
    held = [_pack_all(r.votes), _pack_all(r.proposals), _pack_all(r.certificates)]
    return [r.opened, *held, final, r.final_tick]


def _restored(value: Any) -> Restored:
    match value:
        case [bool() as opened, votes, proposals, certificates, final, int() as tick]:
            return Restored(
                opened,
                _messages(votes, Vote),
                _messages(proposals, Proposal),
                _messages(certificates, Certificate),
                None if final is None else _final(final),
                tick,
            )
        case _:
            raise StoreError("the record does not hold what the log restored")
