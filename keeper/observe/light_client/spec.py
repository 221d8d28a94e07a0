"""What a beacon chain's light client knows beforehand, and how it answers: constants and verdicts.

BeaconSpec   the chain's lengths, forks and name: signature domains and periods follow from them
Verdict      what an update did        Refused   what the rules forbid
"""

from dataclasses import dataclass

from keeper.observe.light_client.ssz import MAX_COMMITTEE, sha256
from keeper.reasons import Reason

DOMAIN_SYNC_COMMITTEE = bytes.fromhex("07000000")


@dataclass(frozen=True, slots=True)
class BeaconSpec:
    """The constants of one beacon chain.

    Args:
        genesis_validators_root: names the chain in every signature.
        forks: (first epoch, fork version) from Electra on, ascending.
        committee_size: members of a sync committee.
        slots_per_epoch, epochs_per_period: lengths; a committee serves one period.
        trusting_slots: how old a finalized header may be and still be built on.
    """

    genesis_validators_root: bytes
    forks: tuple[tuple[int, bytes], ...]
    committee_size: int = MAX_COMMITTEE
    slots_per_epoch: int = 32
    epochs_per_period: int = 256
    trusting_slots: int = 14 * 7_200

    def __post_init__(self) -> None:
        if not self.forks or self.forks != tuple(sorted(self.forks)):
            raise ValueError("forks must be ascending, at least one")
        if self.committee_size % 8 or not 0 < self.committee_size <= MAX_COMMITTEE:
            raise ValueError(f"no preset has {self.committee_size} members")

    @property
    def period_slots(self) -> int:
        """How long a committee serves, in slots."""
        return self.slots_per_epoch * self.epochs_per_period

    def period(self, slot: int) -> int:
        """Return the sync committee period of a slot."""
        return slot // self.period_slots

    def fork_version(self, epoch: int) -> bytes:
        """Return the version in force; before the first known fork, the first one."""
        reached = [version for first, version in self.forks if first <= epoch]
        return reached[-1] if reached else self.forks[0][1]

    def domain(self, signature_slot: int) -> bytes:
        """Return the signature domain of a slot (compute_domain)."""
        epoch = (max(signature_slot, 1) - 1) // self.slots_per_epoch
        data = self.fork_version(epoch).ljust(32, b"\0") + self.genesis_validators_root
        return DOMAIN_SYNC_COMMITTEE + sha256(data)[:28]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an update did.

    Args:
        reason: why it was refused, or why it made nothing final; None if all is well.
        detail: the values that show it.
        finalized: the finalized header moved.
        optimistic: the newest signed header moved.
    """

    reason: Reason | None = None
    detail: str = ""
    finalized: bool = False
    optimistic: bool = False


class Refused(ValueError):
    """What the rules forbid: raised for a bootstrap; for an update it becomes the verdict."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail


def need(condition: bool, reason: Reason, detail: str) -> None:
    """Raise `Refused` unless the condition holds."""
    if not condition:
        raise Refused(reason, detail)


def supermajority(participants: int, size: int) -> bool:
    """Return whether two thirds took part."""
    return participants * 3 >= size * 2
