"""A flight recorder: every input of the core with everything the core asked, append-only.

    file    = entry …            entry = length (4) ‖ crc32 (4) ‖ msgpack
    header  ["flowkeeper-record", 1, committee, me, timing, begins]
    input   ["in", now, name, arguments…]
    answer  ["ans", question, value]       the application, the log and the signer, in order
    output  ["out", keccak of the effects]

Replay feeds the same inputs and answers to the same core and compares the outputs bit by bit. A
torn tail, as a crash leaves, is cut off; a wrong checksum inside is an error. No secret is in the
file: of the signer only its signatures.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import msgpack

from keeper.errors import StoreError
from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.agreement.application import Application, NotYet, Valid, Verdict, Wrong, judge
from p2p.agreement.chain import Start
from p2p.agreement.core import Agreement
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
    apply,
)
from p2p.agreement.log import Final, Log, Record, Restored
from p2p.agreement.signing import Ecdsa, Scheme, Signer
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
_MAX_ENTRY = 64 * MAX_FRAME
"""Bytes of an entry: the largest is what the log restored at start."""


def effects_digest(effects: Sequence[Effect]) -> bytes:
    """Return a digest of effects: equal only if they are equal, in order."""
    return keccak(repr(tuple(effects)).encode())


class Recorder:
    """Writes one record; every entry is flushed to the operating system."""

    def __init__(
        self,
        file: BinaryIO,
        committee: Committee,
        me: int,
        timing: Timing,
        begins: Start = Start(),  # noqa: B008 - frozen
    ) -> None:
        self._file = file
        start = [begins.view, begins.tick]
        self._put(_MAGIC, _VERSION, _pack_committee(committee), me, _pack_timing(timing), start)

    def _put(self, *entry: Any) -> None:
        raw = msgpack.packb(list(entry))
        crc = zlib.crc32(raw)
        self._file.write(len(raw).to_bytes(4, "big") + crc.to_bytes(4, "big") + raw)
        self._file.flush()

    def input(self, happened: Input, now: float) -> None:
        """Note an input before the core gets it."""
        self._put("in", now, *_pack_input(happened))

    def answer(self, question: str, value: Any) -> None:
        """Note what the core was told while it handled the input."""
        self._put("ans", question, value)

    def output(self, effects: Sequence[Effect]) -> None:
        """Note what came out."""
        self._put("out", effects_digest(effects))


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
        value = msgpack.unpackb(raw, raw=False, use_list=True)
        assert isinstance(value, list)
        yield value


class Mismatch(Exception):
    """The replay differs from the record: another program, or a core that is not deterministic."""


class RecordingApplication:
    """An application whose answers are recorded."""

    def __init__(self, inner: Application, recorder: Recorder) -> None:
        self._inner, self._recorder = inner, recorder

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        """Return the inner answer."""
        payload = self._inner.propose(parent, view, tick, observations)
        self._recorder.answer("propose", payload)
        return payload

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        """Return the inner answer."""
        verdict = judge(self._inner, parent, view, tick, observations, payload)
        self._recorder.answer("validate", _pack_verdict(verdict))
        return verdict

    def root(self, payload: bytes) -> bytes:
        """Return the inner answer."""
        root = self._inner.root(payload)
        self._recorder.answer("root", root)
        return root

    def adopt(
        self,
        digest: bytes,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> None:
        """Pass on; there is no answer."""
        self._inner.adopt(digest, parent, view, tick, observations, payload)


class RecordingSigner:
    """A signer whose signatures are recorded; checking is recomputed at replay."""

    def __init__(self, inner: Signer, recorder: Recorder) -> None:
        self._inner, self._recorder = inner, recorder

    @property
    def address(self) -> bytes:
        """Return the inner address."""
        return self._inner.address

    def sign(self, digest: bytes) -> bytes:
        """Return the inner signature."""
        signature = self._inner.sign(digest)
        self._recorder.answer("sign", signature)
        return signature

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        """Return the inner verdict."""
        return self._inner.verify(digest, signature, address)


class _LogAnswers:
    """A log whose answers go through `_told`: recorded, or played back."""

    def _told(self, question: str, ask: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def _inner(self) -> Log:
        raise NotImplementedError

    def write(self, records: Sequence[Record]) -> None:
        self._inner().write(records)

    def restore(self, epoch: int, config: bytes) -> Restored:
        return _restored(
            self._told("restore", lambda: _pack_restored(self._inner().restore(epoch, config)))
        )

    def proposal(self, epoch: int, view: int, digest: bytes) -> Proposal | None:
        found = self._told(
            "proposal", lambda: _pack_all([self._inner().proposal(epoch, view, digest)])
        )
        body: Proposal | None = _one(found, Proposal)
        return body

    def certificate(self, epoch: int, kind: Kind, view: int) -> Certificate | None:
        found = self._told(
            "certificate", lambda: _pack_all([self._inner().certificate(epoch, kind, view)])
        )
        held: Certificate | None = _one(found, Certificate)
        return held

    def votes(self, epoch: int, view: int) -> tuple[Vote, ...]:
        found = self._told("votes", lambda: _pack_all(self._inner().votes(epoch, view)))
        return tuple(_message(raw, Vote) for raw in found)

    def finals(self, epoch: int, from_view: int, limit: int) -> tuple[Final, ...]:
        found = self._told(
            "finals",
            lambda: [[f.view, f.digest] for f in self._inner().finals(epoch, from_view, limit)],
        )
        return tuple(Final(epoch, view, digest) for view, digest in found)

    def evidence(self) -> tuple[Any, ...]:
        return self._inner().evidence()


class RecordingLog(_LogAnswers):
    """A log whose answers are recorded."""

    def __init__(self, inner: Log, recorder: Recorder) -> None:
        self._log, self._recorder = inner, recorder

    def _inner(self) -> Log:
        return self._log

    def _told(self, question: str, ask: Callable[[], Any]) -> Any:
        value = ask()
        self._recorder.answer(question, value)
        return value


class RecordedAgreement(Agreement):
    """The core with a recorder around it; any driver of the core drives it."""

    def __init__(
        self,
        committee: Committee,
        me: int,
        signer: Signer,
        application: Application,
        log: Log,
        timing: Timing,
        begins: Start,
        recorder: Recorder,
    ) -> None:
        self._recorder = recorder
        super().__init__(
            committee,
            me,
            RecordingSigner(signer, recorder),
            RecordingApplication(application, recorder),
            RecordingLog(log, recorder),
            timing,
            begins,
        )

    def _kept(self, effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
        self._recorder.output(effects)
        return effects

    def start(self, now: float) -> tuple[Effect, ...]:
        """Record and start."""
        self._recorder.input(Started(), now)
        return self._kept(super().start(now))

    def receive(self, sender: int, message: Message, now: float) -> tuple[Effect, ...]:
        """Record and take a message."""
        self._recorder.input(Received(sender, message), now)
        return self._kept(super().receive(sender, message, now))

    def observe(self, observation: SignedObservation, now: float) -> tuple[Effect, ...]:
        """Record and take an observation."""
        self._recorder.input(Observed(observation), now)
        return self._kept(super().observe(observation, now))

    def tick(self, now: float) -> tuple[Effect, ...]:
        """Record and do what is due."""
        self._recorder.input(Ticked(), now)
        return self._kept(super().tick(now))

    def retry(self, now: float) -> tuple[Effect, ...]:
        """Record and ask the application again."""
        self._recorder.input(Retry(), now)
        return self._kept(super().retry(now))

    def close(self, view: int, now: float) -> tuple[Effect, ...]:
        """Record and end the epoch."""
        self._recorder.input(Close(view), now)
        return self._kept(super().close(view, now))

    def jump(self, history: History, now: float) -> tuple[Effect, ...]:
        """Record and jump."""
        self._recorder.input(Jump(history), now)
        return self._kept(super().jump(history, now))

    def show(self, heads: tuple[tuple[int, int], ...], now: float) -> None:
        """Record and set what heartbeats carry."""
        self._recorder.input(Shown(heads), now)
        super().show(heads, now)
        self._kept(())


class _Playback(_LogAnswers):
    """The application, the log and the signer of a replay: answers in recorded order."""

    def __init__(self, address: bytes, scheme: Scheme) -> None:
        self.address, self._scheme = address, scheme
        self.answers: list[tuple[str, Any]] = []

    def _told(self, question: str, ask: Callable[[], Any] | None = None) -> Any:
        if not self.answers or self.answers[0][0] != question:
            told = self.answers[0][0] if self.answers else "nothing"
            raise Mismatch(f"the core asks for {question}, the record holds {told}")
        return self.answers.pop(0)[1]

    def write(self, records: Sequence[Record]) -> None:
        pass  # a replay changes nothing on disk

    def sign(self, digest: bytes) -> bytes:
        signature = self._told("sign")
        if not self._scheme.verify(digest, signature, self.address):
            raise Mismatch("the core signs another message than the record's")
        return bytes(signature)

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        return self._scheme.verify(digest, signature, address)

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        payload: bytes | None = self._told("propose")
        return payload

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        return _verdict(self._told("validate"))

    def root(self, payload: bytes) -> bytes:
        return bytes(self._told("root"))

    def adopt(
        self,
        digest: bytes,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> None:
        pass


def replay(
    file: BinaryIO, where: str = "record", scheme: Scheme | None = None
) -> Iterator[tuple[float, Input, tuple[Effect, ...]]]:
    """Yield (now, input, effects) of a record, each compared with what was recorded.

    Raises:
        Mismatch: the core does something else than it did.
        StoreError: the file is damaged or no record.
    """
    read = entries(file, where)
    header = next(read, [])
    if header[:2] != [_MAGIC, _VERSION] or len(header) != 6:
        raise StoreError("not a record of this version", where=where)
    committee, me, timing = _committee(header[2]), header[3], Timing(*header[4])
    play = _Playback(committee.members[me].address, scheme or Ecdsa())
    core = Agreement(committee, me, play, play, play, timing, Start(*header[5]))
    pending: tuple[float, Input] | None = None
    for entry in read:
        if entry[0] == "in":
            pending, play.answers = (entry[1], _input(entry[2:])), []
        elif entry[0] == "ans":
            play.answers.append((entry[1], entry[2]))
        elif pending is not None:
            now, happened = pending
            effects = apply(core, happened, now)
            if play.answers or effects_digest(effects) != entry[1]:
                raise Mismatch(f"at {now:.6f}: {type(happened).__name__} has other effects")
            yield now, happened, effects


def _pack_committee(committee: Committee) -> list[Any]:
    members = [[member.address, member.peer_id] for member in committee.members]
    return [committee.network, committee.epoch, members, committee.parameters_digest]


def _committee(value: list[Any]) -> Committee:
    network, epoch, members, parameters = value
    return Committee(network, epoch, tuple(Member(*member) for member in members), parameters)


def _pack_timing(timing: Timing) -> list[float]:
    return [
        timing.genesis, timing.tick_s, timing.bound_s, timing.grace_s, timing.skip_s,
        timing.heartbeat_s,
    ]  # fmt: skip


def _pack_input(happened: Input) -> tuple[Any, ...]:
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


def _input(value: list[Any]) -> Input:
    match value:
        case ["received", member, raw]:
            return Received(member, decode(raw))
        case ["observed", raw]:
            return Observed(_message(raw, SignedObservation))
        case ["jump", raw]:
            return Jump(_message(raw, History))
        case ["close", view]:
            return Close(view)
        case ["shown", heads]:
            return Shown(tuple((chain, height) for chain, height in heads))
        case ["started"]:
            return Started()
        case ["ticked"]:
            return Ticked()
        case ["retry"]:
            return Retry()
        case _:
            raise StoreError(f"the record holds an unknown input {value[:1]}")


def _pack_verdict(verdict: Verdict) -> list[Any]:
    match verdict:
        case Valid(root):
            return ["valid", root]
        case Wrong(reason, detail):
            return ["wrong", reason.value, detail]
        case NotYet(missing):
            return ["not yet", missing]


def _verdict(value: list[Any]) -> Verdict:
    match value:
        case ["valid", root]:
            return Valid(root)
        case ["wrong", reason, detail]:
            return Wrong(Reason(reason), detail)
        case ["not yet", missing]:
            return NotYet(missing)
        case _:
            raise StoreError("the record holds an unknown verdict")


def _pack_all(found: Sequence[Message | None]) -> list[bytes]:
    return [encode(message) for message in found if message is not None]


def _message(raw: bytes, kind: type[Any]) -> Any:
    message = decode(raw)
    if not isinstance(message, kind):
        raise StoreError(f"the record holds no {kind.__name__} where one was written")
    return message


def _one(found: list[bytes], kind: type[Any]) -> Any:
    return _message(found[0], kind) if found else None


def _pack_restored(r: Restored) -> list[Any]:
    final = [r.final.epoch, r.final.view, r.final.digest] if r.final else None
    held = [_pack_all(r.votes), _pack_all(r.proposals), _pack_all(r.certificates)]
    return [r.opened, *held, final, r.final_tick]


def _restored(value: list[Any]) -> Restored:
    opened, votes, proposals, certificates, final, tick = value
    return Restored(
        opened,
        tuple(_message(raw, Vote) for raw in votes),
        tuple(_message(raw, Proposal) for raw in proposals),
        tuple(_message(raw, Certificate) for raw in certificates),
        Final(*final) if final else None,
        tick,
    )
