"""What serves, as Prometheus scrapes it.

Counters go on from the server's start; they are sums over the tallies, and lose what the oldest of them lose after
30 days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from shadowsim.server.captures import Captures
from shadowsim.server.live import LiveEndpoint
from shadowsim.server.series import edge_of

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_LABELS = ("endpoint", "variant", "role")


def prometheus_text(endpoints: Mapping[str, LiveEndpoint], captures: Captures) -> bytes:
    """Return all metrics in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(endpoints, captures))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, endpoints: Mapping[str, LiveEndpoint], captures: Captures):
        self._endpoints, self._captures = endpoints, captures

    def collect(self) -> Iterable[Metric]:
        """Make the families, each with a sample a variant."""
        invocations = CounterMetricFamily("shadowsim_invocations", "Requests, copies for a shadow", labels=_LABELS)
        errors = CounterMetricFamily("shadowsim_model_errors", "Answers but 2XX", labels=_LABELS)
        lost = CounterMetricFamily("shadowsim_copies_lost", "Copies not made", labels=(*_LABELS, "cause"))
        captured = CounterMetricFamily("shadowsim_captured_records", "Captured invocations", labels=_LABELS)
        latency = HistogramMetricFamily("shadowsim_model_latency_seconds", "ModelLatency", labels=_LABELS)
        for name, live in sorted(self._endpoints.items()):
            for variant, series in sorted(live.series.items()):
                labels = name, variant, "shadow" if variant in live.shadows else "source"
                tallies = list(series.tallies.values())
                invocations.add_metric(labels, sum(t.n for t in tallies))
                errors.add_metric(labels, sum(t.model_errors for t in tallies))
                captured.add_metric(labels, sum(t.captured_records for t in tallies))
                for cause in sorted({cause for t in tallies for cause in t.lost}):
                    lost.add_metric((*labels, cause), sum(t.lost.get(cause, 0) for t in tallies))
                below = [0] * (len(_BOUNDS_S) + 1)
                for tally in tallies:
                    for bucket, count in tally.seen_counts().items():
                        edge = edge_of(bucket + 1)
                        below[next((i for i, b in enumerate(_BOUNDS_S) if edge <= b), len(_BOUNDS_S))] += count
                upto = [sum(below[: i + 1]) for i in range(len(below))]
                bounds = [*(f"{b:g}" for b in _BOUNDS_S), "+Inf"]
                total_s = sum(t.latency_sum for t in tallies)
                latency.add_metric(labels, list(zip(bounds, map(float, upto), strict=True)), total_s)
        yield from (invocations, errors, lost, captured, latency)
        unanswered = GaugeMetricFamily("shadowsim_unanswered_requests", "Waiting or in service", labels=_LABELS)
        for name, live in sorted(self._endpoints.items()):
            for pool in live.serving():
                labels = name, pool.variant.name, "shadow" if pool.copies else "source"
                unanswered.add_metric(labels, sum(pool.outstanding))
        yield unanswered
        captures_lost = CounterMetricFamily("shadowsim_captures_lost", "Capture lines lost", labels=("endpoint",))
        for name, n in sorted(self._captures.n_lost.items()):
            captures_lost.add_metric((name,), n)
        yield captures_lost
