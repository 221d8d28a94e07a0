"""How committees follow each other."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RotationParameters:
    """How committees follow each other (docs/epochs.md); times are ticks.

    Args:
        seats: most members of a committee.
        epoch_ticks: an epoch lasts at least so long: a keeper must be able to catch up.
        settle_ticks: the same committee must be wanted for so long before it is called.
        ceremony_ticks: time for its key ceremony, far more than four rounds of messages take.
        barred_ticks: how long a keeper that was missing in one is not called again.
    """

    seats: int
    epoch_ticks: int
    settle_ticks: int
    ceremony_ticks: int
    barred_ticks: int
