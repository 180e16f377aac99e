"""Counts the requests of a variant by period, and builds rows of `windows` and `latency` from that.

Who measures a real service keeps one record per period: the live server adds request by request, a load run fills them
from its rows at the end. Latencies are counts per bucket of the simulator, 0.8 % wide.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from shadowsim.frames import LATENCY, PERCENTILES, ROLES, SHORT_NAMES, TIME_COLUMNS, US_PER_S, build
from shadowsim.histogram import bucket_of, edge_of, quantile_within


@dataclass(slots=True)
class TimeCounts:
    """Times of some kind in a period: number, sum, extremes in seconds, and numbers by bucket."""

    n: int = 0
    total_s: float = 0.0
    least_s: float = math.inf
    most_s: float = -math.inf
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Count a time; NaN is none."""
        if math.isnan(seconds):
            return
        self.n += 1
        self.total_s += seconds
        self.least_s, self.most_s = min(self.least_s, seconds), max(self.most_s, seconds)
        bucket = bucket_of(seconds)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def columns(self, name: str) -> dict[str, object]:
        """Return the columns of `frames.TOKEN_WINDOWS` whose names begin so, in microseconds."""
        mean, least, most = (
            (self.total_s / self.n, self.least_s, self.most_s) if self.n else (math.nan, math.nan, math.nan)
        )
        return {
            f"{name}_SampleCount": self.n,
            f"{name}_Average": mean * US_PER_S,
            f"{name}_Minimum": least * US_PER_S,
            f"{name}_Maximum": most * US_PER_S,
            **{f"{name}_{p}": quantile_within(self.buckets, q, least, most) * US_PER_S for p, q in PERCENTILES.items()},
        }


@dataclass(slots=True)
class TokenCounts:
    """Counts of one period of a service in tokens; the samples are of running sequences and of cache use.

    Attributes
    ----------
    times : dict of str to TimeCounts
        By measure of `frames.SHORT_NAMES`.
    """

    times: dict[str, TimeCounts] = field(default_factory=lambda: {measure: TimeCounts() for measure in SHORT_NAMES})
    output_tokens: int = 0
    prefill_tokens: int = 0
    preemptions: int = 0
    n_samples: int = 0
    running_sum: int = 0
    running_max: int = 0
    cache_sum: float = 0.0
    cache_max: float = 0.0

    def sample(self, batches: Sequence[tuple[int, float]]) -> None:
        """Record of each instance the running sequences and the share of its cache that they hold."""
        for running, cache_use in batches:
            self.n_samples += 1
            self.running_sum += running
            self.running_max = max(self.running_max, running)
            self.cache_sum += cache_use
            self.cache_max = max(self.cache_max, cache_use)

    def columns(self) -> dict[str, object]:
        """Return the columns of `frames.TOKEN_WINDOWS`, without those of goodput."""
        n = self.n_samples
        return {
            **{
                name: value
                for measure, times in self.times.items()
                for name, value in times.columns(TIME_COLUMNS[measure]).items()
            },
            "output_tokens": self.output_tokens,
            "prefill_tokens": self.prefill_tokens,
            "preemptions": self.preemptions,
            "running_sequences_mean": self.running_sum / n if n else math.nan,
            "running_sequences_maximum": self.running_max if n else math.nan,
            "cache_use_mean": self.cache_sum / n if n else math.nan,
            "cache_use_maximum": self.cache_max if n else math.nan,
        }


@dataclass(slots=True)
class StreamCounts:
    """Counts of the streamed answers of a period.

    Attributes
    ----------
    n, broken : int
        Streams that began, and those of them that failed later.
    model, caller, overhead : TimeCounts
        Time to the first part: at the model, at the caller, and the difference.
    """

    n: int = 0
    broken: int = 0
    model: TimeCounts = field(default_factory=TimeCounts)
    caller: TimeCounts = field(default_factory=TimeCounts)
    overhead: TimeCounts = field(default_factory=TimeCounts)


@dataclass(slots=True)
class PeriodCounts:
    """Counts of one period, with latencies in seconds.

    `lost` counts lost copies by cause, and `worked` seconds of work by instance. `n_cores` is the number of cores per
    instance; None if an instance's workers are not its cores, or before the first sample. `tokens` is None but for a
    service in tokens, and `streams` without streamed answers.
    """

    n: int = 0
    n_per_instance: float = 0.0
    n_instances: int = 0
    errors_4xx: int = 0
    errors_5xx: int = 0
    model_errors: int = 0
    n_latency: int = 0
    latency_sum: float = 0.0
    latency_min: float = math.inf
    latency_max: float = -math.inf
    n_overhead: int = 0
    overhead_sum: float = 0.0
    overhead_min: float = math.inf
    overhead_max: float = -math.inf
    n_wait: int = 0
    wait_sum: float = 0.0
    work_arrived_s: float = 0.0
    worked: dict[int, float] = field(default_factory=dict)
    n_cores: int | None = None
    n_concurrent: int = 0
    concurrent_sum: int = 0
    concurrent_min: float = math.inf
    concurrent_max: float = -math.inf
    captured_records: int = 0
    captured_bytes: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    buckets: dict[int, int] | None = field(default_factory=dict)
    packed: tuple[array[int], array[int]] | None = None
    tokens: TokenCounts | None = None
    streams: StreamCounts | None = None

    @property
    def worked_s(self) -> float:
        """Seconds of work of all workers of all instances."""
        return math.fsum(self.worked.values())

    def in_tokens(self) -> TokenCounts:
        """Return the counts of a service in tokens, which are made if need be."""
        if self.tokens is None:
            self.tokens = TokenCounts()
        return self.tokens

    def sample(self, outstanding: Sequence[int], n_cores: int | None = None) -> None:
        """Record the number of waiting and served requests of each instance at one moment."""
        self.n_instances, self.n_cores = len(outstanding), n_cores
        self.n_concurrent += len(outstanding)
        self.concurrent_sum += sum(outstanding)
        self.concurrent_min = min(self.concurrent_min, *outstanding)
        self.concurrent_max = max(self.concurrent_max, *outstanding)

    def unpacked_counts(self) -> dict[int, int]:
        """Unpack the latencies' counts by bucket if need be, and return them for changes."""
        if self.buckets is None:
            assert self.packed is not None
            self.buckets, self.packed = dict(zip(*self.packed, strict=True)), None
        return self.buckets

    def pack(self) -> None:
        """Move the latencies' counts to arrays, which take less memory."""
        if self.buckets is not None:
            self.packed = array("H", self.buckets), array("L", self.buckets.values())
            self.buckets = None

    def bucket_counts(self) -> Mapping[int, int]:
        """Return a copy of the latencies' counts by bucket."""
        return dict(zip(*self.packed, strict=True)) if self.packed else dict(self.buckets or {})


def window_row(period: PeriodCounts, period_s: float, n_workers: int | None = None) -> dict[str, object]:
    """Return the row of `frames.WINDOWS` of a period, without its time, variant, role and copies.

    Parameters
    ----------
    period : PeriodCounts
    period_s : float
        Its length.
    n_workers : int, optional
        Workers of an instance; without them utilisation and offered load are unknown.
    """
    counts = period.bucket_counts()
    n_latency, latency = period.n_latency, period.latency_sum
    capacity_s = period_s * period.n_instances * (n_workers or 0)
    is_known = capacity_s > 0.0 and period.n_wait > 0
    return {
        "instance_count": period.n_instances,
        "Invocations": period.n,
        "InvocationsPerInstance": period.n_per_instance,
        "ModelLatency_SampleCount": n_latency,
        "ModelLatency_Average": latency / n_latency * US_PER_S if n_latency else math.nan,
        "ModelLatency_Minimum": period.latency_min * US_PER_S if n_latency else math.nan,
        "ModelLatency_Maximum": period.latency_max * US_PER_S if n_latency else math.nan,
        **{
            f"ModelLatency_{name}": quantile_within(counts, q, period.latency_min, period.latency_max) * US_PER_S
            for name, q in PERCENTILES.items()
        },
        "OverheadLatency_Average": period.overhead_sum / period.n_overhead * US_PER_S
        if period.n_overhead
        else math.nan,
        "Invocation4XXErrors": period.errors_4xx,
        "Invocation5XXErrors": period.errors_5xx,
        "InvocationModelErrors": period.model_errors,
        "ConcurrentRequestsPerModel_Minimum": period.concurrent_min if period.n_concurrent else math.nan,
        "ConcurrentRequestsPerModel_Maximum": period.concurrent_max if period.n_concurrent else math.nan,
        "wait_mean_s": period.wait_sum / period.n_wait if period.n_wait else math.nan,
        "utilisation": min(period.worked_s / capacity_s, 1.0) if is_known else math.nan,
        "offered_load": period.work_arrived_s / capacity_s if is_known else math.nan,
        "captured_records": period.captured_records,
        "captured_bytes": period.captured_bytes,
    }


def latency_rows(counts: Mapping[tuple[int, int, int], int], variants: Sequence[str]) -> pd.DataFrame:
    """Return the `frames.LATENCY` frame of counts by section, role (0: source, 1: shadow) and bucket."""
    rows = [
        (section, variants[role], ROLES[role], edge_of(bucket), edge_of(bucket + 1), count)
        for (section, role, bucket), count in sorted(counts.items())
    ]
    return build(LATENCY, {c.name: [row[i] for row in rows] for i, c in enumerate(LATENCY)})
