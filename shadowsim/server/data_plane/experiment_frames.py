"""Frames of a live experiment: its requests, one row per minute and variant, and latency buckets.

Time 0 is the moment at which the server first saw the experiment's shadow serve. Rows are kept in plain arrays, some
eighty bytes each. When there are too many, the oldest thousands are dropped and counted in `n_forgotten`; the counts
per minute keep them. A logbook lives in the server's memory, so a restarted server begins a new one.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.frames import (
    LATENCY,
    LATENCY_MEASURE,
    LIVE_WINDOWS,
    LOST_CAUSES,
    MOST_SECTIONS,
    REQUESTS,
    ROLES,
    SERVER_CRASH,
    SERVER_LAG,
    SHORT_NAMES,
    TOKEN_LATENCY,
    TOKEN_REQUESTS,
    TOKEN_WINDOWS,
    build,
)
from shadowsim.period_counts import PeriodCounts, TokenCounts, latency_rows, window_row
from shadowsim.server.data_plane.backends import ANSWERED, BROKEN, REFUSED, TOO_LONG
from shadowsim.server.data_plane.counts import MINUTE_S, Series, ServedRequest
from shadowsim.server.data_plane.streamed_bodies import TokenFigures

KEPT_ROWS = 4_000_000
CHUNK_ROWS = 65_536
# name in the frame, and type code of the array
_COLUMNS = {
    "request": "q", "role": "b", "arrival_s": "d", "instance": "l", "wait_s": "d", "service_s": "d", "latency_s": "d",
    "request_bytes": "q", "response_bytes": "q", "first_token_s": "d", "prompt_tokens": "i", "output_tokens": "i",
}  # fmt: skip
_NO_TOKEN_COUNTS = TokenCounts().columns()  # the columns of windows that services in tokens have
_NO_TOKENS = TokenFigures(math.nan, math.nan, -1, -1, 0, 0, 0)


class _Rows:
    """At most CHUNK_ROWS rows of the `requests` frame, in the order in which they were recorded.

    `first` is the number of rows that were recorded before.
    """

    __slots__ = ("columns", "first", "inference_ids", "statuses")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in _COLUMNS.items()}
        self.inference_ids: list[str] = []
        self.statuses: list[str] = []

    def __len__(self) -> int:
        return len(self.statuses)

    def arrays(self, n: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the first n values of each column."""
        return {name: np.array(values[:n]) for name, values in self.columns.items()}


@dataclass(slots=True)
class Logbook:
    """The requests of a live experiment.

    Attributes
    ----------
    experiment, endpoint : str
    variants : (str, str)
        Source and shadow.
    began_s : float
        Time 0 of the frames, in seconds since 1970.
    n_workers : (int or None, int or None)
        Workers per instance of each; None if unknown.
    created_s : float or None
        Creation time (control clock). Distinguishes successive experiments that reuse a name.
    in_tokens : bool
        Whether a variant is a simulated service in tokens, or has streamed an answer: the frames then have the columns
        of tokens, too.
    kept_rows : int
        Rows to keep at least, if there are as many.
    n_requests : int
        Requests of the source that have arrived.
    n_forgotten : int
        Rows that were dropped.
    series : (Series, Series)
        Counts per minute of the source and of the shadow.
    """

    experiment: str
    endpoint: str
    variants: tuple[str, str]
    began_s: float
    n_workers: tuple[int | None, int | None] = (None, None)
    created_s: float | None = None
    in_tokens: bool = False
    kept_rows: int = KEPT_ROWS
    n_requests: int = 0
    n_forgotten: int = 0
    series: tuple[Series, Series] = field(init=False)
    _chunks: deque[_Rows] = field(init=False)

    def __post_init__(self) -> None:
        self.series = Series(self.began_s), Series(self.began_s)
        self._chunks = deque([_Rows()])

    def number(self) -> int:
        """Return the number of a new request of the source."""
        self.n_requests += 1
        return self.n_requests - 1

    def add(self, role: int, served: ServedRequest) -> None:
        """Record a request of the source (role 0) or of the shadow (role 1)."""
        self.series[role].add(served)
        rows = self._chunks[-1]
        if len(rows) >= CHUNK_ROWS:
            rows = _Rows(rows.first + len(rows))
            self._chunks.append(rows)
            if len(self._chunks) * CHUNK_ROWS > self.kept_rows + CHUNK_ROWS:
                self.n_forgotten += len(self._chunks.popleft())
        answer = served.answer
        latency_s = math.nan if answer.outcome == REFUSED else answer.latency_s
        n_bytes = len(answer.body) + answer.cut_bytes if answer.status else -1
        values: tuple[float, ...] = (
            served.request, role, max(served.arrival_s - self.began_s, 0.0), served.instance, answer.wait_s,
            answer.service_s, latency_s, served.request_bytes, n_bytes,
        )  # fmt: skip
        self.in_tokens = self.in_tokens or answer.tokens is not None
        figures = answer.tokens or _NO_TOKENS
        values += (figures.first_token_s, figures.prompt, figures.output)
        for column, value in zip(rows.columns.values(), values, strict=True):
            column.append(value)
        rows.inference_ids.append(served.inference_id)
        rows.statuses.append(BROKEN if answer.outcome == TOO_LONG else answer.outcome)

    def requests(self) -> pd.DataFrame:
        """Return the `REQUESTS` frame, in order of the requests."""
        return next(self.request_slices(max(sum(map(len, self._chunks)), 1)))

    def request_slices(self, n_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the `REQUESTS` frame in slices of at most so many rows, at least one; rows that come later are left."""
        in_tokens = self.in_tokens
        chunks = [chunk for chunk in list(self._chunks) if len(chunk)] or [_Rows()]
        n = [len(chunk) for chunk in chunks]
        keys = [
            2 * np.array(chunk.columns["request"][:k]) + np.array(chunk.columns["role"][:k])
            for chunk, k in zip(chunks, n, strict=True)
        ]
        # Unlike np.lexsort, sorting by one number lets other threads run.
        order = np.argsort(np.concatenate(keys), kind="stable")
        del keys
        starts = np.concatenate([[0], np.cumsum(n)])
        # Of the chunks of one slice: those of all together would hold the lock while they are made and freed.
        arrays: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
        for begin in range(0, max(len(order), 1), n_rows):
            rows = order[begin : begin + n_rows]
            chunk = np.searchsorted(starts, rows, side="right") - 1
            places = rows - starts[chunk]
            present = np.unique(chunk).tolist() or [0]
            arrays = {c: arrays.get(c) or chunks[c].arrays(n[c]) for c in present}
            part = {name: np.empty(len(rows), arrays[present[0]][name].dtype) for name in _COLUMNS}
            for c in present:
                inside = chunk == c
                for name, values in part.items():
                    values[inside] = arrays[c][name][places[inside]]
            pairs = list(zip(chunk.tolist(), places.tolist(), strict=True))
            ids, statuses = (
                np.array([getattr(chunks[c], name)[i] for c, i in pairs], object)
                for name in ("inference_ids", "statuses")
            )
            yield self._requests(part, ids, statuses, in_tokens)

    def _requests(
        self,
        columns: Mapping[str, np.ndarray[Any, Any]],
        ids: np.ndarray[Any, Any],
        statuses: np.ndarray[Any, Any],
        in_tokens: bool,
    ) -> pd.DataFrame:
        role, sizes = columns["role"].astype(np.intp), {}
        for name in ("request_bytes", "response_bytes", *(("prompt_tokens", "output_tokens") if in_tokens else ())):
            values = columns[name].astype(np.int64)
            sizes[name] = pd.arrays.IntegerArray(values, values < 0)
        times = "wait_s", "service_s", "latency_s", *(("first_token_s",) if in_tokens else ())
        return build(
            REQUESTS + (TOKEN_REQUESTS if in_tokens else ()),
            {
                **{name: columns[name] for name in ("request", "arrival_s", "instance", *times)},
                **sizes,
                "inference_id": ids,
                "variant": np.array(self.variants, object)[role],
                "role": np.array(ROLES, object)[role],
                "status": statuses,
            },
        )

    def columns_after(self, n_rows: int, names: Sequence[str]) -> tuple[int, dict[str, np.ndarray[Any, Any]]] | None:
        """Return some columns of rows that were recorded after the first so many, and how many those are together.

        A call returns at most CHUNK_ROWS rows; what was forgotten is skipped. None if there are no further rows.

        Parameters
        ----------
        n_rows : int
        names : sequence of str
            Of numbers in the `REQUESTS` frame, of "is_shadow" and of "failed", both of bool.
        """
        for chunk in list(self._chunks):
            begin, end = max(n_rows - chunk.first, 0), len(chunk)
            if begin < end:
                columns = {name: np.array(chunk.columns[name][begin:end]) for name in names if name in _COLUMNS}
                if "is_shadow" in names:
                    columns["is_shadow"] = np.array(chunk.columns["role"][begin:end], np.bool_)
                if "failed" in names:
                    columns["failed"] = np.array([text != ANSWERED for text in chunk.statuses[begin:end]], np.bool_)
                return chunk.first + end, columns
        return None

    def windows(self, n_minutes: int | None = None) -> pd.DataFrame:
        """Return the `LIVE_WINDOWS` frame: one row per minute and variant, up to the last minute with any counts.

        `n_minutes` leaves out the minutes after the first so many.
        """
        last = self._last_minute(n_minutes, 0)
        return next(self.window_slices(len(ROLES) * (last + 1), n_minutes))

    def window_slices(self, n_rows: int, n_minutes: int | None = None) -> Iterator[pd.DataFrame]:
        """Yield the frame of `windows` in slices of at most so many rows, at least one; rows that come later are left.

        `n_rows` is even, so that a slice has whole minutes.
        """
        last, in_tokens = self._last_minute(n_minutes, -1), self.in_tokens
        schema = LIVE_WINDOWS
        of_tokens: list[Callable[[PeriodCounts], Mapping[str, object]]] = [_no_tokens, _no_tokens]
        if in_tokens:
            schema += tuple(c for c in TOKEN_WINDOWS if c.name in _NO_TOKEN_COUNTS)
            of_tokens = [_token_columns(series) for series in self.series]
        length = n_rows // len(ROLES)
        for begin in range(0, max(last + 1, 1), length):
            rows = [
                {
                    "time_s": number * MINUTE_S,
                    "variant": self.variants[role],
                    "role": ROLES[role],
                    **window_row(period, MINUTE_S, self.n_workers[role]),
                    **_copies(period, role),
                    **of_tokens[role](period),
                }
                for number in range(begin, min(begin + length, last + 1))
                for role in (0, 1)
                for period in (self.series[role].periods.get(number, PeriodCounts()),)
            ]
            yield build(schema, {c.name: [row[c.name] for row in rows] for c in schema})

    def latency(self, n_minutes: int | None = None) -> pd.DataFrame:
        """Return the `LATENCY` frame: the non-empty buckets of each section of whole minutes.

        `n_minutes` leaves out the minutes after the first so many.
        """
        by_section = partial(self._by_section, self._last_minute(n_minutes, 0))
        frames = [latency_rows(by_section(lambda period: period.latency.buckets()), self.variants)]
        if not self.in_tokens:
            return frames[0]
        for measure in SHORT_NAMES:
            counts = by_section(partial(_token_buckets, measure))
            frames.append(latency_rows(counts, self.variants))
        whole = pd.concat(frames, keys=(LATENCY_MEASURE, *SHORT_NAMES), names=["measure"])
        whole = whole.reset_index(level="measure").sort_values("section", kind="stable", ignore_index=True)
        return build(LATENCY + TOKEN_LATENCY, dict(whole))

    def _last_minute(self, n_minutes: int | None, default: int) -> int:
        last = max((number for series in self.series for number in list(series.periods)), default=default)
        return last if n_minutes is None else min(last, n_minutes - 1)

    def _by_section(
        self, last: int, buckets: Callable[[PeriodCounts], Mapping[int, int]]
    ) -> dict[tuple[int, int, int], int]:
        """Return counts up to a last minute by section, role and bucket; `buckets` returns those of a minute."""
        length = math.ceil((last + 1) / MOST_SECTIONS)
        counts: dict[tuple[int, int, int], int] = {}
        for role, series in enumerate(self.series):
            for number, period in sorted(series.periods.items()):
                if number > last:
                    break
                for bucket, count in buckets(period).items():
                    key = number // length, role, bucket
                    counts[key] = counts.get(key, 0) + count
        return counts


def _no_tokens(period: PeriodCounts) -> Mapping[str, object]:
    """Return the columns of tokens of a frame that has none."""
    return {}


def _token_columns(series: Series) -> Callable[[PeriodCounts], Mapping[str, object]]:
    """Return what returns a minute's columns of tokens; missing values for a variant that is not in tokens."""
    counts = [period.tokens for period in list(series.periods.values()) if period.tokens is not None]
    if not counts:
        return lambda period: dict.fromkeys(_NO_TOKEN_COUNTS)
    # a container does not say what it runs
    unknown = {} if any(c.n_samples for c in counts) else {"prefill_tokens": None, "preemptions": None}
    return lambda period: {**(period.tokens or TokenCounts()).columns(), **unknown}


def _token_buckets(measure: str, period: PeriodCounts) -> Mapping[int, int]:
    return {} if period.tokens is None else period.tokens.times[measure].buckets()


def _copies(period: PeriodCounts, role: int) -> dict[str, object]:
    made: object = period.n if role else None
    causes = (*LOST_CAUSES, SERVER_LAG, SERVER_CRASH)
    lost = {f"copies_lost_{cause}": period.lost.get(cause, 0) if role else None for cause in causes}
    return {"copies_made": made, **lost}
