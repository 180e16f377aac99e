"""Draws comparisons and noise floors: one row per metric, with its uncertainty.

Differences of latency are in per cent of the source's, like their margin, or in times of it, on a logarithmic axis,
where one is tenfold; those of shares are in percentage points, in a separate panel. A row shows its outcome by a mark
as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.plots.style import ASIDE, COLOURS, GREY, INK, MARGIN, TEXTS, canvas, log_axis
from shadowsim.statistics.loads import loads_of_table
from shadowsim.statistics.terms import BETTER, NOT_ENOUGH, NOT_ENOUGH_DATA, NOT_JUDGED, SAME, WORSE
from shadowsim.text import OVERLOADED, percent, time_text
from shadowsim.verdict import Verdict

# Colour, mark and legend entry of each outcome, from grave to good; the marks point to where the shadow's figure lies.
OUTCOME_STYLES = {
    WORSE: ("#8A1C5B", "triangle-right", "worse"),
    NOT_ENOUGH: ("#C98A00", "circle-open", NOT_ENOUGH_DATA),
    SAME: (INK, "circle", "no difference larger than the margin"),
    BETTER: ("#009E73", "triangle-left", "better"),
    NOT_JUDGED: (GREY, "line-ns-open", "not judged"),
}
_UNITS = ("s", "share")
_FAR, _OTHER_SIDE = 10.0, 0.08  # times as far to one side, and the share of the axis that the other side then gets
_TENFOLD, _LEAST_TIMES = 10.0, 0.01  # multiples: from which an axis shows such, and what is drawn of lesser ones
_ROW, _REST = 30, 205  # heights in pixels


def differences(compared: pd.DataFrame, verdict: Verdict | None = None, name: str = "") -> go.Figure:
    """Plot the differences between shadow and source per metric, with their intervals and the margin.

    Parameters
    ----------
    compared : DataFrame
        A frame of `compare`, or the rows of one variant of `compare_runs`. Rows `paired_p5` and `paired_p95` are left
        out: they are not differences of variants.
    verdict : Verdict, optional
        Adds to the subtitle which pool is overloaded, which a comparison does not contain.
    name : str
        The variant of `compare_runs`, for the title.

    Returns
    -------
    Figure
        A panel for latencies and one for shares, each if there are any; one trace per outcome. A metric without an
        interval has only a mark, and one without an estimate an empty row.

    Raises
    ------
    InputError
        When the frame has no row to show, or no column `outcome`.
    """
    if "outcome" not in compared:
        raise InputError("compared", "lacks the column outcome, which compare has added: compare the runs again")
    shown_rows = compared[~compared["metric"].isin(["paired_p5", "paired_p95"])]
    first, second = ("baseline", "result") if "baseline" in compared else ("source", "shadow")
    panels = _panels(shown_rows.rename(columns={"baseline": "source", "result": "shadow"}))
    titles = {"s": f"difference in % of the {first}'s", "share": "difference in percentage points"}
    title = f"{escape(name)}: {second} against {first}" if name else f"{second} against {first}".capitalize()
    subtitle = f"With intervals. Shaded: the margin, {_margins(panels)}, within which a difference does not matter."
    figure = _rows_canvas(title, _overloaded(verdict) + _at_loads(compared) + subtitle, panels)
    shown: set[str] = set()
    for row, (unit, part) in enumerate(panels, start=1):
        value, low, high = (_relative(part, column) for column in ("difference", "low", "high"))
        in_times = unit == "s" and np.nanmax(value, initial=0.0) >= 100.0 * (_TENFOLD - 1.0)
        ends = [
            _interval_text(*pair, "" if in_times else "+")
            for pair in zip(*((_times(low), _times(high)) if in_times else (low, high)), strict=True)
        ]
        margin = _margin(part)
        finite = np.concatenate([value, low[np.isfinite(low)], high[np.isfinite(high)], [1.3 * margin]])
        reach = np.nanmax(np.abs(finite), initial=0.0)
        low, high = np.clip(low, -2.0 * reach, None), np.clip(high, None, 2.0 * reach)  # an open end leaves the panel
        none = 0.0
        axis: dict[str, object] = {"title_text": titles[unit], "range": _span(np.append(finite, -1.3 * margin), reach)}
        if in_times:
            none, value, low, high = 1.0, _times(value), _times(low), _times(high)
            axis = _times_axis(np.append(_times(finite), 1.0), f"times the {first}'s (logarithmic)")
        for outcome, (colour, mark, name) in OUTCOME_STYLES.items():
            mark_rows = (part["outcome"] == outcome).to_numpy()
            if mark_rows.any():
                figure.add_trace(
                    go.Scatter(
                        x=value[mark_rows], y=part["metric"][mark_rows], name=name, legendgroup=outcome,
                        showlegend=outcome not in shown, mode="markers",
                        marker={"symbol": mark, "size": 11, "color": colour, "line": {"width": 2, "color": colour}},
                        error_x={"type": "data", "symmetric": False, "array": (high - value)[mark_rows],
                                 "arrayminus": (value - low)[mark_rows], "color": colour, "thickness": 2, "width": 5},
                        customdata=np.column_stack([part["method"], ends])[mark_rows],
                        hovertemplate=f"%{{y}}: %{{x:{'' if in_times else '+'}.3~r}} (%{{customdata[1]}})"
                        "<br>%{customdata[0]}<extra></extra>",
                    ), row, 1,
                )  # fmt: skip
                shown.add(outcome)
        figure.add_vline(none, row=row, col=1, line={"color": GREY, "width": 1}, layer="below")
        if np.isfinite(margin):
            ends_of_margin = (1.0 - margin / 100.0, 1.0 + margin / 100.0) if in_times else (-margin, margin)
            figure.add_vrect(*ends_of_margin, row=row, col=1, fillcolor=MARGIN, line_width=0, layer="below")
        _name_rows(figure, row, 1, part["metric"].tolist())
        _annotate_beside(figure, row, part["metric"], _both(part, unit))
        figure.update_xaxes(row=row, col=1, **axis)
    figure.add_annotation(_beside(f"{first} → {second}"), y=1.0, yref="paper", yanchor="bottom", xref="paper")
    return figure.update_layout(hovermode="closest", margin={"l": 110, "r": 170})


def noise_floor(floor: pd.DataFrame) -> go.Figure:
    """Plot the differences and outcomes of A/A tests, in which there is no difference.

    Parameters
    ----------
    floor : DataFrame
        A frame of `noise_floor`.

    Returns
    -------
    Figure
        On the left a panel for latencies and one for shares, each if there are any: for each metric the median and the
        95 % quantile over the runs of the absolute difference. On the right the share of the runs with each outcome.
    """
    panels = list(_panels(floor))
    n = int(floor["n"].iloc[0])
    subtitle = (
        f"The source against itself, {n:,} runs. Left: the median difference, and a line up to its 95 % quantile. "
        "Right: how often it was called what."
    )
    figure = _rows_canvas(
        "Noise floor", subtitle, panels, cols=2, column_widths=[0.62, 0.38], horizontal_spacing=0.07, shared_yaxes=True
    )
    for row, (unit, part) in enumerate(panels, start=1):
        typical, most = (
            part[f"{name}_pct"].to_numpy(np.float64) if unit == "s" else 100.0 * part[name].to_numpy(np.float64)
            for name in ("typical", "most")
        )
        figure.add_trace(
            go.Scatter(
                x=typical, y=part["metric"], mode="markers", name="difference", showlegend=False, cliponaxis=False,
                customdata=most, marker={"size": 10, "color": COLOURS["source"]},
                error_x={"type": "data", "symmetric": False, "array": most - typical, "arrayminus": 0.0 * typical,
                         "color": COLOURS["source"], "thickness": 2, "width": 5},
                hovertemplate="%{y}: typically %{x:.3~r}, at most %{customdata:.3~r} in 95 % of the runs"
                "<extra></extra>",
            ), row, 1,
        )  # fmt: skip
        for outcome in (WORSE, BETTER, SAME, NOT_ENOUGH):
            colour, _, name = OUTCOME_STYLES[outcome]
            fill = {"color": "#C4C4C4" if outcome == SAME else colour}
            figure.add_trace(
                go.Bar(
                    x=part[outcome], y=part["metric"], orientation="h", name=name, legendgroup=outcome, marker=fill,
                    showlegend=row == 1, hovertemplate=f"%{{y}}: %{{x:.1%}} {name}<extra></extra>", width=0.6,
                ), row, 2,
            )  # fmt: skip
        unit_text = "% of the source's" if unit == "s" else "percentage points"
        figure.update_xaxes(title_text=unit_text, rangemode="tozero", row=row, col=1)
        ticks = {"range": [0.0, 1.0], "tickvals": [0.0, 0.5, 1.0], "ticktext": ["0", "50 %", "100 %"]}
        figure.update_xaxes(title_text="share of runs", row=row, col=2, **ticks)
        for col in (1, 2):
            _name_rows(figure, row, col, part["metric"].tolist())
    return figure.update_layout(barmode="stack", hovermode="closest", margin={"l": 110, "r": 30})


def _span(drawn: Floats, reach: float) -> list[float] | None:
    """Return the range of an axis: symmetrical, unless all that is drawn lies far to one side."""
    least, greatest = float(np.nanmin(drawn, initial=0.0)), float(np.nanmax(drawn, initial=0.0))
    if reach == 0.0:
        return None
    sides = [max(-least, _OTHER_SIDE * reach), max(greatest, _OTHER_SIDE * reach)]
    return [
        -1.05 * (sides[0] if greatest > _FAR * -least else reach),
        1.05 * (sides[1] if -least > _FAR * greatest else reach),
    ]


def _panels(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    panels = [(unit, part) for unit in _UNITS if len(part := frame[frame["unit"] == unit])]
    if not panels:
        raise InputError("frame", "has no row to show")
    return panels


def _rows_canvas(title: str, subtitle: str, panels: Sequence[tuple[str, pd.DataFrame]], **more: object) -> go.Figure:
    """Return a canvas whose panels are as high as their numbers of metrics require."""
    n = [len(part) for _, part in panels]
    height = _REST + _ROW * sum(n) + 60 * (len(n) - 1)
    plot_height = height - 165
    options = {"shared_xaxes": False, "row_heights": n, "vertical_spacing": 70 / plot_height if len(n) > 1 else 0.0}
    return canvas(title, subtitle, len(panels), height, **(options | more))


def _name_rows(figure: go.Figure, row: int, col: int, names: Sequence[str]) -> None:
    """Give the panel one row per metric, the first at the top."""
    order = {"categoryorder": "array", "categoryarray": names, "range": [len(names) - 0.5, -0.5]}
    order |= {"tickvals": names, "ticktext": [name.replace("_", " ") for name in names]}
    figure.update_yaxes(row=row, col=col, showgrid=False, automargin=True, **order)


def _annotate_beside(figure: go.Figure, row: int, names: Iterable[str], texts: Iterable[str]) -> None:
    for name, text in zip(names, texts, strict=True):
        figure.add_annotation(_beside(text), y=name, row=row, col=1, xref="x domain")


def _beside(text: str) -> dict[str, object]:
    font = {"color": GREY, "size": 12}
    return {"text": text, "x": 1.0, "xanchor": "left", "xshift": 8, "showarrow": False, "font": font, "name": ASIDE}


def _times(per_cent: Floats) -> Floats:
    """Return differences in per cent of the source's as multiples of it."""
    times: Floats = np.maximum(1.0 + per_cent / 100.0, _LEAST_TIMES)
    return times


def _times_axis(values: Floats, title: str) -> dict[str, object]:
    """Return a logarithmic axis that shows multiples of the source's."""
    known = values[np.isfinite(values)]
    ends = np.log10([known.min(), known.max()])
    pad = 0.05 * (ends[1] - ends[0])
    axis = {"title_text": title, "range": [ends[0] - pad, ends[1] + pad]}
    return axis | (log_axis(known) if ends[1] - ends[0] < 1.5 else {"type": "log", "dtick": 1, "tickformat": ",~r"})


def _interval_text(low: float, high: float, sign: str) -> str:
    if np.isnan(low) or np.isnan(high):
        return "no interval"
    return f"{low:{sign},.4g} or more" if np.isinf(high) else f"{low:{sign},.4g} to {high:{sign},.4g}"


def _relative(part: pd.DataFrame, column: str) -> Floats:
    """Return differences in the unit of their margin: per cent of the source's latency, or percentage points."""
    value = part[column].to_numpy(np.float64)
    if (part["unit"] == "share").all():
        return 100.0 * value
    ratio = part[{"difference": "ratio", "low": "ratio_low", "high": "ratio_high"}[column]].to_numpy(np.float64)
    source = part["source"].to_numpy(np.float64)
    share = np.divide(value, source, out=np.full(value.size, np.nan), where=source > 0.0)
    # Paired rows have no ratio: their interval is that of the difference.
    relative: Floats = 100.0 * np.where(np.isnan(part["ratio"].to_numpy(np.float64)), share, ratio - 1.0)
    return relative


def _margin(part: pd.DataFrame) -> float:
    """Return the margin of a panel, in its unit; all its rows have the same."""
    margin = part["margin"].to_numpy(np.float64)
    if (part["unit"] == "s").all():
        source = part["source"].to_numpy(np.float64)
        margin = np.divide(margin, source, out=np.full(margin.size, np.nan), where=source > 0.0)
    known = margin[np.isfinite(margin)]
    return 100.0 * float(np.median(known)) if known.size else np.nan


def _margins(panels: Sequence[tuple[str, pd.DataFrame]]) -> str:
    units = {"s": "%", "share": "points"}
    texts = [f"± {_margin(part):.3g} {units[unit]}" for unit, part in panels if np.isfinite(_margin(part))]
    return " and ".join(texts) or "unknown"


def _both(part: pd.DataFrame, unit: str) -> list[str]:
    text = time_text if unit == "s" else lambda share: percent(share, 2)
    return [
        " → ".join(f'<span style="color:{TEXTS[role]}">{text(pair[role])}</span>' for role in COLOURS)
        for pair in part[list(COLOURS)].to_dict("records")
    ]


def _at_loads(compared: pd.DataFrame) -> str:
    """Return a sentence on the loads of both sides if they are not the same, else ""."""
    loads = loads_of_table(compared) if "source" in compared else None
    return f"The shadow is {loads.qualifier}. " if loads and loads.qualifier else ""


def _overloaded(verdict: Verdict | None) -> str:
    names = [p.role for p in verdict.pools if p.status == OVERLOADED] if verdict else []
    return f"{' and '.join(names).capitalize()} {OVERLOADED}: latencies grow with the run. " if names else ""
