"""A recorded keeper can be replayed for ever: same inputs, same core, same bits."""

import io
import random
import zlib
from typing import Any

import pytest

from keeper.errors import StoreError
from p2p.agreement import core
from p2p.agreement.chain import Start
from p2p.agreement.effects import Finalized
from p2p.agreement.history import answer_sync
from p2p.agreement.inputs import Close, Jump, Received, Retry, Shown, Started, Ticked
from p2p.agreement.record import RecordedAgreement, Recorder
from p2p.agreement.replay import Mismatch, replay
from p2p.agreement.tape import entries, pack_entry
from tests.simulation.byzantine.equivocator import Equivocator
from tests.support.agreement_cluster import CheapSigner, Cluster, Keeper, Weather

SCHEME = CheapSigner(b"")


class Recorded(Keeper):
    """A keeper with a flight recorder; each boot begins a new record."""

    records: list[io.BytesIO]

    def boot(self) -> None:
        super().boot()
        self.records = [*getattr(self, "records", []), io.BytesIO()]
        committee, timing = self.cluster.committee, self.cluster.timing
        recorder = Recorder(self.records[-1], committee, self.index, timing)
        self.core = RecordedAgreement(
            committee,
            self.index,
            self.signer,
            self.application,
            self.log,
            timing,
            Start(),
            recorder,
        )


@pytest.fixture(scope="module")
def flown() -> Cluster:
    weather = Weather(calm_at=2.0, crash=0.03, lag=0.2)
    cluster = Cluster(4, 11, weather=weather, liars={3: Equivocator}, keeper=Recorded)
    cluster.run(4.0)
    keeper = cluster.keepers[0]
    keeper.core.show(((1, 100),), cluster.now)
    keeper.perform(keeper.core.tick(cluster.now + 5.0))
    tail = answer_sync(cluster.keepers[1].log, 1, 0)
    assert tail is not None
    keeper.perform(keeper.core.jump(tail, cluster.now))
    keeper.perform(keeper.core.close(keeper.core.final.view, cluster.now))
    return cluster


def records(cluster: Cluster) -> list[bytes]:
    return [
        file.getvalue()
        for keeper in cluster.honest
        if isinstance(keeper, Recorded)
        for file in keeper.records
    ]


def test_every_record_replays_bit_by_bit(flown: Cluster) -> None:
    kinds, finals = set(), 0
    assert len(records(flown)) > 3, "some keepers crashed and began a second record"
    for raw in records(flown):
        for _, happened, effects in replay(io.BytesIO(raw), scheme=SCHEME):
            kinds.add(type(happened))
            finals += sum(isinstance(effect, Finalized) for effect in effects)
    assert kinds >= {Started, Received, Ticked, Retry, Close, Jump, Shown}
    assert finals > 20


def test_another_core_is_found_out(flown: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "VIEW_BOUNDS", 4)
    longest = max(records(flown), key=len)
    with pytest.raises(Mismatch):
        list(replay(io.BytesIO(longest), scheme=SCHEME))


def test_a_torn_tail_is_cut_off_and_damage_is_not(flown: Cluster) -> None:
    raw = records(flown)[0]
    whole = len(list(entries(io.BytesIO(raw))))
    assert len(list(entries(io.BytesIO(raw[:-3])))) == whole - 1
    middle = bytearray(raw)
    middle[len(raw) // 2] ^= 1
    with pytest.raises(StoreError, match="damaged"):
        list(entries(io.BytesIO(bytes(middle))))
    with pytest.raises(StoreError, match="not a record"):
        list(replay(io.BytesIO(b"")))


def _spoilt(value: Any, chance: random.Random) -> Any:
    """Return a value with one thing in it changed, however deep."""
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        inside = [_spoilt(value[at], chance)] if chance.random() < 0.8 else []
        return [*value[:at], *inside, *value[at + 1 :]]
    others = [None, -1, 0, 10**12, b"", b"\0" * 32, "x", [], [[]], True, float("nan"), {}]
    return chance.choice(others)


def test_a_made_up_record_is_an_error_that_says_so(flown: Cluster) -> None:
    """Entries with good checksums that no recorder wrote: the command prints what is wrong."""
    plain = list(entries(io.BytesIO(records(flown)[0])))[:400]
    chance, refused = random.Random(8), 0
    for _ in range(400):
        at = chance.choice((0, 1, 2, chance.randrange(len(plain))))
        made_up = [*plain[:at], _spoilt(plain[at], chance), *plain[at + 1 : at + 40]]
        raw = b"".join(pack_entry(*entry) for entry in made_up if isinstance(entry, list))
        try:
            list(replay(io.BytesIO(raw), scheme=SCHEME))
        except (StoreError, Mismatch):
            refused += 1
    assert refused > 300
    junk = b"\xc1" * 9
    with pytest.raises(StoreError, match="msgpack"):
        list(
            entries(
                io.BytesIO(
                    len(junk).to_bytes(4, "big") + zlib.crc32(junk).to_bytes(4, "big") + junk
                )
            )
        )


def test_no_secret_is_in_the_record(flown: Cluster) -> None:
    names = {entry[1] for entry in entries(io.BytesIO(records(flown)[0])) if entry[0] == "ans"}
    assert names <= {
        "propose", "validate", "root", "sign", "restore", "proposal", "certificate", "votes",
        "finals",
    }  # fmt: skip
