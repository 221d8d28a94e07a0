"""Credit: collateral anywhere lets an account open positions at a venue, up to a limit, for a time.

    CreditRequested(account, limit, nonce) on the venue's chain
        └─ free collateral with this limit counted ≥ 0, nobody leaving, breakers allow
             └─▶ Credit(account, limit, nonce, expiry) ─▶ Perps

A request is recognised by its event and nonce: it is answered once, and again only when the answer
expired without having arrived. Source: docs/clearing.md.
"""

from dataclasses import dataclass

from keeper.clear.outstanding import (
    field_int,
    free_collateral,
    is_fresh,
    legs_after_releases,
    living_limits,
    room,
)
from keeper.leaves import credit_leaf
from keeper.margin.breaker import Action
from keeper.network import ChainSpec
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import countable, slowed, stopped
from keeper.snapshot.marks import engine_at
from keeper.units import PPM, ceil_div
from keeper.venue import perps
from keeper.venue.perps import CreditRequest
from keeper.venue.port import Records
from keeper.venue.vault import exiting

MAX_PER_VIEW = 48
"""Credits of one view: with releases and transfers they stay far below the largest proposal."""


@dataclass(frozen=True, slots=True)
class CreditRule:
    """Answers requests for credit; it keeps no state of its own."""

    name: str = "credit"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return b""

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the credits of this view, oldest chain and smallest account first."""
        engine = engine_at(context)
        limits = living_limits(context, context.outstanding)
        most = room(context, MAX_PER_VIEW)
        made: list[Decision] = []
        for spec, records in context.seen_chains():
            for request in _open_requests(context, spec, records):
                if len(made) >= most:
                    break
                place = (request.chain, request.venue)
                lent = dict(limits.get(request.account, {}))
                lent[place] = max(request.limit, lent.get(place, 0))
                legs = context.legs.get(request.account, ())
                legs = legs_after_releases(
                    context.network, request.account, legs, context.outstanding
                )
                free = free_collateral(engine, countable(context, engine, legs), lent)
                if free is None or free < _extra(context, request) or not is_fresh(context, legs):
                    continue
                if stopped(context, Action.INCREASE, spec.id, *(leg.market for leg in legs)):
                    continue
                if _leaving(context, request.account):
                    continue
                limits[request.account] = lent
                made.append(_decision(context, request))
        return b"", tuple(sorted(made, key=lambda decision: decision.order))


def _extra(context: Context, request: CreditRequest) -> int:
    """Return the free collateral that a slowed increase wants on top, µUSD."""
    slow = slowed(context, Action.INCREASE, request.chain)
    return (
        ceil_div(request.limit * context.parameters.breakers.slow_initial_ppm, PPM) if slow else 0
    )


def _open_requests(context: Context, spec: ChainSpec, records: Records) -> list[CreditRequest]:
    """Return requests that are neither answered on their chain nor on their way."""
    if stopped(context, Action.INCREASE, spec.id):
        return []
    given = perps.credit_limits(spec, records)
    flying = {
        (decision.fields[0], field_int(decision, 2))
        for decision in context.outstanding
        if decision.kind == "Credit" and decision.chain == spec.id
    }
    return [
        request
        for request in perps.credit_requests(spec, records)
        if (request.account not in given or request.nonce > given[request.account].nonce)
        and (request.account, request.nonce) not in flying
    ]


def _leaving(context: Context, account: bytes) -> bool:
    """Return whether the account is leaving any vault by itself: its collateral may be gone."""
    return any(
        exiting(context.network.chain(chain), records, account)
        for chain, records in sorted(context.tables.items())
    )


def _decision(context: Context, request: CreditRequest) -> Decision:
    expiry = context.cut[request.chain].number + context.parameters.clearing.credit_blocks
    return Decision(
        kind="Credit",
        chain=request.chain,
        contract=request.venue,
        key=request.chain.to_bytes(8, "big") + request.account,
        leaf=credit_leaf(
            context.network.id,
            context.epoch,
            request.chain,
            request.venue,
            account=request.account,
            limit=request.limit,
            nonce=request.nonce,
            expiry=expiry,
        ),
        fields=(request.account, request.limit, request.nonce, expiry),
        expiry=expiry,
        holds=((request.account, request.limit),),
    )
