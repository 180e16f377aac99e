"""What all figures have in common: their colours, their frame and their axes.

Source and shadow keep their colours throughout. All colours are of Okabe and Ito's palette (2008), which all kinds of
colour vision tell apart; where a colour carries a judgement, a mark or a word carries it, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from shadowsim.arrays import Floats

COLOURS = {"source": "#0072B2", "shadow": "#D55E00"}
BANDS = {"source": "rgba(0, 114, 178, 0.22)", "shadow": "rgba(213, 94, 0, 0.22)"}
KINDS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")  # of what is neither source nor shadow
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
INK, GREY, MARGIN = "#222222", "#666666", "rgba(102, 102, 102, 0.13)"
SHADE, SHADE_TEXT = "rgba(204, 121, 167, 0.20)", "#8A1C5B"  # of what is overloaded
SCALE = "Cividis"  # Nuñez, Anderton and Renslow (2018): even in lightness, for all kinds of colour vision
LOG_FROM = 20.0  # values of a greater ratio than this stand on a logarithmic axis
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": INK}


def canvas(title: str, subtitle: str, rows: int = 1, height: int | None = None, **subplots: Any) -> go.Figure:
    """Return an empty figure.

    Parameters
    ----------
    title, subtitle : str
        What is shown, and how to read it; the subtitle may hold Plotly's markup.
    rows : int
        How many panels stand above each other, with one axis of x.
    height : int, optional
        In pixels, by default what suits the rows.
    **subplots
        For Plotly's `make_subplots`.
    """
    options = {"cols": 1, "shared_xaxes": True, "vertical_spacing": 0.06} | subplots
    figure = make_subplots(rows=rows, **options).update_layout(
        title={"text": title, "subtitle": {"text": subtitle}, "x": 0.0, "xref": "paper", "xanchor": "left", "y": 0.97},
        template="plotly_white",
        font=_FONT,
        legend={"orientation": "h", "x": 0.0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 60, "r": 16, "t": 115, "b": 50},
        height=height or 300 + 170 * rows,
        hovermode="x unified",
    )
    size = _FONT["size"]
    return figure.update_xaxes(title_font_size=size).update_yaxes(title_font_size=size)


def value_axis(values: Floats, title: str, unit: str) -> dict[str, Any]:
    """Return an axis for values: from zero, or logarithmic, and its title says so, when they are far apart.

    Parameters
    ----------
    values : ndarray of float64
        All that is shown; what has no logarithm is left out.
    title, unit : str
        "p99" and "ms" make the title "p99 (ms)".
    """
    shown = values[values > 0]  # which NaN is not
    if shown.size > 0 and shown.max() > LOG_FROM * shown.min():
        return log_axis(shown) | {"title_text": f"{title} ({unit}, logarithmic)"}
    return {"rangemode": "tozero", "separatethousands": True, "title_text": f"{title} ({unit})"}


def log_axis(values: Floats) -> dict[str, Any]:
    """Return a logarithmic axis whose every label is a whole number to read; Plotly's own leave out the zeros."""
    if values.size == 0:
        return {"type": "log"}
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    digits = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [d * 10.0**e for e in range(int(low), int(high) + 1) for d in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{t:,.10g}" for t in ticks]}
