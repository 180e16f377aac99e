"""Writes saved runs and HTML pages for commands; a file that cannot be written is bad input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shadowsim.cli.console import writing
from shadowsim.errors import InputError
from shadowsim.option_defaults import PAGE_IN_RUN

if TYPE_CHECKING:
    from shadowsim.measuring.generator.load_run import LoadRun
    from shadowsim.measuring.rehearsal import LiveRehearsal
    from shadowsim.report.analysis_page import Analysed
    from shadowsim.report.planned_analyses import Goal
    from shadowsim.result import Result
    from shadowsim.scenario.scenario import Scenario

PAGE_ALONE = "shadowsim-report.html"
_FRAMES = ("windows.parquet", "latency.parquet", "requests.parquet")
RUN_FILES = ("scenario.json", "assumed.json", "load.json", *_FRAMES, PAGE_IN_RUN)


def make_folder(out: Path) -> None:
    """Make the output directory, before the work that would be lost without it."""
    if os.path.exists(out) and not os.path.isdir(out):  # Path's methods raise for a name that is too long
        raise InputError("-o", f"must be a directory, but {out} is a file")
    writing(out, lambda: out.mkdir(parents=True, exist_ok=True))
    if not os.access(out, os.W_OK):
        raise InputError("-o", f"must be a directory that can be written to, and {out} cannot")


def save_runs(results: Sequence[Result], out: Path | None, report: bool) -> list[str]:
    """Write runs into a directory and the first one as a page, as far as asked for; return a line per kind of output.

    Several runs are replications, and get a directory each.
    """
    lines = []
    if out is not None:
        contents, several = "scenario.json; windows, latency and requests as Parquet", len(results) > 1
        folders = [out / f"replication-{r}" if several else out for r in range(len(results))]
        lines += [f"removed {path} (of an earlier run)" for path in remove_earlier(out, folders, report)]
        for folder, result in zip(folders, results, strict=True):
            writing(folder, partial(result.save, folder))
        to = f" to {folders[-1].name}" if several else ""
        lines.append(f"wrote {folders[0]}{to or os.sep} ({contents})")
    if report:
        lines.append(f"wrote {write_page(results[0], Path(PAGE_ALONE) if out is None else out / PAGE_IN_RUN)}")
    return lines


def remove_earlier(out: Path, folders: Sequence[Path], report: bool) -> list[Path]:
    """Remove what an earlier run left in a directory and the new one does not replace, and return it.

    Parameters
    ----------
    out : Path
        The directory of `simulate -o`.
    folders : sequence of Path
        Directories that the new runs will fill: `out`, or one per replication.
    report : bool
        Whether a new page will replace an earlier one.
    """
    removed = []
    for folder in (out, *sorted(out.glob("replication-*"))):
        if not (folder / "scenario.json").is_file():
            continue  # it holds no run
        stale = [name for name in RUN_FILES if folder not in folders or (name == PAGE_IN_RUN and not report)]
        paths = [folder / name for name in stale if (folder / name).exists()]
        for path in paths:
            writing(path, path.unlink)
        if folder != out and not any(folder.iterdir()):
            writing(folder, folder.rmdir)
            paths = [folder]
        removed += paths
    return removed


def write_page(run: Result | LoadRun | LiveRehearsal, file: Path) -> Path:
    """Write a run as an HTML page."""
    if os.path.isdir(file):
        raise InputError("-o", f"must be a file, but {file} is a directory")
    return writing(file, lambda: run.report(file))


def write_analysis(
    thing: Analysed, file: Path | None, for_machines: bool, goal: Goal = None, scenario: Scenario | None = None
) -> None:
    """Write an analysis as an HTML page where a file is given, and print a line that says so.

    The line goes to standard error where standard output is for machines.
    """
    if file is None:
        return
    from shadowsim.report.analysis_page import write

    typer.echo(f"page: {writing(file, lambda: write(thing, file, goal, scenario))}", err=for_machines)
