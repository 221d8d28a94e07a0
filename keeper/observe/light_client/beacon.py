"""The Ethereum light client: a sync committee of 512 signs headers, two thirds make one final.

    trusted block root ─▶ bootstrap ─▶ TrustedState ─▶ LightClient(finalized, current committee)
    update ─ decode ─ branches ─ signature ─▶ best update │ optimistic header │ finalized header
                                                          └ the next committee, one period ahead

`process` returns a verdict and never raises for what a source sent. Beyond the specification:

- two headers of one slot, each signed by two thirds, are an equivocation: the client stops for good
  and keeps both, because whoever did that may have made anything final;
- a client whose finalized header is older than the trusting period refuses updates: members that
  left may sign what they like.

Source: consensus-specs, altair and electra light-client/sync-protocol.md (Electra and Fulu).
"""

from dataclasses import replace

from keeper.observe.light_client.bls import BadKey, DecodedKeys
from keeper.observe.light_client.spec import BeaconSpec, Refused, Verdict, need, supermajority
from keeper.observe.light_client.ssz import (
    FINALIZED_ROOT_GINDEX,
    NEXT_COMMITTEE_GINDEX,
    SyncCommittee,
    Update,
    branch_root,
    sha256,
)
from keeper.observe.light_client.trust import Equivocation, TrustedState
from keeper.reasons import Reason

MIN_PARTICIPANTS = 1
_REMEMBERED_SLOTS = 64
"""Signed slots kept to see an equivocation: two epochs, as long as a header takes to be final."""


class LightClient:
    """The light-client store of one beacon chain.

    Invariants: `finalized` never goes back; `optimistic` is not older than `finalized`; every
    header here was proven from the trusted root on.
    """

    def __init__(self, spec: BeaconSpec, trusted: TrustedState, now: int) -> None:
        """Start from what is trusted: a checked bootstrap, or what was proven before a restart.

        Args:
            spec: of the chain.
            trusted: where to start.
            now: the present slot.

        Raises:
            Refused: its header is too old to build on.
        """
        self.spec = spec
        self.finalized = self.optimistic = trusted.finalized
        self.current, self.next = trusted.current, trusted.next
        self.equivocation = trusted.equivocation
        self.best: Update | None = None
        self._previous_max = self._current_max = 0
        self._keys: dict[bytes, DecodedKeys] = {}
        self._signed: dict[int, Update] = {}
        self._need_trust(now)

    @property
    def trusted(self) -> TrustedState:
        """Return what a restart may start from."""
        return TrustedState(self.finalized, self.current, self.next, self.equivocation)

    @property
    def period(self) -> int:
        """Return the period of the finalized header."""
        return self.spec.period(self.finalized.beacon.slot)

    def process(self, update: Update, now: int) -> Verdict:
        """Take an update as of the present slot; a refused one changes nothing.

        Args:
            update: from any source.
            now: the present slot, by this node's clock.
        """
        try:
            need(self.equivocation is None, Reason.EQUIVOCATION, "the committee signed twice")
            self._need_trust(now)
            self._validate(update, now)
        except Refused as refusal:
            return Verdict(refusal.reason, refusal.detail)
        if self._is_second(update):
            slot = update.attested.beacon.slot
            return Verdict(Reason.EQUIVOCATION, f"two headers of slot {slot} are signed")
        return self._take(update)

    def force(self, now: int) -> bool:
        """Take the best update though nothing was final for a period; return whether it moved.

        It gives up finality for progress, so no service calls it: an operator may, who knows why.
        """
        best = self.best
        if best is None or now <= self.finalized.beacon.slot + self.spec.period_slots:
            return False
        if best.finalized.beacon.slot <= self.finalized.beacon.slot:
            best = replace(best, finalized=best.attested)
        self._apply(best)
        self.best = None
        return True

    # validation ------------------------------------------------------------------------------

    def _need_trust(self, now: int) -> None:
        age = now - self.finalized.beacon.slot
        need(
            age <= self.spec.trusting_slots,
            Reason.TRUST_EXPIRED,
            f"the finalized header is {age} slots old",
        )

    def _validate(self, update: Update, now: int) -> None:
        """Check everything the specification asserts of an update (validate_light_client_update).

        Raises:
            Refused: something is wrong with it.
        """
        spec, attested = self.spec, update.attested.beacon.slot
        participants = update.aggregate.participants
        need(
            len(update.aggregate.bits) == update.next_committee.size == spec.committee_size,
            Reason.MALFORMED,
            "another committee size",
        )
        need(participants >= MIN_PARTICIPANTS, Reason.LOW_PARTICIPATION, "nobody signed")
        need(update.attested.is_consistent(), Reason.BAD_PROOF, "execution of the signed header")
        need(now >= update.signature_slot, Reason.TOO_FAR_AHEAD, f"slot {update.signature_slot}")
        need(
            update.signature_slot > attested >= update.finalized.beacon.slot,
            Reason.MALFORMED,
            "slots are out of order",
        )
        signed_in, known = spec.period(update.signature_slot), self.next is not None
        need(signed_in >= self.period, Reason.STALE, f"signed in period {signed_in}")
        need(
            signed_in <= self.period + known,
            Reason.TOO_FAR_AHEAD,
            f"signed in period {signed_in}, the committee of {self.period + known} is the newest",
        )
        teaches = not known and update.has_committee and spec.period(attested) == self.period
        need(
            attested > self.finalized.beacon.slot or teaches,
            Reason.STALE,
            f"slot {attested} is not after the finalized slot {self.finalized.beacon.slot}",
        )
        self._validate_finality(update)
        self._validate_committee(update)
        self._validate_signature(update, self.current if signed_in == self.period else self.next)

    @staticmethod
    def _validate_finality(update: Update) -> None:
        finalized = update.finalized
        if not update.has_finality:
            need(finalized.is_empty, Reason.BAD_PROOF, "finalized header without a branch")
            return
        leaf = bytes(32)
        if finalized.beacon.slot == 0:
            need(finalized.is_empty, Reason.BAD_PROOF, "finalized header of genesis")
        else:
            need(finalized.is_consistent(), Reason.BAD_PROOF, "execution of the finalized header")
            leaf = finalized.beacon.root()
        root = branch_root(leaf, update.finality_branch, FINALIZED_ROOT_GINDEX)
        need(root == update.attested.beacon.state_root, Reason.BAD_PROOF, "finality branch")

    def _validate_committee(self, update: Update) -> None:
        committee, beacon = update.next_committee, update.attested.beacon
        if not update.has_committee:
            need(committee.is_empty, Reason.BAD_PROOF, "next committee without a branch")
            return
        if self.next is not None and self.spec.period(beacon.slot) == self.period:
            need(
                committee.raw == self.next.raw,
                Reason.WRONG_COMMITTEE,
                f"another committee for period {self.period + 1}",
            )
        root = branch_root(committee.root, update.next_branch, NEXT_COMMITTEE_GINDEX)
        need(root == beacon.state_root, Reason.BAD_PROOF, "next committee's branch")

    def _validate_signature(self, update: Update, committee: SyncCommittee | None) -> None:
        assert committee is not None
        domain = self.spec.domain(update.signature_slot)
        message = sha256(update.attested.beacon.root() + domain)
        aggregate = update.aggregate
        try:
            good = self._decoded(committee).verify(aggregate.bits, message, aggregate.signature)
        except BadKey as error:
            raise Refused(Reason.WRONG_COMMITTEE, str(error)) from error
        need(
            good,
            Reason.BAD_SIGNATURE,
            f"not signed by these {aggregate.participants} members of the committee of period "
            f"{self.spec.period(update.signature_slot)}",
        )

    def _decoded(self, committee: SyncCommittee) -> DecodedKeys:
        """Return a committee's points; those of two committees are kept."""
        keys = self._keys.get(committee.raw)
        if keys is None:
            kept = {self.current.raw, self.next.raw if self.next else b""}
            self._keys = {raw: points for raw, points in self._keys.items() if raw in kept}
            keys = self._keys[committee.raw] = DecodedKeys(committee.keys())
        return keys

    # state -----------------------------------------------------------------------------------

    def _is_second(self, update: Update) -> bool:
        """Return whether two thirds signed another header of the same slot before."""
        if not supermajority(update.aggregate.participants, self.spec.committee_size):
            return False
        slot = update.attested.beacon.slot
        first = self._signed.setdefault(slot, update)
        if first.attested.beacon != update.attested.beacon:
            self.equivocation = Equivocation(first, update)
            return True
        while len(self._signed) > _REMEMBERED_SLOTS:
            del self._signed[min(self._signed)]
        return False

    def _take(self, update: Update) -> Verdict:
        """Change the store by a valid update (process_light_client_update)."""
        spec, count = self.spec, update.aggregate.participants
        self._current_max = max(self._current_max, count)
        if self.best is None or _better(spec, update, self.best):
            self.best = update
        before, optimistic = self.finalized, False
        threshold = max(self._previous_max, self._current_max) // 2
        attested, final = update.attested.beacon.slot, update.finalized.beacon.slot
        if count > threshold and attested > self.optimistic.beacon.slot:
            self.optimistic, optimistic = update.attested, True
        teaches = (
            self.next is None
            and update.has_committee
            and update.has_finality
            and spec.period(final) == spec.period(attested)
        )
        if not supermajority(count, spec.committee_size):
            detail = f"{count} of {spec.committee_size} signed slot {attested}"
            return Verdict(Reason.LOW_PARTICIPATION, detail, optimistic=optimistic)
        if final > self.finalized.beacon.slot or teaches:
            self._apply(update)
            self.best = None
        return Verdict(finalized=self.finalized != before, optimistic=optimistic)

    def _apply(self, update: Update) -> None:
        """Make an update's finalized header ours (apply_light_client_update)."""
        committee = update.next_committee if update.has_committee else None
        slot = update.finalized.beacon.slot
        if self.next is None:
            self.next = committee
        elif self.spec.period(slot) == self.period + 1:
            self.current, self.next = self.next, committee
            self._previous_max, self._current_max = self._current_max, 0
        if slot > self.finalized.beacon.slot:
            self.finalized = update.finalized
            if slot > self.optimistic.beacon.slot:
                self.optimistic = update.finalized


def _better(spec: BeaconSpec, new: Update, old: Update) -> bool:
    """Return whether an update is worth more than another (is_better_update)."""

    def rank(update: Update) -> tuple[int, ...]:
        count, attested = update.aggregate.participants, update.attested.beacon.slot
        enough = supermajority(count, spec.committee_size)
        here = spec.period(attested)
        relevant = update.has_committee and here == spec.period(update.signature_slot)
        same = update.has_finality and spec.period(update.finalized.beacon.slot) == here
        few = 0 if enough else count
        order = (relevant, update.has_finality, same, count, -attested, -update.signature_slot)
        return (enough, few, *order)

    return rank(new) > rank(old)
