"""`keeper flow plan`: collateral to a margin account, over the makers' lanes as they are now.

offers.json, newest certified cut ─▶ what each maker holds and owes, what is stopped ─▶ lanes
amount, or health to reach ─▶ route within the time the account surely holds ─▶ legs.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.account import State, load_state
from keeper.cli.onchain import ask
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.margin.breaker import Action, Level
from keeper.route.files import place_of
from keeper.route.graph import Place
from keeper.route.quote import Quote, Request, name_of
from keeper.settle.health import seconds_above
from keeper.settle.lanes import Condition, Offer, graph_of, owed, read_offers
from keeper.settle.migration import delivering, legs_of, need, units_of
from keeper.settle.terms import plain_leg, read_address
from keeper.units import PPM, symbol_text
from keeper.venue.book import accounts


def plan(
    offers: Annotated[Path, typer.Argument(help="JSON list of makers' offers.")],
    origin: Annotated[str, typer.Option("--from", help="Where the funds are, as chain:SYMBOL.")],
    target: Annotated[str, typer.Option("--to", help="Where they are needed, as chain:SYMBOL.")],
    account: Annotated[str, typer.Option(help="Margin account that gets them, 32 bytes.")],
    payer: Annotated[str, typer.Option(help="Whose funds they are, an address.")],
    out: Annotated[Path, typer.Option(help="Where to write the legs.")],
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    amount: Annotated[int, typer.Option(min=0, help="What must arrive; 0: see --health.")] = 0,
    health_ppm: Annotated[
        int, typer.Option("--health", min=0, help="Health to reach, in ppm, instead of an amount.")
    ] = 0,
    deposit_ppm: Annotated[
        int, typer.Option("--deposit", min=0, max=PPM, help="Deposit of every leg, in ppm.")
    ] = 10_000,
    as_json: JsonFlag = False,
) -> None:
    """Find the best way for collateral now, and write its legs for `keeper flow draft`.

    Each offer: maker, origin, destination, asset, fee_ppm, p50_ms, p95_ms, and fee_fixed or not.
    """
    state = load_state(home)
    settings = config.load(home.resolve())
    try:
        rows, owner = json.loads(offers.read_text()), read_address(payer)
        into = bytes.fromhex(account.removeprefix("0x"))
        if len(into) != 32:
            raise ValueError(f"{account!r} is no margin account")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot plan: {error}", where=str(offers)) from error
    places = (place_of(origin), place_of(target))
    wanted, seconds = _wanted(state, into, places[1], amount, health_ppm)
    graph = graph_of(
        state.spec,
        _conditions(state, settings, read_offers(rows, str(offers)), places[1], deposit_ppm),
    )
    found = delivering(graph, Request(*places, wanted, seconds * 1000))
    if found is None:
        raise ConfigError(
            f"no lanes bring {wanted} to {target}" + (f" in {seconds} s" if seconds else ""),
            where=str(offers),
            remedy="ask for less, or find more makers: keeper route explain shows what is left out",
        )
    try:
        legs = legs_of(state.spec, found, owner=owner, account=into, deposit_ppm=deposit_ppm)
    except KeyError as error:
        raise ConfigError(f"the route cannot be paid: {error}", where=str(offers)) from error
    out.write_text(json.dumps([plain_leg(leg) for leg in legs], indent=2) + "\n")
    _show(found, seconds, [plain_leg(leg) for leg in legs], as_json)


def _wanted(
    state: State, account: bytes, place: Place, amount: int, health_ppm: int
) -> tuple[int, int]:
    """Return what must arrive, and within how many seconds (0: the account is in no danger)."""
    legs = accounts(state.spec, state.tables, state.book.rules).get(account, ())
    margin = state.margin(legs) if legs else None
    if margin is None or not margin.requirement:
        if not amount:
            raise ConfigError(
                "the account has no health to reach", where="--health", remedy="give an --amount"
            )
        return amount, 0
    parameters = state.parameters.margin
    prices = {market: price.price_e8 for market, price in state.book.prices.items()}
    asset = parameters.asset_of.get(place.asset)
    if not amount:
        if asset is None or place.asset not in prices:
            raise ConfigError(f"{symbol_text(place.asset)} counts for nothing", where="--to")
        short = need(margin.equity, margin.requirement, health_ppm)
        amount = units_of(short, prices[place.asset], asset.decimals, asset.haircut_ppm)
    if not amount:
        raise ConfigError("the account is that healthy already", where="--health")
    seconds = seconds_above(parameters, prices, legs, margin, PPM)
    if not seconds:
        raise ConfigError(
            "the account may be liquidated before anything arrives",
            where="--account",
            remedy="reduce the position",
        )
    return amount, seconds


def _conditions(
    state: State,
    settings: config.Config,
    offers: tuple[Offer, ...],
    place: Place,
    deposit_ppm: int,
) -> Mapping[Offer, Condition]:
    """Read what every lane is like now."""
    parameters = state.parameters
    price, asset = state.book.prices.get(place.asset), parameters.margin.asset_of.get(place.asset)
    if price is None or asset is None:
        raise ConfigError(
            f"{symbol_text(place.asset)} has no agreed price, so a lane's limit is not known",
            where="--to",
        )
    limit = units_of(parameters.breakers.lane_capacity, price.price_e8, asset.decimals, 0)
    promised = owed(state.spec, state.tables)
    found = {}
    for offer in offers:
        there = state.spec.chain(offer.destination)
        token = next((one.address for one in there.tokens if one.asset == offer.asset), None)
        if token is not None:
            (held,) = ask(settings, there.id, token, "DevToken", "balanceOf", offer.maker)
            due = promised.get((Place(there.id, offer.asset), offer.maker), 0)
            stopped = _stopped(state, settings, offer)
            found[offer] = Condition(held, due, limit, deposit_ppm, stopped)
    return found


def _stopped(state: State, settings: config.Config, offer: Offer) -> bool:
    for chain in (offer.origin, offer.destination):
        breaker = state.spec.chain(chain).contract("Breaker")
        if breaker is not None:
            call = ("Breaker", "level", offer.scope, int(Action.WITHDRAW))
            (level,) = ask(settings, chain, breaker, *call)
            if level >= Level.STOP:
                return True
    return False


def _show(found: Quote, seconds: int, legs: list[dict[str, Any]], as_json: bool) -> None:
    value = {
        "sent": found.sent,
        "delivered": found.delivered,
        "bound": found.certificate.bound,
        "latency_ms": found.latency_ms,
        "within_s": seconds,
        "left_out": [list(pair) for pair in found.left_out],
        "legs": legs,
    }
    if as_json:
        print_json(value)
        return
    rows = [(name, value[name]) for name in ("sent", "delivered", "bound", "latency_ms")]
    print_rows("Route", [*rows, ("account holds for", f"{seconds} s" if seconds else "long")])
    hops = [
        (name_of(hop.edge.way), hop.edge.origin.chain, hop.amount, hop.least_out)
        for hop in found.hops
    ]
    print_table(("through", "from chain", "amount", "arrives"), hops, "Hops")
    if found.left_out:
        print_table(("left out", "why"), found.left_out)
