"""Many bidders, late bodies and old rounds: what is reported and attached stays small."""

from collections.abc import Iterable

from keeper.compete.auction import MAX_BIDDERS, MAX_OPENED
from keeper.compete.award import MAX_REVEALING
from keeper.compete.bids import MAX_BIDS, Bid, BidVector, Commit, commit_hash, make_vector
from keeper.compete.hearing import COMMIT, REVEAL, Hearing
from keeper.compete.state import AwardState, Round
from keeper.hashing import keccak
from p2p.agreement.signing import EcdsaSigner
from tests.support.clearing_world import BOND, USD, World, fields
from tests.unit.test_compete_award import SUBJECT, only, sick_world

NETWORK, CONFIG, SALT = keccak(b"network"), keccak(b"config"), bytes(32)
SIGNERS = tuple(EcdsaSigner(keccak(b"bidder %d" % i)) for i in range(MAX_BIDDERS + 8))
STAKES = {signer.address: 1_000 + number for number, signer in enumerate(SIGNERS)}


def vector_of(signer: EcdsaSigner, view: int) -> BidVector:
    return make_vector(view, signer.address, [Bid(SUBJECT, USD)], SALT)


def commit_frame(signer: EcdsaSigner, view: int) -> bytes:
    hashed = vector_of(signer, view).commitment
    digest = commit_hash(NETWORK, 1, CONFIG, view, signer.address, hashed)
    commit = Commit(1, CONFIG, view, signer.address, hashed, signer.sign(digest))
    return COMMIT + commit.encode()


def heard(views: Iterable[int], signers: Iterable[EcdsaSigner]) -> Hearing:
    """Return what a keeper heard of rounds that all were committed to and opened."""
    hearing = Hearing(NETWORK, 1, CONFIG, lambda keeper: STAKES.get(keeper, 0))
    who = tuple(signers)
    for view in views:
        for signer in who:
            assert hearing.take(commit_frame(signer, view)) is None
            assert hearing.take(REVEAL + vector_of(signer, view).encode()) is None
    return hearing


def frozen(view: int, signers: Iterable[EcdsaSigner], opened: int = 0) -> Round:
    vectors = sorted((s.address, vector_of(s, view)) for s in signers)
    pairs = tuple((bidder, vector.commitment) for bidder, vector in vectors)
    bodies = tuple((bidder, vector.encode()) for bidder, vector in vectors[:opened])
    return Round(view, pairs, bodies)


def test_only_what_can_still_be_frozen_or_opened_is_reported() -> None:
    hearing = heard((1, 2, 3), SIGNERS[:3])
    assert {one.view for one in hearing.seen()[0]} == {1, 2, 3}
    state = AwardState(collecting=3, revealing=(frozen(2, SIGNERS[:3], opened=1),))
    hearing.advance(3, state)
    commitments, reveals = hearing.seen()
    assert {one.view for one in commitments} == {3}
    unopened = {pair[1] for pair in state.revealing[0].frozen[1:]}
    newer = {vector_of(signer, 3).commitment for signer in SIGNERS[:3]}
    assert set(reveals) == unopened | newer


def test_a_round_that_waits_for_slow_keepers_is_still_reported() -> None:
    hearing = heard((1, 2, 3), SIGNERS[:3])
    hearing.advance(3, AwardState(collecting=3, late=(2,)))
    assert {one.view for one in hearing.seen()[0]} == {2, 3}


def test_of_one_round_the_bidders_with_most_at_stake_are_reported() -> None:
    hearing = heard((1,), SIGNERS)
    commitments, _ = hearing.seen()
    largest = sorted(STAKES, key=lambda keeper: -STAKES[keeper])[:MAX_BIDDERS]
    assert {one.bidder for one in commitments} == set(largest)


def test_an_older_state_that_comes_late_changes_nothing() -> None:
    hearing = heard((3,), SIGNERS[:1])
    hearing.advance(3, AwardState(collecting=3))
    before = hearing.seen()
    hearing.advance(1, AwardState(collecting=1))
    assert (hearing.seen(), hearing.view) == (before, 3)


def crowded(bidders: int) -> tuple[World, list[BidVector]]:
    """Return a sick world in which so many keepers have committed, smallest bond first."""
    world = sick_world(keepers=0)
    keepers = [bytes([7]) * 19 + bytes([number]) for number in range(bidders)]
    for number, keeper in enumerate(keepers):
        world.bond(keeper, BOND + number)
    world.view()
    return world, [world.commit(keeper, {SUBJECT: 10 * USD}) for keeper in keepers]


def test_a_crowd_of_small_bonds_does_not_freeze_and_is_not_fined() -> None:
    world, vectors = crowded(MAX_BIDDERS + 4)
    world.view()
    (one,) = world.competition.revealing
    assert [bidder for bidder, _ in one.frozen] == [v.bidder for v in vectors[4:]]
    for vector in vectors:
        world.reveal(vector)
    world.view()
    assert only(world, "Penalty") == []
    (award,) = only(world, "Award")
    assert not {v.bidder for v in vectors[:4]} & set(fields(award)[6])


def test_bodies_that_found_no_room_are_attached_later_and_nobody_is_fined() -> None:
    world, _ = crowded(MAX_OPENED)
    for _ in range(3):  # three rounds are frozen before the first body comes
        world.view()
        for keeper in [bidder for bidder, _ in world.competition.revealing[-1].frozen]:
            if world.competition.collecting:
                world.commit(keeper, {SUBJECT: 10 * USD})
    rounds = list(world.competition.revealing)
    assert len(rounds) == 3
    vectors = [
        make_vector(one.view, bidder, [Bid(SUBJECT, 10 * USD)], SALT)
        for one in rounds
        for bidder, _ in one.frozen
    ]
    for _ in rounds:
        for vector in vectors:
            world.reveal(vector)
        world.view()
    assert world.sealed
    assert not [decision for decision in world.sealed if decision.kind == "Penalty"]


def test_no_round_is_opened_while_too_many_wait() -> None:
    world, vectors = crowded(2)
    keepers = [vector.bidder for vector in vectors]
    most = 0
    for _ in range(3 * MAX_REVEALING):  # nobody ever opens
        world.view()
        most = max(most, len(world.competition.revealing))
        if world.competition.collecting:
            for keeper in keepers:
                world.commit(keeper, {SUBJECT: 10 * USD})
    assert 1 < most <= MAX_REVEALING


def test_a_vector_is_a_small_part_of_a_proposal() -> None:
    subjects = [keccak(b"%d" % number) for number in range(2 * MAX_BIDS)]
    bids = [Bid(subject, USD + number) for number, subject in enumerate(subjects)]
    body = make_vector(1, b"\1" * 20, bids, SALT).encode()
    assert len(body) * MAX_OPENED <= 72 * 1024
