"""Once a tick: what the watchers saw becomes one signed observation.

a third of a tick before ─▶ prices, until it starts ───┐
indexes ─▶ recent final blocks ────────────────────────┼─▶ body ─▶ signature ─▶ gossip
bids heard since, the next committee's key ────────────┘             └──▶ own agreement
"""

import time
from collections.abc import Callable, Mapping, Sequence

import trio

from keeper.network import NetworkSpec
from keeper.observe import observation
from keeper.observe.observation import NextKey, ObservationBody, SeenCommitment, SeenPrice
from keeper.observe.service import Watcher
from keeper.units import ChainId
from p2p.agreement.signing import Signer, sign_observation
from p2p.types import Committee, SignedObservation

Seen = Callable[[], tuple[Sequence[SeenCommitment], Sequence[bytes]]]
"""Returns bid commitments and hashes of reveals heard, at most `MAX_SEEN` each."""


class Observer:
    """Makes this keeper's observations."""

    def __init__(
        self,
        network: NetworkSpec,
        committee: Committee,
        signer: Signer,
        watchers: Mapping[ChainId, Watcher],
        seen: Seen,
        named: Callable[[], NextKey | None],
        emit: Callable[[SignedObservation], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._network, self._committee, self._signer = network, committee, signer
        self._watchers, self._seen, self._named, self._emit = watchers, seen, named, emit
        self._clock = clock

    async def run(self) -> None:
        """Observe at the start of every tick until cancelled."""
        lead_s = self._network.tick_ms / 3000
        while True:
            elapsed = self._clock() * 1000 - self._network.genesis_time_ms
            tick = max(0, int((elapsed + lead_s * 1000) // self._network.tick_ms) + 1)
            start = (self._network.genesis_time_ms + tick * self._network.tick_ms) / 1000
            await trio.sleep(max(0.0, start - lead_s - self._clock()))
            prices = await self._prices(lead_s)
            await trio.sleep(max(0.0, start - self._clock()))
            self._emit(self.observe(tick, prices))

    async def _prices(self, patience_s: float) -> tuple[SeenPrice, ...]:
        """Return the newest price per market; a chain that is late counts by what it said last."""
        with trio.move_on_after(patience_s):
            async with trio.open_nursery() as nursery:
                for watcher in self._watchers.values():
                    nursery.start_soon(watcher.refresh)
        newest: dict[bytes, SeenPrice] = {}
        for watcher in self._watchers.values():
            for price in watcher.prices:
                known = newest.get(price.market)
                if known is None or price.published_at > known.published_at:
                    newest[price.market] = price
        return tuple(newest[market] for market in sorted(newest))

    def observe(self, tick: int, prices: tuple[SeenPrice, ...]) -> SignedObservation:
        """Return the signed observation of a tick."""
        heads = [head for _, w in sorted(self._watchers.items()) for head in w.index.recent()]
        commitments, reveals = self._seen()
        body = ObservationBody(
            tick,
            tuple(sorted(heads, key=lambda head: (head.chain, head.number))),
            prices,
            tuple(sorted(commitments)),
            tuple(sorted(set(reveals))),
            self._named(),
        )
        return sign_observation(
            self._committee,
            self._signer,
            tick,
            body.roots(),
            observation.encode(body),
        )
