# pragma version 0.4.3
# pragma evm-version prague
"""
@title erc7683
@license Apache-2.0
@notice The structs of ERC-7683 with the bounds this settler puts on them.
@dev A module. Field names and order are those of the ERC, so the ABI types are too.
"""

struct GaslessCrossChainOrder:
    originSettler: address
    user: address
    nonce: uint256
    originChainId: uint256
    openDeadline: uint32
    fillDeadline: uint32
    orderDataType: bytes32
    orderData: Bytes[MAX_DATA]

struct OnchainCrossChainOrder:
    fillDeadline: uint32
    orderDataType: bytes32
    orderData: Bytes[MAX_DATA]

struct Output:
    token: bytes32
    amount: uint256
    recipient: bytes32
    chainId: uint256

struct FillInstruction:
    destinationChainId: uint64
    destinationSettler: bytes32
    originData: Bytes[MAX_DATA]

struct ResolvedCrossChainOrder:
    user: address
    originChainId: uint256
    openDeadline: uint32
    fillDeadline: uint32
    orderId: bytes32
    maxSpent: DynArray[Output, 1]
    minReceived: DynArray[Output, 1]
    fillInstructions: DynArray[FillInstruction, 1]

MAX_DATA: constant(uint256) = 512
