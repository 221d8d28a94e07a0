"""A policy over a record of a node: it wins what it would have won, and pays that price."""

from pathlib import Path

import msgspec
import pytest

from policies.api import Act, MarketView, Wide
from policies.child import PolicySpec
from policies.liquidation import Liquidation
from policies.record import (
    Awarded,
    Bid,
    Book,
    Decided,
    RecordError,
    RecordFolder,
    RecordReader,
    RecordWriter,
    Viewed,
    state_hash,
    view_hash,
)
from policies.replay import compare, replay, story_of
from policies.rerun import count_views, is_recorded, rerun_policy
from tests.support.policy_views import market_view, plugin

ME, RIVAL = b"\x01" * 20, b"\x02" * 20
SPEC = PolicySpec("liquidation", "policies.liquidation:Liquidation")


def ours(view: MarketView) -> list[Act]:
    decisions, _ = Liquidation().decide(view, b"")
    return [one for one in decisions if isinstance(one, Act)]


def written(path: Path, *entries: Viewed | Bid | Awarded) -> Path:
    with RecordWriter(path, {"keeper": ME.hex()}) as record:
        for entry in entries:
            record.append(entry)
    return path


@pytest.mark.parametrize(
    ("margin", "executed", "lost"), [(-1, 1, 0), (0, 1, 0), (1, 0, 1)], ids=["under", "tie", "over"]
)
async def test_the_best_bid_heard_is_the_rival(
    tmp_path: Path, margin: int, executed: int, lost: int
) -> None:
    view = market_view(1, accounts=1)
    (act,) = ours(view)
    rival = act.price + margin
    path = written(
        tmp_path / "a.fkrec",
        Viewed(view),
        Bid(1, act.task, act.price * 3, ME),
        Bid(1, act.task, rival // 2, RIVAL),
        Bid(1, act.task, rival, RIVAL),
        Awarded(2, act.task, (RIVAL,), 1),
    )
    score = await rerun_policy(SPEC, path, count_views(path, ""))
    assert (score.executed, score.lost) == (executed, lost)
    assert score.paid == (rival if executed else 0)
    assert score.net == (act.profit - rival if executed else 0)
    assert score.regret > 0


async def test_an_award_nobody_was_heard_for_has_its_own_price(tmp_path: Path) -> None:
    view = market_view(1, accounts=1)
    (act,) = ours(view)
    path = written(tmp_path / "a.fkrec", Viewed(view), Awarded(2, act.task, (RIVAL,), 77))
    assert (await rerun_policy(SPEC, path, 1)).paid == 77


async def test_a_reserve_is_paid_at_least_and_never_undercut(tmp_path: Path) -> None:
    view = market_view(1, accounts=1)
    (act,) = ours(view)
    task = msgspec.structs.replace(view.tasks[0], reserve=act.price + 1)
    dear = msgspec.structs.replace(view, tasks=(task,))
    path = written(tmp_path / "a.fkrec", Viewed(dear), Awarded(2, act.task, (RIVAL,), 1))
    score = await rerun_policy(PolicySpec("Honest", plugin("Honest")), path, 1)
    assert (score.executed, score.lost) == (0, 1)


async def test_on_a_venue_the_first_act_counts_and_costs_no_price(tmp_path: Path) -> None:
    view = market_view(1, accounts=2)
    path = written(
        tmp_path / "a.fkrec", Viewed(view, "aave"), Viewed(market_view(9)), Viewed(view, "aave")
    )
    assert is_recorded(path)
    assert count_views(path, "aave") == 2
    score = await rerun_policy(SPEC, path, 2, "aave")
    assert (score.ticks, score.tasks, score.executed, score.paid) == (2, 2, 2, 0)
    assert score.net == sum(act.profit for act in ours(view))
    with pytest.raises(RecordError, match="'aave'"):
        count_views(path, "perp")


async def test_a_shadow_looks_at_the_networks_tasks_and_not_at_other_venues(tmp_path: Path) -> None:
    view, other = market_view(1, accounts=1), market_view(1, accounts=2)
    (act,) = ours(view)
    path = written(
        tmp_path / "a.fkrec",
        Viewed(other, "aave"),
        Viewed(view),
        Viewed(other, "aave"),
        Awarded(2, act.task, (RIVAL,), act.price - 1),
    )
    found = await compare(SPEC, iter(RecordReader(path)))
    assert (found.views, found.bids, found.would_win) == (1, 1, 1)
    story = story_of(path, act.task)
    assert story.awards[0].price == act.price - 1


def test_a_story_names_the_view_of_its_own_desk(tmp_path: Path) -> None:
    view, other = market_view(1, accounts=1), market_view(1, accounts=2)
    (act,) = ours(view)
    path = tmp_path / "a.fkrec"
    with RecordWriter(path, {}) as record:
        record.append(Viewed(view))
        record.append(Viewed(other, "aave"))
        record.append(Decided(1, "x", "x", (act,), b""))
    assert story_of(path, act.task).views == ((1, view_hash(view)),)


def test_a_converted_record_is_none_of_a_node(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "a.fkrec") as record:
        record.append(Book(market_view(1)))
    assert not is_recorded(tmp_path / "a.fkrec")


async def test_state_goes_on_across_files_and_restarts(tmp_path: Path) -> None:
    """A record that begins in the middle of a policy's life replays, because it says its state."""
    folder = RecordFolder(tmp_path, {"keeper": ME.hex()}, max_bytes=6_000)
    state = b""
    for number in range(1, 7):
        view = market_view(number, accounts=2)
        before, state = state, number.to_bytes(8, "big")
        folder.append(Viewed(view, "", before))
        acts = tuple(Act(task.task, number, Wide(1), 1000, "test") for task in view.tasks)
        folder.append(Decided(number, "Carried", "Carried", acts, state_hash(state)))
    folder.close()
    files = folder.files()
    assert len(files) > 1
    spec = PolicySpec("Carried", plugin("Carried"))
    for file in files:
        views = [one for one in RecordReader(file) if isinstance(one, Viewed)]
        assert [one.state is None for one in views] == [False] + [True] * (len(views) - 1)
        found = await replay(spec, file)
        assert found.views == len(views)
        assert found.different == ()


def test_a_damaged_record_is_set_aside_and_kept(tmp_path: Path) -> None:
    folder = RecordFolder(tmp_path, {})
    for number in range(3):
        folder.append(Bid(number, b"t" * 32, 1))
    folder.close()
    (file,) = folder.files()
    bent = bytearray(file.read_bytes())
    bent[len(bent) // 2] ^= 1
    file.write_bytes(bytes(bent))
    again = RecordFolder(tmp_path, {})
    again.append(Bid(9, b"t" * 32, 1))
    again.close()
    assert "byte" in again.damaged
    assert file.read_bytes() == bytes(bent)
    assert [one.view for one in RecordReader(again.files()[-1]) if isinstance(one, Bid)] == [9]
