"""Replay: the inputs and answers of a record to the same core, compared bit by bit.

record ─► inputs ─► core ─► effects ═?═ what was recorded
             answers ─┘ in recorded order, or `Mismatch`
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from keeper.errors import StoreError
from p2p.agreement.application import Verdict
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect
from p2p.agreement.inputs import Input, apply
from p2p.agreement.log import Record
from p2p.agreement.signing import Ecdsa, Scheme
from p2p.agreement.tape import (
    LogAnswers,
    effects_digest,
    entries,
    read_header,
    read_input,
    read_verdict,
)
from p2p.types import SignedObservation


class Mismatch(Exception):
    """The replay differs from the record: another program, or a core that is not deterministic."""


class _Playback(LogAnswers):
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
        signature = _bytes(self._told("sign"))
        if not self._scheme.verify(digest, signature, self.address):
            raise Mismatch("the core signs another message than the record's")
        return signature

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        return self._scheme.verify(digest, signature, address)

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        payload = self._told("propose")
        return None if payload is None else _bytes(payload)

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        return read_verdict(self._told("validate"))

    def root(self, payload: bytes) -> bytes:
        return _bytes(self._told("root"))

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


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise StoreError("the record holds no bytes where some were written")
    return value


def replay(
    file: BinaryIO, where: str = "record", scheme: Scheme | None = None
) -> Iterator[tuple[float, Input, tuple[Effect, ...]]]:
    """Yield (now, input, effects) of a record, each compared with what was recorded.

    Raises:
        Mismatch: the core does something else than it did.
        StoreError: the file is damaged or no record.
    """
    read = entries(file, where)
    committee, me, timing, begins = read_header(next(read, []))
    play = _Playback(committee.members[me].address, scheme or Ecdsa())
    core = Agreement(committee, me, play, play, play, timing, begins)
    pending: tuple[float, Input] | None = None
    for entry in read:
        match entry:
            case ["in", int() | float() as now, *rest] if math.isfinite(now):
                pending, play.answers = (now, read_input(rest, committee)), []
            case ["ans", str() as question, value]:
                play.answers.append((question, value))
            case ["out", bytes() as digest] if pending is not None:
                now, happened = pending
                effects = apply(core, happened, now)
                if play.answers or effects_digest(effects) != digest:
                    raise Mismatch(f"at {now:.6f}: {type(happened).__name__} has other effects")
                pending = None
                yield now, happened, effects
            case _:
                raise StoreError(f"the record holds an unknown entry {entry[:1]}", where=where)
