"""Follows a live experiment over time, in at most 120 steps, for the charts of the page.

A step is a second at first. Each time there would be too many steps, two are joined to one, so that they show the
whole experiment however long it lasts. For the first two hours they are filled from single requests, which are read
from the logbook as they come; from then on, or where requests were forgotten, from the counts per minute.

Latencies are counted in the simulator's buckets, which can be added up. What is drawn of a step is computed again only
if the step has changed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.frames import ROLES
from shadowsim.histogram import N_BUCKETS, buckets_of, edge_of, quantiles
from shadowsim.period_counts import PeriodCounts
from shadowsim.server.data_plane.counts import MINUTE_S
from shadowsim.server.data_plane.experiment_frames import Logbook

MOST_STEPS = 120
ROWS_UPTO_S = 7200.0  # a step would then be longer than a minute
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_LATENCY, _FIRST_TOKEN = 0, 1
_OPEN_MINUTES = 3  # that may still change
_READ_ROWS = 1 << 20  # at once
_COLUMNS = ("arrival_s", "latency_s", "first_token_s", "is_shadow", "failed")
_EDGES = np.array([edge_of(bucket) for bucket in range(N_BUCKETS + 1)])


class Timeline:
    """The timeline of one experiment, brought up to date by `update`, which may be called in a thread.

    Parameters
    ----------
    logbook : Logbook

    Attributes
    ----------
    step_s : float
        Length of a step.
    """

    def __init__(self, logbook: Logbook):
        self._logbook = logbook
        self._by_minute = False
        self._busy: tuple[list[float], list[float]] = [], []  # utilisation by role and minute that is over
        self._begin(1.0)

    def _begin(self, step_s: float) -> None:
        self.step_s, self._n_read = step_s, 0
        self._n = np.zeros((MOST_STEPS, 2))  # requests by step and role
        self._failed = np.zeros((MOST_STEPS, 2))
        self._total_s = np.zeros((MOST_STEPS, 2))  # of latencies
        self._counts = np.zeros((2, MOST_STEPS, 2, N_BUCKETS), np.int32)  # by kind of time, step, role and bucket
        self._drawn: dict[tuple[int, int, int], dict[str, float]] = {}

    def update(self, age_s: float) -> None:
        """Read what has happened up to an age of the experiment, in wall seconds."""
        by_minute = age_s > ROWS_UPTO_S or self._logbook.n_forgotten > 0
        if by_minute and not self._by_minute:
            self._by_minute = True
            self._begin(MINUTE_S)
        self._make_room(age_s)
        if self._by_minute:
            self._read_minutes()
        else:
            self._read_rows()

    def _make_room(self, upto_s: float) -> None:
        """Join steps until there is one for a moment."""
        while upto_s >= self.step_s * MOST_STEPS:
            self.step_s *= 2.0
            for name in ("_n", "_failed", "_total_s"):
                setattr(self, name, _joined(getattr(self, name)))
            self._counts = np.stack([_joined(counts) for counts in self._counts])
            self._drawn.clear()

    def _read_rows(self) -> None:
        until = self._n_read + _READ_ROWS
        while self._n_read < until and (read := self._logbook.columns_after(self._n_read, _COLUMNS)):
            self._n_read, columns = read
            self._make_room(float(columns["arrival_s"].max()))
            step = (columns["arrival_s"] / self.step_s).astype(np.int64)
            place = 2 * step + columns["is_shadow"]
            self._n += _sums(place, None)
            self._failed += _sums(place, columns["failed"].astype(np.float64))
            self._total_s += _sums(place, np.nan_to_num(columns["latency_s"]))
            for kind, name in enumerate(("latency_s", "first_token_s")):
                known = ~np.isnan(columns[name])
                at = place[known] * N_BUCKETS + buckets_of(columns[name][known])
                cells, n = np.unique(at, return_counts=True)
                self._counts[kind].reshape(-1)[cells] += n.astype(np.int32)
            self._forget(np.unique(step).tolist())

    def _read_minutes(self) -> None:
        """Add the minutes that can no longer change; the last ones are added when they are drawn."""
        newest = max((max(series.periods, default=-1) for series in self._logbook.series), default=-1)
        self._make_room(newest * MINUTE_S)
        for role, series in enumerate(self._logbook.series):
            closed = [k for k in sorted(series.periods) if self._n_read <= k < newest - _OPEN_MINUTES]
            for number in closed:
                self._add_minute(number, role, series.periods[number], 1)
        self._n_read = max(self._n_read, newest - _OPEN_MINUTES)

    def _add_minute(self, number: int, role: int, period: PeriodCounts, sign: int) -> None:
        step = int(number * MINUTE_S / self.step_s)
        self._n[step, role] += sign * period.n
        self._failed[step, role] += sign * period.model_errors
        self._total_s[step, role] += sign * period.latency.total_s
        times = {_LATENCY: period.latency}
        if period.tokens is not None:
            times[_FIRST_TOKEN] = period.tokens.times["first_token"]
        for kind, counts in times.items():
            for bucket, n in counts.buckets().items():
                self._counts[kind, step, role, bucket] += sign * n
        self._forget([step])

    def _forget(self, steps: list[int]) -> None:
        for key in [(kind, step, role) for kind in (0, 1) for step in steps for role in (0, 1)]:
            self._drawn.pop(key, None)

    def figures(self, age_s: float) -> dict[str, Any]:
        """Return what the charts show, as a JSON object whose numbers have four digits; None stands for no value.

        `at_s` are the beginnings of the steps, of `step_s` each. By role there are `rate` (per second), `errors` (a
        share), `in_flight` (the mean, which is rate times mean latency by Little's law), and in seconds `p50`, `p95`,
        `p99` of ModelLatency and where there is one, `first_p50`, `first_p95` and `first_p99` to the first token. A
        step that has just begun is left out. `whole` has the percentiles of all steps, and `utilisation` shares of
        the workers' time, in steps of whole minutes.
        """
        open_minutes = self._open_minutes() if self._by_minute else []
        for number, role, period in open_minutes:
            self._add_minute(number, role, period, 1)
        last = min(int(age_s / self.step_s), MOST_STEPS - 1)
        lengths = np.full(last + 1, self.step_s)
        lengths[last] = min(age_s - last * self.step_s, self.step_s)
        if lengths[last] < max(0.25 * self.step_s, 1.0):
            lengths = lengths[:last]
        drawn = {"at_s": [round(step * self.step_s, 3) for step in range(lengths.size)], "step_s": self.step_s}
        for role, name in enumerate(ROLES):
            drawn[name] = self._of_role(role, lengths)
        drawn["whole"] = {name: self._whole(role) for role, name in enumerate(ROLES)}
        drawn["utilisation"] = self._utilisation(age_s)
        for number, role, period in open_minutes:
            self._add_minute(number, role, period, -1)
        return drawn

    def _open_minutes(self) -> list[tuple[int, int, PeriodCounts]]:
        return [
            (number, role, series.periods[number])
            for role, series in enumerate(self._logbook.series)
            for number in sorted(series.periods)
            if number >= self._n_read
        ]

    def _of_role(self, role: int, lengths: Floats) -> dict[str, list[float | None]]:
        steps = range(lengths.size)
        n, failed = self._n[: lengths.size, role], self._failed[: lengths.size, role]
        with np.errstate(invalid="ignore", divide="ignore"):
            lines = {
                "rate": n / lengths,
                "errors": failed / n,
                "in_flight": self._total_s[: lengths.size, role] / lengths,
            }
        of_latency = [self._quantiles_of(_LATENCY, step, role) for step in steps]
        lines |= {name: np.array([values[name] for values in of_latency]) for name in QUANTILES}
        if self._counts[_FIRST_TOKEN, :, role].any():
            of_first = [self._quantiles_of(_FIRST_TOKEN, step, role) for step in steps]
            lines |= {f"first_{name}": np.array([values[name] for values in of_first]) for name in QUANTILES}
        return {name: [rounded(x) for x in line.tolist()] for name, line in lines.items()}

    def _quantiles_of(self, kind: int, step: int, role: int) -> dict[str, float]:
        key = kind, step, role
        if key not in self._drawn:
            self._drawn[key] = _quantiles(self._counts[key])
        return self._drawn[key]

    def _whole(self, role: int) -> dict[str, float | None]:
        values: dict[str, float | None] = {}
        for kind, prefix in ((_LATENCY, ""), (_FIRST_TOKEN, "first_")):
            of_kind = _quantiles(self._counts[kind, :, role].sum(axis=0))
            values |= {prefix + name: rounded(x) for name, x in of_kind.items()}
        return values

    def _utilisation(self, age_s: float) -> dict[str, Any]:
        n_begun = max(math.ceil(age_s / MINUTE_S), 1)
        joined = math.ceil(n_begun / MOST_STEPS)
        lines: dict[str, Any] = {"at_s": [i * joined * MINUTE_S for i in range(math.ceil(n_begun / joined))]}
        for role, name in enumerate(ROLES):
            busy = self._busy[role]
            for number in range(len(busy), n_begun - 1 - _OPEN_MINUTES):
                busy.append(self._busy_part(role, number, MINUTE_S))
            lasted = [(k, min(age_s - k * MINUTE_S, MINUTE_S)) for k in range(len(busy), n_begun)]
            minutes = np.array(busy + [self._busy_part(role, number, length_s) for number, length_s in lasted])
            groups = np.split(minutes, range(joined, n_begun, joined))
            lines[name] = [rounded(float(group.mean())) for group in groups]
        return lines

    def _busy_part(self, role: int, number: int, length_s: float) -> float:
        """Return the utilisation of a minute, of which so many seconds are over; NaN if unknown."""
        period, workers = self._logbook.series[role].periods.get(number), self._logbook.n_workers[role]
        if workers is None:  # as of containers
            return math.nan
        if period is None or not period.n_instances:
            return 0.0
        return min(period.worked_s / (max(length_s, 1.0) * period.n_instances * workers), 1.0)


def rounded(x: float) -> float | None:
    """Return a number with four digits; None for NaN."""
    return None if math.isnan(x) else float(f"{x:.4g}")


def _joined(steps: Any) -> Any:
    """Return counts by step with each two steps joined to one."""
    pairs = steps.reshape(MOST_STEPS // 2, 2, *steps.shape[1:]).sum(axis=1, dtype=steps.dtype)
    return np.concatenate([pairs, np.zeros_like(pairs)])


def _sums(place: Ints, weights: Floats | None) -> Floats:
    sums: Floats = np.bincount(place, weights, 2 * MOST_STEPS).reshape(MOST_STEPS, 2).astype(np.float64)
    return sums


def _quantiles(counts: Any) -> dict[str, float]:
    """Return percentiles of times by their counts in all buckets; NaN without any."""
    (held,) = np.nonzero(counts)
    if not held.size:
        return dict.fromkeys(QUANTILES, math.nan)
    values = quantiles(_EDGES[held], _EDGES[held + 1], counts[held].astype(np.float64), list(QUANTILES.values()))
    return dict(zip(QUANTILES, values, strict=True))
