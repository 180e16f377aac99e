"""Declares the options that commands share, and builds the scenario of a command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadowsim.cli.completions import setting_paths
from shadowsim.cli.option_parsers import number, option_parser, time_s, whole
from shadowsim.errors import InputError

if TYPE_CHECKING:
    from shadowsim.scenario.scenario import Scenario


def _page_file(file: Path | None) -> Path | None:
    """Refuse a page in a directory that does not exist, before the work that would be lost without it."""
    if file is not None and not os.path.isdir(file.parent):
        raise InputError("--report", "must be a file in a directory that exists", str(file))
    return file


File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE.json",
        help="A request or a scenario; - reads standard input.",
        show_default="the built-in scenario",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        parser=option_parser(number),
        metavar="R",
        help="Mean rate of the traffic in requests per second; a plain request needs it.",
    ),
]
Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        autocompletion=setting_paths,
        help="Change a value, as in shadow.instance_count=4 or horizon_s=1d; repeatable.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(parser=option_parser(whole, least=0), metavar="N", help="Seed of all random draws."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        parser=option_parser(whole),
        metavar="N",
        help="Number of threads; it does not change the result.",
        show_default="one per core",
    ),
]
PriceFile = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="Your own prices (CSV or JSON: instance type, USD per hour).",
        show_default="dated examples",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print machine-readable CSV.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", "--no-progress", help="Show neither progress nor timing.")]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        dir_okay=False,
        callback=_page_file,
        help="Also write an HTML page with figures.",
    ),
]

# Options of comparisons.
MarginPct = Annotated[
    float,
    typer.Option(
        parser=option_parser(number), metavar="PCT", help="Largest latency difference that does not matter, in %."
    ),
]
MarginPoints = Annotated[
    float,
    typer.Option(
        parser=option_parser(number),
        metavar="P",
        help="Largest difference of error rates that does not matter, in percentage points.",
    ),
]
Confidence = Annotated[
    float, typer.Option(parser=option_parser(number), metavar="C", help="Confidence level of the intervals.")
]
SloS = Annotated[
    float | None,
    typer.Option(
        "--slo-s",
        parser=option_parser(time_s),
        metavar="T",
        help="Also compare the share of requests slower than this, as in 200ms.",
    ),
]
TtftSloS = Annotated[
    float | None,
    typer.Option(
        "--ttft-slo-s",
        parser=option_parser(time_s),
        metavar="T",
        help="Also compare the share of first tokens that come later than this, of services in tokens.",
    ),
]
TpotSloS = Annotated[
    float | None,
    typer.Option(
        "--tpot-slo-s",
        parser=option_parser(time_s),
        metavar="T",
        help="Also compare the share of answers that take longer than this per token after the first.",
    ),
]


def document_of(file: str) -> dict[str, Any]:
    """Return the JSON object in a file; - is standard input."""
    from shadowsim.json_files import read_json

    return read_json(sys.stdin.buffer.read(), "stdin") if file == "-" else read_json(Path(file))


def scenario_of(
    file: str | None, rate: float | None = None, edits: Sequence[str] | None = None, seed: int | None = None
) -> Scenario:
    """Return the scenario of a command line with all its edits made."""
    from shadowsim.scenario.paths import parse_set
    from shadowsim.scenario.scenario import Scenario, default_scenario

    changes: dict[str, object] = {} if seed is None else {"seed": seed}
    changes |= map(parse_set, edits or [])
    return Scenario.of(default_scenario() if file is None else scenario_source(file), rate, changes)


def scenario_source(file: str) -> object:
    """Return what `Scenario.of` reads for a file; - is standard input."""
    return document_of(file) if file == "-" else Path(file)


def assumption_lines(scenario: Scenario, more: Iterable[str] = ()) -> list[str]:
    """Return what was assumed for a scenario, how its traces were read, and further sentences, in wrapped lines."""
    from shadowsim.text import wrapped

    return [wrapped(sentence, "assumed  ", " " * 9) for sentence in (*scenario.assumptions, *more)]


def print_assumptions(scenario: Scenario, for_machines: bool = False, more: Iterable[str] = ()) -> None:
    """Print the lines of `assumption_lines`, and of further sentences, above an answer; nothing for machines."""
    lines = [] if for_machines else assumption_lines(scenario, more)
    typer.echo("\n".join([*lines, "", ""]) if lines else "", nl=False)


def refuse_both_formats(as_json: bool, as_csv: bool) -> None:
    """Raise `InputError` when JSON and CSV are both asked for."""
    if as_json and as_csv:
        raise InputError("--csv", "must not be given together with --json")


def shows_progress(as_json: bool, as_csv: bool, quiet: bool) -> bool:
    """Return whether to show a progress bar: only on a terminal, and only beside text for people."""
    return not (as_json or as_csv or quiet) and sys.stderr.isatty()
