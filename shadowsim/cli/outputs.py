"""What commands write to files: saved runs and pages. That a file cannot be written is bad input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shadowsim.cli.console import writing
from shadowsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from shadowsim.report.analysis_page import Goal
    from shadowsim.result import Result
    from shadowsim.scenario.scenario import Scenario

REPORT, LONE_REPORT = "report.html", "shadowsim-report.html"


def make_folder(out: Path) -> None:
    """Make the output directory before the work that would be lost without it."""
    if os.path.exists(out) and not os.path.isdir(out):  # unlike Path's methods they take a name of any length
        raise InputError("-o", f"must be a directory, and {out} is a file")
    writing(out, lambda: out.mkdir(parents=True, exist_ok=True))
    if not os.access(out, os.W_OK):
        raise InputError("-o", f"must be a directory that can be written to, and {out} is not")


def save(results: Sequence[Result], out: Path | None, report: bool) -> list[str]:
    """Write what is asked for, and return a line for each kind of thing written."""
    written = []
    if out is not None:
        what, many = "scenario.json; windows, latency and requests as Parquet", len(results) > 1
        folders = [out / f"replication-{r}" if many else out for r in range(len(results))]
        for folder, result in zip(folders, results, strict=True):
            writing(folder, partial(result.save, folder))
        to = f" to {folders[-1].name}" if many else ""
        written.append(f"{folders[0]}{to or os.sep} ({what})")
    if report:
        written.append(str(write_page(results[0], Path(LONE_REPORT) if out is None else out / REPORT)))
    return written


def write_page(result: Result, file: Path) -> Path:
    """Write a run as a page."""
    from shadowsim.report.run_page import write

    if os.path.isdir(file):
        raise InputError("-o", f"must be a file, and {file} is a directory")
    return writing(file, lambda: write(result, file))


def write_analysis(frame: pd.DataFrame, file: Path | None, goal: Goal, scenario: Scenario) -> list[str]:
    """Write the frame of an analysis as a page, where one is asked for, and return a line that says so."""
    if file is None:
        return []
    from shadowsim.report.analysis_page import write

    return [f"page: {writing(file, lambda: write(frame, file, goal, scenario))}"]
