"""Quorum certificates: made from votes, checked by anyone, shown to any chain.

    bitmap   bit i set: member i of the epoch signed
    sigs     64 bytes each, in order of the bits, all over the same EIP-712 vote

A chain gets `(kind, view, digest, bitmap, sigs)` and recovers each signer (about 4.7k gas each).
"""

from collections.abc import Sequence

from p2p.agreement.signing import Scheme, vote_hash
from p2p.types import Certificate, Committee, Kind, Vote


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


def finality_arguments(
    committee: Committee, certificate: Certificate
) -> tuple[int, int, bytes, int, list[bytes]]:
    """Return (epoch, view, digest, bitmap, signatures): what a contract takes without a seal.

    Raises:
        ValueError: the certificate does not finalise, or belongs to another epoch.
    """
    if certificate.kind is not Kind.FINALIZE or certificate.epoch != committee.epoch:
        raise ValueError("only a finalize certificate of this epoch proves finality")
    return (
        certificate.epoch,
        certificate.view,
        certificate.digest,
        certificate.bitmap,
        list(certificate.signatures),
    )
