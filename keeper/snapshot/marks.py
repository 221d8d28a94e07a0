"""The margin engine over one context's marks: what a rule needs to try a what-if.

The ages, prices and funding indices are those that made the context's own margins, so a rule that
evaluates an account's legs unchanged gets the very same margin.
"""

from keeper.margin.engine import Engine
from keeper.margin.marks import Marks
from keeper.snapshot.decisions import Context
from keeper.units import ceil_div
from keeper.venue.book import funding


def engine_at(context: Context) -> Engine:
    """Return the margin engine of a view."""
    ages = {
        chain: max(0, ceil_div(context.now_ms - block.timestamp * 1000, 1000))
        for chain, block in context.cut.items()
    }
    prices = {market: price.price_e8 for market, price in context.prices.items()}
    indices = funding(context.network, context.tables)
    return Engine(Marks(prices, indices, context.parameters.margin, ages))
