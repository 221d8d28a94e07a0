"""Commitments and reveals as bytes, and the bidder's own books."""

import pytest

from keeper.compete.bidder import Bidder, Reserve, Wish
from keeper.compete.bids import (
    MAX_BIDS,
    Bid,
    BidVector,
    Commit,
    commit_hash,
    decode_commit,
    decode_reveal,
    make_vector,
    verify_commit,
)
from keeper.compete.state import AwardState, OpenAward, Round
from keeper.compete.task import Target, Task, bond_lock
from keeper.hashing import keccak
from keeper.parameters import Parameters
from keeper.units import ChainId
from p2p.agreement.signing import EcdsaSigner

NETWORK, CONFIG = keccak(b"n"), keccak(b"c")
SIGNER = EcdsaSigner(b"\7" * 32)
SALT = b"\5" * 32
PARAMETERS = Parameters.devnet()
USD = 10**6
PLENTY = Reserve(10**24, 10**15)


def subject(number: int) -> bytes:
    return keccak(number.to_bytes(4, "big"))


def vector(count: int = 3, view: int = 9) -> BidVector:
    return make_vector(view, SIGNER.address, [Bid(subject(i), i) for i in range(count)], SALT)


def signed(commitment: bytes, view: int = 9, epoch: int = 1, config: bytes = CONFIG) -> Commit:
    digest = commit_hash(NETWORK, epoch, config, view, SIGNER.address, commitment)
    return Commit(epoch, config, view, SIGNER.address, commitment, SIGNER.sign(digest))


def test_reveal_is_read_back_exactly() -> None:
    for count in (1, 2, MAX_BIDS):
        one = vector(count)
        assert decode_reveal(one.encode()) == one
        assert one.commitment == keccak(one.encode())


def test_a_vector_keeps_its_best_bids() -> None:
    one = vector(MAX_BIDS + 5)
    assert len(one.bids) == MAX_BIDS
    assert min(bid.price for bid in one.bids) == 5


@pytest.mark.parametrize("cut", [1, 31, 32, 64])
def test_truncated_or_padded_reveals_are_nothing(cut: int) -> None:
    raw = vector().encode()
    assert decode_reveal(raw[:-cut]) is None
    assert decode_reveal(raw + bytes(cut)) is None


def test_a_changed_byte_is_another_commitment_or_nothing() -> None:
    raw = vector().encode()
    for at in range(0, len(raw), 7):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        found = decode_reveal(changed)
        assert found is None or found.commitment != vector().commitment


def test_unsorted_or_repeated_subjects_are_nothing() -> None:
    bids = vector().bids
    for wrong in (tuple(reversed(bids)), (bids[0], bids[0])):
        assert decode_reveal(BidVector(9, SIGNER.address, wrong, SALT).encode()) is None


def test_commit_is_read_back_and_verified() -> None:
    one = signed(vector().commitment)
    assert decode_commit(one.encode()) == one
    assert verify_commit(NETWORK, 1, CONFIG, one)


def test_a_commit_of_another_epoch_config_network_or_view_is_refused() -> None:
    one = signed(vector().commitment)
    assert not verify_commit(NETWORK, 2, CONFIG, one)
    assert not verify_commit(NETWORK, 1, keccak(b"x"), one)
    assert not verify_commit(keccak(b"x"), 1, CONFIG, one)
    moved = Commit(1, CONFIG, 10, one.bidder, one.commitment, one.signature)
    assert not verify_commit(NETWORK, 1, CONFIG, moved)
    stolen = Commit(1, CONFIG, 9, b"\1" * 20, one.commitment, one.signature)
    assert not verify_commit(NETWORK, 1, CONFIG, stolen)


@pytest.mark.parametrize(
    "raw", [b"", b"\x90", b"\xc0", b"\x96\x01\x02\x03\x04\x05\x06", b"\xff" * 40, b"\x00" * 300]
)
def test_other_bytes_are_no_commit(raw: bytes) -> None:
    assert decode_commit(raw) is None


def bidder() -> Bidder:
    return Bidder(NETWORK, 1, CONFIG, SIGNER.address, PARAMETERS)


def wish(number: int, price: int = 10 * USD, capital: int = 0) -> Wish:
    return Wish(subject(number), price, 1_000 * USD, capital, profit=price)


def test_one_commitment_a_view() -> None:
    one = bidder()
    commit = one.commit(3, [wish(1)], PLENTY, SALT, SIGNER.sign)
    assert commit is not None
    assert verify_commit(NETWORK, 1, CONFIG, commit)
    assert one.commit(3, [wish(2)], PLENTY, SALT, SIGNER.sign) is None
    assert one.commit(2, [wish(2)], PLENTY, SALT, SIGNER.sign) is None
    assert one.commit(4, [wish(2)], PLENTY, SALT, SIGNER.sign) is not None


def test_bids_beyond_bond_or_capital_are_left_out() -> None:
    one = bidder()
    lock = bond_lock(1_000 * USD, 10 * USD, PARAMETERS)
    assert one.commit(3, [wish(1), wish(2)], Reserve(lock - 1, 0), SALT, SIGNER.sign) is None
    assert one.commit(3, [wish(1), wish(2)], Reserve(lock, 0), SALT, SIGNER.sign) is not None
    assert len(one.vectors[3].bids) == 1
    assert one.reserved() == Reserve(lock, 0)
    assert one.commit(4, [wish(3)], Reserve(lock, 0), SALT, SIGNER.sign) is None
    other = bidder()
    rich = Reserve(lock * 9, 70 * USD)
    wishes = [wish(1, capital=50 * USD), wish(2, capital=50 * USD), wish(3, capital=20 * USD)]
    assert other.commit(3, wishes, rich, SALT, SIGNER.sign) is not None
    assert other.reserved().capital == 70 * USD


def test_reveal_when_frozen_then_free_or_held() -> None:
    one = bidder()
    commit = one.commit(3, [wish(1), wish(2)], PLENTY, SALT, SIGNER.sign)
    assert commit is not None
    assert one.follow(3, AwardState(collecting=3)) == ([], [])
    frozen = AwardState(collecting=4, revealing=(Round(3, ((SIGNER.address, commit.commitment),)),))
    bodies, won = one.follow(4, frozen)
    assert [keccak(body) for body in bodies] == [commit.commitment]
    assert won == []
    target = Target(ChainId(1), b"\1" * 32, b"\2" * 20, b"\3" * 32)
    task = Task(b"t" * 32, target, 3, 1, 1, 1, 1, 1)
    held = OpenAward(task, b"l" * 32, (SIGNER.address,), 5, 77, 1, 2, 3, 4, 5)
    _, won = one.follow(5, AwardState(collecting=5, awards=(held,)))
    assert won == [held]
    assert one.reserved() == Reserve(77, 0)
    one.follow(6, AwardState(collecting=6))
    assert one.reserved() == Reserve()
