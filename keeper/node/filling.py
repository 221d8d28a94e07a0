"""The filling policy in a node: where the operator named one, on the settlement lane's funds."""

from keeper.config import Config
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.node.parts import Parts
from keeper.settle.filler import Filler, Turns
from policies.discover import spec_of
from policies.host import PolicyHost


def filler_of(parts: Parts, config: Config, me: int, size: int) -> Filler | None:
    """Return what delivers orders for member `me` of `size`, or None where no policy is named."""
    name = config.policies.get("filling")
    if name is None:
        return None
    return Filler(
        parts.network,
        parts.parameters,
        parts.executor,
        parts.watchers,
        PolicyHost(spec_of(name)),
        lane_address(parts.keys.operator, Lane.SETTLEMENT),
        Turns(me, size),
        parts.metrics,
    )
