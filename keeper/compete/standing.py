"""Standing bids: what a position near liquidation would be as a task, if it fell now.

    healthy, health < standing_health ─▶ as if equity were the requirement
                                         └─▶ least size that reaches the target ─▶ Task, bid now

Bids name subjects, so a bid made on such a task is good for the real one: in the view in which the
account falls it is awarded without a round of its own. This is the smallest such a task can be, as
prices are, so that its bonus covers the bid; where the real one is so much larger that its reserve
is above the bid, the bid loses and an ordinary round follows.
"""

from collections.abc import Iterator, Mapping

from keeper.compete.task import Target, Task, bond_lock
from keeper.legs import Leg, LegKind
from keeper.margin.engine import AccountMargin
from keeper.margin.liquidation import size_position
from keeper.network import NetworkSpec
from keeper.parameters import Parameters
from keeper.snapshot.decisions import Price
from keeper.units import PPM, ceil_div
from keeper.venue.book import system_accounts

MAX_STANDING = 16
"""The positions nearest to liquidation: a vector of them is 1.3 kB, and one is made every view."""


def standing_tasks(
    network: NetworkSpec,
    parameters: Parameters,
    prices: Mapping[bytes, Price],
    legs: Mapping[bytes, tuple[Leg, ...]],
    margins: Mapping[bytes, AccountMargin],
) -> list[Task]:
    """Return the tasks that the positions nearest to liquidation would be, nearest first.

    Args:
        network: the descriptor.
        parameters: what governance set.
        prices: the agreed prices.
        legs: every account's.
        margins: every account's.
    """
    apart, limit = system_accounts(network), parameters.competition.standing_health_ppm
    near = sorted(
        (margin.health_ppm, account)
        for account, margin in margins.items()
        if margin.healthy and margin.requirement > 0 and margin.health_ppm < limit
    )
    found: list[Task] = []
    for _, account in near:
        if account not in apart:
            for leg in legs.get(account, ()):
                found += _task(network, parameters, prices, account, leg, margins[account])
        if len(found) >= MAX_STANDING:
            break
    return found[:MAX_STANDING]


def _task(
    network: NetworkSpec,
    parameters: Parameters,
    prices: Mapping[bytes, Price],
    account: bytes,
    leg: Leg,
    margin: AccountMargin,
) -> Iterator[Task]:
    """Yield what a leg would be as a task; nothing where it could be none."""
    price, market = prices.get(leg.market), parameters.margin.market_of.get(leg.market)
    spec = network.chain(leg.chain)
    if leg.kind is not LegKind.PERP or not leg.size or price is None or price.stale:
        return
    if market is None or spec.contract("Perps") != leg.venue or spec.contract("Awards") is None:
        return
    divisor = 10 ** (market.decimals + 2)
    notional = ceil_div(abs(leg.size) * price.price_e8, divisor)
    if not notional:
        return
    fallen, rules = margin.requirement, parameters.liquidation
    freed_ppm = ceil_div(fallen * PPM, notional)  # closing a leg frees no more than all of it
    wanted = size_position(notional, fallen, fallen, freed_ppm, rules)
    value = min(notional, wanted.value)
    size = min(abs(leg.size), ceil_div(value * divisor, price.price_e8))
    target = Target(leg.chain, account, leg.venue, leg.market)
    bonus = value * rules.bonus_ppm // PPM
    reserve = ceil_div(bonus * parameters.competition.reserve_ppm, PPM)
    if size:
        lock = bond_lock(value, reserve, parameters)
        yield Task(target.subject, target, 0, size, value, bonus, reserve, lock)
