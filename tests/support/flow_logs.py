"""A net that keeps every log with its block, as an endpoint would serve them, and plays flows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keeper.observe.table import Log
from keeper.settle.payments import payments
from keeper.settle.seen import Block
from keeper.units import ChainId
from keeper.venue.escrow import NOTHING, NOWHERE, Flow, Leg, Terms
from keeper.venue.port import Call
from keeper.venue.records import word
from tests.support.contracts import EPOCH, NETWORK, Receipt
from tests.support.flow_net import Net


@dataclass(frozen=True)
class Stamped:
    """A log and the block it is in."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block: int


@dataclass
class LoggedNet(Net):
    """See the module."""

    logs: dict[ChainId, list[Stamped]] = field(default_factory=dict)
    times: dict[Block, int] = field(default_factory=dict)

    def _take(self, at: int, receipt: Receipt) -> None:
        super()._take(at, receipt)
        self._keep(at, [Log(*row) for row in receipt.logs])

    def do(self, call: Call, who: str = "anyone") -> list[Log]:
        """Send a call and return what it logs."""
        logs = super().do(call, who)
        self._keep([chain.id for chain in self.spec.chains].index(call.chain), logs)
        return logs

    def _keep(self, at: int, logs: Sequence[Log]) -> None:
        world = self.worlds[at]
        chain = ChainId(world.chain)
        self.times[chain, world.block] = world.now
        kept = self.logs.setdefault(chain, [])
        kept += [Stamped(log.address, log.topics, log.data, world.block) for log in logs]

    # flows

    def leg(self, at: int, payer: str, receiver: str, amount: int, **more: Any) -> Leg:
        """Return a payment on a chain; with a market, the reduction of the payer's position."""
        world = self.worlds[at]
        reduces = more.get("market", NOTHING) != NOTHING
        return Leg(
            chain=ChainId(world.chain),
            escrow=world.at["Escrow"],
            payer=world.actor(payer),
            token=world.at[more.pop("token", "DevToken")],
            amount=amount,
            receiver=bytes(32) if reduces else word(world.actor(receiver)),
            vault=world.at["Perps"] if reduces else NOWHERE,
            **more,
        )

    def flow(self, *legs: Leg, number: int = 0, within_s: int = 900) -> Flow:
        """Return the flow of these legs, from now on."""
        now = max(world.now for world in self.worlds)
        arm_by = now + within_s // 3 if any(leg.deposit for leg in legs) else 0
        return Flow.of(NETWORK, Terms(EPOCH, number, arm_by, now + within_s), legs)

    def enter(self, flow: Flow, index: int, function: str = "prepare") -> None:
        """Let a leg's payer place its deposit, or lock."""
        leg = flow.legs[index]
        at = [chain.id for chain in self.spec.chains].index(leg.chain)
        names = {self.worlds[at].actor(name): name for name in ("alice", "bob", "carol", "dave")}
        self.send(at, "Escrow", function, *flow.entry(index), sender=names[leg.payer])

    def settle(self, flow: Flow) -> None:
        """Let keepers decide what is locked, anyone bring it, and anyone pay it."""
        self.settle_down(4)
        for decision in self.outstanding():
            self.bring(decision)
        self.mine()
        for call in payments(self.spec, self.records(), flow.id):
            self.do(call)
        self.mine()
