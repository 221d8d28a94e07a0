# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Escrow
@license Apache-2.0
@notice Legs on several chains that all happen or none: one sealed outcome decides them all.
@dev
    pledge (deposit) ─▶ prepare (lock) ─▶ FlowOutcome leaf ─┬─ commit ─▶ receiver is paid
       by armBy            by lockBy                        └─ abort  ─▶ payer is refunded
                                                                  └─ late ─▶ deposit to the others
    no outcome for ESCAPE blocks ─▶ escape: payer is refunded

    flow = keccak(network, epoch, number, armBy, lockBy, Merkle root of the leg hashes), and a leg's
    hash names its place, chain, escrow, payer, token, amount, deposit and receiver: no leg, time or
    deposit can be slipped in or changed. There is no local time lock below the escape: one side's
    time-out while the other side commits is how such swaps split. A leg cannot be locked after
    `lockBy`, so a chain whose clock has passed it says for ever who has locked and who has not.
    A leg is a payment, or the reduction of a position at a venue of this chain: its payer agrees to
    it by locking the leg, and on commit anyone has the venue close so much of it.
    Deposits come first: once every leg has one, whoever does not lock loses it to those who did.
    The escape is days long, for a quorum that is lost for good, and it trades atomicity away: an
    outcome that comes after it finds that leg gone. Nobody owns this contract.
"""
from ethereum.ercs import IERC20
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: sealing

interface IVault:
    def deposit_for(account: bytes32, token: address, amount: uint256): nonpayable

interface IVenue:
    def reducible(owner: address, index: uint256, id: bytes32) -> uint256: view
    def reduce_for(owner: address, index: uint256, id: bytes32, size: uint256) -> uint256: nonpayable

event Prepared:  # the last one of a leg says how far it is
    flow: indexed(bytes32)
    index: indexed(uint256)
    payer: address
    token: address
    amount: uint256
    deposit: uint256
    receiver: bytes32
    vault: address
    market: bytes32
    epoch: uint32
    number: uint32
    armBy: uint64
    lockBy: uint64
    stage: uint8

event Settled:
    flow: indexed(bytes32)
    outcome: uint8
    late: uint16

event Paid:
    flow: indexed(bytes32)
    index: indexed(uint256)
    to: bytes32
    token: address
    amount: uint256

event Refunded:  # the deposit of a committed leg
    flow: indexed(bytes32)
    index: indexed(uint256)
    amount: uint256

event Compensated:
    flow: indexed(bytes32)
    index: indexed(uint256)
    heir: indexed(uint256)
    to: address
    token: address
    amount: uint256

event LeafUsed:
    leaf: indexed(bytes32)

struct Terms:
    epoch: uint32  # committee epoch in which it is opened
    number: uint32  # tells flows with the very same legs apart
    armBy: uint64  # last second for a deposit; 0: a flow without deposits
    lockBy: uint64  # last second for a lock

struct Leg:
    index: uint256  # its place among the legs
    chain: uint64
    escrow: address
    payer: address
    token: address
    amount: uint256  # of the token; where `market` is set, the size to close
    deposit: uint256  # of the token, lost by a payer that does not lock
    receiver: bytes32  # address, or who is credited by the vault, or which of the payer's accounts
    vault: address  # where to deposit, or empty; where `market` is set, the venue
    market: bytes32  # of the position to reduce, or empty: a payment

MAX_LEGS: constant(uint256) = 16
MAX_PATH: constant(uint256) = 4  # siblings from a leg up to the root
MAX_WAIT: constant(uint256) = 86_400
PLEDGED: constant(uint256) = 1
LOCKED: constant(uint256) = 2
GONE: constant(uint256) = 3
COMMIT: constant(uint256) = 1
ABORT: constant(uint256) = 2
OUTCOME_TYPE: constant(bytes32) = keccak256("FlowOutcome(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 flow,uint8 outcome,uint16 late)")
LEG_TYPE: constant(bytes32) = keccak256("Leg(uint256 index,uint64 chain,address escrow,address payer,address token,uint256 amount,uint256 deposit,bytes32 receiver,address vault,bytes32 market)")
FLOW_TYPE: constant(bytes32) = keccak256("Flow(bytes32 network,uint32 epoch,uint32 number,uint64 armBy,uint64 lockBy,bytes32 legs)")

ESCAPE: immutable(uint256)  # blocks

legs: HashMap[bytes32, HashMap[bytes32, uint256]]  # flow -> leg hash -> stage | block
outcomes: HashMap[bytes32, uint256]  # outcome | late legs
heirs: HashMap[bytes32, HashMap[uint256, uint256]]  # flow -> late leg -> heirs paid already


@deploy
def __init__(snapshots: address, escape: uint64):
    """
    @param snapshots The Snapshots contract of this chain.
    @param escape Blocks without an outcome after which a payer may take a leg back: days.
    """
    assert escape != 0, "escrow: no escape delay"
    sealing.__init__(snapshots)
    ESCAPE = convert(escape, uint256)


@external
@view
def escape_delay() -> uint256:
    """
    @notice Blocks without an outcome after which a payer may take a leg back.
    """
    return ESCAPE


@external
@view
def outcome(flow: bytes32) -> uint8:
    """
    @notice 0 none yet, 1 commit, 2 abort.
    """
    return convert(self.outcomes[flow] & 255, uint8)


@external
@view
def stage(flow: bytes32, leg_hash: bytes32) -> uint8:
    """
    @notice 0 nothing here, 1 deposit placed, 2 locked, 3 gone.
    """
    return convert(self.legs[flow][leg_hash] & 255, uint8)


@external
@pure
def leg_hash(leg: Leg) -> bytes32:
    """
    @notice The hash of a leg as a flow's id binds it.
    """
    return self._hash(leg)


@external
@view
def flow_id(terms: Terms, legs: DynArray[Leg, MAX_LEGS]) -> bytes32:
    """
    @notice The id of a flow over its times and all its legs, in order.
    """
    return self._flow(terms, self._root(self._hashes(legs)))


@external
@nonreentrant
def pledge(terms: Terms, root: bytes32, path: DynArray[bytes32, MAX_PATH], leg: Leg) -> bytes32:
    """
    @notice Place the deposit of the caller's leg; it is lost only if all are placed and this leg is
        then not locked while another's is.
    @param terms Times and number of the flow.
    @param root Merkle root of the hashes of all legs, on whatever chain.
    @param path Siblings from the hash of the caller's leg up to the root.
    @return The flow's id.
    """
    assert terms.armBy != 0, "escrow: a flow without deposits"
    return self._enter(terms, root, path, leg, PLEDGED)


@external
@nonreentrant
def prepare(terms: Terms, root: bytes32, path: DynArray[bytes32, MAX_PATH], leg: Leg) -> bytes32:
    """
    @notice Lock the caller's leg, with its deposit where that was not placed before.
    @return The flow's id.
    """
    return self._enter(terms, root, path, leg, LOCKED)


@external
def settle(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    flow: bytes32,
    outcome: uint8,
    late: uint16,
):
    """
    @notice Bring a flow's one outcome. Anyone may; the first is the last.
    @param outcome 1 commit, 2 abort.
    @param late One bit per leg whose deposit is lost to the others.
    """
    word: uint256 = convert(outcome, uint256)
    assert word == COMMIT or word == ABORT, "escrow: no such outcome"
    assert self.outcomes[flow] == 0, "escrow: flow is settled"
    sealing._require(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                OUTCOME_TYPE,
                sealing.NETWORK,
                seal.epoch,
                convert(chain.id, uint64),
                self,
                flow,
                outcome,
                late,
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "escrow: not in the root"
    self.outcomes[flow] = word | (convert(late, uint256) << 8)
    log LeafUsed(leaf=leaf)
    log Settled(flow=flow, outcome=outcome, late=late)


@external
@nonreentrant
def pay(flow: bytes32, leg: Leg):
    """
    @notice Pay a leg of a settled flow: to its receiver on commit, back to its payer on abort. A
        position is reduced by as much of it as is still there.
    @dev On commit a deposit goes back to the payer by a second call, so that a payer whom the token
        refuses cannot keep the receiver from being paid.
    """
    hash: bytes32 = self._hash(leg)
    word: uint256 = self.legs[flow][hash]
    settled: uint256 = self.outcomes[flow]
    assert self._held(word), "escrow: nothing locked"
    assert settled != 0, "escrow: not settled"
    if settled & 255 == ABORT:
        assert word & 255 == LOCKED or not self._late(settled, leg.index), "escrow: deposit is lost"
        self._back(flow, hash, word, leg)
    elif word & 255 == LOCKED:
        self._mark(flow, hash, word, PLEDGED if leg.deposit != 0 else GONE)
        paid: uint256 = leg.amount
        if leg.market != empty(bytes32):
            paid = extcall IVenue(leg.vault).reduce_for(
                leg.payer, convert(leg.receiver, uint256), leg.market, leg.amount
            )
        log Paid(flow=flow, index=leg.index, to=leg.receiver, token=leg.token, amount=paid)
        if leg.market != empty(bytes32):
            return
        if leg.vault == empty(address):
            self._send(leg.token, convert(convert(leg.receiver, uint256), address), leg.amount)
        else:
            self._into_vault(leg)
    else:
        self._mark(flow, hash, word, GONE)
        log Refunded(flow=flow, index=leg.index, amount=leg.deposit)
        self._send(leg.token, leg.payer, leg.deposit)


@external
@nonreentrant
def compensate(terms: Terms, legs: DynArray[Leg, MAX_LEGS], index: uint256, heir: uint256):
    """
    @notice Pay one of those who had locked their leg its share of a lost deposit. Anyone may.
    @param legs Every leg of the flow, in order.
    @param index The leg whose deposit is lost.
    @param heir A leg of another payer that is not late: its payer is paid here.
    """
    hashes: DynArray[bytes32, MAX_LEGS] = self._hashes(legs)
    flow: bytes32 = self._flow(terms, self._root(hashes))
    settled: uint256 = self.outcomes[flow]
    assert index < len(legs) and heir < len(legs), "escrow: no such leg"
    assert settled & 255 == ABORT and self._late(settled, index), "escrow: not late"
    word: uint256 = self.legs[flow][hashes[index]]
    assert word & 255 == PLEDGED, "escrow: nothing locked"
    lost: Leg = legs[index]
    count: uint256 = 0
    rank: uint256 = MAX_LEGS
    for at: uint256 in range(len(legs), bound=MAX_LEGS):
        if not self._late(settled, at) and legs[at].payer != lost.payer:
            if at == heir:
                rank = count
            count += 1
    assert rank < count, "escrow: no heir"
    paid: uint256 = self.heirs[flow][index]
    assert paid & (1 << heir) == 0, "escrow: paid already"
    self.heirs[flow][index] = paid | (1 << heir)
    share: uint256 = lost.deposit * (rank + 1) // count - lost.deposit * rank // count
    log Compensated(
        flow=flow, index=index, heir=heir, to=legs[heir].payer, token=lost.token, amount=share
    )
    self._send(lost.token, legs[heir].payer, share)


@external
@nonreentrant
def escape(flow: bytes32, leg: Leg):
    """
    @notice Give a leg and its deposit back to its payer when no outcome came for the escape delay.
    """
    hash: bytes32 = self._hash(leg)
    word: uint256 = self.legs[flow][hash]
    assert self._held(word), "escrow: nothing locked"
    assert self.outcomes[flow] == 0, "escrow: flow is settled"
    assert block.number >= (word >> 8) + ESCAPE, "escrow: still waiting"
    self._back(flow, hash, word, leg)


@internal
def _enter(
    terms: Terms, root: bytes32, path: DynArray[bytes32, MAX_PATH], leg: Leg, stage: uint256
) -> bytes32:
    hash: bytes32 = self._hash(leg)
    assert (
        leg.chain == convert(chain.id, uint64) and leg.escrow == self and leg.payer == msg.sender
    ), "escrow: another leg"
    assert leg.index < MAX_LEGS, "escrow: no such leg"
    assert leg.amount != 0, "escrow: nothing to lock"
    reduces: bool = leg.market != empty(bytes32)
    assert reduces or leg.receiver != empty(bytes32), "escrow: bad receiver"
    assert (
        leg.vault != empty(address) or (not reduces and convert(leg.receiver, uint256) >> 160 == 0)
    ), "escrow: bad receiver"
    self._in_time(terms, leg)
    assert proofs._included(hash, root, path), "escrow: not a leg of the flow"
    flow: bytes32 = self._flow(terms, root)
    assert self.outcomes[flow] == 0, "escrow: flow is settled"
    before: uint256 = self.legs[flow][hash] & 255
    assert before < stage, "escrow: leg was prepared"
    due: uint256 = 0
    if stage == LOCKED and reduces:
        open: uint256 = staticcall IVenue(leg.vault).reducible(
            leg.payer, convert(leg.receiver, uint256), leg.market
        )
        assert leg.amount <= open, "escrow: not that much open"
    elif stage == LOCKED:
        due = leg.amount
    if before == 0:
        assert terms.armBy == 0 or block.timestamp <= convert(
            terms.armBy, uint256
        ), "escrow: too late for a deposit"
        due += leg.deposit
    self.legs[flow][hash] = stage | (block.number << 8)
    log Prepared(
        flow=flow,
        index=leg.index,
        payer=leg.payer,
        token=leg.token,
        amount=leg.amount,
        deposit=leg.deposit,
        receiver=leg.receiver,
        vault=leg.vault,
        market=leg.market,
        epoch=terms.epoch,
        number=terms.number,
        armBy=terms.armBy,
        lockBy=terms.lockBy,
        stage=convert(stage, uint8),
    )
    self._pull(leg.token, due)
    return flow


@internal
@view
def _in_time(terms: Terms, leg: Leg):
    lock_by: uint256 = convert(terms.lockBy, uint256)
    assert block.timestamp <= lock_by, "escrow: too late to lock"
    assert lock_by <= block.timestamp + MAX_WAIT, "escrow: too far away"
    assert terms.armBy < terms.lockBy, "escrow: no time to lock"
    assert terms.armBy != 0 or leg.deposit == 0, "escrow: a flow without deposits"


@internal
def _back(flow: bytes32, hash: bytes32, word: uint256, leg: Leg):
    amount: uint256 = leg.deposit
    if word & 255 == LOCKED and leg.market == empty(bytes32):
        amount += leg.amount
    self._mark(flow, hash, word, GONE)
    payer: bytes32 = convert(convert(leg.payer, uint256), bytes32)
    log Paid(flow=flow, index=leg.index, to=payer, token=leg.token, amount=amount)
    self._send(leg.token, leg.payer, amount)


@internal
def _mark(flow: bytes32, hash: bytes32, word: uint256, stage: uint256):
    self.legs[flow][hash] = ((word >> 8) << 8) | stage


@internal
def _into_vault(leg: Leg):
    assert extcall IERC20(leg.token).approve(
        leg.vault, leg.amount, default_return_value=True
    ), "escrow: token refused"
    before: uint256 = staticcall IERC20(leg.token).balanceOf(self)
    extcall IVault(leg.vault).deposit_for(leg.receiver, leg.token, leg.amount)
    left: uint256 = staticcall IERC20(leg.token).balanceOf(self)
    assert left + leg.amount == before, "escrow: vault took another amount"


@internal
def _send(token: address, to: address, amount: uint256):
    if amount != 0:
        assert extcall IERC20(token).transfer(
            to, amount, default_return_value=True
        ), "escrow: token refused"


@internal
def _pull(token: address, amount: uint256):
    if amount == 0:
        return
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "escrow: token refused"
    came: uint256 = staticcall IERC20(token).balanceOf(self) - before
    assert came == amount, "escrow: token takes a fee"


@internal
@pure
def _held(word: uint256) -> bool:
    stage: uint256 = word & 255
    return stage == PLEDGED or stage == LOCKED


@internal
@pure
def _late(settled: uint256, index: uint256) -> bool:
    return (settled >> (8 + index)) & 1 == 1


@internal
@pure
def _hash(leg: Leg) -> bytes32:
    return keccak256(abi_encode(LEG_TYPE, leg))


@internal
@pure
def _hashes(legs: DynArray[Leg, MAX_LEGS]) -> DynArray[bytes32, MAX_LEGS]:
    hashes: DynArray[bytes32, MAX_LEGS] = []
    for leg: Leg in legs:
        assert leg.index == len(hashes), "escrow: no such leg"
        hashes.append(self._hash(leg))
    return hashes


@internal
@pure
def _root(hashes: DynArray[bytes32, MAX_LEGS]) -> bytes32:
    # the complete tree in an array whose paths `proofs` follows: leaves fill it from the back
    last: uint256 = 2 * len(hashes) - 2
    nodes: bytes32[2 * MAX_LEGS] = empty(bytes32[2 * MAX_LEGS])
    for i: uint256 in range(len(hashes), bound=MAX_LEGS):
        nodes[last - i] = hashes[i]
    for i: uint256 in range(len(hashes) - 1, bound=MAX_LEGS):
        at: uint256 = len(hashes) - 2 - i
        nodes[at] = self._pair(nodes[2 * at + 1], nodes[2 * at + 2])
    return nodes[0]


@internal
@pure
def _pair(a: bytes32, b: bytes32) -> bytes32:
    if convert(a, uint256) < convert(b, uint256):
        return keccak256(concat(a, b))
    return keccak256(concat(b, a))


@internal
@view
def _flow(terms: Terms, root: bytes32) -> bytes32:
    return keccak256(abi_encode(FLOW_TYPE, sealing.NETWORK, terms, root))
