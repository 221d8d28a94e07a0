"""Distributed key generation without a dealer (SimplPedPop; ZF `keys::dkg`, RFC 9591 appendix C).

    round1()            commitment φ_k = a_k·G to a random polynomial, proof of knowledge of a_0
    round2(packages)    checks every package; one secret share f(j) per other participant
    finalize(shares)    checks every share;  s_i = Σ f_j(i),  P = Σ φ_0

    Participant: NEW → ROUND1 → ROUND2 → DONE

A commitment must have exactly t points, or its dealer would raise the threshold. Under BIP340 the
result is normalised to even Y and TapTweaked with an empty root, so no dealer hides a script path.
The caller encrypts the shares and must see the transcript signed by all n before the key is used:
`p2p.frost.ceremony` does both. All checks return who is to blame; nothing a peer sends raises.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from p2p.frost import polynomial
from p2p.frost.aggregate import Signature
from p2p.frost.group import Element, RandomBytes, random_secret
from p2p.frost.keys import GroupKey, KeyShare, make_shares
from p2p.frost.secret import Secret
from p2p.frost.suite import Identifier, Suite


class Fault(StrEnum):
    """What a participant did wrong."""

    MISSING = "sent nothing"
    WRONG_LENGTH = "committed to a polynomial of another degree"
    BAD_PROOF = "does not know the secret it committed to"
    BAD_SHARE = "sent a share that does not fit its commitment"
    EQUIVOCATION = "sent different packages to different participants"
    FALSE_COMPLAINT = "accused a dealer whose share is right"
    FALSE_CONFIRM = "confirmed a transcript that nobody can show"
    WRONG_CONFIG = "signed another configuration"
    BAD_MESSAGE = "sent a message that does not decode or is not signed by it"


@dataclass(frozen=True, slots=True)
class Blame:
    """Who broke the key generation and how, sorted by identifier; never empty."""

    faults: tuple[tuple[Identifier, Fault], ...]


@dataclass(frozen=True, slots=True)
class Round1Package:
    """A participant's public round one: its commitment, and the proof for its constant term."""

    identifier: Identifier
    commitment: tuple[Element, ...]
    proof_of_knowledge: Signature


def prove(
    suite: Suite,
    identifier: Identifier,
    secret: Secret,
    public: Element,
    random_bytes: RandomBytes,
    context: bytes = b"",
) -> Signature:
    """Return the proof of knowledge (R, μ = k + a_0·c) with c = HDKG(i ‖ φ_0 ‖ R ‖ context)."""
    group = suite.group
    nonce = random_secret(group, random_bytes)
    point = group.base_point(nonce)
    if not suite.is_even(point):
        nonce, point = group.negate_secret(nonce), group.negate(point)
    challenge = suite.hdkg(group.encode_scalar(identifier) + public.raw + point.raw + context)
    response = group.multiply_add(nonce, secret, challenge)
    nonce.wipe()
    return Signature(suite, point, group.decode_scalar(response.reveal()))


def verify_proof(suite: Suite, package: Round1Package, context: bytes = b"") -> bool:
    """Return whether a package's author knows its constant term."""
    group, proof = suite.group, package.proof_of_knowledge
    public = package.commitment[0]
    preimage = group.encode_scalar(package.identifier) + public.raw + proof.nonce_point.raw
    challenge = suite.hdkg(preimage + context)
    try:
        right = group.sum([proof.nonce_point, group.multiply(public, challenge)])
        return proof.suite is suite and group.base_public(proof.z) == right
    except ValueError:
        return False


class Participant:
    """One member's side of a key generation; see the drawing above.

    Args:
        identifier: this participant.
        identifiers: all participants, this one included.
        min_signers: t.
        random_bytes: source of chance.
        context: bound into every proof of knowledge; empty for interoperability.
        coefficients: fixed secret polynomial, for known-answer tests.
    """

    def __init__(
        self,
        suite: Suite,
        identifier: Identifier,
        identifiers: Sequence[Identifier],
        min_signers: int,
        random_bytes: RandomBytes,
        *,
        context: bytes = b"",
        coefficients: Sequence[Secret] | None = None,
    ) -> None:
        if sorted(set(identifiers)) != list(identifiers) or identifier not in identifiers:
            raise ValueError("identifiers must be sorted, distinct and contain this participant")
        if not 1 <= min_signers <= len(identifiers):
            raise ValueError(f"{min_signers} of {len(identifiers)} signers is out of range")
        self.suite, self.identifier, self.min_signers = suite, identifier, min_signers
        self.identifiers, self._context = tuple(identifiers), context
        self._random_bytes = random_bytes
        self._coefficients = list(
            coefficients or (random_secret(suite.group, random_bytes) for _ in range(min_signers))
        )
        self._packages: dict[Identifier, Round1Package] = {}
        self._own: Round1Package | None = None

    def round1(self) -> Round1Package:
        """Return this participant's package; the same one each time."""
        if self._own is None:
            base = self.suite.group.base_point
            commitment = tuple(base(coefficient) for coefficient in self._coefficients)
            proof = prove(
                self.suite,
                self.identifier,
                self._coefficients[0],
                commitment[0],
                self._random_bytes,
                self._context,
            )
            self._own = Round1Package(self.identifier, commitment, proof)
        return self._own

    def round2(
        self, packages: Mapping[Identifier, Round1Package]
    ) -> dict[Identifier, Secret] | Blame:
        """Check the others' packages; return the secret share for each of them, or the blame."""
        faults: list[tuple[Identifier, Fault]] = []
        for i in self.identifiers:
            if i == self.identifier:
                continue
            package = packages.get(i)
            if package is None:
                faults.append((i, Fault.MISSING))
            elif package.identifier != i:
                faults.append((i, Fault.BAD_MESSAGE))
            elif len(package.commitment) != self.min_signers:
                faults.append((i, Fault.WRONG_LENGTH))
            elif not verify_proof(self.suite, package, self._context):
                faults.append((i, Fault.BAD_PROOF))
        if faults:
            return Blame(tuple(faults))
        self._packages = {i: packages[i] for i in self.identifiers if i != self.identifier}
        self._packages[self.identifier] = self.round1()
        return {
            i: self.suite.group.polynomial(self._coefficients, i)
            for i in self.identifiers
            if i != self.identifier
        }

    def transcript(self) -> bytes:
        """Return the hash of everything public that all participants must agree on."""
        digest = hashlib.sha256(b"flowkeeper/frost/dkg/1" + self.suite.name.encode())
        digest.update(self.min_signers.to_bytes(2, "big") + self._context)
        for i in self.identifiers:
            package = self._packages[i]
            digest.update(self.suite.group.encode_scalar(i))
            for element in package.commitment:
                digest.update(element.raw)
            digest.update(package.proof_of_knowledge.encode())
        return digest.digest()

    def own_share(self) -> Secret:
        """Return f(i) for this participant itself, which the public record keeps sealed too."""
        return self.suite.group.polynomial(self._coefficients, self.identifier)

    def finalize(self, shares: Mapping[Identifier, Secret]) -> KeyShare | Blame:
        """Check the shares dealt to this participant; return its key share, or the blame."""
        missing = [i for i in self._packages if i != self.identifier and i not in shares]
        if missing:
            return Blame(tuple((i, Fault.MISSING) for i in sorted(missing)))
        own = self.own_share()
        result = combine(
            self.suite,
            self.identifier,
            {i: package.commitment for i, package in self._packages.items()},
            {**{i: shares[i] for i in self.identifiers if i in shares}, self.identifier: own},
        )
        if isinstance(result, KeyShare):
            self.wipe()
        return result

    def wipe(self) -> None:
        """Destroy the polynomial."""
        for coefficient in self._coefficients:
            coefficient.wipe()

    def __repr__(self) -> str:
        return f"Participant({self.identifier} of {len(self.identifiers)}, hidden)"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a participant is never pickled or copied")


def share_fits(suite: Suite, commitment: polynomial.Commitment, at: int, share: Secret) -> bool:
    """Return whether f(at)·G = F(at)."""
    return suite.group.base_point(share) == polynomial.evaluate(suite.group, commitment, at)


def combine(
    suite: Suite,
    identifier: Identifier,
    commitments: Mapping[Identifier, Sequence[Element]],
    shares: Mapping[Identifier, Secret],
) -> KeyShare | Blame:
    """Return the key share of all dealt shares, checked in one sum; else name the bad dealers."""
    group, dealers = suite.group, sorted(commitments)
    total = polynomial.add_all(group, [commitments[i] for i in dealers])
    secret: Secret | None = None
    try:
        for i in dealers:
            secret = shares[i] if secret is None else group.add(secret, shares[i])
        fits = secret is not None and share_fits(suite, total, identifier, secret)
    except ValueError:  # the shares cancel out: some dealer aimed at it
        fits = False
    if not fits or secret is None or total[0] is None:
        bad = [i for i in dealers if not share_fits(suite, commitments[i], identifier, shares[i])]
        return Blame(tuple((i, Fault.BAD_SHARE) for i in bad))
    public = {i: polynomial.evaluate(group, total, i) for i in dealers}
    present = {i: element for i, element in public.items() if element is not None}
    key, held = total[0], Secret(secret.buffer)
    if suite.even_y:
        key, present, held = _taproot(suite, key, present, held)
    result = GroupKey(suite, len(total), key, make_shares(present.items()))
    return KeyShare(identifier, held, result)


def _taproot(
    suite: Suite, key: Element, public: dict[Identifier, Element], held: Secret
) -> tuple[Element, dict[Identifier, Element], Secret]:
    """Return everything with even Y and then tweaked by the empty script root (BIP341, BIP386)."""
    group = suite.group
    if not suite.is_even(key):
        key = group.negate(key)
        held = group.negate_secret(held)
        public = {i: group.negate(element) for i, element in public.items()}
    tweak = suite.taptweak(key)
    point = group.base_public(tweak)
    tweaked = {i: group.sum([element, point]) for i, element in public.items()}
    offset = group.secret(group.encode_scalar(tweak))
    return group.sum([key, point]), tweaked, group.add(held, offset)
