"""Flows: gas per leg over the number of legs, and views from the last lock to every outcome.

Gas is that of whole transactions on the committed bytecode; the dearest lock of a flow is the first
on its chain. Views are counted from the one whose cut has the last leg: one decides every outcome.
"""

import sys

from keeper.units import ChainId
from keeper.venue.escrow import Leg, Terms
from keeper.venue.records import word
from scripts.benches._figure import at_most, figure
from tests.support.contracts import EPOCH, NETWORK
from tests.support.flow_net import FIRST, LAG, Net, rolled_back, small_world

CHAINS = 3


def gas_of(count: int, net: Net, deposit: int) -> tuple[dict[str, list[int]], int]:
    """Play a flow of some legs over three chains; return gas by step, and views to decide."""
    now = net.worlds[0].now
    terms = Terms(EPOCH, 0, (now + 200) * bool(deposit), now + 600)
    legs = [
        Leg(
            chain=ChainId(world.chain),
            escrow=world.at["Escrow"],
            payer=world.actor("alice"),
            token=world.at["DevToken"],
            amount=index + 1,
            receiver=word(world.actor("bob")),
            deposit=deposit,
        )
        for index in range(count)
        for world in (net.worlds[index % CHAINS],)
    ]
    hashes = [leg.hash for leg in legs]
    spent: dict[str, list[int]] = {}
    for step in ("pledge", "prepare") if deposit else ("prepare",):
        spent[step] = [
            net.send(
                *(index % CHAINS, "Escrow", step, terms.struct, hashes, index, leg.struct),
                sender="alice",
            ).gas
            for index, leg in enumerate(legs)
        ]
    net.mine(LAG + 1)
    views = 0
    while not net.decided:
        net.view()
        views += 1
    assert {decision.chain - FIRST for decision in net.decided} == set(range(min(count, CHAINS)))
    for decision in net.decided:
        net.bring(decision)
    flow = terms.flow_id(NETWORK, hashes)
    spent["pay"] = [
        net.send(index % CHAINS, "Escrow", "pay", flow, leg.struct, sender="anyone").gas
        for index, leg in enumerate(legs)
    ]
    return spent, views


def contracts() -> bool:
    """Print gas and views on the committed bytecode; return whether every goal is met."""
    worlds = [small_world(FIRST + at) for at in range(CHAINS)]
    good, dearest = [], {}
    for count in (2, 4, 8, 16):
        with rolled_back(worlds):
            spent, views = gas_of(count, Net(worlds), deposit=0)
        dearest[count] = max(spent["prepare"])
        good.append(figure(f"prepare, one of {count} legs", dearest[count], "gas"))
        good.append(figure(f"pay, one of {count} legs", max(spent["pay"]), "gas"))
        good.append(at_most(f"views from final legs to outcomes, {count} legs", views, "views", 1))
    ratio, more = dearest[16] / dearest[2], (dearest[16] - dearest[2]) / 14
    good.append(at_most("prepare, gas per leg at 16 legs over 2", ratio, "ratio", 1.1))
    # a leg's hash is a word of calldata, and is hashed: 512 gas and a little
    good.append(at_most("prepare, gas that one more leg of the flow adds", more, "gas", 640))
    with rolled_back(worlds):
        spent, _ = gas_of(4, Net(worlds), deposit=5)
    for step, gas in spent.items():
        good.append(figure(f"{step}, one of 4 legs with deposits", max(gas), "gas"))
    return all(good)


def main() -> bool:
    """Print the figures; return whether every goal is met."""
    return contracts()


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
