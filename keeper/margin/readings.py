"""What the breakers judge: facts that keepers agreed on at one tick. Money is µUSD, time s."""

from dataclasses import dataclass

from keeper.units import BlockNumber, ChainId


@dataclass(frozen=True, slots=True)
class OracleReading:
    """A market's price now: 10**-8 USD, its age, its 5-minute mean, its confidence."""

    market: bytes
    price: int
    age_s: int
    mean: int
    confidence_ppm: int = 0


@dataclass(frozen=True, slots=True)
class AgeReading:
    """How old the agreed state of a chain is."""

    chain: ChainId
    age_s: int


@dataclass(frozen=True, slots=True)
class FinalityBroken:
    """A chain replaced what it had called final, or attests two things that exclude each other."""

    chain: ChainId
    what: str


@dataclass(frozen=True, slots=True)
class Lifted:
    """Governance lifted the curse of a scope."""

    scope: bytes


@dataclass(frozen=True, slots=True)
class NegativeAccount:
    """An account below zero was seen at a block."""

    chain: ChainId
    block: BlockNumber
    account: bytes
    equity: int


@dataclass(frozen=True, slots=True)
class BlockReading:
    """The agreed block of a chain."""

    chain: ChainId
    block: BlockNumber


@dataclass(frozen=True, slots=True)
class CascadeReading:
    """Cascade multiplier in ppm; bad debt at the probe drop and the insurance fund, µUSD."""

    multiplier_ppm: int
    bad_debt: int
    insurance: int


@dataclass(frozen=True, slots=True)
class OutflowReading:
    """An asset of a venue: what was there when the window began, and is now; when it ends."""

    scope: bytes
    before: int
    now: int
    ends: int


@dataclass(frozen=True, slots=True)
class ExposureReading:
    """Collateral by bridge class, µUSD."""

    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Paused:
    """Somebody in charge paused a scope."""

    scope: bytes


@dataclass(frozen=True, slots=True)
class Unpaused:
    """Somebody in charge un-paused a scope."""

    scope: bytes


Reading = (
    OracleReading
    | AgeReading
    | FinalityBroken
    | Lifted
    | NegativeAccount
    | BlockReading
    | CascadeReading
    | OutflowReading
    | ExposureReading
    | Paused
    | Unpaused
)
