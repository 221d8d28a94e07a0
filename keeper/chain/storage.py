"""Where a contract keeps a value, so that an index made from logs can be checked by state proofs.

    Vyper     HashMap at slot p:  keccak(p ‖ key), nested: keccak(keccak(p ‖ a) ‖ b)
    Solidity  mapping at slot p:  keccak(key ‖ p)

`audit` proves a few slots at an agreed header and returns those that hold something else than the
index says: an event that lied, or a log that an endpoint hid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keeper.chain.port import Chain, Header
from keeper.hashing import keccak

MAX_SLOTS = 256
"""Slots in one proof: an answer of about a megabyte."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A slot whose proven value is another one than expected."""

    slot: int
    expected: int
    proven: int


def _word(key: bytes | int) -> bytes:
    return key.to_bytes(32, "big") if isinstance(key, int) else key.rjust(32, b"\0")


def vyper_slot(position: int, *keys: bytes | int) -> int:
    """Return the slot of an entry of a (nested) HashMap; addresses are padded on the left."""
    slot = _word(position)
    for key in keys:
        slot = keccak(slot + _word(key))
    return int.from_bytes(slot, "big")


def solidity_slot(position: int, *keys: bytes | int) -> int:
    """Return the slot of an entry of a (nested) mapping of value types."""
    slot = _word(position)
    for key in keys:
        slot = keccak(_word(key) + slot)
    return int.from_bytes(slot, "big")


async def audit(
    chain: Chain, contract: bytes, expected: Mapping[int, int], at: Header
) -> tuple[Mismatch, ...]:
    """Return the slots that do not hold what is expected of them at a block.

    Args:
        chain: whose endpoints are asked; their answers are proven, not believed.
        contract: whose storage, 20 bytes.
        expected: slot → value.
        at: the agreed header.

    Raises:
        RemoteFault: no endpoint gives a proof that holds.
    """
    slots = sorted(expected)
    found: list[Mismatch] = []
    for start in range(0, len(slots), MAX_SLOTS):
        proof = await chain.proof(contract, slots[start : start + MAX_SLOTS], at)
        found += [
            Mismatch(slot, expected[slot], value)
            for slot, value in proof.slots
            if value != expected[slot]
        ]
    return tuple(found)
