"""The gate: admission, size, rate, standing, in that order, each counted."""

import pytest

from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import Instant
from p2p.gate import FOLLOWER_FRAME_BYTES, Gate, ScoreBook
from p2p.identity import peer_id_of, peer_id_text
from p2p.port import Limits, Role
from p2p.scorebook import StoredScores
from p2p.verdicts import Reject, Standing

ME, MEMBER, BONDED, STRANGER = (peer_id_of(bytes([i]) * 32) for i in range(4))
LIMITS = Limits(frames_per_s=10, frames_burst=5, followers=1)


class Bench:
    def __init__(self, book: ScoreBook | None = None) -> None:
        self.now = 0.0
        self.cut: list[tuple[bytes, Reason]] = []
        self.metrics = Metrics()
        self.gate = Gate(
            ME, LIMITS, self.metrics, lambda: self.now, lambda p, r: self.cut.append((p, r)), book
        )
        self.gate.allow(frozenset({ME, MEMBER}), frozenset({BONDED}))

    def take(self, peer: bytes, frame: bytes = b"x", limit: int = 100) -> bool:
        return self.gate.take(peer, "road", frame, Instant(self.now), limit)

    def drops(self, peer: bytes) -> dict[Reason, int]:
        return dict(self.gate.scores.drops(peer))


def test_roles_and_the_quota_of_followers() -> None:
    bench = Bench()
    gate = bench.gate
    assert gate.role(MEMBER) is Role.COMMITTEE
    assert gate.role(BONDED) is Role.BONDED
    assert gate.admits(STRANGER) is None
    gate.connected(STRANGER, True)
    another = peer_id_of(bytes([9]) * 32)
    assert gate.admits(another) is Reason.NOT_ADMITTED
    assert gate.admits(STRANGER) is None, "who is in may connect again"
    assert gate.admits(BONDED) is None
    gate.connected(STRANGER, False)
    assert gate.admits(another) is None
    assert gate.admits(ME) is Reason.DUPLICATE


def test_oversize_is_rejected_and_rate_is_limited() -> None:
    bench = Bench()
    assert not bench.take(MEMBER, bytes(101))
    assert bench.drops(MEMBER) == {Reason.OVERSIZE: 1}
    bench = Bench()
    assert [bench.take(MEMBER) for _ in range(7)] == [True] * 5 + [False] * 2
    bench.now = 0.1
    assert bench.take(MEMBER)
    assert bench.drops(MEMBER) == {Reason.RATE_LIMITED: 2}


def test_bytes_are_limited_beside_frames() -> None:
    limits = Limits(bytes_per_s=100, bytes_burst=150)
    gate = Gate(ME, limits, Metrics(), lambda: 0.0, lambda _p, _r: None)
    gate.allow(frozenset({MEMBER}), frozenset())
    assert gate.may_speak(MEMBER, 100, 1000)
    assert not gate.may_speak(MEMBER, 100, 1000)


def test_requests_have_their_own_rate() -> None:
    bench = Bench()
    asked = sum(bench.gate.may_ask(MEMBER) for _ in range(1000))
    assert asked == LIMITS.requests_burst


def test_a_follower_gets_a_share_of_every_rate() -> None:
    bench = Bench()
    spoken = sum(bench.gate.may_speak(STRANGER, 1, 10) for _ in range(2000))
    assert spoken == int(LIMITS.frames_burst * LIMITS.follower_share)
    other = peer_id_of(bytes([77]) * 32)
    asked = sum(bench.gate.may_ask(other) for _ in range(1000))
    assert asked == LIMITS.requests_burst * LIMITS.follower_share
    assert sum(bench.gate.may_speak(BONDED, 1, 10) for _ in range(2000)) == LIMITS.frames_burst


def test_an_offender_is_cut_once_named_and_silenced() -> None:
    bench = Bench()
    bench.take(MEMBER)
    for _ in range(5):
        bench.gate.report(MEMBER, Reject(Reason.BAD_SIGNATURE))
    assert bench.cut == [(MEMBER, Reason.BAD_SIGNATURE)]
    assert bench.gate.inbox.receive_nowait() is None, "what it left is forgotten"
    assert not bench.take(MEMBER)
    assert bench.gate.admits(MEMBER) is Reason.REFUSED
    bench.now = 1000.0
    assert bench.gate.admits(MEMBER) is None
    text = bench.metrics.exposition().decode()
    assert 'keeper_p2p_cut_total{reason="bad_signature"} 1.0' in text


def test_long_frames_are_for_keepers_and_who_was_one() -> None:
    bench = Bench()
    long = LIMITS.frame_bytes
    assert [bench.gate.frame_limit(peer) for peer in (MEMBER, BONDED)] == [long, long]
    assert bench.gate.frame_limit(STRANGER) == FOLLOWER_FRAME_BYTES
    bench.gate.allow(frozenset({STRANGER}), frozenset())
    assert bench.gate.frame_limit(MEMBER) == long, "it may not have heard"
    assert bench.gate.frame_limit(STRANGER) == long


def test_revocation_names_who_lost_a_place() -> None:
    bench = Bench()
    assert bench.gate.allow(frozenset({BONDED}), frozenset()) == (MEMBER,)
    assert bench.gate.role(MEMBER) is Role.FOLLOWER


def test_scores_survive_a_restart() -> None:
    store = Store(":memory:")
    bench = Bench(StoredScores(store))
    for _ in range(3):
        bench.gate.report(STRANGER, Reject(Reason.MALFORMED))
    again = Bench(StoredScores(store))
    again.now = 1.0
    assert again.gate.admits(STRANGER) is Reason.REFUSED
    assert again.gate.scores.standing(STRANGER, 1.0) is Standing.REFUSED
    store.close()


def test_rows_tell_what_an_operator_asks() -> None:
    bench = Bench()
    bench.gate.round_trip(MEMBER, 0.1)
    bench.gate.round_trip(MEMBER, 0.2)
    bench.gate.late(MEMBER, 0.05)
    bench.gate.sent(MEMBER, 10)
    bench.take(MEMBER, b"12345")
    row = next(row for row in bench.gate.peers() if row.peer == MEMBER)
    assert row.round_trip_s == pytest.approx(0.12)
    assert (row.lateness_s, row.sent_bytes, row.received_bytes) == (0.05, 10, 5)
    assert [row.peer for row in bench.gate.peers()] == sorted([MEMBER, BONDED])


def test_strangers_share_one_name_in_metrics() -> None:
    bench = Bench()
    for number in range(50):
        stranger = peer_id_of(number.to_bytes(32, "big"))
        bench.gate.may_speak(stranger, 1, 10)
        bench.gate.report(stranger, Reject(Reason.MALFORMED))
        bench.gate.round_trip(stranger, 0.1)
    bench.gate.report(MEMBER, Reject(Reason.MALFORMED))
    text = bench.metrics.exposition().decode()
    assert 'keeper_p2p_dropped_total{peer="follower",reason="malformed"} 50.0' in text
    assert 'keeper_p2p_bytes_total{direction="received",peer="follower"} 50.0' in text
    named = {line.split('peer="')[1].split('"')[0] for line in text.splitlines() if "peer=" in line}
    assert named == {"follower", peer_id_text(MEMBER)}


def test_counters_of_strangers_are_bounded() -> None:
    bench = Bench()
    for number in range(2000):
        bench.gate.may_speak(peer_id_of(number.to_bytes(32, "big")), 1, 10)
    assert len(bench.gate.peers()) <= 4 * LIMITS.connections + 2
