"""What governance set for a network: every number that all keepers must share.

    Parameters ─┬─ margin.py       underlyings, assets, markets, chains, venues, latency, scenarios
                ├─ liquidation.py  target, close factor, bonus, dust, windows
                ├─ breakers.py     the limits that stop contagion
                ├─ clearing.py     lives of decisions, netting
                ├─ competition.py  windows, locks, reserve, split
                └─ rotation.py     seats, lives of epochs and ceremonies
    whole.py  canonical bytes, digest      checks.py  what no set may say
    steps.py  how far and how fast a set may move      devnet.py  values for a devnet only
    text.py   JSON to read and edit

Keepers compare the digest, never a local file; `config` of the agreement binds it. A volatility is
part of the signed set and is never computed from a keeper's own ticks. Rates are ppm, money is
µUSD, times are seconds.
"""

from keeper.parameters.breakers import BreakerParameters
from keeper.parameters.clearing import ClearingParameters
from keeper.parameters.competition import CompetitionParameters
from keeper.parameters.liquidation import LiquidationParameters
from keeper.parameters.margin import (
    AssetParameters,
    BridgeClass,
    ChainParameters,
    LatencyParameters,
    MarginParameters,
    MarketParameters,
    RiskGroup,
    UnderlyingParameters,
    VenueParameters,
)
from keeper.parameters.rotation import RotationParameters
from keeper.parameters.whole import Parameters

__all__ = [
    "AssetParameters",
    "BreakerParameters",
    "BridgeClass",
    "ChainParameters",
    "ClearingParameters",
    "CompetitionParameters",
    "LatencyParameters",
    "LiquidationParameters",
    "MarginParameters",
    "MarketParameters",
    "Parameters",
    "RiskGroup",
    "RotationParameters",
    "UnderlyingParameters",
    "VenueParameters",
]
