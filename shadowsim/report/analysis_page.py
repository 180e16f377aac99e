"""Writes analyses as HTML pages: frames of `size`, `capacity`, `plan`, `sweep`, `compare` and others.

`html(frame)` recognises the analysis by the columns of its frame and returns a page with figures and a table;
`write(frame, file)` saves it. html_page.py assembles it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from shadowsim import __version__, plots
from shadowsim.errors import InputError
from shadowsim.planning.slo import Slo
from shadowsim.report.html_page import Chart, assumptions_list, document, page, paragraphs, placed, save, table, text
from shadowsim.report.readable_frame import readable
from shadowsim.scenario.scenario import Scenario

MAX_ROWS = 1_000  # in the table of a page
Goal = str | Slo | float | None


@dataclass(frozen=True, slots=True)
class AnalysisKind:
    """The page of one kind of analysis.

    Attributes
    ----------
    columns : tuple of str
        Columns that only frames of this kind have.
    kicker, caption : str
        The lines above the heading and above the table.
    figures : callable
        (frame, goal) -> figures by their keys.
    no_figures : str
        The text that replaces the figures if there are none.
    """

    columns: tuple[str, ...]
    kicker: str
    caption: str
    figures: Callable[[pd.DataFrame, Goal], dict[str, go.Figure]]
    no_figures: str = ""


def html(frame: pd.DataFrame, goal: Goal = None, scenario: Scenario | None = None) -> str:
    """Return the page of an analysis.

    Parameters
    ----------
    frame : DataFrame
        A frame that `size`, `capacity`, `plan`, `sweep`, `compare` or `noise_floor` returned, or the `curve` of a
        prediction.
    goal : str, Slo or float, optional
        The goals of `size` or `capacity`, by default those that decided; or the power that `plan` was asked for.
    scenario : Scenario, optional
        The scenario of the analysis: it gives the page its name and is shown at its end.

    Raises
    ------
    InputError
        If no such function returns such a frame.
    """
    kind = kind_of(frame)
    charts = [Chart(key, figure, _gist(len(frame))) for key, figure in kind.figures(frame, goal).items()]
    texts = readable(frame.head(MAX_ROWS)).reset_index(drop=True)
    cells = [(row[0], list(row[1:])) for row in texts.itertuples(index=False, name=None)]
    left_out = len(frame) - len(texts)
    caption = kind.caption + (f" The first {MAX_ROWS:,} rows; {left_out:,} more are left out." if left_out else "")
    figures = "".join(map(placed, charts)) or paragraphs([kind.no_figures])
    main = f"""<noscript><p>The charts need JavaScript; the rest of this page does not.</p></noscript>
{figures}
<section aria-labelledby="table">
<h2 id="table">Data table</h2>
<div class="scroll" tabindex="0">{table(caption, list(texts.columns), cells)}</div>
</section>"""
    footer = f"<p>Made by shadowsim {text(__version__)}.</p>"
    if scenario is not None:
        main += "\n" + assumptions_list(scenario.assumptions)
        footer += "\n" + document("The scenario, as JSON", scenario.to_dict())
    title = scenario.experiment.name if scenario is not None else kind.kicker
    return page(kind.kicker, title, "", main, charts, footer)


def write(
    frame: pd.DataFrame, path: str | os.PathLike[str], goal: Goal = None, scenario: Scenario | None = None
) -> Path:
    """Write the page of an analysis to a file, and return its path; see `html`."""
    return save(html(frame, goal, scenario), path)


def kind_of(frame: pd.DataFrame) -> AnalysisKind:
    """Return the kind of analysis that a frame belongs to.

    Raises
    ------
    InputError
        If the frame belongs to none.
    """
    for kind in _KINDS:
        if set(kind.columns) <= set(frame.columns):
            return kind
    raise InputError("frame", "must be one of size, capacity, plan, sweep, compare, noise_floor or predict")


def _gist(n_rows: int) -> str:
    rows = "1 row" if n_rows == 1 else f"{n_rows:,} rows"
    return f"The figures are in the table below, which has {rows}."


def _size_figures(frame: pd.DataFrame, goal: Goal) -> dict[str, go.Figure]:
    if not frame["instance_count"].notna().any():
        return {}
    slo = goal if isinstance(goal, str | Slo) else None
    return {"instances": plots.latency_against_instances(frame, slo), "cost": plots.cost_frontier(frame, slo)}


def _capacity_figures(frame: pd.DataFrame, goal: Goal) -> dict[str, go.Figure]:
    if not frame["rate_per_s"].notna().any():
        return {}
    return {"rates": plots.latency_against_rate(frame, goal if isinstance(goal, str | Slo) else None)}


def _plan_figures(frame: pd.DataFrame, goal: Goal) -> dict[str, go.Figure]:
    return {"power": plots.power(frame), "cost": plots.cost_frontier(frame, goal)}


def _sweep_figures(frame: pd.DataFrame, _: Goal) -> dict[str, go.Figure]:
    try:
        return {"p99": plots.sweep(frame), "utilisation": plots.sweep(frame, "utilisation")}
    except InputError as error:
        if error.path != "frame":
            raise
        return {}


_KINDS = (
    AnalysisKind(
        ("one_fewer", "instance_count"),
        "Fewest instances that meet the goals",
        "Cheapest first. After ±: two standard errors.",
        _size_figures,
        "No count of instances is known to meet the goals; the table tells why.",
    ),
    AnalysisKind(
        ("limit_per_s", "factor"),
        "Greatest rate that the pools hold",
        "Low and high: the interval of the rate. After ±: two standard errors.",
        _capacity_figures,
        "No rate holds; the table tells why.",
    ),
    AnalysisKind(
        ("power", "reaches"), "Plan of a shadow test", "Visible: the smallest difference found so often.", _plan_figures
    ),
    AnalysisKind(
        ("run_verdict", "replication"),
        "Sweep of shadow tests",
        "One row per run and variant. Quantiles that a run is too short for are dashes.",
        _sweep_figures,
        "A chart shows one or two settings that vary: select rows of the frame.",
    ),
    AnalysisKind(
        ("ratio_low", "margin"),
        "Shadow against source",
        "Low and high: the interval of the difference.",
        lambda frame, _: {"comparison": plots.differences(frame)},
    ),
    AnalysisKind(
        ("typical", "most"),
        "Noise floor of a shadow test",
        "Typical and most: median and 95 % quantile of the difference.",
        lambda frame, _: {"noise": plots.noise_floor(frame)},
    ),
    AnalysisKind(
        ("measured_s", "predicted_s"),
        "Prediction of a measured run",
        "Low and high: the band of each quantile alone.",
        lambda frame, _: {"prediction": plots.measured_and_predicted(frame)},
    ),
)
