"""Prometheus instruments behind one registry per node, so tests and clusters never share a counter.

A room asks for its instruments by name once; asking twice returns the same one. Names start with
`keeper_`, end with their unit, and carry a help text that docs/metrics.md is generated from.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The instruments of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Return a counter; `name` ends with `_total`."""
        if name not in self._counters:
            self._counters[name] = Counter(name, text, labels, registry=self.registry)
        return self._counters[name]

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Return a gauge."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, text, labels, registry=self.registry)
        return self._gauges[name]

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        """Return a histogram with the given bucket bounds."""
        if name not in self._histograms:
            self._histograms[name] = Histogram(
                name, text, labels, buckets=buckets, registry=self.registry
            )
        return self._histograms[name]

    def exposition(self) -> bytes:
        """Return the text a Prometheus server scrapes."""
        return generate_latest(self.registry)
