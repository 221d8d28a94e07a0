"""Writes other members' names under its own words; everything else it does is honest."""

from dataclasses import replace

from p2p.types import (
    NO_DIGEST,
    Certificate,
    History,
    Kind,
    Message,
    Proposal,
    SignedObservation,
    Vote,
)
from p2p.wire import digest_of
from tests.support.agreement_cluster import Keeper


class Forger(Keeper):
    """Answers each message with a forgery of it."""

    def deliver(self, sender: int, message: Message) -> None:
        super().deliver(sender, message)
        if sender not in self.cluster.liars and self.cluster.random.random() < 0.3:
            for forged in self.forge(message):
                self.cluster.transmit(self, None, forged)

    def forge(self, message: Message) -> list[Message]:
        junk = self.cluster.random.randbytes(64)
        size = self.cluster.committee.size
        match message:
            case Vote():
                everyone = (1 << size) - 1
                kind = self.cluster.random.choice(list(Kind))
                digest = NO_DIGEST if kind is Kind.NULLIFY else message.digest or junk[:32]
                return [
                    replace(message, kind=kind, digest=digest),
                    replace(message, signer=self.index),
                    Certificate(
                        message.epoch, kind, message.view, digest, everyone, (junk,) * size
                    ),
                    # its own signature for everybody's
                    Certificate(
                        message.epoch,
                        kind,
                        message.view,
                        digest,
                        everyone,
                        (message.signature,) * size,
                    ),
                ]
            case Proposal():
                evil = replace(message, payload=message.payload + b"?", signature=junk)
                proof = Certificate(
                    message.epoch, Kind.FINALIZE, evil.view, digest_of(evil), 1, (junk,)
                )
                return [
                    evil,
                    replace(message, view=message.view + 1, signer=self.index),
                    History((evil,), proof),
                ]
            case Certificate():
                return [
                    replace(message, kind=Kind.FINALIZE, digest=junk[:32]),
                    replace(message, view=message.view + 1),
                    replace(message, epoch=message.epoch + 1),
                ]
            case SignedObservation():
                return [
                    replace(message, tick=message.tick + 1),
                    replace(message, heads_root=junk[:32]),
                ]
            case _:
                return []
