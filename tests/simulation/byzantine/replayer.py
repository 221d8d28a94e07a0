"""Says again what it once heard, to whom it likes, whenever it likes."""

from dataclasses import dataclass, field, replace

from p2p.types import Certificate, Message, Proposal, SignedObservation, Vote
from tests.support.agreement_cluster import Keeper

_HELD = 200


@dataclass
class Replayer(Keeper):
    """Honest, but for old messages of others, also under another epoch."""

    heard: list[Message] = field(default_factory=list)

    def deliver(self, sender: int, message: Message) -> None:
        super().deliver(sender, message)
        dice = self.cluster.random
        if len(self.heard) < _HELD:
            self.heard.append(message)
        elif dice.random() < 0.3:
            self.heard[dice.randrange(_HELD)] = message
        if dice.random() < 0.4:
            old = dice.choice(self.heard)
            if dice.random() < 0.2 and isinstance(
                old, Vote | Certificate | Proposal | SignedObservation
            ):
                old = replace(old, epoch=old.epoch + 1)
            self.cluster.carry(self.index, dice.randrange(self.cluster.committee.size), old)
