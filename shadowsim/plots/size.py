"""Figures to choose a design by: what latency a number of instances gives, and what a design gives for its cost.

What misses its goal by far, as an overloaded pool does, whose latency only says how long the run was, is not shown to
scale: it is an arrow at the upper edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError
from shadowsim.planning.slo import Goal, Slo, parse_slo
from shadowsim.plots.style import COLOURS, GREY, INK, KINDS, SYMBOLS, canvas, value_axis

_ERRORS = 2.0  # standard errors that a line reaches to either side
_FAR = 3.0  # what is beyond so many times the limit is an arrow
_COUNTS = ["instance_type", "instance_count", "value", "error", "cost_usd", "answer"]


def latency_against_instances(frame: pd.DataFrame, slo: str | Slo | None = None) -> go.Figure:
    """Plot a goal's figure against the number of instances, with the goal as a line.

    Parameters
    ----------
    frame : DataFrame
        What `size` returns: its answers, and the counts that it tried on its way where `frame.attrs["tried"]` has them
        (records with the columns role, instance_type, instance_count, cost_usd and those of the goals). Or what `sweep`
        returns of a grid of `shadow.instance_count` and perhaps `shadow.instance_type`, or the source's.
    slo : str or Slo, optional
        The goals; by default those that decided the answers of `size`.

    Returns
    -------
    Figure
        A panel a goal; a line an instance type, with two standard errors to either side of a mark. Large marks are
        answers.

    Raises
    ------
    InputError
        When the frame holds no goals and none are given, lacks a goal's figure, or varies in more than instances.
    """
    goals = _goals(frame, slo)
    counts = {goal: _counts(frame, goal) for goal in goals}
    several = len({(goal.role, kind) for goal in goals for kind in counts[goal]["instance_type"]}) > 1
    words = f"Lines reach 2 standard errors to either side. Arrows are beyond {_FAR:g} times the goal."
    figure = canvas("Latency against instances", words, rows=len(goals))
    for row, goal in enumerate(goals, start=1):
        aim = _Aim.of(goal)
        view = _View.of(aim, counts[goal]["value"])
        for i, (kind, part) in enumerate(counts[goal].groupby("instance_type", sort=False)):
            colour = KINDS[i % len(KINDS)] if several else COLOURS[goal.role]
            y, error = view.shown(part["value"]), _ERRORS * view.scale * part["error"].to_numpy(np.float64)
            far = view.far(part["value"])
            figure.add_trace(
                go.Scatter(
                    x=part["instance_count"], y=y, name=escape(str(kind)), legendgroup=str(kind), cliponaxis=False,
                    showlegend=several and row == 1, mode="lines+markers", line={"color": colour, "width": 2},
                    marker={
                        "symbol": SYMBOLS[i % len(SYMBOLS)], "color": colour, "opacity": 1.0,
                        "size": np.where(far, 0, np.where(part["answer"], 13, 8)),
                    },
                    error_y={"array": np.where(far, np.nan, error), "color": colour, "width": 4},
                    customdata=view.scale * part["value"],
                    hovertemplate=f"%{{x}} × {escape(str(kind))}: %{{customdata:,.4~r}} {view.unit}<extra></extra>",
                ), row, 1,
            )  # fmt: skip
            _arrows(figure, row, part["instance_count"][far], y[far], colour)
        _goal_line(figure, aim, view.scale, row)
        figure.update_yaxes(row=row, col=1, **view.axis)
    most = max([int(found["instance_count"].max()) for found in counts.values() if len(found)], default=1)
    figure.update_xaxes(range=[0.5, most + 0.5], tickformat="d", dtick=max(1, most // 12))
    list(figure.select_xaxes())[-1].update(title_text="instances")
    return figure.update_layout(hovermode="closest", margin_l=75)


def cost_frontier(frame: pd.DataFrame, goal: str | Slo | float | None = None) -> go.Figure:
    """Plot what designs cost against what they give, with the cheapest that meets the goal marked.

    Parameters
    ----------
    frame : DataFrame
        What `size` returns (shown is the first goal's figure, of the answers and of the counts tried) or `plan` (the
        power).
    goal : str, Slo or float, optional
        The goals of `size`, by default those that decided its answers; or the power that `plan` was asked for, which
        by default is not shown.

    Returns
    -------
    Figure
        A mark a design, filled where it meets the goal; the line joins those that no cheaper one equals. Designs whose
        price is not known are left out, and counted in the subtitle.

    Raises
    ------
    InputError
        As for `latency_against_instances`.
    """
    points, aim = _plan_points(frame, goal) if "power" in frame else _size_points(frame, goal)
    known = points[points["cost_usd"].notna() & points["value"].notna()].sort_values("cost_usd", kind="stable")
    lost = len(points) - len(known)
    words = "Filled: meets the goal. Line: no cheaper design is as good."
    figure = canvas("Cost frontier", words + (f" Left out: {lost} without a price or a figure." if lost else ""))
    view = _View.of(aim, known["value"])
    x, y, meets = known["cost_usd"].to_numpy(np.float64), view.shown(known["value"]), known["meets"].to_numpy(bool)
    best = (np.minimum if aim.is_upper_limit else np.maximum).accumulate(known["value"].to_numpy(np.float64))
    step = np.append(True, best[1:] != best[:-1]) if best.size else np.zeros(0, bool)
    line = {"color": GREY, "width": 1, "shape": "hv"}
    figure.add_trace(
        go.Scatter(x=x[step], y=y[step], mode="lines", line=line, name="frontier", hoverinfo="skip", showlegend=False)
    )
    colour, far = COLOURS["shadow"], view.far(known["value"])
    for mark, name, symbol in ((meets, "meets the goal", "circle"), (~meets, "misses it", "circle-open")):
        figure.add_trace(
            go.Scatter(
                x=x[mark], y=y[mark], mode="markers", name=name, cliponaxis=False,
                customdata=np.column_stack([known["design"][mark], view.scale * known["value"][mark]]),
                marker={"symbol": symbol, "size": np.where(far[mark], 0, 10), "color": colour,
                        "opacity": 1.0, "line": {"width": 2, "color": colour}},
                hovertemplate=f"%{{customdata[0]}}: %{{x:,.2f}} USD, %{{customdata[1]:,.4~r}} {view.unit}"
                "<extra></extra>",
            )
        )  # fmt: skip
    _arrows(figure, 1, x[far], y[far], colour)
    if meets.any():
        first = int(np.argmax(meets))
        figure.add_trace(
            go.Scatter(
                x=x[[first]], y=y[[first]], mode="markers", hoverinfo="skip",
                name=f"<b>cheapest that does: {known['design'].iloc[first]}, {x[first]:,.2f} USD</b>",
                marker={"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 2}},
            )
        )  # fmt: skip
    if np.isfinite(aim.limit):
        _goal_line(figure, aim, view.scale, 1)
    figure.update_yaxes(**view.axis).update_xaxes(**value_axis(x, "cost", "USD"))
    return figure.update_layout(hovermode="closest", margin_l=75)


@dataclass(frozen=True, slots=True)
class _Aim:
    """What an axis shows of a goal of `size`, or of the power that a `plan` should reach."""

    title: str
    is_time: bool
    is_upper_limit: bool
    limit: float
    text: str

    @classmethod
    def of(cls, goal: Goal) -> _Aim:
        name = goal.column.removesuffix("_s").replace("_", "." if goal.metric == "quantile" else " ")
        return cls(f"{goal.role}'s {name}", goal.is_time, goal.is_upper_limit, goal.limit, str(goal))


@dataclass(frozen=True, slots=True)
class _View:
    """The unit of an axis and its upper end."""

    title: str
    scale: float
    unit: str
    top: float

    @classmethod
    def of(cls, aim: _Aim, values: pd.Series[float]) -> _View:
        found = values.to_numpy(np.float64)
        if aim.is_upper_limit and np.isfinite(aim.limit):
            top = max(1.25 * aim.limit, float(np.nanmax(np.where(found <= _FAR * aim.limit, found, 0.0), initial=0)))
            top = _FAR * aim.limit if (found > _FAR * aim.limit).any() else top
        else:
            top = max(float(np.nanmax(found, initial=0.0)), aim.limit if np.isfinite(aim.limit) else 0.0)
        return cls(aim.title, *((1e3, "ms") if aim.is_time else (100.0, "%")), top)

    def far(self, values: pd.Series[float]) -> np.ndarray:
        """Which values are beyond the upper edge."""
        return values.to_numpy(np.float64) > self.top

    def shown(self, values: pd.Series[float]) -> Floats:
        """Return the values to scale, those beyond the edge at it."""
        found: Floats = self.scale * np.minimum(values.to_numpy(np.float64), self.top)
        return found

    @property
    def axis(self) -> dict[str, object]:
        return {"title_text": f"{self.title} ({self.unit})", "range": [0.0, 1.06 * self.scale * self.top or 1.0]}


def _goals(frame: pd.DataFrame, slo: str | Slo | None) -> list[Goal]:
    if slo is not None:
        return list(parse_slo(slo).goals)
    texts = dict.fromkeys(text for text in frame.get("binding", []) if text)
    if not texts:
        raise InputError("slo", "must be given, since the frame does not say which goal decided")
    return list(parse_slo(" and ".join(texts)).goals)


def _counts(frame: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Return a row a (type, count) with the goal's figure, of what was answered, tried or swept."""
    if goal.column not in frame.columns:
        raise InputError("slo", f"needs the column {goal.column}, which the frame lacks", str(goal))
    rows = frame[(frame["role"] == goal.role) & frame["instance_count"].notna()]
    if "replication" in frame.columns:  # of a sweep
        by = rows.groupby(["instance_type", "instance_count"], sort=False)
        if rows.duplicated(["instance_type", "instance_count", "replication"]).any():
            what = f"must vary in nothing but the {goal.role}'s instances, so choose rows of it"
            raise InputError("frame", what)
        swept = by[goal.column].agg(value="mean", error="sem").reset_index()
        return swept.assign(answer=False, cost_usd=np.nan)[_COUNTS].sort_values("instance_count")
    tried = pd.DataFrame(frame.attrs.get("tried", []), columns=frame.columns)
    tried = tried[tried["role"] == goal.role].assign(answer=False)
    both = pd.concat([rows.assign(answer=True), tried], ignore_index=True) if len(tried) else rows.assign(answer=True)
    both = both.drop_duplicates(["instance_type", "instance_count"])
    both = both.rename(columns={goal.column: "value", f"{goal.column}_error": "error"})
    return both[_COUNTS].sort_values("instance_count").astype({"instance_count": int, "answer": bool})


def _size_points(frame: pd.DataFrame, slo: str | Slo | float | None) -> tuple[pd.DataFrame, _Aim]:
    """Return a row a count of a type with its cost, the first goal's figure and whether it meets all goals."""
    goals = _goals(frame, slo if isinstance(slo, str | Slo) else None)
    goals = [goal for goal in goals if goal.role == goals[0].role]
    points = _counts(frame, goals[0])
    figures = zip(*(_counts(frame, goal)["value"] for goal in goals), strict=True)
    meets = [all(goal.met(x) for goal, x in zip(goals, row, strict=True)) for row in figures]
    designs = [
        f"{n} × {escape(str(kind))}" for n, kind in zip(points["instance_count"], points["instance_type"], strict=True)
    ]
    points = points.assign(meets=meets, design=designs).sort_index()  # at equal costs, the frame's first
    return points, _Aim.of(goals[0])


def _plan_points(frame: pd.DataFrame, power: str | Slo | float | None) -> tuple[pd.DataFrame, _Aim]:
    """Return a row a (share, duration) with its cost, its power and whether that is enough."""
    limit = float(power) if isinstance(power, int | float) else np.nan
    designs = [
        f"{share} % for {duration_text(float(length))}"
        for share, length in zip(frame["sampling_percentage"], frame["duration_s"], strict=True)
    ]
    points = frame.assign(value=frame["power"], meets=frame["reaches"], design=designs)
    points = points.assign(hours=frame["shadow_instances"] * frame["duration_s"]).sort_values(["hours", "duration_s"])
    return points, _Aim("power", False, False, limit, f"power {100 * limit:g} %")


def _goal_line(figure: go.Figure, aim: _Aim, scale: float, row: int) -> None:
    figure.add_hline(
        scale * aim.limit, row=row, col=1, line={"color": INK, "width": 1.5, "dash": "dash"},
        label={"text": escape(aim.text), "textposition": "end", "yanchor": "bottom", "font": {"size": 12}},
    )  # fmt: skip


def _arrows(figure: go.Figure, row: int, x: object, y: Floats, colour: str) -> None:
    """Mark what is beyond the upper edge; what it is, the mark below it says when it is pointed at."""
    marker = {"symbol": "triangle-up-open", "size": 12, "color": colour, "line": {"width": 2}}
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="markers", marker=marker, showlegend=False, hoverinfo="skip", cliponaxis=False,
                   name="beyond the edge"), row, 1,
    )  # fmt: skip
