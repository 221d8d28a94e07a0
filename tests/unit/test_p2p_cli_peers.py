"""The table of `keeper peers`."""

from typing import Any

from keeper.cli.peers import COLUMNS, peer_rows


def peer(**changes: Any) -> dict[str, Any]:
    return {
        "peer": "12D3KooWa", "role": "committee", "connected": True, "round_trip_ms": 1.25,
        "score": 0.0, "standing": "good", "drops": {},
    } | changes  # fmt: skip


def test_members_come_first_and_drops_are_words() -> None:
    rows = peer_rows(
        [
            peer(peer="c", role="follower", connected=False, round_trip_ms=None),
            peer(peer="b", standing="refused", score=17.5, drops={"stale": 1, "malformed": 3}),
            peer(peer="a", lateness_ms=20.0),
        ]
    )
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert rows[0][2:] == ("up", "1.2 ms", "20.0 ms", "0.0", "-")
    assert rows[1][2:] == ("refused", "1.2 ms", "-", "17.5", "malformed 3, stale 1")
    assert rows[2][2:] == ("down", "-", "-", "0.0", "-")
    assert all(len(row) == len(COLUMNS) for row in rows)
