"""Release: tokens leave a vault for the owner when nothing needs them.

    WithdrawRequested(account, token, amount, to, nonce)
        └─ the vault holds it after every decision in flight        local rule
        └─ free collateral without it ≥ 0                           certified rule
        └─ breakers allow
             └─▶ Release(account, token, amount, to, nonce, expiry) ─▶ Vault

The vault sets a served request to zero, so a request is answered once; while an answer is on its
way the same nonce is not answered again. Source: docs/clearing.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keeper.clear.outflow import token_scope
from keeper.clear.outstanding import (
    Place,
    field_bytes,
    field_int,
    free_collateral,
    is_fresh,
    legs_after_releases,
    living_limits,
    room,
    taken_tokens,
)
from keeper.leaves import release_leaf
from keeper.legs import LegKind
from keeper.margin.breaker import Action
from keeper.margin.engine import Engine
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import countable, stopped
from keeper.snapshot.marks import engine_at
from keeper.venue.vault import WithdrawRequest, balance, withdraw_requests

MAX_PER_VIEW = 48
"""Releases of one view; the rest waits for the next."""


@dataclass(frozen=True, slots=True)
class ReleaseRule:
    """Answers requests to withdraw; it keeps no state of its own."""

    name: str = "release"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return b""

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the releases of this view."""
        engine = engine_at(context)
        limits = living_limits(context, context.outstanding)
        most = room(context, MAX_PER_VIEW)
        made: list[Decision] = []
        for spec, records in context.seen_chains():
            if stopped(context, Action.WITHDRAW, spec.id):
                continue
            for request in withdraw_requests(spec, records):
                if len(made) >= most:
                    break
                decision = _decision(context, request)
                if decision is None or _flying(context, made, request):
                    continue
                lent = limits.get(request.account, {})
                if _allowed(context, engine, made, decision, request, lent):
                    made.append(decision)
        return b"", tuple(sorted(made, key=lambda decision: decision.order))


def _flying(context: Context, made: Sequence[Decision], request: WithdrawRequest) -> bool:
    """Return whether an answer to this very request is on its way."""
    return any(
        other.kind == "Release"
        and other.chain == request.chain
        and field_bytes(other, 0) == request.account
        and field_int(other, 4) == request.nonce
        for other in (*context.outstanding, *made)
    )


def _allowed(
    context: Context,
    engine: Engine,
    made: Sequence[Decision],
    decision: Decision,
    request: WithdrawRequest,
    lent: Mapping[Place, int],
) -> bool:
    flying = (*context.outstanding, *made)
    spec, records = context.network.chain(request.chain), context.tables[request.chain]
    held = balance(spec, records, request.account, request.token)
    taken = taken_tokens(flying).get((request.chain, request.account, request.token), 0)
    if held - taken < request.amount:
        return False
    legs = context.legs.get(request.account, ())
    left = legs_after_releases(context.network, request.account, legs, (*flying, decision))
    engaged = bool(lent) or any(leg.kind is not LegKind.COLLATERAL and leg.size for leg in left)
    if engaged and not is_fresh(context, left):
        return False
    markets = [leg.market for leg in left] if engaged else []
    if stopped(context, Action.WITHDRAW, request.chain, token_scope(request.token), *markets):
        return False
    free = free_collateral(engine, countable(context, engine, left), lent)
    return free is not None and free >= 0


def _decision(context: Context, request: WithdrawRequest) -> Decision | None:
    vault = context.network.chain(request.chain).contract("Vault")
    if vault is None:
        return None
    expiry = context.cut[request.chain].number + context.parameters.clearing.release_blocks
    return Decision(
        kind="Release",
        chain=request.chain,
        contract=vault,
        key=request.chain.to_bytes(8, "big") + request.account + request.token,
        leaf=release_leaf(
            context.network.id,
            context.epoch,
            request.chain,
            vault,
            account=request.account,
            token=request.token,
            amount=request.amount,
            to=request.to,
            nonce=request.nonce,
            expiry=expiry,
        ),
        fields=(
            request.account,
            request.token,
            request.amount,
            request.to,
            request.nonce,
            expiry,
        ),
        expiry=expiry,
    )
