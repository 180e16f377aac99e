"""Draws a run over time, and the distribution of its latencies.

Percentiles cannot be averaged. A group of windows shows the median of its windows' percentiles, in a band from the
lowest to the highest of them: a CloudWatch alarm with this period would have seen these values. time_axis.py groups
windows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.frames import of_measure
from shadowsim.plots.style import BANDS, COLOURS, GREY, canvas, log_axis, value_axis
from shadowsim.plots.time_axis import band, labels_of, steps, window_groups, with_time_axis
from shadowsim.verdict import Verdict

_WAIT_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_TAILS = {1.0: "100 %", 0.1: "10 % (p90)", 0.01: "1 % (p99)", 0.001: "0.1 % (p99.9)"}
_TAILS |= {10.0**-i: f"{100.0 * 10.0**-i:.{i - 2}f} %" for i in range(4, 13)}


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
    g = window_groups(windows, verdict, horizon_s)
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
                figure.add_trace(band(g, low, high, role), row, 1)
            line = steps(g, mid, role, hover, showlegend=row == 1)
            figure.add_trace(line.update(customdata=np.repeat(np.column_stack([low, high]), 2, axis=0)), row, 1)
            values += [low, high]
        figure.update_yaxes(row=row, col=1, **value_axis(np.concatenate(values), name, "ms"))
    return with_time_axis(figure, g)


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
    least = 1.0
    for role, label in labels_of(latency[latency["count"] > 0], verdict).items():
        edge, share = _tail(latency[latency["role"] == role])
        line = {"color": COLOURS[role], "width": 2, "dash": "solid" if role == "source" else "dash"}
        hover = f"{label}: %{{y:.3~p}} slower than %{{x:,.4~r}} ms<extra></extra>"
        figure.add_trace(go.Scatter(x=edge * 1e3, y=share, name=label, mode="lines", line=line, hovertemplate=hover))
        ends += [edge[0] * 1e3, edge[-1] * 1e3]
        least = min(least, float(share[-1]))
    figure.update_xaxes(title_text="ModelLatency (ms)", **log_axis(np.array(ends)))
    y_title, reach = "share of requests slower", [min(np.log10(least) - 0.1, -1.1), 0.1]
    figure.update_yaxes(type="log", title_text=y_title, tickvals=[*_TAILS], ticktext=[*_TAILS.values()], range=reach)
    return figure.update_layout(hovermode="closest", showlegend=True)


def utilisation(windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None) -> go.Figure:
    """Plot utilisation and offered load of both pools over time; parameters as in `latency_over_time`.

    Returns
    -------
    Figure
        One panel per pool: the share of the workers' time spent working, and the work that arrived relative to that
        time; means over time of each group of windows. The line at 100 % is the capacity.
    """
    g = window_groups(windows, verdict, horizon_s)
    subtitle = (
        f"Line: share of the workers' time spent working. Pale and wide below it: work that arrived. Means of "
        f"{g.description}."
    )
    figure = canvas("Utilisation and offered load", subtitle, rows=2)
    top = 1.0
    for row, role in enumerate(g.labels, start=1):
        for column, line in (("offered_load", {"width": 7, "color": BANDS[role]}), ("utilisation", {"width": 1.6})):
            values = g.mean(role, column)
            top = np.nanmax(values, initial=top)
            hover = f"{column.replace('_', ' ')} %{{y:.1%}}"
            figure.add_trace(steps(g, values, role, hover, column == "utilisation").update(line=line), row, 1)
        figure.add_hline(1.0, row=row, col=1, line={"color": GREY, "width": 1})
        figure.update_yaxes(title_text=f"{role}, of capacity", row=row, col=1)
    return with_time_axis(figure, g).update_yaxes(tickformat=".0%", range=[0.0, 1.08 * float(top)])


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
    g = window_groups(windows, verdict, horizon_s)
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
        [band(g, low, high, "source", name="configured share ± 2 standard errors", showlegend=True), dots]
    )
    figure.add_hline(share, line={"color": COLOURS["source"], "width": 1})
    shares = np.concatenate([n_copies / n, low, high, [share]])
    least, greatest = float(np.nanmin(shares)), float(np.nanmax(shares))
    pad = max(0.1 * (greatest - least), 0.005)
    below, above = pad if least > 0.0 else pad / 10.0, pad if greatest < 1.0 else pad / 10.0
    figure.update_yaxes(title_text="share copied", tickformat=".3~p", range=[least - below, greatest + above])
    return with_time_axis(figure, g).update_layout(hovermode="closest")


def requests_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot requests per second of both variants over time; parameters as in `latency_over_time`."""
    g = window_groups(windows, verdict, horizon_s)
    figure = canvas("Requests over time", f"Means of {g.description}. The shadow's requests are copies.")
    for role in g.labels:
        rate = g.aggregate(role, "Invocations", "sum") / np.diff(g.edge_s)
        figure.add_trace(steps(g, rate, role, "%{y:,.3~r} requests/s"))
    figure.update_yaxes(title_text="requests per second", rangemode="tozero", separatethousands=True)
    return with_time_axis(figure, g)


def waits_over_time(windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None) -> go.Figure:
    """Plot the mean wait of both variants over time; parameters as in `latency_over_time`.

    Latencies end at the time-out, and waits do not: those of an overloaded pool grow as its backlog does.
    """
    g = window_groups(windows, verdict, horizon_s)
    figure = canvas("Waits over time", f"Mean time in the queue, which no time-out ends. Means of {g.description}.")
    waits_s = {role: g.mean(role, "wait_mean_s") for role in g.labels}
    longest_s = float(np.nanmax(np.concatenate(list(waits_s.values())), initial=0.0))
    unit_s, unit = next(((s, name) for s, name in _WAIT_UNITS if longest_s >= 2.0 * s), _WAIT_UNITS[-1])
    for role, wait_s in waits_s.items():
        figure.add_trace(steps(g, wait_s / unit_s, role, f"%{{y:,.3~r}} {unit}"))
    figure.update_yaxes(title_text=f"mean wait ({unit})", rangemode="tozero", separatethousands=True)
    return with_time_axis(figure, g)


def _tail(part: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return edges of a variant's buckets and the share of its requests above them, where that share is not 0."""
    bucket = part.groupby(["low_s", "high_s"], as_index=False)["count"].sum()
    high = bucket["high_s"].to_numpy(np.float64)
    edge = np.unique(np.concatenate([bucket["low_s"].to_numpy(np.float64), high]))
    below = np.concatenate([[0], np.cumsum(bucket["count"].to_numpy(np.int64))])
    above = below[-1] - below[np.searchsorted(high, edge, side="right")]
    return edge[above > 0], above[above > 0] / below[-1]
