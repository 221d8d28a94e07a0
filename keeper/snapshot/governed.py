"""Which parameters are in force: those of the descriptor, until governance moved them in steps.

    Breaker of the hub: ParametersProposed(at, bytes) ─▶ wait the delay ─▶ judge ─┬▶ in force
                         a new proposal replaces it; an empty one withdraws it    └▶ refused, why

The state is part of the book, so every keeper changes over in the same view, and a snapshot is
computed with the very set that its own book holds. What is judged, and how, is in
`keeper.parameters.steps`: nobody can jump, hurry, or use a proposal that was forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import msgpack
from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError

from keeper.hashing import keccak, type_hash
from keeper.network import NetworkSpec
from keeper.observe.table import Table
from keeper.parameters import Parameters
from keeper.parameters.steps import refused_change, wait_s
from keeper.units import ChainId

PROPOSED = type_hash("ParametersProposed(uint64,bytes)")
STATE = "parameters"
"""Name of the state in the book."""


@dataclass(frozen=True, slots=True)
class Governed:
    """What became of proposals.

    Args:
        adopted: canonical bytes of the set in force; empty: the descriptor's.
        settled: digest of the proposal that was adopted or refused last.
        why: why it was refused; empty when it was adopted.
    """

    adopted: bytes = b""
    settled: bytes = b""
    why: str = ""

    def encode(self) -> bytes:
        """Return the bytes for the book."""
        if not self.settled:
            return b""
        packed: bytes = msgpack.packb([self.adopted, self.settled, self.why])
        return packed


def decode(state: bytes) -> Governed:
    """Return the state of its bytes; no bytes are the state before the first proposal."""
    return Governed(*msgpack.unpackb(state)) if state else Governed()


def advance(
    state: bytes,
    network: NetworkSpec,
    tables: Mapping[ChainId, Table],
    now: int,
    first: Parameters,
) -> bytes:
    """Return the state after a view.

    Args:
        state: of the view before.
        network: says which contract is asked.
        tables: the records of each chain at the cut.
        now: agreed time, seconds.
        first: the descriptor's set.
    """
    found = proposal(network, tables)
    if found is None:
        return state
    at, raw = found
    before = decode(state)
    settled = digest_of_proposal(at, raw)
    if not raw or settled == before.settled:
        return state
    current = in_force(first, state)
    left = wait_s(at, now, current.breakers)
    if left is None:
        return replace(before, settled=settled, why="it expired before it was agreed on").encode()
    if left:
        return state
    try:
        why = refused_change(current, Parameters.decode(raw))
    except ValueError as error:
        why = str(error)
    if why is not None:
        return replace(before, settled=settled, why=why).encode()
    return Governed(raw, settled).encode()


def digest_of_proposal(at: int, raw: bytes) -> bytes:
    """Return what names a proposal: its time and its bytes."""
    return keccak(at.to_bytes(8, "big") + raw)


def proposal(network: NetworkSpec, tables: Mapping[ChainId, Table]) -> tuple[int, bytes] | None:
    """Return (time, bytes) of the newest proposal on the hub, or None."""
    records, breaker = tables.get(network.hub), network.chain(network.hub).contract("Breaker")
    data = None if records is None or breaker is None else records.get(breaker, PROPOSED)
    if data is None:
        return None
    try:
        at, raw = abi_decode(("uint64", "bytes"), data)
    except (DecodingError, OverflowError):
        return None  # a record that cannot come from our contract
    return at, raw


def in_force(first: Parameters, state: bytes) -> Parameters:
    """Return the set in force.

    Args:
        first: the descriptor's.
        state: of the snapshot's own book.
    """
    adopted = decode(state).adopted
    return _decoded(adopted) if adopted else first


@lru_cache(maxsize=8)
def _decoded(raw: bytes) -> Parameters:
    return Parameters.decode(raw)


def digest_of(descriptor: bytes, state: bytes) -> bytes:
    """Return what the header says of parameters: the descriptor's digest, and the adopted set's."""
    adopted = decode(state).adopted
    return keccak(descriptor + keccak(adopted)) if adopted else descriptor
