"""Intents: `Intents` records of one chain → orders opened there, and fills delivered there.

Open(orderId, resolvedOrder)                      origin: the input is locked (ERC-7683)
Closed(orderId, to, amount)                       origin: claimed, refunded or escaped
Filled(orderId, dataHash, filler, payee)          destination: delivered as the origin data says
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from keeper.hashing import keccak, type_hash
from keeper.network import ChainSpec
from keeper.units import ChainId
from keeper.venue.port import Records
from keeper.venue.records import address, rows

_OUTPUT = "(bytes32,uint256,bytes32,uint256)"
RESOLVED = (
    f"(address,uint256,uint32,uint32,bytes32,{_OUTPUT}[],{_OUTPUT}[],(uint64,bytes32,bytes)[])"
)
"""ABI type of ERC-7683's ResolvedCrossChainOrder."""
OPEN = type_hash(f"Open(bytes32,{RESOLVED})")
CLOSED = type_hash("Closed(bytes32,address,uint256)")
FILLED = type_hash("Filled(bytes32,bytes32,address,bytes32)")
KEPT = 1 << 14
"""Orders kept decoded, two kilobytes each: every keeper reads all open ones in every view."""


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order as its origin announced it.

    Args:
        id: order id.
        origin: chain whose settler holds the input.
        user: who gets the input back when nobody fills.
        destination, settler: chain and 32-byte settler of the fill instruction.
        data: the fill instruction's origin data; its hash names the fill.
        fill_deadline: last second of a fill, by the destination's clock.
        token, amount: output, 32-byte token word.
        input_token, input_amount: what the filler's payee gets.
        closed: whether the input has left.
    """

    id: bytes
    origin: ChainId
    user: bytes
    destination: ChainId
    settler: bytes
    data: bytes
    fill_deadline: int
    token: bytes
    amount: int
    input_token: bytes
    input_amount: int
    closed: bool

    @property
    def data_hash(self) -> bytes:
        """What a fill of this order is known by, with its id."""
        return keccak(self.data)


def orders(spec: ChainSpec, records: Records, *, closed: bool = False) -> Iterator[OpenOrder]:
    """Yield the orders of a chain, sorted by id; closed ones only when asked for."""
    contract = spec.contract("Intents")
    if contract is None:
        return
    for (order_id,), data in rows(records, contract, OPEN, 1, 1):
        ended = records.get(contract, CLOSED, order_id) is not None
        if ended and not closed:
            continue
        order = _order(spec.id, order_id, data)
        if order is not None:
            yield replace(order, closed=True) if ended else order


@lru_cache(maxsize=KEPT)
def _order(origin: ChainId, order_id: bytes, data: bytes) -> OpenOrder | None:
    """Return the decoded order, or None when the data is not the settler's."""
    try:
        ((user, _, _, deadline, inner, spent, received, fills),) = decode([RESOLVED], data)
    except (DecodingError, OverflowError, ValueError):
        return None
    if inner != order_id or not len(spent) == len(received) == len(fills) == 1:
        return None
    (token, amount, _, _), (given, locked, _, _) = spent[0], received[0]
    destination, settler, origin_data = fills[0]
    return OpenOrder(
        id=order_id,
        origin=origin,
        user=bytes.fromhex(user[2:]),
        destination=ChainId(destination),
        settler=settler,
        data=origin_data,
        fill_deadline=deadline,
        token=token,
        amount=amount,
        input_token=address(given),
        input_amount=locked,
        closed=False,
    )


def fills(spec: ChainSpec, records: Records) -> dict[tuple[bytes, bytes], bytes]:
    """Return (order id, data hash) → 32-byte payee of every fill delivered on a chain."""
    found = rows(records, spec.contract("Intents"), FILLED, 3, 1)
    return {(order, data_hash): data[:32] for (order, data_hash, _), data in found}
