"""The header of a snapshot: everything a stranger needs to check one account against one seal.

    decision root ─┬─ Header leaf ─ header hash ─┬─ price root ── market prices
                   ├─ decision leaves            ├─ state root ── legs of every account
                   └─ …                          ├─ watch root ── accounts with health < 1.2
                                                 └─ book hash ─── rules' states, outstanding

The hash is keccak of the abi encoding, so a contract can open a header too.
"""

from dataclasses import dataclass

from keeper.hashing import abi_hash, keccak, type_hash
from keeper.snapshot.decisions import CutBlock
from keeper.units import ChainId

VERSION = 1

HEADER_TYPE = (
    "SnapshotHeader(uint16 version,uint32 epoch,uint64 view,uint64 tick,bytes32 previous,"
    "bytes32 parameters,bytes32 cut,bytes32 prices,bytes32 state,bytes32 watch,bytes32 book,"
    "int256 equity,uint256 imr,uint256 mmr,uint64 accounts)"
)
_TYPES = (
    *("bytes32", "uint16", "uint32", "uint64", "uint64"),
    *("bytes32",) * 7,
    *("int256", "uint256", "uint256", "uint64"),
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all accounts in µUSD, and their number."""

    equity: int
    imr: int
    mmr: int
    accounts: int


@dataclass(frozen=True, slots=True)
class Header:
    """One agreed snapshot; hashes are 32 bytes, `cut` is sorted by chain."""

    version: int
    epoch: int
    view: int
    tick: int
    previous: bytes
    parameters: bytes
    cut: tuple[CutBlock, ...]
    price_root: bytes
    state_root: bytes
    watch_root: bytes
    book_hash: bytes
    totals: Totals

    def hash(self) -> bytes:
        """Return the header hash, the payload of the Header leaf."""
        return abi_hash(_TYPES, (type_hash(HEADER_TYPE), *header_values(self)))

    def to_row(self) -> list[object]:
        """Return plain values for msgpack; `from_row` reads them back."""
        return [
            self.version,
            self.epoch,
            self.view,
            self.tick,
            self.previous,
            self.parameters,
            [
                [ref.chain, ref.number, ref.hash, ref.account_root, ref.timestamp]
                for ref in self.cut
            ],
            self.price_root,
            self.state_root,
            self.watch_root,
            self.book_hash,
            [str(number) for number in (self.totals.equity, self.totals.imr, self.totals.mmr)],
            self.totals.accounts,
        ]


def header_values(header: Header) -> tuple[int | bytes, ...]:
    """Return the values of `HEADER_TYPE` in order."""
    return (
        header.version,
        header.epoch,
        header.view,
        header.tick,
        header.previous,
        header.parameters,
        cut_hash(header.cut),
        header.price_root,
        header.state_root,
        header.watch_root,
        header.book_hash,
        header.totals.equity,
        header.totals.imr,
        header.totals.mmr,
        header.totals.accounts,
    )


def cut_hash(cut: tuple[CutBlock, ...]) -> bytes:
    """Return the hash of the block references in chain order."""
    return keccak(cut_bytes(cut))


def cut_bytes(cut: tuple[CutBlock, ...]) -> bytes:
    """Return the block references in chain order, 88 bytes each: what a challenge shows."""
    return b"".join(
        ref.chain.to_bytes(8, "big")
        + ref.number.to_bytes(8, "big")
        + ref.hash
        + ref.account_root
        + ref.timestamp.to_bytes(8, "big")
        for ref in cut
    )


def header_from_row(row: list[object]) -> Header:
    """Return the header that `to_row` wrote.

    Raises:
        ValueError: a field is missing or of the wrong type.
    """
    try:
        *fixed, cut, price, state, watch, book, totals, accounts = row
        version, epoch, view, tick, previous, parameters = fixed
        equity, imr, mmr = (int(text) for text in totals)  # type: ignore[attr-defined]
        header = Header(
            version,  # type: ignore[arg-type]
            epoch,  # type: ignore[arg-type]
            view,  # type: ignore[arg-type]
            tick,  # type: ignore[arg-type]
            previous,  # type: ignore[arg-type]
            parameters,  # type: ignore[arg-type]
            tuple(CutBlock(ChainId(ref[0]), *ref[1:]) for ref in cut),  # type: ignore[attr-defined]
            price,  # type: ignore[arg-type]
            state,  # type: ignore[arg-type]
            watch,  # type: ignore[arg-type]
            book,  # type: ignore[arg-type]
            Totals(equity, imr, mmr, accounts),  # type: ignore[arg-type]
        )
        header.hash()
    except (TypeError, ValueError, AttributeError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"malformed header: {error}") from error
    return header
