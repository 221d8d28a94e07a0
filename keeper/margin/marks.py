"""What a tick fixes for every account: one resolved rate per (kind, chain, venue, market).

    prices, funding, ages ─┐
    MarginParameters ──────┴─▶ Marks ─▶ Rate (plain integers) ─▶ engine.py, fast.py

Rates are resolved when first asked for and kept, so an account costs only its own arithmetic.
"""

from collections.abc import Mapping
from typing import NamedTuple

from keeper.legs import Leg, LegKind
from keeper.margin.latency import latency_haircut, time_to_act
from keeper.parameters import MarginParameters
from keeper.units import PPM, PRICE_DECIMALS, QUOTE_DECIMALS, ChainId, ppm_ceil

RateKey = tuple[int, ChainId, bytes, bytes]


class Unpriced(ValueError):
    """A leg names a chain, an asset or a market without parameters, or one without a price."""


class Rate(NamedTuple):
    """Everything one leg's arithmetic needs besides its own size, quote and funding.

    Args:
        divisor: 10**(decimals + 2): size · price over it is µUSD.
        weight: collateral: PPM − h − λ, at least 0; debt: PPM + h + λ; perp: PPM.
        maintenance, initial: perp ratios without concentration and λ.
        maintenance_floor, initial_floor: the share of them that concentration is added to.
        concentration: 10**-6 ppm per root of a size unit.
        latency: λ, added to both ratios.
        funding: the index now.
        underlying: position in `MarginParameters.underlyings`.
        group: its risk group.
        venue: position in `Marks.venues`.
    """

    kind: int
    price: int
    divisor: int
    weight: int
    maintenance: int
    maintenance_floor: int
    initial: int
    initial_floor: int
    concentration: int
    latency: int
    funding: int
    underlying: int
    group: int
    venue: int


class Marks:
    """Prices, funding indices and ages of one tick, with the rates that follow.

    Invariants: a key's rate never changes; `venues` only grows, in the order of first use.
    """

    def __init__(
        self,
        prices: Mapping[bytes, int],
        funding: Mapping[tuple[ChainId, bytes, bytes], int],
        parameters: MarginParameters,
        ages: Mapping[ChainId, int],
    ) -> None:
        self.prices, self.funding, self.parameters, self.ages = prices, funding, parameters, ages
        self.venues: list[tuple[ChainId, bytes]] = []
        self._venue_of: dict[tuple[ChainId, bytes], int] = {}
        self._rates: dict[RateKey, Rate] = {}
        self._underlyings = {u.symbol: i for i, u in enumerate(parameters.underlyings)}

    def rate(self, leg: Leg) -> Rate:
        """Return the rate of a leg.

        Raises:
            Unpriced: there is no price or parameter for it.
        """
        return self.rate_of((leg.kind, leg.chain, leg.venue, leg.market))

    def rate_of(self, key: RateKey) -> Rate:
        """Return the rate of a key; see `rate`."""
        found = self._rates.get(key)
        if found is None:
            found = self._rates[key] = self._resolve(key)
        return found

    def latency(self, underlying: bytes, chain: ChainId) -> int:
        """Return λ of an underlying held on a chain."""
        parameters = self.parameters
        if chain not in parameters.chain_of or chain not in self.ages:
            raise Unpriced(f"chain {chain} has no parameters or no state age")
        time_s = time_to_act(parameters.chain_of[chain], self.ages[chain])
        return latency_haircut(parameters.latency, parameters.underlying_of[underlying], time_s)

    def venue_index(self, chain: ChainId, venue: bytes) -> int:
        """Return the venue's position, giving it one at first use."""
        index = self._venue_of.get((chain, venue))
        if index is None:
            index = self._venue_of[chain, venue] = len(self.venues)
            self.venues.append((chain, venue))
        return index

    def _resolve(self, key: RateKey) -> Rate:
        kind, chain, venue, market = key
        perp = kind == LegKind.PERP
        table = self.parameters
        known = table.market_of.get(market) if perp else table.asset_of.get(market)
        price = self.prices.get(market)
        if known is None or price is None or price <= 0:
            raise Unpriced(f"{market.rstrip(bytes(1))!r} has no parameters or no positive price")
        extra = self.latency(known.underlying, chain)
        underlying = table.underlying_of[known.underlying]
        weight, maintenance, initial, concentration = PPM, 0, 0, 0
        if perp:
            perpetual = table.market_of[market]
            maintenance, initial = perpetual.maintenance_ppm, perpetual.initial_ppm
            concentration = perpetual.concentration
        else:
            haircut = table.asset_of[market].haircut_ppm + extra
            weight = max(0, PPM - haircut) if kind == LegKind.COLLATERAL else PPM + haircut
        floor = table.concentration_floor_ppm
        return Rate(
            kind=int(kind),
            price=price,
            divisor=10 ** (known.decimals + PRICE_DECIMALS - QUOTE_DECIMALS),
            weight=weight,
            maintenance=maintenance,
            maintenance_floor=ppm_ceil(maintenance, floor),
            initial=initial,
            initial_floor=ppm_ceil(initial, floor),
            concentration=concentration,
            latency=extra,
            funding=self.funding.get((chain, venue, market), 0) if perp else 0,
            underlying=self._underlyings[known.underlying],
            group=underlying.group,
            venue=self.venue_index(chain, venue),
        )
