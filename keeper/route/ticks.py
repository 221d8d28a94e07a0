"""A Uniswap v3 pool in integers: what a sale brings, to the wei.

    price ──step──▶ next tick of the bitmap's word ──cross──▶ other liquidity ──step──▶ …
            each step rounds what goes in up and what comes out down, as the pool does

The pool looks for its next tick in words of 256, and rounds at every word's end even where no
liquidity changes there: an exact amount needs the same stops. `sqrt_price` is √(token 1 per
token 0) · 2**96. Source: the Uniswap v3 whitepaper, section 6; amounts equal QuoterV2's.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache

from keeper.route.pools import Range
from keeper.units import PPM, ceil_div

MIN_TICK, MAX_TICK = -887_272, 887_272
"""Where 1.0001**tick leaves 2**±128."""
MAX_CROSSINGS = 4_096
"""Ticks with liquidity kept per pool: the deepest pools have some two thousand."""
_WORD = 256
_ONE = 1 << 96
_MOST = 1 << 256
_DIGITS = Context(prec=100)
_STEPS = tuple(
    int(
        _DIGITS.divide(
            Decimal(1 << 128), _DIGITS.power(_DIGITS.sqrt(Decimal("1.0001")), Decimal(1 << bit))
        ).to_integral_value()
    )
    for bit in range(20)
)
"""2**128 / √1.0001**(2**bit), rounded to nearest: a tick's price is their product."""


@lru_cache(maxsize=1 << 16)
def sqrt_ratio(tick: int) -> int:
    """Return the square root of a tick's price, in 2**-96, as the pool computes it.

    Raises:
        ValueError: there is no such tick.
    """
    if not MIN_TICK <= tick <= MAX_TICK:
        raise ValueError(f"tick {tick} is outside ±{MAX_TICK}")
    ratio = 1 << 128
    for bit, step in enumerate(_STEPS):
        if abs(tick) >> bit & 1:
            ratio = ratio * step >> 128
    if tick > 0:
        ratio = (_MOST - 1) // ratio
    return ceil_div(ratio, 1 << 32)


MIN_SQRT, MAX_SQRT = sqrt_ratio(MIN_TICK), sqrt_ratio(MAX_TICK)


def tick_at(sqrt_price: int) -> int:
    """Return the greatest tick whose price is not above this one."""
    if not MIN_SQRT <= sqrt_price < MAX_SQRT:
        raise ValueError(f"price {sqrt_price} is outside every tick")
    guess = math.floor(2 * math.log(sqrt_price / _ONE) / math.log(1.0001))
    guess = min(max(guess, MIN_TICK), MAX_TICK - 1)
    while sqrt_ratio(guess) > sqrt_price:
        guess -= 1
    while sqrt_ratio(guess + 1) <= sqrt_price:
        guess += 1
    return guess


@dataclass(frozen=True, slots=True)
class TickBook:
    """A pool's state at one block.

    Args:
        spacing: of ticks that may hold liquidity.
        fee_ppm: taken from what goes in.
        sqrt_price, tick: now.
        liquidity: in the range the price is in.
        crossings: (tick, liquidity added when the price rises through it), rising.
        first, last: words of the bitmap that were read; beyond them nothing is known.

    Raises:
        ValueError: no pool can be in this state.
    """

    spacing: int
    fee_ppm: int
    sqrt_price: int
    tick: int
    liquidity: int
    crossings: tuple[tuple[int, int], ...]
    first: int
    last: int

    def __post_init__(self) -> None:
        if self.spacing <= 0 or not 0 <= self.fee_ppm < PPM or len(self.crossings) > MAX_CROSSINGS:
            raise ValueError("a pool has a spacing, a fee below one, and not that many ticks")
        at = tick_at(self.sqrt_price)
        # a price that fell exactly to a tick has that tick behind it
        if at != self.tick and (at - 1, sqrt_ratio(at)) != (self.tick, self.sqrt_price):
            raise ValueError(f"price {self.sqrt_price} is not in tick {self.tick}")
        ticks = [tick for tick, _ in self.crossings]
        inside = range(self.first * _WORD * self.spacing, (self.last + 1) * _WORD * self.spacing)
        if ticks != sorted(set(ticks)) or any(
            tick % self.spacing or tick not in inside or not MIN_TICK <= tick <= MAX_TICK
            for tick in ticks
        ):
            raise ValueError("ticks rise, are multiples of the spacing, and were read")
        if self.tick not in inside or any(amount < 0 for _, _, amount in self.spans()):
            raise ValueError("liquidity is never negative, and the price is where it was read")

    def spans(self) -> list[tuple[int, int, int]]:
        """Return (lower tick, upper tick, liquidity) of every range read, rising."""
        edge = self.spacing * _WORD
        bottom = max(self.first * edge, MIN_TICK)
        top = min((self.last + 1) * edge, MAX_TICK)
        here = bisect_right(self.crossings, (self.tick, _MOST))
        spans, upper, amount = [], self._next(here, top), self.liquidity
        for tick, net in self.crossings[:here][::-1]:
            spans.append((tick, upper, amount))
            upper, amount = tick, amount - net
        spans = [(bottom, upper, amount), *spans[::-1]]
        amount = self.liquidity
        for place in range(here, len(self.crossings)):
            tick, net = self.crossings[place]
            amount += net
            spans.append((tick, self._next(place + 1, top), amount))
        return [span for span in spans if span[0] < span[1]]

    def _next(self, place: int, top: int) -> int:
        return self.crossings[place][0] if place < len(self.crossings) else top

    def ranges(self) -> tuple[Range, ...]:
        """Return the ranges as the optimiser takes them."""
        return tuple(
            Range((sqrt_ratio(low) / _ONE) ** 2, (sqrt_ratio(high) / _ONE) ** 2, float(amount))
            for low, high, amount in self.spans()
            if amount
        )

    @property
    def price(self) -> float:
        """Return token 1 per token 0."""
        return (self.sqrt_price / _ONE) ** 2

    def stop(self, tick: int, down: bool) -> tuple[int, int | None]:
        """Return the tick where the next step ends at the latest, and the liquidity added there.

        It is the next one with liquidity in this word of the bitmap, or the word's end.
        """
        place = tick // self.spacing + (0 if down else 1)
        word = place // _WORD
        if down:
            end = word * _WORD * self.spacing
            at = bisect_right(self.crossings, (tick, _MOST)) - 1
            if at >= 0 and self.crossings[at][0] >= end:
                return self.crossings[at]
            return max(end, MIN_TICK), None
        end = (word * _WORD + _WORD - 1) * self.spacing
        at = bisect_left(self.crossings, (place * self.spacing, -_MOST))
        if at < len(self.crossings) and self.crossings[at][0] <= end:
            return self.crossings[at]
        return min(end, MAX_TICK), None

    def knows(self, tick: int, down: bool) -> bool:
        """Return whether the word that a step from this tick looks into was read."""
        word = (tick // self.spacing + (0 if down else 1)) // _WORD
        return self.first <= word <= self.last


@dataclass(frozen=True, slots=True)
class Sale:
    """What an exact input did: `paid` is less than was offered where the known pool ends."""

    paid: int
    brought: int
    sqrt_price: int
    crossed: int


def sell(book: TickBook, amount: int, down: bool) -> Sale:
    """Return what selling an amount does: of token 0 if `down`, or of token 1.

    Raises:
        ValueError: the amount is not one that a pool takes.
    """
    if not 0 < amount < 1 << 255:
        raise ValueError(f"{amount} cannot be sold")
    limit = MIN_SQRT + 1 if down else MAX_SQRT - 1
    price, tick, liquidity = book.sqrt_price, book.tick, book.liquidity
    left, brought, crossed = amount, 0, 0
    while left and price != limit and book.knows(tick, down):
        end, net = book.stop(tick, down)
        ratio = sqrt_ratio(end)
        target = max(ratio, limit) if down else min(ratio, limit)
        start = price
        price, paid, out = _step(price, target, liquidity, left, book.fee_ppm)
        left -= paid
        brought += out
        if price == ratio:
            if net is not None:
                liquidity += -net if down else net
                crossed += 1
            tick = end - 1 if down else end
        elif price != start:
            tick = tick_at(price)
    return Sale(amount - left, brought, price, crossed)


def _step(price: int, target: int, liquidity: int, left: int, fee_ppm: int) -> tuple[int, int, int]:
    """Return the price after a step within one range, what went in with its fee, and came out."""
    down = price >= target
    useful = left * (PPM - fee_ppm) // PPM
    needed = _amount0(target, price, liquidity) if down else _amount1(price, target, liquidity)
    if useful >= needed:
        after = target
        paid = needed + ceil_div(needed * fee_ppm, PPM - fee_ppm)
    else:
        after = _moved(price, liquidity, useful, down)
        paid = left  # what does not move the price is the fee's
    if down:
        return after, paid, liquidity * (price - after) // _ONE
    return after, paid, (liquidity << 96) * (after - price) // after // price


def _amount0(low: int, high: int, liquidity: int) -> int:
    """Return token 0 between two prices, rounded up."""
    return ceil_div(ceil_div((liquidity << 96) * (high - low), high), low)


def _amount1(low: int, high: int, liquidity: int) -> int:
    """Return token 1 between two prices, rounded up."""
    return ceil_div(liquidity * (high - low), _ONE)


def _moved(price: int, liquidity: int, amount: int, down: bool) -> int:
    """Return the price after an input, rounded against who pays it in."""
    if not down:
        return price + (amount << 96) // liquidity
    whole = liquidity << 96
    if amount * price < _MOST and whole + amount * price < _MOST:
        return ceil_div(whole * price, whole + amount * price)
    return ceil_div(whole, whole // price + amount)  # the pool's way around an overflow
