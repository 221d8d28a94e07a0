"""Says the right thing when it no longer helps."""

from functools import partial

from p2p.types import Message
from tests.support.agreement_cluster import Keeper


class Late(Keeper):
    """Holds back each message for up to several views, differently for each member."""

    def send(self, to: int | None, message: Message) -> None:
        cluster = self.cluster
        cluster.auditor.hear(message)
        for member in range(cluster.committee.size) if to is None else (to,):
            if member != self.index:
                when = cluster.now + cluster.random.uniform(0.1, 1.5)
                cluster.at(when, partial(cluster.carry, self.index, member, message))
