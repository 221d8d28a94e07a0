"""The best single path, by exact arithmetic: what a plan must never be worse than.

    origin ──gives──▶ places reached in one hop ──gives──▶ in two ──▶ … at most `MAX_HOPS`
                      each keeps its best amount, and the path that brought it

The optimiser looks at all flows at once. Where the amount is small beside the arbitrage between
pools, its flow is mostly cycles that are cut, and what is left may be nothing.
"""

from dataclasses import dataclass

from keeper.route.graph import Edge, Graph, Lane, Place, edges_of, free, gives

MAX_HOPS = 6
"""Two lanes with a swap before, between and after, and one to spare."""


@dataclass(frozen=True, slots=True)
class _Label:
    amount: int
    done_ms: int
    path: tuple[Edge, ...]
    groups: tuple[tuple[bytes, int], ...]

    def along(self, edge: Edge) -> "_Label":
        """Return the label at the end of one more edge."""
        groups = dict(self.groups)
        part = min(self.amount, free(edge, groups))
        if isinstance(edge.way, Lane) and edge.way.verifier in groups:
            groups[edge.way.verifier] -= part
        done = self.done_ms + edge.latency_ms
        return _Label(gives(edge, part), done, (*self.path, edge), tuple(groups.items()))


def best_path(
    graph: Graph,
    ends: tuple[Place, Place],
    amount: int,
    deadline_ms: int = 0,
    exposure: tuple[tuple[bytes, int], ...] = (),
) -> tuple[Edge, ...]:
    """Return the path that delivers most of those found; empty where there is none in time."""
    origin, destination = ends
    out: dict[Place, list[Edge]] = {}
    for way in (*graph.swaps, *graph.lanes):
        for edge in edges_of(way):
            out.setdefault(edge.origin, []).append(edge)
    best = {origin: _Label(amount, 0, (), exposure)}
    fresh = {origin}
    for _ in range(MAX_HOPS):
        found: dict[Place, _Label] = {}
        for place in sorted(fresh - {destination}):
            label = best[place]
            seen = {origin, *(edge.destination for edge in label.path)}
            for edge in out.get(place, ()):
                if edge.destination in seen:
                    continue
                tried = label.along(edge)
                known = found.get(edge.destination, best.get(edge.destination))
                late = 0 < deadline_ms < tried.done_ms
                if not late and tried.amount > (known.amount if known else 0):
                    found[edge.destination] = tried
        best |= found
        fresh = set(found)
    return best[destination].path if destination in best else ()
