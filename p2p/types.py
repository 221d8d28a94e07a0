"""What keepers say to each other: committee, votes, proposals, certificates.

    Committee ── config ──▶ inside every signature
    SignedObservation ─┐
                       ├─▶ Proposal ──▶ Vote N, Z, F ──▶ Certificate ──▶ final
    Certificate ───────┘
    Need, Sync, History, Heartbeat: repair and catch-up, authenticated by the link, never signed

The types carry bytes of an application that this package knows nothing about. A value of these
types is well formed, not yet believed: signatures are checked by the agreement core. Hashes follow
EIP-712, so any chain can check a vote or a certificate.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from eth_abi.abi import encode

from keeper.hashing import keccak, type_hash
from p2p.agreement.quorum import faults, quorum

NO_DIGEST = bytes(32)
"""What a nullify vote signs in place of a block."""
VERSION = 1
"""Version of the wire format and of the rules; a heartbeat carries it."""


class Kind(IntEnum):
    """What a vote says about its view."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


@dataclass(frozen=True, slots=True)
class Member:
    """One keeper as the registry names it: operator address (20 bytes) and libp2p peer id."""

    address: bytes
    peer_id: bytes


@dataclass(frozen=True, slots=True)
class Committee:
    """The members of one epoch; a member is spoken of by its index here."""

    network: bytes
    epoch: int
    members: tuple[Member, ...]
    parameters_digest: bytes
    config: bytes = field(init=False)
    """Digest of all the above: inside every signature, and the parent of the first block."""

    def __post_init__(self) -> None:
        if not self.members or len({member.address for member in self.members}) != self.size:
            raise ValueError("a committee needs at least one member, and no address twice")
        encoded = encode(
            ("bytes32", "uint32", "address[]", "bytes32[]", "bytes32"),
            (
                self.network,
                self.epoch,
                [member.address for member in self.members],
                [keccak(member.peer_id) for member in self.members],
                self.parameters_digest,
            ),
        )
        object.__setattr__(self, "config", keccak(encoded))

    @property
    def size(self) -> int:
        """Return n."""
        return len(self.members)

    @property
    def faults(self) -> int:
        """Return f."""
        return faults(len(self.members))

    @property
    def quorum(self) -> int:
        """Return q."""
        return quorum(len(self.members))

    def index_of(self, address: bytes) -> int | None:
        """Return the index of a member, or None."""
        return next((i for i, m in enumerate(self.members) if m.address == address), None)

    def index_of_peer(self, peer_id: bytes) -> int | None:
        """Return the index of the member with this peer id, or None."""
        return next((i for i, m in enumerate(self.members) if m.peer_id == peer_id), None)


@dataclass(frozen=True, slots=True)
class SignedObservation:
    """What one keeper saw at the start of a tick: three roots that it signs, and the body.

    `heads_root` is a Merkle root, so one `Head` leaf can be shown alone on its chain. Whether the
    body has these roots is the application's business.
    """

    epoch: int
    config: bytes
    tick: int
    heads_root: bytes
    prices_root: bytes
    rest_root: bytes
    body: bytes
    signer: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Vote:
    """One signed word about one view."""

    epoch: int
    kind: Kind
    view: int
    digest: bytes
    signer: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A quorum of equal votes: bit i of `bitmap` is member i; signatures in order of the bits."""

    epoch: int
    kind: Kind
    view: int
    digest: bytes
    bitmap: int
    signatures: tuple[bytes, ...]

    @property
    def signers(self) -> tuple[int, ...]:
        """Return the indices of the members that signed, ascending."""
        return tuple(i for i in range(self.bitmap.bit_length()) if self.bitmap >> i & 1)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block, and why it may follow its parent; `signature` is the leader's own notarize vote.

    `certificates` (that of the parent, those of skipped views) are outside of the digest.
    """

    epoch: int
    view: int
    parent_view: int
    parent: bytes
    tick: int
    payload: bytes
    root: bytes
    observations: tuple[SignedObservation, ...]
    certificates: tuple[Certificate, ...]
    signer: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Need:
    """Asks for everything that justifies a view: its proposal, certificates and votes."""

    view: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Asks for finalised blocks of an epoch after a view; the epoch may be past."""

    epoch: int
    from_view: int


@dataclass(frozen=True, slots=True)
class History:
    """Finalised blocks, each the parent of the next, and a certificate for the last."""

    blocks: tuple[Proposal, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Where a keeper stands. `heads` are (chain, height); `clock_ms` is its wall clock."""

    epoch: int
    config: bytes
    view: int
    final_view: int
    final_digest: bytes
    heads: tuple[tuple[int, int], ...]
    version: int
    clock_ms: int


Message = SignedObservation | Vote | Certificate | Proposal | Need | Sync | History | Heartbeat

_BLOCK = type_hash(
    "Block(uint64 parentView,bytes32 parent,uint64 tick,bytes32 bodyHash,bytes32 root)"
)


def block_digest(
    parent_view: int, parent: bytes, tick: int, body_hash: bytes, root: bytes
) -> bytes:
    """Return what notarize and finalize votes sign; a contract can compute it too."""
    return keccak(
        _BLOCK + parent_view.to_bytes(32, "big") + parent + tick.to_bytes(32, "big")
        + body_hash + root
    )  # fmt: skip
