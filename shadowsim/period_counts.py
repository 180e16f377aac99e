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

from shadowsim.frames import LATENCY, PERCENTILES, ROLES, US_PER_S, build
from shadowsim.histogram import edge_of, quantile_within


@dataclass(slots=True)
class PeriodCounts:
    """Counts of one period, with latencies in seconds.

    `lost` counts lost copies by cause, and `worked` seconds of work by instance. `n_cores` is the number of cores per
    instance; None if an instance's workers are not its cores, or before the first sample.
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

    @property
    def worked_s(self) -> float:
        """Seconds of work of all workers of all instances."""
        return math.fsum(self.worked.values())

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
