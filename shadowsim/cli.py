"""The command line. Each command reads, calls one function and writes.

What the commands say is set in tables.py; how they end, with which status and errors, in console.py. Whatever is slow
to import is imported inside the command that needs it, so that help is there at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadowsim import __version__
from shadowsim.console import BAD_INPUT, FAILED_GOAL, Commands, number_of, one_line, print_json, writing
from shadowsim.errors import InputError, ShadowsimError, ValidationError

if TYPE_CHECKING:
    from shadowsim.instances import InstanceType
    from shadowsim.result import Result
    from shadowsim.scenario import Scenario

_REPORT, _LONE_REPORT = "report.html", "shadowsim-report.html"
# The sign \b keeps a help text's lines as they are.
_SIMULATE_EXAMPLES = """\b
Examples:
  shadowsim simulate
  shadowsim simulate request.json --rate 400 -o run --report
  shadowsim simulate scenario.json --set shadow.instance_count=4 --strict
  shadowsim simulate --set sampling_percentage=25 --json
  shadowsim simulate --set horizon_s=3600 --set run.replications=8
"""


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV for machines.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shadowsim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog="Example: shadowsim simulate request.json --rate 400")
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Simulate a SageMaker shadow test before you pay for it."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: shadowsim init request.json > scenario.json")
def init(
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST.json", help="A CreateInferenceExperiment request; - is stdin.")
    ] = None,
) -> None:
    """Print a scenario to edit.

    It is the request's with every main key spelled out and a placeholder for its traffic; without a request, the
    built-in scenario.
    """
    from shadowsim.paths import BLOCKS
    from shadowsim.scenario import init_scenario

    document = None if request is None else _document(request)
    if document and any(key in BLOCKS for key in document):
        raise InputError(str(request), "is a scenario already, and can be edited as it is")
    print_json(init_scenario(document))


@app.command(epilog="Example: shadowsim validate request.json")
def validate(
    request: Annotated[
        str,
        typer.Argument(metavar="REQUEST.json", help="A CreateInferenceExperiment request, or a scenario; - is stdin."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print {valid, violations} for machines.")] = False,
) -> None:
    """Check a request or a scenario.

    Describes it with its cost when it is valid; else lists every violation of the request, one a line.
    """
    text, broken = "", []
    try:
        text = _described(request)
    except ShadowsimError as error:
        if isinstance(error, ValidationError):
            broken = list(error.violations)
        elif as_json:
            broken = [str(error)]
        else:
            raise
    if as_json:
        print_json({"valid": not broken, "violations": broken})
    else:
        typer.echo("\n".join(map(one_line, broken)) or f"valid\n{text}")
    if broken:
        raise typer.Exit(BAD_INPUT)


@app.command(epilog=_SIMULATE_EXAMPLES)
def simulate(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE.json", help="A request or a scenario; - is stdin. [the built-in scenario]"),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="R", help="Mean rate of the traffic in requests/s; a plain request needs it."),
    ] = None,
    edits: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a value, as in shadow.instance_count=4; repeatable."),
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of all random draws.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write the scenario and the frames (Parquet) there."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help=f"Write a page, too: DIR/{_REPORT}, without -o ./{_LONE_REPORT}.")
    ] = False,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Threads; the result does not depend on it. [one a core]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless the verdict is STABLE.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", "--no-progress", help="No progress bar, no timing.")] = False,
) -> None:
    """Simulate a shadow test.

    Shows source beside shadow, and says whether both pools keep up: STABLE, OVERLOADED or TOO SHORT. Without -o or
    --report nothing is written. With run.replications in the scenario, it is run so often under different seeds: shows
    means with half-widths of 95 % intervals and the worst verdict, and writes DIR/replication-0 and so on.
    """
    _one_of(as_json, as_csv)
    scenario = _scenario(file, number_of("--rate", rate), edits or [], number_of("--seed", seed))
    threads = number_of("--workers", workers)
    if not (threads is None or (isinstance(threads, int) and threads >= 1)):
        raise InputError("--workers", "must be a whole number >= 1", threads)
    n = scenario.replications
    if n > 1 and report:
        raise InputError("--report", "is a page of one run; use -o DIR, then `shadowsim report DIR/replication-0`")
    if out is not None:
        _folder(out)
    from shadowsim import engine, replications, spread, tables

    for_people = not (as_json or as_csv)
    if for_people:
        typer.echo(tables.scenario_text(scenario))
        for sentence in scenario.assumptions:
            typer.echo(tables.wrapped(sentence, "assumed  ", " " * 9))
    run = engine.simulate if n == 1 else replications.replicate
    began = perf_counter()
    done = run(scenario, workers=threads, progress=for_people and not quiet and sys.stderr.isatty())
    took_s = perf_counter() - began
    results = done if isinstance(done, list) else [done]
    written = _save(results, out, report)
    if as_json:
        print_json(spread.results_object(results))
    elif as_csv:
        typer.echo(spread.results_frame(results).to_csv(lineterminator="\n"), nl=False)
    else:
        typer.echo("\n" + spread.results_text(results) + "".join(f"\nwrote {line}" for line in written))
        if not quiet:
            how = results[0].how if n == 1 else f"{n} replications"
            n_requests = sum(int(result.summary()["requests"].iloc[0]) for result in results)
            typer.echo(f"{tables.speed(n_requests, took_s)}, {how}", err=True)
    if strict and replications.worst(results).status != "STABLE":
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog="Example: shadowsim report run")
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `simulate -o DIR` wrote.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help=f"[DIR/{_REPORT}]")] = None,
) -> None:
    """Write a saved run as an HTML page.

    The page is one file that loads nothing from elsewhere.
    """
    from shadowsim.result import Result

    result = Result.load(directory)
    typer.echo(f"wrote {_page(result, out or directory / _REPORT)}")


@app.command(epilog="Example: shadowsim instances 'ml.g5*'")
def instances(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN", help="Part of a name, or a pattern as in a shell. [all types]", show_default=False
        ),
    ] = "*",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """List instance types.

    What they have, and what they cost an hour where a dated example of the price is known.
    """
    _one_of(as_json, as_csv)
    from shadowsim import tables

    types = _matching(pattern)
    if as_json:
        print_json([asdict(t) for t in types])
    elif as_csv:
        typer.echo(tables.csv_text([asdict(t) for t in types]), nl=False)
    else:
        typer.echo(tables.instances_table(types))


def _document(file: str) -> dict[str, Any]:
    """Return the JSON object in a file, or on standard input."""
    from shadowsim.documents import read_json

    return read_json(sys.stdin.buffer.read(), "stdin") if file == "-" else read_json(Path(file))


def _described(file: str) -> str:
    """Return what a request or a scenario says, or raise for the first or all that is wrong with it."""
    from shadowsim.contract import violations
    from shadowsim.experiment import Experiment
    from shadowsim.instances import describe
    from shadowsim.paths import BLOCKS

    document = _document(file)
    if not document:
        needed = re.findall(r"at '(\w+)'", "\n".join(violations("CreateInferenceExperiment", document)))
        names = ", ".join(name[0].upper() + name[1:] for name in needed)
        raise InputError("stdin" if file == "-" else file, f"is an empty object; a request needs {names}")
    if not any(key in BLOCKS for key in document):
        return describe(Experiment.from_request(document))
    from shadowsim.scenario import Scenario
    from shadowsim.tables import scenario_text

    scenario = Scenario.from_dict(document, None if file == "-" else Path(file).parent)
    return f"{describe(scenario.experiment)}\n\n{scenario_text(scenario)}"


def _scenario(file: str | None, rate: float | None, edits: Sequence[str], seed: float | None) -> Scenario:
    """Return the scenario of a command line, all its edits made."""
    from shadowsim.paths import parse_set
    from shadowsim.scenario import Scenario, default_scenario

    changes: dict[str, object] = {} if seed is None else {"seed": seed}
    changes |= map(parse_set, edits)
    if file is None:
        source: object = default_scenario()
    else:
        source = _document(file) if file == "-" else Path(file)
    return Scenario.of(source, rate, changes)


def _matching(pattern: str) -> list[InstanceType]:
    from shadowsim.instances import matching

    if not any(sign in pattern for sign in "*?["):
        try:
            return matching(f"*{pattern}*")
        except InputError:
            pass  # the error for what was typed is the better one
    return matching(pattern)


def _one_of(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise InputError("--csv", "must not be given together with --json")


def _folder(out: Path) -> None:
    """Make the output directory before the work that would be lost without it."""
    if os.path.exists(out) and not os.path.isdir(out):  # unlike Path's methods they take a name of any length
        raise InputError("-o", f"must be a directory, and {out} is a file")
    writing(out, lambda: out.mkdir(parents=True, exist_ok=True))
    if not os.access(out, os.W_OK):
        raise InputError("-o", f"must be a directory that can be written to, and {out} is not")


def _save(results: list[Result], out: Path | None, report: bool) -> list[str]:
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
        written.append(str(_page(results[0], Path(_LONE_REPORT) if out is None else out / _REPORT)))
    return written


def _page(result: Result, file: Path) -> Path:
    from shadowsim.report import write

    if os.path.isdir(file):
        raise InputError("-o", f"must be a file, and {file} is a directory")
    return writing(file, lambda: write(result, file))
