"""Round one of signing: nonces and their commitments (RFC 9591 §5.1).

    d, e = H3(random ‖ s_i)  twice         SigningNonces: secret, used once, never stored
    D, E = d·G, e·G                        SigningCommitments: published

Three signatures with one pair give away the signing share, so a pair is consumed when it is taken:
`SigningNonces.take` works once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from p2p.frost.group import Element, RandomBytes
from p2p.frost.keys import KeyShare
from p2p.frost.secret import Secret
from p2p.frost.suite import Identifier, Suite


@dataclass(frozen=True, slots=True)
class SigningCommitments:
    """One signer's published points for one signature."""

    identifier: Identifier
    hiding: Element
    binding: Element

    def encode(self, suite: Suite) -> bytes:
        """Return the entry of `encode_group_commitment_list` (§4.3)."""
        scalar = suite.group.encode_scalar(self.identifier)
        return scalar + self.hiding.raw + self.binding.raw


class SigningNonces:
    """A secret pair that can be taken once, with its public commitments."""

    __slots__ = ("_binding", "_hiding", "commitments")

    def __init__(self, hiding: Secret, binding: Secret, commitments: SigningCommitments) -> None:
        self._hiding, self._binding, self.commitments = hiding, binding, commitments

    def take(self) -> tuple[Secret, Secret]:
        """Return (hiding, binding) and forget them here.

        Raises:
            ValueError: the pair was taken before.
        """
        if self._hiding.wiped:
            raise ValueError("nonces were used before")
        pair = Secret(self._hiding.buffer), Secret(self._binding.buffer)
        self.wipe()
        return pair

    def wipe(self) -> None:
        """Destroy the pair."""
        self._hiding.wipe()
        self._binding.wipe()

    def __repr__(self) -> str:
        return f"SigningNonces(hidden, {self.commitments.identifier})"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("nonces are never pickled or copied")


def generate_nonces(share: KeyShare, random_bytes: RandomBytes) -> SigningNonces:
    """Return a fresh pair, hedged with the signing share against a weak source of chance."""
    suite = share.group.suite
    secret = share.signing_share.reveal()
    hiding = suite.h3(random_bytes(32) + secret)
    binding = suite.h3(random_bytes(32) + secret)
    points = suite.group.base_point(hiding), suite.group.base_point(binding)
    return SigningNonces(hiding, binding, SigningCommitments(share.identifier, *points))


def sorted_commitments(
    commitments: Sequence[SigningCommitments],
) -> tuple[SigningCommitments, ...]:
    """Return the list sorted by identifier, as binding factors need it."""
    return tuple(sorted(commitments, key=lambda entry: entry.identifier))
