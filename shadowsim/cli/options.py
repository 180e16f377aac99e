"""What commands have in common on their command lines: options, numbers, and the scenario that all of it makes.

What commands write to files: saved runs and pages. That a file cannot be written is bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadowsim.cli.console import writing
from shadowsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from shadowsim.report.analysis_page import Goal
    from shadowsim.result import Result
    from shadowsim.scenario.scenario import Scenario

File = Annotated[
    str | None,
    typer.Argument(metavar="FILE.json", help="A request or a scenario; - is stdin. [the built-in scenario]"),
]
Rate = Annotated[
    str | None, typer.Option(metavar="R", help="Mean rate of the traffic in requests/s; a plain request needs it.")
]
Edits = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value, as in shadow.instance_count=4; repeatable."),
]
Seed = Annotated[str | None, typer.Option(metavar="N", help="Seed of all random draws.")]
Workers = Annotated[
    str | None, typer.Option(metavar="N", help="Threads; the result does not depend on it. [one a core]")
]
PriceFile = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Own prices (CSV or JSON: type, USD an hour). [dated examples]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", "--no-progress", help="No progress bar, no timing.")]
Report = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", dir_okay=False, help="Write a page with figures, too.")
]
# What a comparison is asked for.
MarginPct = Annotated[
    str | None, typer.Option(metavar="PCT", help="A difference of latency that does not matter, in %. [10]")
]
MarginPoints = Annotated[
    str | None, typer.Option(metavar="P", help="A difference of shares that does not matter, in points. [0.1]")
]
Confidence = Annotated[str | None, typer.Option(metavar="C", help="Of the intervals. [0.95]")]
SloS = Annotated[str | None, typer.Option("--slo-s", metavar="S", help="Adds the share of answers that take longer.")]


def document_of(file: str) -> dict[str, Any]:
    """Return the JSON object in a file, or on standard input."""
    from shadowsim.json_files import read_json

    return read_json(sys.stdin.buffer.read(), "stdin") if file == "-" else read_json(Path(file))


def scenario_of(
    file: str | None, rate: str | None = None, edits: Sequence[str] | None = None, seed: str | None = None
) -> Scenario:
    """Return the scenario of a command line, all its edits made."""
    from shadowsim.scenario.paths import parse_set
    from shadowsim.scenario.scenario import Scenario, default_scenario

    per_s, number = number_of("--rate", rate), number_of("--seed", seed)
    changes: dict[str, object] = {} if number is None else {"seed": number}
    changes |= map(parse_set, edits or [])
    if file is None:
        source: object = default_scenario()
    else:
        source = document_of(file) if file == "-" else Path(file)
    return Scenario.of(source, per_s, changes)


def number_of(option: str, text: str | None) -> float | None:
    """Return the number that an option gives, None when it is left out; typer's message would not show what it got."""
    if text is None:
        return None
    try:
        return int(text) if text.strip("+-").isdecimal() else float(text)
    except ValueError:
        hint = "; it takes no sign %" if text.strip().endswith("%") else ""
        raise InputError(option, "must be a number", text, hint=hint) from None


def whole_of(option: str, text: str | None, least: int = 1, most: int | None = None) -> int | None:
    """Return the whole number that an option gives, None when it is left out."""
    number = number_of(option, text)
    if number is None or (isinstance(number, int) and least <= number <= (number if most is None else most)):
        return number
    upto = "" if most is None else f" and <= {most}"
    raise InputError(option, f"must be a whole number >= {least}{upto}", number)


def positive_of(option: str, text: str | None, most: float) -> float | None:
    """Return the number above 0 that an option gives, None when it is left out."""
    number = number_of(option, text)
    if number is None or 0.0 < number <= most:
        return number
    raise InputError(option, f"must be > 0 and <= {most:g}", number)


def only_given(**options: object) -> dict[str, Any]:
    """Return the options that were given; the others are left to the function's own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def terms(
    margin_pct: str | None, margin_points: str | None, confidence: str | None, slo_s: str | None
) -> dict[str, Any]:
    """Return what a comparison is asked for, of it only what was given."""
    return only_given(
        margin_pct=number_of("--margin-pct", margin_pct),
        margin_points=number_of("--margin-points", margin_points),
        confidence=number_of("--confidence", confidence),
        slo_s=number_of("--slo-s", slo_s),
    )


def refuse_both_formats(as_json: bool, as_csv: bool) -> None:
    """Refuse two formats at once."""
    if as_json and as_csv:
        raise InputError("--csv", "must not be given together with --json")


def with_bar(as_json: bool, as_csv: bool, quiet: bool) -> bool:
    """Return whether there is somebody to see a progress bar."""
    return not (as_json or as_csv or quiet) and sys.stderr.isatty()


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
