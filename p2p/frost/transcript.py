"""What a key generation is about, what its members sign, and what is left to recover from.

    Hello = [digest of the Terms, nonce], signed first by every operator
    session = hash of the terms and all nonces ──▶ inside every later signature: no replay
    Signed(kind, body, signature by the host key)
    Recovery = terms + every Hello, Commit, Deal and Confirm: public, useless without a host key

Bodies are canonical msgpack, strict in. A frame is [1, 48 + kind, body, signature], so it shares a
road with the agreement's frames.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import msgpack

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p import identity
from p2p.frost import boxes
from p2p.frost.aggregate import Signature
from p2p.frost.dkg import Blame, Round1Package, combine
from p2p.frost.keys import MAX_SIGNERS, GroupKey, KeyShare
from p2p.frost.reshare import accept_reshare
from p2p.frost.secret import Secret
from p2p.frost.suite import SUITES, Identifier, Suite

VERSION: Final = 1
FIRST_TAG: Final = 48
LAST_TAG: Final = 63
MAX_FRAME: Final = 64 * 1024
"""A complaint carries a commit and a deal: under 20 KiB for 128 members."""
_DOMAIN: Final = b"flowkeeper/frost/ceremony/1"


class Kind(IntEnum):
    """Steps of the ceremony."""

    HELLO = 0
    COMMIT = 1
    DEAL = 2
    CONFIRM = 3
    COMPLAINT = 4
    REVEAL = 5
    EXPOSE = 6
    CERTIFICATE = 7


@dataclass(frozen=True, slots=True)
class Terms:
    """What every operator agrees to before a secret is made.

    Identifier i belongs to `hosts[i − 1]`, a 38-byte Ed25519 peer id.
    """

    suite: Suite
    min_signers: int
    hosts: tuple[bytes, ...]
    network: bytes
    epoch: int
    config: bytes
    """Digest of whatever else the operators agree on: the committee's config."""
    old: GroupKey | None = None
    """The key that is dealt anew; None makes a new key."""
    dealers: tuple[int, ...] = ()
    """Hosts that still hold a share of the old key, ascending; for a new key everybody deals."""

    def __post_init__(self) -> None:
        if len(set(self.hosts)) != len(self.hosts) or not all(map(identity.is_peer_id, self.hosts)):
            raise ValueError("hosts must be distinct Ed25519 peer ids")
        if not 1 <= self.min_signers <= len(self.hosts) <= MAX_SIGNERS:
            raise ValueError(f"{self.min_signers} of {len(self.hosts)} signers is out of range")
        if self.old is None and not self.dealers:
            return
        known = self.old is not None and self.old.suite is self.suite
        seats = set(self.dealers) & {i - 1 for i in self.old.identifiers} if self.old else set()
        if not known or self.old is None or list(self.dealers) != sorted(seats):
            raise ValueError("dealers must be seats of the old key, ascending")
        if len(self.dealers) < self.old.min_signers or self.dealers[-1] >= len(self.hosts):
            raise ValueError("too few of the old members can deal")

    @property
    def dealing(self) -> tuple[int, ...]:
        """The hosts that commit and deal."""
        return self.dealers or tuple(range(len(self.hosts)))

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """All participants, ascending."""
        return tuple(Identifier(i + 1) for i in range(len(self.hosts)))

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        fields = [self.suite.name, self.min_signers, list(self.hosts)]
        old = self.old.encode() if self.old else b""
        place = [self.network, self.epoch, self.config, old, list(self.dealers)]
        return bytes(msgpack.packb([VERSION, *fields, *place]))

    @classmethod
    def decode(cls, raw: bytes) -> "Terms":
        """Return the terms of canonical bytes. Raises ValueError."""
        try:
            version, name, t, hosts, network, epoch, config, old, dealers = unpack(raw)
            key = GroupKey.decode(old) if old else None
            suite = SUITES[name]
            terms = cls(suite, t, tuple(hosts), network, epoch, config, key, tuple(dealers))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the terms of a ceremony: {error}") from error
        if version != VERSION or terms.encode() != raw:
            raise ValueError("not the terms of a ceremony")
        return terms

    def digest(self) -> bytes:
        """Return the hash every operator signs."""
        return hashlib.sha256(_DOMAIN + b"/terms" + self.encode()).digest()


@dataclass(frozen=True, slots=True)
class Signed:
    """One member's word in a ceremony; the author is whose signature it is."""

    kind: Kind
    body: bytes
    signature: bytes

    @classmethod
    def make(cls, session: bytes, kind: Kind, body: bytes, host_seed: Secret) -> "Signed":
        """Sign a body for a session."""
        signature = identity.sign(host_seed.reveal(), _preimage(session, kind, body))
        return cls(kind, body, signature)

    def is_by(self, host: bytes, session: bytes) -> bool:
        """Return whether a host signed this for a session."""
        return identity.is_signed_by(host, _preimage(session, self.kind, self.body), self.signature)

    def encode(self) -> bytes:
        """Return the frame."""
        return bytes(msgpack.packb([VERSION, FIRST_TAG + self.kind, self.body, self.signature]))

    @classmethod
    def decode(cls, raw: bytes, culprit: str = "peer") -> "Signed":
        """Return the message of a frame.

        Raises:
            RemoteFault: OVERSIZE or MALFORMED.
        """
        if len(raw) > MAX_FRAME:
            raise RemoteFault(culprit, Reason.OVERSIZE, f"{len(raw)} bytes")
        try:
            version, tag, body, signature = unpack(raw)
            if version != VERSION or type(body) is not bytes or type(signature) is not bytes:
                raise ValueError("fields")
            return cls(Kind(tag - FIRST_TAG), body, signature)
        except (ValueError, TypeError) as error:
            raise RemoteFault(culprit, Reason.MALFORMED, f"{len(raw)} bytes") from error


def is_ceremony_frame(raw: bytes) -> bool:
    """Return whether a frame belongs to a ceremony, by its tag alone."""
    return len(raw) > 2 and FIRST_TAG <= raw[2] <= LAST_TAG


def _preimage(session: bytes, kind: Kind, body: bytes) -> bytes:
    return _DOMAIN + session + bytes([kind]) + hashlib.sha256(body).digest()


NO_SESSION: Final = bytes(32)
"""What a Hello is signed for: the session follows from all of them."""


def unpack_hello(body: bytes) -> tuple[bytes, bytes]:
    """Return (digest of the terms, nonce) of a Hello. Raises ValueError."""
    digest, nonce = (_bytes(item) for item in _fields(unpack(body), 2))
    if len(digest) != 32 or len(nonce) != 32:
        raise ValueError("hello has other fields")
    return digest, nonce


def session_of(terms: Terms, hellos: Sequence[Signed]) -> bytes:
    """Return the session of all hosts' hellos, in their order."""
    nonces = b"".join(unpack_hello(hello.body)[1] for hello in hellos)
    return hashlib.sha256(_DOMAIN + b"/session" + terms.digest() + nonces).digest()


def pack(value: Any) -> bytes:
    """Return canonical msgpack."""
    return bytes(msgpack.packb(value))


def unpack(raw: bytes) -> Any:
    """Return the list of canonical msgpack. Raises ValueError."""
    try:
        value = msgpack.unpackb(raw, raw=False, max_map_len=0, max_ext_len=0)
        canonical = msgpack.packb(value) == raw
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ValueError(f"not msgpack: {error}") from error
    if not canonical or type(value) is not list:
        raise ValueError("not canonical")
    return value


def pack_package(package: Round1Package) -> bytes:
    """Return the body of a Commit."""
    return pack([[point.raw for point in package.commitment], package.proof_of_knowledge.encode()])


def unpack_package(suite: Suite, identifier: Identifier, body: bytes) -> Round1Package:
    """Return the package of a Commit. Raises ValueError."""
    points, proof = _fields(unpack(body), 2)
    if type(points) is not list or not 1 <= len(points) <= MAX_SIGNERS or type(proof) is not bytes:
        raise ValueError("commit has other fields")
    commitment = tuple(suite.group.decode(_bytes(point)) for point in points)
    return Round1Package(identifier, commitment, Signature.decode(suite, proof))


def unpack_deal(terms: Terms, body: bytes) -> tuple[bytes, ...]:
    """Return the boxes of a Deal, one per host. Raises ValueError."""
    size = terms.suite.group.scalar_size + boxes.OVERHEAD
    held = tuple(_bytes(box) for box in unpack(body))
    if len(held) != len(terms.hosts) or any(len(box) != size for box in held):
        raise ValueError("deal has other boxes")
    return held


def unpack_confirm(terms: Terms, body: bytes) -> tuple[bytes, ...]:
    """Return what a member saw of each dealer. Raises ValueError."""
    seen = tuple(_bytes(item) for item in unpack(body))
    if len(seen) != len(terms.hosts) or any(len(item) != 32 for item in seen):
        raise ValueError("confirm has other digests")
    return seen


def _fields(value: Any, count: int) -> list[Any]:
    if type(value) is not list or len(value) != count:
        raise ValueError("other number of fields")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise ValueError("not bytes")
    return value


def pack_words(words: Sequence[Signed]) -> list[list[bytes]]:
    """Return words of one kind, in order of the hosts, for a certificate or a record."""
    return [[word.body, word.signature] for word in words]


def unpack_words(kind: Kind, items: Any) -> tuple[Signed, ...]:
    """Return the words of one kind. Raises ValueError."""
    if type(items) is not list or len(items) > MAX_SIGNERS:
        raise ValueError("not a list of words")
    pairs = (_fields(item, 2) for item in items)
    return tuple(Signed(kind, _bytes(body), _bytes(signature)) for body, signature in pairs)


def seen_of(commit: Signed, deal: Signed) -> bytes:
    """Return the digest of what one dealer said in public."""
    return hashlib.sha256(_DOMAIN + b"/seen" + pack([commit.body, deal.body])).digest()


def seen_by(terms: Terms, commits: Sequence[Signed], deals: Sequence[Signed]) -> list[bytes]:
    """Return what a Confirm says: one digest per host, zeros for those that do not deal."""
    seen = [bytes(32)] * len(terms.hosts)
    for dealer, commit, deal in zip(terms.dealing, commits, deals, strict=True):
        seen[dealer] = seen_of(commit, deal)
    return seen


def open_share(suite: Suite, plain: Secret | None) -> Secret | None:
    """Return the content of a box as a scalar, or None."""
    if plain is None:
        return None
    try:
        return suite.group.secret(plain.reveal())
    except ValueError:
        return None


_KINDS = (Kind.HELLO, Kind.COMMIT, Kind.DEAL, Kind.CONFIRM)


@dataclass(frozen=True, slots=True)
class Recovery:
    """The public record of a finished ceremony: with a host key it gives that member's share back.

    The lists are in order of the hosts; commits and deals in order of the dealers.
    """

    terms: Terms
    hellos: tuple[Signed, ...]
    commits: tuple[Signed, ...]
    deals: tuple[Signed, ...]
    confirms: tuple[Signed, ...]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        words = (self.hellos, self.commits, self.deals, self.confirms)
        return pack([VERSION, self.terms.encode(), *map(pack_words, words)])

    @classmethod
    def decode(cls, raw: bytes) -> "Recovery":
        """Return the record of canonical bytes. Raises ValueError."""
        try:
            version, terms, *words = _fields(unpack(raw), 6)
            if version != VERSION:
                raise ValueError("another version")
            lists = [unpack_words(kind, items) for kind, items in zip(_KINDS, words, strict=True)]
            return cls(Terms.decode(terms), *lists)
        except TypeError as error:
            raise ValueError(f"not a recovery record: {error}") from error

    def open(self, host_seed: Secret) -> KeyShare:
        """Check every signature and return the share of a host key.

        Raises:
            ValueError: the record is incomplete, forged, or not about this host key.
        """
        terms = self.terms
        me = identity.peer_id_of(host_seed.reveal())
        if me not in terms.hosts:
            raise ValueError("this host key took no part in the ceremony")
        words = (self.hellos, self.commits, self.deals, self.confirms)
        dealers = [terms.hosts[dealer] for dealer in terms.dealing]
        authors = (terms.hosts, dealers, dealers, terms.hosts)
        if list(map(len, words)) != list(map(len, authors)):
            raise ValueError("the record is incomplete")
        if any(unpack_hello(hello.body)[0] != terms.digest() for hello in self.hellos):
            raise ValueError("the members agreed on other terms")
        session = session_of(terms, self.hellos)
        for kind, messages, hosts in zip(_KINDS, words, authors, strict=True):
            signed_for = NO_SESSION if kind is Kind.HELLO else session
            for host, message in zip(hosts, messages, strict=True):
                if not message.is_by(host, signed_for):
                    raise ValueError(f"a signature of {identity.peer_id_text(host)} is missing")
        seen = tuple(seen_by(terms, self.commits, self.deals))
        if any(unpack_confirm(terms, message.body) != seen for message in self.confirms):
            raise ValueError("the members did not confirm this transcript")
        return open_all(terms, terms.hosts.index(me), self.commits, self.deals, host_seed)


def open_all(
    terms: Terms,
    index: int,
    commits: Sequence[Signed],
    deals: Sequence[Signed],
    host_seed: Secret,
) -> KeyShare:
    """Return the key share of one host from what all dealers said. Raises ValueError."""
    suite, host = terms.suite, identity.public_key_of(terms.hosts[index])
    commitments, shares = {}, {}
    for dealer, commit, deal in zip(terms.dealing, commits, deals, strict=True):
        i = terms.identifiers[dealer]
        commitments[i] = unpack_package(suite, i, commit.body).commitment
        box = unpack_deal(terms, deal.body)[index]
        share = open_share(suite, boxes.open_own(box, host, host_seed))
        if share is None:
            raise ValueError(f"the box of participant {i} does not open")
        shares[i] = share
    me = terms.identifiers[index]
    if terms.old is None:
        result = combine(suite, me, commitments, shares)
    else:
        result = accept_reshare(
            terms.old, me, terms.identifiers, terms.min_signers, commitments, shares
        )
    if isinstance(result, Blame):
        raise ValueError(f"shares do not fit: {result.faults}")
    return result
