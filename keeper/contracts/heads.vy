# pragma version 0.4.3
# pragma evm-version prague
"""
@title heads
@license Apache-2.0
@notice Who signed a head that this chain's own history contradicts?
@dev A module. An observation is signed as EIP-712 without chain id and contract; its heads are
    leaves Head(chain, number, hash) under `heads_root`, so one head can be shown alone.
    History: BLOCKHASH for 256 blocks, then the EIP-2935 contract for 8191.
"""
from keeper.contracts import proofs

struct CompactSignature:  # EIP-2098
    r: bytes32
    vs: bytes32

struct Observation:
    epoch: uint32
    config: bytes32
    tick: uint64
    heads_root: bytes32
    prices_root: bytes32
    rest_root: bytes32

HEAD_TYPE: constant(bytes32) = keccak256("Head(uint64 chain,uint64 number,bytes32 hash)")
OBSERVATION_TYPE: constant(bytes32) = keccak256("Observation(uint32 epoch,bytes32 config,uint64 tick,bytes32 headsRoot,bytes32 pricesRoot,bytes32 restRoot)")
DOMAIN_TYPE: constant(bytes32) = keccak256("EIP712Domain(string name,string version,bytes32 salt)")
HISTORY: constant(address) = 0x0000F90827F1c53A10cB7A002335175320002935
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168


@internal
@pure
def _domain(network: bytes32) -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE, keccak256("Flowkeeper"), keccak256("1"), network))


@internal
@pure
def _recover(domain: bytes32, struct_hash: bytes32, sig: CompactSignature) -> address:
    vs: uint256 = convert(sig.vs, uint256)
    s: uint256 = vs & (2**255 - 1)
    assert s <= HALF_N, "heads: high s"
    signer: address = ecrecover(
        keccak256(concat(x"1901", domain, struct_hash)),
        27 + (vs >> 255),
        convert(sig.r, uint256),
        s,
    )
    assert signer != empty(address), "heads: bad signature"
    return signer


@internal
@view
def _block_hash(number: uint64) -> bytes32:
    n: uint256 = convert(number, uint256)
    assert n < block.number, "heads: not a past block"
    if block.number - n <= 256:
        return blockhash(n)
    return convert(
        raw_call(HISTORY, abi_encode(n), max_outsize=32, is_static_call=True), bytes32
    )


@internal
@view
def _contradicted(
    domain: bytes32,
    observation: Observation,
    sig: CompactSignature,
    number: uint64,
    hash: bytes32,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
) -> address:
    # the signer of an observation with a head of this chain that is not this chain's block
    leaf: bytes32 = keccak256(
        keccak256(abi_encode(HEAD_TYPE, convert(chain.id, uint64), number, hash))
    )
    assert proofs._included(leaf, observation.heads_root, proof), "heads: not in the observation"
    real: bytes32 = self._block_hash(number)
    assert real != empty(bytes32), "heads: history too short"
    assert real != hash, "heads: the head is right"
    return self._recover(
        domain, keccak256(abi_encode(OBSERVATION_TYPE, observation)), sig
    )
