"""A committee of one on the copies: it observes them, derives views, and certifies decisions.

tables and feeds of the copies ─▶ observation ─▶ derive ─▶ snapshot ─▶ seal that a copy takes
commitments and bodies it heard ──────┘
"""

from dataclasses import dataclass, field, replace

from keeper.compete.bids import Commit
from keeper.compete.state import AwardState, decode
from keeper.drill.copies import Copies
from keeper.errors import LocalError
from keeper.merkle import merkle_proof
from keeper.observe.observation import ObservationBody, SeenCommitment, SeenHead
from keeper.observe.table import Table
from keeper.snapshot.decisions import CutBlock, Decision, Observed
from keeper.snapshot.derive import Lacking, Setting, Snapshot, derive
from keeper.venue.calls import SealTuple

SIGNATURE = (1, 1, 1)
"""What the copy's committee takes for a signature."""


@dataclass(slots=True)
class Council:
    """A committee of one: observes the copies, derives views, and remembers what it heard.

    Invariants: views and ticks grow by at least one; the book is handed on from view to view.
    """

    copies: Copies
    setting: Setting
    snapshot: Snapshot
    commits: list[Commit] = field(default_factory=list)
    bodies: dict[bytes, bytes] = field(default_factory=dict)

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table after exactly this block, or None."""
        index = self.copies.by_chain[ref.chain].watcher.index
        return index.at(ref.number, ref.hash, ref.account_root)

    async def view(self) -> AwardState:
        """Derive the next view; return its competition."""
        await self.derive()
        state = decode(self.snapshot.book.rules["award"])
        open_views = {state.collecting, *state.late, *(one.view for one in state.revealing)}
        self.commits = [one for one in self.commits if one.view in open_views]
        return state

    async def derive(self) -> Snapshot:
        """Derive the next snapshot from what the copies hold now."""
        await self.copies.indexed()
        network, header = self.setting.network, self.snapshot.header
        heads: list[SeenHead] = []
        for copy in self.copies.by_chain.values():
            heads += copy.watcher.index.recent()
        now_ms = 1000 * max(head.timestamp for head in heads)
        tick = max(header.tick + 1, (now_ms - network.genesis_time_ms) // network.tick_ms)
        prices = await self.copies.prices()
        now = (network.genesis_time_ms + tick * network.tick_ms) // 1000
        body = ObservationBody(
            tick,
            tuple(sorted(heads)),
            tuple(replace(one, published_at=now) for one in prices),
            tuple(sorted(SeenCommitment(x.view, x.bidder, x.commitment) for x in self.commits)),
            tuple(sorted(self.bodies)),
        )
        observed = (Observed(0, self.setting.members[0], body),)
        found = derive(
            self.setting, self, self.snapshot, header.view + 1, tick, observed, self.bodies
        )
        if isinstance(found, Lacking):
            raise LocalError(f"the drill lacks {found}", where="copies of the chains")
        self.snapshot = found[0]
        return self.snapshot

    def certified(self, decision: Decision) -> tuple[SealTuple, tuple[bytes, ...]]:
        """Return (seal, proof) of a decision of the newest view, as the copies take it."""
        header, leaves = self.snapshot.header, self.snapshot.leaves(self.setting)
        proof = merkle_proof(leaves, leaves.index(decision.leaf))
        return (header.epoch, header.view, self.snapshot.root, *SIGNATURE), tuple(proof)
