# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Escrow
@license Apache-2.0
@notice Legs on several chains that all happen or none: one sealed outcome decides them all.
@dev
    prepare (payer locks a leg) ─▶ FlowOutcome leaf ─┬─ commit ─▶ receiver is paid
                                                     └─ abort  ─▶ payer is refunded
    no outcome for ESCAPE blocks ─▶ escape: payer is refunded

    flow = keccak(network, nonce, keccak(leg hashes)), and a leg's hash names its chain, escrow,
    payer, token, amount and receiver: no leg can be slipped in or changed. There is no local time
    lock below the escape: one side's time-out while the other side commits is how such swaps split.
    The escape is days long, for a quorum that is lost for good, and it trades atomicity away: an
    outcome that comes after it finds that leg gone. Nobody owns this contract.
"""
from ethereum.ercs import IERC20
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: sealing

event Prepared:
    flow: indexed(bytes32)
    index: indexed(uint256)
    payer: address
    token: address
    amount: uint256
    receiver: address

event Settled:
    flow: indexed(bytes32)
    outcome: uint8

event Paid:
    flow: indexed(bytes32)
    index: indexed(uint256)
    to: address
    token: address
    amount: uint256

event LeafUsed:
    leaf: indexed(bytes32)

struct Leg:
    payer: address
    token: address
    amount: uint256  # 0: not prepared, or paid already
    receiver: address
    prepared_at: uint64  # block

MAX_LEGS: constant(uint256) = 16
COMMIT: constant(uint8) = 1
ABORT: constant(uint8) = 2
OUTCOME_TYPE: constant(bytes32) = keccak256("FlowOutcome(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 flow,uint8 outcome)")
LEG_TYPE: constant(bytes32) = keccak256("Leg(uint64 chain,address escrow,address payer,address token,uint256 amount,address receiver)")
FLOW_TYPE: constant(bytes32) = keccak256("Flow(bytes32 network,bytes32 nonce,bytes32[] legs)")

ESCAPE: immutable(uint64)  # blocks

outcome: public(HashMap[bytes32, uint8])
legs: public(HashMap[bytes32, HashMap[uint256, Leg]])
taken: HashMap[bytes32, HashMap[uint256, bool]]  # a leg is prepared once


@deploy
def __init__(snapshots: address, escape: uint64):
    """
    @param snapshots The Snapshots contract of this chain.
    @param escape Blocks without an outcome after which a payer may take a leg back: days.
    """
    assert escape != 0, "escrow: no escape delay"
    sealing.__init__(snapshots)
    ESCAPE = escape


@external
@view
def escape_delay() -> uint64:
    """
    @notice Blocks without an outcome after which a payer may take a leg back.
    """
    return ESCAPE


@external
@view
def leg_hash(payer: address, token: address, amount: uint256, receiver: address) -> bytes32:
    """
    @notice The hash of a leg on this chain and in this escrow.
    """
    return self._leg(payer, token, amount, receiver)


@external
@view
def flow_id(nonce: bytes32, leg_hashes: DynArray[bytes32, MAX_LEGS]) -> bytes32:
    """
    @notice The id of a flow over all its legs, in order.
    """
    return self._flow(nonce, leg_hashes)


@external
@nonreentrant
def prepare(
    nonce: bytes32,
    leg_hashes: DynArray[bytes32, MAX_LEGS],
    index: uint256,
    token: address,
    amount: uint256,
    receiver: address,
) -> bytes32:
    """
    @notice Lock the caller's leg of a flow.
    @param nonce Any word that makes the flow one of its kind.
    @param leg_hashes Every leg of the flow, on whatever chain.
    @param index Which of them is locked here.
    @return The flow's id.
    """
    assert amount != 0, "escrow: nothing to lock"
    assert receiver != empty(address), "escrow: bad receiver"
    assert index < len(leg_hashes), "escrow: no such leg"
    assert leg_hashes[index] == self._leg(
        msg.sender, token, amount, receiver
    ), "escrow: another leg"
    flow: bytes32 = self._flow(nonce, leg_hashes)
    assert self.outcome[flow] == 0, "escrow: flow is settled"
    assert not self.taken[flow][index], "escrow: leg was prepared"
    self.taken[flow][index] = True
    self.legs[flow][index] = Leg(
        payer=msg.sender,
        token=token,
        amount=amount,
        receiver=receiver,
        prepared_at=convert(block.number, uint64),
    )
    log Prepared(
        flow=flow,
        index=index,
        payer=msg.sender,
        token=token,
        amount=amount,
        receiver=receiver,
    )
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "escrow: token refused"
    came: uint256 = staticcall IERC20(token).balanceOf(self) - before
    assert came == amount, "escrow: token takes a fee"
    return flow


@external
def settle(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    flow: bytes32,
    outcome: uint8,
):
    """
    @notice Bring a flow's one outcome. Anyone may; the first is the last.
    @param outcome 1 commit, 2 abort.
    """
    assert outcome == COMMIT or outcome == ABORT, "escrow: no such outcome"
    assert self.outcome[flow] == 0, "escrow: flow is settled"
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
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "escrow: not in the root"
    self.outcome[flow] = outcome
    log LeafUsed(leaf=leaf)
    log Settled(flow=flow, outcome=outcome)


@external
@nonreentrant
def pay(flow: bytes32, index: uint256):
    """
    @notice Pay a leg of a settled flow: to its receiver on commit, back to its payer on abort.
    """
    leg: Leg = self.legs[flow][index]
    assert leg.amount != 0, "escrow: nothing locked"
    outcome: uint8 = self.outcome[flow]
    assert outcome != 0, "escrow: not settled"
    self._pay(flow, index, leg, leg.receiver if outcome == COMMIT else leg.payer)


@external
@nonreentrant
def escape(flow: bytes32, index: uint256):
    """
    @notice Give a leg back to its payer when no outcome came for the escape delay.
    """
    leg: Leg = self.legs[flow][index]
    assert leg.amount != 0, "escrow: nothing locked"
    assert self.outcome[flow] == 0, "escrow: flow is settled"
    assert convert(block.number, uint64) >= leg.prepared_at + ESCAPE, "escrow: still waiting"
    self._pay(flow, index, leg, leg.payer)


@internal
def _pay(flow: bytes32, index: uint256, leg: Leg, to: address):
    self.legs[flow][index] = empty(Leg)
    log Paid(flow=flow, index=index, to=to, token=leg.token, amount=leg.amount)
    assert extcall IERC20(leg.token).transfer(
        to, leg.amount, default_return_value=True
    ), "escrow: token refused"


@internal
@view
def _leg(payer: address, token: address, amount: uint256, receiver: address) -> bytes32:
    return keccak256(
        abi_encode(LEG_TYPE, convert(chain.id, uint64), self, payer, token, amount, receiver)
    )


@internal
@view
def _flow(nonce: bytes32, leg_hashes: DynArray[bytes32, MAX_LEGS]) -> bytes32:
    # the legs are hashed as their words: the encoded list without offset and length
    words: Bytes[32 * (MAX_LEGS + 2)] = abi_encode(leg_hashes)
    return keccak256(
        abi_encode(
            FLOW_TYPE, sealing.NETWORK, nonce, keccak256(slice(words, 64, 32 * len(leg_hashes)))
        )
    )
