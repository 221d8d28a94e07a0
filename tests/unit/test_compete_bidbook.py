"""A keeper that dies after its commitment opens it in its next life."""

from pathlib import Path

from keeper.compete.bidder import MAX_ROUNDS, Bidder, Reserve, Wish
from keeper.compete.bids import Commit
from keeper.compete.state import AwardState, Round
from keeper.hashing import keccak
from keeper.node.bidbook import BidBook
from keeper.parameters import Parameters
from keeper.store import Store
from p2p.agreement.signing import EcdsaSigner

SIGNER, CONFIG, NETWORK = EcdsaSigner(keccak(b"bidder")), keccak(b"config"), keccak(b"network")
PLENTY = Reserve(10**24, 0)


def life(book: BidBook) -> Bidder:
    """Return a bidder as a node makes it when it starts."""
    bidder = Bidder(NETWORK, 1, CONFIG, SIGNER.address, Parameters.devnet())
    for vector in book.load(1):
        bidder.recall(vector)
    return bidder


def commit(bidder: Bidder, view: int) -> Commit | None:
    wish = Wish(keccak(b"subject"), 1_000_000, 10_000_000)
    return bidder.commit(view, [wish], PLENTY, keccak(b"salt %d" % view), SIGNER.sign)


def test_what_was_promised_is_opened_in_the_next_life(tmp_path: Path) -> None:
    store = Store(tmp_path / "keeper.db")
    bidder = life(BidBook(store))
    made = commit(bidder, 7)
    assert made is not None
    BidBook(store).keep(1, bidder.vectors[7])
    store.close()
    again = life(BidBook(Store(tmp_path / "keeper.db")))
    frozen = Round(7, ((SIGNER.address, made.commitment),))
    (body,), _ = again.follow(8, AwardState(collecting=8, revealing=(frozen,)))
    assert keccak(body) == made.commitment
    assert commit(again, 7) is None  # never two vectors for one view
    assert commit(again, 8) is not None


def test_old_rounds_and_epochs_are_forgotten() -> None:
    store = Store(":memory:")
    book, bidder = BidBook(store), life(BidBook(store))
    for view in range(1, 3 * MAX_ROUNDS):
        assert commit(bidder, view) is not None
        book.keep(1, bidder.vectors[view])
    assert len(book.load(1)) == MAX_ROUNDS
    book.keep(2, bidder.vectors[3 * MAX_ROUNDS - 1])
    assert book.load(1) == []
    assert len(book.load(2)) == 1


def test_a_damaged_row_is_no_vector() -> None:
    store = Store(":memory:")
    book, bidder = BidBook(store), life(BidBook(store))
    assert commit(bidder, 3) is not None
    book.keep(1, bidder.vectors[3])
    with store.durable() as rows:
        rows.execute("UPDATE bids SET body = ?", (b"garbage",))
    assert book.load(1) == []
