"""A flight recorder: every input of the core with everything the core asked, append-only.

    driver ─► RecordedAgreement ─► core ─► Recording{Application, Log, Signer} ─► the real ones
                    └─ inputs, effects ──► Recorder ◄── answers ──┘

The same calls as the core has, so any driver of the core drives it. No secret is in the file: of
the signer only its signatures. The form of the file is in `p2p.agreement.tape`.
"""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from p2p.agreement.application import Application, Verdict, judge
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
)
from p2p.agreement.log import Log
from p2p.agreement.signing import Signer
from p2p.agreement.tape import (
    LogAnswers,
    effects_digest,
    pack_entry,
    pack_header,
    pack_input,
    pack_verdict,
)
from p2p.types import Committee, History, Message, SignedObservation


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
        self._write(pack_header(committee, me, timing, begins))

    def _write(self, raw: bytes) -> None:
        self._file.write(raw)
        self._file.flush()

    def input(self, happened: Input, now: float) -> None:
        """Note an input before the core gets it."""
        self._write(pack_entry("in", now, *pack_input(happened)))

    def answer(self, question: str, value: Any) -> None:
        """Note what the core was told while it handled the input."""
        self._write(pack_entry("ans", question, value))

    def output(self, effects: Sequence[Effect]) -> None:
        """Note what came out."""
        self._write(pack_entry("out", effects_digest(effects)))


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
        self._recorder.answer("validate", pack_verdict(verdict))
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


class RecordingLog(LogAnswers):
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
