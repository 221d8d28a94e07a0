# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Awards
@license Apache-2.0
@notice A certified award lets its winner, and in its absence others, liquidate once.
@dev
    blocks  start ........ start+exclusive .. +step .. +step .. openAt ....... last
    who     rank 0, pays the price │ rank 1 ... │ rank 2 ... │ any bonded keeper │ nobody
                                   └─ whoever steps in makes rank 0 a no-show

    execute: window ─▶ seal and leaf ─▶ state[task] = executed ─▶ permission on ─▶ venue.liquidate
             ─▶ permission off ─▶ no-show to Bonds

    The permission lives in transient storage: `permitted(task)` is true only inside the call, and
    who may act is msg.sender, so copied calldata is worth nothing. The price is in µUSD and is
    taken from the bonus before the purse is credited: it cannot stay unpaid. A sealed attestation
    that the account healed voids the task and nobody is punished; after its last block an award is
    worth nothing by itself. Nobody owns this contract.
"""
from keeper.contracts import IAwards
from keeper.contracts import IBonds
from keeper.contracts import IVenue
from keeper.contracts import awarding
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: sealing

implements: IAwards

event Executed:
    task: indexed(bytes32)
    account: indexed(bytes32)
    keeper: indexed(address)
    rank: uint256
    market: bytes32
    size: uint256
    bonus: uint256
    spent: uint256  # wei the keeper's transaction costs, to a few thousand gas

event NoShow:
    task: indexed(bytes32)
    keeper: indexed(address)
    amount: uint256

event Voided:
    task: indexed(bytes32)

event LeafUsed:
    leaf: indexed(bytes32)

OUTSIDE_GAS: constant(uint256) = 36_000  # of a winner's transaction, before the first measure and after the last
OPEN: constant(uint8) = 0
EXECUTED: constant(uint8) = 1
VOIDED: constant(uint8) = 2
ATTESTATION_TYPE: constant(bytes32) = keccak256("Attestation(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 eventHash)")
HEALED_TYPE: constant(bytes32) = keccak256("Healed(bytes32 task)")

BONDS: immutable(IBonds)

state: public(HashMap[bytes32, uint8])
active_task: transient(bytes32)


@deploy
def __init__(snapshots: address, bonds: address):
    """
    @param snapshots The Snapshots contract of this chain.
    @param bonds The Bonds contract if this chain is the hub, else the zero address.
    """
    sealing.__init__(snapshots)
    BONDS = IBonds(bonds)


@external
@view
def permitted(task: bytes32) -> bool:
    """
    @notice Whether the task is being executed in this very call.
    """
    return task != empty(bytes32) and self.active_task == task


@external
@nonreentrant
def execute(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    award: awarding.Award,
    size: uint256,
    purse: bytes32,
):
    """
    @notice Liquidate as awarded. The caller must be a rank in its window, or bonded once open.
    @param size How much to close: at least half of what can be closed, at most the award's size.
    @param purse Account that is credited the bonus less the price.
    """
    before: uint256 = msg.gas
    assert self.state[award.task] == OPEN, "awards: task is done"
    assert convert(block.number, uint64) <= award.last, "awards: award is over"
    assert size <= award.max_size, "awards: above the awarded size"
    rank: uint256 = self._rank(
        award.ranks, award.start, award.exclusive, award.step, award.open_at
    )
    sealing._require(seal)
    leaf: bytes32 = awarding._leaf(
        sealing.NETWORK, seal.epoch, convert(chain.id, uint64), self, award
    )
    assert proofs._included(leaf, seal.root, proof), "awards: not in the root"
    self.state[award.task] = EXECUTED
    self.active_task = award.task
    price: uint256 = award.price if rank == 0 else 0
    closed: uint256 = 0
    left: uint256 = 0
    bonus: uint256 = 0
    closed, left, bonus = extcall IVenue(award.venue).liquidate(
        award.task, award.account, award.market, size, purse, price
    )
    self.active_task = empty(bytes32)
    assert closed != 0 and 2 * closed >= min(award.max_size, closed + left), "awards: too small"
    log LeafUsed(leaf=leaf)
    log Executed(
        task=award.task,
        account=award.account,
        keeper=msg.sender,
        rank=rank,
        market=award.market,
        size=closed,
        bonus=bonus,
        spent=(before - msg.gas + OUTSIDE_GAS) * tx.gasprice,
    )
    if rank != 0 and len(award.ranks) != 0:
        log NoShow(task=award.task, keeper=award.ranks[0], amount=award.lock)
        if BONDS.address != empty(address):
            extcall BONDS.no_show(award.task, award.ranks[0], award.lock, msg.sender)


@external
def void(seal: proofs.Seal, proof: DynArray[bytes32, proofs.MAX_PROOF], task: bytes32):
    """
    @notice Close a task whose account healed, by a sealed attestation; nobody is punished.
    @dev The attestation's event hash is keccak(abi.encode(keccak("Healed(bytes32 task)"), task)).
    """
    assert self.state[task] == OPEN, "awards: task is done"
    sealing._require(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                ATTESTATION_TYPE,
                sealing.NETWORK,
                seal.epoch,
                convert(chain.id, uint64),
                self,
                keccak256(abi_encode(HEALED_TYPE, task)),
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "awards: not in the root"
    self.state[task] = VOIDED
    log LeafUsed(leaf=leaf)
    log Voided(task=task)


@internal
@view
def _rank(
    ranks: DynArray[address, awarding.MAX_RANKS],
    start: uint64,
    exclusive: uint64,
    step: uint64,
    open_at: uint64,
) -> uint256:
    # the caller's rank, or the number of ranks for a bonded stranger
    now: uint64 = convert(block.number, uint64)
    assert now >= start, "awards: too early"
    late: bool = now >= start + exclusive
    if not late and len(ranks) != 0 and ranks[0] == msg.sender:
        return 0
    rank: uint256 = 0
    for keeper: address in ranks:
        if keeper == msg.sender and rank != 0:
            if now >= start + exclusive + (convert(rank, uint64) - 1) * step:
                return rank
        rank += 1
    assert late and now >= open_at, "awards: not your turn"
    assert BONDS.address != empty(address), "awards: only ranks on this chain"
    assert staticcall BONDS.is_active(msg.sender), "awards: not bonded"
    return max(rank, 1)
