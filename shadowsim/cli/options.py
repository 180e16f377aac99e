"""What commands have in common on their command lines: options, numbers, and the scenario that all of it makes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadowsim.errors import InputError

if TYPE_CHECKING:
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


def given(**options: object) -> dict[str, Any]:
    """Return the options that were given; the others are left to the function's own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def terms(
    margin_pct: str | None, margin_points: str | None, confidence: str | None, slo_s: str | None
) -> dict[str, Any]:
    """Return what a comparison is asked for, of it only what was given."""
    return given(
        margin_pct=number_of("--margin-pct", margin_pct),
        margin_points=number_of("--margin-points", margin_points),
        confidence=number_of("--confidence", confidence),
        slo_s=number_of("--slo-s", slo_s),
    )


def one_of(as_json: bool, as_csv: bool) -> None:
    """Refuse two formats at once."""
    if as_json and as_csv:
        raise InputError("--csv", "must not be given together with --json")


def with_bar(as_json: bool, as_csv: bool, quiet: bool) -> bool:
    """Return whether there is somebody to see a progress bar."""
    return not (as_json or as_csv or quiet) and sys.stderr.isatty()
