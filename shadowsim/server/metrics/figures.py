"""CloudWatch's metrics of a variant: what each is over some minutes, from what was counted in them.

Namespace `AWS/SageMaker`: what callers and copies met. Latencies are in microseconds; percentiles, which only
ModelLatency has, are exact to within a bucket of 0.8 %. A minute without requests has zeros.

Namespace `/aws/sagemaker/Endpoints`: CPUUtilization, the sum over cores (0 to 100 x vCPU), one sample an instance and
minute. Nothing here has a processor to measure, but a simulated instance knows how long each of its workers was busy;
where an instance has as many workers as vCPUs and no accelerator, a busy worker is a busy core, and that is what is
said. What a platform and a container need besides is not in it. A minute is published once it is over; the first one
counts as if the variant had been there all along. Containers behind URLs, accelerators, memory and disks have no
figures: nothing here knows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shadowsim.server.data_plane.counts import MINUTE_S, Series, Tally, quantile

SAGEMAKER, INSTANCES = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
_US = 1e6


@dataclass(frozen=True, slots=True)
class Figures:
    """A metric over a period.

    Attributes
    ----------
    n : int
        Its samples.
    total, least, most : float
    counts : mapping of int to int
        Latencies by bucket, for percentiles; empty for other metrics.
    """

    n: int
    total: float
    least: float
    most: float
    counts: Mapping[int, int] = field(default_factory=dict)

    def value(self, statistic: str) -> float | None:
        """Return a statistic, "Average" or "p99"; None for a percentile where only sums are known."""
        match statistic:
            case "SampleCount":
                return float(self.n)
            case "Sum":
                return self.total
            case "Average":
                return self.total / self.n
            case "Minimum":
                return self.least
            case "Maximum":
                return self.most
        if not self.counts:
            return None
        return quantile(self.counts, float(statistic[1:]) / 100.0, self.least / _US, self.most / _US) * _US


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its unit, and its figures over a minute, None where it has no sample then.

    Attributes
    ----------
    whole : bool
        Whether a minute has none before it is over.
    """

    unit: str
    figures: Callable[[Tally], Figures | None]
    whole: bool = False


def _flags(count: int, n: int) -> Figures:
    """A metric that is 1 for some of n requests and 0 for the others; 0 once where there were none."""
    return Figures(max(n, 1), float(count), float(n > 0 and count == n), float(count > 0))


def _per_instance(tally: Tally) -> Figures:
    one = tally.n_per_instance / tally.n if tally.n else 0.0
    return Figures(max(tally.n, 1), tally.n_per_instance, one, one)


def _sampled(n: int, total: float, least: float, most: float, unit: float, counts: Mapping[int, int]) -> Figures | None:
    return Figures(n, total * unit, least * unit, most * unit, counts) if n else None


def _cores(tally: Tally) -> Figures | None:
    if tally.n_cores is None or not tally.n_instances:
        return None
    # Of a pool that was replaced within the minute, both fleets worked.
    busy = [min(tally.worked.get(i, 0.0) / MINUTE_S, tally.n_cores) * 100.0 for i in range(tally.n_instances)]
    return Figures(len(busy), math.fsum(busy), min(busy), max(busy))


# By namespace and name, in the order of AWS's page.
METRICS: Mapping[tuple[str, str], Metric] = {
    (SAGEMAKER, "Invocations"): Metric("None", lambda t: _flags(t.n, t.n)),
    (SAGEMAKER, "InvocationsPerInstance"): Metric("None", _per_instance),
    (SAGEMAKER, "ModelLatency"): Metric(
        "Microseconds",
        lambda t: _sampled(t.n_latency, t.latency_sum, t.latency_min, t.latency_max, _US, t.seen_counts()),
    ),
    (SAGEMAKER, "OverheadLatency"): Metric(
        "Microseconds",
        lambda t: _sampled(t.n_overhead, t.overhead_sum, t.overhead_min, t.overhead_max, _US, {}),
    ),
    (SAGEMAKER, "Invocation4XXErrors"): Metric("None", lambda t: _flags(t.errors_4xx, t.n)),
    (SAGEMAKER, "Invocation5XXErrors"): Metric("None", lambda t: _flags(t.errors_5xx, t.n)),
    (SAGEMAKER, "InvocationModelErrors"): Metric("None", lambda t: _flags(t.model_errors, t.n)),
    (SAGEMAKER, "ConcurrentRequestsPerModel"): Metric(
        "None", lambda t: _sampled(t.n_concurrent, t.concurrent_sum, t.concurrent_min, t.concurrent_max, 1.0, {})
    ),
    (INSTANCES, "CPUUtilization"): Metric("Percent", _cores, whole=True),
}


def of_series(series: Series) -> list[tuple[str, str]]:
    """Return namespace and name of each metric that a variant has."""
    return [key for key in METRICS if key[0] == SAGEMAKER or series.knows_cores]


def by_period(series: Series, metric: Metric, first: int, last: int, length: int, now_s: float) -> dict[float, Figures]:
    """Return a metric's figures by the start of each period that has some, in order.

    Parameters
    ----------
    series : Series
        By the minute.
    metric : Metric
    first, last : int
        Minutes since 1970, the last one left out.
    length : int
        Of a period, in minutes; the first begins with `first`.
    now_s : float
        Seconds since 1970.
    """
    grouped: dict[int, list[Figures]] = {}
    end = min(last, math.floor(now_s / MINUTE_S)) if metric.whole else last
    for number in sorted(n for n in series.tallies if first <= n < end):
        figures = metric.figures(series.tallies[number])
        if figures is not None:
            grouped.setdefault((number - first) // length, []).append(figures)
    return {(first + group * length) * MINUTE_S: _joined(parts) for group, parts in grouped.items()}


def _joined(parts: Sequence[Figures]) -> Figures:
    counts: dict[int, int] = {}
    for part in parts:
        for bucket, count in part.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    least, most = min(part.least for part in parts), max(part.most for part in parts)
    return Figures(sum(part.n for part in parts), math.fsum(part.total for part in parts), least, most, counts)
