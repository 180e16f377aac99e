"""Groups a run's windows for figures over time, and draws steps, bands, the time axis and overload.

Time is counted from the start of the run, as in the frames and in the verdict. A run of more than 500 windows is shown
in at most 500 groups of whole windows, which last a time that people can name: 3 minutes, half an hour, a day. The
subtitle of each figure gives the length of a group and what is drawn for it. A group without requests is a gap.

Where a pool is overloaded, the stretch is shaded, and the legend says OVERLOADED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]
from numpy.typing import NDArray

from shadowsim.arrays import Floats
from shadowsim.plots.style import BANDS, COLOURS, OVERLOAD_NAME, SHADE, SHADE_TEXT
from shadowsim.text import OVERLOADED
from shadowsim.verdict import PoolVerdict, Verdict, clock
from shadowsim.verdict import verdict as verdict_of

MAX_POINTS = 500
_UNITS = ((240.0, 1.0, "s"), (4 * 3600.0, 60.0, "min"), (80 * 3600.0, 3600.0, "h"), (np.inf, 86_400.0, "days"))
_SIZES = (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440)  # windows per group
_ALL = 0.95  # share of a run that is as good as all of it
_WIDTH = {"source": 2.6, "shadow": 1.3}  # the source stays visible below the shadow


@dataclass(frozen=True, slots=True)
class WindowGroups:
    """The windows of a run in groups of `size`.

    Attributes
    ----------
    windows : DataFrame
        A `frames.WINDOWS` frame.
    verdict : Verdict
    labels : mapping of str to str
        The name of each role in legends, in the order in which roles are shown.
    group : ndarray of int64, shape (rows of windows,)
        The group of each row.
    length_s : ndarray of float64, shape (rows of windows,)
        The length of each row's window.
    edge_s : ndarray of float64, shape (groups + 1,)
        Group g lasts from edge_s[g] to edge_s[g + 1].
    size : int
        Windows per group; the last group may have fewer.
    """

    windows: pd.DataFrame
    verdict: Verdict
    labels: Mapping[str, str]
    group: NDArray[np.int64]
    length_s: Floats
    edge_s: Floats
    size: int

    def aggregate(self, role: str, column: str, function: str) -> Floats:
        """Return an aggregate of each group's windows, NaN without values; `function` is a name in pandas: "sum"."""
        of_role = (self.windows["role"] == role).to_numpy()
        return self._by_group(self.windows[column].astype(float)[of_role], of_role, function)

    def mean(self, role: str, column: str) -> Floats:
        """Return the mean over time of each group."""
        of_role = (self.windows["role"] == role).to_numpy()
        values, length = self.windows[column].astype(float)[of_role], self.length_s[of_role]
        total = self._by_group(values * length, of_role, "sum")
        time = self._by_group(values.notna() * length, of_role, "sum")
        mean: Floats = np.divide(total, time, out=np.full(time.size, np.nan), where=time > 0)
        return mean

    def _by_group(self, values: pd.Series[float], of_role: NDArray[np.bool_], function: str) -> Floats:
        by_group = values.groupby(self.group[of_role]).agg(function).reindex(range(self.edge_s.size - 1))
        return np.array(by_group, np.float64)

    def at(self, time_s: Floats) -> Floats:
        """Return times in the unit of the time axis."""
        return time_s / self.unit[0]

    @property
    def edge(self) -> Floats:
        """The groups' edges in the unit of the time axis."""
        return self.at(self.edge_s)

    @property
    def unit(self) -> tuple[float, str]:
        """The unit of the time axis: its length in seconds, and its name."""
        return next((scale, name) for limit, scale, name in _UNITS if self.edge_s[-1] <= limit)

    @property
    def description(self) -> str:
        """The windows for which a point stands: "groups of 3 windows (3 min)"."""
        length = float(self.edge_s[1] - self.edge_s[0])
        scale, unit = (1, "s") if length <= 60 else (60, "min") if length < 7200 else (3600, "h")
        duration = f"{length / scale:g} {unit}"
        return f"windows of {duration}" if self.size == 1 else f"groups of {self.size} windows ({duration})"

    @property
    def spans(self) -> list[str]:
        """Start and end of each group: "00:00:00 to 00:03:00"."""
        return [f"{clock(a)} to {clock(b)}" for a, b in zip(self.edge_s[:-1], self.edge_s[1:], strict=True)]


def group_windows(
    windows: pd.DataFrame, verdict: Verdict, labels: Mapping[str, str], horizon_s: float | None
) -> WindowGroups:
    """Group the windows of a run by the smallest common size that gives at most `MAX_POINTS` groups.

    Parameters
    ----------
    windows : DataFrame
        A `frames.WINDOWS` frame.
    verdict : Verdict
    labels : mapping of str to str
        The name of each role in legends, in the order in which roles are shown.
    horizon_s : float or None
        End of the last window; None makes it as long as the median window.
    """
    start = np.unique(windows["time_s"].to_numpy(np.float64))
    period = float(np.median(np.diff(start))) if start.size > 1 else 60.0
    end = horizon_s if horizon_s is not None else float(start[-1]) + period
    needed = -(-start.size // MAX_POINTS)
    size = next((n for n in _SIZES if n >= needed), needed)
    number = np.searchsorted(start, windows["time_s"].to_numpy(np.float64))
    length = np.diff(np.append(start, end))[number]
    edge = np.append(start[::size], end)
    return WindowGroups(windows, verdict, labels, number // size, length, edge, size)


def window_groups(windows: pd.DataFrame, verdict: Verdict | None, horizon_s: float | None) -> WindowGroups:
    """Return the groups of a run's windows, labelled by variant; the verdict is that of the windows if left out."""
    verdict = verdict_of(windows) if verdict is None else verdict
    return group_windows(windows, verdict, labels_of(windows, verdict), horizon_s)


def labels_of(frame: pd.DataFrame, verdict: Verdict | None) -> dict[str, str]:
    """Return the name of each role of a frame, source first, with the word OVERLOADED where it applies.

    Names are escaped, since Plotly reads text as a subset of HTML.
    """
    overloaded = {p.role for p in verdict.pools if p.status == OVERLOADED} if verdict else set()
    names = frame.groupby("role")["variant"].first()
    return {
        role: f"{escape(str(names[role]))} ({role}{f', {OVERLOADED}' if role in overloaded else ''})"
        for role in COLOURS
        if role in names.index
    }


def steps(g: WindowGroups, values: Floats, role: str, hover: str, showlegend: bool = True) -> go.Scatter:
    """Return a horizontal line per group: there are no slopes between groups, and a lone group is visible."""
    line = {"color": COLOURS[role], "width": _WIDTH[role], "simplify": False}  # simplified steps can become slopes
    return go.Scatter(
        x=np.repeat(g.edge, 2)[1:-1], y=np.repeat(values, 2), text=np.repeat(g.spans, 2), name=g.labels[role],
        legendgroup=role, showlegend=showlegend, mode="lines", line=line,
        hovertemplate=f"{g.labels[role]}: {hover}, %{{text}}<extra></extra>",
    )  # fmt: skip


def band(
    g: WindowGroups, low: Floats, high: Floats, role: str, name: str = "lowest to highest", showlegend: bool = False
) -> go.Scatter:
    """Return polygons from low to high, one per stretch without gaps: Plotly's fill between lines ignores gaps."""
    x, y = [np.empty(0)], [np.empty(0)]
    present = np.flatnonzero(np.isfinite(low))
    for run in np.split(present, np.flatnonzero(np.diff(present) > 1) + 1) if present.size else []:
        across = np.repeat(g.edge[run[0] : run[-1] + 2], 2)[1:-1]
        x += [across, across[::-1], np.full(1, np.nan)]
        y += [np.repeat(high[run], 2), np.repeat(low[run], 2)[::-1], np.full(1, np.nan)]
    return go.Scatter(
        x=np.concatenate(x)[:-1], y=np.concatenate(y)[:-1], name=name, legendgroup=role, showlegend=showlegend,
        mode="lines", line={"width": 0}, fill="toself", fillcolor=BANDS[role], hoverinfo="skip",
    )  # fmt: skip


def with_time_axis(figure: go.Figure, g: WindowGroups) -> go.Figure:
    """Name the time axis, and shade where pools are overloaded."""
    unit = g.unit[1]
    figure.update_xaxes(range=[g.edge[0], g.edge[-1]], unifiedhovertitle_text=f"%{{x:.4~r}} {unit}")
    figure.update_xaxes(ticks="outside", minor={"ticks": "outside", "ticklen": 3, "nticks": 5, "showgrid": False})
    # Shared axes have their title below the last panel.
    list(figure.select_xaxes())[-1].update(title_text=f"time since the start of the run ({unit})")
    for i, pool in enumerate(p for p in g.verdict.pools if p.status == OVERLOADED):
        _shade(figure, g, pool, i)
    return figure


def _shade(figure: go.Figure, g: WindowGroups, pool: PoolVerdict, nth: int) -> None:
    """Shade a pool's stretches of overload across all panels, unless they are all of the run, and name the pool."""
    covered_s = sum(min(end, float(g.edge_s[-1])) - begin for begin, end in pool.stretches)
    all_of_it = covered_s > _ALL * (g.edge_s[-1] - g.edge_s[0])  # a shade of everything would show nothing
    for begin, end in () if all_of_it else pool.stretches:
        figure.add_shape(
            type="rect", x0=begin / g.unit[0], x1=min(end, float(g.edge_s[-1])) / g.unit[0], y0=0, y1=1,
            xref="x", yref="paper", fillcolor=SHADE, line={"width": 1, "color": SHADE}, layer="below",
        )  # fmt: skip
    stretches = f" ({pool.n_stretches} stretches)" if pool.n_stretches > 1 else " all the time" if all_of_it else ""
    figure.add_annotation(
        x=1, y=1, xref="paper", yref="paper", showarrow=False, xanchor="right", yanchor="bottom", yshift=2 + 16 * nth,
        text=f"{escape(pool.variant)} {OVERLOADED}{stretches}", font={"color": SHADE_TEXT, "size": 12},
        name=OVERLOAD_NAME,
    )  # fmt: skip
