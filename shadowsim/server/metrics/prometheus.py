"""Prometheus metrics of the server, in the text format that Prometheus scrapes.

Counters run from the server's start and never decrease. A request keeps the role that its variant had when it came:
what a promoted variant served as a shadow stays under role="shadow". Counters of events that have not happened yet are
zero instead of absent, since a rate does not include the event with which its counter appears.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from shadowsim.frames import LOST_CAUSES, SERVER_CRASH, SERVER_LAG
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.counts import BOUNDS_S, Totals
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.loop_clock import LoopClock

CONTENT_TYPE = CONTENT_TYPE_LATEST
_LABELS = ("endpoint", "variant", "role")
_CAUSES = (*LOST_CAUSES, SERVER_LAG, SERVER_CRASH)
SLICE_ENDPOINTS = 16


def prometheus_slices(
    endpoints: Mapping[str, LiveEndpoint], captures: CaptureWriter, loop_clock: LoopClock, n_held: int = 0
) -> Iterator[bytes]:
    """Yield the page of all metrics in Prometheus's text format, in slices that take a few ms each.

    `n_held` are the bytes of streams that wait for callers.
    """
    lives = sorted(endpoints.items())
    groups = [lives[i : i + SLICE_ENDPOINTS] for i in range(0, len(lives), SLICE_ENDPOINTS)] or [[]]
    names = [name for name, _ in lives]
    names += sorted(captures.n_lost.keys() - endpoints.keys())
    for samples_of in (_invocations, _errors, _lost, _captured, _latency, _unanswered):
        for i, group in enumerate(groups):
            yield family_text(samples_of(group), is_first=i == 0)
    for i in range(0, max(len(names), 1), 16 * SLICE_ENDPOINTS):
        captures_lost = CounterMetricFamily("shadowsim_captures_lost", "Capture lines lost", labels=("endpoint",))
        for name in names[i : i + 16 * SLICE_ENDPOINTS]:
            captures_lost.add_metric((name,), captures.n_lost.get(name, 0))
        yield family_text(captures_lost, is_first=i == 0)
    lag = CounterMetricFamily("shadowsim_loop_lag_seconds", "Time for which the server's event loop was late")
    lag.add_metric((), loop_clock.total_s)
    yield family_text(lag)
    held = GaugeMetricFamily("shadowsim_stream_held_bytes", "Bytes of streamed parts that wait for slow callers")
    held.add_metric((), n_held)
    yield family_text(held)


class _OneFamily:
    """A registry of one metric family."""

    def __init__(self, family: Metric):
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        return (self._family,)


def family_text(family: Metric, *, is_first: bool = True) -> bytes:
    """Return a family's lines; those that describe it only for the first of its slices."""
    text = generate_latest(_OneFamily(family))  # which asks for nothing but `collect`
    if is_first:
        return text
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))


_Group = Sequence[tuple[str, LiveEndpoint]]


def _totals(group: _Group) -> Iterator[tuple[tuple[str, str, str], Totals]]:
    """Yield the labels and totals of each variant and role."""
    for name, live in group:
        for variant, series in sorted(live.series.items()):
            present = "shadow" if variant in live.shadows else "source"
            for role, totals in sorted({present: Totals(), **series.totals}.items()):
                yield (name, variant, role), totals


def _invocations(group: _Group) -> Metric:
    family = CounterMetricFamily("shadowsim_invocations", "Requests (for a shadow: copies)", labels=_LABELS)
    for labels, totals in _totals(group):
        family.add_metric(labels, totals.n)
    return family


def _errors(group: _Group) -> Metric:
    family = CounterMetricFamily("shadowsim_model_errors", "Responses other than 2xx", labels=_LABELS)
    for labels, totals in _totals(group):
        family.add_metric(labels, totals.model_errors)
    return family


def _lost(group: _Group) -> Metric:
    labels_of_lost = (*_LABELS, "cause")
    family = CounterMetricFamily("shadowsim_copies_lost", "Copies that were lost, by cause", labels=labels_of_lost)
    for labels, totals in _totals(group):
        for cause in sorted({*totals.lost, *(_CAUSES if labels[2] == "shadow" else ())}):
            family.add_metric((*labels, cause), totals.lost.get(cause, 0))
    return family


def _captured(group: _Group) -> Metric:
    family = CounterMetricFamily("shadowsim_captured_records", "Captured invocations", labels=_LABELS)
    for labels, totals in _totals(group):
        family.add_metric(labels, totals.captured_records)
    return family


def _latency(group: _Group) -> Metric:
    name, text = "shadowsim_model_latency_seconds", "ModelLatency: response time of the model"
    family = HistogramMetricFamily(name, text, labels=_LABELS)
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    for labels, totals in _totals(group):
        upto = map(float, accumulate(totals.below))
        family.add_metric(labels, list(zip(bounds, upto, strict=True)), totals.latency_sum)
    return family


def _unanswered(group: _Group) -> Metric:
    family = GaugeMetricFamily("shadowsim_unanswered_requests", "Requests waiting or in service", labels=_LABELS)
    for name, live in group:
        for pool in live.serving():
            labels = name, pool.variant.name, "shadow" if pool.copies else "source"
            family.add_metric(labels, sum(pool.outstanding))
    return family
