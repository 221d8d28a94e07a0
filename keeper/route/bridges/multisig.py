"""One keeper as a validator of Hyperlane's message-id multisig, and as its relayer: no I/O.

    final Dispatch(message), wanted   ─▶ waiting
    final InsertedIntoTree(id, index) ─▶ own Merkle tree ─▶ root ─▶ sign the checkpoint ─▶ frame
    peers' frames ─▶ recover the signer ─▶ t of them ─▶ ready: metadata in the multisig's order

Signed is only what is final on the origin, over a root this keeper computed itself: a false
checkpoint can be proven against its signer on the origin chain. Source: CheckpointLib, MerkleLib
and AbstractMessageIdMultisigIsm of @hyperlane-xyz/core 5.11.5.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from keeper.ecdsa import sign, signer_of
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.reasons import Reason
from keeper.route.bridges.message import checkpoint_digest, decode_hyperlane

DEPTH = 32
MAX_WAITING = 256
"""Messages of one origin not yet delivered: a keeper brings them in seconds."""
MAX_EARLY = 64
"""Frames of one validator about messages not final here yet; the oldest go first."""
FRAME = 4 + 4 + 32 + 32 + 65
_ZEROS = [bytes(32)]
for _ in range(DEPTH):
    _ZEROS.append(keccak(_ZEROS[-1] * 2))


class Tree:
    """The append-only tree of the MerkleTreeHook."""

    def __init__(self) -> None:
        self.count = 0
        self._branch = [bytes(32)] * DEPTH

    def insert(self, leaf: bytes) -> bytes:
        """Add a leaf and return the root."""
        self.count += 1
        size, node = self.count, leaf
        for level in range(DEPTH):
            if size & 1:
                self._branch[level] = node
                return self.root
            node = keccak(self._branch[level] + node)
            size >>= 1
        raise ValueError("the tree is full")

    @property
    def root(self) -> bytes:
        """Return the root over all leaves."""
        node = bytes(32)
        for level in range(DEPTH):
            left = self.count >> level & 1
            pair = self._branch[level] + node if left else node + _ZEROS[level]
            node = keccak(pair)
        return node


@dataclass(frozen=True, slots=True)
class Bring:
    """A message with its proof, and this keeper's place in the order of who delivers it first."""

    id: bytes
    turn: int
    message: bytes
    metadata: bytes


@dataclass(slots=True)
class _Waiting:
    message: bytes
    index: int = -1
    root: bytes = b""
    signatures: dict[bytes, bytes] = field(default_factory=dict)


class Validator:
    """One keeper's part for the messages of one origin.

    Invariants: at most `MAX_WAITING` messages and `MAX_EARLY` early frames per validator are kept;
    a message is signed once, and only when its dispatch and its leaf are both final.

    Args:
        domain, hook: of the origin.
        validators, threshold: of the multisig, in its order.
        key: this keeper's, whose address is one of the validators.
        wanted: which messages are served.
    """

    def __init__(
        self,
        domain: int,
        hook: bytes,
        validators: tuple[bytes, ...],
        threshold: int,
        key: bytes,
        wanted: Callable[[bytes], bool],
    ) -> None:
        self.tree = Tree()
        self._domain, self._hook = domain, hook.rjust(32, b"\0")
        self._validators, self._threshold = validators, threshold
        self._key, self._wanted = key, wanted
        self._me = address_of(key)
        if self._me not in validators or not 0 < threshold <= len(validators):
            raise ValueError("this keeper is no validator, or the threshold is none")
        self._waiting: dict[bytes, _Waiting] = {}
        self._early: dict[bytes, list[tuple[bytes, bytes]]] = {one: [] for one in validators}

    def dispatched(self, raw: bytes) -> None:
        """Take a message from a final block, before its leaf."""
        try:
            message = decode_hyperlane(raw)
        except ValueError:
            return
        if message.origin != self._domain or not self._wanted(raw):
            return
        if len(self._waiting) >= MAX_WAITING:
            # the oldest goes: one that nobody can deliver must not block those after it
            del self._waiting[next(iter(self._waiting))]
        self._waiting.setdefault(message.id, _Waiting(raw))

    def inserted(self, message: bytes, index: int) -> bytes | None:
        """Take a leaf from a final block; return the frame to send to all other keepers.

        Raises:
            ValueError: a leaf is missing before this one.
        """
        if index != self.tree.count:
            raise ValueError(f"leaf {index} comes when {self.tree.count} are known")
        root = self.tree.insert(message)
        waiting = self._waiting.get(message)
        if waiting is None or waiting.root:  # anybody may insert the newest message once more
            return None
        waiting.index, waiting.root = index, root
        digest = self._digest(message, waiting)
        waiting.signatures[self._me] = sign(self._key, digest)
        for validator, frames in self._early.items():
            for signature in [held for name, held in frames if name == message]:
                if signer_of(digest, signature) == validator:  # else it is over another root
                    waiting.signatures[validator] = signature
            self._early[validator] = [one for one in frames if one[0] != message]
        return self._frame(message, waiting)

    def receive(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not."""
        if len(frame) != FRAME:
            return Reason.MALFORMED
        domain, index = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:8], "big")
        message, root, signature = frame[8:40], frame[40:72], frame[72:]
        if domain != self._domain:
            return Reason.WRONG_CONFIG
        digest = checkpoint_digest(domain, self._hook, root, index, message)
        validator = signer_of(digest, signature)
        if validator is None or validator not in self._early:
            return Reason.BAD_SIGNATURE
        waiting = self._waiting.get(message)
        if waiting is not None and waiting.root:
            if (waiting.index, waiting.root) != (index, root):
                return Reason.OTHER_ROOT
            if validator in waiting.signatures:
                return Reason.DUPLICATE
            waiting.signatures[validator] = signature
            return None
        if index < self.tree.count:
            return Reason.STALE
        early = self._early[validator]
        if (message, signature) in early:
            return Reason.DUPLICATE
        self._early[validator] = [*early, (message, signature)][-MAX_EARLY:]
        return None

    def ready(self) -> tuple[Bring, ...]:
        """Return the messages that have enough signatures, oldest first."""
        return tuple(
            self._bring(name, waiting)
            for name, waiting in self._waiting.items()
            if len(waiting.signatures) >= self._threshold
        )

    def messages(self) -> tuple[bytes, ...]:
        """Return the signed messages not known to have arrived."""
        return tuple(waiting.message for waiting in self._waiting.values() if waiting.root)

    def frames(self) -> tuple[bytes, ...]:
        """Return this keeper's frames of what has not arrived, for peers that missed them."""
        return tuple(
            self._frame(name, waiting) for name, waiting in self._waiting.items() if waiting.root
        )

    def delivered(self, message: bytes) -> None:
        """Forget a message that has arrived."""
        self._waiting.pop(message, None)

    def _digest(self, message: bytes, waiting: _Waiting) -> bytes:
        return checkpoint_digest(self._domain, self._hook, waiting.root, waiting.index, message)

    def _frame(self, message: bytes, waiting: _Waiting) -> bytes:
        head = self._domain.to_bytes(4, "big") + waiting.index.to_bytes(4, "big")
        return head + message + waiting.root + waiting.signatures[self._me]

    def _bring(self, name: bytes, waiting: _Waiting) -> Bring:
        ordered = [one for one in self._validators if one in waiting.signatures]
        chosen = [waiting.signatures[one] for one in ordered[: self._threshold]]
        metadata = metadata_of(self._hook, waiting.root, waiting.index, chosen)
        turn = (self._validators.index(self._me) - waiting.index) % len(self._validators)
        return Bring(name, turn, waiting.message, metadata)


def metadata_of(hook: bytes, root: bytes, index: int, signatures: list[bytes]) -> bytes:
    """Return what the multisig takes; signatures are in its validators' order."""
    return hook.rjust(32, b"\0") + root + index.to_bytes(4, "big") + b"".join(signatures)
