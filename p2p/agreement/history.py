"""Answers from the log: what justifies a view, and the final chain for those who are late.

    Need(view)        ──▶ proposal, certificates, own votes
    Sync(from_view)   ──▶ History: blocks in chain order and one finalize certificate for the last

Used by the core for members and by the sync protocol for followers. A receiver checks one
certificate; parent digests carry its weight down to the oldest block.
"""

from collections.abc import Iterator, Sequence

from p2p.agreement.certificate import verify_certificate
from p2p.agreement.effects import Finalized
from p2p.agreement.log import Final, Log
from p2p.agreement.signing import Scheme
from p2p.types import Certificate, Committee, History, Kind, Message, Proposal
from p2p.wire import MAX_BLOCKS, MAX_FRAME, digest_of, encode

_ROOM = MAX_FRAME - 32 * 1024
"""Bytes of blocks in one answer: the rest is left for the certificate and framing."""


def answer_need(log: Log, epoch: int, view: int) -> tuple[Message, ...]:
    """Return everything this keeper can show about a view: at most 7 messages."""
    answers: list[Message] = []
    certificates = [
        held for kind in Kind if (held := log.certificate(epoch, kind, view)) is not None
    ]
    digests = [c.digest for c in certificates if c.kind is not Kind.NULLIFY]
    votes = log.votes(epoch, view)
    digests += [vote.digest for vote in votes if vote.kind is not Kind.NULLIFY]
    digests += [final.digest for final in log.finals(epoch, view - 1, 1) if final.view == view]
    for digest in digests:
        body = log.proposal(epoch, view, digest)
        if body is not None:
            answers.append(body)
            break
    return (*answers, *certificates, *votes)


def answer_sync(log: Log, epoch: int, from_view: int, limit: int = MAX_BLOCKS) -> History | None:
    """Return final blocks after `from_view` that fit a frame, up to a directly certified one.

    The answer begins later if this keeper has forgotten, or never had, what follows `from_view`.
    """
    blocks: list[Proposal] = []
    best: History | None = None
    size = 0
    for final in log.finals(epoch, from_view, min(limit, MAX_BLOCKS)):
        body = log.proposal(epoch, final.view, final.digest)
        if body is None and blocks:
            break
        if body is None:
            continue
        bare = without_certificates(body)
        size += len(encode(bare))
        if size > _ROOM:
            break
        blocks.append(bare)
        proof = log.certificate(epoch, Kind.FINALIZE, final.view)
        if proof is not None and proof.digest == final.digest:
            best = History(tuple(blocks), proof)
    return best


def without_certificates(body: Proposal) -> Proposal:
    """Return a proposal without the certificates that only its first validators need."""
    return Proposal(
        body.epoch, body.view, body.parent_view, body.parent, body.tick, body.payload, body.root,
        body.observations, (), body.signer, body.signature,
    )  # fmt: skip


def verify_history(committee: Committee, scheme: Scheme, history: History) -> bool:
    """Return whether the blocks form one chain whose end a quorum finalised."""
    if not history.blocks or history.certificate.kind is not Kind.FINALIZE:
        return False
    last = history.blocks[-1]
    if (last.view, digest_of(last)) != (history.certificate.view, history.certificate.digest):
        return False
    for older, newer in zip(history.blocks, history.blocks[1:], strict=False):
        if (newer.parent_view, newer.parent) != (older.view, digest_of(older)):
            return False
    return verify_certificate(committee, scheme, history.certificate)


def finalized_of(body: Proposal, digest: bytes, certificate: Certificate) -> Finalized:
    """Return the effect that tells of a final block."""
    return Finalized(
        body.epoch, body.view, digest, body.parent, body.tick, body.root, body.payload,
        body.observations, certificate,
    )  # fmt: skip


def finalized_since(log: Log, epoch: int, from_view: int) -> Iterator[Finalized]:
    """Yield the final chain after a view from the log: how an application catches up at start."""
    waiting: list[tuple[Final, Proposal]] = []
    view = from_view
    while page := log.finals(epoch, view, MAX_BLOCKS):
        for final in page:
            view = final.view
            body = log.proposal(epoch, final.view, final.digest)
            if body is not None:
                waiting.append((final, body))
            proof = log.certificate(epoch, Kind.FINALIZE, final.view)
            if proof is not None:
                yield from _released(waiting, proof)
                waiting = []


def _released(waiting: Sequence[tuple[Final, Proposal]], proof: Certificate) -> Iterator[Finalized]:
    for final, body in waiting:
        yield finalized_of(body, final.digest, proof)
