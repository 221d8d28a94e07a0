"""The margin snapshot as the application of the agreement: propose, validate, adopt.

    adopt(digest) ──▶ states[digest] ──▶ derive(parent, observations) ──▶ payload, root
                                              ▲
                 the node's own tables ───────┘   a validator recomputes and compares bytes

Knows nothing of votes, peers or clocks. States of blocks that can no longer be parents are
forgotten when a view becomes final.
"""

from collections.abc import Sequence

import msgpack

from keeper.hashing import keccak
from keeper.merkle import merkle_root
from keeper.observe import observation
from keeper.reasons import Reason
from keeper.snapshot.book import decision_from_row
from keeper.snapshot.decisions import Decision, Observed
from keeper.snapshot.derive import (
    Lacking,
    Setting,
    Snapshot,
    Tables,
    decision_leaves,
    derive,
    genesis,
    payload_bytes,
)
from keeper.snapshot.header import Header, header_from_row
from keeper.venue.committee import FIRST_EPOCH
from p2p.agreement.application import NotYet, Valid, Verdict, Wrong
from p2p.types import SignedObservation

STATES_KEPT = 64
"""Adopted states kept at once: the 16 views the agreement keeps, their rivals, and a margin."""
BODIES_KEPT = 1024
"""Bid reveals kept for attachment: 31 bidders over the rounds of half a minute."""


class SnapshotApplication:
    """One epoch's snapshots, as seen by one keeper.

    Invariants: `states` holds only snapshots that were derived here; a payload is `Valid` only if
    deriving it gives the very same bytes.
    """

    def __init__(self, setting: Setting, tables: Tables) -> None:
        """Begin an epoch: the first one at genesis, a later one where `restore` says."""
        self.setting, self.tables = setting, tables
        self.bodies: dict[bytes, bytes] = {}
        self.states: dict[bytes, Snapshot] = {}
        if setting.epoch == FIRST_EPOCH:
            self.states[setting.config] = genesis(setting)
        self._derived: dict[bytes, Snapshot] = {}

    def offer(self, body: bytes) -> bytes:
        """Keep a body (a bid reveal) that a proposal may have to attach; return its hash."""
        digest = keccak(body)
        self.bodies[digest] = body
        while len(self.bodies) > BODIES_KEPT:
            self.bodies.pop(next(iter(self.bodies)))
        return digest

    def check_observation(self, signed: SignedObservation) -> Reason | None:
        """Return why an observation's body is not what its signature covers, or None."""
        body = observation.decode(signed.body)
        if body is None or body.tick != signed.tick:
            return Reason.MALFORMED
        if body.roots() != (signed.heads_root, signed.prices_root, signed.rest_root):
            return Reason.WRONG_OBSERVATIONS
        return None

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        """Return the payload that follows, or None when something for it is not held here."""
        before = self.states.get(parent)
        observed = self._observed(observations)
        if before is None or observed is None:
            return None
        result = derive(self.setting, self.tables, before, view, tick, observed, self.bodies)
        if isinstance(result, Lacking):
            return None
        snapshot, attachments = result
        payload = payload_bytes(snapshot, attachments)
        self._keep(parent, payload, snapshot)
        return payload

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        """Derive the payload again and compare; a difference names the field that is wrong."""
        before = self.states.get(parent)
        if before is None:
            return NotYet(Reason.MISSING_PARENT.value)
        observed = self._observed(observations)
        if observed is None:
            return Wrong(Reason.WRONG_OBSERVATIONS, "a body does not match its signed roots")
        parts = open_payload(payload)
        if parts is None:
            return Wrong(Reason.MALFORMED, "payload")
        bodies = {keccak(body): body for body in parts[2]}
        result = derive(self.setting, self.tables, before, view, tick, observed, bodies)
        if isinstance(result, Lacking):
            if result.blocks:
                names = ", ".join(f"{ref.chain}:{ref.number}" for ref in result.blocks)
                return NotYet(f"{Reason.MISSING_BLOCK.value} {names}")
            return Wrong(Reason.MISSING_BODY, f"{len(result.bodies)} bodies are not attached")
        snapshot, attachments = result
        expected = payload_bytes(snapshot, attachments)
        if payload != expected:
            return _difference(payload, expected)
        self._keep(parent, payload, snapshot)
        return Valid(snapshot.root)

    def root(self, payload: bytes) -> bytes:
        """Return the decision root a well-formed payload commits to.

        Raises:
            ValueError: the payload is malformed.
        """
        parts = open_payload(payload)
        if parts is None:
            raise ValueError("malformed payload")
        header, decisions, _ = parts
        return merkle_root(decision_leaves(self.setting, header, decisions))

    def adopt(
        self,
        digest: bytes,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> None:
        """Remember the state after a block under its digest."""
        if digest in self.states:
            return
        key = keccak(parent + payload)
        if key not in self._derived:
            self.validate(parent, view, tick, observations, payload)
        if key not in self._derived:
            return
        self.states[digest] = self._derived[key]
        while len(self.states) > STATES_KEPT:
            self.states.pop(next(iter(self.states)))

    def restore(self, digest: bytes, snapshot: Snapshot) -> None:
        """Make a snapshot checked against a certificate the one possible parent."""
        self.states = {digest: snapshot}

    def _keep(self, parent: bytes, payload: bytes, snapshot: Snapshot) -> None:
        self._derived[keccak(parent + payload)] = snapshot
        while len(self._derived) > STATES_KEPT:
            self._derived.pop(next(iter(self._derived)))

    def _observed(self, observations: Sequence[SignedObservation]) -> list[Observed] | None:
        observed = []
        for signed in observations:
            body = observation.decode(signed.body)
            if body is None or self.check_observation(signed) is not None:
                return None
            observed.append(Observed(signed.signer, self.setting.members[signed.signer], body))
        return sorted(observed, key=lambda one: one.member)


Parts = tuple[Header, tuple[Decision, ...], tuple[bytes, ...]]


def open_payload(payload: bytes) -> Parts | None:
    """Return header, decisions and attached bodies of a payload, or None when malformed."""
    try:
        header, decisions, bodies = msgpack.unpackb(payload, raw=False)
        if not all(isinstance(body, bytes) for body in bodies):
            return None
        return (
            header_from_row(header),
            tuple(decision_from_row(row) for row in decisions),
            tuple(bodies),
        )
    except (TypeError, ValueError, msgpack.exceptions.UnpackException):
        return None


_FIELDS = {
    "cut": Reason.WRONG_CUT,
    "price_root": Reason.WRONG_PRICES,
}


def _difference(payload: bytes, expected: bytes) -> Wrong:
    """Return which field of a payload is not what follows from the inputs."""
    given, right = open_payload(payload), open_payload(expected)
    if given is None or right is None:
        return Wrong(Reason.MALFORMED, "payload")
    for name in Header.__slots__:
        if getattr(given[0], name) != getattr(right[0], name):
            return Wrong(_FIELDS.get(name, Reason.WRONG_HEADER), name)
    if given[1] != right[1]:
        odd = sorted({d.kind for d in set(given[1]) ^ set(right[1])})
        return Wrong(Reason.WRONG_DECISIONS, " ".join(odd))
    return Wrong(Reason.MALFORMED, "the payload is not canonical or attaches too much")
