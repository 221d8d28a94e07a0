"""What an account holds where: one leg per (chain, venue, market, kind).

A leg's packed form is fixed width and big endian, so a contract can recompute the hash:

    chain u64 | venue 20 B | market 32 B | kind u8 | size i128 | quote i128 | funding i128   = 109 B
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from keeper.hashing import keccak
from keeper.units import ChainId

LEG_BYTES = 8 + 20 + 32 + 1 + 3 * 16


class LegKind(IntEnum):
    """What a leg is; the order is the sort order inside one market."""

    COLLATERAL = 0
    DEBT = 1
    PERP = 2


@dataclass(frozen=True, slots=True)
class Leg:
    """One holding of one account.

    Args:
        chain: where it is.
        venue: the contract that holds it, 20 bytes.
        market: the market (perp) or asset (collateral, debt), 32-byte symbol.
        kind: collateral and debt have `size` ≥ 0; a perp's size is signed.
        size: 10**-decimals of the market or asset.
        quote: µUSD paid in so far, negative for a long (perp only, else 0).
        funding: the market's funding index at the last settlement, 10**-12 (perp only, else 0).
    """

    chain: ChainId
    venue: bytes
    market: bytes
    kind: LegKind
    size: int
    quote: int = 0
    funding: int = 0

    @property
    def key(self) -> tuple[int, bytes, bytes, int]:
        """Sort and identity: at most one leg of an account has a given key."""
        return (self.chain, self.venue, self.market, int(self.kind))

    def pack(self) -> bytes:
        """Return the 109 bytes of the drawing above.

        Raises:
            OverflowError: a number does not fit its field.
        """
        return b"".join(
            (
                self.chain.to_bytes(8, "big"),
                self.venue,
                self.market,
                int(self.kind).to_bytes(1, "big"),
                self.size.to_bytes(16, "big", signed=True),
                self.quote.to_bytes(16, "big", signed=True),
                self.funding.to_bytes(16, "big", signed=True),
            )
        )


def legs_hash(legs: Iterable[Leg]) -> bytes:
    """Return keccak of the packed legs in key order."""
    return keccak(b"".join(leg.pack() for leg in sorted(legs, key=lambda leg: leg.key)))
