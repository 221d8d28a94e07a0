"""The ways back: a late keeper, a restart, a lost log, a gap in history, the end of an epoch."""

import pytest

from p2p.agreement.effects import Broadcast, Finalized, Jumped, Persist
from p2p.agreement.history import answer_sync, finalized_since
from p2p.agreement.log import MemoryLog, Opened
from p2p.types import Certificate, Heartbeat, Kind, Need, Proposal, Vote
from tests.simulation.byzantine.silent import Silent
from tests.support.agreement_cluster import Cluster, Keeper, Weather

CALM = Weather(calm_at=0.0)


def agreed(size: int = 4, until: float = 4.0, **more: object) -> Cluster:
    return Cluster(size, 1, weather=CALM, **more).run(until)  # type: ignore[arg-type]  # test options


def test_every_tick_gives_a_final_block_when_nothing_goes_wrong() -> None:
    cluster = agreed(until=4.0)
    for keeper in cluster.honest:
        ticks = [final.tick for final in keeper.finals.values()]
        assert ticks == list(range(1, len(ticks) + 1))
        assert len(ticks) >= 18
        assert not keeper.refused
        assert not keeper.evidence


def test_finals_carry_a_certificate_of_their_view_or_a_descendant() -> None:
    cluster = Cluster(4, 3, weather=Weather()).run(6.0)
    for final in cluster.keepers[0].finals.values():
        assert final.certificate.kind is Kind.FINALIZE
        assert final.certificate.view >= final.view


def test_a_keeper_that_was_down_catches_up_by_sync() -> None:
    cluster = Cluster(4, 5, weather=CALM)
    cluster.run(0.5)
    late = cluster.keepers[2]
    late.crash()
    cluster.run(12.0)
    missed = len(cluster.keepers[0].finals) - len(late.finals)
    assert missed > 20
    cluster.at(cluster.now, late.restart)
    cluster.run(14.0)
    assert cluster.settle(3, 30.0)
    assert len(late.finals) == len(cluster.keepers[0].finals)


def test_a_restarted_core_tells_the_application_what_is_final() -> None:
    cluster = agreed()
    keeper = cluster.keepers[1]
    told = list(finalized_since(keeper.log, 1, 0))
    assert [(f.view, f.digest) for f in told] == cluster.chain(keeper)
    assert told == [keeper.finals[f.view] for f in told]


@pytest.mark.parametrize("at", [0.3, 0.75, 1.02, 1.07, 1.13])
def test_power_loss_of_the_whole_committee(at: float) -> None:
    cluster = Cluster(4, 2, weather=CALM).run(at)
    for keeper in cluster.keepers:
        keeper.crash()
    for keeper in cluster.keepers:
        cluster.at(at + 0.2 + keeper.index / 100, keeper.restart)
    assert cluster.settle(5, 20.0)
    assert cluster.is_safe()
    assert cluster.auditor.guilty == set()


def test_a_keeper_without_its_log_watches_then_signs_again() -> None:
    cluster = Cluster(4, 7, weather=CALM).run(2.1)
    keeper = cluster.keepers[3]
    keeper.crash()
    keeper.log = MemoryLog()
    before = keeper.core.view
    keeper.restart()
    assert not keeper.core.may_vote
    cluster.run(12.0)
    assert keeper.core.may_vote
    own = [view for view in range(200) if keeper.log.votes(1, view)]
    assert min(own) > before + 4, "n views above everything a quorum had reached"
    assert cluster.auditor.guilty == set()
    assert Opened(cluster.committee.config) in [
        Opened(cluster.committee.config)
        for restored in [keeper.log.restore(1, cluster.committee.config)]
        if restored.opened
    ]


def test_a_claim_without_proof_does_not_prolong_the_wait() -> None:
    class Boaster(Keeper):
        def send(self, to: int | None, message: object) -> None:
            if isinstance(message, Heartbeat):
                message = Heartbeat(
                    message.epoch, message.config, 2**60, message.final_view,
                    message.final_digest, (), 1, 0,
                )  # fmt: skip
            super().send(to, message)  # type: ignore[arg-type]  # only heartbeats are changed

    cluster = Cluster(4, 7, weather=CALM, liars={0: Boaster}).run(2.1)
    keeper = cluster.keepers[3]
    keeper.crash()
    keeper.log = MemoryLog()
    keeper.restart()
    cluster.run(15.0)
    assert keeper.core.may_vote


def test_a_jump_over_history_that_nobody_tells() -> None:
    cluster = agreed(until=4.0)
    source = cluster.keepers[0].log
    tail = answer_sync(source, 1, 10)
    assert tail is not None
    newcomer = Keeper(cluster, 1)
    newcomer.core.start(cluster.now)
    newcomer.application.states.add(tail.blocks[0].parent)
    effects = newcomer.core.jump(tail, cluster.now)
    jumped = [effect for effect in effects if isinstance(effect, Jumped)]
    assert [(j.from_view, j.view) for j in jumped] == [(0, tail.blocks[0].parent_view)]
    finals = [effect.view for effect in effects if isinstance(effect, Finalized)]
    assert finals == [block.view for block in tail.blocks]


def test_an_epoch_ends_at_a_final_view() -> None:
    cluster = agreed(until=3.0)
    for keeper in cluster.keepers:
        last = keeper.core.final.view
        effects = keeper.core.close(last, cluster.now)
        assert any(
            isinstance(e, Broadcast)
            and isinstance(e.message, Certificate)
            and e.message.kind is Kind.FINALIZE
            for e in effects
        )
    signed = {keeper.index: dict(keeper.log._votes) for keeper in cluster.keepers}
    cluster.run(6.0)
    assert {keeper.index: dict(keeper.log._votes) for keeper in cluster.keepers} == signed
    answers = cluster.keepers[0].core.receive(1, Need(3), cluster.now)
    assert answers, "who is late is still answered"


def test_votes_and_bodies_are_durable_before_they_are_sent() -> None:
    class Watched(Keeper):
        def perform(self, effects: object) -> None:
            durable: set[object] = set()
            for effect in effects:  # type: ignore[attr-defined]  # a tuple of effects
                match effect:
                    case Persist(records):
                        durable.update(id(record) for record in records)
                        self.log.write(records)
                    case Broadcast(Vote() as vote):
                        held = self.log.votes(vote.epoch, vote.view)
                        assert vote in held
                    case Broadcast(Proposal() as body):
                        assert self.log.votes(body.epoch, body.view)
                    case Broadcast(Certificate() as proof):
                        assert self.log.certificate(proof.epoch, proof.kind, proof.view)
                    case _:
                        pass
            super().perform([e for e in effects if not isinstance(e, Persist)])  # type: ignore[attr-defined]  # as above

    cluster = Cluster(4, 1, weather=Weather(calm_at=1.0), keeper=Watched).run(3.0)
    assert len(cluster.keepers[0].finals) > 5


def test_a_dead_leader_is_skipped_without_waiting_for_it() -> None:
    cluster = Cluster(7, 1, weather=CALM, liars={2: Silent, 5: Silent}).run(10.0)
    keeper = cluster.keepers[0]
    assert len(keeper.finals) >= 40
    late = [f.tick for f in keeper.finals.values() if f.tick > 15]
    assert late == list(range(late[0], late[-1] + 1)), "no tick is lost once the dead are known"


def test_a_keeper_whose_chain_lags_waits_and_then_votes() -> None:
    cluster = Cluster(4, 9, weather=CALM).run(0.5)
    slow = cluster.keepers[1]
    for at in range(30):
        cluster.run(0.55 + 0.2 * at)  # between the final block of a tick and the next tick
        if cluster.keepers[0].core.leader(cluster.keepers[0].core.view) in (0, 2):
            break
    cluster.keepers[3].crash()
    view = slow.core.view
    slow.application.lagging = True
    cluster.run(cluster.now + 0.25)
    assert slow.core.view == view
    assert slow.log.votes(1, view) == (), "neither yes nor no while it cannot tell"
    slow.application.lagging = False
    slow.perform(slow.core.retry(cluster.now))
    assert {vote.kind for vote in slow.log.votes(1, view)} >= {Kind.NOTARIZE}
    cluster.run(cluster.now + 0.3)
    assert view in slow.finals


def test_a_keeper_later_than_anybody_remembers_jumps_by_itself() -> None:
    cluster = Cluster(4, 5, weather=CALM).run(0.5)
    late = cluster.keepers[2]
    late.crash()
    cluster.run(10.0)
    for other in cluster.keepers:
        if other is not late:
            final = other.core.final.view
            other.log._prune(final - 10)
    late.application.states.update(
        digest for other in cluster.keepers for digest in other.application.states
    )  # what a driver fetches from a peer
    cluster.at(cluster.now, late.restart)
    cluster.run(14.0)
    assert late.core.final.view >= cluster.keepers[0].core.final.view - 2
    assert len(late.finals) < len(cluster.keepers[0].finals) - 20
    theirs = dict(cluster.chain(cluster.keepers[0]))
    assert all(theirs[view] == digest for view, digest in cluster.chain(late))
