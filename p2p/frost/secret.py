"""A secret scalar: bytes in a buffer that can be wiped, and that nothing prints, pickles or copies.

Python integers that hold a secret are neither constant time nor erasable, so a secret lives in one
`bytearray` and is only ever handed to libsecp256k1 or libsodium (`p2p.frost.group`). Where a C call
insists on immutable `bytes` a short-lived copy is made; that much Python cannot avoid.
"""

import hmac
from typing import NoReturn


class Secret:
    """A canonical non-zero scalar of a group, or any other secret bytes.

    Invariants: `repr` shows no content; pickling and copying raise; after `wipe` it is unusable.
    """

    __slots__ = ("_buffer",)

    def __init__(self, raw: bytes | bytearray) -> None:
        self._buffer = bytearray(raw)

    @property
    def buffer(self) -> bytearray:
        """The live bytes, for a constant-time function; never keep a reference.

        Raises:
            ValueError: the secret was wiped.
        """
        if not self._buffer:
            raise ValueError("the secret was wiped")
        return self._buffer

    def reveal(self) -> bytes:
        """Return a copy of the bytes, for sealing or sending encrypted."""
        return bytes(self.buffer)

    def wipe(self) -> None:
        """Overwrite and drop the bytes; a second call does nothing."""
        for index in range(len(self._buffer)):
            self._buffer[index] = 0
        self._buffer = bytearray()

    @property
    def wiped(self) -> bool:
        """Whether the bytes are gone."""
        return not self._buffer

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.buffer, other.buffer)

    __hash__ = None  # type: ignore[assignment]  # hashing would spread the content

    def __repr__(self) -> str:
        return "Secret(wiped)" if self.wiped else "Secret(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is never pickled or copied")
