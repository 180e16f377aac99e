"""The command line. Each command reads, calls one function and writes.

The commands of scenarios and runs stand here; compare.py, plan.py and serve.py hold the others. The folder `report/`
writes their texts, console.py their exit status and errors. What is slow to import is imported inside the command that
needs it, so that help is there at once.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from shadowsim import __version__
from shadowsim.cli import compare, plan, serve
from shadowsim.cli.console import BAD_INPUT, FAILED_GOAL, Commands, one_line, print_frame, print_json
from shadowsim.cli.options import (
    LONE_REPORT,
    REPORT,
    Csv,
    Edits,
    File,
    Json,
    PriceFile,
    Quiet,
    Rate,
    Seed,
    Workers,
    document_of,
    make_folder,
    refuse_both_formats,
    save,
    scenario_of,
    whole_of,
    with_bar,
    write_page,
)
from shadowsim.errors import InputError, ShadowsimError, ValidationError

if TYPE_CHECKING:
    from shadowsim.aws.instances import InstanceType
    from shadowsim.planning.costs import Prices

# The sign \b keeps a help text's lines as they are.
_SIMULATE_EXAMPLES = """\b
Examples:
  shadowsim simulate
  shadowsim simulate request.json --rate 400 -o run --report
  shadowsim simulate scenario.json --set shadow.instance_count=4 --strict
  shadowsim simulate --set sampling_percentage=25 --json
  shadowsim simulate --set horizon_s=3600 --set run.replications=8
  shadowsim simulate --slo "shadow.p99 <= 100ms and error_rate < 0.1%"
"""

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    from shadowsim.scenario.fields import BLOCKS
    from shadowsim.scenario.scenario import init_scenario

    document = None if request is None else document_of(request)
    if document and any(key in BLOCKS for key in document):
        raise InputError(str(request), "is a scenario already, and can be edited as it is")
    print_json(init_scenario(document))


@app.command(epilog="Example: shadowsim validate request.json")
def validate(
    request: Annotated[
        str,
        typer.Argument(metavar="REQUEST.json", help="A CreateInferenceExperiment request, or a scenario; - is stdin."),
    ],
    prices: PriceFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print {valid, violations} for machines.")] = False,
) -> None:
    """Check a request or a scenario.

    Describes it with what it costs when it is valid; else lists every violation of the request, one a line.
    """
    known = None if prices is None else _prices(prices)
    text, broken = "", []
    try:
        text = _described(request, known)
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
    file: File = None,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write the scenario and the frames (Parquet) there."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help=f"Write a page, too: DIR/{REPORT}, without -o ./{LONE_REPORT}.")
    ] = False,
    slo: Annotated[
        str | None,
        typer.Option(metavar="GOALS", help='Exit with 1 unless these are met: "shadow.p99 <= 200ms and mean < 30ms".'),
    ] = None,
    workers: Workers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless the verdict is STABLE.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a shadow test.

    Shows source beside shadow, and says whether both pools keep up: STABLE, OVERLOADED or TOO SHORT. Without -o or
    --report nothing is written. With run.replications in the scenario, it is run so often under different seeds: shows
    means with half-widths of 95 % intervals and the worst verdict, and writes DIR/replication-0 and so on.
    """
    refuse_both_formats(as_json, as_csv)
    scenario, threads = scenario_of(file, rate, edits, seed), whole_of("--workers", workers)
    n = scenario.replications
    if n > 1 and report:
        raise InputError("--report", "is a page of one run; use -o DIR, then `shadowsim report DIR/replication-0`")
    if out is not None:
        make_folder(out)
    from shadowsim.engine import replicate
    from shadowsim.engine import simulate as engine
    from shadowsim.planning.slo import parse_slo
    from shadowsim.report import run_text
    from shadowsim.report.scenario_text import scenario_text
    from shadowsim.text import speed, wrapped

    wanted = None if slo is None else parse_slo(slo)
    for_people = not (as_json or as_csv)
    if for_people:
        typer.echo(scenario_text(scenario))
        for sentence in scenario.assumptions:
            typer.echo(wrapped(sentence, "assumed  ", " " * 9))
    run = engine.simulate if n == 1 else replicate.replicate
    began = perf_counter()
    done = run(scenario, workers=threads, progress=with_bar(as_json, as_csv, quiet))
    took_s = perf_counter() - began
    results = done if isinstance(done, list) else [done]
    written = save(results, out, report)
    goals = None if wanted is None else run_text.goals_frame(wanted, results)
    if as_json:
        said = {} if goals is None else {"goals": goals.to_dict("records")}
        print_json(run_text.results_object(results) | said)
    elif as_csv:
        print_frame(run_text.results_frame(results), as_json=False, index=True)
    else:
        typer.echo("\n" + run_text.results_text(results))
        if goals is not None and wanted is not None:
            from shadowsim.report import analysis_text

            typer.echo("\n" + analysis_text.goals_text(goals, wanted))
        typer.echo("".join(f"\nwrote {line}" for line in written), nl=bool(written))
        if not quiet:
            how = results[0].how if n == 1 else f"{n} replications"
            n_requests = sum(int(result.summary()["requests"].iloc[0]) for result in results)
            typer.echo(f"{speed(n_requests, took_s)}, {how}", err=True)
    unmet = goals is not None and not goals["met"].all()
    if unmet or (strict and replicate.worst(results).status != "STABLE"):
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog="Example: shadowsim report run")
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `simulate -o DIR` wrote.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help=f"[DIR/{REPORT}]")] = None,
) -> None:
    """Write a saved run as an HTML page.

    The page is one file that loads nothing from elsewhere.
    """
    from shadowsim.result import Result

    result = Result.load(directory)
    typer.echo(f"wrote {write_page(result, out or directory / REPORT)}")


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
    refuse_both_formats(as_json, as_csv)
    from shadowsim.report.scenario_text import instances_table
    from shadowsim.text import csv_text

    types = _matching(pattern)
    if as_json:
        print_json([asdict(t) for t in types])
    elif as_csv:
        typer.echo(csv_text([asdict(t) for t in types]), nl=False)
    else:
        typer.echo(instances_table(types))


app.add_typer(compare.app)
app.add_typer(plan.app)
app.add_typer(serve.app)


def _prices(file: Path) -> Prices:
    from shadowsim.planning.costs import read_prices

    return read_prices(file)


def _described(file: str, prices: Prices | None) -> str:
    """Return what a request or a scenario says, or raise for the first or all that is wrong with it."""
    from shadowsim.aws.contract import violations
    from shadowsim.aws.experiment import Experiment
    from shadowsim.aws.instances import experiment_text
    from shadowsim.scenario.fields import BLOCKS

    price_of = None if prices is None else prices.quoted
    document = document_of(file)
    if not document:
        needed = re.findall(r"at '(\w+)'", "\n".join(violations("CreateInferenceExperiment", document)))
        names = ", ".join(name[0].upper() + name[1:] for name in needed)
        raise InputError("stdin" if file == "-" else file, f"is an empty object; a request needs {names}")
    if not any(key in BLOCKS for key in document):
        return experiment_text(Experiment.from_request(document), price_of)
    from shadowsim.planning.costs import cost
    from shadowsim.report.analysis_text import data_text
    from shadowsim.report.scenario_text import scenario_text
    from shadowsim.scenario.scenario import Scenario

    scenario = Scenario.from_dict(document, None if file == "-" else Path(file).parent)
    data = data_text(cost(scenario, prices))
    return f"{experiment_text(scenario.experiment, price_of)}{data}\n\n{scenario_text(scenario)}"


def _matching(pattern: str) -> list[InstanceType]:
    from shadowsim.aws.instances import matching_types

    if not any(sign in pattern for sign in "*?["):
        try:
            return matching_types(f"*{pattern}*")
        except InputError:
            pass  # the error for what was typed is the better one
    return matching_types(pattern)
