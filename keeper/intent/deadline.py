"""The margin deadline: deliver ≥ X into a margin account before its health can fall below h.

    equity, requirement, losses by time ─▶ seconds in which health stays ≥ h ─▶ fill deadline
    MarginNeed + what the user gives ─▶ Order: recipient = account, vault = its vault

The user states an outcome; fillers find source, bridge and swap. What a position may lose within
a time is what governance set for the margin model (λ by latency bucket), so the deadline is as
sure as the requirement itself. That is taken as it stands: it moves with the price by a small part
of what the position loses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.intent.order import OnchainOrder, Order, word
from keeper.units import PPM


@dataclass(frozen=True, slots=True)
class MarginNeed:
    """What must be in which account.

    Args:
        account: margin account, 32 bytes.
        chain: where its vault takes the delivery.
        settler: settler there, 20 bytes.
        vault: 20 bytes.
        token: 20 bytes.
        amount: least delivery in the token's smallest unit.
        health_ppm: health that must not be passed before.
    """

    account: bytes
    chain: int
    settler: bytes
    vault: bytes
    token: bytes
    amount: int
    health_ppm: int = PPM


def seconds_left(
    equity: int, requirement: int, losses: Sequence[tuple[int, int]], health_ppm: int
) -> int:
    """Return for how long an account's health stays at or above a floor; 0 if it may not.

    Args:
        equity: µUSD now.
        requirement: µUSD now.
        losses: (seconds, largest loss within them in µUSD), both rising.
        health_ppm: the floor.
    """
    left = 0
    for seconds, loss in losses:
        if (equity - loss) * PPM < health_ppm * requirement:
            break
        left = seconds
    return left


def make_order(
    need: MarginNeed, input_token: bytes, input_amount: int, now: int, seconds: int
) -> OnchainOrder:
    """Return the order that asks for a delivery within some seconds of the destination's clock.

    Raises:
        ValueError: there is no time left, or nothing is asked or given.
    """
    if seconds <= 0:
        raise ValueError("no time is left before the health floor: reduce the position instead")
    if need.amount <= 0 or input_amount <= 0:
        raise ValueError("an order gives and asks for something")
    order = Order(
        input_token=input_token,
        input_amount=input_amount,
        output_token=word(need.token),
        output_amount=need.amount,
        recipient=need.account,
        vault=word(need.vault),
        destination_chain=need.chain,
        destination_settler=word(need.settler),
    )
    return OnchainOrder(now + seconds, order.encode())


def serves(order: Order, fill_deadline: int, need: MarginNeed, until: int) -> bool:
    """Return whether a fill of an order brings what is needed by a time, into the right account."""
    return (
        order.recipient == need.account
        and order.vault == word(need.vault)
        and order.output_token == word(need.token)
        and order.destination_chain == need.chain
        and order.destination_settler == word(need.settler)
        and order.output_amount >= need.amount
        and fill_deadline <= until
    )
