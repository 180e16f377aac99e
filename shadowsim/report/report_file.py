"""Writes any result as an HTML page: a run, a load run, a rehearsal, or an analysis."""

from __future__ import annotations

import os
from pathlib import Path

from shadowsim.measuring.generator.load_run import LoadRun
from shadowsim.measuring.rehearsal import LiveRehearsal
from shadowsim.report import analysis_page, load_page, rehearsal_page, run_page
from shadowsim.report.analysis_page import Analysed
from shadowsim.report.planned_analyses import Goal
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario


def write_report(
    thing: Result | LoadRun | LiveRehearsal | Analysed,
    path: str | os.PathLike[str] = "report.html",
    *,
    goal: Goal = None,
    scenario: Scenario | None = None,
) -> Path:
    """Write a result as one self-contained HTML page, and return its path.

    Parameters
    ----------
    thing : Result, LoadRun, DataFrame or result of an analysis
        What `simulate`, `load`, `size`, `capacity`, `plan`, `sweep`, `compare`, `noise_floor`, `calibrate`, `predict`,
        `agreement`, `step_model`, `scaling_policy`, `read_measurement` or `rehearsal` returned.
    path : path
        The file to write.
    goal : str, Slo or float, optional
        The goals of `size` or `capacity`, or the power of `plan`, in place of those that the frame was made for.
    scenario : Scenario, optional
        The scenario of an analysis: it gives the page its name and is shown at its end.

    Raises
    ------
    InputError
        If `thing` is anything else.

    Examples
    --------
    >>> import shadowsim as ss
    >>> grid = {"sampling_percentage": [10, 100]}
    >>> cells = ss.sweep(ss.default_scenario().replace({"horizon_s": 600}), grid, progress=False)
    >>> ss.write_report(cells, "cells.html").name
    'cells.html'
    """
    if isinstance(thing, Result):
        return run_page.write(thing, path)
    if isinstance(thing, LoadRun):
        return load_page.write(thing, path)
    if isinstance(thing, LiveRehearsal):
        return rehearsal_page.write(thing, path)
    return analysis_page.write(thing, path, goal, scenario)
