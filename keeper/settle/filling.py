"""Open orders as a filling policy sees them, and the calls that deliver one.

    tables at the cut ─▶ open, not delivered, deliverable here ─▶ api.Order
    margins ───────────▶ does a delivery now bring what its account needs? until when?

Only orders of this network's settlers, for tokens that its descriptor names, into its own vaults:
what a stranger's order calls on the way is not this keeper's to find out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keeper.intent.deadline import MarginNeed, serves
from keeper.intent.order import Order, decode_delivery, word
from keeper.network import ChainSpec, NetworkSpec
from keeper.parameters import Parameters
from keeper.settle.health import seconds_above
from keeper.settle.migration import need, units_of
from keeper.snapshot.derive import Snapshot
from keeper.units import PPM
from keeper.venue.calls import calldata
from keeper.venue.intents import OpenOrder, fills, orders
from keeper.venue.port import Call, Tables
from keeper.venue.records import address
from policies import api

MAX_ORDERS = 256
"""Orders of one view: those that give most come first, so junk must lock more than they do."""


@dataclass(frozen=True, slots=True)
class Deliverable:
    """An open order, its terms decoded, and the assets of both sides."""

    open: OpenOrder
    order: Order
    given: bytes
    asked: bytes
    settler: bytes

    def calls(self, payee: bytes) -> tuple[Call, Call]:
        """Return what delivers it from the sender's tokens: let the settler pull, and fill."""
        chain, token = self.open.destination, address(self.order.output_token)
        pull = (self.settler, self.order.output_amount)
        fill = (self.open.id, self.open.data, word(payee))
        return (
            Call(chain, token, calldata("approve", ("address", "uint256"), pull)),
            Call(chain, self.settler, calldata("fill", ("bytes32", "bytes", "bytes"), fill)),
        )


def deliverable(network: NetworkSpec, tables: Tables) -> Iterator[Deliverable]:
    """Yield the open orders that nobody has delivered and a keeper of this network can."""
    delivered = {
        spec.id: fills(spec, tables[spec.id]) for spec in network.chains if spec.id in tables
    }
    specs = {spec.id: spec for spec in network.chains}
    for origin in network.chains:
        if origin.id not in tables:
            continue
        for one in orders(origin, tables[origin.id]):
            there = specs.get(one.destination)
            if there is None or (one.id, one.data_hash) in delivered.get(one.destination, {}):
                continue
            found = _decoded(origin, there, one)
            if found is not None:
                yield found


def _decoded(origin: ChainSpec, there: ChainSpec, one: OpenOrder) -> Deliverable | None:
    settler, vault = there.contract("Intents"), there.contract("Vault")
    try:
        token, amount, recipient, into, deadline = decode_delivery(one.data)
    except ValueError:
        return None
    given = _asset(origin, one.input_token)
    asked = _asset(there, address(token))
    ours = settler is not None and one.settler == word(settler) and token == word(address(token))
    known_vault = not any(into) or (vault is not None and into == word(vault))
    same = (token, amount, deadline) == (one.token, one.amount, one.fill_deadline)
    if settler is None or given is None or asked is None or not (ours and known_vault and same):
        return None
    order = Order(
        input_token=one.input_token,
        input_amount=one.input_amount,
        output_token=token,
        output_amount=amount,
        recipient=recipient,
        vault=into,
        destination_chain=there.id,
        destination_settler=one.settler,
    )
    return Deliverable(one, order, given, asked, settler)


def _asset(spec: ChainSpec, token: bytes) -> bytes | None:
    return next((one.asset for one in spec.tokens if one.address == token), None)


def orders_of(
    network: NetworkSpec,
    parameters: Parameters,
    snapshot: Snapshot,
    found: Mapping[bytes, Deliverable],
    turns: Mapping[bytes, int],
) -> tuple[api.Order, ...]:
    """Return a policy's orders: those that give most, at most `MAX_ORDERS`, sorted by id.

    Args:
        network: the descriptor.
        parameters: what governance set.
        snapshot: the view they are seen in.
        found: by id.
        turns: unix milliseconds of this keeper's turn, by id.
    """
    now_ms = network.genesis_time_ms + snapshot.header.tick * network.tick_ms
    prices = {market: price.price_e8 for market, price in snapshot.book.prices.items()}
    decimals = {token.asset: token.decimals for spec in network.chains for token in spec.tokens}

    def worth(one: Deliverable) -> int:
        unit: int = 10 ** decimals[one.given]
        return -one.order.input_amount * prices.get(one.given, 0) // unit

    chosen = sorted(found.values(), key=lambda one: (worth(one), one.open.id))[:MAX_ORDERS]
    return tuple(
        api.Order(
            order=one.open.id,
            origin=one.open.origin,
            destination=one.open.destination,
            settler=one.settler,
            given=one.given,
            given_amount=api.Wide(one.order.input_amount),
            asked=one.asked,
            asked_amount=api.Wide(one.order.output_amount),
            deadline_ms=one.open.fill_deadline * 1000,
            needed_ms=needed_ms(parameters, snapshot, prices, one, now_ms),
            turn_ms=turns.get(one.open.id, 0),
        )
        for one in sorted(chosen, key=lambda one: one.open.id)
    )


def needed_ms(
    parameters: Parameters,
    snapshot: Snapshot,
    prices: Mapping[bytes, int],
    one: Deliverable,
    now_ms: int,
) -> int:
    """Return until when an account holds that a delivery now would save, or 0."""
    account = one.order.recipient
    margin, legs = snapshot.margins.get(account), snapshot.legs.get(account, ())
    asset = parameters.margin.asset_of.get(one.asked)
    if not any(one.order.vault) or margin is None or asset is None or one.asked not in prices:
        return 0
    if margin.health_ppm >= parameters.margin.watch_health_ppm:
        return 0
    short = need(margin.equity, margin.requirement, parameters.liquidation.target_health_ppm)
    wanted = MarginNeed(
        account=account,
        chain=one.open.destination,
        settler=one.settler,
        vault=address(one.order.vault),
        token=address(one.order.output_token),
        amount=units_of(short, prices[one.asked], asset.decimals, asset.haircut_ppm),
    )
    try:
        seconds = seconds_above(parameters.margin, prices, legs, margin, PPM)
    except KeyError:
        return 0
    now = now_ms // 1000
    return now_ms + seconds * 1000 if serves(one.order, now, wanted, now + seconds) else 0
