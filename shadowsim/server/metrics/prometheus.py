"""Prometheus metrics of the server, in the text format that Prometheus scrapes.

Counters run from the server's start and never decrease. A request keeps the role that its variant had when it came:
what a promoted variant served as a shadow stays under role="shadow". Counters of events that have not happened yet are
zero instead of absent, since a rate does not include the event with which its counter appears.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from shadowsim.frames import LOST_CAUSES, SERVER_LAG
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.counts import BOUNDS_S, Totals
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.loop_clock import LoopClock

CONTENT_TYPE = CONTENT_TYPE_LATEST
_LABELS = ("endpoint", "variant", "role")


def prometheus_text(
    endpoints: Mapping[str, LiveEndpoint], captures: CaptureWriter, loop_clock: LoopClock, n_held: int = 0
) -> bytes:
    """Return all metrics in Prometheus's text format; `n_held` are the bytes of streams that wait for callers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ServerCollector(endpoints, captures, loop_clock, n_held))
    return generate_latest(registry)


class _ServerCollector(Collector):
    def __init__(
        self, endpoints: Mapping[str, LiveEndpoint], captures: CaptureWriter, loop_clock: LoopClock, n_held: int
    ):
        self._endpoints, self._captures, self._loop_clock, self._n_held = endpoints, captures, loop_clock, n_held

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families, with samples per variant and role, or per endpoint."""
        invocations = CounterMetricFamily("shadowsim_invocations", "Requests (for a shadow: copies)", labels=_LABELS)
        errors = CounterMetricFamily("shadowsim_model_errors", "Responses other than 2xx", labels=_LABELS)
        lost = CounterMetricFamily(
            "shadowsim_copies_lost", "Copies that were lost, by cause", labels=(*_LABELS, "cause")
        )
        captured = CounterMetricFamily("shadowsim_captured_records", "Captured invocations", labels=_LABELS)
        latency = HistogramMetricFamily(
            "shadowsim_model_latency_seconds", "ModelLatency: response time of the model", labels=_LABELS
        )
        for name, live in sorted(self._endpoints.items()):
            for variant, series in sorted(live.series.items()):
                present = "shadow" if variant in live.shadows else "source"
                for role, totals in sorted({present: Totals(), **series.totals}.items()):
                    labels = name, variant, role
                    invocations.add_metric(labels, totals.n)
                    errors.add_metric(labels, totals.model_errors)
                    captured.add_metric(labels, totals.captured_records)
                    for cause in sorted({*totals.lost, *((*LOST_CAUSES, SERVER_LAG) if role == "shadow" else ())}):
                        lost.add_metric((*labels, cause), totals.lost.get(cause, 0))
                    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
                    upto = map(float, accumulate(totals.below))
                    latency.add_metric(labels, list(zip(bounds, upto, strict=True)), totals.latency_sum)
        yield from (invocations, errors, lost, captured, latency)
        unanswered = GaugeMetricFamily(
            "shadowsim_unanswered_requests", "Requests waiting or in service", labels=_LABELS
        )
        for name, live in sorted(self._endpoints.items()):
            for pool in live.serving():
                labels = name, pool.variant.name, "shadow" if pool.copies else "source"
                unanswered.add_metric(labels, sum(pool.outstanding))
        yield unanswered
        captures_lost = CounterMetricFamily("shadowsim_captures_lost", "Capture lines lost", labels=("endpoint",))
        for name in sorted({*self._endpoints, *self._captures.n_lost}):
            captures_lost.add_metric((name,), self._captures.n_lost.get(name, 0))
        yield captures_lost
        lag = CounterMetricFamily("shadowsim_loop_lag_seconds", "Time for which the server's event loop was late")
        lag.add_metric((), self._loop_clock.total_s)
        yield lag
        held = GaugeMetricFamily("shadowsim_stream_held_bytes", "Bytes of streamed parts that wait for slow callers")
        held.add_metric((), self._n_held)
        yield held
