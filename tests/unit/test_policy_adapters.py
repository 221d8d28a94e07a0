"""Venue adapters turn steps into calls and answers into numbers, and refuse what is not theirs."""

import pytest
from eth_abi.abi import encode

from keeper.chain.port import BlockRef, Log
from keeper.hashing import keccak
from keeper.legs import LegKind
from keeper.plan import Step, StepKind
from keeper.units import BlockNumber, ChainId, symbol
from keeper.venue import aave_v3, perp_v2, uniswap_v3
from keeper.venue.abi import answers, calldata

CHAIN = ChainId(10)
WETH, USDC, ETH = symbol("WETH"), symbol("USDC"), symbol("ETH-USD")
POOL, DATA, ORACLE, USER = b"\x01" * 20, b"\x02" * 20, b"\x03" * 20, b"\x04" * 20
TOKEN, DOLLAR, ROUTER, QUOTER = b"\x05" * 20, b"\x06" * 20, b"\x07" * 20, b"\x08" * 20
AAVE = aave_v3.Market(
    CHAIN,
    POOL,
    DATA,
    ORACLE,
    (
        aave_v3.Reserve(USDC, DOLLAR, 6, 800_000, 40_000),
        aave_v3.Reserve(WETH, TOKEN, 18, 825_000, 50_000),
    ),
)
PERP = perp_v2.Market(CHAIN, POOL, DATA, ORACLE, TOKEN, ETH)
PAIR = uniswap_v3.Pair(CHAIN, ROUTER, QUOTER, TOKEN, DOLLAR, WETH, USDC, 500, 18, 6)
AT = BlockRef(CHAIN, BlockNumber(1), b"\0" * 32)


def step(kind: StepKind, venue: bytes, **names: int | bytes) -> Step:
    return Step("one", CHAIN, kind, venue, tuple(sorted(names.items())))


def log(address: bytes, topics: tuple[bytes, ...], data: bytes) -> Log:
    return Log(AT, 0, b"\0" * 32, address, topics, data)


def test_signatures_keep_tuples_whole() -> None:
    data = calldata("f((address,uint24),bytes32[])", (TOKEN, 5), [b"\1" * 32])
    assert data[:4] == keccak(b"f((address,uint24),bytes32[])")[:4]
    assert data[4:] == encode(["(address,uint24)", "bytes32[]"], [(TOKEN, 5), [b"\1" * 32]])
    assert calldata("g()") == keccak(b"g()")[:4]


def test_a_strangers_answer_is_refused_by_its_size() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        answers(("uint256",), b"abc")


def test_aave_reads_legs_and_terms() -> None:
    raw = encode(
        ["uint256"] * 5 + ["bool"] * 5, [18, 8000, 8250, 10500, 1000, True, True, True, True, False]
    )
    assert aave_v3.reserve_of(WETH, TOKEN, raw) == AAVE.reserves[1]
    holds = ["uint256"] * 7 + ["uint40", "bool"]
    data = [
        encode(holds, [0, 3, 4, 0, 0, 0, 0, 0, False]),
        encode(holds, [9, 0, 0, 0, 0, 0, 0, 0, True]),
    ]
    legs = aave_v3.legs_of(AAVE, data)
    assert [(leg.market, leg.kind, leg.size) for leg in legs] == [
        (USDC, LegKind.DEBT, 7),
        (WETH, LegKind.COLLATERAL, 9),
    ]
    data[1] = encode(holds, [9, 0, 0, 0, 0, 0, 0, 0, False])
    assert len(aave_v3.legs_of(AAVE, data)) == 1, "what is not pledged is no collateral"


def test_aave_closes_half_or_all() -> None:
    assert aave_v3.close_ppm(950_000) == 1_000_000
    assert aave_v3.close_ppm(950_001) == 500_000


def test_aave_liquidation_calldata() -> None:
    call = aave_v3.liquidate(
        AAVE, step(StepKind.LIQUIDATE, POOL, size=5, market=USDC, collateral=WETH), USER
    )
    assert call.to == POOL
    assert call.data[4:] == encode(
        ["address", "address", "address", "uint256", "bool"], [TOKEN, DOLLAR, USER, 5, False]
    )


@pytest.mark.parametrize(
    ("kind", "venue", "collateral"),
    [
        (StepKind.REDUCE, POOL, WETH),
        (StepKind.LIQUIDATE, DATA, WETH),
        (StepKind.LIQUIDATE, POOL, 7),
    ],
)
def test_aave_refuses_other_steps(kind: StepKind, venue: bytes, collateral: int | bytes) -> None:
    with pytest.raises(ValueError, match="one"):
        aave_v3.liquidate(AAVE, step(kind, venue, size=5, market=USDC, collateral=collateral), USER)
    with pytest.raises(KeyError):
        AAVE.reserve(ETH)


def test_aave_reads_what_was_closed() -> None:
    topics = (
        aave_v3.LIQUIDATION_CALL,
        TOKEN.rjust(32, b"\0"),
        DOLLAR.rjust(32, b"\0"),
        USER.rjust(32, b"\0"),
    )
    data = encode(["uint256", "uint256", "address", "bool"], [5, 6, USER, False])
    assert aave_v3.closed(AAVE, [log(POOL, topics, data)]) == aave_v3.Closed(
        TOKEN, DOLLAR, USER, 5, 6
    )
    assert aave_v3.closed(AAVE, [log(DATA, topics, data)]) is None


def test_depth_counts_the_whole_cost_and_never_falls() -> None:
    shape = ["uint256", "uint160", "uint32", "uint256"]
    brings = [1_990 * 10**6, 2 * 2_005 * 10**6, 4 * 1_960 * 10**6]
    sizes = [10**18, 2 * 10**18, 4 * 10**18]
    data = [encode(shape, [amount, 0, 0, 0]) for amount in brings]
    points = uniswap_v3.depth_of(PAIR, sizes, data, (2_000 * 10**8, 10**8))
    assert points == ((10**18, 5_000), (2 * 10**18, 5_000), (4 * 10**18, 20_000))


def test_swap_calldata_and_refusals() -> None:
    good: dict[str, int | bytes] = {
        "amount": 9,
        "least_out": 8,
        "asset_in": WETH,
        "asset_out": USDC,
    }
    call = uniswap_v3.swap(PAIR, step(StepKind.SWAP, ROUTER, **good), USER, 77)
    assert call.to == ROUTER
    assert call.data[4:] == encode(
        ["(address,address,uint24,address,uint256,uint256,uint256,uint160)"],
        [(TOKEN, DOLLAR, 500, USER, 77, 9, 8, 0)],
    )
    wrong: list[dict[str, int | bytes]] = [
        {"asset_in": USDC},
        {"asset_out": WETH},
        {"amount": b"9"},
    ]
    for bad in wrong:
        with pytest.raises(ValueError, match="one"):
            uniswap_v3.swap(PAIR, step(StepKind.SWAP, ROUTER, **{**good, **bad}), USER, 77)


def test_perp_numbers_and_signs() -> None:
    outputs = [encode(["int256"], [n]) for n in (7 * 10**18 + 1, 8 * 10**18 + 1, -5, 6 * 10**18)]
    trader = perp_v2.trader_of(outputs)
    assert (trader.value, trader.requirement, trader.size) == (7_000_000, 8_000_001, -5)
    assert trader.is_liquidatable
    (leg,) = perp_v2.legs_of(PERP, trader)
    assert (leg.kind, leg.size, leg.quote) == (LegKind.PERP, -5, 6_000_000)
    ratios = [encode(["uint24"], [n]) for n in (62_500, 25_000)]
    assert perp_v2.terms_of(ratios) == perp_v2.Terms(62_500, 12_500)
    wanted = step(StepKind.LIQUIDATE, POOL, size=3)
    for held, size in ((5, 3), (-5, -3)):
        call = perp_v2.liquidate(PERP, wanted, USER, held)
        assert call.data[4:] == encode(["address", "address", "int256"], [USER, TOKEN, size])
    with pytest.raises(ValueError, match="clearing"):
        perp_v2.liquidate(PERP, step(StepKind.SWAP, POOL, size=3), USER, 5)


def test_perp_reads_what_was_closed() -> None:
    topics = (perp_v2.POSITION_LIQUIDATED, USER.rjust(32, b"\0"), TOKEN.rjust(32, b"\0"))
    data = encode(["uint256"] * 3 + ["address"], [10**18, 2, 4 * 10**16, USER])
    found = perp_v2.closed(PERP, [log(POOL, topics, data)])
    assert found == perp_v2.Closed(USER, 10**6, 2, 40_000)
    assert found.paid == 20_000


def test_logs_that_no_contract_emits_name_nobody_and_raise_nothing() -> None:
    """An endpoint may make up any log; the venue takes what has the shape it knows."""
    other = keccak(b"Other()")
    shapes: list[tuple[bytes, ...]] = [(), (other,), (aave_v3.BORROW,), (perp_v2.POSITION_CHANGED,)]
    bad = [log(POOL, topics, b"") for topics in shapes]
    assert aave_v3.borrowers(bad) == ()
    assert perp_v2.traders(PERP, bad) == frozenset()
    assert aave_v3.closed(AAVE, bad) is None
    assert perp_v2.closed(PERP, bad) is None
    user = b"\0" * 12 + USER
    good = log(POOL, (aave_v3.BORROW, b"\0" * 32, user), b"")
    assert aave_v3.borrowers([*bad, good]) == (USER,)
    traded = (perp_v2.POSITION_CHANGED, user, b"\0" * 12 + TOKEN)
    elsewhere = (perp_v2.POSITION_CHANGED, user, b"\0" * 12 + DOLLAR)
    assert perp_v2.traders(PERP, [log(POOL, traded, b""), *bad]) == {USER}
    assert perp_v2.traders(PERP, [log(POOL, elsewhere, b"")]) == frozenset()
