"""Wrong variants must break, and the two-message evidence must name only who is guilty.

If one of these passes unharmed, the harness is too kind and the campaign proves nothing.
"""

import random
from collections.abc import Mapping, Sequence

import pytest

from p2p.agreement import core
from p2p.agreement.core import Agreement
from p2p.agreement.evidence import slash_arguments, verify_evidence
from p2p.agreement.log import MemoryLog, Opened, Record
from p2p.types import Committee, Kind, Message, Proposal
from tests.simulation.byzantine.equivocator import Equivocator
from tests.simulation.byzantine.twins import Twins
from tests.support.agreement_cluster import (
    CheapSigner,
    Cluster,
    Keeper,
    Weather,
    make_committee,
)

SPLIT = Weather(calm_at=1.5, loss=0.0, jitter_s=0.0, partition=True)
STORM = Weather(calm_at=2.5, loss=0.25)


def outcome(cluster: Cluster, until: float = 3.0) -> tuple[bool, set[int]]:
    """Return whether a run stayed safe, and the members that evidence names."""
    cluster.run(until)
    for one in cluster.auditor.evidence:
        assert verify_evidence(cluster.committee, CheapSigner(b""), one)
        assert slash_arguments(one)[3] != slash_arguments(one)[4]
    return cluster.is_safe(), cluster.auditor.guilty


@pytest.mark.parametrize(
    ("size", "sin", "weather", "runs"),
    [(4, Twins, SPLIT, 25), (7, Twins, SPLIT, 20), (10, Twins, SPLIT, 10)],
)
def test_one_liar_too_many_breaks_safety_and_f_plus_1_are_proven(
    size: int, sin: type[Keeper], weather: Weather, runs: int
) -> None:
    broken = 0
    for seed in range(runs):
        liars = random.Random(seed).sample(range(size), (size - 1) // 3 + 1)
        cluster = Cluster(size, seed, liars=dict.fromkeys(liars, sin), weather=weather)
        safe, guilty = outcome(cluster)
        assert guilty <= set(liars), f"seed {seed}"
        if not safe:
            broken += 1
            assert len(guilty) >= (size - 1) // 3 + 1, f"seed {seed}"
    assert broken > 0


def test_f_plus_1_equivocators_break_safety() -> None:
    broken = 0
    for seed in range(80):
        liars = random.Random(seed).sample(range(4), 2)
        cluster = Cluster(4, seed, liars=dict.fromkeys(liars, Equivocator), weather=STORM)
        safe, guilty = outcome(cluster, 4.0)
        assert guilty <= set(liars), f"seed {seed}"
        if not safe:
            broken += 1
            assert guilty == set(liars), f"seed {seed}"
    assert broken > 0


class LooseCommittee(Committee):
    """A committee of five that takes 2f + 1 for a quorum."""

    @property
    def quorum(self) -> int:
        return 2 * self.faults + 1


@pytest.mark.parametrize("loose", [True, False])
def test_2f_plus_1_is_no_quorum_at_n_5(loose: bool) -> None:
    right = make_committee(5)
    committee = (
        LooseCommittee(right.network, right.epoch, right.members, right.parameters_digest)
        if loose
        else right
    )
    broken = 0
    for seed in range(25):
        liar = seed % 5
        cluster = Cluster(5, seed, liars={liar: Twins}, weather=SPLIT, committee=committee)
        safe, guilty = outcome(cluster)
        assert guilty <= {liar}
        broken += not safe
        assert safe or guilty == {liar}
    assert (broken > 0) is loose


class Forgetful(Keeper):
    """Loses its log in every crash."""

    opened_again = True

    def restart(self) -> None:
        self.log = MemoryLog()
        if self.opened_again:
            self.log.write((Opened(self.cluster.committee.config),))
        super().restart()


class Careful(Forgetful):
    """Loses its log too, but knows that it did."""

    opened_again = False


@pytest.mark.parametrize(
    ("keeper", "framed"), [(Forgetful, True), (Careful, False), (Keeper, False)]
)
def test_restart_without_the_log_frames_who_restarts(keeper: type[Keeper], framed: bool) -> None:
    named = 0
    for seed in range(30):
        weather = Weather(calm_at=4.0, loss=0.25, crash=0.05)
        cluster = Cluster(4, seed, liars={seed % 4: Equivocator}, weather=weather, keeper=keeper)
        _, guilty = outcome(cluster, 4.0)
        named += bool(guilty - set(cluster.liars))
    assert (named > 0) is framed


def test_nullify_with_finalize_breaks_safety(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_sign(mine: Mapping[Kind, bytes], kind: Kind, digest: bytes) -> bool:
        if kind in mine:
            return False
        others = [d for other, d in mine.items() if Kind.NULLIFY not in (other, kind)]
        return all(other == digest for other in others)

    monkeypatch.setattr(core, "may_sign", may_sign)
    broken = 0
    for seed in range(50):
        liar = seed % 4
        weather = Weather(calm_at=4.0, loss=0.3, jitter_s=0.6)
        cluster = Cluster(4, seed, liars={liar: Equivocator}, weather=weather)
        safe, guilty = outcome(cluster, 6.0)
        if not safe:
            broken += 1
            signed_both = {
                one.culprit
                for one in cluster.auditor.evidence
                if {one.first.kind, one.second.kind} == {Kind.NULLIFY, Kind.FINALIZE}
            }
            assert len(guilty) >= 2
            assert guilty - {liar} <= signed_both, "only for what they did sign"
    assert broken > 0


class NoBodies(MemoryLog):
    """A log that does not keep the bodies it is given."""

    def write(self, records: Sequence[Record]) -> None:
        super().write([record for record in records if not isinstance(record, Proposal)])


class Bodiless(Keeper):
    """Votes for blocks whose bodies do not survive a crash."""

    def __post_init__(self) -> None:
        self.log = NoBodies()
        super().__post_init__()


class Vanishing(Keeper):
    """Leads one view, then is never heard again."""

    gone = False

    def send(self, to: int | None, message: Message) -> None:
        if not self.gone:
            super().send(to, message)
        if isinstance(message, Proposal) and message.signer == self.index:
            self.gone = True


def all_crash_at_the_first_certificate(keeper: type[Keeper], seed: int) -> Cluster:
    """Cut the power of all honest members as soon as one holds a certificate of the liar's."""
    calm = Weather(calm_at=0.0)
    probe = Agreement(
        make_committee(4), 0, CheapSigner(make_committee(4).members[0].address),
        Cluster(4, 0).keepers[0].application, MemoryLog(), Cluster(4, 0).timing,
    )  # fmt: skip
    liar = probe.leader(1)
    cluster = Cluster(4, seed, liars={liar: Vanishing}, weather=calm, keeper=keeper)
    while not all(1 in one.core.chain.notarized for one in cluster.honest):
        cluster.step()
    for one in cluster.honest:
        one.crash()
    for one in cluster.honest:
        cluster.at(cluster.now + 0.3, one.restart)
    cluster.run(cluster.now + 8.0)
    return cluster


@pytest.mark.parametrize("seed", range(5))
def test_votes_without_the_durable_body_stop_the_committee(seed: int) -> None:
    whole = all_crash_at_the_first_certificate(Keeper, seed)
    assert min(len(one.finals) for one in whole.honest) > 3
    bodiless = all_crash_at_the_first_certificate(Bodiless, seed)
    assert max(len(one.finals) for one in bodiless.honest) == 0
    assert whole.auditor.guilty == bodiless.auditor.guilty == set()
