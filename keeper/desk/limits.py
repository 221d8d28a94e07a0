"""What an act may ask for, checked outside the policy: it has no key, and no free hand either.

    Act ─▶ is it the task's account and market? within funds and size? sold near the price? ─▶ fault

A policy is a stranger's code in a process of its own. Whatever it answers, the worst it can make
this keeper do is a liquidation that the venue itself offers, sold at no less than `MAX_LOSS_PPM`
below the view's price.
"""

from collections.abc import Iterable, Mapping

from keeper.units import PPM
from policies.api import Act, Decision, MarketView, PlanStep, Price, Task

MAX_LOSS_PPM = 50_000
"""A sale may ask for no less than this below the view's price: above any bonus worth taking."""
MAX_SWAPS = 2


def judged(view: MarketView, decisions: Iterable[Decision]) -> list[tuple[Act, str]]:
    """Return every act with what is wrong with it: one a task, together within the funds."""
    spent: dict[tuple[int, bytes], int] = {}
    taken: set[bytes] = set()
    found = []
    for act in decisions:
        if not isinstance(act, Act):
            continue
        fault = "a second act on one task" if act.task in taken else act_fault(view, act, spent)
        taken.add(act.task)
        found.append((act, fault))
    return found


def act_fault(view: MarketView, act: Act, spent: dict[tuple[int, bytes], int] | None = None) -> str:
    """Return what is wrong with an act, or an empty text.

    Args:
        view: it was decided on.
        act: which.
        spent: (chain, asset) → what acts before it repay; this one is added if it is sound.
    """
    spent = {} if spent is None else spent
    task = next((one for one in view.tasks if one.task == act.task), None)
    if task is None:
        return "there is no such task"
    if not act.steps or len(act.steps) > 1 + MAX_SWAPS:
        return f"an act here has 1 to {1 + MAX_SWAPS} steps, this one {len(act.steps)}"
    first, *sales = act.steps
    numbers, blobs = dict(first.numbers), dict(first.blobs)
    wanted = ("liquidate", task.chain, task.venue, task.account, task.market)
    place = (first.kind, first.chain, first.venue, blobs.get("account"), blobs.get("market"))
    if place != wanted:
        return f"step {first.id!r} is not the task's liquidation"
    size = int(numbers.get("size", 0))
    if not 0 < size <= task.max_size or size != act.size:
        return f"a size of {size}"
    if "collateral" not in blobs:
        return "a sale of what nobody seized" if sales else ""
    purse = (task.chain, task.market)
    funds = {(one.chain, one.asset): one for one in view.inventory}.get(purse)
    if funds is None or spent.get(purse, 0) + size > funds.available - funds.reserved:
        return f"repays {size}, more than this keeper has"
    prices = {one.market: one for one in view.prices}
    if blobs["collateral"] not in {term.asset for term in task.terms}:
        return "seizes what the venue does not give"
    for step in sales:
        fault = _sale_fault(task, step, blobs["collateral"], prices)
        if fault:
            return fault
    spent[purse] = spent.get(purse, 0) + size
    return ""


def _sale_fault(task: Task, step: PlanStep, seized: bytes, prices: Mapping[bytes, Price]) -> str:
    numbers, blobs = dict(step.numbers), dict(step.blobs)
    if (step.kind, step.chain) != ("swap", task.chain):
        return f"step {step.id!r} is no sale on chain {task.chain}"
    if (blobs.get("asset_in"), blobs.get("asset_out")) != (seized, task.market):
        return f"step {step.id!r} does not sell what was seized for what was repaid"
    amount, least = int(numbers.get("amount", 0)), int(numbers.get("least_out", 0))
    sold, bought = prices.get(seized), prices.get(task.market)
    if amount <= 0 or sold is None or bought is None:
        return f"step {step.id!r} sells nothing that has a price"
    worth = amount * sold.price * 10**bought.decimals * (PPM - MAX_LOSS_PPM)
    if least * bought.price * 10**sold.decimals * PPM < worth:
        return f"step {step.id!r} would sell below the price"
    return ""


def most_profit(view: MarketView, act: Act) -> int:
    """Return µUSD that an act can bring at most: the venue's bonus on what it closes."""
    task = next(one for one in view.tasks if one.task == act.task)
    price = next((one for one in view.prices if one.market == task.market), None)
    if price is None:
        return 0
    worth = int(act.size) * price.price // 10 ** (price.decimals + 2)
    return int(worth * max((term.bonus_ppm for term in task.terms), default=0) // PPM)
