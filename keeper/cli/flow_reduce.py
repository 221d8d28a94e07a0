"""`keeper flow reduce`: positions at several venues down together, until an account is healthy.

newest certified cut ─▶ margin, positions ─▶ the least share of each that reaches --health
governance's limit per market ─▶ legs.json for `keeper flow draft`
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from keeper import config
from keeper.cli.account import load_state
from keeper.cli.onchain import ask
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.margin.marks import Unpriced
from keeper.settle.deleverage import Plan, legs_of, plan, reducible
from keeper.settle.terms import MAX_LEGS, plain_leg, read_address
from keeper.units import PPM, symbol, symbol_text
from keeper.venue.book import accounts


def reduce(
    owner: Annotated[str, typer.Option(help="Whose positions they are, an address.")],
    out: Annotated[Path, typer.Option(help="Where to write the legs.")],
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    index: Annotated[int, typer.Option(min=0, help="Which of the owner's margin accounts.")] = 0,
    health_ppm: Annotated[
        int, typer.Option("--health", min=PPM, help="Health to reach, in ppm.")
    ] = 1_150_000,
    market: Annotated[
        list[str] | None, typer.Option(help="Reduce only this market; may be repeated.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Plan to reduce an account's positions at all venues at once, by the same share of each.

    The owner locks the legs by `keeper flow draft` and `keeper flow open`: all are reduced or none.
    """
    state = load_state(home)
    settings = config.load(home.resolve())
    try:
        who, only = read_address(owner), {symbol(text) for text in market or ()}
    except ValueError as error:
        raise ConfigError(f"cannot plan: {error}", where="--owner or --market") from error
    account = state.spec.account(who, index)
    legs = accounts(state.spec, state.tables, state.book.rules).get(account, ())
    positions = [leg for leg in reducible(state.spec, legs) if not only or leg.market in only]
    if not 0 < len(positions) <= MAX_LEGS:
        raise ConfigError(
            f"the account has {len(positions)} positions that a flow can reduce",
            where=f"account 0x{account.hex()}",
            remedy=f"1 to {MAX_LEGS}: choose with --market; keeper account show lists them",
        )
    fees = {}
    for leg in positions:
        (row,) = ask(settings, leg.chain, leg.venue, "Perps", "market", leg.market)
        fees[leg.chain, leg.market] = int(row[6])
    engine = state.engine()
    try:
        found = plan(engine, legs, positions, fees, health_ppm)
    except Unpriced as error:
        raise ConfigError(f"no margin without a price: {error}", where="--owner") from error
    if found is None:
        raise ConfigError(
            f"closing all of it does not bring the health to {health_ppm} ppm",
            where="--health",
            remedy="bring collateral: keeper flow plan",
        )
    if not found.closes:
        raise ConfigError("the account is that healthy already", where="--health")
    most = state.parameters.liquidation.window_value
    for (chain, name), value in found.values(engine).items():
        if value > most:
            raise ConfigError(
                f"{value} µUSD of {symbol_text(name)} on chain {chain} is more than the {most} "
                "that flows may close in a window",
                where="--health",
                remedy="aim lower, and do it again when it is done",
            )
    rows = [plain_leg(leg) for leg in legs_of(state.spec, found, who, index)]
    out.write_text(json.dumps(rows, indent=2) + "\n")
    _show(found, rows, as_json)


def _show(found: Plan, rows: list[dict[str, object]], as_json: bool) -> None:
    health = {
        "health_ppm_before": found.before.health_ppm,
        "health_ppm_after": found.after.health_ppm,
    }
    if as_json:
        print_json(health | {"legs": rows})
        return
    print_rows("Account", list(health.items()))
    cells = [(leg.chain, symbol_text(leg.market), leg.size, size) for leg, size in found.closes]
    print_table(("chain", "market", "position", "closes"), cells, "Reductions")
