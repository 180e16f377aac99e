"""Defines the colours, the frame and the axes that all figures share.

Source and shadow have the same colours in all figures. The colours are those of Okabe and Ito (2008), which people with
any kind of colour vision can tell apart. Where a colour expresses a judgement, so does a mark or a word.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from shadowsim.arrays import Floats

COLOURS = {"source": "#0072B2", "shadow": "#D55E00"}
BANDS = {"source": "rgba(0, 114, 178, 0.22)", "shadow": "rgba(213, 94, 0, 0.22)"}
KINDS = (
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#222222",
)  # of instance types, where source and shadow do not differ
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
INK, GREY, MARGIN = "#222222", "#666666", "rgba(102, 102, 102, 0.13)"
SHADE, SHADE_TEXT = "rgba(204, 121, 167, 0.20)", "#8A1C5B"  # for overloaded pools
TEXTS = {"source": "#0067A0", "shadow": "#B34700"}  # of the colours above, dark enough for small letters on white
# What stands for each colour on a dark screen, in the reports' pages.
DARK = {
    "#0072B2": "#56B4E9",
    "#D55E00": "#F08A45",
    "rgba(0, 114, 178, 0.22)": "rgba(86, 180, 233, 0.28)",
    "rgba(213, 94, 0, 0.22)": "rgba(240, 138, 69, 0.28)",
    "#0067A0": "#6CBCF0",
    "#B34700": "#F59A5F",
    "#222222": "#E6E8EA",
    "#666666": "#AEB5BC",
    "rgba(102, 102, 102, 0.13)": "rgba(174, 181, 188, 0.16)",
    "#8A1C5B": "#F2A8D2",
    "#C98A00": "#F0C766",
    "#009E73": "#2FC498",
    "#C4C4C4": "#59636E",
    "#EBF0F8": "#2B3138",
    "#C8D4E3": "#4A535D",
    "#2a3f5f": "#E6E8EA",
}
# The lighter half of Cividis (Nuñez, Anderton and Renslow, 2018), which is uniform in lightness for all kinds of colour
# vision. Black letters have a contrast of 5:1 on its darkest colour; the whole has colours on which none can be read.
SCALE = ("#7D7C76", "#958F76", "#AEA371", "#C9B865", "#E4CF52", "#FEE838")
ON_SCALE = "#000000"
# The names of annotations that pages leave out: narrow ones both, printed ones the second, which legends have, too.
ASIDE, OVERLOAD_NAME = "aside", "overload"
LOG_FROM = 20.0  # ratio of the greatest to the least value above which an axis is logarithmic
NO_LEGEND = {"margin_t": 90}  # of a canvas whose charts have none
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": INK}


def canvas(title: str, subtitle: str, rows: int = 1, height: int | None = None, **subplots: Any) -> go.Figure:
    """Return an empty figure.

    Parameters
    ----------
    title, subtitle : str
        What the figure shows, and how to read it; the subtitle may contain Plotly's markup.
    rows : int
        Number of panels, one above the other, that share the x axis.
    height : int, optional
        Height in pixels; by default it depends on the number of rows.
    **subplots
        Options for Plotly's `make_subplots`.
    """
    # a copy of a framed figure takes half the time of a new one
    figure = _framed(rows, **subplots) if subplots else go.Figure(_framed_alike(rows))
    texts = {"text": title, "subtitle": {"text": subtitle}}
    return figure.update_layout(title=texts, height=height or 300 + 170 * rows)


def _framed(rows: int, **subplots: Any) -> go.Figure:
    """Return panels with the frame and the axes of all figures, and without a title."""
    options = {"cols": 1, "shared_xaxes": True, "vertical_spacing": 0.06} | subplots
    # without a template from the start, Plotly's own would be copied first, which takes as long as all the rest
    blank = go.Figure(layout={"template": "plotly_white"})
    figure = make_subplots(rows=rows, figure=blank, **options).update_layout(
        title={"x": 0.0, "xref": "paper", "xanchor": "left", "y": 0.97},
        font=_FONT,
        legend={"orientation": "h", "x": 0.0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 60, "r": 16, "t": 115, "b": 50},
        hovermode="x unified",
    )
    size = _FONT["size"]
    # away from the axis, or the zeros of both axes would touch in the corner
    return figure.update_xaxes(title_font_size=size).update_yaxes(title_font_size=size, ticklabelstandoff=6)


_framed_alike = cache(_framed)


def value_axis(values: Floats, title: str, unit: str) -> dict[str, Any]:
    """Return an axis that begins at zero, or a logarithmic one, named so in its title, if the values are far apart.

    Parameters
    ----------
    values : ndarray of float64
        All values on the axis; NaN and values without a logarithm are ignored.
    title, unit : str
        "p99" and "ms" make the title "p99 (ms)".
    """
    positive = values[values > 0]  # NaN is not
    if positive.size > 0 and positive.max() > LOG_FROM * positive.min():
        return log_axis(positive) | {"title_text": f"{title} ({unit}, logarithmic)"}
    return {"rangemode": "tozero", "separatethousands": True, "title_text": f"{title} ({unit})"}


def log_axis(values: Floats) -> dict[str, Any]:
    """Return a logarithmic axis with complete numbers as labels; Plotly's own labels leave out zeros.

    Values that lie between two labels have both in the axis's range.
    """
    if values.size == 0:
        return {"type": "log"}
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    high += high == low
    digits = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [d * 10.0**e for e in range(int(low), int(high) + 1) for d in digits]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{t:,.10g}" for t in ticks]}
    least, greatest = float(values.min()), float(values.max())
    if sum(least <= t <= greatest for t in ticks) < 2:
        below = max(t for t in ticks if t <= least)
        above = min(t for t in ticks if t >= greatest and t > below)
        axis["range"] = [float(np.log10(0.95 * below)), float(np.log10(1.05 * above))]
    return axis
