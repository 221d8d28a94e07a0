"""`keeper flow plan`: collateral to a margin account, over the makers' lanes as they are now.

offers.json, newest certified cut ─▶ what each maker holds and owes, what is stopped ─┐
escrows' logs up to the cut ───────▶ what it kept lately, and how long it took ───────┴▶ lanes
amount, or health to reach ─▶ route within the time the account surely holds ─▶ legs, plan

The plan is for whoever is asked to pay a part of it: keeper/cli/flow_check.py.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.account import State, load_state
from keeper.cli.files import read_json
from keeper.cli.flow_seen import seen_lately
from keeper.cli.onchain import ask
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.legs import Leg
from keeper.margin.breaker import Action, Level
from keeper.margin.engine import AccountMargin
from keeper.route.files import place_of
from keeper.route.graph import Place
from keeper.route.plans import plan_of
from keeper.route.quote import Quote, Request, name_of
from keeper.settle.health import seconds_above
from keeper.settle.lanes import Condition, Offer, graph_of, owed, read_offers
from keeper.settle.migration import delivering, legs_of, need, units_of
from keeper.settle.plans import Planned, overdrawn, plain_planned
from keeper.settle.terms import plain_leg, read_address
from keeper.units import PPM, ChainId, symbol_text
from keeper.venue.book import accounts
from keeper.venue.escrow import LOCKED, PLEDGED, Flow


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
    plan_out: Annotated[
        Path | None,
        typer.Option("--plan", help="Where to write the plan, which other payers check."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the best way for collateral now, and write its legs for `keeper flow draft`.

    Each offer: maker, origin, destination, asset, fee_ppm, p50_ms, p95_ms, and fee_fixed or not.
    Fee and times are what the escrows show of the maker lately, once that is enough to go by.
    """
    state = load_state(home)
    settings = config.load(home.resolve())
    try:
        owner = read_address(payer)
        into = bytes.fromhex(account.removeprefix("0x"))
        if len(into) != 32:
            raise ValueError(f"{account!r} is no margin account")
    except ValueError as error:
        raise ConfigError(f"cannot plan: {error}", where="--payer, --account") from error
    places = (place_of(origin), place_of(target))
    wanted, seconds = _wanted(state, into, places[1], amount, health_ppm)
    known = read_offers(read_json(offers), str(offers))
    graph = graph_of(state.spec, conditions(state, settings, known, places[1], deposit_ppm))
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
    made = plan_of(graph, found)
    if faults := overdrawn(graph, made):
        remedy = "leave all of its offers to there but one out, or ask for less"
        raise ConfigError(faults[0], where=str(offers), remedy=remedy)
    out.write_text(json.dumps([plain_leg(leg) for leg in legs], indent=2) + "\n")
    if plan_out is not None:
        planned = plain_planned(Planned(made, owner, into, deposit_ppm))
        plan_out.write_text(json.dumps(planned, indent=2) + "\n")
    _show(found, seconds, [plain_leg(leg) for leg in legs], as_json)


def _wanted(
    state: State, account: bytes, place: Place, amount: int, health_ppm: int
) -> tuple[int, int]:
    """Return what must arrive, and within how many seconds (0: the account is in no danger)."""
    exposed = _exposed(state, account)
    if exposed is None:
        if not amount:
            raise ConfigError(
                "the account has no health to reach", where="--health", remedy="give an --amount"
            )
        return amount, 0
    legs, margin = exposed
    asset = state.parameters.margin.asset_of.get(place.asset)
    price = state.book.prices.get(place.asset)
    if not amount:
        if asset is None or price is None:
            raise ConfigError(f"{symbol_text(place.asset)} counts for nothing", where="--to")
        short = need(margin.equity, margin.requirement, health_ppm)
        amount = units_of(short, price.price_e8, asset.decimals, asset.haircut_ppm)
    if not amount:
        raise ConfigError("the account is that healthy already", where="--health")
    seconds = _seconds(state, legs, margin)
    if not seconds:
        raise ConfigError(
            "the account may be liquidated before anything arrives",
            where="--account",
            remedy="reduce the position",
        )
    return amount, seconds


def _exposed(state: State, account: bytes) -> tuple[tuple[Leg, ...], AccountMargin] | None:
    """Return an account's legs and margin, or None where it has no positions to lose.

    Raises:
        ConfigError: it has some of which no price is agreed.
    """
    legs = accounts(state.spec, state.tables, state.book.rules).get(account, ())
    if not legs:
        return None
    margin = state.margin(legs)
    if margin is None:
        raise ConfigError("a market of the account has no agreed price", where="--account")
    return (legs, margin) if margin.requirement else None


def seconds_held(state: State, account: bytes) -> int | None:
    """Return for how many seconds an account surely stays healthy, or None: it is in no danger."""
    exposed = _exposed(state, account)
    return None if exposed is None else _seconds(state, *exposed)


def _seconds(state: State, legs: tuple[Leg, ...], margin: AccountMargin) -> int:
    return seconds_above(state.parameters.margin, state.prices, legs, margin, PPM)


def conditions(
    state: State,
    settings: config.Config,
    offers: tuple[Offer, ...],
    place: Place,
    deposit_ppm: int,
    flow: Flow | None = None,
) -> Mapping[Offer, Condition]:
    """Read what every lane is like now; what makers gave for `flow` counts as theirs still."""
    parameters = state.parameters
    price, asset = state.book.prices.get(place.asset), parameters.margin.asset_of.get(place.asset)
    if price is None or asset is None:
        raise ConfigError(
            f"{symbol_text(place.asset)} has no agreed price, so a lane's limit is not known",
            where="--to",
        )
    if state.differing:
        raise ConfigError(
            "the endpoint does not show what the keepers agreed on",
            where=f"chain {state.differing[0]}",
            remedy="set another endpoint; keeper doctor says more",
        )
    chains = {spec.id for spec in state.spec.chains}
    strange = {one for offer in offers for one in (offer.origin, offer.destination)} - chains
    if strange:
        raise ConfigError(
            f"offers for chain {min(strange)}, which the network does not have", where="OFFERS"
        )
    limit = units_of(parameters.breakers.lane_capacity, price.price_e8, asset.decimals, 0)
    promised = owed(state.spec, state.tables, () if flow is None else (flow.id,))
    seen = seen_lately(settings, state, offers)
    found = {}
    for offer in offers:
        there = state.spec.chain(offer.destination)
        token = next((one.address for one in there.tokens if one.asset == offer.asset), None)
        if token is not None:
            (held,) = ask(settings, there.id, token, "DevToken", "balanceOf", offer.maker)
            held += 0 if flow is None else _given(settings, flow, there.id, token, offer.maker)
            due = promised.get((Place(there.id, offer.asset), offer.maker), 0)
            stopped = _stopped(state, settings, offer)
            deliveries = seen.get(offer, ())
            found[offer] = Condition(held, due, limit, deposit_ppm, stopped, deliveries)
    return found


def _given(settings: config.Config, flow: Flow, chain: ChainId, token: bytes, payer: bytes) -> int:
    """Return what a payer has placed and locked of a token for a flow that is not settled."""
    given = 0
    for leg in flow.legs:
        if (leg.chain, leg.token, leg.payer) == (chain, token, payer):
            call = ("Escrow", "stage", flow.id, leg.hash)
            (stage,) = ask(settings, chain, leg.escrow, *call)
            given += leg.deposit if stage in (PLEDGED, LOCKED) else 0
            given += leg.due if stage == LOCKED else 0
    return given


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
