"""Flows: gas per leg over the number of legs, and views from the last lock to every outcome.

Gas is that of whole transactions on the committed bytecode; the dearest lock of a flow is the first
on its chain. Views are counted from the one whose cut has the last leg: one decides every outcome.
"""

import sys

from keeper.leaves import flow_leg_hash
from keeper.settle.flow import flow_nonce
from scripts.benches._figure import at_most, figure
from tests.support.contracts import EPOCH
from tests.support.flow_net import FIRST, LAG, Net, rolled_back, small_world

CHAINS = 3


def gas_of(count: int, net: Net) -> tuple[list[int], int]:
    """Lock a flow of some legs over three chains; return gas of each lock, and views to decide."""
    nonce, legs = flow_nonce(EPOCH, 0), []
    for index in range(count):
        world = net.worlds[index % CHAINS]
        legs.append(
            flow_leg_hash(
                world.chain,
                world.at["Escrow"],
                payer=world.actor("alice"),
                token=world.at["DevToken"],
                amount=index + 1,
                receiver=world.actor("bob"),
            )
        )
    spent = []
    for index in range(count):
        world = net.worlds[index % CHAINS]
        args = (nonce, legs, index, world.at["DevToken"], index + 1, world.actor("bob"))
        spent.append(net.send(index % CHAINS, "Escrow", "prepare", *args, sender="alice").gas)
    net.mine(LAG + 1)
    views = 0
    while not net.decided:
        net.view()
        views += 1
    assert {decision.chain - FIRST for decision in net.decided} == set(range(min(count, CHAINS)))
    return spent, views


def main() -> bool:
    """Print the figures; return whether every goal is met."""
    worlds = [small_world(FIRST + at) for at in range(CHAINS)]
    good, dearest = [], {}
    for count in (2, 4, 8, 16):
        with rolled_back(worlds):
            spent, views = gas_of(count, Net(worlds))
        dearest[count] = max(spent)
        good.append(figure(f"prepare, one of {count} legs", dearest[count], "gas"))
        good.append(at_most(f"views from final legs to outcomes, {count} legs", views, "views", 1))
    ratio = dearest[16] / dearest[2]
    good.append(at_most("prepare, gas per leg at 16 legs over 2", ratio, "ratio", 1.05))
    return all(good)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
