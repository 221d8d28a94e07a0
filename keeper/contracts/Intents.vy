# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Intents
@license Apache-2.0
@notice ERC-7683 origin and destination settler; a sealed attestation of the fill is the settlement.
@dev
    origin       open / openFor ─▶ input locked ─┬─ Attestation of Filled   ─▶ claim: filler is paid
                                                 ├─ Attestation of Unfilled ─▶ refund: user is
                                                 └─ days after the deadline ─▶ escape
    destination  fill ─▶ output to the recipient, or into a margin account of a Vault

    The one order type says what has to arrive where, and not how. A fill is known by the order's id
    and the hash of its origin data: a fill with other data is another fill, so nobody can block or
    fake one, and an id that a third party announced is recomputed here, never trusted.
    A refund needs the keepers' word too: a local time-out could race a fill. Nobody owns this.
    A token that refuses its receiver cannot stop a settlement: it is owed, and collected later.
"""
from ethereum.ercs import IERC20
from keeper.contracts import erc7683
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: sealing

interface IVault:
    def deposit_for(account: bytes32, token: address, amount: uint256): nonpayable

event Open:
    orderId: indexed(bytes32)
    resolvedOrder: erc7683.ResolvedCrossChainOrder

event Filled:
    orderId: indexed(bytes32)
    dataHash: indexed(bytes32)
    filler: indexed(address)
    payee: bytes32

event Closed:
    orderId: indexed(bytes32)
    to: address
    amount: uint256

event Owed:  # a token would not go where it should; absolute
    who: indexed(address)
    token: indexed(address)
    amount: uint256

event LeafUsed:
    leaf: indexed(bytes32)

struct Order:
    inputToken: address
    inputAmount: uint256
    outputToken: bytes32
    outputAmount: uint256
    recipient: bytes32  # address, or the margin account where `vault` is set
    vault: bytes32  # where to deposit, or empty
    destinationChain: uint64
    destinationSettler: bytes32

struct Delivery:  # the origin data of a fill
    outputToken: bytes32
    outputAmount: uint256
    recipient: bytes32
    vault: bytes32
    fillDeadline: uint32

struct Locked:
    user: address
    token: address
    amount: uint256  # 0: unknown or closed
    dataHash: bytes32
    destinationChain: uint64
    destinationSettler: bytes32
    fillDeadline: uint32

ORDER_TYPE: constant(bytes32) = keccak256("Order(address inputToken,uint256 inputAmount,bytes32 outputToken,uint256 outputAmount,bytes32 recipient,bytes32 vault,uint64 destinationChain,bytes32 destinationSettler)")
GASLESS_TYPE: constant(bytes32) = keccak256("GaslessCrossChainOrder(address originSettler,address user,uint256 nonce,uint256 originChainId,uint32 openDeadline,uint32 fillDeadline,bytes32 orderDataType,bytes orderData)")
DOMAIN_TYPE: constant(bytes32) = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
ATTESTATION_TYPE: constant(bytes32) = keccak256("Attestation(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 eventHash)")
FILLED_TYPE: constant(bytes32) = keccak256("Filled(bytes32 orderId,bytes32 dataHash,bytes32 payee)")
UNFILLED_TYPE: constant(bytes32) = keccak256("Unfilled(bytes32 orderId,bytes32 dataHash)")
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

SEND_GAS: constant(uint256) = 300_000  # of a transfer out: far more than any honest token takes

ESCAPE: immutable(uint256)  # seconds after the fill deadline

orders: public(HashMap[bytes32, Locked])
filled: public(HashMap[bytes32, bytes32])  # keccak(order id, data hash) -> payee
nonces: public(HashMap[address, uint256])  # of `open`
used: public(HashMap[address, HashMap[uint256, bool]])  # of `openFor`
owed: public(HashMap[address, HashMap[address, uint256]])  # who -> token


@deploy
def __init__(snapshots: address, escape: uint256):
    """
    @param snapshots The Snapshots contract of this chain.
    @param escape Seconds after the fill deadline after which a user may take the input back: days.
    """
    assert escape != 0, "intents: no escape delay"
    sealing.__init__(snapshots)
    ESCAPE = escape


# ------------------------------------------------------------------ origin


@external
@nonreentrant
def open(order: erc7683.OnchainCrossChainOrder):
    """
    @notice Lock the caller's input for an order.
    """
    nonce: uint256 = self.nonces[msg.sender]
    self.nonces[msg.sender] = nonce + 1
    self._open(msg.sender, nonce, False, max_value(uint32), order)


@external
@nonreentrant
def openFor(
    order: erc7683.GaslessCrossChainOrder,
    signature: Bytes[65],
    originFillerData: Bytes[erc7683.MAX_DATA],
):
    """
    @notice Lock a user's input by the user's EIP-712 signature; the user approved this contract.
    @param originFillerData Unused by this settler.
    """
    self._check_gasless(order)
    assert convert(order.openDeadline, uint256) >= block.timestamp, "intents: too late to open"
    assert not self.used[order.user][order.nonce], "intents: nonce used"
    self.used[order.user][order.nonce] = True
    assert self._signer(order, signature) == order.user, "intents: not the user's signature"
    self._open(
        order.user,
        order.nonce,
        True,
        order.openDeadline,
        erc7683.OnchainCrossChainOrder(
            fillDeadline=order.fillDeadline,
            orderDataType=order.orderDataType,
            orderData=order.orderData,
        ),
    )


@external
@view
def resolve(order: erc7683.OnchainCrossChainOrder) -> erc7683.ResolvedCrossChainOrder:
    """
    @notice What `open` by the caller would announce now.
    """
    return self._resolve(
        msg.sender, self.nonces[msg.sender], False, max_value(uint32), order
    )


@external
@view
def resolveFor(
    order: erc7683.GaslessCrossChainOrder, originFillerData: Bytes[erc7683.MAX_DATA]
) -> erc7683.ResolvedCrossChainOrder:
    """
    @notice What `openFor` would announce.
    """
    self._check_gasless(order)
    return self._resolve(
        order.user,
        order.nonce,
        True,
        order.openDeadline,
        erc7683.OnchainCrossChainOrder(
            fillDeadline=order.fillDeadline,
            orderDataType=order.orderDataType,
            orderData=order.orderData,
        ),
    )


@external
@nonreentrant
def claim(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    orderId: bytes32,
    payee: address,
):
    """
    @notice Pay whom the filler named, by a sealed attestation of the fill. Anyone may bring it.
    @dev Event hash: keccak(abi.encode(keccak("Filled(bytes32 orderId,bytes32 dataHash,bytes32 payee)"), ...)).
    """
    locked: Locked = self.orders[orderId]
    assert locked.amount != 0, "intents: order is not open"
    word: bytes32 = convert(convert(payee, uint256), bytes32)
    self._attested(
        seal,
        proof,
        locked,
        keccak256(abi_encode(FILLED_TYPE, orderId, locked.dataHash, word)),
    )
    self._close(orderId, locked, payee)


@external
@nonreentrant
def refund(seal: proofs.Seal, proof: DynArray[bytes32, proofs.MAX_PROOF], orderId: bytes32):
    """
    @notice Give the input back by a sealed attestation that the deadline passed without a fill.
    @dev Event hash: keccak(abi.encode(keccak("Unfilled(bytes32 orderId,bytes32 dataHash)"), ...)).
    """
    locked: Locked = self.orders[orderId]
    assert locked.amount != 0, "intents: order is not open"
    self._attested(
        seal, proof, locked, keccak256(abi_encode(UNFILLED_TYPE, orderId, locked.dataHash))
    )
    self._close(orderId, locked, locked.user)


@external
@nonreentrant
def escape(orderId: bytes32):
    """
    @notice Give the input back long after the deadline, for a quorum that is lost for good.
    """
    locked: Locked = self.orders[orderId]
    assert locked.amount != 0, "intents: order is not open"
    assert (
        block.timestamp >= convert(locked.fillDeadline, uint256) + ESCAPE
    ), "intents: still waiting"
    self._close(orderId, locked, locked.user)


@external
@nonreentrant
def collect(who: address, token: address):
    """
    @notice Send what is owed to somebody after all. Anyone may ask.
    """
    amount: uint256 = self.owed[who][token]
    assert amount != 0, "intents: nothing owed"
    self.owed[who][token] = 0
    log Owed(who=who, token=token, amount=0)
    assert self._sent(token, who, amount), "intents: token refused"


# ------------------------------------------------------------------ destination


@external
@nonreentrant
def fill(orderId: bytes32, originData: Bytes[erc7683.MAX_DATA], fillerData: Bytes[32]):
    """
    @notice Deliver an order's output from the caller's tokens.
    @param originData As the order's fill instruction says.
    @param fillerData Who is paid on the origin chain: an address as a 32-byte word.
    """
    assert len(fillerData) == 32, "intents: no payee"
    payee: bytes32 = convert(fillerData, bytes32)
    assert payee != empty(bytes32), "intents: no payee"
    delivery: Delivery = abi_decode(originData, Delivery)
    assert block.timestamp <= convert(delivery.fillDeadline, uint256), "intents: too late to fill"
    dataHash: bytes32 = keccak256(originData)
    key: bytes32 = keccak256(concat(orderId, dataHash))
    assert self.filled[key] == empty(bytes32), "intents: filled already"
    self.filled[key] = payee
    log Filled(orderId=orderId, dataHash=dataHash, filler=msg.sender, payee=payee)
    token: address = self._address(delivery.outputToken)
    if delivery.vault == empty(bytes32):
        self._pull(token, msg.sender, self._address(delivery.recipient), delivery.outputAmount)
    else:
        vault: address = self._address(delivery.vault)
        self._pull(token, msg.sender, self, delivery.outputAmount)
        assert extcall IERC20(token).approve(
            vault, delivery.outputAmount, default_return_value=True
        ), "intents: token refused"
        extcall IVault(vault).deposit_for(delivery.recipient, token, delivery.outputAmount)


# ------------------------------------------------------------------ inside


@internal
def _open(
    user: address,
    nonce: uint256,
    gasless: bool,
    openDeadline: uint32,
    order: erc7683.OnchainCrossChainOrder,
):
    assert convert(order.fillDeadline, uint256) > block.timestamp, "intents: too late to fill"
    resolved: erc7683.ResolvedCrossChainOrder = self._resolve(
        user, nonce, gasless, openDeadline, order
    )
    data: Order = abi_decode(order.orderData, Order)
    assert data.inputAmount != 0, "intents: nothing to lock"
    self.orders[resolved.orderId] = Locked(
        user=user,
        token=data.inputToken,
        amount=data.inputAmount,
        dataHash=keccak256(resolved.fillInstructions[0].originData),
        destinationChain=data.destinationChain,
        destinationSettler=data.destinationSettler,
        fillDeadline=order.fillDeadline,
    )
    log Open(orderId=resolved.orderId, resolvedOrder=resolved)
    self._pull(data.inputToken, user, self, data.inputAmount)


@internal
@view
def _resolve(
    user: address,
    nonce: uint256,
    gasless: bool,
    openDeadline: uint32,
    order: erc7683.OnchainCrossChainOrder,
) -> erc7683.ResolvedCrossChainOrder:
    assert order.orderDataType == ORDER_TYPE, "intents: another order type"
    data: Order = abi_decode(order.orderData, Order)
    orderId: bytes32 = keccak256(
        abi_encode(
            sealing.NETWORK,
            chain.id,
            self,
            user,
            nonce,
            gasless,
            order.fillDeadline,
            keccak256(order.orderData),
        )
    )
    originData: Bytes[erc7683.MAX_DATA] = abi_encode(
        data.outputToken, data.outputAmount, data.recipient, data.vault, order.fillDeadline
    )
    here: bytes32 = convert(convert(data.inputToken, uint256), bytes32)
    return erc7683.ResolvedCrossChainOrder(
        user=user,
        originChainId=chain.id,
        openDeadline=openDeadline,
        fillDeadline=order.fillDeadline,
        orderId=orderId,
        maxSpent=[
            erc7683.Output(
                token=data.outputToken,
                amount=data.outputAmount,
                recipient=data.recipient,
                chainId=convert(data.destinationChain, uint256),
            )
        ],
        minReceived=[
            erc7683.Output(
                token=here, amount=data.inputAmount, recipient=empty(bytes32), chainId=chain.id
            )
        ],
        fillInstructions=[
            erc7683.FillInstruction(
                destinationChainId=data.destinationChain,
                destinationSettler=data.destinationSettler,
                originData=originData,
            )
        ],
    )


@internal
@view
def _check_gasless(order: erc7683.GaslessCrossChainOrder):
    assert order.originSettler == self, "intents: another settler"
    assert order.originChainId == chain.id, "intents: another chain"


@internal
@view
def _signer(order: erc7683.GaslessCrossChainOrder, signature: Bytes[65]) -> address:
    assert len(signature) == 65, "intents: bad signature"
    struct_hash: bytes32 = keccak256(
        abi_encode(
            GASLESS_TYPE,
            order.originSettler,
            order.user,
            order.nonce,
            order.originChainId,
            order.openDeadline,
            order.fillDeadline,
            order.orderDataType,
            keccak256(order.orderData),
        )
    )
    domain: bytes32 = keccak256(
        abi_encode(
            DOMAIN_TYPE, keccak256("Flowkeeper Intents"), keccak256("1"), chain.id, self
        )
    )
    s: uint256 = convert(slice(signature, 32, 32), uint256)
    assert s <= HALF_N, "intents: bad signature"
    signer: address = ecrecover(
        keccak256(concat(x"1901", domain, struct_hash)),
        convert(slice(signature, 64, 1), uint256),
        convert(slice(signature, 0, 32), uint256),
        s,
    )
    assert signer != empty(address), "intents: bad signature"
    return signer


@internal
def _attested(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    locked: Locked,
    eventHash: bytes32,
):
    # the attestation is of an event on the destination chain, at its settler
    sealing._require(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                ATTESTATION_TYPE,
                sealing.NETWORK,
                seal.epoch,
                locked.destinationChain,
                self._address(locked.destinationSettler),
                eventHash,
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "intents: not in the root"
    log LeafUsed(leaf=leaf)


@internal
def _close(orderId: bytes32, locked: Locked, to: address):
    assert to != empty(address), "intents: bad receiver"
    self.orders[orderId].amount = 0
    log Closed(orderId=orderId, to=to, amount=locked.amount)
    if not self._sent(locked.token, to, locked.amount):
        owed: uint256 = self.owed[to][locked.token] + locked.amount
        self.owed[to][locked.token] = owed
        log Owed(who=to, token=locked.token, amount=owed)


@internal
def _sent(token: address, to: address, amount: uint256) -> bool:
    # who brings it cannot make this fail by too little gas: a 64th of what failed is all that is
    # left then, less than writing down what is owed takes
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        abi_encode(to, amount, method_id=method_id("transfer(address,uint256)")),
        max_outsize=32,
        gas=SEND_GAS,
        revert_on_failure=False,
    )
    return success and (len(answer) == 0 or convert(answer, uint256) == 1)


@internal
def _pull(token: address, source: address, to: address, amount: uint256):
    before: uint256 = staticcall IERC20(token).balanceOf(to)
    assert extcall IERC20(token).transferFrom(
        source, to, amount, default_return_value=True
    ), "intents: token refused"
    came: uint256 = staticcall IERC20(token).balanceOf(to) - before
    assert source == to or came == amount, "intents: token takes a fee"


@internal
@pure
def _address(word: bytes32) -> address:
    number: uint256 = convert(word, uint256)
    assert number >> 160 == 0, "intents: not an address"
    return convert(number, address)
