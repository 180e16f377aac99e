"""Finds the warm-up of a run: the beginning, from an empty pool, that its figures should leave out.

MSER-5 (White, 1997) leaves out the beginning after which the mean of the rest is known best: of means of five windows,
Z_1 to Z_n, it leaves out the first d for which sum_{i > d} (Z_i - their mean)^2 / (n - d)^2 is least. The last five
means are always kept, since a few that are equal by chance would look like the best known. Where the least lies in the
second half, the run is too short to tell where its warm-up ends (White, Cobb and Spratt, 2000): then nothing is left
out, and the run is TOO SHORT.

Both variants leave out the same time, the longer of the two, since their requests are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.frames import ROLES
from shadowsim.option_defaults import AUTO

if TYPE_CHECKING:
    import pandas as pd

BATCH = 5  # windows
LEAST_BATCHES = 40  # of fewer, more than one steady run in twenty seems to warm up in its second half
LAST = 5  # batches that are always kept
LEAST_WINDOWS = BATCH * LEAST_BATCHES  # of a run with an automatic warm-up


class WarmUp(NamedTuple):
    """The beginning of a run that its figures leave out, as whole sections.

    Attributes
    ----------
    first_section : int
        The first section that is kept.
    from_s : float
        Its start.
    by_role_s : mapping of str to float
        By role, where MSER-5 places the end of the warm-up; empty if the scenario says it.
    unsettled : tuple of str
        Roles whose warm-up does not end in the first half of the run; then nothing is left out.
    """

    first_section: int
    from_s: float
    by_role_s: Mapping[str, float]
    unsettled: tuple[str, ...] = ()


NO_WARM_UP = WarmUp(0, 0.0, {})


def mser5(x: Floats) -> int | None:
    """Return how many values at the beginning of a series to leave out, a multiple of five; None if it is too short.

    Parameters
    ----------
    x : ndarray of float64, shape (n,)
    """
    n = x.size // BATCH
    if n < LEAST_BATCHES:
        return None
    z = x[: n * BATCH].reshape(n, BATCH).mean(axis=1)
    z -= z.mean()  # so that sums of squares lose no digits
    kept = n - np.arange(n)
    total, squares = (np.cumsum(values[::-1])[::-1] for values in (z, z * z))
    error = (squares / kept - (total / kept) ** 2) / kept
    least = int(np.argmin(error[: n - LAST]))
    return None if 2 * least >= n else least * BATCH


def warm_up(windows: pd.DataFrame, warmup_s: float | str, n_sections: int) -> WarmUp:
    """Return the warm-up of a run.

    Parameters
    ----------
    windows : DataFrame
        The `windows` frame.
    warmup_s : float or "auto"
        As the scenario says; "auto" takes the later end of both variants' by MSER-5 of the windows' mean latencies.
    n_sections : int
        Sections of the run.
    """
    times = np.unique(windows["time_s"].to_numpy(np.float64))
    by_role_s: dict[str, float] = {}
    if warmup_s == AUTO:
        ends = {role: _end_by_rule(windows[windows["role"] == role]) for role in ROLES}
        unsettled = tuple(role for role, end_s in ends.items() if end_s is None)
        by_role_s = {role: end_s for role, end_s in ends.items() if end_s is not None}
        if unsettled:
            return WarmUp(0, 0.0, by_role_s, unsettled)
        warmup_s = max(by_role_s.values())
    first_window = int(np.searchsorted(times, float(warmup_s)))
    if not first_window:
        return WarmUp(0, 0.0, by_role_s)
    # window w of W is in section w S // W; the first section that begins at or after the first window
    section = -(-min(first_window, times.size - 1) * n_sections // times.size)
    section = min(section, n_sections - 1)
    begin = -(-section * times.size // n_sections)
    return WarmUp(section, float(times[begin]), by_role_s)


def _end_by_rule(part: pd.DataFrame) -> float | None:
    """Return when a variant's warm-up ends by MSER-5 of its windows' mean latencies; None if not in the first half.

    Windows without answers say nothing, and are passed over; a variant without any has no warm-up.
    """
    known = part[part["ModelLatency_Average"].notna()]
    if known.empty:
        return 0.0
    end = mser5(known["ModelLatency_Average"].to_numpy(np.float64))
    return None if end is None else float(known["time_s"].iloc[end]) if end else 0.0


def cut(frames: Mapping[str, pd.DataFrame], warm: WarmUp) -> dict[str, pd.DataFrame]:
    """Return the frames of a run without its warm-up; sections are numbered from 0 again, times are not."""
    kept = dict(frames)
    for name, column in (("windows", "time_s"), ("requests", "arrival_s")):
        if name in kept:
            frame = kept[name]
            kept[name] = frame[frame[column] >= warm.from_s].reset_index(drop=True)
    if "latency" in kept:
        latency = kept["latency"][kept["latency"]["section"] >= warm.first_section]
        kept["latency"] = latency.assign(section=latency["section"] - warm.first_section).reset_index(drop=True)
    return kept
