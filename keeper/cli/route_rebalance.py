"""`keeper route rebalance`: which lanes to pay for so that every chain has what it needs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.route.files import graph_of
from keeper.route.netting import Intent, net
from keeper.route.quote import name_of
from keeper.route.rebalance import Move, Rebalance, Task, exposure_of, rebalance
from keeper.route.risk import cvar, hazards_of, scenarios
from keeper.units import PPM, ChainId, symbol

Amounts = tuple[tuple[ChainId, int], ...]


def plan(
    graph: Annotated[Path, typer.Option(help="The lanes, as JSON.")],
    asset: Annotated[str, typer.Option(help="What to move, a symbol.")],
    surplus: Annotated[
        list[str] | None, typer.Option(help="What may leave a chain: CHAIN=AMOUNT.")
    ] = None,
    need: Annotated[
        list[str] | None, typer.Option(help="What must arrive on one: CHAIN=AMOUNT.")
    ] = None,
    intent: Annotated[
        list[str] | None,
        typer.Option(help="What somebody wants moved, netted first: FROM:TO=AMOUNT."),
    ] = None,
    gas: Annotated[
        list[str] | None, typer.Option(help="Cost of a send, in the asset: CHAIN=AMOUNT.")
    ] = None,
    deadline: Annotated[int, typer.Option(min=0, help="Seconds until delivery; 0: none.")] = 0,
    limit: Annotated[
        list[str] | None, typer.Option(help="Most behind a verifier: 0x…=AMOUNT.")
    ] = None,
    cvar_limit: Annotated[
        int, typer.Option(min=0, help="Most of the tail's mean loss; 0: none.")
    ] = 0,
    alpha_ppm: Annotated[
        int, typer.Option(min=0, max=PPM - 1, help="Where the tail begins, in ppm.")
    ] = 950_000,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest moves: fees, gas, fixed charges and expected loss together.

    Amounts are in 10**-decimals of the asset. Intents that cancel are paid where they meet; what is
    left of them has to move. The tail counts lanes of one verifier as one risk.
    """
    try:
        read = graph_of(graph.read_text(encoding="utf-8"), str(graph))
        wanted = symbol(asset)
        exposure = tuple(_limit(text) for text in limit or ())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(graph)) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    lanes = [lane for lane in read.lanes if lane.asset == wanted]
    intents = [_intent(text) for text in intent or ()]
    netted = net(intents)
    left = [
        replace(one, amount=one.amount - part) for one, part in zip(intents, netted, strict=True)
    ]
    task = Task(
        _with(_amounts(surplus or ()), [(one.origin, one.amount) for one in left]),
        _with(_amounts(need or ()), [(one.destination, one.amount) for one in left]),
        deadline * 1000,
        _amounts(gas or ()),
        exposure,
        scenarios(hazards_of(lanes)),
        alpha_ppm,
        cvar_limit,
    )
    found = rebalance(lanes, task)
    tail = cvar(exposure_of(found.moves), task.cases, task.alpha_ppm)
    if as_json:
        print_json({**_plain(found, tail), "netted": sum(netted)})
        return
    rows = [(_way(move), move.amount, move.arrives, _by(move)) for move in found.moves]
    print_table(("over", "amount", "arrives", "by"), rows, "Moves")
    facts: list[tuple[str, object]] = [("netted", sum(netted)), ("result", found.status)]
    if found.moves:
        facts += [
            ("cost", found.cost),
            ("no plan costs less than", found.bound),
            (f"tail's mean loss, {alpha_ppm / 10_000:g} %", tail),
        ]
    print_rows("", facts)


def _amounts(texts: Sequence[str]) -> Amounts:
    found = {}
    for text in texts:
        chain, _, amount = text.partition("=")
        try:
            found[ChainId(int(chain))] = int(amount)
        except ValueError as error:
            raise ConfigError(f"{text!r} is no amount; write CHAIN=AMOUNT, as 10=500") from error
    if any(amount < 0 for amount in found.values()) or len(found) != len(texts):
        raise ConfigError("amounts are not negative, and each chain has one")
    return tuple(sorted(found.items()))


def _intent(text: str) -> Intent:
    way, _, amount = text.partition("=")
    origin, _, destination = way.partition(":")
    try:
        found = Intent(ChainId(int(origin)), ChainId(int(destination)), int(amount))
    except ValueError as error:
        raise ConfigError(f"{text!r} is no intent; write FROM:TO=AMOUNT, as 1:10=500") from error
    if found.amount <= 0 or found.origin == found.destination:
        raise ConfigError(f"{text!r} moves nothing")
    return found


def _with(amounts: Amounts, more: Sequence[tuple[ChainId, int]]) -> Amounts:
    """Return the amounts with more of them added, chain by chain."""
    found = dict(amounts)
    for chain, amount in more:
        found[chain] = found.get(chain, 0) + amount
    return tuple(sorted(found.items()))


def _limit(text: str) -> tuple[bytes, int]:
    verifier, _, amount = text.partition("=")
    try:
        return bytes.fromhex(verifier.removeprefix("0x")), int(amount)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a limit; write 0x…=AMOUNT") from error


def _way(move: Move) -> str:
    return ", ".join(name_of(lane) for lane in move.path)


def _by(move: Move) -> str:
    return f"{move.latency_ms / 1000:g} s"


def _plain(found: Rebalance, tail: int) -> dict[str, Any]:
    return {
        "status": found.status,
        "cost": found.cost,
        "bound": found.bound,
        "cvar": tail,
        "moves": [
            {
                "bridges": ["0x" + lane.bridge.hex() for lane in move.path],
                "chains": [move.path[0].origin, *(lane.destination for lane in move.path)],
                "amount": move.amount,
                "arrives": move.arrives,
                "latency_ms": move.latency_ms,
            }
            for move in found.moves
        ],
    }
