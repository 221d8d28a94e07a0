"""Hears everything and says nothing."""

from p2p.types import Message
from tests.support.agreement_cluster import Keeper


class Silent(Keeper):
    """A dead member, for everybody else."""

    def send(self, to: int | None, message: Message) -> None:
        pass
