"""JSON-RPC values to ours and back: strict, so a malformed answer is the fault of its endpoint.

A block header's hash is recomputed from its fields, so no endpoint can change one field of it.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from keeper.chain import mpt, rlp
from keeper.chain.port import AccountProof, BlockRef, Call, Header, Log, Receipt
from keeper.hashing import keccak
from keeper.units import BlockNumber, ChainId, Timestamp, Wei


def quantity(value: Any) -> int:
    """Return the integer of a hex quantity.

    Raises:
        ValueError: it is no "0x…" string, or more than the 256 bits that a chain can count to.
    """
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 2 + 64:
        raise ValueError(f"expected a hex quantity, got {value!r:.80}")
    return int(value, 16)


_COUNT_LIMIT = 1 << 63
"""Heights, times and gas fit into 63 bits, as databases keep them; more is made up."""


def count(value: Any) -> int:
    """Return a block's number, time or gas.

    Raises:
        ValueError: it is no quantity below 2**63.
    """
    number = quantity(value)
    if number >= _COUNT_LIMIT:
        raise ValueError(f"{value} is too large")
    return number


def data(value: Any, length: int | None = None) -> bytes:
    """Return the bytes of hex data, of a given length if one is asked for.

    Raises:
        ValueError: it is no "0x…" string of whole bytes, or has another length.
    """
    if not isinstance(value, str) or not value.startswith("0x"):
        raise ValueError(f"expected hex data, got {value!r:.80}")
    raw = bytes.fromhex(value[2:])
    if length is not None and len(raw) != length:
        raise ValueError(f"expected {length} bytes, got {len(raw)}")
    return raw


def to_hex(raw: bytes) -> str:
    """Return 0x-prefixed hex."""
    return "0x" + raw.hex()


_HEADER = (
    ("parentHash", 32), ("sha3Uncles", 32), ("miner", 20), ("stateRoot", 32),
    ("transactionsRoot", 32), ("receiptsRoot", 32), ("logsBloom", 256), ("difficulty", 0),
    ("number", 0), ("gasLimit", 0), ("gasUsed", 0), ("timestamp", 0), ("extraData", None),
    ("mixHash", 32), ("nonce", 8),
)  # fmt: skip
_FORKS = (
    ("baseFeePerGas", 0), ("withdrawalsRoot", 32), ("blobGasUsed", 0), ("excessBlobGas", 0),
    ("parentBeaconBlockRoot", 32), ("requestsHash", 32),
)  # fmt: skip
"""Fields added by London, Shanghai, Cancun (3) and Prague, in header order; length 0 = number."""


def _field(block: dict[str, Any], name: str, length: int | None) -> bytes:
    if length == 0:
        number = quantity(block[name])
        return number.to_bytes((number.bit_length() + 7) // 8, "big")
    return data(block[name], length)


def header_rlp(block: dict[str, Any]) -> bytes:
    """Return the RLP of a block header as JSON-RPC shows it."""
    fields = [_field(block, name, length) for name, length in _HEADER]
    forks = list(takewhile(lambda field: block.get(field[0]), _FORKS))
    if any(block.get(name) for name, _ in _FORKS[len(forks) :]):
        raise ValueError("a later fork's field without an earlier one's")
    return rlp.encode(fields + [_field(block, name, length) for name, length in forks])


def header(chain: ChainId, block: Any) -> Header:
    """Return the header of a JSON-RPC block whose hash is what its fields hash to.

    Raises:
        ValueError: a field is missing or malformed, or the hash is another one's.
    """
    try:
        claimed = data(block["hash"], 32)
        if keccak(header_rlp(block)) != claimed:
            raise ValueError(f"header fields do not hash to {claimed.hex()}")
        return Header(
            BlockRef(chain, BlockNumber(count(block["number"])), claimed),
            data(block["parentHash"], 32),
            Timestamp(count(block["timestamp"])),
            data(block["stateRoot"], 32),
            data(block["receiptsRoot"], 32),
            Wei(quantity(block.get("baseFeePerGas") or "0x0")),
            count(block["gasLimit"]),
            count(block["gasUsed"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"block lacks a field: {error}") from error


def logs(chain: ChainId, entries: Any) -> tuple[Log, ...]:
    """Return logs in the order of the chain.

    Hashes, addresses and topics repeat from log to log; each spelling is decoded once.

    Raises:
        ValueError: malformed, or a log is marked as removed.
    """
    seen: dict[str, bytes] = {}
    blocks: dict[tuple[str, str], BlockRef] = {}

    def fixed(text: Any, length: int) -> bytes:
        raw = seen.get(text)
        if raw is None:
            raw = seen[text] = data(text)
        if len(raw) != length:
            raise ValueError(f"expected {length} bytes, got {len(raw)}")
        return raw

    def one(entry: dict[str, Any]) -> Log:
        if entry.get("removed"):
            raise ValueError("log is marked as removed")
        place = entry["blockHash"], entry["blockNumber"]
        block = blocks.get(place)
        if block is None:
            number = BlockNumber(count(place[1]))
            block = blocks[place] = BlockRef(chain, number, fixed(place[0], 32))
        return Log(
            block,
            count(entry["logIndex"]),
            fixed(entry["transactionHash"], 32),
            fixed(entry["address"], 20),
            tuple([fixed(topic, 32) for topic in entry["topics"]]),
            data(entry["data"]),
        )

    if not isinstance(entries, list):
        raise ValueError("logs are no list")
    try:
        found = [one(entry) for entry in entries]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"log lacks a field: {error}") from error
    return tuple(sorted(found, key=lambda log: (log.block.number, log.position)))


def receipt(chain: ChainId, entry: Any) -> Receipt:
    """Return one receipt.

    Raises:
        ValueError: malformed.
    """
    try:
        block = BlockRef(
            chain, BlockNumber(count(entry["blockNumber"])), data(entry["blockHash"], 32)
        )
        return Receipt(
            data(entry["transactionHash"], 32),
            block,
            quantity(entry["status"]) == 1,
            count(entry["gasUsed"]),
            Wei(quantity(entry["effectiveGasPrice"])),
            logs(chain, entry["logs"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"receipt lacks a field: {error}") from error


def account_proof(at: Header, address: bytes, slots: Sequence[int], found: Any) -> AccountProof:
    """Return what `eth_getProof` answered, verified against the header's state root.

    Only the proof nodes are believed: the account's fields are read from the proven leaf.

    Raises:
        BadProof: the nodes do not lead to the state root.
        ValueError: malformed.
    """
    try:
        nodes = [data(node) for node in found["accountProof"]]
        entries = found["storageProof"]
        if len(entries) != len(slots):
            raise ValueError(f"{len(entries)} storage proofs for {len(slots)} slots")
        slot_nodes = [[data(node) for node in entry["proof"]] for entry in entries]
    except (KeyError, TypeError) as error:
        raise ValueError(f"proof lacks a field: {error}") from error
    nonce, balance, storage, code = mpt.prove_account(at.state_root, address, nodes)
    values = [
        (slot, mpt.prove_slot(storage, slot, proof))
        for slot, proof in zip(slots, slot_nodes, strict=True)
    ]
    return AccountProof(at.ref, address, nonce, Wei(balance), code, storage, tuple(values))


def pin(at: BlockRef) -> dict[str, Any]:
    """Return the EIP-1898 parameter: this block or an error."""
    return {"blockHash": to_hex(at.hash), "requireCanonical": True}


def message(call: Call) -> dict[str, str]:
    """Return the parameter of a call or an estimate."""
    fields = {
        "from": to_hex(call.sender),
        "to": to_hex(call.to),
        "data": to_hex(call.data),
    }
    if call.value:
        fields["value"] = hex(call.value)
    return fields


def log_filter(addresses: Sequence[bytes], topics: Sequence[bytes]) -> dict[str, Any]:
    """Return a log query, but for its blocks."""
    query: dict[str, Any] = {"address": [to_hex(each) for each in addresses]}
    if topics:
        query["topics"] = [[to_hex(topic) for topic in topics]]
    return query
