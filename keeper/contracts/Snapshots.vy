# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Snapshots
@license Apache-2.0
@notice The decision roots a committee sealed, and the latest snapshot header this chain was shown.
@dev
    seal ──▶ check ──▶ Committee.verify_seal                       nothing stored, about 9k gas
         └─▶ ensure ─▶ the same, then root[epoch, view]            stored once
    certificate ─▶ ensure_votes ─▶ Committee.verify_votes ─▶ root  when the group key is stuck
    later: a seal with s = 0 means "look the root up"

    A stored root dies with the key of its epoch: every answer asks the committee again.
    Nobody owns this contract; it holds no funds.
"""
from keeper.contracts import ICommittee
from keeper.contracts import ISnapshots
from keeper.contracts import proofs

implements: ISnapshots

event Accepted:
    view: indexed(uint64)
    epoch: uint32
    root: bytes32

event Headed:
    view: indexed(uint64)
    epoch: uint32
    header_hash: bytes32

struct Header:
    epoch: uint32
    view: uint64
    hash: bytes32

HEADER_TYPE: constant(bytes32) = keccak256("Header(bytes32 network,uint32 epoch,uint64 view,bytes32 headerHash)")

COMMITTEE: immutable(ICommittee)
NETWORK: immutable(bytes32)

roots: HashMap[uint256, bytes32]  # epoch << 64 | view
latest: public(Header)  # never goes back: neither epoch nor view


@deploy
def __init__(committee: address):
    """
    @param committee The Committee contract of this chain.
    """
    COMMITTEE = ICommittee(committee)
    NETWORK = staticcall COMMITTEE.network()


@external
@view
def network() -> bytes32:
    """
    @notice The network id that is in every leaf.
    """
    return NETWORK


@external
@view
def committee() -> address:
    """
    @notice The contract that verifies seals.
    """
    return COMMITTEE.address


@external
@view
def check(seal: proofs.Seal) -> bool:
    """
    @notice True; reverts unless `seal.root` is sealed by a committee whose key has not expired.
    @param seal The seal; with s = 0 a root that `ensure` or `ensure_votes` stored.
    """
    self._check(seal)
    return True


@external
def ensure(seal: proofs.Seal):
    """
    @notice Verify a seal once and keep its root; a cheap no-op for a root that is kept already.
    """
    at: uint256 = self._slot(seal.epoch, seal.view)
    stored: bytes32 = self.roots[at]
    if stored == empty(bytes32):
        assert seal.s != 0, "snapshots: unknown root"
        self._check(seal)
        self.roots[at] = seal.root
        log Accepted(view=seal.view, epoch=seal.epoch, root=seal.root)
    else:
        assert stored == seal.root, "snapshots: another root"
        assert staticcall COMMITTEE.is_active(seal.epoch), "snapshots: expired epoch"


@external
def ensure_votes(
    epoch: uint32,
    view: uint64,
    root: bytes32,
    parent_view: uint64,
    parent: bytes32,
    tick: uint64,
    body_hash: bytes32,
    bitmap: uint256,
    sigs: DynArray[ICommittee.CompactSignature, 64],
):
    """
    @notice Keep a root by its finality certificate: the fallback when no seal can be made.
    @param bitmap Bit i set: member i voted to finalize.
    @param sigs One EIP-2098 signature per set bit, in member order.
    """
    assert staticcall COMMITTEE.verify_votes(
        epoch, view, root, parent_view, parent, tick, body_hash, bitmap, sigs
    ), "snapshots: bad certificate"
    at: uint256 = self._slot(epoch, view)
    stored: bytes32 = self.roots[at]
    assert stored == empty(bytes32) or stored == root, "snapshots: another root"
    if stored == empty(bytes32):
        self.roots[at] = root
        log Accepted(view=view, epoch=epoch, root=root)


@external
def record_header(
    seal: proofs.Seal, proof: DynArray[bytes32, proofs.MAX_PROOF], header_hash: bytes32
):
    """
    @notice Show this chain a snapshot header; only one later than the latest counts.
    @param header_hash Hash of the header as the keepers encode it.
    """
    self._check(seal)
    leaf: bytes32 = keccak256(
        keccak256(abi_encode(HEADER_TYPE, NETWORK, seal.epoch, seal.view, header_hash))
    )
    assert proofs._included(leaf, seal.root, proof), "snapshots: not in the root"
    assert self._slot(seal.epoch, seal.view) > self._slot(
        self.latest.epoch, self.latest.view
    ), "snapshots: not later"
    self.latest = Header(epoch=seal.epoch, view=seal.view, hash=header_hash)
    log Headed(view=seal.view, epoch=seal.epoch, header_hash=header_hash)


@external
@view
def root_of(epoch: uint32, view: uint64) -> bytes32:
    """
    @notice The kept root of a view, or zero. It may belong to an expired epoch; `proven` asks.
    """
    return self.roots[self._slot(epoch, view)]


@external
@view
def proven(
    epoch: uint32, view: uint64, leaf: bytes32, proof: DynArray[bytes32, proofs.MAX_PROOF]
) -> bool:
    """
    @notice Whether a leaf is under the kept root of a view of an epoch that has not expired.
    """
    root: bytes32 = self.roots[self._slot(epoch, view)]
    if root == empty(bytes32) or not staticcall COMMITTEE.is_active(epoch):
        return False
    return proofs._included(leaf, root, proof)


@internal
@view
def _check(seal: proofs.Seal):
    assert seal.root != empty(bytes32), "snapshots: empty root"
    if seal.s == 0:
        assert self.roots[self._slot(seal.epoch, seal.view)] == seal.root, "snapshots: unknown root"
        assert staticcall COMMITTEE.is_active(seal.epoch), "snapshots: expired epoch"
    else:
        assert staticcall COMMITTEE.verify_seal(
            seal.epoch, seal.view, seal.root, seal.rx, seal.ry, seal.s
        ), "snapshots: bad seal"


@internal
@pure
def _slot(epoch: uint32, view: uint64) -> uint256:
    return (convert(epoch, uint256) << 64) | convert(view, uint256)
