"""People who settle by flows on a devnet: who they are, what they hold, and what they send.

    Party ── fund, approve ─▶ pledge ─▶ lock ─▶ (keepers decide) ─▶ anyone pays

They know contracts only, no keeper. Every step goes out as one batch per chain.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import trio

from keeper.contracts import decode_result, encode_call
from keeper.devnet.cluster import Cluster
from keeper.devnet.wallet import Send, Sent, Wallet, broadcast
from keeper.keys import address_of
from keeper.margin.breaker import Action, Level
from keeper.settle.lanes import Offer
from keeper.units import ChainId
from keeper.venue.escrow import Flow
from keeper.venue.port import Call

GAS = 600_000
ENDLESS = 2**200


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with the same account on every chain."""

    name: str
    secret: bytes

    @property
    def address(self) -> bytes:
        """20 bytes."""
        return address_of(self.secret)


class Floor:
    """Acts for parties on a cluster's chains."""

    def __init__(self, cluster: Cluster, parties: Sequence[Party]) -> None:
        self.cluster = cluster
        self.parties = {one.address: one for one in parties}

    def wallet(self, who: bytes, chain: ChainId) -> Wallet:
        """Return somebody's wallet on a chain."""
        return Wallet(self.cluster.chains[chain].rpc, chain, self.parties[who].secret)

    def token(self, chain: ChainId) -> bytes:
        """Return the chain's only token."""
        return self.cluster.spec.chain(chain).tokens[0].address

    async def send(
        self, sends: Mapping[ChainId, Mapping[bytes, Sequence[Send]]]
    ) -> dict[ChainId, list[Sent]]:
        """Send what each party wants on each chain, a batch a chain, all chains at once."""
        done: dict[ChainId, list[Sent]] = {}

        async def on(chain: ChainId, wanted: Mapping[bytes, Sequence[Send]]) -> None:
            raws: list[str] = []
            for who, some in wanted.items():
                raws += await self.wallet(who, chain).sign(some)
            done[chain] = await broadcast(self.cluster.chains[chain].rpc, raws)

        async with trio.open_nursery() as nursery:
            for chain, wanted in sends.items():
                if wanted:
                    nursery.start_soon(on, chain, wanted)
        return done

    async def fund(self, holdings: Mapping[tuple[ChainId, bytes], int]) -> None:
        """Mint tokens for parties, and let every escrow pull them."""
        wanted: dict[ChainId, dict[bytes, list[Send]]] = {}
        for (chain, who), amount in sorted(holdings.items()):
            token, escrow = self.token(chain), self.contract(chain, "Escrow")
            wanted.setdefault(chain, {})[who] = [
                Send(token, encode_call("DevToken", "mint", who, amount), gas=GAS),
                Send(token, encode_call("DevToken", "approve", escrow, ENDLESS), gas=GAS),
            ]
        await self.send(wanted)

    async def enter(
        self, flow: Flow, function: str, who: Iterable[bytes] | None = None
    ) -> dict[ChainId, list[Sent]]:
        """Let payers pledge or lock their legs of a flow: all of them, or only some."""
        payers = {leg.payer for leg in flow.legs} if who is None else set(who)
        wanted: dict[ChainId, dict[bytes, list[Send]]] = {}
        for index, leg in enumerate(flow.legs):
            if leg.payer in payers:
                data = encode_call("Escrow", function, *flow.entry(index))
                some = wanted.setdefault(leg.chain, {}).setdefault(leg.payer, [])
                some.append(Send(leg.escrow, data, gas=GAS))
        return await self.send(wanted)

    async def call(self, calls: Sequence[Call], who: bytes) -> None:
        """Send calls as one party, in order on each chain."""
        wanted: dict[ChainId, dict[bytes, list[Send]]] = {}
        for call in calls:
            some = wanted.setdefault(call.chain, {}).setdefault(who, [])
            some.append(Send(call.to, call.data, gas=GAS))
        await self.send(wanted)

    def contract(self, chain: ChainId, name: str) -> bytes:
        """Return a contract of a chain."""
        address = self.cluster.spec.chain(chain).contract(name)
        assert address is not None, f"chain {chain} has no {name}"
        return address

    async def ask(self, chain: ChainId, to: bytes, name: str, function: str, *args: object) -> int:
        """Return the one number that a view function answers at the head."""
        call = {"to": "0x" + to.hex(), "data": "0x" + encode_call(name, function, *args).hex()}
        raw = await self.cluster.chains[chain].rpc.call("eth_call", [call, "latest"])
        (value,) = decode_result(name, function, bytes.fromhex(raw[2:]))
        return int(value)

    async def held(self, chain: ChainId, who: bytes) -> int:
        """Return somebody's tokens on a chain."""
        return await self.ask(chain, self.token(chain), "DevToken", "balanceOf", who)

    async def stopped(self, offer: Offer) -> bool:
        """Return whether a breaker stops a maker at one of its lane's ends."""
        levels = [
            await self.ask(
                chain,
                self.contract(chain, "Breaker"),
                *("Breaker", "level", offer.scope, int(Action.WITHDRAW)),
            )
            for chain in (offer.origin, offer.destination)
        ]
        return max(levels) >= Level.STOP

    async def outcomes(self, flow: Flow) -> dict[ChainId, int]:
        """Return what each chain that holds a leg knows of a flow at its head."""
        chains = {leg.chain: leg.escrow for leg in flow.legs}
        return {
            chain: await self.ask(chain, escrow, "Escrow", "outcome", flow.id)
            for chain, escrow in sorted(chains.items())
        }

    async def now(self) -> int:
        """Return the newest timestamp of any chain."""
        times = []
        for anvil in self.cluster.chains.values():
            block = await anvil.rpc.call("eth_getBlockByNumber", ["latest", False])
            times.append(int(block["timestamp"], 16))
        return max(times)
