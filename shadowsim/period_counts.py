"""Counts the requests of a variant by period, and builds rows of `windows` and `latency` from that.

Who measures a real service keeps one record per period: the live server adds request by request, a load run fills them
from its rows at the end. Latencies are counts per bucket of the simulator, 0.8 % wide.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.frames import (
    LATENCY,
    LATENCY_MEASURE,
    PERCENTILES,
    ROLES,
    SHORT_NAMES,
    TIME_COLUMNS,
    US_PER_S,
    build,
    repeated,
)
from shadowsim.histogram import N_BUCKETS, bucket_of, buckets_of, edge_of, quantile_within


@dataclass(slots=True)
class TimeCounts:
    """Times of some kind in a period: number, sum, extremes in seconds, and numbers by bucket."""

    n: int = 0
    total_s: float = 0.0
    least_s: float = math.inf
    most_s: float = -math.inf
    _buckets: dict[int, int] = field(default_factory=dict)
    _packed: tuple[array[int], array[int]] | None = None

    @classmethod
    def of(cls, times_s: Floats) -> TimeCounts:
        """Count times at once; NaN is none."""
        known = times_s[~np.isnan(times_s)]
        if not known.size:
            return cls()
        found, count = np.unique(buckets_of(known), return_counts=True)
        by_bucket = dict(zip(found.tolist(), count.tolist(), strict=True))
        return cls(int(known.size), float(known.sum()), float(known.min()), float(known.max()), by_bucket)

    def add(self, seconds: float, *, by_bucket: bool = True) -> None:
        """Count a time; NaN is none. Times that are not counted by bucket have no quantiles."""
        if math.isnan(seconds):
            return
        self.n += 1
        self.total_s += seconds
        self.least_s, self.most_s = min(self.least_s, seconds), max(self.most_s, seconds)
        if by_bucket:
            if self._packed is not None:
                self._buckets, self._packed = self.buckets(), None
            bucket = bucket_of(seconds)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def buckets(self) -> dict[int, int]:
        """Return a copy of the numbers by bucket."""
        return dict(self._buckets) if self._packed is None else dict(zip(*self._packed, strict=True))

    def pack(self) -> None:
        """Move the numbers by bucket to arrays, which take less memory; a later time moves them back."""
        if self._packed is None and self._buckets:
            self._packed = array("H", self._buckets), array("L", self._buckets.values())
            self._buckets = {}

    def columns(self, name: str) -> dict[str, object]:
        """Return the columns of windows whose names begin so, in microseconds."""
        mean, least, most = (
            (self.total_s / self.n, self.least_s, self.most_s) if self.n else (math.nan, math.nan, math.nan)
        )
        buckets = self.buckets()
        return {
            f"{name}_SampleCount": self.n,
            f"{name}_Average": mean * US_PER_S,
            f"{name}_Minimum": least * US_PER_S,
            f"{name}_Maximum": most * US_PER_S,
            **{f"{name}_{p}": quantile_within(buckets, q, least, most) * US_PER_S for p, q in PERCENTILES.items()},
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
    latency: TimeCounts = field(default_factory=TimeCounts)
    overhead: TimeCounts = field(default_factory=TimeCounts)  # not by bucket
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

    def pack(self) -> None:
        """Make all counts by bucket take less memory."""
        of_tokens = () if self.tokens is None else self.tokens.times.values()
        of_streams = () if self.streams is None else (self.streams.model, self.streams.caller, self.streams.overhead)
        for times in (self.latency, *of_tokens, *of_streams):
            times.pack()


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
    overhead = period.overhead
    capacity_s = period_s * period.n_instances * (n_workers or 0)
    is_known = capacity_s > 0.0 and period.n_wait > 0
    return {
        "instance_count": period.n_instances,
        "Invocations": period.n,
        "InvocationsPerInstance": period.n_per_instance,
        **period.latency.columns(TIME_COLUMNS[LATENCY_MEASURE]),
        "OverheadLatency_Average": overhead.total_s / overhead.n * US_PER_S if overhead.n else math.nan,
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
    """Return the `frames.LATENCY` frame of counts by section, role (0: source, 1: shadow) and bucket.

    A long frame is built without one object per row, and in steps during which other threads run.
    """
    n = len(counts)
    section, role, bucket = (np.fromiter((key[i] for key in counts), np.intp, n) for i in range(3))
    count = np.fromiter(counts.values(), np.int64, n)
    order = np.argsort((section * len(ROLES) + role) * N_BUCKETS + bucket)
    section, role, bucket, count = section[order], role[order], bucket[order], count[order]
    present, place = np.unique(bucket, return_inverse=True)
    low_s, high_s = (np.array([edge_of(b + side) for b in present.tolist()], np.float64)[place] for side in (0, 1))
    columns = section, repeated(variants, role), repeated(ROLES, role), low_s, high_s, count
    return build(LATENCY, {c.name: values for c, values in zip(LATENCY, columns, strict=True)})
