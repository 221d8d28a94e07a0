"""What a routing policy may do with this keeper's funds: every act is checked here, outside of it.

    Act ─▶ one bridge step between own places ─▶ a lane that was quoted, is sound and in time
        ─▶ funds, room, cost ─▶ step_sends: least out, coin
        ─▶ value within transfer, window and exposure ─▶ Shipment, Sends

    what these leave of a lane (`room`) is what the policy is shown of it, so that it asks for that

A policy is a stranger's code, so nothing it says is believed: it names a lane and an amount, and
all else comes from the chains and from the operator's `[routing]`. Pure.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from keeper.config import RoutingLimits
from keeper.hashing import keccak
from keeper.plan import Step
from keeper.route import shipments
from keeper.route.bridges.port import Bridge, Crossing, Send, Terms, brings, step_sends
from keeper.route.graph import Lane
from keeper.route.shipments import Place, Shipment
from keeper.units import PPM, ChainId, ceil_div

USD = 10**6
"""µUSD in a dollar."""
MOST_DECIDED = 256
"""Shipments that may be decided in one window, whatever became of them: what is kept is bounded."""
MOST_TASK = 64
"""Bytes of what a policy calls it: a hash."""
ARGS = {"amount", "asset", "destination", "least_out", "recipient"}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A lane as it is now, with the terms it was made of.

    Args:
        bridge, crossing: whose it is.
        lane: fee and latency as seen, room, whether it is cursed.
        terms: as final blocks have them.
        coin_cost: gas and the bridge's price in coin, in the asset's unit; None where not known.
        doubt: what an own transfer showed of its bridge, or empty.
    """

    bridge: Bridge
    crossing: Crossing
    lane: Lane
    terms: Terms
    coin_cost: int | None
    doubt: str = ""

    @property
    def usable(self) -> bool:
        """Return whether funds may go over it."""
        return not self.lane.cursed and not self.terms.fault and not self.doubt


@dataclass(frozen=True, slots=True)
class Price:
    """10**-8 USD for a whole unit of an asset of so many decimals."""

    price: int
    decimals: int

    def value(self, amount: int) -> int:
        """Return µUSD, rounded up."""
        return ceil_div(amount * self.price, 100 * 10**self.decimals)


@dataclass(frozen=True, slots=True)
class Board:
    """What an act is judged by.

    Args:
        limits: the operator's.
        account: whose funds these are, on every chain.
        now_ms: the node's clock.
        available: per own place, what may leave it now.
        quotes: by the address that a step names as its venue, and crossing.
        prices: per asset where it is known.
        known: all shipments that are kept, in the order they were decided.
        leaving: chains where one has not left yet.
        stopped: whether a breaker stops a lane.
        first: newest final block per chain.
    """

    limits: RoutingLimits
    account: bytes
    now_ms: int
    available: Mapping[Place, int]
    quotes: Mapping[tuple[bytes, Crossing], Quoted]
    prices: Mapping[bytes, Price]
    known: Sequence[Shipment]
    leaving: Collection[ChainId]
    stopped: Callable[[Quoted], bool]
    first: Mapping[ChainId, int]


@dataclass(frozen=True, slots=True)
class Permit:
    """What may be sent."""

    shipment: Shipment
    sends: tuple[Send, ...]


def permit(board: Board, task: bytes, steps: Sequence[Step], ttl_ms: int, why: str) -> Permit | str:
    """Return what an act may send, or why it may not.

    Args:
        board: what it is judged by.
        task: what the policy calls it.
        steps: of the act.
        ttl_ms: time the policy gives it to arrive.
        why: of the policy.
    """
    try:
        step, crossing, quoted, amount = _lane(board, task, steps)
        price = _checked(board, quoted)
        sends = _sends(board, step, quoted, amount, ttl_ms)
        value = _value(board, quoted, price, amount)
    except ValueError as refusal:
        return str(refusal)
    name = b"".join(
        [
            *(task, step.venue, crossing.asset),
            *(number.to_bytes(32, "big") for number in (step.chain, crossing.destination, amount)),
            *(number.to_bytes(8, "big") for number in (board.now_ms, len(board.known))),
        ]
    )
    shipment = Shipment(
        id=keccak(name),
        task=task,
        crossing=crossing,
        bridge=step.venue,
        verifier=quoted.lane.verifier,
        amount=amount,
        brings=brings(quoted.terms, amount),
        value=value,
        decided_ms=board.now_ms,
        p95_ms=quoted.lane.p95_ms,
        first=board.first[crossing.destination],
        why=why[:200],
    )
    return Permit(shipment, sends)


def _lane(board: Board, task: bytes, steps: Sequence[Step]) -> tuple[Step, Crossing, Quoted, int]:
    """Return the one step, and the lane it names."""
    if len(task) > MOST_TASK:
        raise ValueError(f"a task of {len(task)} bytes")
    if len(steps) != 1:
        raise ValueError(f"{len(steps)} steps are not one transfer")
    (step,) = steps
    args = dict(step.args)
    unknown = args.keys() - ARGS
    if unknown:
        raise ValueError(f"a transfer has no {min(unknown)!r}")
    amount, asset, to = (args.get(name) for name in ("amount", "asset", "destination"))
    if not (isinstance(amount, int) and isinstance(asset, bytes) and isinstance(to, int)):
        raise ValueError("it does not say how much of what goes where")
    if args.get("recipient", board.account) != board.account:
        raise ValueError("the recipient is not this keeper's own account")
    crossing = Crossing(step.chain, ChainId(to), asset)
    for place in ((crossing.origin, asset), (crossing.destination, asset)):
        if place not in board.available:
            raise ValueError(f"chain {place[0]} holds no such asset of this keeper, or is away")
    quoted = board.quotes.get((step.venue, crossing))
    if quoted is None or crossing.destination not in board.first:
        raise ValueError(f"no configured bridge 0x{step.venue.hex()} goes there, or it is away")
    return step, crossing, quoted, amount


def _checked(board: Board, quoted: Quoted) -> Price:
    """Return the asset's price, if nothing rules a lane out whatever goes over it.

    Raises:
        ValueError: something does.
    """
    limits, crossing = board.limits, quoted.crossing
    if not quoted.usable:
        raise ValueError(quoted.terms.fault or quoted.doubt or "the lane is cursed")
    if board.stopped(quoted):
        raise ValueError("a breaker stops the lane")
    deadline = limits.deadline_s * 1000
    if quoted.lane.p95_ms > deadline:
        raise ValueError(f"it takes {quoted.lane.p95_ms} ms, over the deadline of {deadline}")
    if quoted.terms.value > limits.coin_wei:
        raise ValueError(f"it asks {quoted.terms.value} wei, over {limits.coin_wei}")
    rest = shipments.resting_until(board.known, crossing)
    if board.now_ms < rest:
        raise ValueError(f"the last one came to nothing; next in {rest - board.now_ms} ms")
    if crossing.origin in board.leaving:
        raise ValueError(f"another one is leaving chain {crossing.origin}")
    if sum(one.open for one in board.known) >= limits.transfers:
        raise ValueError(f"{limits.transfers} transfers are under way")
    count, _ = shipments.sent_since(board.known, board.now_ms - limits.window_s * 1000)
    if count >= MOST_DECIDED:
        raise ValueError(f"{count} transfers were tried within {limits.window_s} s")
    price = board.prices.get(crossing.asset)
    if price is None or price.price <= 0:
        raise ValueError("the asset has no price, so no limit can be kept")
    if quoted.coin_cost is None:
        raise ValueError(f"what coin costs on chain {crossing.origin} is not known")
    return price


def _left(board: Board, verifier: bytes) -> tuple[int, str]:
    """Return µUSD that may still be sent behind a verifier, and which limit says so."""
    limits = board.limits
    _, recent = shipments.sent_since(board.known, board.now_ms - limits.window_s * 1000)
    behind = shipments.exposure(board.known, verifier)
    return min(
        (limits.transfer_usd * USD, f"{limits.transfer_usd} USD a transfer"),
        (limits.window_usd * USD - recent, f"{limits.window_usd} USD in {limits.window_s} s"),
        (limits.exposure_usd * USD - behind, f"{limits.exposure_usd} USD behind one verifier"),
    )


def room(board: Board, quoted: Quoted) -> int:
    """Return the most that may go over a lane now, in its asset: what a policy is shown of it."""
    try:
        price = _checked(board, quoted)
    except ValueError:
        return 0
    left, _ = _left(board, quoted.lane.verifier)
    units: int = max(left, 0) * 100 * 10**price.decimals // price.price
    return min(quoted.lane.room, units)


def _sends(board: Board, step: Step, quoted: Quoted, amount: int, ttl_ms: int) -> tuple[Send, ...]:
    """Return the transactions, within funds, room, time, cost and coin."""
    limits, lane = board.limits, quoted.lane
    free = board.available[step.chain, quoted.crossing.asset]
    if not 0 < amount <= free:
        raise ValueError(f"{amount} of {free} that are free")
    if amount > lane.room:
        raise ValueError(f"{amount} over a lane that has room for {lane.room}")
    if lane.p95_ms > ttl_ms:
        raise ValueError(f"the lane takes {lane.p95_ms} ms, over the policy's {ttl_ms}")
    cost = amount - brings(quoted.terms, amount) + (quoted.coin_cost or 0)
    if cost * PPM > amount * limits.cost_ppm:
        raise ValueError(f"it costs {cost} of {amount}, over {limits.cost_ppm} ppm")
    if not isinstance(least := dict(step.args).get("least_out"), int) or least < 1:
        raise ValueError("it does not say what must arrive at least")
    return step_sends([quoted.bridge], step, board.account, quoted.terms, limits.coin_wei)


def _value(board: Board, quoted: Quoted, price: Price, amount: int) -> int:
    """Return the µUSD an amount is worth, within the operator's limits."""
    value = price.value(amount)
    left, limit = _left(board, quoted.lane.verifier)
    if value > left:
        raise ValueError(f"{value} µUSD, and {max(left, 0)} are left of {limit}")
    return value
