"""An analysis as one HTML page: the frames of `size`, `plan`, `sweep`, `compare` and `noise_floor`, with their figures.

`html(frame)` tells by its columns which of them made a frame; `write(frame, file)` writes the page. What it needs to be
one page and to do no harm is in page.py.
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
from shadowsim.report.html_page import Chart, document, page, paragraphs, placed, save, table, text
from shadowsim.report.readable_frame import readable
from shadowsim.scenario.scenario import Scenario

MOST_ROWS = 1_000  # of a table that somebody reads
Goal = str | Slo | float | None


@dataclass(frozen=True, slots=True)
class Kind:
    """What a frame is.

    Attributes
    ----------
    columns : tuple of str
        By which it is known.
    kicker, caption : str
        What stands above the page and above its table.
    figures : callable
        (frame, goal) -> figures by their keys.
    without : str
        Why there may be none.
    """

    columns: tuple[str, ...]
    kicker: str
    caption: str
    figures: Callable[[pd.DataFrame, Goal], dict[str, go.Figure]]
    without: str = ""


def html(frame: pd.DataFrame, goal: Goal = None, scenario: Scenario | None = None) -> str:
    """Return the page of an analysis.

    Parameters
    ----------
    frame : DataFrame
        What `size`, `plan`, `sweep`, `compare` or `noise_floor` returned.
    goal : str, Slo or float, optional
        What the frame's figures are held against: the goals of `size`, by default those that decided its answers; the
        power that `plan` was asked for.
    scenario : Scenario, optional
        What it was made of: it gives the page its name and stands at its end.

    Raises
    ------
    InputError
        When the frame is none of these.
    """
    kind = kind_of(frame)
    charts = [
        Chart(key, figure, f"The figures are in the table below, which has {len(frame):,} rows.")
        for key, figure in kind.figures(frame, goal).items()
    ]
    shown = readable(frame.head(MOST_ROWS)).reset_index(drop=True)
    cells = [(row[0], list(row[1:])) for row in shown.itertuples(index=False, name=None)]
    left_out = len(frame) - len(shown)
    caption = kind.caption + (f" The first {MOST_ROWS:,} rows; {left_out:,} more are left out." if left_out else "")
    drawn = "".join(map(placed, charts)) or paragraphs([kind.without])
    main = f"""<noscript><p>The charts need JavaScript; all else on this page does not.</p></noscript>
{drawn}
<section aria-labelledby="table">
<h2 id="table">In figures</h2>
<div class="scroll" tabindex="0">{table(caption, list(shown.columns), cells, wide=True)}</div>
</section>"""
    footer = f"<p>Made by shadowsim {text(__version__)}.</p>"
    if scenario is not None:
        footer += "\n" + document("The scenario, as JSON", scenario.to_dict())
    title = scenario.experiment.name if scenario is not None else kind.kicker
    return page(kind.kicker, title, "", main, charts, footer)


def write(
    frame: pd.DataFrame, path: str | os.PathLike[str], goal: Goal = None, scenario: Scenario | None = None
) -> Path:
    """Write the page of an analysis to a file, and return its path; see `html`."""
    return save(html(frame, goal, scenario), path)


def kind_of(frame: pd.DataFrame) -> Kind:
    """Return what a frame is.

    Raises
    ------
    InputError
        When it is nothing that has a page.
    """
    for kind in _KINDS:
        if set(kind.columns) <= set(frame.columns):
            return kind
    raise InputError("frame", "must be one of size, plan, sweep, compare or noise_floor")


def _of_size(frame: pd.DataFrame, goal: Goal) -> dict[str, go.Figure]:
    if not frame["instance_count"].notna().any():
        return {}
    slo = goal if isinstance(goal, str | Slo) else None
    return {"instances": plots.latency_against_instances(frame, slo), "cost": plots.cost_frontier(frame, slo)}


def _of_plan(frame: pd.DataFrame, goal: Goal) -> dict[str, go.Figure]:
    return {"power": plots.power(frame), "cost": plots.cost_frontier(frame, goal)}


def _of_sweep(frame: pd.DataFrame, _: Goal) -> dict[str, go.Figure]:
    try:
        return {"p99": plots.sweep(frame), "utilisation": plots.sweep(frame, "utilisation")}
    except InputError as error:
        if error.path != "frame":
            raise
        return {}


_KINDS = (
    Kind(
        ("one_fewer", "instance_count"),
        "Fewest instances that meet the goals",
        "Cheapest first. After ±: two standard errors.",
        _of_size,
        "No count of instances meets the goals.",
    ),
    Kind(("power", "reaches"), "Plan of a shadow test", "Visible: the smallest difference found so often.", _of_plan),
    Kind(
        ("run_verdict", "replication"),
        "Sweep of shadow tests",
        "A row a run and variant.",
        _of_sweep,
        "A chart shows one or two settings that vary: choose rows of the frame.",
    ),
    Kind(
        ("ratio_low", "margin"),
        "Shadow against source",
        "Low and high: of the difference.",
        lambda frame, _: {"comparison": plots.differences(frame)},
    ),
    Kind(
        ("typical", "most"),
        "Noise floor of a shadow test",
        "Typical and most: median and 95 % quantile of the difference.",
        lambda frame, _: {"noise": plots.noise_floor(frame)},
    ),
)
