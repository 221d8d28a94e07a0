# pragma version 0.4.3
# pragma evm-version prague
"""
@title headers
@license Apache-2.0
@notice Was a sealed snapshot built on a block that this chain never had?
@dev A module. A snapshot header is a leaf under the decision root, and its `cut` is the hash of the
    blocks it was made of, 88 bytes a chain in chain order:

    chain 8 │ number 8 │ block hash 32 │ account root 32 │ timestamp 8
"""
from keeper.contracts import heads
from keeper.contracts import proofs

struct Header:
    version: uint16
    epoch: uint32
    view: uint64
    tick: uint64
    previous: bytes32
    parameters: bytes32
    cut: bytes32
    prices: bytes32
    state: bytes32
    watch: bytes32
    book: bytes32
    equity: int256
    imr: uint256
    mmr: uint256
    accounts: uint64

REF: constant(uint256) = 88  # bytes of one block of a cut
MAX_CUT: constant(uint256) = 5_632  # 64 chains
HEADER_TYPE: constant(bytes32) = keccak256("SnapshotHeader(uint16 version,uint32 epoch,uint64 view,uint64 tick,bytes32 previous,bytes32 parameters,bytes32 cut,bytes32 prices,bytes32 state,bytes32 watch,bytes32 book,int256 equity,uint256 imr,uint256 mmr,uint64 accounts)")
LEAF_TYPE: constant(bytes32) = keccak256("Header(bytes32 network,uint32 epoch,uint64 view,bytes32 headerHash)")


@internal
@pure
def _leaf(network: bytes32, seal: proofs.Seal, header: Header) -> bytes32:
    header_hash: bytes32 = keccak256(abi_encode(HEADER_TYPE, header))
    return keccak256(
        keccak256(abi_encode(LEAF_TYPE, network, seal.epoch, seal.view, header_hash))
    )


@internal
@view
def _contradicted(header: Header, cut: Bytes[MAX_CUT], at: uint256) -> bool:
    # whether block `at` of the header's cut is of this chain, and is not its block
    assert keccak256(cut) == header.cut, "headers: another cut"
    assert REF * (at + 1) <= len(cut), "headers: no such block"
    chain_id: uint256 = convert(slice(cut, REF * at, 8), uint256)
    number: uint256 = convert(slice(cut, REF * at + 8, 8), uint256)
    named: bytes32 = convert(slice(cut, REF * at + 16, 32), bytes32)
    assert chain_id == chain.id, "headers: of another chain"
    if number >= block.number:
        return True  # nothing was final there when the header was made
    real: bytes32 = heads._block_hash(convert(number, uint64))
    assert real != empty(bytes32), "headers: history too short"
    return real != named
