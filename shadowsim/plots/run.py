"""Draws a run over time, and the distribution of its latencies.

Time is counted from the start of the run, as in the frames and in the verdict. A run of more than 500 windows is shown
in at most 500 groups of whole windows, which last a time that people can name: 3 minutes, half an hour, a day. The
subtitle of each figure gives the length of a group and what is drawn for it. A group without requests is a gap.

Percentiles cannot be averaged. A group shows the median of its windows' percentiles, in a band from the lowest to the
highest of them: a CloudWatch alarm with this period would have seen these values.

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
from shadowsim.frames import of_measure
from shadowsim.plots.style import BANDS, COLOURS, GREY, SHADE, SHADE_TEXT, canvas, log_axis, value_axis
from shadowsim.text import OVERLOADED
from shadowsim.verdict import PoolVerdict, Verdict, clock
from shadowsim.verdict import verdict as verdict_of

MAX_POINTS = 500
_UNITS = ((240.0, 1.0, "s"), (4 * 3600.0, 60.0, "min"), (80 * 3600.0, 3600.0, "h"), (np.inf, 86_400.0, "days"))
_SIZES = (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440)  # windows per group
_TAILS = {1.0: "100 %", 0.1: "10 % (p90)", 0.01: "1 % (p99)", 0.001: "0.1 % (p99.9)"}
_TAILS |= {10.0**-i: f"10<sup>−{i}</sup>" for i in range(4, 13)}
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

    @property
    def edge(self) -> Floats:
        """The groups' edges in the unit of the time axis."""
        return self.edge_s / self.unit[0]

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


def latency_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot p99 and p50 of ModelLatency over time, both variants.

    Parameters
    ----------
    windows : DataFrame
        A `frames.WINDOWS` frame.
    verdict : Verdict, optional
        Gives the stretches to shade; by default it is computed from the windows alone, and `Result.verdict` knows more.
    horizon_s : float, optional
        End of the last window; by default it is as long as the others, and a single window 60 s.

    Returns
    -------
    Figure
        Two panels, p99 above p50, in ms; one step per group of windows.
    """
    g = _window_groups(windows, verdict, horizon_s)
    single = g.size == 1
    statistic = "" if single else ": the median window, in a band from the lowest to the highest"
    figure = canvas("Latency over time", f"ModelLatency in {g.description}{statistic}.", rows=2)
    for row, name in ((1, "p99"), (2, "p50")):
        values = [np.empty(0)]
        for role in g.labels:
            low, mid, high = (
                g.aggregate(role, f"ModelLatency_{name}", function) / 1e3 for function in ("min", "median", "max")
            )
            hover = f"{name} %{{y:,.3~r}} ms"
            if not single:
                hover += " (%{customdata[0]:,.3~r} to %{customdata[1]:,.3~r})"
                figure.add_trace(_band(g, low, high, role), row, 1)
            line = _steps(g, mid, role, hover, showlegend=row == 1)
            figure.add_trace(line.update(customdata=np.repeat(np.column_stack([low, high]), 2, axis=0)), row, 1)
            values += [low, high]
        figure.update_yaxes(row=row, col=1, **value_axis(np.concatenate(values), name, "ms"))
    return _with_time_axis(figure, g)


def latency_distribution(latency: pd.DataFrame, verdict: Verdict | None = None) -> go.Figure:
    """Plot the share of requests slower than x: the complementary distribution of ModelLatency, on logarithmic axes.

    Parameters
    ----------
    latency : DataFrame
        A `frames.LATENCY` frame, whose sections are added up. Rows of other measures are left out.
    verdict : Verdict, optional
        Lets the legend mark overloaded variants, which a latency frame alone does not show.

    Returns
    -------
    Figure
        One line per variant that answered, exact at the edges of the buckets.
    """
    subtitle = "Both axes are logarithmic. Exact at the edges of the histogram's buckets, which are at most 0.8 % wide."
    figure = canvas("Latency distribution", subtitle)
    latency = of_measure(latency)
    ends: list[float] = []
    for role, label in _labels(latency[latency["count"] > 0], verdict).items():
        edge, share = _tail(latency[latency["role"] == role])
        line = {"color": COLOURS[role], "width": 2, "dash": "solid" if role == "source" else "dash"}
        hover = f"{label}: %{{y:.3~p}} slower than %{{x:,.4~r}} ms<extra></extra>"
        figure.add_trace(go.Scatter(x=edge * 1e3, y=share, name=label, mode="lines", line=line, hovertemplate=hover))
        ends += [edge[0] * 1e3, edge[-1] * 1e3]
    figure.update_xaxes(title_text="ModelLatency (ms)", **log_axis(np.array(ends)))
    y_title = "share of requests slower"
    figure.update_yaxes(type="log", title_text=y_title, tickvals=[*_TAILS], ticktext=[*_TAILS.values()])
    return figure.update_layout(hovermode="closest", showlegend=True)


def utilisation(windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None) -> go.Figure:
    """Plot utilisation and offered load of both pools over time; parameters as in `latency_over_time`.

    Returns
    -------
    Figure
        One panel per pool: the share of the workers' time spent working, and the work that arrived relative to that
        time; means over time of each group of windows. The line at 100 % is the capacity.
    """
    g = _window_groups(windows, verdict, horizon_s)
    subtitle = f"Solid: share of the workers' time spent working. Dotted: work that arrived. Means of {g.description}."
    figure = canvas("Utilisation and offered load", subtitle, rows=2)
    top = 1.0
    for row, role in enumerate(g.labels, start=1):
        for column, dash in (("offered_load", "dot"), ("utilisation", "solid")):
            values = g.mean(role, column)
            top = np.nanmax(values, initial=top)
            hover = f"{column.replace('_', ' ')} %{{y:.1%}}"
            figure.add_trace(_steps(g, values, role, hover, dash == "solid").update(line_dash=dash), row, 1)
        figure.add_hline(1.0, row=row, col=1, line={"color": GREY, "width": 1})
        figure.update_yaxes(title_text=f"{role}, of capacity", row=row, col=1)
    return _with_time_axis(figure, g).update_yaxes(tickformat=".0%", range=[0.0, 1.08 * float(top)])


def copies(
    windows: pd.DataFrame, share: float, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot the copies made as a share of the source's requests, against the configured share.

    Parameters
    ----------
    windows, verdict, horizon_s
        As in `latency_over_time`.
    share : float
        SamplingPercentage / 100.

    Returns
    -------
    Figure
        One dot per group of windows. The band is share ± 2 sqrt(share (1 - share) / n), where n is the group's number
        of source requests: the range that chance explains if each request is copied independently.
    """
    g = _window_groups(windows, verdict, horizon_s)
    chance = " Chance puts about 1 dot in 20 outside." if 0.0 < share < 1.0 else ""
    figure = canvas("Copies made", f"In {g.description}. Band: {100 * share:g} % ± 2 standard errors.{chance}")
    n, n_copies = g.aggregate("source", "Invocations", "sum"), g.aggregate("shadow", "copies_made", "sum")
    n = np.where(n > 0, n, np.nan)
    error = 2.0 * np.sqrt(share * (1.0 - share) / n)
    low, high = np.maximum(share - error, 0.0), np.minimum(share + error, 1.0)
    text = [f"{c:,.0f} of {k:,.0f}<br>{span}" for c, k, span in zip(n_copies, n, g.spans, strict=True)]
    dots = go.Scatter(
        x=(g.edge[1:] + g.edge[:-1]) / 2.0, y=n_copies / n, text=text, name="copies made", mode="markers",
        marker={"color": COLOURS["shadow"], "size": 4}, hovertemplate="%{y:.2%}, %{text}<extra></extra>",
    )  # fmt: skip
    figure.add_traces(
        [_band(g, low, high, "source", name="configured share ± 2 standard errors", showlegend=True), dots]
    )
    figure.add_hline(share, line={"color": COLOURS["source"], "width": 1})
    shares = np.concatenate([n_copies / n, low, high, [share]])
    least, greatest = float(np.nanmin(shares)), float(np.nanmax(shares))
    pad = max(0.1 * (greatest - least), 0.005)
    below, above = pad if least > 0.0 else pad / 10.0, pad if greatest < 1.0 else pad / 10.0
    figure.update_yaxes(title_text="share copied", tickformat=".3~p", range=[least - below, greatest + above])
    return _with_time_axis(figure, g).update_layout(hovermode="closest")


def requests_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot requests per second of both variants over time; parameters as in `latency_over_time`."""
    g = _window_groups(windows, verdict, horizon_s)
    figure = canvas("Requests over time", f"Means of {g.description}. The shadow's requests are copies.")
    for role in g.labels:
        rate = g.aggregate(role, "Invocations", "sum") / np.diff(g.edge_s)
        figure.add_trace(_steps(g, rate, role, "%{y:,.3~r} requests/s"))
    figure.update_yaxes(title_text="requests per second", rangemode="tozero", separatethousands=True)
    return _with_time_axis(figure, g)


def _window_groups(windows: pd.DataFrame, verdict: Verdict | None, horizon_s: float | None) -> WindowGroups:
    verdict = verdict_of(windows) if verdict is None else verdict
    return group_windows(windows, verdict, _labels(windows, verdict), horizon_s)


def _labels(frame: pd.DataFrame, verdict: Verdict | None) -> dict[str, str]:
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


def _tail(part: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return edges of a variant's buckets and the share of its requests above them, where that share is not 0."""
    bucket = part.groupby(["low_s", "high_s"], as_index=False)["count"].sum()
    high = bucket["high_s"].to_numpy(np.float64)
    edge = np.unique(np.concatenate([bucket["low_s"].to_numpy(np.float64), high]))
    below = np.concatenate([[0], np.cumsum(bucket["count"].to_numpy(np.int64))])
    above = below[-1] - below[np.searchsorted(high, edge, side="right")]
    return edge[above > 0], above[above > 0] / below[-1]


def _steps(g: WindowGroups, values: Floats, role: str, hover: str, showlegend: bool = True) -> go.Scatter:
    """Return a horizontal line per group: there are no slopes between groups, and a lone group is visible."""
    return go.Scatter(
        x=np.repeat(g.edge, 2)[1:-1], y=np.repeat(values, 2), text=np.repeat(g.spans, 2), name=g.labels[role],
        legendgroup=role, showlegend=showlegend, mode="lines", line={"color": COLOURS[role], "width": _WIDTH[role]},
        hovertemplate=f"{g.labels[role]}: {hover}, %{{text}}<extra></extra>",
    )  # fmt: skip


def _band(
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


def _with_time_axis(figure: go.Figure, g: WindowGroups) -> go.Figure:
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
    """Shade a pool's stretches of overload across all panels, and name the pool above them."""
    for begin, end in pool.stretches:
        figure.add_shape(
            type="rect", x0=begin / g.unit[0], x1=min(end, float(g.edge_s[-1])) / g.unit[0], y0=0, y1=1,
            xref="x", yref="paper", fillcolor=SHADE, line={"width": 0}, layer="below",
        )  # fmt: skip
    stretches = f" ({pool.n_stretches} stretches)" if pool.n_stretches > 1 else ""
    figure.add_annotation(
        x=1, y=1, xref="paper", yref="paper", showarrow=False, xanchor="right", yanchor="bottom", yshift=2 + 16 * nth,
        text=f"{escape(pool.variant)} {OVERLOADED}{stretches}", font={"color": SHADE_TEXT, "size": 12},
    )  # fmt: skip
