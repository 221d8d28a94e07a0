"""Optimistic claims for chains without a light client: assert with a bond, dispute with a proof.

    claim ──challenge_period──▶ accepted            a block, and the state root it is said to have
      └──challenge─▶ refuted, the bond is the challenger's

Two challenges, both checkable by anybody from bytes alone:

- own header: the RLP that hashes to the claimed hash says another number or state root;
- history: a proven later block of the same chain stores another hash at that height (EIP-2935, the
  last 8,191 blocks; the judge is the block hash of any chain that has a proof for it).

Pure: time is an argument, in the unit of the claims; a challenge in the last instant still counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from keeper.chain import mpt
from keeper.chain.port import BlockRef
from keeper.observe.light_client.output_root import Anchor, header_fields
from keeper.reasons import Reason

HISTORY = bytes.fromhex("0000f90827f1c53a10cb7a02335b175320002935")
"""The contract of EIP-2935; slot `number % HISTORY_WINDOW` holds that block's hash."""
HISTORY_WINDOW = 8_191
MAX_OPEN = 256
"""Open claims kept: a claim a minute for four hours."""


class Standing(StrEnum):
    """What has become of a claim."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REFUTED = "refuted"


@dataclass(frozen=True, slots=True)
class Claim:
    """A block of a chain, asserted.

    Args:
        ref: the block.
        state_root: of its accounts.
        claimant: who loses the bond if it is false, 20 bytes.
        bond: wei at stake.
    """

    ref: BlockRef
    state_root: bytes
    claimant: bytes
    bond: int


@dataclass(frozen=True, slots=True)
class HeaderChallenge:
    """RLP of the header that hashes to the claimed hash."""

    header: bytes


@dataclass(frozen=True, slots=True)
class HistoryChallenge:
    """A later, proven block whose history names another hash.

    Args:
        later: the block; whether it is proven is for the judge to say.
        account, slot: Merkle-Patricia proofs of the history contract and of its slot.
    """

    later: Anchor
    account: tuple[bytes, ...]
    slot: tuple[bytes, ...]


Challenge = HeaderChallenge | HistoryChallenge
IsProven = Callable[[Anchor], bool]
"""Whether a light client, or an accepted claim, has proven this block and its state root."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether a challenge refutes a claim, and why, or why not."""

    refuted: bool
    reason: Reason | None
    detail: str


def _no(reason: Reason, detail: str) -> Ruling:
    return Ruling(False, reason, detail)


def judge(claim: Claim, challenge: Challenge, is_proven: IsProven) -> Ruling:
    """Return whether a challenge shows that a claim is false."""
    match challenge:
        case HeaderChallenge(header):
            return _judge_header(claim, header)
        case HistoryChallenge():
            return _judge_history(claim, challenge, is_proven)


def _judge_header(claim: Claim, header: bytes) -> Ruling:
    try:
        block_hash, number, state, _ = header_fields(header)
    except ValueError as error:
        return _no(Reason.MALFORMED, str(error))
    if block_hash != claim.ref.hash:
        return _no(Reason.WRONG_HEADER, "the header is of another block")
    if number != claim.ref.number:
        return Ruling(True, None, f"the block is number {number}, not {claim.ref.number}")
    if state != claim.state_root:
        return Ruling(True, None, f"its state root is {state.hex()}")
    return _no(Reason.WRONG_HEADER, "the header says what was claimed")


def _judge_history(claim: Claim, challenge: HistoryChallenge, is_proven: IsProven) -> Ruling:
    later, number = challenge.later, claim.ref.number
    if later.ref.chain != claim.ref.chain:
        return _no(Reason.WRONG_HEADER, "the history is of another chain")
    if not later.ref.number - HISTORY_WINDOW <= number < later.ref.number:
        return _no(Reason.STALE, f"block {later.ref.number} does not remember block {number}")
    if not is_proven(later):
        return _no(Reason.BAD_PROOF, f"block {later.ref.number} is not proven")
    try:
        storage = mpt.prove_account(later.state_root, HISTORY, challenge.account)[2]
        stored = mpt.prove_slot(storage, number % HISTORY_WINDOW, challenge.slot)
    except mpt.BadProof as error:
        return _no(Reason.BAD_PROOF, str(error))
    if stored == 0:
        return _no(Reason.BAD_PROOF, "this chain keeps no history of block hashes")
    if stored.to_bytes(32, "big") == claim.ref.hash:
        return _no(Reason.WRONG_HEADER, "the history names the claimed block")
    return Ruling(True, None, f"block {number} is {stored.to_bytes(32, 'big').hex()}")


@dataclass(frozen=True, slots=True)
class _Entry:
    claim: Claim
    made: int
    standing: Standing
    challenger: bytes = b""


class Claims:
    """The claims of one network.

    Invariants: a claim is accepted only after its whole period without a refutation; accepted and
    refuted are for ever; at most one claim per claimant and block is open.

    Args:
        challenge_period: how long a claim may be disputed.
        min_bond: below it, a claim is not taken.
    """

    def __init__(self, challenge_period: int, min_bond: int) -> None:
        if challenge_period <= 0:
            raise ValueError("a challenge period must last")
        self._period, self._min_bond = challenge_period, min_bond
        self._entries: dict[tuple[BlockRef, bytes], _Entry] = {}

    def add(self, claim: Claim, now: int) -> Reason | None:
        """Take a claim; return why not, if not."""
        key = (claim.ref, claim.claimant)
        if claim.bond < self._min_bond:
            return Reason.NOT_ADMITTED
        if key in self._entries:
            return Reason.DUPLICATE
        pending = [one for one in self._entries.values() if one.standing is Standing.PENDING]
        if len(pending) >= MAX_OPEN:
            return Reason.QUEUE_FULL
        self._entries[key] = _Entry(claim, now, Standing.PENDING)
        return None

    def challenge(
        self, claim: Claim, challenge: Challenge, challenger: bytes, is_proven: IsProven, now: int
    ) -> Ruling:
        """Take a challenge; a refuted claim's bond is the challenger's."""
        key = (claim.ref, claim.claimant)
        entry = self._entries.get(key)
        if entry is None or entry.claim != claim:
            return _no(Reason.MISSING_BODY, "there is no such claim")
        if entry.standing is Standing.REFUTED:
            return _no(Reason.DUPLICATE, "it is refuted already")
        if now > entry.made + self._period or entry.standing is Standing.ACCEPTED:
            return _no(Reason.PAST_DEADLINE, "the challenge period is over")
        ruling = judge(claim, challenge, is_proven)
        if ruling.refuted:
            self._entries[key] = _Entry(claim, entry.made, Standing.REFUTED, challenger)
        return ruling

    def tick(self, now: int) -> tuple[Claim, ...]:
        """Accept what was not refuted in its period; return it, oldest first."""
        due = [
            (key, entry)
            for key, entry in self._entries.items()
            if entry.standing is Standing.PENDING and now > entry.made + self._period
        ]
        due.sort(key=lambda pair: (pair[1].made, pair[0]))
        for key, entry in due:
            self._entries[key] = _Entry(entry.claim, entry.made, Standing.ACCEPTED)
        return tuple([entry.claim for _, entry in due])

    def standing(self, claim: Claim) -> Standing | None:
        """Return what has become of a claim, or None if it is unknown."""
        entry = self._entries.get((claim.ref, claim.claimant))
        return entry.standing if entry is not None and entry.claim == claim else None

    def winner(self, claim: Claim) -> bytes:
        """Return who refuted a claim, or nothing."""
        entry = self._entries.get((claim.ref, claim.claimant))
        return entry.challenger if entry is not None else b""

    def forget(self, before: int) -> None:
        """Drop settled claims made before an instant."""
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if entry.standing is Standing.PENDING or entry.made >= before
        }

    def anchor(self, ref: BlockRef) -> bytes | None:
        """Return the state root of a block if accepted claims have one, and only one."""
        roots = {
            entry.claim.state_root
            for entry in self._entries.values()
            if entry.claim.ref == ref and entry.standing is Standing.ACCEPTED
        }
        return roots.pop() if len(roots) == 1 else None
