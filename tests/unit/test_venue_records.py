"""Typed readers of records, and the ledger of what transfers have cleared."""

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from keeper.hashing import type_hash
from keeper.legs import LegKind
from keeper.observe.table import EMPTY, Log, Table
from keeper.plan import Step, StepKind
from keeper.units import ChainId
from keeper.venue import awards, bonds, perps, vault
from keeper.venue.book import accounts, unsettled
from keeper.venue.calls import step_call
from keeper.venue.ledger import Ledger, Pending, decode
from tests.support.clearing_world import ETH, NETWORK, USDC, A, B, address, trader

ALICE, BOB = trader(1), trader(2)
SPEC_A, SPEC_B = NETWORK.chain(A), NETWORK.chain(B)
TOKEN = next(token.address for token in SPEC_A.tokens if token.asset == USDC)
LEAF = b"\x11" * 32


def log(chain: int, name: str, event: str, topics: list[bytes], data: bytes = b"") -> Log:
    padded = [topic.rjust(32, b"\0") for topic in topics]
    return Log(address(chain, name), (type_hash(event), *padded), data)


def words(*numbers: int) -> bytes:
    return encode(["int256"] * len(numbers), numbers)


def test_the_last_balance_wins_and_zero_is_no_leg() -> None:
    event = "Balance(bytes32,address,uint256)"
    table = EMPTY.apply(
        [
            log(A, "Vault", event, [ALICE, TOKEN], words(5)),
            log(A, "Vault", event, [ALICE, TOKEN], words(7)),
            log(A, "Vault", event, [BOB, TOKEN], words(0)),
        ]
    )
    assert [leg.size for leg in vault.legs(SPEC_A, table)[ALICE]] == [7]
    assert BOB not in vault.legs(SPEC_A, table)
    assert vault.totals(SPEC_A, table) == {TOKEN: 7}


def test_tokens_nobody_named_count_for_nothing() -> None:
    other = log(A, "Vault", "Balance(bytes32,address,uint256)", [ALICE, b"\x09" * 20], words(5))
    assert vault.legs(SPEC_A, EMPTY.apply([other])) == {}


def test_negative_numbers_are_twos_complement() -> None:
    event = "Position(bytes32,bytes32,int256,int256,int256)"
    table = EMPTY.apply([log(B, "Perps", event, [ALICE, ETH], words(-3, 4, -5))])
    (leg,) = perps.legs(SPEC_B, table)[ALICE]
    assert (leg.size, leg.quote, leg.funding, leg.kind) == (-3, 4, -5, LegKind.PERP)


@pytest.mark.parametrize("cut", [0, 31, 95])
def test_short_data_reads_as_absent(cut: int) -> None:
    event = "Position(bytes32,bytes32,int256,int256,int256)"
    short = EMPTY.apply([log(B, "Perps", event, [ALICE, ETH], words(1, 2, 3)[:cut])])
    assert perps.legs(SPEC_B, short) == {}
    bond = log(A, "Bonds", "Bond(address,uint256,uint256,uint8)", [b"\1" * 20], words(1)[:cut])
    assert bonds.bonds(SPEC_A, EMPTY.apply([bond])) == {}


def test_peers_and_unknown_statuses() -> None:
    keeper = b"\1" * 20
    table = EMPTY.apply(
        [
            log(A, "Bonds", "Peer(address,bytes)", [keeper], encode(["bytes"], [b"peer id"])),
            log(A, "Bonds", "Peer(address,bytes)", [b"\2" * 20], words(32, 10**9)),
            log(A, "Bonds", "Bond(address,uint256,uint256,uint8)", [keeper], words(9, 4, 1)),
            log(A, "Bonds", "Bond(address,uint256,uint256,uint8)", [b"\2" * 20], words(9, 4, 77)),
        ]
    )
    assert bonds.peers(SPEC_A, table) == {keeper: b"peer id"}
    assert {k: b.free for k, b in bonds.bonds(SPEC_A, table).items()} == {keeper: 5}


def test_how_tasks_ended() -> None:
    task, keeper = b"\x21" * 32, b"\1" * 20
    executed = "Executed(bytes32,bytes32,address,uint256,bytes32,uint256,uint256,uint256)"
    table = EMPTY.apply(
        [
            log(B, "Awards", executed, [task, ALICE, keeper], words(1, 0, 30, 40, 7)),
            log(B, "Awards", "NoShow(bytes32,address,uint256)", [task, keeper], words(50)),
            log(B, "Awards", "Voided(bytes32)", [LEAF]),
        ]
    )
    (done,) = awards.executions(SPEC_B, table)
    assert (done.rank, done.size, done.bonus, done.keeper) == (1, 30, 40, keeper)
    assert done.spent == 7
    assert [absence.amount for absence in awards.absences(SPEC_B, table)] == [50]
    assert awards.voided(SPEC_B, table) == {LEAF}


# --- the ledger

VENUE = address(B, "Perps")
KEY = (B, VENUE, ALICE)
HOUSE = (B, VENUE, BOB)
TRANSFER = Pending(LEAF, A, address(A, "Vault"), 100, ((KEY, -30), (HOUSE, 30)))


def realised(total: int) -> Log:
    return log(B, "Perps", "Realised(bytes32,int256)", [ALICE], words(total))


def used() -> Log:
    return log(A, "Vault", "LeafUsed(bytes32)", [LEAF])


def queued() -> Log:
    event = "Queued(bytes32,bytes32,address,uint256,uint64)"
    data = encode(["address", "uint256", "uint64"], [TOKEN, 30, 500])
    return log(A, "Vault", event, [LEAF, ALICE], data)


def tables(*logs: Log) -> dict[ChainId, Table]:
    return {A: EMPTY.apply(logs), B: EMPTY.apply([realised(-30)])}


def test_pending_changes_nothing_until_used_then_settles_once() -> None:
    ledger = Ledger(pending=(TRANSFER,))
    waiting = ledger.advance(tables(), {A: 100})
    assert waiting == ledger
    after = ledger.advance(tables(used()), {A: 101})
    assert dict(after.settled) == {KEY: -30, HOUSE: 30}
    assert after.pending == ()
    assert after.advance(tables(used()), {A: 200}) == after


def test_expired_without_effect_is_forgotten() -> None:
    assert Ledger(pending=(TRANSFER,)).advance(tables(), {A: 101}) == Ledger()


def test_a_queued_transfer_counts_and_is_taken_back_when_stopped() -> None:
    ledger = Ledger(pending=(TRANSFER,))
    waiting = ledger.advance(tables(used(), queued()), {A: 50})
    assert (dict(waiting.settled)[KEY], len(waiting.queued)) == (-30, 1)
    assert vault.totals(SPEC_A, EMPTY.apply([queued()])) == {TOKEN: 30}
    stop = log(A, "Vault", "Stopped(bytes32)", [LEAF])
    stopped = waiting.advance(tables(used(), queued(), stop), {A: 60})
    assert stopped == Ledger()
    at_once = ledger.advance(tables(used(), queued(), stop), {A: 60})
    assert at_once == Ledger()
    finish = log(A, "Vault", "Finished(bytes32)", [LEAF])
    done = waiting.advance(tables(used(), queued(), finish), {A: 60})
    assert (dict(done.settled)[KEY], done.queued) == (-30, ())


def test_unsettled_is_a_leg_until_it_is_cleared() -> None:
    market = log(B, "Perps", "Funding(bytes32,int256)", [ETH], words(0))
    before = {B: EMPTY.apply([realised(-30), market])}
    (leg,) = accounts(NETWORK, before)[ALICE]
    assert (leg.kind, leg.size, leg.quote, leg.market) == (LegKind.PERP, 0, -30, ETH)
    state = {"transfer": Ledger(pending=(TRANSFER,)).encode()}
    after = before | {A: EMPTY.apply([used()])}
    assert ALICE not in accounts(NETWORK, after, state)
    cleared = Ledger(settled={KEY: -30})
    assert unsettled(SPEC_B, before[B], cleared) == {}


@given(
    st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(-(2**100), 2**100)),
    st.integers(0, 2**63),
)
def test_the_ledger_is_read_back_exactly(amounts: dict[bytes, int], nonce: int) -> None:
    settled = {(B, VENUE, account): amount for account, amount in amounts.items()}
    ledger = Ledger(settled, (TRANSFER,), (TRANSFER,), nonce, 7)
    assert decode(ledger.encode()) == ledger
    assert decode(b"") == Ledger()


def test_plan_steps_become_calls() -> None:
    args = (("index", 0), ("limit", 0), ("market", ETH), ("size", 5))
    call = step_call(Step("a", B, StepKind.REDUCE, VENUE, args))
    expected = type_hash("reduce(uint256,bytes32,uint256,uint256)")[:4]
    assert (call.chain, call.to, call.data[:4]) == (B, VENUE, expected)
    with pytest.raises(KeyError):
        step_call(Step("b", B, StepKind.BRIDGE, VENUE, ()))
