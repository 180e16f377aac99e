"""Puts callers, live variants, their comparison and the simulation on one HTML page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shadowsim import __version__
from shadowsim.frames import ROLES
from shadowsim.plots.prediction import live_and_simulated
from shadowsim.report.analysis import notes_html, table_of
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
)
from shadowsim.report.load_text import target_lines, verdict_lines
from shadowsim.report.planned_analyses import analysis_of_frame
from shadowsim.report.rehearsal_text import (
    CALIBRATED,
    agreement_sentences,
    agreement_text,
    figure_rows,
    figure_text,
    label,
    what_ran,
)

if TYPE_CHECKING:
    import pandas as pd

    from shadowsim.measuring.rehearsal import LiveRehearsal


def html(run: LiveRehearsal) -> str:
    """Return the page of a rehearsal: a complete HTML document of about 2 MB, nearly all of it Plotly's script."""
    experiment = run.simulated.scenario.experiment
    live = analysis_of_frame(run.comparison)  # the live shadow against the live source
    who, kinds, *figures = figure_rows(run)
    heads = [f"{name}, {kind}" if name else "" for name, kind in zip(who, kinds, strict=True)]
    quantiles = Chart("quantiles", live_and_simulated(run.curves), _quantiles_text(run.figures))
    callers = [] if run.load is None else [*target_lines(run.load), *verdict_lines(run.load)]
    what = paragraphs([*what_ran(run), *(" ".join(line.split()) for line in callers)])
    beside = table_of(
        [heads, *figures],
        "Callers count from the planned time of a request to its last byte; the rest is ModelLatency.",
    )
    texts = [*live.texts[:-1], *agreement_sentences(run)]  # the last has the numbers of requests, as the table below
    main = f"""{answer(f"The live shadow: {live.status.lower()}", live.answer, texts, live.tone)}
{section("figures", "Live beside simulated", beside)}
{NO_SCRIPT}
{placed(quantiles)}
{section("shadow", "The live shadow against the live source", "".join(live.tables) + notes_html(live.notes))}
{"".join(map(placed, live.charts))}
{"".join(_against(run, role) for role in ROLES)}
{section("what", "What ran", what + assumptions_list(run.simulated.scenario.assumptions))}"""
    footer = f"""{paragraphs([f"Made by shadowsim {__version__}. {CALIBRATED}"])}
{document("The scenario, as JSON", run.simulated.scenario.to_dict())}"""
    charts = [quantiles, *live.charts]
    return page("Rehearsal", experiment.name, experiment.description or "", main, charts, footer)


def write(run: LiveRehearsal, path: str | os.PathLike[str]) -> Path:
    """Write the page of a rehearsal to a file, and return its path."""
    return save(html(run), path)


def _against(run: LiveRehearsal, role: str) -> str:
    rows = [["", "simulated", "live", "change", "95 % interval", "verdict"]]
    for row in records(run.against_simulation[run.against_simulation["role"] == role]):
        rows.append([label(str(row["metric"])), *values(row), change(row), interval(row), agreement_text(row)])
    return section(role, f"The live {role} against its simulation: {run.verdicts[role]}", table_of(rows))


def _quantiles_text(figures: pd.DataFrame) -> str:
    """Return the p50 and the p99 of all sides."""
    texts = []
    for name in ("p50", "p99"):
        sides = [f"{label(str(side))} {figure_text(name, x)}" for side, x in figures.loc[name].to_dict().items()]
        texts.append(f"{name}: {', '.join(sides)}")
    return f"{'; '.join(texts)}."
