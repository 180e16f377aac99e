"""Scales axes to goals, and draws the lines of goals and arrows at values far beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.planning.slo import Goal, Slo, parse_slo
from shadowsim.plots.style import INK

FAR = 3.0  # multiples of the limit beyond which a value is drawn as an arrow
_ARROWS = f"Arrows are beyond {FAR:g} times the goal."


@dataclass(frozen=True, slots=True)
class GoalTarget:
    """A goal of `size`, or the power that a `plan` must reach: title and limit of an axis."""

    title: str
    is_time: bool
    is_upper_limit: bool
    limit: float
    text: str

    @classmethod
    def of(cls, goal: Goal) -> GoalTarget:
        """Return the target that a goal is."""
        name = goal.column.removesuffix("_s").replace("_", "." if goal.metric == "quantile" else " ")
        return cls(f"{goal.role}'s {name}", goal.is_time, goal.is_upper_limit, goal.limit, str(goal))


@dataclass(frozen=True, slots=True)
class TargetAxis:
    """An axis for a target: its title, its scale and unit, and its upper end, which is not scaled."""

    title: str
    scale: float
    unit: str
    top: float

    @classmethod
    def of(cls, target: GoalTarget, values: pd.Series[float]) -> TargetAxis:
        """Return the axis that shows the target and the values, but those far beyond it."""
        raw = values.to_numpy(np.float64)
        if target.is_upper_limit and np.isfinite(target.limit):
            top = max(1.25 * target.limit, float(np.nanmax(np.where(raw <= FAR * target.limit, raw, 0.0), initial=0)))
            top = FAR * target.limit if (raw > FAR * target.limit).any() else top
        else:
            top = max(float(np.nanmax(raw, initial=0.0)), target.limit if np.isfinite(target.limit) else 0.0)
        return cls(target.title, *((1e3, "ms") if target.is_time else (100.0, "%")), top)

    def far(self, values: pd.Series[float]) -> np.ndarray:
        """Return which values are beyond the upper end."""
        return values.to_numpy(np.float64) > self.top

    def scaled(self, values: pd.Series[float]) -> Floats:
        """Return the values in the unit of the axis; those beyond its end are put at the end."""
        scaled: Floats = self.scale * np.minimum(values.to_numpy(np.float64), self.top)
        return scaled

    @property
    def options(self) -> dict[str, object]:
        """Title and range, for Plotly."""
        return {"title_text": f"{self.title} ({self.unit})", "range": [0.0, 1.06 * self.scale * self.top or 1.0]}


def goals_of(frame: pd.DataFrame, slo: str | Slo | None) -> list[Goal]:
    """Return the goals that are given, or else those that decided in a frame."""
    if slo is not None:
        return list(parse_slo(slo).goals)
    texts = dict.fromkeys(text for text in frame.get("binding", []) if any(sign in text for sign in "<>"))
    if not texts:
        raise InputError("slo", "is required, since the frame does not say which goal decided")
    return list(parse_slo(" and ".join(texts)).goals)


def add_goal_line(figure: go.Figure, target: GoalTarget, scale: float, row: int, at: str = "end") -> None:
    """Draw the goal's limit as a line, with its text at the "start" or the "end", away from the values."""
    figure.add_hline(
        scale * target.limit, row=row, col=1, line={"color": INK, "width": 1.5, "dash": "dash"},
        label={"text": escape(target.text), "textposition": at, "yanchor": "bottom", "font": {"size": 12}},
    )  # fmt: skip


def add_arrows(figure: go.Figure, row: int, x: object, y: Floats, colour: str, values: Floats, hover: str) -> None:
    """Mark the points beyond the upper edge, which show their values to the pointer, and say so in the subtitle."""
    if len(y) == 0:
        return
    subtitle = figure.layout.title.subtitle
    if _ARROWS not in subtitle.text:
        subtitle.text = f"{subtitle.text} {_ARROWS}"
    marker = {"symbol": "triangle-up-open", "size": 12, "color": colour, "line": {"width": 2}}
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="markers", marker=marker, showlegend=False, cliponaxis=False, customdata=values,
                   hovertemplate=hover, name="beyond the edge"), row, 1,
    )  # fmt: skip
