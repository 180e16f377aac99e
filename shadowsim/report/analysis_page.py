"""Writes analyses as HTML pages: the answer on top, then charts, tables and what they rest on.

`html(thing)` takes a frame of `size`, `capacity`, `plan`, `sweep`, `compare` or `noise_floor`, or what `calibrate`,
`predict`, `agreement`, `step_model` and `read_measurement` return; `write(thing, file)` saves the page.
planned_analyses.py and measured_analyses.py say what a page shows, and html_page.py assembles it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from shadowsim import __version__
from shadowsim.captures.agreement import Agreement
from shadowsim.errors import InputError
from shadowsim.measuring.calibration import Calibration
from shadowsim.measuring.measurement import Measurement
from shadowsim.measuring.predict import ServicePrediction
from shadowsim.measuring.step_model import StepFits
from shadowsim.planning.scaling_documents import ScalingDocuments
from shadowsim.report.analysis import Analysis, notes_html
from shadowsim.report.comparison_text import SavedComparison
from shadowsim.report.html_page import (
    NO_SCRIPT,
    answer,
    assumptions_list,
    document,
    page,
    placed,
    save,
    section,
    text,
)
from shadowsim.report.measured_analyses import (
    agreement_analysis,
    calibration_analysis,
    measurement_analysis,
    prediction_analysis,
    scaling_analysis,
    steps_analysis,
)
from shadowsim.report.planned_analyses import Goal, analysis_of_frame, comparison_analysis
from shadowsim.scenario.scenario import Scenario

Analysed = (
    pd.DataFrame
    | Agreement
    | Analysis
    | Calibration
    | Measurement
    | SavedComparison
    | ScalingDocuments
    | ServicePrediction
    | StepFits
)


def html(thing: Analysed, goal: Goal = None, scenario: Scenario | None = None) -> str:
    """Return the page of an analysis.

    Parameters
    ----------
    thing : DataFrame or result of an analysis
        A frame that `size`, `capacity`, `plan`, `sweep`, `compare` or `noise_floor` returned, or what another analysis
        did.
    goal : str, Slo or float, optional
        The goals of `size` or `capacity`, or the power that `plan` was asked for; by default those of the frame.
    scenario : Scenario, optional
        The scenario of the analysis: it gives the page its name and is shown at its end.

    Raises
    ------
    InputError
        If it is nothing that an analysis returns.
    """
    a = analysis_of(thing, goal, scenario)
    assumed = assumptions_list(scenario.assumptions) if scenario else ""
    documents = [document(title, value, is_open=not a.tables) for title, value in a.documents.items()]
    documents += [document("The scenario, as JSON", scenario.to_dict())] if scenario else []
    said = " ".join([a.answer, *a.texts])
    main = f"""{answer(a.status, a.answer, a.texts, a.tone)}
{NO_SCRIPT if a.charts else ""}
{"".join(placed(chart, said) for chart in a.charts)}
{section("table", "Data table" if a.tables else "Notes", "".join(a.tables) + notes_html(a.notes))}
{assumed}
{"".join(documents)}"""
    title = scenario.experiment.name if scenario else a.title or a.kicker
    return page(a.kicker, title, "", main, a.charts, f"<p>Made by shadowsim {text(__version__)}.</p>")


def write(thing: Analysed, path: str | os.PathLike[str], goal: Goal = None, scenario: Scenario | None = None) -> Path:
    """Write the page of an analysis to a file, and return its path; see `html`."""
    return save(html(thing, goal, scenario), path)


def analysis_of(thing: Analysed, goal: Goal = None, scenario: Scenario | None = None) -> Analysis:
    """Return what the page of an analysis shows; parameters and errors as for `html`."""
    match thing:
        case Analysis():
            return thing
        case pd.DataFrame():
            return analysis_of_frame(thing, goal, scenario)
        case Agreement():
            return agreement_analysis(thing)
        case Calibration():
            return calibration_analysis(thing)
        case Measurement():
            return measurement_analysis(thing)
        case SavedComparison():
            return comparison_analysis(thing)
        case ScalingDocuments():
            return scaling_analysis(thing)
        case ServicePrediction():
            return prediction_analysis(thing)
        case StepFits():
            return steps_analysis(thing)
    raise InputError("thing", "must be what an analysis of shadowsim returned")
