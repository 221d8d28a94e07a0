"""Events as typed rows: topic of a signature, words of the data.

    "Balance(bytes32,address,uint256)" ── keccak ──▶ topic 0
    topics[1:] ── indexed arguments           data ── the rest, 32 bytes a word

Events carry absolute values, so the last one per key is the state. A record whose data is shorter
than its signature says cannot come from our contracts and reads as absent.
"""

from collections.abc import Iterator

from keeper.hashing import type_hash
from keeper.venue.port import Records

WORD = 32
_SIGN = 1 << 255

LEAF_USED = type_hash("LeafUsed(bytes32)")


def unsigned(data: bytes, index: int) -> int:
    """Return word `index` as an unsigned integer."""
    return int.from_bytes(data[WORD * index : WORD * (index + 1)], "big")


def signed(data: bytes, index: int) -> int:
    """Return word `index` as a two's complement integer."""
    value = unsigned(data, index)
    return value - (1 << 256) if value & _SIGN else value


def address(word: bytes) -> bytes:
    """Return the 20-byte address of a topic or a word."""
    return word[-20:]


def address_at(data: bytes, index: int) -> bytes:
    """Return word `index` as an address."""
    return data[WORD * index + 12 : WORD * (index + 1)]


def word(value: bytes) -> bytes:
    """Return an address as a topic."""
    return value.rjust(WORD, b"\0")


def rows(
    records: Records, contract: bytes | None, topic: bytes, topics: int, words: int
) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
    """Yield (indexed arguments, data) of one event, sorted by the arguments.

    Args:
        records: one chain's records.
        contract: its address, or None where the chain has none: then nothing is yielded.
        topic: topic 0.
        topics: number of indexed arguments.
        words: least number of data words.
    """
    if contract is None:
        return
    for indexed, data in records.records(contract, topic):
        if len(indexed) == topics and len(data) >= words * WORD:
            yield indexed, data


def leaf_used(records: Records, contract: bytes, leaf: bytes) -> bool:
    """Return whether a contract has consumed a leaf."""
    return records.get(contract, LEAF_USED, leaf) is not None
