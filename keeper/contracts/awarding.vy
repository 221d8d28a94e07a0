# pragma version 0.4.3
# pragma evm-version prague
"""
@title awarding
@license Apache-2.0
@notice The award as keepers seal it, and its leaf.
@dev A module of Awards, which executes awards, and of Bonds, which locks what they put at stake.
"""

struct Award:
    task: bytes32
    account: bytes32
    venue: address
    market: bytes32
    max_size: uint256
    price: uint256  # µUSD, due by rank 0
    ranks: DynArray[address, MAX_RANKS]
    start: uint64  # blocks of the target chain, as the three below
    exclusive: uint64
    step: uint64
    open_at: uint64
    last: uint64  # last block in which anybody may execute
    lock: uint256  # wei of rank 0's bond at stake

MAX_RANKS: constant(uint256) = 4
AWARD_TYPE: constant(bytes32) = keccak256("Award(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 task,bytes32 account,address venue,bytes32 market,uint256 maxSize,uint256 price,address[] ranks,uint64 start,uint64 exclusive,uint64 step,uint64 openAt,uint64 last,uint256 lock)")


@internal
@pure
def _leaf(network: bytes32, epoch: uint32, place: uint64, awards: address, award: Award) -> bytes32:
    # the ranks are hashed as their 32-byte words: the encoded list without offset and length
    words: Bytes[192] = abi_encode(award.ranks)
    return keccak256(
        keccak256(
            abi_encode(
                AWARD_TYPE,
                network,
                epoch,
                place,
                awards,
                award.task,
                award.account,
                award.venue,
                award.market,
                award.max_size,
                award.price,
                keccak256(slice(words, 64, 32 * len(award.ranks))),
                award.start,
                award.exclusive,
                award.step,
                award.open_at,
                award.last,
                award.lock,
            )
        )
    )
