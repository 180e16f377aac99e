"""Finds the warm-up of a run: the beginning, from an empty pool, that its figures should leave out.

MSER-5 (White, 1997) leaves out the beginning after which the mean of the rest is known best: of means of five windows,
Z_1 to Z_n, it leaves out the first d for which sum_{i > d} (Z_i - their mean)^2 / (n - d)^2 is least, with d at most
n / 2. Where the least is at n / 2, the run is too short to tell where its warm-up ends.
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
LEAST_BATCHES = 10


class WarmUp(NamedTuple):
    """The beginning of a run that its figures leave out, as whole sections; `too_short` tells why it is not known."""

    first_section: int
    from_s: float
    too_short: str = ""


NO_WARM_UP = WarmUp(0, 0.0)


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
    error = [float(np.var(z[d:])) / (n - d) for d in range(n // 2 + 1)]
    least = int(np.argmin(error))
    return None if least == n // 2 else least * BATCH


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
    if warmup_s == AUTO:
        left_out = [0]
        for role in ROLES:
            part = windows[windows["role"] == role]
            means = part["ModelLatency_Average"].to_numpy(np.float64, na_value=np.nan)
            means = means[~np.isnan(means)]
            if not means.size:
                continue
            found = mser5(means)
            if found is None:
                few = means.size < BATCH * LEAST_BATCHES
                why = (
                    f"{means.size} windows are fewer than {BATCH * LEAST_BATCHES}" if few else "it would be half of it"
                )
                return WarmUp(0, 0.0, f"is too short for its warm-up by MSER-5: {why}")
            left_out.append(found)
        first_window = max(left_out)
    else:
        first_window = int(np.searchsorted(times, float(warmup_s)))
    if not first_window:
        return NO_WARM_UP
    # window w of W is in section w S // W; the first section that begins at or after the first window
    section = -(-min(first_window, times.size - 1) * n_sections // times.size)
    section = min(section, n_sections - 1)
    begin = -(-section * times.size // n_sections)
    return WarmUp(section, float(times[begin]))


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
