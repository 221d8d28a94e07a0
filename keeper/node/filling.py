"""The filling policy in a node: where the operator named one, on the settlement lane's funds."""

import msgspec

from keeper.config import Config
from keeper.desk.seat import Seat
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.node.market import Costs, market_view
from keeper.node.parts import Parts
from keeper.settle.filler import Filler, Turns
from keeper.snapshot.derive import Setting, Snapshot
from policies import api
from policies.discover import spec_of

KIND = "filling"


def filler_of(
    parts: Parts, config: Config, setting: Setting, costs: Costs, me: int
) -> Filler | None:
    """Return what delivers orders for member `me`, or None where the operator named no policy.

    Raises:
        LookupError: there is no such policy.
    """
    name = config.policies.get(KIND)
    if name is None:
        return None
    account = lane_address(parts.keys.operator, Lane.SETTLEMENT)

    def show(snapshot: Snapshot) -> api.MarketView:
        """Return the market without accounts: an order says what its account needs."""
        gas = costs.gas(snapshot)
        view = market_view(setting, snapshot, (), gas, costs.bonuses, 0, bytes(32))
        return msgspec.structs.replace(view, accounts=())

    policy = spec_of(name, config.settings_of(KIND))
    return Filler(
        parts.network,
        parts.parameters,
        parts.executor,
        parts.watchers,
        Seat(KIND, "orders", policy, parts.home, parts.store, parts.recorder.put),
        show,
        account,
        Turns(me, len(setting.members)),
        parts.metrics,
    )
