"""Figures over settings: heat maps of two, lines of one.

An overloaded pool's latency, which only says how long the run was, never stands without that word.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError
from shadowsim.planning.sheet import recommend
from shadowsim.plots.style import COLOURS, INK, SCALE, SHADE, SHADE_TEXT, canvas, value_axis
from shadowsim.text import significant

_ERRORS = 2.0  # standard errors that a line reaches to either side
_SHARES = ("share", "utilisation", "error_rate")
_TITLES = {"rate_per_s": "requests a second", "captured_bytes": "captured bytes", "share": "share copied"}
_AFTER_SETTINGS = "replication"  # the first column of a sweep that is no setting
_OVERLOADED = "OVERLOADED"


def power(plan: pd.DataFrame) -> go.Figure:
    """Plot how often a test finds the effect, for each share and duration.

    Parameters
    ----------
    plan : DataFrame
        What `plan` returns.

    Returns
    -------
    Figure
        A heat map; a cell says the power and the cost, in bold where the power that was asked for is reached. The
        cheapest of these has a frame.
    """
    said = [_power_text(*row) for row in plan[["power", "reaches", "cost_usd"]].to_numpy()]
    where = {"index": "sampling_percentage", "columns": "duration_s"}
    z, text = (plan.assign(said=said).pivot(values=name, **where) for name in ("power", "said"))
    shares, lengths = list(z.index), list(z.columns)
    names = [duration_text(float(x)) for x in lengths], [f"{share} %" for share in shares]
    figure = canvas("Power", "How often the effect is found. Bold: often enough. Framed: the cheapest of these.")
    figure.add_trace(_heat(names, z, text.fillna(""), "power %{z:.1%}", zmin=0.0, zmax=1.0))
    figure.update_traces(colorbar={"title_text": "power", "tickformat": ".0%"})
    best = recommend(plan)
    if best is not None:
        x, y = lengths.index(best["duration_s"]), shares.index(best["sampling_percentage"])
        _cell(figure, x, y, line={"color": INK, "width": 3})
    return _finished(figure, "duration of the test", "share copied", len(shares))


def sweep(frame: pd.DataFrame, metric: str = "p99_s", role: str = "shadow") -> go.Figure:
    """Plot a figure over the one or two settings that a sweep varies.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` returns, or those of its rows that vary in no more than two settings.
    metric : str
        A column of figures, such as p99_s, utilisation or error_rate. Times are shown in ms, shares in %.
    role : str
        Whose figure a heat map shows; lines show both pools'.

    Returns
    -------
    Figure
        Of one setting a line a pool, with two standard errors between replications; of two a heat map, the first
        setting upwards. A cell that was overloaded in any replication says so, and a heat map says nothing else of it.

    Raises
    ------
    InputError
        When another number of settings varies, or there is no such metric.
    """
    if _AFTER_SETTINGS not in frame.columns:
        raise InputError("frame", f"must be one of sweep, and lacks the column {_AFTER_SETTINGS}")
    paths = [str(name) for name in frame.columns[: list(frame.columns).index(_AFTER_SETTINGS)]]
    paths = [path for path in paths if frame[path].nunique(dropna=False) > 1]
    if not 1 <= len(paths) <= 2:
        what = "must vary in one or two settings, so choose rows of it"
        raise InputError("frame", what, ", ".join(paths) or "no setting")
    if metric not in frame.columns or metric in paths or not pd.api.types.is_numeric_dtype(frame[metric]):
        raise InputError("metric", "must be a column of figures", metric)
    if role not in COLOURS:
        raise InputError("role", "must be source or shadow", role)
    return _lines(frame, paths[0], metric) if len(paths) == 1 else _map(frame, paths, metric, role)


def _lines(frame: pd.DataFrame, path: str, metric: str) -> go.Figure:
    scale, unit, title = _shown(metric)
    n = frame["replication"].nunique()
    means = f"Means of {n} replications, ± 2 standard errors. " if n > 1 else ""
    figure = canvas(title, f"{means}Crosses: {_OVERLOADED}, where latencies grow with the length of the run.")
    numeric = pd.api.types.is_numeric_dtype(frame[path])
    everything = [np.empty(0)]
    for role, colour in COLOURS.items():
        by = frame[frame["role"] == role].groupby(path, sort=numeric, dropna=False)
        value = (scale * by[metric].mean()).to_numpy(np.float64)
        over = by["verdict"].agg(_any_overloaded).to_numpy(bool)
        everything.append(value)
        figure.add_trace(
            go.Scatter(
                x=[x if numeric else _name(x) for x in by.groups], y=value, name=role, mode="lines+markers",
                line={"color": colour}, marker={"size": 9, "symbol": np.where(over, "x", "circle")},
                error_y={"array": _ERRORS * scale * by[metric].sem(), "color": colour, "width": 4},
                customdata=np.where(over, _OVERLOADED, ""), cliponaxis=False,
                hovertemplate=f"{role}: %{{y:,.4~r}} {unit} %{{customdata}}<extra></extra>",
            )
        )  # fmt: skip
    few = sorted(frame[path].unique()) if numeric and frame[path].nunique() <= 12 else None
    figure.update_xaxes(title_text=escape(path), tickvals=few)
    return figure.update_yaxes(**value_axis(np.concatenate(everything), title, unit)).update_layout(margin_l=75)


def _map(frame: pd.DataFrame, paths: Sequence[str], metric: str, role: str) -> go.Figure:
    scale, unit, title = _shown(metric)
    by = frame[frame["role"] == role].groupby(list(paths), sort=False, dropna=False)
    value = (scale * by[metric].mean()).unstack()
    over = by["verdict"].agg(_any_overloaded).unstack().reindex_like(value).eq(True)
    text = value.map(lambda x: "" if np.isnan(x) else significant(x)).mask(over, "")
    n = frame["replication"].nunique()
    figure = canvas(f"{title} of the {role}", f"Means of {n} replications." if n > 1 else "One run a cell.")
    names = [_name(x) for x in value.columns], [_name(y) for y in value.index]
    figure.add_trace(_heat(names, value.mask(over), text, f"{escape(title)} %{{z:,.4~r}} {unit}"))
    figure.update_traces(colorbar_title_text=unit)
    for y, x in np.argwhere(over.to_numpy(bool)):
        _cell(figure, int(x), int(y), fillcolor=SHADE, line_width=0, layer="below")
        figure.add_annotation(x=x, y=y, text=_OVERLOADED, showarrow=False, font={"size": 11, "color": SHADE_TEXT})
    return _finished(figure, escape(paths[1]), escape(paths[0]), len(value))


def _heat(
    names: tuple[list[str], list[str]], z: pd.DataFrame, text: pd.DataFrame, hover: str, **more: float
) -> go.Heatmap:
    return go.Heatmap(
        x=names[0], y=names[1], z=z.to_numpy(np.float64), text=text.to_numpy(str), texttemplate="%{text}",
        colorscale=SCALE, colorbar={"thickness": 14, "title": {"font": {"size": 13}}}, xgap=2, ygap=2,
        hoverongaps=False, hovertemplate=f"%{{y}}, %{{x}}: {hover}<extra></extra>", **more,
    )  # fmt: skip


def _finished(figure: go.Figure, x: str, y: str, n: int) -> go.Figure:
    """Name the axes of a heat map and give it as much height as its rows need."""
    figure.update_xaxes(title_text=x, type="category", showgrid=False, ticks="")
    figure.update_yaxes(title_text=y, type="category", showgrid=False, ticklabelstandoff=6)
    return figure.update_layout(hovermode="closest", margin={"l": 90, "t": 90}, height=190 + 48 * n)


def _cell(figure: go.Figure, x: int, y: int, **look: object) -> None:
    figure.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, **look)


def _power_text(power: float, reaches: bool, cost_usd: float) -> str:
    found = f"<b>{100 * power:.0f} %</b>" if reaches else f"{100 * power:.0f} %"
    return f"{found}<br>{'cost unknown' if np.isnan(cost_usd) else f'{cost_usd:,.0f} USD'}"


def _any_overloaded(verdicts: pd.Series[str]) -> bool:
    return bool((verdicts == _OVERLOADED).any())


def _name(value: object) -> str:
    return escape(f"{value:g}" if isinstance(value, float) else str(value))


def _shown(metric: str) -> tuple[float, str, str]:
    """Return by what a column of a summary is multiplied to be shown, the unit that it then has, and its title."""
    title = _TITLES.get(metric, metric.removesuffix("_s").replace("p99_9", "p99.9").replace("_", " "))
    if metric in _SHARES:
        return 100.0, "%", title
    if metric.endswith("_s") and metric != "rate_per_s":
        return 1e3, "ms", title
    return 1.0, {"rate_per_s": "1/s", "captured_bytes": "B"}.get(metric, "number"), title
