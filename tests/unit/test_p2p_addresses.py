"""Address records: signed by their peer, newest wins, junk refused."""

import msgpack
import pytest

from p2p.addresses import AddressBook, AddressRecord, make_record, pack_records, unpack_records
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_of

SEED = bytes([1]) * 32
PEER, OTHER = peer_id_of(SEED), peer_id_of(bytes([2]) * 32)
HOME = ("/ip4/10.0.0.1/tcp/4001",)


def test_newest_record_wins_before_what_the_operator_wrote() -> None:
    book = AddressBook([(PEER, "/ip4/10.0.0.9/tcp/1")])
    assert book.addresses(PEER) == ("/ip4/10.0.0.9/tcp/1",)
    assert book.learn(make_record(SEED, PEER, 5, HOME))
    assert not book.learn(make_record(SEED, PEER, 4, ("/ip4/10.0.0.2/tcp/1",)))
    assert book.addresses(PEER) == (*HOME, "/ip4/10.0.0.9/tcp/1")
    assert book.bootstrap() == (PEER,)


def test_a_host_is_known_by_who_lives_there() -> None:
    book = AddressBook([(OTHER, "/ip4/10.0.0.9/tcp/1")])
    assert book.learn(make_record(SEED, PEER, 5, (*HOME, "junk")))
    assert [book.lives(host) for host in ("10.0.0.9", "10.0.0.1", "10.0.0.2", "")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_record_travels() -> None:
    record = make_record(SEED, PEER, 5, HOME)
    assert unpack_records(pack_records([record])) == (record,)


def test_only_the_peer_itself_can_move_it() -> None:
    forged = make_record(bytes([2]) * 32, PEER, 9, HOME)
    with pytest.raises(ValueError, match="not signed by its peer"):
        AddressBook().learn(forged)


def test_keeps_only_whom_it_may() -> None:
    book = AddressBook()
    book.learn(make_record(SEED, PEER, 5, HOME))
    book.keep_only(frozenset())
    assert book.records() == ()


def row(**changes: object) -> bytes:
    fields: dict[str, object] = {"peer": PEER, "counter": 1, "addresses": ["/a"], "sig": bytes(64)}
    return bytes(msgpack.packb([list((fields | changes).values())]))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff\xff",
        msgpack.packb({"a": 1}),
        msgpack.packb(7),
        msgpack.packb([[1, 2, 3]]),
        row(peer=b"short"),
        row(counter=-1),
        row(counter=2**64 - 1, sig=b"short"),
        row(addresses=["/a"] * 9),
        row(addresses=["/" * 129]),
        row(addresses=[1]),
        msgpack.packb([[]] * 200),
    ],
)
def test_junk_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_records(frame)


def test_fields_of_a_record_are_exact() -> None:
    assert unpack_records(row()) == (AddressRecord(PEER, 1, ("/a",), bytes(64)),)


def test_our_own_word_outdoes_that_of_an_earlier_life() -> None:
    now, before = ("/ip4/127.0.0.1/tcp/1",), ("/ip4/127.0.0.1/tcp/2",)
    network = Libp2pNetwork(SEED, now[0])
    network.addresses = now
    network._learn_own()
    network._learn(OTHER, pack_records([make_record(SEED, PEER, 1 << 63, before)]))
    (held,) = network.book.records()
    assert (held.addresses, held.counter) == (now, (1 << 63) + 1)
    network._learn(OTHER, pack_records([make_record(SEED, PEER, 1, before)]))
    assert network.book.records() == (held,)
