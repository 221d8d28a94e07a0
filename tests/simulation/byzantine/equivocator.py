"""Says different things to different members: two blocks as leader, every vote it can think of."""

from dataclasses import dataclass, field, replace

from p2p.agreement.signing import vote_hash
from p2p.types import NO_DIGEST, Kind, Message, Proposal, Vote
from p2p.wire import digest_of
from tests.support.agreement_cluster import Keeper


@dataclass
class Equivocator(Keeper):
    """Follows the certificates so that it knows the views, and signs whatever it sees."""

    sprayed: set[tuple[Kind, int, bytes]] = field(default_factory=set)

    def deliver(self, sender: int, message: Message) -> None:
        super().deliver(sender, message)
        if isinstance(message, Proposal):
            digest = digest_of(message)
            for kind in (Kind.NOTARIZE, Kind.FINALIZE, Kind.NULLIFY):
                self.spray(kind, message.view, digest)
        elif (
            isinstance(message, Vote)
            and message.kind is not Kind.NULLIFY
            and self.cluster.random.random() < 0.5
        ):
            self.spray(Kind.NOTARIZE, message.view, message.digest)
            self.spray(Kind.FINALIZE, message.view, message.digest)

    def spray(self, kind: Kind, view: int, digest: bytes) -> None:
        """Sign a vote and show it to a random part of the committee, once."""
        digest = NO_DIGEST if kind is Kind.NULLIFY else digest
        if (kind, view, digest) in self.sprayed:
            return
        self.sprayed.add((kind, view, digest))
        vote = self.sign(kind, view, digest)
        self.cluster.auditor.hear(vote)
        for member in range(self.cluster.committee.size):
            if member != self.index and self.cluster.random.random() < 0.6:
                self.cluster.carry(self.index, member, vote)

    def sign(self, kind: Kind, view: int, digest: bytes) -> Vote:
        committee = self.cluster.committee
        signature = self.signer.sign(vote_hash(committee, kind, view, digest))
        return Vote(committee.epoch, kind, view, digest, self.index, signature)

    def send(self, to: int | None, message: Message) -> None:
        if not isinstance(message, Proposal) or message.signer != self.index:
            super().send(to, message)
            return
        blocks = [message, self.rival(message)]
        for block in blocks:
            self.cluster.auditor.hear(block)
        for member in range(self.cluster.committee.size):
            if member != self.index:
                side = self.cluster.random.randrange(2)
                self.cluster.carry(self.index, member, blocks[side])

    def rival(self, block: Proposal) -> Proposal:
        """Return another block of the same view: as valid as the first if it can be."""
        spare = len(block.observations) > self.cluster.committee.quorum
        observations = block.observations[1:] if spare else block.observations
        payload = self.application._payload(block.parent, block.tick, observations)
        if not spare:
            payload += b"!"  # the toy application reads only the first 32 bytes
        root = self.application.root(payload)
        draft = replace(block, observations=observations, payload=payload, root=root)
        vote = self.sign(Kind.NOTARIZE, block.view, digest_of(draft))
        return replace(draft, signature=vote.signature)
