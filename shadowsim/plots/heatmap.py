"""Draws metrics over one setting as lines, over two as a heat map, and over more as several.

An overloaded pool's latency depends on the length of the run, so it is never shown without the word OVERLOADED. A
quantile that a run is too short for is left out, unless the error bar of replications stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from numbers import Real

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError
from shadowsim.planning.sheet import recommend
from shadowsim.plots.style import COLOURS, INK, NO_LEGEND, ON_SCALE, SCALE, SHADE, SHADE_TEXT, canvas, value_axis
from shadowsim.text import OVERLOADED, significant, trimmed_time
from shadowsim.verdict import is_uncertain_in

_ERRORS = 2.0  # standard errors to either side of a mark
_SHARES = ("share", "utilisation", "error_rate")
_TITLES = {"rate_per_s": "requests per second", "captured_bytes": "captured bytes", "share": "share copied"}
_MORE_IS_GOOD = ("requests", "rate_per_s", "share", "success_rate", "output_tokens_per_s", "prefix_hit_share")
_SETTINGS = {  # paths of a sweep as titles of axes; others are followed by the unit that their name ends in
    "sampling_percentage": "share copied (%)",
    "rate_per_s": "traffic (requests per second)",
    "horizon_s": "length of the run (s)",
}
_AFTER_SETTINGS = "replication"  # the first column of a sweep that is not a setting
_MOST_MAPS = 6  # heat maps of one sweep
_QUARTERS = [0.0, 0.25, 0.5, 0.75, 1.0]
_QUARTER_TEXTS = [f"{100.0 * share:.0f} %" for share in _QUARTERS]


def power(plan: pd.DataFrame) -> go.Figure:
    """Plot how often a test finds the effect, for each share and duration.

    Parameters
    ----------
    plan : DataFrame
        The frame that `plan` returns.

    Returns
    -------
    Figure
        A heat map. A cell shows the power and the cost, in bold if it reaches the required power. The cheapest such
        cell has a frame.
    """
    texts = [_power_text(*row) for row in plan[["power", "reaches", "cost_usd"]].to_numpy()]
    axes = {"index": "sampling_percentage", "columns": "duration_s"}
    z, text = (plan.assign(text=texts).pivot(values=name, **axes) for name in ("power", "text"))
    shares, durations = list(z.index), list(z.columns)
    names = [duration_text(float(x)) for x in durations], [f"{share} %" for share in shares]
    figure = canvas("Power", "How often the effect is found. Bold: often enough. Framed: the cheapest such test.")
    figure.add_trace(_heat_trace(names, z, text.fillna(""), "power %{z:.1%}", zmin=0.0, zmax=1.0))
    figure.update_traces(colorbar={"title_text": "power", "tickvals": _QUARTERS, "ticktext": _QUARTER_TEXTS})
    best = recommend(plan)
    if best is not None:
        x, y = durations.index(best["duration_s"]), shares.index(best["sampling_percentage"])
        _add_rectangle(figure, x, y, line={"color": INK, "width": 3})
    return _with_axes(figure, "duration of the test", "share copied", len(shares))


def sweep(frame: pd.DataFrame, metric: str = "p99_s", role: str = "shadow") -> go.Figure:
    """Plot a metric over the one or two settings that a sweep varies.

    Parameters
    ----------
    frame : DataFrame
        The frame that `sweep` returns, or a selection of its rows that vary in at most two settings.
    metric : str
        A numeric column, such as p99_s, utilisation or error_rate. Times are shown in ms, shares in %.
    role : str
        The pool that a heat map shows; lines show both pools.

    Returns
    -------
    Figure
        For one setting, one line per pool with two standard errors between replications; for two settings, a heat
        map with the first setting on the y axis. A cell that was overloaded in any replication is marked, and a heat
        map shows no value for it, nor for a quantile that a run of the cell is too short for; lines have a gap there
        unless there are replications.

    Raises
    ------
    InputError
        If another number of settings varies, or there is no such metric.
    """
    paths = _varied(frame)
    if not 1 <= len(paths) <= 2:
        constraint = "must vary in one or two settings, so select rows of it"
        raise InputError("frame", constraint, ", ".join(paths) or "no setting")
    if metric not in frame.columns or metric in paths or not pd.api.types.is_numeric_dtype(frame[metric]):
        raise InputError("metric", "must be a numeric column", metric)
    if role not in COLOURS:
        raise InputError("role", "must be source or shadow", role)
    return _lines(frame, paths[0], metric) if len(paths) == 1 else _heatmap(frame, paths, metric, role)


def sweep_maps(
    frame: pd.DataFrame, metric: str = "p99_s", role: str = "shadow"
) -> list[tuple[pd.DataFrame, go.Figure]]:
    """Plot a metric over all settings that a sweep varies: as `sweep`, or for more than two as several heat maps.

    Parameters
    ----------
    frame, metric, role
        As for `sweep`.

    Returns
    -------
    list of (DataFrame, Figure)
        The rows that a figure shows, and the figure. With more than two settings, there is a heat map over the two that
        have most values for each combination of the others, which its title tells; all have one scale of colours.

    Raises
    ------
    InputError
        As `sweep` does, and if more than six maps would be needed.
    """
    paths = _varied(frame)
    if len(paths) <= 2:
        return [(frame, sweep(frame, metric, role))]
    others = sorted(paths, key=lambda path: frame[path].nunique(dropna=False))[:-2]
    parts = frame.groupby(others, sort=False, dropna=False)
    if parts.ngroups > _MOST_MAPS:
        constraint = f"must vary in few settings: at most {_MOST_MAPS} heat maps are drawn, so select rows of it"
        raise InputError("frame", constraint, f"{parts.ngroups} combinations of {', '.join(others)}")
    maps, drawn = [], [np.empty(0)]
    for values, part in parts:
        figure = sweep(part, metric, role)
        where = ", ".join(setting_in_words(path, value) for path, value in zip(others, values, strict=True))
        title = f"{figure.layout.title.text}, {escape(where.removeprefix(f'{role}: '))}"
        maps.append((part, figure.update_layout(title_text=title)))
        drawn += [np.ravel(trace.z) for trace in figure.select_traces({"type": "heatmap"})]
    known = np.concatenate(drawn)
    known = known[~np.isnan(known)]
    for _, figure in maps:
        if known.size:
            figure.update_traces(zmin=known.min(), zmax=known.max(), selector={"type": "heatmap"})
    return maps


def _varied(frame: pd.DataFrame) -> list[str]:
    """Return the paths of the settings that differ between the rows of a sweep."""
    if _AFTER_SETTINGS not in frame.columns:
        raise InputError("frame", f"must come from sweep, and lacks the column {_AFTER_SETTINGS}")
    paths = [str(name) for name in frame.columns[: list(frame.columns).index(_AFTER_SETTINGS)]]
    return [path for path in paths if frame[path].nunique(dropna=False) > 1]


def _lines(frame: pd.DataFrame, path: str, metric: str) -> go.Figure:
    scale, unit, title = _scale_unit_title(metric)
    n = frame["replication"].nunique()
    means = f"Means of {n} replications, ± 2 standard errors. " if n > 1 else ""
    gap = is_uncertain_in(frame, metric) if n == 1 else pd.Series(False, index=frame.index)
    gaps = " Gaps: the run is too short." if gap.any() else ""
    figure = canvas(
        _heading(title), f"{means}Crosses: {OVERLOADED}, where latencies grow with the length of the run.{gaps}"
    )
    frame = frame.assign(**{metric: frame[metric].mask(gap)})
    numeric = pd.api.types.is_numeric_dtype(frame[path])
    values = [np.empty(0)]
    for role, colour in COLOURS.items():
        by = frame[frame["role"] == role].groupby(path, sort=numeric, dropna=False)
        value = (scale * by[metric].mean()).to_numpy(np.float64)
        over = by["verdict"].agg(_any_overloaded).to_numpy(bool)
        values.append(value)
        figure.add_trace(
            go.Scatter(
                x=[x if numeric else _setting_text(x) for x in by.groups], y=value, name=role, mode="lines+markers",
                line={"color": colour}, marker={"size": 9, "symbol": np.where(over, "x", "circle")},
                error_y={"array": _ERRORS * scale * by[metric].sem(), "color": colour, "width": 4},
                customdata=np.where(over, OVERLOADED, ""), cliponaxis=False,
                hovertemplate=f"{role}: %{{y:,.4~r}} {unit} %{{customdata}}<extra></extra>",
            )
        )  # fmt: skip
    ticks = sorted(frame[path].unique()) if numeric and frame[path].nunique() <= 12 else None
    figure.update_xaxes(title_text=escape(setting_title(path)), tickvals=ticks)
    return figure.update_yaxes(**value_axis(np.concatenate(values), title, unit)).update_layout(margin_l=75)


def _heatmap(frame: pd.DataFrame, paths: Sequence[str], metric: str, role: str) -> go.Figure:
    scale, unit, title = _scale_unit_title(metric)
    by = frame[frame["role"] == role].groupby(list(paths), sort=False, dropna=False)
    value = (scale * by[metric].mean()).unstack()
    over = by["verdict"].agg(_any_overloaded).unstack().reindex_like(value).eq(True)
    uncertain = frame.assign(uncertain=is_uncertain_in(frame, metric))
    by = uncertain[frame["role"] == role].groupby(list(paths), sort=False, dropna=False)
    short = by["uncertain"].any().unstack().reindex_like(value).eq(True) & ~over
    value = value.mask(over | short)
    text = value.map(lambda x: "" if np.isnan(x) else significant(x))
    n = frame["replication"].nunique()
    figure = canvas(
        f"{_heading(title)} of the {role}",
        f"Means of {n} replications." if n > 1 else "One run per cell.",
    )
    names = [_setting_text(x) for x in value.columns], [_setting_text(y) for y in value.index]
    # As in a plan, bright is good: of times and errors that is the least.
    colours = SCALE if metric in _MORE_IS_GOOD else SCALE[::-1]
    figure.add_trace(_heat_trace(names, value, text, f"{escape(title)} %{{z:,.4~r}} {unit}"))
    figure.update_traces(colorbar_title_text=unit, colorscale=colours)
    for y, x in np.argwhere(over.to_numpy(bool)):
        _add_rectangle(figure, int(x), int(y), fillcolor=SHADE, line_width=0, layer="below")
        figure.add_annotation(x=x, y=y, text=OVERLOADED, showarrow=False, font={"size": 11, "color": SHADE_TEXT})
    for y, x in np.argwhere(short.to_numpy(bool)):
        figure.add_annotation(x=x, y=y, text="too short", showarrow=False, font={"size": 11, "color": SHADE_TEXT})
    return _with_axes(figure, escape(setting_title(paths[1])), escape(setting_title(paths[0])), len(value))


def _heat_trace(
    names: tuple[list[str], list[str]], z: pd.DataFrame, text: pd.DataFrame, hover: str, **more: float
) -> go.Heatmap:
    return go.Heatmap(
        x=names[0], y=names[1], z=z.to_numpy(np.float64), text=text.to_numpy(str), texttemplate="%{text}",
        textfont={"color": ON_SCALE}, colorscale=SCALE, colorbar={"thickness": 14, "title": {"font": {"size": 13}}},
        xgap=2, ygap=2, hoverongaps=False, hovertemplate=f"%{{y}}, %{{x}}: {hover}<extra></extra>", **more,
    )  # fmt: skip


def _with_axes(figure: go.Figure, x: str, y: str, n: int) -> go.Figure:
    """Name the axes of a heat map with n rows, and set its height."""
    figure.update_xaxes(title_text=x, type="category", showgrid=False, ticks="")
    figure.update_yaxes(title_text=y, type="category", showgrid=False)
    return figure.update_layout(hovermode="closest", margin_l=90, height=190 + 48 * n, **NO_LEGEND)


def _add_rectangle(figure: go.Figure, x: int, y: int, **style: object) -> None:
    figure.add_shape(type="rect", x0=x - 0.495, x1=x + 0.495, y0=y - 0.49, y1=y + 0.49, **style)  # gaps as of cells


def _power_text(power: float, reaches: bool, cost_usd: float) -> str:
    share = f"<b>{100 * power:.0f} %</b>" if reaches else f"{100 * power:.0f} %"
    return (
        f"{share}<br>{'cost unknown' if np.isnan(cost_usd) else f'{cost_usd:,.{0 if cost_usd >= 100.0 else 2}f} USD'}"
    )


def _any_overloaded(verdicts: pd.Series[str]) -> bool:
    return bool((verdicts == OVERLOADED).any())


def _heading(title: str) -> str:
    return title if any(letter.isdigit() for letter in title) else title.capitalize()


def setting_title(path: str) -> str:
    """Return the path of a setting in words, with its unit: "shadow: instance count", "shadow: time.mean (s)"."""
    role, dot, rest = path.partition(".")
    name = f"{role}: {rest}" if dot and role in COLOURS else path
    unit = next(
        (unit for end, unit in (("_per_s", "per second"), ("_s", "s"), ("_pct", "%")) if name.endswith(end)), ""
    )
    name = name.removesuffix("_per_s").removesuffix("_s").removesuffix("_pct").replace("_", " ")
    return _SETTINGS.get(path, f"{name} ({unit})" if unit else name)


def setting_in_words(path: str, value: object) -> str:
    """Return a setting with its value and unit: "share copied 10 %", "shadow: time.mean 0.02 s"."""
    name, _, unit = setting_title(path).partition(" (")
    if unit == "s)" and isinstance(value, Real):
        length_s = float(value)
        return f"{name} {duration_text(length_s) if length_s >= 60.0 else trimmed_time(length_s)}"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name} {shown} {unit.removesuffix(')')}".strip()


def _setting_text(value: object) -> str:
    return escape(f"{value:g}" if isinstance(value, float) else str(value))


def _scale_unit_title(metric: str) -> tuple[float, str, str]:
    """Return the factor by which a summary's column is multiplied, the unit of the product, and its title."""
    title = _TITLES.get(metric, metric.removesuffix("_s").replace("p99_9", "p99.9").replace("_", " "))
    if metric in _SHARES:
        return 100.0, "%", title
    if metric.endswith("_s") and metric != "rate_per_s":
        return 1e3, "ms", title
    return 1.0, {"rate_per_s": "1/s", "captured_bytes": "B"}.get(metric, "number"), title
