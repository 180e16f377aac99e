"""Draws a comparison of benchmarks: the change of each, with its interval."""

from __future__ import annotations

import re
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.plots.comparison import OUTCOME_STYLES
from shadowsim.plots.style import GREY, canvas
from shadowsim.statistics.terms import BETTER, NOT_JUDGED, SAME, WORSE

_OUTCOMES = {"slower": WORSE, "faster": BETTER, "within the margin": SAME, "~": NOT_JUDGED}
_NAMES = {
    "slower": "slower",
    "faster": "faster",
    "within the margin": "within the margin",
    "~": "no significant change",
}
_ROW, _REST = 34, 190  # heights in pixels
_LINE, _MOST_LINES = 24, 2  # characters of a line of a name, and lines


def benchmark_changes(table: pd.DataFrame) -> go.Figure:
    """Plot the change of each benchmark that both versions have, in per cent of its old time, with its interval.

    Parameters
    ----------
    table : DataFrame
        A frame of `compare_benchmarks`.

    Returns
    -------
    Figure
        A row per benchmark, slower to the right; one trace per verdict.
    """
    known = table[table["change_pct"].notna()]
    names = [_short(str(name)) for name in known["name"]]
    figure = canvas(
        "Changes",
        "Of the median time, in per cent of the old one, with intervals. Slower is to the right.",
        height=_REST + _ROW * max(len(known), 1),
    )
    change, low, high = (known[name].to_numpy(np.float64) for name in ("change_pct", "low_pct", "high_pct"))
    for verdict, outcome in _OUTCOMES.items():
        rows = (known["verdict"] == verdict).to_numpy()
        if not rows.any():
            continue
        colour, symbol, _ = OUTCOME_STYLES[outcome]
        figure.add_trace(
            go.Scatter(
                x=change[rows], y=np.array(names)[rows], name=_NAMES[verdict], mode="markers",
                marker={"symbol": symbol, "size": 11, "color": colour, "line": {"width": 2, "color": colour}},
                error_x={"type": "data", "symmetric": False, "array": (high - change)[rows],
                         "arrayminus": (change - low)[rows], "color": colour, "thickness": 2, "width": 5},
                hovertemplate="%{y}: %{x:+.1f} %<extra></extra>",
            )
        )  # fmt: skip
    figure.add_vline(0.0, line={"color": GREY, "width": 1}, layer="below")
    figure.update_xaxes(title_text="change (%)")
    order = {"categoryorder": "array", "categoryarray": names, "range": [len(names) - 0.5, -0.5], "dtick": 1}
    figure.update_yaxes(showgrid=False, automargin=True, **order)
    return figure.update_layout(hovermode="closest", showlegend=True)


def _short(name: str) -> str:
    """Return the end of a name in lines, broken where its parts begin; a long one lacks its start."""
    lines = [""]
    for part in re.findall(r"\[.{,22}$|[\[_-]?[^\[_-]+|.", name.rpartition("::")[2]):
        if len(lines[-1]) + len(part) > _LINE and lines[-1]:
            lines.append("")
        lines[-1] += part
    kept = lines[-_MOST_LINES:]
    return escape(("" if len(kept) == len(lines) else "…") + "\n".join(kept)).replace("\n", "<br>")
