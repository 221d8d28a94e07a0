"""A table is what a plain dictionary of the last event per key would say, at every version."""

from hypothesis import given
from hypothesis import strategies as st

from keeper.observe.rows import PIECE, Rows
from keeper.observe.table import EMPTY, Log, Table

ADDRESSES = [bytes([n]) * 20 for n in (1, 2)]
TOPICS = [bytes([n]) * 32 for n in (3, 4)]
word = st.integers(0, 40).map(lambda n: n.to_bytes(32, "big"))
logs = st.builds(
    Log,
    st.sampled_from(ADDRESSES),
    st.tuples(st.sampled_from(TOPICS), word)
    | st.tuples(st.sampled_from(TOPICS), word, word)
    | st.tuples(st.sampled_from(TOPICS))
    | st.just(()),
    st.binary(max_size=3),
)


def naive(model: dict[bytes, bytes], prefix: bytes) -> list[tuple[tuple[bytes, ...], bytes]]:
    found = sorted((key[52:], data) for key, data in model.items() if key[:52] == prefix)
    return [(tuple(k[i : i + 32] for i in range(0, len(k), 32)), data) for k, data in found]


@given(st.lists(st.lists(logs, max_size=30), max_size=8))
def test_every_version_reads_as_a_dictionary_would(blocks: list[list[Log]]) -> None:
    table, model = EMPTY, dict[bytes, bytes]()
    kept: list[tuple[Table, dict[bytes, bytes]]] = []
    for block in blocks:
        table = table.apply(block)
        model = model | {log.key: log.data for log in block}
        kept.append((table, model))
    for version, expected in kept:
        assert len(version) == len(expected)
        for address in ADDRESSES:
            for topic in TOPICS:
                read = list(version.records(address, topic))
                assert read == naive(expected, address + topic)
                for topics, data in read:
                    assert version.get(address, topic, *topics) == data
    if kept:
        assert table.root == EMPTY.apply(log for block in blocks for log in block).root


@given(st.lists(st.sets(st.integers(0, 2_000), max_size=400), max_size=5))
def test_pieces_stay_small_and_in_order(changes: list[set[int]]) -> None:
    rows, model = Rows(), dict[tuple[bytes, ...], bytes]()
    for turn, numbers in enumerate(changes):
        new = {(n.to_bytes(32, "big"),): bytes([turn]) for n in numbers}
        rows, model = rows.updated(new), model | new
        assert list(rows) == sorted(model.items())
        assert all(0 < len(piece) <= 2 * PIECE for piece in rows.pieces)


def test_a_change_copies_the_pieces_it_falls_into() -> None:
    rows = Rows().updated({(n.to_bytes(32, "big"),): b"" for n in range(100 * PIECE)})
    after = rows.updated({((7 * PIECE).to_bytes(32, "big"),): b"new"})
    shared = {id(piece) for piece in rows.pieces} & {id(piece) for piece in after.pieces}
    assert len(rows.pieces) - len(shared) == 1
