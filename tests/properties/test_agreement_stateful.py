"""Hypothesis drives four production cores: deliver, drop, duplicate, reorder, tick, crash, lie."""

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2p.agreement.signing import vote_hash
from p2p.types import NO_DIGEST, Kind, Message, Proposal, Vote
from p2p.wire import decode, digest_of, encode
from tests.support.agreement_cluster import Cluster, Keeper, Weather

SIZE, LIAR = 4, 3
_HELD = 400
"""Messages in flight; the oldest is lost when there are more."""


class Wires(Cluster):
    """A network that delivers nothing by itself."""

    def __init__(self) -> None:
        self.flying: list[tuple[int, int, Message]] = []
        super().__init__(SIZE, 0, weather=Weather(calm_at=0.0), liars={LIAR: Keeper})

    def carry(self, source: int, member: int, message: Message) -> None:
        self.flying.append((source, member, message))
        if len(self.flying) > _HELD:
            del self.flying[0]


class Storm(RuleBasedStateMachine):
    """Whatever happens: one chain, nobody honest framed, views never fall."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Wires()
        self.cluster.run(0.05)
        self.views = [0] * SIZE

    @precondition(lambda self: self.cluster.flying)
    @rule(data=st.data(), fate=st.sampled_from(("deliver", "deliver", "drop", "duplicate")))
    def message(self, data: st.DataObject, fate: str) -> None:
        flying = self.cluster.flying
        at = data.draw(st.integers(0, len(flying) - 1))
        source, member, message = flying[at] if fate == "duplicate" else flying.pop(at)
        if fate != "drop":
            assert decode(encode(message)) == message
            self.cluster.keepers[member].deliver(source, message)

    @precondition(lambda self: len(self.cluster.flying) > 8)
    @rule(count=st.integers(1, 60))
    def deliver_oldest(self, count: int) -> None:
        for _ in range(min(count, len(self.cluster.flying))):
            source, member, message = self.cluster.flying.pop(0)
            self.cluster.keepers[member].deliver(source, message)

    @rule(by_s=st.sampled_from((0.01, 0.1, 0.3, 1.0)))
    def tick(self, by_s: float) -> None:
        self.cluster.run(self.cluster.now + by_s)
        self.cluster.now = round(self.cluster.now + by_s, 3)

    @rule(member=st.integers(0, SIZE - 1))
    def crash(self, member: int) -> None:
        keeper = self.cluster.keepers[member]
        keeper.crash()
        keeper.restart()

    @precondition(lambda self: self.cluster.flying)
    @rule(data=st.data(), kind=st.sampled_from(list(Kind)), to=st.integers(0, SIZE - 2))
    def lie(self, data: st.DataObject, kind: Kind, to: int) -> None:
        """The liar signs anything about a view and a digest that it has seen."""
        _, _, seen = data.draw(st.sampled_from(self.cluster.flying))
        match seen:
            case Proposal():
                view, digest = seen.view, digest_of(seen)
            case Vote():
                view, digest = seen.view, seen.digest
            case _:
                return
        committee = self.cluster.committee
        digest = NO_DIGEST if kind is Kind.NULLIFY else digest
        if kind is not Kind.NULLIFY and digest == NO_DIGEST:
            return
        signature = self.cluster.keepers[LIAR].signer.sign(vote_hash(committee, kind, view, digest))
        vote = Vote(committee.epoch, kind, view, digest, LIAR, signature)
        self.cluster.keepers[to].deliver(LIAR, vote)
        self.cluster.keepers[to].deliver(LIAR, replace(vote, signer=(to + 1) % SIZE))

    @invariant()
    def one_chain(self) -> None:
        assert self.cluster.is_safe()

    @invariant()
    def nobody_honest_is_framed(self) -> None:
        assert self.cluster.auditor.guilty <= {LIAR}
        for keeper in self.cluster.honest:
            assert {one.culprit for one in keeper.evidence} <= {LIAR}

    @invariant()
    def final_views_never_fall(self) -> None:
        for keeper in self.cluster.honest:
            final = keeper.core.final.view
            assert final >= self.views[keeper.index]
            assert keeper.core.view > final
            self.views[keeper.index] = final


Storm.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestStorm = Storm.TestCase
