"""Aave v3, unmodified: reserves and accounts read from a pool, liquidations as calls.

    reserve_reads ─▶ thresholds, bonuses      account_reads ─▶ legs      price_reads ─▶ prices
    liquidate(step) ─▶ Pool.liquidationCall(collateral, debt, user, amount, receiveAToken=false)
    closed(logs)    ─▶ what a LiquidationCall really repaid and seized

Interest accrues with every second, so balances are read by call at an agreed block, not from
events. Health factor below 0.95 lets a liquidator close everything, else half of the debt
(protocol/libraries/logic/LiquidationLogic.sol, CLOSE_FACTOR_HF_THRESHOLD).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keeper.chain.port import Call as Read
from keeper.chain.port import Log
from keeper.hashing import type_hash
from keeper.legs import Leg, LegKind
from keeper.plan import Step, StepKind
from keeper.units import PPM, ChainId
from keeper.venue.abi import address, answers, calldata
from keeper.venue.port import Call

BPS = 100
"""ppm of one basis point."""
FULL_CLOSE_HEALTH_PPM = 950_000
HALF = PPM // 2
LIQUIDATION_CALL = type_hash(
    "LiquidationCall(address,address,address,uint256,uint256,address,bool)"
)
BORROW = type_hash("Borrow(address,address,address,uint256,uint8,uint256,uint16)")
LIQUIDATION_GAS = 420_000
"""Measured 324,494 for a first liquidation; a warm one is cheaper."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """One listed token: its 32-byte symbol, address, decimals, and terms as collateral."""

    asset: bytes
    token: bytes
    decimals: int
    threshold_ppm: int
    bonus_ppm: int


@dataclass(frozen=True, slots=True)
class Market:
    """One Aave deployment on one chain.

    Args:
        chain: where.
        pool, data, oracle: Pool, AaveProtocolDataProvider and AaveOracle, 20 bytes each.
        reserves: the tokens to look at, sorted by asset.
    """

    chain: ChainId
    pool: bytes
    data: bytes
    oracle: bytes
    reserves: tuple[Reserve, ...] = ()

    def reserve(self, asset: bytes) -> Reserve:
        """Return a reserve by its symbol.

        Raises:
            KeyError: it is not one of this market's.
        """
        for one in self.reserves:
            if one.asset == asset:
                return one
        raise KeyError(asset)


def reserve_read(market: Market, token: bytes) -> Read:
    """Return the read of one token's configuration."""
    return Read(market.data, calldata("getReserveConfigurationData(address)", token))


def reserve_of(asset: bytes, token: bytes, data: bytes) -> Reserve:
    """Return the reserve that a configuration read describes."""
    decimals, _, threshold, bonus, *_ = answers(("uint256",) * 5 + ("bool",) * 5, data)
    gain = max(0, bonus * BPS - PPM)
    return Reserve(asset, token, decimals, threshold * BPS, gain)


def account_reads(market: Market, user: bytes) -> tuple[Read, ...]:
    """Return one read per reserve of what a user holds and owes."""
    return tuple(
        Read(market.data, calldata("getUserReserveData(address,address)", one.token, user))
        for one in market.reserves
    )


def legs_of(market: Market, outputs: Sequence[bytes]) -> list[Leg]:
    """Return a user's legs from the answers to `account_reads`."""
    legs = []
    for reserve, data in zip(market.reserves, outputs, strict=True):
        held, stable, variable, _, _, _, _, _, pledged = answers(
            ("uint256",) * 7 + ("uint40", "bool"), data
        )
        if held and pledged:
            legs.append(Leg(market.chain, market.pool, reserve.asset, LegKind.COLLATERAL, held))
        if stable + variable:
            legs.append(
                Leg(market.chain, market.pool, reserve.asset, LegKind.DEBT, stable + variable)
            )
    return legs


def price_reads(market: Market) -> tuple[Read, ...]:
    """Return one read per reserve of the oracle's price."""
    return tuple(
        Read(market.oracle, calldata("getAssetPrice(address)", one.token))
        for one in market.reserves
    )


def prices_of(market: Market, outputs: Sequence[bytes]) -> dict[bytes, int]:
    """Return asset → 10**-8 USD from the answers to `price_reads`."""
    return {
        reserve.asset: int(answers(("uint256",), data)[0])
        for reserve, data in zip(market.reserves, outputs, strict=True)
    }


def close_ppm(health_ppm: int) -> int:
    """Return the largest share of a debt that one call may repay."""
    return PPM if health_ppm <= FULL_CLOSE_HEALTH_PPM else HALF


def borrowers(logs: Iterable[Log]) -> tuple[bytes, ...]:
    """Return who ever borrowed, from Borrow events, sorted."""
    return tuple(
        sorted(
            {log.topics[2][12:] for log in logs if log.topics[:1] == (BORROW,) and log.topics[2:]}
        )
    )


def liquidate(market: Market, step: Step, user: bytes) -> Call:
    """Return the call of a LIQUIDATE step.

    Raises:
        ValueError: the step is of another kind or another venue.
    """
    if step.kind is not StepKind.LIQUIDATE or step.venue != market.pool:
        raise ValueError(f"step {step.id!r} is not a liquidation on this pool")
    names = dict(step.args)
    size, debt, collateral = names["size"], names["market"], names["collateral"]
    if not isinstance(size, int) or not isinstance(debt, bytes) or isinstance(collateral, int):
        raise ValueError(f"step {step.id!r} has arguments of the wrong kind")
    return liquidation(market, collateral, debt, user, size)


def liquidation(market: Market, collateral: bytes, debt: bytes, user: bytes, size: int) -> Call:
    """Return the call that repays `size` of one asset of a user's debt for one collateral."""
    return Call(
        market.chain,
        market.pool,
        calldata(
            "liquidationCall(address,address,address,uint256,bool)",
            market.reserve(collateral).token,
            market.reserve(debt).token,
            user,
            size,
            False,
        ),
    )


def approve(chain: ChainId, token: bytes, spender: bytes, amount: int) -> Call:
    """Return the call that lets a pool or a router take a token."""
    return Call(chain, token, calldata("approve(address,uint256)", spender, amount))


@dataclass(frozen=True, slots=True)
class Closed:
    """What one liquidation did, in the tokens' own units."""

    collateral: bytes
    debt: bytes
    user: bytes
    repaid: int
    seized: int


def closed(market: Market, logs: Iterable[Log]) -> Closed | None:
    """Return what a receipt's liquidation did, or None when there was none."""
    for log in logs:
        if log.address == market.pool and log.topics[:1] == (LIQUIDATION_CALL,):
            repaid, seized, *_ = answers(("uint256", "uint256", "address", "bool"), log.data)
            return Closed(
                log.topics[1][12:], log.topics[2][12:], log.topics[3][12:], repaid, seized
            )
    return None


def account_data_read(market: Market, user: bytes) -> Read:
    """Return the read of the pool's own view of a user."""
    return Read(market.pool, calldata("getUserAccountData(address)", user))


def health_of(data: bytes) -> int:
    """Return the health factor in ppm from an `account_data_read`; 2**62 without debt."""
    factor: int = answers(("uint256",) * 6, data)[5]
    return min(2**62, factor // 10**12)


def owed_of(data: bytes) -> int:
    """Return what a user owes in the oracle's unit, from an `account_data_read`."""
    owed: int = answers(("uint256",) * 6, data)[1]
    return owed


def source_read(market: Market, token: bytes) -> Read:
    """Return the read of the feed behind a token's price."""
    return Read(market.oracle, calldata("getSourceOfAsset(address)", token))


def source_of(data: bytes) -> bytes:
    """Return the feed's address from the answer to `source_read`."""
    return address(answers(("address",), data)[0])
