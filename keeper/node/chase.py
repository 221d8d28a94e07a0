"""Finds out whether the network went on to another epoch without this keeper.

    a later epoch is registered than the one at work? ─▶ ask one keeper after the other
        Sync(our epoch, our view)  ─▶ history of it ─▶ followed to its last view
        Sync(later epoch, 0)       ─▶ a proven history ─▶ left behind: go there, with its state

While both have nothing, the epoch has not ended: this keeper's own vote may be what it waits for.
"""

from collections.abc import Awaitable, Callable

import trio

from keeper.errors import RemoteFault
from p2p.agreement.history import verify_history
from p2p.agreement.signing import Ecdsa
from p2p.identity import peer_id_text
from p2p.port import Network, Road
from p2p.types import Committee, History, Sync
from p2p.wire import decode, encode

CHASE_S = 3.0
"""How often to look: a hand-over that goes well is over before."""
ANSWER_S = 3.0
"""How long one keeper may take to answer."""


VAIN_ROUNDS = 2
"""Rounds without a step forward before the epoch at work is left as it is."""


class Chase:
    """Looks beyond the epoch at work."""

    def __init__(
        self,
        committee: Committee,
        network: Network,
        newest: Callable[[], Committee | None],
        view: Callable[[], int],
        follow: Callable[[History], Awaitable[None]],
    ) -> None:
        """Compose; nothing runs yet.

        Args:
            committee: of the epoch at work.
            network: asks peers.
            newest: the newest registered committee.
            view: the newest final view here.
            follow: takes a history of the epoch at work, which it checks itself.
        """
        self._committee, self._network, self._newest = committee, network, newest
        self._view, self._follow = view, follow

    async def run(self) -> None:
        """Return once a later epoch is proven to be at work and nobody helps us end this one."""
        vain = 0
        while vain < VAIN_ROUNDS:
            await trio.sleep(CHASE_S)
            later = self._newest()
            if later is not None and later.epoch > self._committee.epoch:
                before = self._view()
                proven = await self._round(later)
                vain = vain + 1 if proven and self._view() == before else 0

    async def end(self, scope: trio.CancelScope) -> None:
        """End the work of an epoch that is left behind."""
        await self.run()
        scope.cancel()

    async def _round(self, later: Committee) -> bool:
        """Ask everybody once; return whether the later epoch is proven to be at work."""
        proven = False
        for row in self._network.peers():
            if not row.connected:
                continue
            ours = await self._ask(row.peer, Sync(self._committee.epoch, self._view()))
            if ours is not None:
                await self._follow(ours)
            elif not proven:
                ahead = await self._ask(row.peer, Sync(later.epoch, 0))
                proven = ahead is not None and verify_history(later, Ecdsa(), ahead)
        return proven

    async def _ask(self, peer: bytes, question: Sync) -> History | None:
        """Return a peer's answer, not yet checked; None where it has none."""
        try:
            with trio.fail_after(ANSWER_S):
                raw = await self._network.request(peer, Road.SYNC, encode(question))
            answer = decode(raw, peer_id_text(peer)) if raw else None
        except (trio.TooSlowError, RemoteFault):
            return None
        return answer if isinstance(answer, History) else None
