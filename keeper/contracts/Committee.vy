# pragma version 0.4.3
# pragma evm-version prague
"""
@title Committee
@license Apache-2.0
@notice Whose seal this chain trusts: one x-only group key per epoch, with an expiry.
@dev
    genesis (deployer, once) -> epoch 1 -> propose_change -> timelock -> activate -> epoch 2 ...

    A seal is one BIP340 signature made by FROST, whatever the size of the committee:

        e = sha256(T || T || rx || px || m) mod n,  T = sha256("BIP0340/challenge")
        s*G - e*P = R   checked as   ecrecover(n - s*px, 27, px, n - e*px) = address(rx, ry)

    `ry` is a hint that is checked, so the same 64 bytes (rx, s) spend a Bitcoin taproot output.
    When the group key is stuck, a finality certificate (a bitmap and at least a quorum of EIP-712
    votes in EIP-2098 form) stands for the seal. Nobody owns this contract: after `genesis` the
    deployer is forgotten, and the key changes only by the word of the old committee and time.
    All durations and expiries are block numbers of this chain.

    Whoever shows a member's signed observation with a head that is not this chain's block makes a
    `FalseHead` here; keepers carry it to the hub as a sealed penalty of the member's whole bond.
"""
from keeper.contracts import heads

struct Seal:
    epoch: uint32
    view: uint64
    root: bytes32
    rx: uint256
    ry: uint256
    s: uint256

struct CompactSignature:
    r: bytes32
    vs: bytes32

struct Finality:
    epoch: uint32
    view: uint64
    root: bytes32
    parent_view: uint64
    parent: bytes32
    tick: uint64
    body_hash: bytes32
    bitmap: uint256

struct Change:
    next_epoch: uint32
    group_key: uint256
    config: bytes32
    members_hash: bytes32
    old_expiry: uint64

event EpochInstalled:
    epoch: indexed(uint32)
    group_key: uint256
    config: bytes32
    members: DynArray[address, MAX_MEMBERS]

event EpochExpires:
    epoch: indexed(uint32)
    expiry: uint64

event ChangeProposed:
    next_epoch: indexed(uint32)
    group_key: uint256
    config: bytes32
    members_hash: bytes32
    ready_at: uint64

event LeafUsed:
    leaf: indexed(bytes32)

event FalseHead:
    member: indexed(address)
    head: indexed(bytes32)
    number: uint64

MAX_MEMBERS: constant(uint256) = 64  # a bitmap and a loop that stay far below a block's gas
MAX_PROOF: constant(uint256) = 20
MAX_MESSAGE: constant(uint256) = 256
FINALIZE: constant(uint256) = 3  # kind of a vote
NEVER: constant(uint64) = max_value(uint64)

# secp256k1: order of the group, prime of the field
N: constant(uint256) = 115792089237316195423570985008687907852837564279074904382605163141518161494337
P: constant(uint256) = 115792089237316195423570985008687907853269984665640564039457584007908834671663
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
ADDRESS_MASK: constant(uint256) = 2**160 - 1
PARITY_BIT: constant(uint256) = 2**255

# sha256("BIP0340/challenge")
CHALLENGE_TAG: constant(bytes32) = 0x7bb52d7a9fef58323eb1bf7a407db382d2f3f2d81bb1224f49fe518f6d48d37c

SEAL_TYPE: constant(bytes32) = keccak256("Seal(bytes32 network,uint32 epoch,uint64 view,bytes32 root)")
BLOCK_TYPE: constant(bytes32) = keccak256("Block(uint64 parentView,bytes32 parent,uint64 tick,bytes32 bodyHash,bytes32 root)")
VOTE_TYPE: constant(bytes32) = keccak256("Vote(uint32 epoch,bytes32 config,uint8 kind,uint64 view,bytes32 digest)")
DOMAIN_TYPE: constant(bytes32) = keccak256("EIP712Domain(string name,string version,bytes32 salt)")
CHANGE_TYPE: constant(bytes32) = keccak256("CommitteeChange(bytes32 network,uint32 epoch,uint64 chain,address contract,uint32 nextEpoch,uint256 groupKey,bytes32 config,bytes32 membersHash,uint64 oldExpiry)")

NETWORK: immutable(bytes32)
DOMAIN: immutable(bytes32)  # EIP-712 separator without chain id and contract
TIMELOCK: immutable(uint64)  # blocks between a proposed change and its activation
GRACE: immutable(uint64)  # most blocks an old key may live after the activation

deployer: address  # may call `genesis` once; empty afterwards
current: public(uint32)
group_key: public(HashMap[uint32, uint256])
expiry: public(HashMap[uint32, uint64])
config: public(HashMap[uint32, bytes32])
roster: HashMap[uint32, DynArray[address, MAX_MEMBERS]]
seat: HashMap[uint32, HashMap[address, uint256]]  # index + 1
taken: HashMap[address, HashMap[uint256, bool]]  # caller, then epoch << 64 | view
pending: public(Change)
pending_view: public(uint64)
ready_at: public(uint64)


@deploy
def __init__(network: bytes32, timelock: uint64, grace: uint64):
    """
    @param network Id of the network, in every digest.
    @param timelock Blocks between a proposed change and its activation.
    @param grace Most blocks the old key may live after the activation.
    """
    assert network != empty(bytes32), "committee: empty network"
    NETWORK = network
    DOMAIN = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256("Flowkeeper"), keccak256("1"), network)
    )
    TIMELOCK = timelock
    GRACE = grace
    self.deployer = msg.sender


@external
def genesis(
    epoch: uint32, group_key: uint256, config: bytes32, members: DynArray[address, MAX_MEMBERS]
):
    """
    @notice Install the first committee. The deployer calls this once and has no rights after it.
    @param epoch Number of the first epoch, at least 1.
    @param group_key The x-only group key.
    @param config Digest of network, epoch, members, peers and parameters.
    @param members Operator addresses in member order.
    """
    assert msg.sender == self.deployer, "committee: not the deployer"
    assert epoch != 0, "committee: epoch zero"
    self.deployer = empty(address)
    self._install(epoch, group_key, config, members)


@external
@view
def network() -> bytes32:
    """
    @notice The network id that is in every digest.
    """
    return NETWORK


@external
@view
def timelock() -> uint64:
    """
    @notice Blocks between a proposed change and its activation.
    """
    return TIMELOCK


@external
@view
def grace() -> uint64:
    """
    @notice Most blocks an old key may live after the activation of the next.
    """
    return GRACE


@external
@view
def members(epoch: uint32) -> DynArray[address, MAX_MEMBERS]:
    """
    @notice Operator addresses of an epoch, in member order.
    """
    return self.roster[epoch]


@external
@view
def is_member(epoch: uint32, operator: address) -> bool:
    """
    @notice Whether an operator sits in the committee of an epoch.
    """
    return self.seat[epoch][operator] != 0


@external
@view
def quorum(epoch: uint32) -> uint256:
    """
    @notice Members that must agree: (n + f) // 2 + 1 with f = (n - 1) // 3.
    """
    return self._quorum(len(self.roster[epoch]))


@external
@view
def is_active(epoch: uint32) -> bool:
    """
    @notice Whether the key of an epoch exists and has not expired.
    """
    return convert(block.number, uint64) < self.expiry[epoch]


@external
@view
def verify_seal(
    epoch: uint32, view: uint64, root: bytes32, rx: uint256, ry: uint256, s: uint256
) -> bool:
    """
    @notice Whether the committee of `epoch`, not expired, sealed `root` in `view`.
    @param rx X coordinate of the nonce point.
    @param ry Its even Y coordinate, a hint that is checked.
    @param s The scalar.
    """
    return self._verify_seal(epoch, view, root, rx, ry, s)


@external
@view
def verify_votes(
    epoch: uint32,
    view: uint64,
    root: bytes32,
    parent_view: uint64,
    parent: bytes32,
    tick: uint64,
    body_hash: bytes32,
    bitmap: uint256,
    sigs: DynArray[CompactSignature, MAX_MEMBERS],
) -> bool:
    """
    @notice Whether a quorum of `epoch` voted to finalize the block that carries `root`.
    @param bitmap Bit i set: member i signed.
    @param sigs One EIP-2098 signature per set bit, in member order.
    """
    return self._verify_votes(
        Finality(
            epoch=epoch,
            view=view,
            root=root,
            parent_view=parent_view,
            parent=parent,
            tick=tick,
            body_hash=body_hash,
            bitmap=bitmap,
        ),
        sigs,
    )


@external
@view
def verify_bip340(px: uint256, message: bytes32, rx: uint256, ry: uint256, s: uint256) -> bool:
    """
    @notice Whether (rx, s) is a BIP340 signature of `message` by the x-only key `px`.
    """
    if px == 0 or px >= N:
        return False
    return self._opens(
        px,
        sha256(
            concat(
                CHALLENGE_TAG, CHALLENGE_TAG, convert(rx, bytes32), convert(px, bytes32), message
            )
        ),
        rx,
        ry,
        s,
    )


@external
@view
def verify_bip340_bytes(
    px: uint256, message: Bytes[MAX_MESSAGE], rx: uint256, ry: uint256, s: uint256
) -> bool:
    """
    @notice The same for a message of any length up to MAX_MESSAGE bytes.
    """
    if px == 0 or px >= N:
        return False
    head: Bytes[128] = concat(
        CHALLENGE_TAG, CHALLENGE_TAG, convert(rx, bytes32), convert(px, bytes32)
    )
    return self._opens(px, sha256(concat(head, message)), rx, ry, s)


@external
def take(seal: Seal):
    """
    @notice Verify a seal for the caller, once: for a contract that keeps no record of its own.
    @dev Reverts if the seal is bad, or if this caller took the seal of that view before.
    """
    at: uint256 = (convert(seal.epoch, uint256) << 64) | convert(seal.view, uint256)
    assert not self.taken[msg.sender][at], "committee: taken before"
    assert self._verify_seal(
        seal.epoch, seal.view, seal.root, seal.rx, seal.ry, seal.s
    ), "committee: bad seal"
    self.taken[msg.sender][at] = True


@external
def propose_change(seal: Seal, proof: DynArray[bytes32, MAX_PROOF], change: Change):
    """
    @notice Bring a sealed change of committee; it can be activated after the timelock.
    @dev A later view of the same committee replaces a pending change and starts the clock anew.
    """
    assert seal.epoch == self.current, "committee: not the current epoch"
    assert self._verify_seal(
        seal.epoch, seal.view, seal.root, seal.rx, seal.ry, seal.s
    ), "committee: bad seal"
    self._propose(seal.view, seal.root, proof, change)


@external
def propose_change_by_votes(
    finality: Finality,
    sigs: DynArray[CompactSignature, MAX_MEMBERS],
    proof: DynArray[bytes32, MAX_PROOF],
    change: Change,
):
    """
    @notice The same by a finality certificate, for a committee whose group key is stuck.
    """
    assert finality.epoch == self.current, "committee: not the current epoch"
    assert self._verify_votes(finality, sigs), "committee: bad certificate"
    self._propose(finality.view, finality.root, proof, change)


@external
def activate(members: DynArray[address, MAX_MEMBERS]):
    """
    @notice Install the pending committee once the timelock has passed. Anyone may call.
    @param members Operator addresses whose hash the old committee agreed on.
    """
    change: Change = self.pending
    now: uint64 = convert(block.number, uint64)
    assert change.next_epoch != 0, "committee: nothing pending"
    assert now >= self.ready_at, "committee: timelocked"
    assert keccak256(abi_encode(members)) == change.members_hash, "committee: other members"
    old: uint32 = self.current
    until: uint64 = min(change.old_expiry, now + GRACE)
    self.pending = empty(Change)
    self.pending_view = 0
    self.ready_at = 0
    self.expiry[old] = until
    log EpochExpires(epoch=old, expiry=until)
    self._install(change.next_epoch, change.group_key, change.config, members)


@external
def accuse_head(
    observation: heads.Observation,
    sig: heads.CompactSignature,
    number: uint64,
    hash: bytes32,
    proof: DynArray[bytes32, MAX_PROOF],
):
    """
    @notice Show that a member signed a head of this chain that is not its block. Anyone may.
    @param number Block number of the false head.
    @param hash Hash the member signed.
    @param proof Merkle proof of the head under the observation's heads root.
    """
    member: address = heads._contradicted(DOMAIN, observation, sig, number, hash, proof)
    assert (
        self.seat[observation.epoch][member] != 0
        and observation.config == self.config[observation.epoch]
    ), "committee: not a member"
    log FalseHead(member=member, head=hash, number=number)


@internal
def _install(
    epoch: uint32, group_key: uint256, config: bytes32, members: DynArray[address, MAX_MEMBERS]
):
    assert config != empty(bytes32), "committee: empty config"
    assert len(members) != 0, "committee: no members"
    assert self._is_key(group_key), "committee: bad group key"
    seats: uint256 = 0
    for member: address in members:
        assert member != empty(address), "committee: empty member"
        assert self.seat[epoch][member] == 0, "committee: repeated member"
        seats += 1
        self.seat[epoch][member] = seats
    self.roster[epoch] = members
    self.group_key[epoch] = group_key
    self.config[epoch] = config
    self.expiry[epoch] = NEVER
    self.current = epoch
    log EpochInstalled(epoch=epoch, group_key=group_key, config=config, members=members)


@internal
def _propose(
    view: uint64, root: bytes32, proof: DynArray[bytes32, MAX_PROOF], change: Change
):
    epoch: uint32 = self.current
    assert change.next_epoch == epoch + 1, "committee: not the next epoch"
    assert self._is_key(change.group_key), "committee: bad group key"
    assert change.config != empty(bytes32), "committee: empty config"
    assert self.pending.next_epoch == 0 or view > self.pending_view, "committee: older view"
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                CHANGE_TYPE,
                NETWORK,
                epoch,
                convert(chain.id, uint64),
                self,
                change.next_epoch,
                change.group_key,
                change.config,
                change.members_hash,
                change.old_expiry,
            )
        )
    )
    node: bytes32 = leaf
    for sibling: bytes32 in proof:
        if convert(node, uint256) < convert(sibling, uint256):
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
    assert node == root, "committee: not in the root"
    self.pending = change
    self.pending_view = view
    self.ready_at = convert(block.number, uint64) + TIMELOCK
    log LeafUsed(leaf=leaf)
    log ChangeProposed(
        next_epoch=change.next_epoch,
        group_key=change.group_key,
        config=change.config,
        members_hash=change.members_hash,
        ready_at=self.ready_at,
    )


@internal
@pure
def _quorum(size: uint256) -> uint256:
    if size == 0:
        return max_value(uint256)
    return (size + (size - 1) // 3) // 2 + 1


@internal
@pure
def _is_key(px: uint256) -> bool:
    # ecrecover lifts r to a point, so it answers empty for an x that is not on the curve
    if px == 0 or px >= N:
        return False
    return ecrecover(CHALLENGE_TAG, 27, px, 1) != empty(address)


@internal
@view
def _verify_seal(
    epoch: uint32, view: uint64, root: bytes32, rx: uint256, ry: uint256, s: uint256
) -> bool:
    if convert(block.number, uint64) >= self.expiry[epoch]:
        return False
    px: uint256 = self.group_key[epoch]
    message: bytes32 = keccak256(abi_encode(SEAL_TYPE, NETWORK, epoch, view, root))
    return self._opens(
        px,
        sha256(
            concat(
                CHALLENGE_TAG, CHALLENGE_TAG, convert(rx, bytes32), convert(px, bytes32), message
            )
        ),
        rx,
        ry,
        s,
    )


@internal
@pure
def _opens(px: uint256, challenge: bytes32, rx: uint256, ry: uint256, s: uint256) -> bool:
    # s*G = R + e*P, R even; px was checked to be in (0, n) when it was installed or passed
    if s == 0 or s >= N or rx >= P or ry >= P or ry & 1 == 1:
        return False
    e: uint256 = convert(challenge, uint256) % N
    found: address = ecrecover(
        convert(unsafe_sub(N, uint256_mulmod(s, px, N)), bytes32),
        27,
        px,
        unsafe_sub(N, uint256_mulmod(e, px, N)),
    )
    nonce_point: bytes32 = keccak256(concat(convert(rx, bytes32), convert(ry, bytes32)))
    return found != empty(address) and convert(found, uint256) == (
        convert(nonce_point, uint256) & ADDRESS_MASK
    )


@internal
@view
def _verify_votes(finality: Finality, sigs: DynArray[CompactSignature, MAX_MEMBERS]) -> bool:
    if convert(block.number, uint64) >= self.expiry[finality.epoch]:
        return False
    size: uint256 = len(self.roster[finality.epoch])
    if len(sigs) < self._quorum(size) or finality.bitmap >> size != 0:
        return False
    block_digest: bytes32 = keccak256(
        abi_encode(
            BLOCK_TYPE,
            finality.parent_view,
            finality.parent,
            finality.tick,
            finality.body_hash,
            finality.root,
        )
    )
    vote: bytes32 = keccak256(
        abi_encode(
            VOTE_TYPE,
            finality.epoch,
            self.config[finality.epoch],
            FINALIZE,
            finality.view,
            block_digest,
        )
    )
    digest: bytes32 = keccak256(concat(x"1901", DOMAIN, vote))
    taken: uint256 = 0
    for index: uint256 in range(MAX_MEMBERS):
        if index >= size:
            break
        if (finality.bitmap >> index) & 1 == 0:
            continue
        if taken >= len(sigs):
            return False
        sig: CompactSignature = sigs[taken]
        vs: uint256 = convert(sig.vs, uint256)
        s: uint256 = vs & ~PARITY_BIT
        if s > HALF_N:
            return False
        signer: address = ecrecover(
            digest, 27 + (vs >> 255), convert(sig.r, uint256), s
        )
        if signer == empty(address) or signer != self.roster[finality.epoch][index]:
            return False
        taken += 1
    return taken == len(sigs)
