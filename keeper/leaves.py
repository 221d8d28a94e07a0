"""The typed leaves that a sealed decision root commits to, and the message a seal signs.

    leaf = keccak(keccak(abi.encode(keccak(type string), network, epoch, chain, contract, fields…)))

Leaves are double hashed and pairs are sorted, so proofs are those of OpenZeppelin's
StandardMerkleTree. The contract that consumes a leaf rebuilds it with its own network, `chain.id`
and address: a decision for another place can never match. The type strings below are also
constants in the Vyper sources; a test compares what both sides compute.
"""

from collections.abc import Iterable, Sequence

from keeper.hashing import abi_hash, keccak, leaf_hash, type_hash
from keeper.merkle import merkle_root

HEADER = "Header(bytes32 network,uint32 epoch,uint64 view,bytes32 headerHash)"
CREDIT = (
    "Credit(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 account,uint256 limit,uint64 nonce,uint64 expiry)"
)
RELEASE = (
    "Release(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 account,address token,uint256 amount,address to,uint64 nonce,uint64 expiry)"
)
TRANSFER = (
    "Transfer(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 from,bytes32 to,address token,uint256 amount,uint64 nonce,uint64 expiry)"
)
AWARD = (
    "Award(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 task,bytes32 account,address venue,bytes32 market,uint256 maxSize,uint256 price,"
    "address[] ranks,uint64 start,uint64 exclusive,uint64 step,uint64 openAt,uint64 last,"
    "uint256 lock)"
)
FLOW_OUTCOME = (
    "FlowOutcome(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 flow,uint8 outcome,uint16 late)"
)
FLOW_LEG = (
    "Leg(uint256 index,uint64 chain,address escrow,address payer,address token,uint256 amount,"
    "uint256 deposit,bytes32 receiver,address vault,bytes32 market)"
)
FLOW = "Flow(bytes32 network,uint32 epoch,uint32 number,uint64 armBy,uint64 lockBy,bytes32 legs)"
ATTESTATION = (
    "Attestation(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 eventHash)"
)
BREAKER_CHANGE = (
    "BreakerChange(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 scope,uint8 action,uint8 level,uint64 nonce,uint64 until)"
)
COMMITTEE_CHANGE = (
    "CommitteeChange(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "uint32 nextEpoch,uint256 groupKey,bytes32 config,bytes32 membersHash,uint64 oldExpiry)"
)
PENALTY = (
    "Penalty(bytes32 network,uint32 epoch,uint64 chain,address contract,"
    "bytes32 task,address keeper,uint256 amount,address beneficiary,uint64 nonce,uint64 expiry)"
)
SEAL = "Seal(bytes32 network,uint32 epoch,uint64 view,bytes32 root)"

_PLACE = ("bytes32", "uint32", "uint64", "address")


def _placed(
    type_string: str,
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    types: Sequence[str],
    values: Sequence[object],
) -> bytes:
    """Return the leaf of a decision for one contract on one chain."""
    return leaf_hash(type_string, (*_PLACE, *types), (network, epoch, chain, contract, *values))


def seal_message(network: bytes, epoch: int, view: int, root: bytes) -> bytes:
    """Return the 32 bytes that a group signs to seal a decision root."""
    return abi_hash(
        ("bytes32", "bytes32", "uint32", "uint64", "bytes32"),
        (type_hash(SEAL), network, epoch, view, root),
    )


def header_leaf(network: bytes, epoch: int, view: int, header_hash: bytes) -> bytes:
    """Return the leaf of a snapshot header; it is for every chain and contract."""
    types = ("bytes32", "uint32", "uint64", "bytes32")
    return leaf_hash(HEADER, types, (network, epoch, view, header_hash))


def credit_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    account: bytes,
    limit: int,
    nonce: int,
    expiry: int,
) -> bytes:
    """Return the leaf of a credit: an absolute limit in µUSD until block `expiry` of `chain`."""
    types = ("bytes32", "uint256", "uint64", "uint64")
    values = (account, limit, nonce, expiry)
    return _placed(CREDIT, network, epoch, chain, contract, types, values)


def release_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    account: bytes,
    token: bytes,
    amount: int,
    to: bytes,
    nonce: int,
    expiry: int,
) -> bytes:
    """Return the leaf of tokens that leave a vault for their owner."""
    types = ("bytes32", "address", "uint256", "address", "uint64", "uint64")
    values = (account, token, amount, to, nonce, expiry)
    return _placed(RELEASE, network, epoch, chain, contract, types, values)


def transfer_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    source: bytes,
    to: bytes,
    token: bytes,
    amount: int,
    nonce: int,
    expiry: int,
) -> bytes:
    """Return the leaf of tokens that move from account `source` to account `to` in a vault."""
    types = ("bytes32", "bytes32", "address", "uint256", "uint64", "uint64")
    values = (source, to, token, amount, nonce, expiry)
    return _placed(TRANSFER, network, epoch, chain, contract, types, values)


def award_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    task: bytes,
    account: bytes,
    venue: bytes,
    market: bytes,
    max_size: int,
    price: int,
    ranks: Iterable[bytes],
    start: int,
    exclusive: int,
    step: int,
    open_at: int,
    last: int,
    lock: int,
) -> bytes:
    """Return the leaf of an award; windows are blocks of `chain`, the price is in µUSD.

    The ranks enter as keccak of their 32-byte words, as EIP-712 hashes an array.
    """
    words = keccak(b"".join(rank.rjust(32, b"\0") for rank in ranks))
    types = (
        *("bytes32", "bytes32", "address", "bytes32", "uint256", "uint256", "bytes32"),
        *("uint64", "uint64", "uint64", "uint64", "uint64", "uint256"),
    )
    values = (
        *(task, account, venue, market, max_size, price, words),
        *(start, exclusive, step, open_at, last, lock),
    )
    return _placed(AWARD, network, epoch, chain, contract, types, values)


def flow_outcome_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    flow: bytes,
    outcome: int,
    late: int,
) -> bytes:
    """Return the leaf of a flow's one outcome: 1 commit, 2 abort; a bit per leg that is late."""
    types, values = ("bytes32", "uint8", "uint16"), (flow, outcome, late)
    return _placed(FLOW_OUTCOME, network, epoch, chain, contract, types, values)


def flow_leg_hash(
    index: int,
    chain: int,
    escrow: bytes,
    *,
    payer: bytes,
    token: bytes,
    amount: int,
    deposit: int,
    receiver: bytes,
    vault: bytes,
    market: bytes,
) -> bytes:
    """Return the hash of one leg of a flow, at its place among them, on one chain."""
    types = (
        *("bytes32", "uint256", "uint64", "address", "address", "address"),
        *("uint256", "uint256", "bytes32", "address", "bytes32"),
    )
    place = (type_hash(FLOW_LEG), index, chain, escrow)
    return abi_hash(types, (*place, payer, token, amount, deposit, receiver, vault, market))


def flow_id(
    network: bytes,
    legs: Sequence[bytes],
    *,
    epoch: int,
    number: int,
    arm_by: int,
    lock_by: int,
) -> bytes:
    """Return the id of a flow over its times and the hashes of all its legs, in order."""
    types = ("bytes32", "bytes32", "uint32", "uint32", "uint64", "uint64", "bytes32")
    terms = (epoch, number, arm_by, lock_by)
    return abi_hash(types, (type_hash(FLOW), network, *terms, merkle_root(legs)))


def attestation_leaf(
    network: bytes, epoch: int, chain: int, contract: bytes, *, event_hash: bytes
) -> bytes:
    """Return the leaf of an event that a quorum saw final on `chain` at `contract`."""
    return _placed(ATTESTATION, network, epoch, chain, contract, ("bytes32",), (event_hash,))


def breaker_change_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    scope: bytes,
    action: int,
    level: int,
    nonce: int,
    until: int,
) -> bytes:
    """Return the leaf of a breaker that trips or is released."""
    types = ("bytes32", "uint8", "uint8", "uint64", "uint64")
    values = (scope, action, level, nonce, until)
    return _placed(BREAKER_CHANGE, network, epoch, chain, contract, types, values)


def committee_change_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    next_epoch: int,
    group_key: int,
    config: bytes,
    members_hash: bytes,
    old_expiry: int,
) -> bytes:
    """Return the leaf of the next committee; `group_key` is the x coordinate of its key."""
    types = ("uint32", "uint256", "bytes32", "bytes32", "uint64")
    values = (next_epoch, group_key, config, members_hash, old_expiry)
    return _placed(COMMITTEE_CHANGE, network, epoch, chain, contract, types, values)


def penalty_leaf(
    network: bytes,
    epoch: int,
    chain: int,
    contract: bytes,
    *,
    task: bytes,
    keeper: bytes,
    amount: int,
    beneficiary: bytes,
    nonce: int,
    expiry: int,
) -> bytes:
    """Return the leaf that takes `amount` of a keeper's bond, until block `expiry` of the hub."""
    types = ("bytes32", "address", "uint256", "address", "uint64", "uint64")
    values = (task, keeper, amount, beneficiary, nonce, expiry)
    return _placed(PENALTY, network, epoch, chain, contract, types, values)
