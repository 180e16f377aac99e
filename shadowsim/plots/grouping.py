"""The windows of a run in groups that a chart can show and a person can name: 3 minutes, half an hour, a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim.verdict import Verdict, clock

Floats = NDArray[np.float64]

MAX_POINTS = 500
_UNITS = ((240.0, 1.0, "s"), (4 * 3600.0, 60.0, "min"), (80 * 3600.0, 3600.0, "h"), (np.inf, 86_400.0, "days"))
_SIZES = (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440)  # windows in a group that people can think in


@dataclass(frozen=True, slots=True)
class Groups:
    """Windows in groups of `size`: `row` is the group of each row, group g lasts from edge_s[g] to edge_s[g + 1]."""

    windows: pd.DataFrame
    verdict: Verdict
    labels: Mapping[str, str]
    row: NDArray[np.int64]
    length_s: Floats
    edge_s: Floats
    size: int

    def of(self, role: str, column: str, how: str) -> Floats:
        """Return an aggregate over the windows of each group, NaN where there is nothing to aggregate."""
        mine = (self.windows["role"] == role).to_numpy()
        return self._by_group(self.windows[column].astype(float)[mine], mine, how)

    def mean(self, role: str, column: str) -> Floats:
        """Return the mean over time of each group."""
        mine = (self.windows["role"] == role).to_numpy()
        values, length = self.windows[column].astype(float)[mine], self.length_s[mine]
        total = self._by_group(values * length, mine, "sum")
        time = self._by_group(values.notna() * length, mine, "sum")
        mean: Floats = np.divide(total, time, out=np.full(time.size, np.nan), where=time > 0)
        return mean

    def _by_group(self, values: pd.Series[float], mine: NDArray[np.bool_], how: str) -> Floats:
        found = values.groupby(self.row[mine]).agg(how).reindex(range(self.edge_s.size - 1))
        return np.array(found, np.float64)

    @property
    def edge(self) -> Floats:
        """The groups' edges in the unit of the time axis."""
        return self.edge_s / self.unit[0]

    @property
    def unit(self) -> tuple[float, str]:
        """The unit of the time axis: its length in seconds, and its name."""
        return next((scale, name) for limit, scale, name in _UNITS if self.edge_s[-1] <= limit)

    @property
    def words(self) -> str:
        """What a point stands for."""
        length = float(self.edge_s[1] - self.edge_s[0])
        scale, unit = (1, "s") if length <= 60 else (60, "min") if length < 7200 else (3600, "h")
        each = f"{length / scale:g} {unit}"
        return f"windows of {each}" if self.size == 1 else f"groups of {self.size} windows ({each})"

    @property
    def spans(self) -> list[str]:
        """From when to when each group lasts."""
        return [f"{clock(a)} to {clock(b)}" for a, b in zip(self.edge_s[:-1], self.edge_s[1:], strict=True)]


def groups(windows: pd.DataFrame, verdict: Verdict, labels: Mapping[str, str], horizon_s: float | None) -> Groups:
    """Group the windows of a run into the smallest size that people can think in and that leaves few enough groups.

    Parameters
    ----------
    windows : DataFrame
        A `frames.WINDOWS` frame.
    verdict : Verdict
    labels : mapping of str to str
        What each role is called, in the order in which they are shown.
    horizon_s : float or None
        Where the last window ends, in seconds; by default it is as long as the median one.
    """
    start = np.unique(windows["time_s"].to_numpy(np.float64))
    period = float(np.median(np.diff(start))) if start.size > 1 else 60.0
    end = horizon_s if horizon_s is not None else float(start[-1]) + period
    needed = -(-start.size // MAX_POINTS)
    size = next((n for n in _SIZES if n >= needed), needed)
    number = np.searchsorted(start, windows["time_s"].to_numpy(np.float64))
    length = np.diff(np.append(start, end))[number]
    edge = np.append(start[::size], end)
    return Groups(windows, verdict, labels, number // size, length, edge, size)
