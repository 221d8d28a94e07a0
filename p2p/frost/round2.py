"""Round two of signing: signature shares (RFC 9591 §4.4–5.2).

    ρ_i = H1(P ‖ H4(m) ‖ H5(list) ‖ i)         BindingFactor: ties round two to the exact list
    R   = Σ D_i + ρ_i·E_i                      GroupCommitment
    c   = H2(R ‖ P ‖ m)
    z_i = d_i + ρ_i·e_i + λ_i·c·s_i            SignatureShare

Under BIP340 the group key is normalised to even Y *before* it enters ρ (no published vector shows
this; a differential run against another implementation does); nonces are negated if R is odd, and
signing shares if P is odd.
"""

from dataclasses import dataclass

from p2p.frost.group import Element
from p2p.frost.keys import GroupKey, KeyShare, lagrange
from p2p.frost.round1 import SigningCommitments, SigningNonces
from p2p.frost.suite import Identifier


@dataclass(frozen=True, slots=True)
class SigningPackage:
    """A message and the sorted commitments of the signers who sign it together."""

    message: bytes
    commitments: tuple[SigningCommitments, ...]


@dataclass(frozen=True, slots=True)
class SignatureShare:
    """One signer's scalar; on its own it proves nothing about who made it."""

    identifier: Identifier
    z: int


class Session:
    """Everything public about one signature, computed once and shared by all its uses.

    Raises (when made):
        ValueError: too few or unknown signers, repeated or unsorted identifiers, or commitments
            that cancel out.
    """

    __slots__ = (
        "_lagrange",
        "_nonce_points",
        "binding_factors",
        "challenge",
        "group",
        "group_commitment",
        "identifiers",
        "package",
        "verifying_key",
    )

    def __init__(self, group: GroupKey, package: SigningPackage) -> None:
        suite, entries = group.suite, package.commitments
        identifiers = [entry.identifier for entry in entries]
        if not group.min_signers <= len(entries) <= group.max_signers:
            raise ValueError(f"{len(entries)} signers for a group of {group.min_signers}")
        if identifiers != sorted(set(identifiers)):
            raise ValueError("commitments must be sorted by distinct identifiers")
        if not all(identifier in group.verifying_shares for identifier in identifiers):
            raise ValueError("commitment of an identifier outside the group")
        self.group, self.package, self.identifiers = group, package, tuple(identifiers)
        self.verifying_key = suite.normal(group.verifying_key)
        encoded = b"".join(entry.encode(suite) for entry in entries)
        prefix = self.verifying_key.raw + suite.h4(package.message) + suite.h5(encoded)
        self.binding_factors = {
            i: suite.h1(prefix + suite.group.encode_scalar(i)) for i in identifiers
        }
        multiply = suite.group.multiply
        self.group_commitment = suite.group.sum(
            [entry.hiding for entry in entries]
            + [multiply(entry.binding, self.binding_factors[entry.identifier]) for entry in entries]
        )
        self.challenge = suite.challenge(self.group_commitment, self.verifying_key, package.message)
        self._lagrange: dict[Identifier, int] = {}
        self._nonce_points: dict[Identifier, Element] = {}

    @property
    def negates_nonces(self) -> bool:
        """Whether the group commitment is odd, so that every nonce is negated."""
        return not self.group.suite.is_even(self.group_commitment)

    @property
    def negates_shares(self) -> bool:
        """Whether the verifying key is odd, so that every signing share is negated."""
        return not self.group.suite.is_even(self.group.verifying_key)

    def weight(self, identifier: Identifier) -> int:
        """Return λ_i·c, negated if signing shares are."""
        if identifier not in self._lagrange:
            order = self.group.suite.group.order
            weight = lagrange(identifier, self.identifiers, order) * self.challenge % order
            self._lagrange[identifier] = order - weight if self.negates_shares else weight
        return self._lagrange[identifier]

    def nonce_point(self, identifier: Identifier) -> Element:
        """Return R_i = ±(D_i + ρ_i·E_i), what a share is checked against."""
        if identifier not in self._nonce_points:
            group = self.group.suite.group
            entry = self.package.commitments[self.identifiers.index(identifier)]
            bound = group.multiply(entry.binding, self.binding_factors[identifier])
            point = group.sum([entry.hiding, bound])
            self._nonce_points[identifier] = group.negate(point) if self.negates_nonces else point
        return self._nonce_points[identifier]


def sign(session: Session, share: KeyShare, nonces: SigningNonces) -> SignatureShare:
    """Return the signature share; the nonces are consumed even if anything fails after.

    Raises:
        ValueError: the session is of another group, lacks or changes this signer's commitments, or
            the nonces were used before.
    """
    own = nonces.commitments
    if session.group.verifying_key != share.group.verifying_key:
        raise ValueError("session of another group")
    if own.identifier != share.identifier or own not in session.package.commitments:
        raise ValueError("own commitments are not in the session")
    group = share.group.suite.group
    hiding, binding = nonces.take()
    made = [hiding, binding]
    try:
        nonce = group.multiply_add(hiding, binding, session.binding_factors[share.identifier])
        made.append(nonce)
        if session.negates_nonces:
            nonce = group.negate_secret(nonce)
            made.append(nonce)
        z = group.multiply_add(nonce, share.signing_share, session.weight(share.identifier))
        return SignatureShare(share.identifier, group.decode_scalar(z.reveal()))
    finally:
        for secret in made:
            secret.wipe()
