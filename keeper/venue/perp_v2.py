"""Perpetual Protocol v2 ("Curie"), unmodified: margin read by call, liquidations as calls.

    account_reads ─▶ account value, requirement, size, open notional, liquidatable size
    liquidate(step) ─▶ ClearingHouse.liquidate(trader, baseToken, size)
    closed(logs)    ─▶ what a PositionLiquidated closed and paid

A liquidator takes the position over at the mark price, so it needs free collateral of its own and
should close or hedge what it took. The penalty is a share of that notional; half of it is the
liquidator's, half the insurance fund's (ClearingHouse._liquidate). Amounts have 18 decimals.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keeper.chain.port import Call as Read
from keeper.chain.port import Log
from keeper.hashing import type_hash
from keeper.legs import Leg, LegKind
from keeper.plan import Step, StepKind
from keeper.units import ChainId
from keeper.venue.abi import answers, calldata
from keeper.venue.port import Call

DECIMALS = 18
MICRO = 10**12
"""Protocol units of one µUSD."""
LIQUIDATION_GAS = 1_700_000
"""Measured 1.61 million."""
POSITION_LIQUIDATED = type_hash(
    "PositionLiquidated(address,address,uint256,uint256,uint256,address)"
)


POSITION_CHANGED = type_hash(
    "PositionChanged(address,address,int256,int256,uint256,int256,int256,uint256)"
)
ACCOUNT_READS = 4
"""Reads of one trader."""


@dataclass(frozen=True, slots=True)
class Market:
    """One market of one deployment.

    Args:
        chain: where.
        clearing: ClearingHouse.
        balance: AccountBalance.
        config: ClearingHouseConfig.
        base: the market's base token.
        asset: the market's 32-byte symbol.
    """

    chain: ChainId
    clearing: bytes
    balance: bytes
    config: bytes
    base: bytes
    asset: bytes


@dataclass(frozen=True, slots=True)
class Terms:
    """Ratios of a deployment, ppm: margin to keep, and what the liquidator is paid."""

    margin_ppm: int
    bonus_ppm: int


@dataclass(frozen=True, slots=True)
class Trader:
    """One trader's numbers; money in µUSD, sizes in 10**-18."""

    value: int
    requirement: int
    size: int
    open_notional: int

    @property
    def is_liquidatable(self) -> bool:
        """Whether the account value is below the requirement."""
        return self.value < self.requirement


def terms_reads(market: Market) -> tuple[Read, ...]:
    """Return the reads of a deployment's ratios."""
    return tuple(
        Read(market.config, calldata(name))
        for name in ("getMmRatio()", "getLiquidationPenaltyRatio()")
    )


def terms_of(outputs: Sequence[bytes]) -> Terms:
    """Return the ratios; the protocol holds them in ppm."""
    margin, penalty = (int(answers(("uint24",), data)[0]) for data in outputs)
    return Terms(margin, penalty // 2)


def account_reads(market: Market, trader: bytes) -> tuple[Read, ...]:
    """Return the reads of one trader."""
    both = (trader, market.base)
    return (
        Read(market.clearing, calldata("getAccountValue(address)", trader)),
        Read(market.balance, calldata("getMarginRequirementForLiquidation(address)", trader)),
        Read(market.balance, calldata("getTakerPositionSize(address,address)", *both)),
        Read(market.balance, calldata("getTakerOpenNotional(address,address)", *both)),
    )


def traders(market: Market, logs: Iterable[Log]) -> frozenset[bytes]:
    """Return who ever changed a position in this market, from PositionChanged events."""
    return frozenset(
        log.topics[1][12:]
        for log in logs
        if log.topics[:1] == (POSITION_CHANGED,)
        and log.topics[2:]
        and log.topics[2][12:] == market.base
    )


def feed_read(feed: bytes) -> Read:
    """Return the read of an aggregator's newest answer."""
    return Read(feed, calldata("latestRoundData()"))


def feed_of(data: bytes) -> int:
    """Return an aggregator's answer; 8 decimals, as every USD feed has.

    Raises:
        ValueError: it has no positive answer.
    """
    answer = int(answers(("uint80", "int256", "uint256", "uint256", "uint80"), data)[1])
    if answer <= 0:
        raise ValueError("the feed has no positive answer")
    return answer


def trader_of(outputs: Sequence[bytes]) -> Trader:
    """Return a trader from the answers to `account_reads`; value floored, requirement as is."""
    value, need, size, notional = (int(answers(("int256",), data)[0]) for data in outputs)
    return Trader(value // MICRO, -(-need // MICRO), size, notional // MICRO)


def liquidatable_read(market: Market, trader: bytes, value: int) -> Read:
    """Return the read of how much one call may close at an account value (10**-18)."""
    return Read(
        market.balance,
        calldata("getLiquidatablePositionSize(address,address,int256)", trader, market.base, value),
    )


def size_of(data: bytes) -> int:
    """Return a signed size."""
    return int(answers(("int256",), data)[0])


def mark_read(market: Market) -> Read:
    """Return the read of the mark price, at which a liquidated position changes hands."""
    return Read(market.balance, calldata("getMarkPrice(address)", market.base))


def mark_of(data: bytes) -> int:
    """Return the mark price in 10**-8 USD."""
    return int(answers(("uint256",), data)[0]) // 10**10


def legs_of(market: Market, trader: Trader) -> list[Leg]:
    """Return the trader's leg in this market, if any."""
    if not trader.size:
        return []
    return [
        Leg(
            market.chain,
            market.clearing,
            market.asset,
            LegKind.PERP,
            trader.size,
            trader.open_notional,
        )
    ]


def liquidate(market: Market, step: Step, trader: bytes, held: int) -> Call:
    """Return the call of a LIQUIDATE step on a trader who holds `held` (signed).

    Raises:
        ValueError: the step is of another kind or another venue.
    """
    size = step.arg("size")
    if step.kind is not StepKind.LIQUIDATE or step.venue != market.clearing:
        raise ValueError(f"step {step.id!r} is not a liquidation on this clearing house")
    if not isinstance(size, int):
        raise ValueError(f"step {step.id!r} has a size of the wrong kind")
    return liquidation(market, trader, size if held > 0 else -size)


def liquidation(market: Market, trader: bytes, size: int) -> Call:
    """Return the call that takes over `size` (signed as the position is) of a trader."""
    return Call(
        market.chain,
        market.clearing,
        calldata("liquidate(address,address,int256)", trader, market.base, size),
    )


@dataclass(frozen=True, slots=True)
class Closed:
    """What one liquidation did: notional and the whole penalty in µUSD, size in 10**-18."""

    trader: bytes
    notional: int
    size: int
    penalty: int

    @property
    def paid(self) -> int:
        """µUSD that the liquidator was paid."""
        return self.penalty // 2


def closed(market: Market, logs: Iterable[Log]) -> Closed | None:
    """Return what a receipt's liquidation did, or None when there was none."""
    for log in logs:
        if log.address == market.clearing and log.topics[:1] == (POSITION_LIQUIDATED,):
            words = [int.from_bytes(log.data[at : at + 32], "big") for at in range(0, 96, 32)]
            notional, size, penalty = words[0] // MICRO, words[1], words[2] // MICRO
            return Closed(log.topics[1][12:], notional, size, penalty)
    return None
