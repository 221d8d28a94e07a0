"""The pure rules of execution: fees, decisions, arrows of the ledger, modes, promises, profit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.chain.port import BlockRef, Fees, Log, Receipt
from keeper.errors import ConfigError, LocalError
from keeper.execute import fees, lanes, modes
from keeper.execute.fees import Offer, Schedule
from keeper.execute.intent import Intent, Lane, Mode, Outcome, State, Status
from keeper.execute.ledger import Attempt, Ledger, Moved, Planned, Signed, Task
from keeper.execute.profit import NATIVE, TRANSFER, Price, profit
from keeper.execute.reservations import Holding, Reservations
from keeper.execute.signer import Signer
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei

CHAIN = ChainId(7)
GWEI = 10**9
SENDER = b"\x51" * 20
INTENT = Intent(b"task", CHAIN, Lane.URGENT, b"\x70" * 20, b"x", BlockNumber(100), Wei(10**17))
MARKET = Fees(Wei(10 * GWEI), Wei(GWEI))
RULES = Schedule(patience=3)
FIRST = Attempt(b"\xa1" * 32, b"raw", Offer(Wei(GWEI), Wei(21 * GWEI)), 50_000, 10)


def receipt(of: Attempt = FIRST, block: int = 12, ok: bool = True, fork: int = 0) -> Receipt:
    ref = BlockRef(CHAIN, BlockNumber(block), bytes([fork]) * 32)
    return Receipt(of.hash, ref, ok, 30_000, Wei(GWEI), ())


def task(state: State = State.SENT, attempts: tuple[Attempt, ...] = (FIRST,)) -> Task:
    mined = receipt() if state is State.MINED else None
    outcome = Outcome(
        INTENT.key, Status.RECORDED, block_hash=b"" if mined is None else mined.block.hash
    )
    return Task(INTENT, state, SENDER, 5, attempts, outcome)


def facts(**changes: object) -> lanes.Facts:
    base = lanes.Facts(12, 9, 5, 0, None, True, MARKET)
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name


# fees ------------------------------------------------------------------------------------------

wei = st.integers(1, 10**13)


@given(wei, wei, wei, wei)
def test_a_bump_is_always_accepted_by_a_node(base: int, tip: int, old_tip: int, extra: int) -> None:
    last = Offer(Wei(old_tip), Wei(old_tip + extra))
    for offer in (
        fees.bump(RULES, Fees(Wei(base), Wei(tip)), last),
        fees.least_bump(RULES, last),
    ):
        assert offer.tip * 1000 >= last.tip * 1130
        assert offer.max_fee * 1000 >= last.max_fee * 1130
        assert offer.max_fee >= offer.tip


@given(wei, st.integers(21_000, 10**7), st.integers(0, 10**19))
def test_an_offer_never_costs_more_than_its_cap(base: int, gas: int, cap: int) -> None:
    market = Fees(Wei(base), Wei(GWEI))
    offer = fees.within(fees.first(RULES, market), gas, cap, market)
    if offer is not None:
        assert gas * offer.max_fee <= cap
        assert offer.max_fee >= base + offer.tip, "it can be mined now"


def test_a_schedule_that_nodes_refuse_is_refused() -> None:
    for changes in ({"bump_ppm": 1_100_000}, {"patience": 0}, {"gas_ppm": 999_999}):
        with pytest.raises(ValueError, match=r"."):
            Schedule(**changes)  # type: ignore[arg-type]  # fields by name


# decisions -------------------------------------------------------------------------------------


def decided(of: Task, **changes: object) -> lanes.Action:
    return lanes.decide(of, facts(**changes), RULES)


def test_receipts_move_a_task_forward() -> None:
    assert decided(task(), receipt=receipt()) == lanes.Record(
        Moved(INTENT.key, State.MINED, receipt=receipt())
    )
    assert decided(task(State.MINED), receipt=receipt()) == lanes.Wait()
    assert decided(task(State.MINED), receipt=receipt(), final=12) == lanes.Record(
        Moved(INTENT.key, State.FINAL, receipt=receipt())
    )
    bad = receipt(ok=False)
    assert decided(task(), receipt=bad) == lanes.Record(
        Moved(INTENT.key, State.MINED, Reason.REVERTED, receipt=bad)
    )
    moved = receipt(fork=1)
    assert decided(task(State.MINED), receipt=moved, final=12) == lanes.Record(
        Moved(INTENT.key, State.MINED, receipt=moved)
    ), "another block is recorded before it may be final"


def test_a_vanished_receipt_is_a_reorg() -> None:
    assert decided(task(State.MINED)) == lanes.Record(
        Moved(INTENT.key, State.SENT, detail="its block was retracted")
    )


def test_unknown_is_not_failed() -> None:
    assert decided(task(), known=False) == lanes.Resend(FIRST)
    assert decided(task(State.SIGNED), known=False) == lanes.Resend(FIRST)
    assert decided(task()) == lanes.Wait()
    assert decided(task(), nonce=6) == lanes.Wait(), "mined by whom is not known yet"
    assert decided(task(), nonce=6, nonce_final=5) == lanes.Wait()
    assert decided(task(), nonce=6, nonce_final=6) == lanes.Record(
        Moved(INTENT.key, State.SUPERSEDED, Reason.NONCE_TAKEN)
    )


def test_the_head_of_the_line_is_outbid_when_it_is_stuck() -> None:
    action = decided(task(), head=13)
    assert isinstance(action, lanes.Replace)
    assert action.offer.tip * 100 >= FIRST.offer.tip * 113
    assert decided(task(), head=13, nonce=4) == lanes.Wait(), "another one blocks it"
    dear = Fees(Wei(30 * GWEI), Wei(GWEI))
    assert isinstance(decided(task(), head=13, nonce=4, market=dear), lanes.Replace)
    beyond = Fees(Wei(10**6 * GWEI), Wei(GWEI))
    assert decided(task(), head=13, market=beyond) == lanes.Wait(), "the cap holds"
    assert decided(task(), head=13, market=beyond, known=False) == lanes.Resend(FIRST)


def test_past_the_deadline_only_the_nonce_matters() -> None:
    action = decided(task(), head=100)
    assert isinstance(action, lanes.Cancel)
    cancel = Attempt(b"\xc0" * 32, b"", action.offer, lanes.CANCEL_GAS, 100, cancels=True)
    cancelled = task(attempts=(FIRST, cancel))
    assert decided(cancelled, head=101) == lanes.Wait()
    outbid = decided(cancelled, head=103)
    assert isinstance(outbid, lanes.Cancel)
    while isinstance(outbid, lanes.Cancel):
        assert outbid.offer.max_fee <= INTENT.fee_cap // lanes.CANCEL_GAS
        newest = replace(cancel, offer=outbid.offer)
        outbid = decided(task(attempts=(FIRST, newest)), head=103)
    assert outbid == lanes.Wait(), "outbidding oneself ends"
    dear = Fees(Wei(10**6 * GWEI), Wei(GWEI))
    assert isinstance(decided(cancelled, head=103, market=dear), lanes.Cancel), "the market is paid"
    assert decided(cancelled, receipt=receipt(cancel, 101)) == lanes.Wait()
    done = receipt(cancel, 101)
    assert decided(cancelled, receipt=done, final=101) == lanes.Record(
        Moved(INTENT.key, State.SUPERSEDED, Reason.PAST_DEADLINE, "cancelled", done)
    )
    late = decided(cancelled, receipt=receipt(FIRST, 101))
    assert late == lanes.Record(Moved(INTENT.key, State.MINED, receipt=receipt(FIRST, 101)))


# ledger ----------------------------------------------------------------------------------------


def fresh() -> Ledger:
    return Ledger(Store(":memory:"))


def sign(nonce: int = 5, attempt: Attempt = FIRST, key: bytes = INTENT.key) -> Signed:
    return Signed(key, SENDER, nonce, attempt)


def test_every_arrow_that_is_not_drawn_raises() -> None:
    mined = receipt()
    moves = {
        State.SENT: Moved(INTENT.key, State.SENT),
        State.MINED: Moved(INTENT.key, State.MINED, receipt=mined),
        State.FINAL: Moved(INTENT.key, State.FINAL, receipt=mined),
        State.DROPPED: Moved(INTENT.key, State.DROPPED, Reason.OVER_CAP),
        State.SUPERSEDED: Moved(INTENT.key, State.SUPERSEDED, Reason.NONCE_TAKEN),
    }
    reach: dict[State, list[object]] = {
        State.PLANNED: [],
        State.SIGNED: [sign()],
        State.SENT: [sign(), moves[State.SENT]],
        State.MINED: [sign(), moves[State.MINED]],
        State.FINAL: [sign(), moves[State.MINED], moves[State.FINAL]],
        State.DROPPED: [moves[State.DROPPED]],
        State.SUPERSEDED: [sign(), moves[State.SUPERSEDED]],
    }
    allowed = {
        (State.PLANNED, State.DROPPED), (State.PLANNED, State.SUPERSEDED),
        (State.SIGNED, State.SENT), (State.SIGNED, State.MINED), (State.SIGNED, State.SUPERSEDED),
        (State.SENT, State.SENT), (State.SENT, State.MINED), (State.SENT, State.SUPERSEDED),
        (State.MINED, State.SENT), (State.MINED, State.MINED), (State.MINED, State.FINAL),
        (State.MINED, State.SUPERSEDED),
    }  # fmt: skip
    for start, path in reach.items():
        for target, move in moves.items():
            ledger = fresh()
            ledger.apply([Planned(INTENT), *path], 0)  # type: ignore[list-item]  # changes of three kinds
            if (start, target) in allowed:
                ledger.apply([move], 0)
            else:
                with pytest.raises(LocalError, match="cannot go"):
                    ledger.apply([move], 0)
                found = ledger.task(INTENT.key)
                assert found is not None
                assert found.state is start


def test_a_nonce_has_one_task_and_a_task_one_nonce() -> None:
    ledger = fresh()
    other = replace(INTENT, key=b"other")
    ledger.apply([Planned(INTENT), Planned(other), sign()], 0)
    second = replace(FIRST, hash=b"\xa2" * 32)
    with pytest.raises(LocalError, match="keeps its nonce"):
        ledger.apply([sign(6, second)], 0)
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.apply([sign(5, second, b"other")], 0)
    assert ledger.next_nonce(CHAIN, SENDER) == 6
    ledger.apply([sign(6, second, b"other")], 0)
    assert [each.nonce for each in ledger.open_tasks(CHAIN, Lane.URGENT)] == [5, 6]


def test_a_refused_change_takes_the_whole_batch_back() -> None:
    ledger = fresh()
    with pytest.raises(LocalError):
        ledger.apply([Planned(INTENT), Moved(INTENT.key, State.SENT)], 0)
    assert ledger.task(INTENT.key) is None


def test_attempts_come_back_in_the_order_they_outbid() -> None:
    ledger = fresh()
    ledger.apply([Planned(INTENT), sign()], 0)
    rises = (9 * GWEI, 30 * GWEI, 100 * GWEI)
    attempts = [
        Attempt(bytes([n]) * 32, b"r", Offer(Wei(n), Wei(rise)), 1, n)
        for n, rise in enumerate(rises)
    ]
    cancel = Attempt(b"\xcc" * 32, b"r", Offer(Wei(1), Wei(200 * GWEI)), 1, 9, cancels=True)
    for each in (attempts[2], cancel, attempts[0], attempts[1]):
        ledger.apply([sign(5, each)], 0)
    found = ledger.task(INTENT.key)
    assert found is not None
    assert [a.offer.max_fee // GWEI for a in found.attempts] == [9, 21, 30, 100, 200]
    assert found.attempts[-1].cancels


# modes -----------------------------------------------------------------------------------------


def never() -> bytes:
    raise AssertionError("a key was read")


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW, Mode.DRY])
def test_only_live_reads_keys(mode: Mode) -> None:
    equipment = modes.equip(mode, {(CHAIN, Lane.URGENT): never})
    assert not equipment.sends
    assert equipment.accepts == (mode is not Mode.OFF)
    assert equipment.rehearses == (mode is Mode.DRY)


def test_live_needs_a_key_per_lane() -> None:
    keys = {(CHAIN, lane): (lambda n=n: bytes([n]) * 32) for n, lane in enumerate(Lane, 1)}
    assert modes.equip(Mode.LIVE, keys).sends
    with pytest.raises(ConfigError, match="share an account"):
        modes.equip(Mode.LIVE, {(CHAIN, lane): (lambda: b"\1" * 32) for lane in Lane})
    twice = {(ChainId(n), Lane.URGENT): (lambda: b"\1" * 32) for n in (1, 2)}
    assert modes.equip(Mode.LIVE, twice).sends, "the same account on two chains is fine"
    with pytest.raises(ConfigError, match="needs a key"):
        modes.equip(Mode.LIVE, {})
    assert "01" * 32 not in repr(Signer(b"\1" * 32))


# promises --------------------------------------------------------------------------------------

COIN = Holding(CHAIN, NATIVE)
TOKEN = Holding(CHAIN, b"\x11" * 20)


def test_capital_is_never_promised_twice() -> None:
    store = Store(":memory:")
    book = Reservations(store)
    inventory = {COIN: 100, TOKEN: 10}
    assert book.reserve(b"a", {COIN: 60, TOKEN: 10}, inventory) is None
    assert book.reserve(b"b", {COIN: 41}, inventory) is Reason.NOT_RESERVED
    assert book.reserve(b"b", {COIN: 40, TOKEN: 1}, inventory) is Reason.NOT_RESERVED
    assert book.held() == {COIN: 60, TOKEN: 10}, "all or nothing"
    assert book.reserve(b"b", {COIN: 40}, inventory) is None
    assert book.reserve(b"a", {COIN: 30}, inventory) is None, "the same bid again replaces it"
    assert Reservations(store).held() == {COIN: 70}
    book.release(b"b")
    assert (book.held(), book.keys()) == ({COIN: 30}, frozenset({b"a"}))
    assert book.reserve(b"c", {TOKEN: 1}, {}) is Reason.NOT_RESERVED
    with pytest.raises(ValueError, match="negative"):
        book.reserve(b"c", {TOKEN: -1}, inventory)


# profit ----------------------------------------------------------------------------------------


def transfer(token: bytes, sender: bytes, to: bytes, amount: int) -> Log:
    topics = (TRANSFER, sender.rjust(32, b"\0"), to.rjust(32, b"\0"))
    ref = BlockRef(CHAIN, BlockNumber(1), bytes(32))
    return Log(ref, 0, bytes(32), token, topics, amount.to_bytes(32, "big"))


def test_profit_comes_from_receipts() -> None:
    us, usdc = b"\x05" * 20, b"\x0c" * 20
    logs = (
        transfer(usdc, b"\x09" * 20, us, 5_000_000),
        transfer(usdc, us, b"\x09" * 20, 1_000_000),
        transfer(usdc, us, us, 7),
        transfer(usdc, b"\x09" * 20, b"\x08" * 20, 10**12),
        replace(transfer(usdc, b"\x09" * 20, us, 1), topics=(TRANSFER,)),
    )
    good = replace(receipt(), logs=logs)
    bad = receipt(ok=False)
    prices = {
        (CHAIN, usdc): Price(10**8, 6),
        (CHAIN, NATIVE): Price(2_000 * 10**8, 18),
    }
    earned = profit([good, bad], us, prices)
    assert earned.net == (((CHAIN, NATIVE), -60_000 * GWEI), ((CHAIN, usdc), 4_000_000))
    assert earned.usd_e6 == 4_000_000 - 120_000
    assert earned.unpriced == ()
    assert profit([good], us, {}).unpriced == ((CHAIN, NATIVE), (CHAIN, usdc))
    dust = {(CHAIN, NATIVE): Price(1, 18)}
    assert profit([bad], us, dust).usd_e6 == -1, "a cost is rounded up"
