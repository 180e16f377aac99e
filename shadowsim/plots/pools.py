"""Draws pools that scale, fail and batch, and callers that retry, over time.

These figures need the columns `frames.EVENT_WINDOWS`, which runs with scaling, batching, outages or retries have, and
show scaling actions and outages at their exact times, which `Result.actions` lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim import frames
from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.plots.style import COLOURS, GREY, INK, SHADE_TEXT, canvas
from shadowsim.plots.time_axis import WindowGroups, band, steps, window_groups, with_time_axis
from shadowsim.verdict import Verdict, clock

_MOST_MARKS = 500  # outages of a pool that are marked one by one
_NUMBERS = {  # column: its name in the legend, and its line
    "existing_instance_count": ("existing (billed)", {"color": GREY, "width": 1.2, "dash": "dot"}),
    "desired_instance_count": ("desired", {"color": INK, "width": 1.2, "dash": "dash"}),
    "serving_instance_count": ("serving", {"width": 2.2}),
}
_FAILURES = {"unavailable": "dot", "lost in an outage": "dash", "other errors": "solid"}


def has_events(windows: pd.DataFrame) -> bool:
    """Return whether a `frames.WINDOWS` frame has the columns of pools that scale, batch, fail or are retried."""
    return frames.EVENT_WINDOWS[0].name in windows.columns


def instances_over_time(
    windows: pd.DataFrame,
    actions: pd.DataFrame | None = None,
    verdict: Verdict | None = None,
    horizon_s: float | None = None,
) -> go.Figure:
    """Plot desired, serving and existing instances of both pools over time.

    Parameters
    ----------
    windows : DataFrame
        A `frames.WINDOWS` frame with the columns of `frames.EVENT_WINDOWS`.
    actions : DataFrame, optional
        A `frames.ACTIONS` frame: its scaling actions and outages are marked at their exact times.
    verdict, horizon_s
        As in `latency_over_time`: where a pool was too small, as the verdict names it, the figure is shaded.

    Returns
    -------
    Figure
        One panel per pool. Serving and existing instances are means over time of each group of windows, the desired
        number is that at its end.

    Raises
    ------
    InputError
        When the run has no events.
    """
    _check_events(windows)
    g = window_groups(windows, verdict, horizon_s)
    actions = frames.empty(frames.ACTIONS) if actions is None else actions
    crowded = [role for role in g.labels if len(_of(actions, role, frames.OUTAGE)) > _MOST_MARKS]
    note = f" More than {_MOST_MARKS} outages of the {' and the '.join(crowded)} are not marked." if crowded else ""
    subtitle = f"Means of {g.description}; desired: at their end. Triangles: scaling. Crosses: outages.{note}"
    figure = canvas("Instances over time", subtitle, rows=len(g.labels))
    for row, role in enumerate(g.labels, start=1):
        top = 1.0
        for column, (name, line) in _NUMBERS.items():
            last = column == "desired_instance_count"
            values = g.aggregate(role, column, "last") if last else g.mean(role, column)
            top = np.nanmax(values, initial=top)
            trace = steps(g, values, role, f"%{{y:,.3~r}} {name}", showlegend=row == 1)
            figure.add_trace(trace.update(name=name, legendgroup=name, line=line), row, 1)
        _mark_scaling(figure, g, actions, role, row)
        if role not in crowded:
            _mark_outages(figure, g, actions, role, row)
        figure.update_yaxes(
            title_text=f"{role}, instances", range=[-0.04 * float(top), 1.12 * float(top)], row=row, col=1
        )
        if top < 8.0:
            figure.update_yaxes(dtick=1, row=row, col=1)
    return with_time_axis(figure, g)


def failures_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot the share of requests that failed over time, by cause; parameters as in `instances_over_time`.

    Returns
    -------
    Figure
        One panel per pool: requests that came while no instance served, those lost in an outage, and all other errors:
        answers 4XX and 5XX, the endpoint's time-outs and refusals. It does not notice a caller who gives up.
    """
    _check_events(windows)
    g = window_groups(windows, verdict, horizon_s)
    subtitle = f"Shares of the requests that arrived in {g.description}, retries among them."
    figure = canvas("Failed requests", subtitle, rows=len(g.labels))
    for row, role in enumerate(g.labels, start=1):
        n, top = g.aggregate(role, "Invocations", "sum"), 0.0
        unavailable, lost, errors = (
            g.aggregate(role, column, "sum")
            for column in ("requests_unavailable", "requests_failed", "InvocationModelErrors")
        )
        lost = np.nan_to_num(lost)
        for (name, dash), count in zip(_FAILURES.items(), (unavailable, lost, errors - lost), strict=True):
            share = np.divide(count, n, out=np.full(n.size, np.nan), where=n > 0)
            top = np.nanmax(share, initial=top)
            trace = steps(g, share, role, f"{name} %{{y:.2~%}}", showlegend=row == 1)
            trace.update(name=name, legendgroup=name, line={"dash": dash, "width": 1.8})
            figure.add_trace(trace, row, 1)
        axis = {"range": [0.0, 1.08 * float(top) or 0.01], "tickformat": ".3~p"}
        figure.update_yaxes(title_text=f"{role}, share failed", row=row, col=1, **axis)
    return with_time_axis(figure, g)


def callers_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot what callers that retry send and get over time; parameters as in `instances_over_time`.

    Returns
    -------
    Figure
        Above, the callers' requests per second and the attempts that they made of them; below, the share of requests
        that ended with an answer 2XX, in the windows of their first attempts.
    """
    _check_events(windows)
    g = window_groups(windows, verdict, horizon_s)
    figure = canvas("Callers that retry", f"In {g.description}. Success counts all attempts of a request.", rows=2)
    calls, answered, attempts = (
        g.aggregate("source", column, "sum") for column in ("calls", "calls_answered", "Invocations")
    )
    length = np.diff(g.edge_s)
    for name, count, line in (
        ("attempts", attempts, {"color": COLOURS["source"], "width": 2.2}),
        ("requests", calls, {"color": INK, "width": 1.2, "dash": "dash"}),
    ):
        trace = steps(g, count / length, "source", f"%{{y:,.3~r}} {name}/s")
        figure.add_trace(trace.update(name=name, legendgroup=name, line=line), 1, 1)
    success = np.divide(answered, calls, out=np.full(calls.size, np.nan), where=calls > 0)
    figure.add_trace(steps(g, success, "source", "%{y:.2%} succeeded", showlegend=False), 2, 1)
    figure.update_yaxes(title_text="per second", rangemode="tozero", separatethousands=True, row=1, col=1)
    figure.update_yaxes(title_text="succeeded", tickformat=".3~p", row=2, col=1, range=_share_range(success))
    return with_time_axis(figure, g)


def batch_size_over_time(
    windows: pd.DataFrame, verdict: Verdict | None = None, horizon_s: float | None = None
) -> go.Figure:
    """Plot the mean size of batches over time; parameters as in `instances_over_time`.

    Returns
    -------
    Figure
        One line per pool; those that do not batch have size 1 or none.
    """
    _check_events(windows)
    g = window_groups(windows, verdict, horizon_s)
    statistic = "" if g.size == 1 else ": the median window, in a band from the lowest to the highest"
    figure = canvas("Batch size", f"Mean size of the batches in {g.description}{statistic}.")
    for role in g.labels:
        low, mid, high = (g.aggregate(role, "batch_size_mean", function) for function in ("min", "median", "max"))
        if g.size > 1:
            figure.add_trace(band(g, low, high, role))
        figure.add_trace(steps(g, mid, role, "mean size %{y:.3~r}"))
    figure.update_yaxes(title_text="requests per batch", rangemode="tozero")
    return with_time_axis(figure, g)


def _check_events(windows: pd.DataFrame) -> None:
    if not has_events(windows):
        raise InputError("windows", "must be of a run with scaling, batching, outages or retries")


def action_text(action: Any) -> str:
    """Describe a row of a `frames.ACTIONS` frame, a named tuple."""
    if action.action == frames.OUTAGE:
        end = "never to return" if np.isnan(action.done_s) else f"until {clock(action.done_s)}"
        return f"instance {action.instance} fails, {end}"
    decided = f"at {action.metric_value:,.4g} per instance, decided at {clock(action.decided_s)}"
    return f"{action.action.replace('_', ' ')} from {action.desired_before} to {action.desired_after} {decided}"


def _of(actions: pd.DataFrame, role: str, *kinds: str) -> pd.DataFrame:
    return actions[(actions["role"] == role) & actions["action"].isin(kinds)]


def _mark_scaling(figure: go.Figure, g: WindowGroups, actions: pd.DataFrame, role: str, row: int) -> None:
    """Put a triangle on the desired number at each scaling action, which points up or down."""
    rows = _of(actions, role, frames.SCALE_OUT, frames.SCALE_IN)
    symbol = np.where(rows["action"] == frames.SCALE_OUT, "triangle-up", "triangle-down")
    _mark(figure, g, rows, "desired_after", "scaling", {"symbol": symbol, "size": 8, "color": INK}, row)


def _mark_outages(figure: go.Figure, g: WindowGroups, actions: pd.DataFrame, role: str, row: int) -> None:
    """Put a cross at each outage, and a line from it to the repair."""
    rows = _of(actions, role, frames.OUTAGE)
    if rows.empty:
        return
    nothing = np.full(len(rows), np.nan)
    begin, y = rows["time_s"].to_numpy(np.float64), rows["serving_after"].to_numpy(np.float64)
    end = rows["done_s"].fillna(rows["time_s"]).to_numpy(np.float64)
    line = go.Scatter(
        x=g.at(np.column_stack([begin, end, nothing]).ravel()), y=np.column_stack([y, y, nothing]).ravel(),
        mode="lines", name="outage", line={"color": SHADE_TEXT, "width": 4}, legendgroup="outage", showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_trace(line, row, 1)
    _mark(figure, g, rows, "serving_after", "outage", {"symbol": "x", "size": 9, "color": SHADE_TEXT}, row)


def _mark(
    figure: go.Figure, g: WindowGroups, rows: pd.DataFrame, y: str, name: str, marker: dict[str, object], row: int
) -> None:
    if rows.empty:
        return
    text = [f"{clock(r.time_s)}: {action_text(r)}" for r in rows.itertuples()]  # type: ignore[arg-type]
    named = {trace.name for trace in figure.data if trace.showlegend}
    marks = go.Scatter(
        x=g.at(rows["time_s"].to_numpy(np.float64)), y=rows[y].to_numpy(np.float64), mode="markers", name=name,
        text=text, marker=marker, legendgroup=name, showlegend=name not in named, cliponaxis=False,
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_trace(marks, row, 1)


def _share_range(share: Floats) -> list[float]:
    """Return the range of an axis for shares near 1, at least one per cent of the whole."""
    low = float(np.nanmin(share, initial=0.99))
    pad = 0.06 * (1.0 - low)
    return [max(low - pad, -pad), 1.0 + pad]
