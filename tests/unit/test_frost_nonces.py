"""Nonces ahead of need: one taker each, one life at a time, never more than the bound."""

from collections.abc import Sequence

from p2p.frost.messages import SigningMessage, WantNonces
from p2p.frost.nonces import MAX_AHEAD, CommitmentBook, NonceBatch, NonceHandle, NoncePool
from p2p.frost.suite import Identifier
from tests.support.frost import deal, seeded
from tests.support.frost_net import Net

ONE, TWO, THREE = Identifier(1), Identifier(2), Identifier(3)


def pool(boot: int = 1) -> NoncePool:
    _, shares = deal(2, 3)
    return NoncePool(shares[ONE], boot, seeded(("pool", boot)))


def test_a_pair_is_taken_once_by_whom_it_was_promised_to() -> None:
    held = pool()
    batch = held.publish(TWO, 2)
    handle = NonceHandle(1, batch.first)
    assert held.take(THREE, handle) is None
    assert held.take(TWO, NonceHandle(2, batch.first)) is None
    taken = held.take(TWO, handle)
    assert taken is not None
    assert taken.commitments == batch.commitments[0]
    assert held.take(TWO, handle) is None
    assert (held.ahead(TWO), held.ahead(THREE)) == (1, 0)
    held.wipe()
    assert held.take(TWO, NonceHandle(1, batch.first + 1)) is None


def test_pairs_are_all_different_and_the_oldest_go_first() -> None:
    held = pool()
    first = held.publish(TWO, MAX_AHEAD)
    second = held.publish(TWO, 4)
    assert second.first == MAX_AHEAD
    assert held.ahead(TWO) == MAX_AHEAD
    assert held.take(TWO, NonceHandle(1, first.first)) is None
    points = [c.hiding for c in (*first.commitments, *second.commitments)]
    points += [c.binding for c in (*first.commitments, *second.commitments)]
    assert len(set(points)) == 2 * (MAX_AHEAD + 4)


def test_a_book_forgets_an_earlier_life() -> None:
    book, old, new = CommitmentBook(), pool(1), pool(2)
    assert book.add(ONE, old.publish(TWO, 3))
    assert book.ahead(ONE) == 3
    assert book.add(ONE, new.publish(TWO, 2))
    assert book.ahead(ONE) == 2
    assert not book.add(ONE, old.publish(TWO, 1))
    entry = book.take(ONE)
    assert entry is not None
    assert entry.handle == NonceHandle(2, 0)


def test_a_book_takes_no_counter_twice() -> None:
    book, held = CommitmentBook(), pool()
    batch = held.publish(TWO, 3)
    assert book.add(ONE, batch)
    assert not book.add(ONE, batch)
    assert not book.add(ONE, NonceBatch(1, 2, batch.commitments))
    assert book.ahead(ONE) == 3
    assert [entry.handle.counter for entry in iter(lambda: book.take(ONE), None)] == [0, 1, 2]
    assert book.add(ONE, held.publish(TWO, MAX_AHEAD))
    assert book.add(ONE, held.publish(TWO, 1))
    assert book.ahead(ONE) == MAX_AHEAD
    book.drop(ONE)
    assert book.take(ONE) is None
    assert book.take(THREE) is None


def test_who_missed_the_first_nonces_asks_for_more() -> None:
    links_are_up = False

    def wire(_from: int, _to: int, message: SigningMessage) -> Sequence[SigningMessage]:
        return (message,) if links_are_up else ()

    net = Net(3, 4, filter=wire)
    assert net.queue == []
    links_are_up = True
    net.final(1, bytes(32))
    net.run(net.timing.patience_s)
    assert 1 in net.sealed(0)
    asked = [message for _, _, message in net.sent if isinstance(message, WantNonces)]
    assert asked
