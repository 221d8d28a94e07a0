"""Health and status of a node, as plain values.

/livez     the loop turns
/readyz    200 when this node does its work, else 503 with machine-readable reasons
/status    everything `keeper status` shows
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from keeper.web.server import Response

STALE_VIEWS_S = 10.0
"""Without a final or a sealed view for so long, a member is not ready: many view timeouts."""


@dataclass(frozen=True, slots=True)
class Health:
    """Why a node is not ready; empty means ready."""

    reasons: tuple[tuple[str, str], ...]

    @property
    def ready(self) -> bool:
        """Return whether nothing stands in the way."""
        return not self.reasons

    def response(self) -> Response:
        """Return the answer of /readyz."""
        body = {"ready": self.ready, "reasons": [{"code": c, "text": t} for c, t in self.reasons]}
        return Response(json.dumps(body).encode(), 200 if self.ready else 503)


def judge(
    phase: str,
    chains: Mapping[int, str],
    now: float,
    final_at: float | None,
    sealed_at: float | None,
    peers_connected: int,
    peers_needed: int,
) -> Health:
    """Return what stands in the way of this node's work.

    Args:
        phase: "starting", "ceremony", "waiting", "member" or "follower".
        chains: what is wrong with each chain's watcher; empty text means nothing.
        now: this node's clock.
        final_at: when the newest final view came, None before the first.
        sealed_at: when the newest seal came, None before the first.
        peers_connected: links to other members.
        peers_needed: how many of them make a quorum with us.
    """
    reasons = [
        ("chain", f"chain {chain}: {trouble}") for chain, trouble in chains.items() if trouble
    ]
    if phase not in {"member", "follower"}:
        reasons.append((phase, f"the node is still in phase {phase!r}"))
        return Health(tuple(reasons))
    if phase == "member" and peers_connected < peers_needed:
        reasons.append(
            ("peers", f"{peers_connected} members linked, {peers_needed} make a quorum with us")
        )
    for name, at in (("final", final_at), ("sealed", sealed_at)):
        if at is None or now - at > STALE_VIEWS_S:
            age = "ever" if at is None else f"for {now - at:.0f} s"
            reasons.append((f"no_{name}_view", f"no view became {name} here {age}"))
    return Health(tuple(reasons))


def json_response(value: Any) -> Response:
    """Return a value as JSON; bytes are 0x text."""

    def plain(item: object) -> object:
        if isinstance(item, bytes):
            return "0x" + item.hex()
        raise TypeError(f"cannot show {type(item).__name__}")

    return Response(json.dumps(value, default=plain).encode())


def now() -> float:
    """Return the clock that ages are measured by."""
    return trio.current_time()
