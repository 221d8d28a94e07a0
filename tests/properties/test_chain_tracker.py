"""Whatever a chain does, the tracker's events are one linear story that ends at its head."""

from hypothesis import given
from hypothesis import strategies as st

from keeper.chain.port import Advance, BlockRef, DeepReorg, Finalized, Header, Retract
from keeper.chain.tracker import Event, Tracker, Wants
from keeper.hashing import keccak
from keeper.units import BlockNumber, ChainId, Timestamp, Wei

WINDOW = 12


def header(number: int, parent: bytes, salt: int) -> Header:
    block_hash = keccak(parent + salt.to_bytes(8, "big"))
    ref = BlockRef(ChainId(1), BlockNumber(number), block_hash)
    return Header(ref, parent, Timestamp(0), bytes(32), bytes(32), Wei(0), 0, 0)


class World:
    """A chain that grows, forks and rolls back, and answers by hash."""

    def __init__(self) -> None:
        self.chain = [header(0, bytes(32), 0)]
        self.all = {self.chain[0].ref.hash: self.chain[0]}
        self.salt = 0

    def step(self, back: int, grow: int) -> Header:
        back = min(back, len(self.chain) - 1)
        self.salt += bool(back)
        self.chain = self.chain[: len(self.chain) - back]
        for _ in range(grow):
            new = header(len(self.chain), self.chain[-1].ref.hash, self.salt)
            self.chain.append(new)
            self.all[new.ref.hash] = new
        return self.chain[-1]


def drive(tracker: Tracker, world: World, head: Header) -> tuple[Event, ...]:
    answer = tracker.offer(head)
    while isinstance(answer, Wants):
        answer = tracker.offer(world.all[answer.hash])
    return answer


steps = st.lists(st.tuples(st.integers(0, WINDOW - 3), st.integers(0, 6)), max_size=40)


@given(steps, st.integers(0, 4))
def test_events_always_lead_to_the_head(moves: list[tuple[int, int]], depth: int) -> None:
    world, tracker = World(), Tracker(WINDOW)
    world.step(0, WINDOW)
    for index in range(WINDOW + 1):
        drive(tracker, world, world.chain[index])
    story = [each.ref.hash for each in world.chain]
    finals: list[int] = []
    for back, grow in moves:
        head = world.step(back, grow)
        if len(world.chain) < WINDOW:
            return
        events = drive(tracker, world, head)
        if any(isinstance(event, DeepReorg) and not event.tracked for event in events):
            assert tracker.head is None
            return
        retracting = True
        broken = any(isinstance(event, DeepReorg) for event in events)
        for event in events:
            if isinstance(event, Retract):
                assert retracting, "every Retract comes before the first Advance"
                assert story.pop() == event.ref.hash
            elif isinstance(event, Advance):
                retracting = False
                assert event.header.parent == story[-1]
                story.append(event.ref.hash)
        assert tracker.head == head
        assert story[-1] == head.ref.hash
        final = tracker.at_depth(depth)
        assert final is not None
        settled = tracker.finalize(final)
        finals += [event.ref.number for event in settled if isinstance(event, Finalized)]
        assert finals == sorted(set(finals))
        if broken:
            return


def test_a_fork_below_the_window_is_lost() -> None:
    world, tracker = World(), Tracker(WINDOW)
    for _ in range(3 * WINDOW):
        drive(tracker, world, world.step(0, 1))
    events = drive(tracker, world, world.step(WINDOW + 1, WINDOW + 2))
    assert [type(event) for event in events] == [DeepReorg]
    assert tracker.head is None


def test_a_final_block_that_contradicts_the_window_is_a_deep_reorg() -> None:
    world, tracker = World(), Tracker(WINDOW)
    for _ in range(8):
        drive(tracker, world, world.step(0, 1))
    alien = header(4, b"\x01" * 32, 9)
    assert tracker.finalize(alien) == (DeepReorg(alien.ref, tracked=True),)
    assert tracker.finalize(alien) == (), "it is said once"
    assert tracker.finalize(header(99, bytes(32), 9)) == ()
    assert tracker.finalize(world.chain[5]) == (Finalized(world.chain[5].ref),)
    assert tracker.finalize(world.chain[4]) == ()
