"""The frames of a live experiment: every request in order, a tally a minute, and the latencies' buckets.

Time 0 is when the server first saw the experiment's shadow serve. Rows are kept in plain arrays, some sixty bytes each;
when there are too many, the oldest thousands go, and `n_forgotten` says how many. The tallies still hold them.

A logbook lives in the server's memory: a restarted server begins a new one.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.frames import LATENCY, LOST_CAUSES, MOST_SECTIONS, PERCENTILES, REQUESTS, ROLES, WINDOWS, build
from shadowsim.histogram import edge_of, quantile_within
from shadowsim.server.data_plane.backends import REFUSED
from shadowsim.server.data_plane.counts import MINUTE_S, PeriodCounts, Series, Served

KEPT_ROWS = 4_000_000
_CHUNK = 65_536
_US = 1e6
# name in the frame, and the array's type code
_COLUMNS = {
    "request": "q", "role": "b", "arrival_s": "d", "instance": "l", "wait_s": "d", "service_s": "d", "latency_s": "d",
    "request_bytes": "q", "response_bytes": "q",
}  # fmt: skip


class _Rows:
    """Up to `_CHUNK` rows of the `requests` frame."""

    __slots__ = ("columns", "inference_ids", "statuses")

    def __init__(self) -> None:
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in _COLUMNS.items()}
        self.inference_ids: list[str] = []
        self.statuses: list[str] = []

    def __len__(self) -> int:
        return len(self.statuses)


@dataclass(slots=True)
class Logbook:
    """What a live experiment has seen.

    Attributes
    ----------
    experiment, endpoint : str
    variants : (str, str)
        Names of the source and the shadow.
    began_s : float
        Time 0 of the frames, in seconds since 1970.
    n_workers : (int or None, int or None)
        Of one instance of each, where that is known.
    created_s : float or None
        When the experiment was created, by control's clock: of two of one name, which.
    n_requests : int
        Requests of the source that have come.
    n_forgotten : int
        Rows that went.
    """

    experiment: str
    endpoint: str
    variants: tuple[str, str]
    began_s: float
    n_workers: tuple[int | None, int | None] = (None, None)
    created_s: float | None = None
    kept_rows: int = KEPT_ROWS
    n_requests: int = 0
    n_forgotten: int = 0
    series: tuple[Series, Series] = field(init=False)
    _chunks: deque[_Rows] = field(init=False)

    def __post_init__(self) -> None:
        self.series = Series(self.began_s), Series(self.began_s)
        self._chunks = deque([_Rows()])

    def number(self) -> int:
        """Return the number of a request that has just come."""
        self.n_requests += 1
        return self.n_requests - 1

    def add(self, role: int, served: Served) -> None:
        """Enter a request of the source (0) or the shadow (1)."""
        self.series[role].add(served)
        rows = self._chunks[-1]
        if len(rows) >= _CHUNK:
            rows = _Rows()
            self._chunks.append(rows)
            if len(self._chunks) * _CHUNK > self.kept_rows + _CHUNK:
                self.n_forgotten += len(self._chunks.popleft())
        answer = served.answer
        latency_s = math.nan if answer.outcome == REFUSED else answer.latency_s
        values = (
            served.request, role, max(served.arrival_s - self.began_s, 0.0), served.instance, answer.wait_s,
            answer.service_s, latency_s, served.request_bytes, len(answer.body) if answer.status else -1,
        )  # fmt: skip
        for column, value in zip(rows.columns.values(), values, strict=True):
            column.append(value)
        rows.inference_ids.append(served.inference_id)
        rows.statuses.append(answer.outcome)

    def requests(self) -> pd.DataFrame:
        """The `REQUESTS` frame, in the requests' order."""
        chunks = [chunk for chunk in self._chunks if len(chunk)]
        n = [len(chunk) for chunk in chunks]  # what is entered meanwhile is left out
        none = _Rows()
        column = {
            name: np.concatenate([np.array(c.columns[name][:k]) for c, k in zip([none, *chunks], [0, *n], strict=True)])
            for name in _COLUMNS
        }
        role = column["role"].astype(np.intp)
        order = np.lexsort((role, column["request"]))
        size = {}
        for name in ("request_bytes", "response_bytes"):
            size[name] = pd.array(column[name][order].astype(np.int64), dtype="Int64")
            size[name][column[name][order] < 0] = pd.NA
        ids = np.array([i for c, k in zip(chunks, n, strict=True) for i in c.inference_ids[:k]], object)
        statuses = np.array([s for c, k in zip(chunks, n, strict=True) for s in c.statuses[:k]], object)
        return build(
            REQUESTS,
            {
                **{name: column[name][order] for name in ("request", "arrival_s", "instance")},
                **{name: column[name][order] for name in ("wait_s", "service_s", "latency_s")},
                **size,
                "inference_id": ids[order],
                "variant": np.array(self.variants, object)[role[order]],
                "role": np.array(ROLES, object)[role[order]],
                "status": statuses[order],
            },
        )

    def windows(self) -> pd.DataFrame:
        """The `WINDOWS` frame: a row a minute and variant, from the beginning to the last minute that has something."""
        last = max((number for series in self.series for number in list(series.tallies)), default=-1)
        rows = [
            {
                "time_s": number * MINUTE_S,
                "variant": self.variants[role],
                "role": ROLES[role],
                **_window(self.series[role].tallies.get(number, PeriodCounts()), self.n_workers[role]),
                **_copies(self.series[role].tallies.get(number, PeriodCounts()), role),
            }
            for number in range(last + 1)
            for role in (0, 1)
        ]
        return build(WINDOWS, {c.name: [row[c.name] for row in rows] for c in WINDOWS})

    def latency(self) -> pd.DataFrame:
        """The `LATENCY` frame: the filled buckets of each section, a section being whole minutes."""
        last = max((number for series in self.series for number in list(series.tallies)), default=0)
        length = math.ceil((last + 1) / MOST_SECTIONS)
        counts: dict[tuple[int, int, int], int] = {}
        for role, series in enumerate(self.series):
            for number, tally in sorted(series.tallies.items()):
                for bucket, count in tally.seen_counts().items():
                    key = number // length, role, bucket
                    counts[key] = counts.get(key, 0) + count
        rows = [
            (section, self.variants[role], ROLES[role], edge_of(bucket), edge_of(bucket + 1), count)
            for (section, role, bucket), count in sorted(counts.items())
        ]
        return build(LATENCY, {c.name: [row[i] for row in rows] for i, c in enumerate(LATENCY)})


def _window(tally: PeriodCounts, n_workers: int | None) -> dict[str, object]:
    counts = tally.seen_counts()
    some, latency = tally.n_latency, tally.latency_sum
    capacity_s = MINUTE_S * tally.n_instances * (n_workers or 0)
    known = capacity_s > 0.0 and tally.n_wait > 0
    return {
        "instance_count": tally.n_instances,
        "Invocations": tally.n,
        "InvocationsPerInstance": tally.n_per_instance,
        "ModelLatency_SampleCount": some,
        "ModelLatency_Average": latency / some * _US if some else math.nan,
        "ModelLatency_Minimum": tally.latency_min * _US if some else math.nan,
        "ModelLatency_Maximum": tally.latency_max * _US if some else math.nan,
        **{
            f"ModelLatency_{name}": quantile_within(counts, q, tally.latency_min, tally.latency_max) * _US
            for name, q in PERCENTILES.items()
        },
        "OverheadLatency_Average": tally.overhead_sum / tally.n_overhead * _US if tally.n_overhead else math.nan,
        "Invocation4XXErrors": tally.errors_4xx,
        "Invocation5XXErrors": tally.errors_5xx,
        "InvocationModelErrors": tally.model_errors,
        "ConcurrentRequestsPerModel_Minimum": tally.concurrent_min if tally.n_concurrent else math.nan,
        "ConcurrentRequestsPerModel_Maximum": tally.concurrent_max if tally.n_concurrent else math.nan,
        "wait_mean_s": tally.wait_sum / tally.n_wait if tally.n_wait else math.nan,
        "utilisation": min(tally.worked_s / capacity_s, 1.0) if known else math.nan,
        "offered_load": tally.work_arrived_s / capacity_s if known else math.nan,
        "captured_records": tally.captured_records,
        "captured_bytes": tally.captured_bytes,
    }


def _copies(tally: PeriodCounts, role: int) -> dict[str, object]:
    made: object = tally.n if role else None
    lost = {f"copies_lost_{cause}": tally.lost.get(cause, 0) if role else None for cause in LOST_CAUSES}
    return {"copies_made": made, **lost}
