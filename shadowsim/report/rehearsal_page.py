"""Puts callers, live variants, their comparison and the simulation on one HTML page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from shadowsim import __version__
from shadowsim.frames import ROLES
from shadowsim.plots.comparison import differences
from shadowsim.plots.prediction import live_and_simulated
from shadowsim.report.comparison_text import change, interval, records, values
from shadowsim.report.html_page import (
    NO_SCRIPT,
    Chart,
    answer,
    assumptions_list,
    document,
    page,
    paragraphs,
    placed,
    save,
    section,
    table,
)
from shadowsim.report.load_text import target_lines, verdict_lines
from shadowsim.report.rehearsal_text import (
    CALIBRATED,
    agreement_sentences,
    agreement_text,
    difference_sentence,
    figure_rows,
    label,
    what_ran,
)

if TYPE_CHECKING:
    from shadowsim.measuring.rehearsal import LiveRehearsal


def html(run: LiveRehearsal) -> str:
    """Return the page of a rehearsal: a complete HTML document of about 2 MB, nearly all of it Plotly's script."""
    experiment = run.simulated.scenario.experiment
    charts = [
        Chart("quantiles", live_and_simulated(run.curves), "Latency at each percentile, live and simulated."),
        Chart("comparison", differences(run.comparison), difference_sentence(run)),
    ]
    who, kinds, *figures = figure_rows(run)
    heads = [f"{name}, {kind}" if name else "" for name, kind in zip(who, kinds, strict=True)]
    callers = [] if run.load is None else [*target_lines(run.load), *verdict_lines(run.load)]
    said = agreement_sentences(run)
    what = paragraphs([*what_ran(run), *(" ".join(line.split()) for line in callers)])
    beside = table(
        "Callers count from the planned time of a request to its last byte; the rest is ModelLatency.",
        heads,
        [(name, cells) for name, *cells in figures],
    )
    compared = _compared(run.comparison, ("source", "shadow"), lambda row: str(row["verdict"]))
    main = f"""{answer("The live test", difference_sentence(run), said)}
{section("figures", "Live beside simulated", beside)}
{NO_SCRIPT}
{placed(charts[0])}
{section("shadow", "The live shadow against the live source", compared)}
{placed(charts[1])}
{"".join(_against(run, role) for role in ROLES)}
{section("what", "What ran", what + assumptions_list(run.simulated.scenario.assumptions))}"""
    footer = f"""<p>Made by shadowsim {__version__}. {CALIBRATED}</p>
{document("The scenario, as JSON", run.simulated.scenario.to_dict())}"""
    return page("Rehearsal", experiment.name, experiment.description or "", main, charts, footer)


def write(run: LiveRehearsal, path: str | os.PathLike[str]) -> Path:
    """Write the page of a rehearsal to a file, and return its path."""
    return save(html(run), path)


def _against(run: LiveRehearsal, role: str) -> str:
    rows = run.against_simulation[run.against_simulation["role"] == role]
    title = f"The live {role} against its simulation: {run.verdicts[role]}"
    return section(role, title, _compared(rows, ("simulated", "live"), agreement_text))


def _compared(frame: pd.DataFrame, sides: tuple[str, str], verdict_of: Callable[[Mapping[str, Any]], str]) -> str:
    cells = [
        (label(str(row["metric"])), [*values(row), change(row), interval(row), verdict_of(row)])
        for row in records(frame)
    ]
    return table("", ["", *sides, "change", "95 % interval", "verdict"], cells)
