"""Draws latency against the number of instances, and the cost frontier of designs.

A value far beyond its goal is not drawn to scale but as an arrow at the upper edge. Mostly it belongs to an
overloaded pool, whose latency depends on the length of the run.
"""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError
from shadowsim.planning.sheet import FIXED, comparable_usd
from shadowsim.planning.slo import Goal, Slo
from shadowsim.plots.goal_axis import GoalTarget, TargetAxis, add_arrows, add_goal_line, goals_of
from shadowsim.plots.style import COLOURS, GREY, INK, KINDS, NO_LEGEND, SYMBOLS, canvas, value_axis

_ERRORS = 2.0  # standard errors to either side of a mark
_COUNTS = ["instance_type", "instance_count", "value", "error", "cost_usd", "answer"]


def latency_against_instances(frame: pd.DataFrame, slo: str | Slo | None = None) -> go.Figure:
    """Plot the metric of each goal against the number of instances, with the goal as a line.

    Parameters
    ----------
    frame : DataFrame
        The frame of `size`: its answers, and the other counts that it tried if `frame.attrs["tried"]` has them
        (records with the columns role, instance_type, instance_count, cost_usd and those of the goals). Or the frame of
        `sweep` over `shadow.instance_count` and perhaps `shadow.instance_type`, or over those of the source.
    slo : str or Slo, optional
        The goals; by default those that decided the answers of `size`.

    Returns
    -------
    Figure
        One panel per goal and one line per instance type, with two standard errors to either side of a mark. Large
        marks are answers.

    Raises
    ------
    InputError
        If neither the frame nor `slo` has goals, the frame lacks a goal's column, or it varies in more than instances.
    """
    goals = goals_of(frame, slo)
    counts = {goal: _counts(frame, goal) for goal in goals}
    several = len({(goal.role, kind) for goal in goals for kind in counts[goal]["instance_type"]}) > 1
    figure = canvas("Latency against instances", "Lines reach 2 standard errors to either side.", rows=len(goals))
    for row, goal in enumerate(goals, start=1):
        target = GoalTarget.of(goal)
        axis = TargetAxis.of(target, counts[goal]["value"])
        for i, (kind, part) in enumerate(counts[goal].groupby("instance_type", sort=False)):
            colour = KINDS[i % len(KINDS)] if several else COLOURS[goal.role]
            y, error = axis.scaled(part["value"]), _ERRORS * axis.scale * part["error"].to_numpy(np.float64)
            far, values = axis.far(part["value"]), axis.scale * part["value"].to_numpy(np.float64)
            hover = f"%{{x}} × {escape(str(kind))}: %{{customdata:,.4~r}} {axis.unit}<extra></extra>"
            figure.add_trace(
                go.Scatter(
                    x=part["instance_count"], y=np.where(far, np.nan, y), name=escape(str(kind)),
                    legendgroup=str(kind), cliponaxis=False,
                    showlegend=several and row == 1, mode="lines+markers", line={"color": colour, "width": 2},
                    marker={
                        "symbol": SYMBOLS[i % len(SYMBOLS)], "color": colour, "opacity": 1.0,
                        "size": np.where(part["answer"], 13, 8),
                    },
                    error_y={"array": np.where(far, np.nan, error), "color": colour, "width": 4},
                    customdata=values, hovertemplate=hover,
                ), row, 1,
            )  # fmt: skip
            add_arrows(figure, row, part["instance_count"][far], y[far], colour, values[far], hover)
        add_goal_line(figure, target, axis.scale, row)
        figure.update_yaxes(row=row, col=1, **axis.options)
    most = max([int(part["instance_count"].max()) for part in counts.values() if len(part)], default=1)
    figure.update_xaxes(range=[0.5, most + 0.5], tickformat="d", dtick=max(1, most // 12))
    list(figure.select_xaxes())[-1].update(title_text="instances")
    return figure.update_layout(hovermode="closest", margin_l=75, **({} if several else NO_LEGEND))


def cost_frontier(frame: pd.DataFrame, goal: str | Slo | float | None = None) -> go.Figure:
    """Plot the metric of designs against their cost, and mark the cheapest that meets the goal.

    Parameters
    ----------
    frame : DataFrame
        The frame of `size`, of which the first goal's metric is shown for all counts that were tried; or that of
        `plan`, of which the power is shown.
    goal : str, Slo or float, optional
        The goals of `size`, by default those that decided its answers; or the power that `plan` was asked for, which
        by default is not shown.

    Returns
    -------
    Figure
        One mark per design, filled if it meets the goal. The line joins the designs that are better than every cheaper
        one. Designs without a known price are left out and counted in the subtitle.

    Raises
    ------
    InputError
        As for `latency_against_instances`.
    """
    points, target = _plan_points(frame, goal) if "power" in frame else _size_points(frame, goal)
    known = points[points["cost_usd"].notna() & points["value"].notna()]
    known = known.sort_values("cost_usd", key=comparable_usd, kind="stable")
    n_left_out = len(points) - len(known)
    subtitle = "Filled: meets the goal. Line: no cheaper design is as good."
    if n_left_out:
        subtitle += f" Left out: {n_left_out} without a price or a value."
    figure = canvas("Cost frontier", subtitle)
    axis = TargetAxis.of(target, known["value"])
    x, y, meets = known["cost_usd"].to_numpy(np.float64), axis.scaled(known["value"]), known["meets"].to_numpy(bool)
    best = (np.minimum if target.is_upper_limit else np.maximum).accumulate(known["value"].to_numpy(np.float64))
    step = np.append(True, best[1:] != best[:-1]) if best.size else np.zeros(0, bool)
    line = {"color": GREY, "width": 1, "shape": "hv"}
    figure.add_trace(
        go.Scatter(x=x[step], y=y[step], mode="lines", line=line, name="frontier", hoverinfo="skip", showlegend=False)
    )
    colour, far = COLOURS["shadow"], axis.far(known["value"])
    hover = f"%{{customdata[0]}}: %{{x:,.2f}} USD, %{{customdata[1]:,.4~r}} {axis.unit}<extra></extra>"
    values = np.column_stack([known["design"], axis.scale * known["value"]])
    for mark, name, symbol in ((meets, "meets the goal", "circle"), (~meets, "misses it", "circle-open")):
        near = mark & ~far
        figure.add_trace(
            go.Scatter(
                x=x[near], y=y[near], mode="markers", name=name, cliponaxis=False, customdata=values[near],
                marker={"symbol": symbol, "size": 10, "color": colour, "opacity": 1.0,
                        "line": {"width": 2, "color": colour}},
                hovertemplate=hover,
            )
        )  # fmt: skip
    add_arrows(figure, 1, x[far], y[far], colour, values[far], hover)
    if meets.any():
        first = int(np.argmax(meets))
        figure.add_trace(
            go.Scatter(
                x=x[[first]], y=y[[first]], mode="markers", hoverinfo="skip", cliponaxis=False,
                name=f"<b>cheapest that does: {known['design'].iloc[first]}, {x[first]:,.2f} USD</b>",
                marker={"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 2}},
            )
        )  # fmt: skip
    if np.isfinite(target.limit):
        steep = x[np.argmax(meets)] if meets.any() else 0.0  # where the line may cross the goal
        add_goal_line(figure, target, axis.scale, 1, at="start" if steep > 0.5 * np.max(x, initial=0.0) else "end")
    length_s = frame.attrs.get("duration_s")
    cost = f"cost of {duration_text(length_s)}" if length_s else "cost of the test"
    figure.update_yaxes(**axis.options).update_xaxes(**value_axis(x, cost, "USD"))
    return figure.update_layout(hovermode="closest", margin_l=75)


def _counts(frame: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Return one row per type and count that was an answer, tried or swept, with the goal's metric."""
    if goal.column not in frame.columns:
        raise InputError("slo", f"needs the column {goal.column}, which the frame lacks", str(goal))
    rows = frame[(frame["role"] == goal.role) & frame["instance_count"].notna()]
    rows = rows[rows["pool"] == FIXED] if "pool" in rows else rows
    if "replication" in frame.columns:  # a sweep
        by = rows.groupby(["instance_type", "instance_count"], sort=False)
        if rows.duplicated(["instance_type", "instance_count", "replication"]).any():
            constraint = f"must vary in nothing but the {goal.role}'s instances, so select rows of it"
            raise InputError("frame", constraint)
        swept = by[goal.column].agg(value="mean", error="sem").reset_index()
        return swept.assign(answer=False, cost_usd=np.nan)[_COUNTS].sort_values("instance_count")
    tried = pd.DataFrame(frame.attrs.get("tried", []), columns=frame.columns)
    tried = tried[tried["role"] == goal.role].assign(answer=False)
    both = pd.concat([rows.assign(answer=True), tried], ignore_index=True) if len(tried) else rows.assign(answer=True)
    both = both.drop_duplicates(["instance_type", "instance_count"])
    both = both.rename(columns={goal.column: "value", f"{goal.column}_error": "error"})
    return both[_COUNTS].sort_values("instance_count").astype({"instance_count": int, "answer": bool})


def _size_points(frame: pd.DataFrame, slo: str | Slo | float | None) -> tuple[pd.DataFrame, GoalTarget]:
    """Return one row per type and count: cost, the first goal's metric, and whether all goals are met."""
    goals = goals_of(frame, slo if isinstance(slo, str | Slo) else None)
    goals = [goal for goal in goals if goal.role == goals[0].role]
    points = _counts(frame, goals[0])
    figures = zip(*(_counts(frame, goal)["value"] for goal in goals), strict=True)
    meets = [all(goal.met(x) for goal, x in zip(goals, row, strict=True)) for row in figures]
    designs = [
        f"{n} × {escape(str(kind))}" for n, kind in zip(points["instance_count"], points["instance_type"], strict=True)
    ]
    points = points.assign(meets=meets, design=designs)
    if "pool" in frame:
        points = pd.concat([points, _policy_points(frame, goals[0])])
    points = points.sort_index()  # at equal costs, the frame's first
    return points, GoalTarget.of(goals[0])


def _policy_points(frame: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Return one row per scaling policy, as `_size_points` does for counts."""
    rows = frame[(frame["role"] == goal.role) & frame["instance_count"].notna() & (frame["pool"] != FIXED)]
    designs = [
        f"{pool}: {least} to {most} × {escape(str(kind))}, target {target:,.6g}"
        for pool, least, most, kind, target in rows[["pool", "min", "max", "instance_type", "target"]].to_numpy()
    ]
    named = rows.rename(columns={goal.column: "value", f"{goal.column}_error": "error", "met": "meets"})
    return named.assign(answer=True, design=designs)[[*_COUNTS, "meets", "design"]]


def _plan_points(frame: pd.DataFrame, power: str | Slo | float | None) -> tuple[pd.DataFrame, GoalTarget]:
    """Return one row per share and duration: cost, power, and whether that is enough."""
    limit = float(power) if isinstance(power, int | float) else np.nan
    designs = [
        f"{share} % for {duration_text(float(length))}"
        for share, length in zip(frame["sampling_percentage"], frame["duration_s"], strict=True)
    ]
    points = frame.assign(value=frame["power"], meets=frame["reaches"], design=designs)
    points = points.assign(hours=frame["shadow_instances"] * frame["duration_s"]).sort_values(["hours", "duration_s"])
    return points, GoalTarget("power", False, False, limit, f"power {100 * limit:g} %")
