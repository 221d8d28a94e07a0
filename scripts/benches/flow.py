"""Flows: gas per leg, views from the last lock to every outcome, and time on three real chains.

Gas is that of whole transactions on the committed bytecode; the dearest lock of a flow is the first
on its chain. Views are counted from the one whose cut has the last leg: one decides every outcome.
Times are those of four keeper processes over libp2p and three anvils of one-second blocks, whose
second block back is final: block times and archives, not this script's clock. `--contracts` leaves
them out.
"""

import sys
import tempfile
from pathlib import Path

import trio

from keeper.cli.devnet import CACHE
from keeper.devnet.cluster import run_cluster
from keeper.devnet.ledgers import percentile, read_chains, read_store
from keeper.devnet.parties import Floor, Party
from keeper.devnet.scenarios.flows_report import times
from keeper.devnet.scenarios.liquidation import all_sealed, until
from keeper.devnet.traders import FIRST_ACCOUNT
from keeper.settle.flow import COMMIT
from keeper.settle.terms import make_flow
from keeper.units import ChainId
from keeper.venue.escrow import NOWHERE, Flow, Leg, Terms
from keeper.venue.records import word
from scripts.benches._figure import at_least, at_most, figure
from tests.support.contracts import E8, EPOCH, ETH_USD, NETWORK, USD, give_credit
from tests.support.flow_net import FIRST, LAG, Net, rolled_back, small_world

CHAINS = 3
FLOWS = 12


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
    made = Flow.of(NETWORK, terms, legs)
    spent: dict[str, list[int]] = {}
    for step in ("pledge", "prepare") if deposit else ("prepare",):
        spent[step] = [
            net.send(index % CHAINS, "Escrow", step, *made.entry(index), sender="alice").gas
            for index in range(count)
        ]
    net.mine(LAG + 1)
    views = 0
    while not net.decided:
        net.view()
        views += 1
    assert {decision.chain - FIRST for decision in net.decided} == set(range(min(count, CHAINS)))
    for decision in net.decided:
        net.bring(decision)
    spent["pay"] = [
        net.send(leg.index % CHAINS, "Escrow", "pay", made.id, leg.struct, sender="anyone").gas
        for leg in made.legs
    ]
    return spent, views


def gas_of_reductions(net: Net) -> tuple[int, int]:
    """Reduce a pair of positions by one flow; return the dearest lock and the dearest reduction."""
    size, legs = 10 * E8, []
    for world in net.worlds[:2]:
        give_credit(world, "alice", 100_000 * USD)
    for at, held in enumerate((size, -size)):
        net.send(at, "Perps", "increase", 0, ETH_USD, held, 0, sender="alice")
        at_chain = net.worlds[at].at
        place = (ChainId(net.worlds[at].chain), at_chain["Escrow"], net.worlds[at].actor("alice"))
        leg = Leg(*place, NOWHERE, size // 2, bytes(32), vault=at_chain["Perps"], market=ETH_USD)
        legs.append(leg)
    made = Flow.of(NETWORK, Terms(EPOCH, 0, 0, net.worlds[0].now + 600), legs)
    locks = [
        net.send(at, "Escrow", "prepare", *made.entry(at), sender="alice").gas for at in range(2)
    ]
    net.settle_down()
    for decision in net.decided:
        net.bring(decision)
    pays = [
        net.send(at, "Escrow", "pay", made.id, made.legs[at].struct, sender="anyone").gas
        for at in range(2)
    ]
    return max(locks), max(pays)


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
    good.append(at_most("prepare, gas per leg at 16 legs over 2", ratio, "ratio", 1.05))
    # a sibling is a word of calldata, and is hashed: one more for twice as many legs
    good.append(at_most("prepare, gas that one more leg of the flow adds", more, "gas", 200))
    with rolled_back(worlds):
        spent, _ = gas_of(4, Net(worlds), deposit=5)
    for step, gas in spent.items():
        good.append(figure(f"{step}, one of 4 legs with deposits", max(gas), "gas"))
    with rolled_back(worlds):
        lock, pay = gas_of_reductions(Net(worlds))
    good.append(figure("prepare, one of 2 reductions", lock, "gas"))
    good.append(figure("pay, one of 2 reductions", pay, "gas"))
    return all(good)


def devnet() -> bool:
    """Print how long flows take from open to committed; return whether all committed."""
    with tempfile.TemporaryDirectory(prefix="flowkeeper-bench-") as folder:
        taken = trio.run(commit_flows, Path(folder))
    good = [
        at_least(
            "flows committed on three chains", len(taken["open_to_committed_s"]), "flows", FLOWS
        )
    ]
    for name, values in taken.items():
        what, _, unit = name.rpartition("_")
        for share in (50, 95):
            value = percentile(values, share / 100)
            good.append(figure(f"{what.replace('_', ' ')}, p{share}", value, unit))
    return all(good)


async def commit_flows(folder: Path) -> dict[str, list[float]]:
    """Open flows of three legs on three chains, one after the other; return their times."""
    async with run_cluster(folder, CACHE, keepers=4, chains=CHAINS, say=print_step) as cluster:
        await cluster.wait("a sealed view", all_sealed, 90)
        parties = [
            Party(f"party {at}", cluster.hub.key(FIRST_ACCOUNT + at)) for at in range(CHAINS)
        ]
        floor = Floor(cluster, parties)
        chains = sorted(cluster.chains)
        await floor.fund({(chain, one.address): 10**9 for chain in chains for one in parties})
        flows = []
        for number in range(FLOWS):
            legs = [
                Leg(
                    chain=chain,
                    escrow=floor.contract(chain, "Escrow"),
                    payer=parties[at].address,
                    token=floor.token(chain),
                    amount=100 + number,
                    receiver=word(parties[(at + 1) % CHAINS].address),
                )
                for at, chain in enumerate(chains)
            ]
            terms = Terms(EPOCH, number, 0, await floor.now() + 600)
            flow = make_flow(cluster.spec.id, terms, legs)
            await floor.enter(flow, "prepare")
            flows.append(flow)

            async def settled(flow: Flow = flow) -> bool:
                return set((await floor.outcomes(flow)).values()) == {COMMIT}

            await until("a commit on every chain", settled, 60)
        await trio.sleep(2 * cluster.spec.tick_ms / 1000)  # what was sealed last is on disk
        facts = await read_chains(cluster)
        return times(floor, facts, await read_store(cluster.keepers[0]), flows)


def print_step(text: str) -> None:
    """Say on the error stream what happens, so that the figures stay one a line."""
    print(text, file=sys.stderr)


def main() -> bool:
    """Print the figures; return whether every goal is met."""
    good = contracts()
    return good if "--contracts" in sys.argv else devnet() and good


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
