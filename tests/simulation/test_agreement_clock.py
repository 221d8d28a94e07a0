"""A machine's clock that is set back, or ahead, costs its keeper views and nobody else anything."""

from collections.abc import Sequence

import pytest

from keeper.hashing import keccak
from p2p.agreement.effects import Effect
from p2p.agreement.signing import sign_observation
from p2p.types import Message
from tests.support.agreement_cluster import Cluster, Keeper, Weather

SET_AT = 5.0


class Misset(Keeper):
    """Reads a clock that is set wrong at `SET_AT`, and right again some seconds later."""

    step = 0.0
    until = 15.0

    @property
    def now(self) -> float:
        true = self.cluster.now
        return true + self.step if SET_AT <= true < self.until else true

    def start(self) -> None:
        self.perform(self.core.start(self.now))

    def deliver(self, sender: int, message: Message) -> None:
        self.perform(self.core.receive(sender, message, self.now))

    def retry(self) -> None:
        self.perform(self.core.retry(self.now))

    def observe(self, tick: int) -> None:
        roots = (keccak(b"h%d" % tick), keccak(b"p%d" % tick), keccak(b"r%d" % tick))
        seen = sign_observation(self.cluster.committee, self.signer, tick, roots, b"")
        self.perform(self.core.observe(seen, self.now))
        self.send(None, seen)

    def perform(self, effects: Sequence[Effect]) -> None:
        super().perform(effects)
        self.wake_at = None  # its own deadline is on its own clock: the driver below looks often

    def look(self) -> None:
        if self.core.deadline is not None and self.core.deadline <= self.now:
            self.perform(self.core.tick(self.now))
        self.cluster.at(self.cluster.now + 0.01, self.look)


@pytest.mark.parametrize("step", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_clock_that_is_set_harms_only_its_keeper(step: float) -> None:
    def keeper(cluster: Cluster, index: int) -> Keeper:
        one = (Misset if index == 2 else Keeper)(cluster, index)
        if isinstance(one, Misset):
            one.step = step
            cluster.at(0.02, one.look)
        return one

    cluster = Cluster(4, 5, weather=Weather(calm_at=0.0), keeper=keeper)
    cluster.run(SET_AT)
    before = [len(one.finals) for one in cluster.keepers]
    cluster.run(15.0)
    during = [len(one.finals) for one in cluster.keepers]
    assert min(during) - max(before) >= 20, "ten seconds of ticks of 0.2 s"
    cluster.run(25.0)
    after = [len(one.finals) for one in cluster.keepers]
    assert min(after) - max(during) >= 40, "the clock is right again"
    assert cluster.is_safe()
    assert cluster.auditor.guilty == set()
    assert all(not one.refused for one in cluster.keepers if one.index != 2)
