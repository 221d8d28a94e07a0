"""Quorum certificates: made from votes, checked by anyone, shown to any chain.

    bitmap   bit i set: member i of the epoch signed
    sigs     64 bytes each, in order of the bits, all over the same EIP-712 vote

A chain gets a block's fields, the bitmap and the signatures, and recovers each signer (about 4.7k
gas each).
"""

from collections.abc import Sequence

from p2p.agreement.signing import Scheme, vote_hash
from p2p.types import Certificate, Committee, Kind, Proposal, Vote
from p2p.wire import body_hash, digest_of


def certificate_of(votes: Sequence[Vote]) -> Certificate:
    """Return the certificate of equal votes of distinct members, sorted by signer."""
    first = votes[0]
    return Certificate(
        first.epoch,
        first.kind,
        first.view,
        first.digest,
        sum(1 << vote.signer for vote in votes),
        tuple(vote.signature for vote in votes),
    )


def verify_certificate(
    committee: Committee, scheme: Scheme, certificate: Certificate, known: Sequence[Vote] = ()
) -> bool:
    """Return whether a quorum of the committee signed it.

    Args:
        committee: of the certificate's epoch.
        scheme: checks signatures.
        certificate: anything well formed.
        known: votes already checked; their signatures are not checked again.
    """
    signers = certificate.signers
    if (
        certificate.epoch != committee.epoch
        or len(signers) < committee.quorum
        or len(signers) != len(certificate.signatures)
        or signers[-1] >= committee.size
    ):
        return False
    checked = {vote.signer: vote.signature for vote in known}
    message = vote_hash(committee, certificate.kind, certificate.view, certificate.digest)
    return all(
        checked.get(signer) == signature
        or scheme.verify(message, signature, committee.members[signer].address)
        for signer, signature in zip(signers, certificate.signatures, strict=True)
    )


FinalityArguments = tuple[
    int, int, bytes, int, bytes, int, bytes, int, list[tuple[bytes, bytes]]
]  # fmt: skip


def finality_arguments(block: Proposal, certificate: Certificate) -> FinalityArguments:
    """Return what `Committee.verify_votes` and `Snapshots.ensure_votes` take without a seal.

    The contract computes the block's digest again, so it learns the root the quorum finalised.

    Raises:
        ValueError: the certificate does not finalise this block.
    """
    if certificate.kind is not Kind.FINALIZE or certificate.digest != digest_of(block):
        raise ValueError("only a finalize certificate of this very block proves its root")
    return (
        certificate.epoch,
        certificate.view,
        block.root,
        block.parent_view,
        block.parent,
        block.tick,
        body_hash(block.payload, block.observations),
        certificate.bitmap,
        [(signature[:32], signature[32:]) for signature in certificate.signatures],
    )
