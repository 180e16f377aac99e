"""Plots times to the first token, running sequences and use of caches of pools that serve tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.errors import InputError
from shadowsim.frames import FIRST_TOKEN, PREFIX_HIT, PREFIX_QUERIED, TIME_COLUMNS, TOKEN_WINDOWS
from shadowsim.plots.style import canvas, value_axis
from shadowsim.plots.time_axis import band, steps, window_groups, with_time_axis
from shadowsim.verdict import Verdict


def first_token_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot p99 and p50 of the time to the first token over time; parameters as in `latency_over_time`.

    Returns
    -------
    Figure
        Two panels, p99 above p50, in ms; one step per group of windows.

    Raises
    ------
    InputError
        When no variant serves tokens.
    """
    panels = [(f"{TIME_COLUMNS[FIRST_TOKEN]}_{level}", level, "ms", 1e-3) for level in ("p99", "p50")]
    return _over_time(windows, verdict, horizon_s, "Time to the first token", panels)


def sequences_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot an instance's running sequences and cache use over time; parameters as in `latency_over_time`.

    Returns
    -------
    Figure
        Two panels: the mean number of running sequences, and the mean share of the cache that they hold, in per cent.
        With prefix caches a third: the share of the prompts' tokens that were there.

    Raises
    ------
    InputError
        When no variant serves tokens.
    """
    panels = [("running_sequences_mean", "sequences", "per instance", 1.0), ("cache_use_mean", "cache use", "%", 100.0)]
    if PREFIX_HIT in windows.columns:
        hit, queried = (windows[name].to_numpy(np.float64, na_value=np.nan) for name in (PREFIX_HIT, PREFIX_QUERIED))
        share = np.divide(hit, queried, out=np.full(hit.size, np.nan), where=queried > 0)
        windows = windows.assign(prefix_hit_share=share)
        panels.append(("prefix_hit_share", "prefix hits", "%", 100.0))
    return _over_time(windows, verdict, horizon_s, "Running sequences and cache use", panels)


def _over_time(
    windows: pd.DataFrame,
    verdict: Verdict | None,
    horizon_s: float | None,
    title: str,
    panels: list[tuple[str, str, str, float]],
) -> go.Figure:
    """Plot columns one above the other; a panel is a column, its name, its unit and what makes that of the column."""
    if TOKEN_WINDOWS[0].name not in windows.columns:
        raise InputError("windows", "must be of a run with services in tokens")
    g = window_groups(windows, verdict, horizon_s)
    statistic = "" if g.size == 1 else ": the median window, in a band from the lowest to the highest"
    figure = canvas(title, f"{title} in {g.description}{statistic}.", rows=len(panels))
    for row, (column, name, unit, factor) in enumerate(panels, start=1):
        drawn = [np.empty(0)]
        for role in g.labels:
            low, mid, high = (g.aggregate(role, column, function) * factor for function in ("min", "median", "max"))
            if g.size > 1:
                figure.add_trace(band(g, low, high, role), row, 1)
            figure.add_trace(steps(g, mid, role, f"{name} %{{y:,.3~r}} {unit}", showlegend=row == 1), row, 1)
            drawn += [low, high]
        figure.update_yaxes(row=row, col=1, **value_axis(np.concatenate(drawn), name, unit))
    return with_time_axis(figure, g)
