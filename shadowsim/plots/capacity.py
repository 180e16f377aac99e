"""Draws metrics against the rate of the traffic, with their goals and the greatest rate."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.errors import InputError
from shadowsim.planning.slo import Slo
from shadowsim.plots.goal_axis import GoalTarget, TargetAxis, add_arrows, add_goal_line, goals_of
from shadowsim.plots.style import COLOURS, NO_LEGEND, canvas

_ERRORS = 2.0  # standard errors to either side of a mark
_PAD = 0.08  # of the rates' range, to either side of it


def latency_against_rate(frame: pd.DataFrame, slo: str | Slo | None = None) -> go.Figure:
    """Plot the metric of each goal against the rate, with the goal as a line.

    Parameters
    ----------
    frame : DataFrame
        The frame of `capacity`, with the rates that it tried in `frame.attrs["tried"]`.
    slo : str or Slo, optional
        The goals; by default those that decided.

    Returns
    -------
    Figure
        One panel per goal. The large mark is the answer of the goal's role, and the band its interval.

    Raises
    ------
    InputError
        If neither the frame nor `slo` has goals, or the frame lacks a goal's column or the rates that were tried.
    """
    goals = goals_of(frame, slo)
    every = pd.DataFrame(frame.attrs.get("tried", []))
    for goal in goals:
        if goal.column not in every:
            raise InputError("frame", f"needs the rates that `capacity` tried, with {goal.column}", str(goal))
    subtitle = "Large: means of several runs, with lines of 2 standard errors to either side. Band: the interval."
    figure = canvas("Latency against the rate", subtitle, rows=len(goals))
    for row, goal in enumerate(goals, start=1):
        tried = every[(every["role"] == goal.role) & every[goal.column].notna()].sort_values("rate_per_s")
        target, colour, errors = GoalTarget.of(goal), COLOURS[goal.role], f"{goal.column}_error"
        axis = TargetAxis.of(target, tried[goal.column])
        x, y, far = tried["rate_per_s"], axis.scaled(tried[goal.column]), axis.far(tried[goal.column])
        error = _ERRORS * axis.scale * tried[errors].to_numpy(np.float64)
        size = np.where(tried["replications"] > 1, 13, 7)
        values = axis.scale * tried[goal.column].to_numpy(np.float64)
        hover = f"%{{x:,.5~r}} requests/s: %{{customdata:,.4~r}} {axis.unit}<extra></extra>"
        figure.add_trace(
            go.Scatter(
                x=x, y=np.where(far, np.nan, y), name=escape(goal.role), showlegend=False, cliponaxis=False,
                mode="lines+markers",
                line={"color": colour, "width": 2}, marker={"color": colour, "opacity": 1.0, "size": size},
                error_y={"array": np.where(far, np.nan, error), "color": colour, "width": 4},
                customdata=values, hovertemplate=hover,
            ), row, 1,
        )  # fmt: skip
        add_arrows(figure, row, x[far], y[far], colour, values[far], hover)
        add_goal_line(figure, target, axis.scale, row, at="start")
        ends = frame.loc[frame["role"] == goal.role, ["low_per_s", "high_per_s"]].to_numpy(np.float64)
        for low, high in ends[np.isfinite(ends).all(axis=1)]:
            figure.add_vrect(low, high, row=row, col=1, fillcolor=colour, opacity=0.25, line_width=0)
        figure.update_yaxes(row=row, col=1, **axis.options)
    rates = np.append(every["rate_per_s"], frame["high_per_s"])
    rates = rates[np.isfinite(rates)]
    pad = _PAD * (rates.max() - rates.min() or rates.max())
    figure.update_xaxes(range=[max(rates.min() - pad, 0.0), rates.max() + pad])
    list(figure.select_xaxes())[-1].update(title_text="requests per second at the endpoint")
    return figure.update_layout(hovermode="closest", margin_l=75, **NO_LEGEND)
