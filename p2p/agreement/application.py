"""What the agreement asks of whoever gives its blocks a meaning.

    leader     propose(parent, …) ──▶ payload      root(payload) ──▶ what the block commits to
    validator  validate(parent, …) ──▶ Valid(root) │ Wrong(reason) │ NotYet(missing)
    both       adopt(digest, …): the block is a possible parent from now on

Everything is a pure function of the parent's state and the attached signed observations; a
validator recomputes and compares bytes. The parent of the first block is the committee's `config`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from keeper.reasons import Reason
from p2p.types import SignedObservation


@dataclass(frozen=True, slots=True)
class Valid:
    """The payload follows from the parent and the observations, and commits to `root`."""

    root: bytes


@dataclass(frozen=True, slots=True)
class Wrong:
    """The payload provably does not follow; `detail` names the field."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NotYet:
    """This keeper cannot tell yet; `missing` says what it waits for."""

    missing: str


Verdict = Valid | Wrong | NotYet


class Application(Protocol):
    """Gives blocks their meaning; deterministic, and without side effects but `adopt`."""

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        """Return the payload that follows `parent`, or None if its state is not known here."""
        ...

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        """Judge another keeper's payload."""
        ...

    def root(self, payload: bytes) -> bytes:
        """Return the 32-byte root that a payload made by `propose` commits to."""
        ...

    def adopt(
        self,
        digest: bytes,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> None:
        """Remember the state after this block under `digest`, for children to build on.

        Called for each block that was validated here or that a quorum certified, parents first,
        and again at each retry until it is final: an application that could not derive the state
        then may be able to now. A block may be adopted that never becomes final.
        """
        ...


def judge(
    application: Application,
    parent: bytes,
    view: int,
    tick: int,
    observations: Sequence[SignedObservation],
    payload: bytes,
) -> Verdict:
    """Return the application's verdict; one that fails over a peer's payload calls it wrong."""
    try:
        return application.validate(parent, view, tick, observations, payload)
    except Exception as error:  # noqa: BLE001 - around one peer's message: it must cost one view only
        return Wrong(Reason.MALFORMED, f"validate raised {type(error).__name__}: {error}")
