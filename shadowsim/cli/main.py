"""Defines the program `shadowsim` and its commands init, validate, simulate, report and instances.

compare.py, load.py, measure.py, plan.py, reference.py and serve.py define the other commands. Modules that are slow to
import are imported inside the command that needs them, so that help appears at once.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from shadowsim import __version__
from shadowsim.cli import compare, load, measure, plan, reference, serve
from shadowsim.cli.console import (
    BAD_INPUT,
    FAILED_GOAL,
    Commands,
    error_lines,
    one_line,
    print_frame,
    print_json,
    show,
    writing,
)
from shadowsim.cli.option_parsers import moment, option_parser
from shadowsim.cli.options import (
    Csv,
    Edits,
    File,
    Json,
    Origin,
    PriceFile,
    Quiet,
    Rate,
    RequiredFile,
    Seed,
    Workers,
    assumption_lines,
    from_anywhere,
    refuse_both_formats,
    scenario_of,
    shows_progress,
    wrapped_assumptions,
)
from shadowsim.cli.outputs import PAGE_ALONE, make_folder, save_runs, write_page
from shadowsim.errors import InputError, ShadowsimError, ValidationError
from shadowsim.option_defaults import PAGE_IN_RUN

if TYPE_CHECKING:
    from shadowsim.aws.instances import InstanceType
    from shadowsim.planning.costs import Prices

# \b keeps the lines of a help text as they are.
_REPORT_EXAMPLES = """\b
Examples:
  shadowsim report run
  shadowsim report live --simulated run --load measured
"""

_SIMULATE_EXAMPLES = """\b
Examples:
  shadowsim simulate
  shadowsim simulate request.json --rate 400 -o run --report
  shadowsim simulate scenario.json --set shadow.instance_count=4 --strict
  shadowsim simulate --set sampling_percentage=25 --json
  shadowsim simulate --set horizon_s=3600 --set run.replications=8
  shadowsim simulate --set horizon_s=3600 --set run.precision=0.01
  shadowsim simulate --slo "shadow.p99 <= 100ms and error_rate < 0.1%"
"""

app = typer.Typer(
    name="shadowsim",
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"shadowsim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog="Example: shadowsim simulate request.json --rate 400")
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Simulate a SageMaker shadow test before you pay for it."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: shadowsim init request.json > scenario.json")
@from_anywhere
def init(
    file: File = None,
    rate: Rate = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", dir_okay=False, help="Write FILE instead of standard output."),
    ] = None,
) -> None:
    """Print a scenario to edit.

    With a request, print its scenario with every main key spelled out and a placeholder for the traffic; without one,
    print the built-in scenario. `shadowsim explain` and `shadowsim explain PATH` tell what its keys mean.
    """
    from shadowsim.scenario.fields import BLOCKS
    from shadowsim.scenario.scenario import Scenario, init_scenario

    document = None if file is None else file.document()
    if document and any(key in BLOCKS for key in document):
        raise InputError(str(file), "is a scenario already: edit the file itself")
    scenario = init_scenario(document) if file is None else init_scenario(document, file.resource, file.parameters)
    if rate is not None:
        scenario = Scenario.from_dict(scenario).replace({"rate_per_s": rate}).to_dict()
    if out is None:
        print_json(scenario)
    else:
        writing(out, lambda: Scenario.from_dict(scenario).save(out))
        typer.echo(f"wrote {out}")


@app.command(epilog="Example: shadowsim validate request.json")
@from_anywhere
def validate(
    file: RequiredFile = None,
    prices: PriceFile = None,
    now: Annotated[
        datetime | None,
        typer.Option(
            parser=option_parser(moment),
            metavar="TIME",
            help="Check the Schedule as of this time, such as 2026-12-01T00:00:00Z.",
            show_default="the current time",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print {valid, violations} as JSON.")] = False,
) -> None:
    """Check a request or a scenario.

    If it is valid, describe it and what it costs; otherwise list every violation of the request, one per line.
    """
    if file is None:
        raise InputError("FILE", "is required, or --from-aws NAME (see shadowsim validate --help)")
    own_prices = None if prices is None else _read_prices(prices)
    text, violations = "", []
    try:
        text = _description(file, own_prices, now or datetime.now(UTC))
    except ShadowsimError as error:
        if not (as_json or isinstance(error, ValidationError)):
            raise
        violations = error_lines(error)
    if as_json:
        print_json({"valid": not violations, "violations": violations})
    else:
        show("\n".join(map(one_line, violations)) or f"valid\n{text}")
    if violations:
        raise typer.Exit(BAD_INPUT)


@app.command(epilog=_SIMULATE_EXAMPLES)
@from_anywhere
def simulate(
    file: File = None,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write the scenario and the frames (Parquet) into DIR."),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help=f"Also write an HTML page: DIR/{PAGE_IN_RUN}, or ./{PAGE_ALONE} without -o."),
    ] = False,
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="GOALS", help='Exit with 1 unless these goals are met: "shadow.p99 <= 200ms and mean < 30ms".'
        ),
    ] = None,
    workers: Workers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless the verdict is STABLE.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a shadow test.

    Shows source and shadow side by side, and whether both pools keep up: STABLE, OVERLOADED or TOO SHORT. Without -o or
    --report nothing is written. A scenario with run.replications is run that many times with different seeds: the
    output has means with half-widths of 95 % intervals and the worst verdict, and -o writes DIR/replication-0 and so
    on. With run.precision=0.01 there are as many as bring the means to within 1 %. Figures leave out run.warmup_s, and
    have two standard errors beside them.
    """
    refuse_both_formats(as_json, as_csv)
    scenario = scenario_of(file, rate, edits, seed)
    several = scenario.replications > 1 or scenario.precision is not None
    if several and report:
        raise InputError("--report", "makes a page of one run; use -o DIR, then `shadowsim report DIR/replication-0`")
    if out is not None:
        make_folder(out)
    from shadowsim.engine.replicate import replicate, worst
    from shadowsim.engine.simulate import compile_for
    from shadowsim.engine.simulate import simulate as run_once
    from shadowsim.planning.slo import parse_slo, with_goodput
    from shadowsim.report.run_text import goals_frame, results_frame, results_object, results_text
    from shadowsim.report.scenario_text import scenario_text
    from shadowsim.text import speed

    goals = None if slo is None else parse_slo(slo)
    scenario = with_goodput(scenario, goals)
    if not (as_json or as_csv):
        typer.echo(scenario_text(scenario))
        typer.echo("".join(f"{line}\n" for line in assumption_lines(scenario)), nl=False)
    run = replicate if several else run_once
    compile_for(scenario, lambda notice: None if quiet else typer.echo(notice, err=True))  # which the timing leaves out
    began = perf_counter()
    outcome = run(scenario, workers=workers, progress=shows_progress(as_json, as_csv, quiet))
    took_s = perf_counter() - began
    results = outcome if isinstance(outcome, list) else [outcome]
    written = save_runs(results, out, report)
    goal_rows = None if goals is None else goals_frame(goals, results)
    if as_json:
        extra = {} if goal_rows is None else {"goals": goal_rows.to_dict("records")}
        print_json(results_object(results) | extra)
    elif as_csv:
        print_frame(results_frame(results), as_json=False, index=True)
    else:
        show("\n" + results_text(results))
        if goals is not None and goal_rows is not None:
            from shadowsim.report.analysis_text import goals_text

            show("\n" + goals_text(goal_rows, goals))
        typer.echo("".join(f"\n{line}" for line in written), nl=bool(written))
        if not quiet:
            method = f"{len(results)} replications" if several else results[0].how.partition(",")[0]
            n_requests = sum(int(result.summary(standard_errors=False)["requests"].iloc[0]) for result in results)
            typer.echo(f"{speed(n_requests, took_s)}, {method}", err=True)
    missed = goal_rows is not None and not goal_rows["met"].all()
    if missed or (strict and worst(results).status != "STABLE"):
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_REPORT_EXAMPLES)
def report(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A saved run of `simulate -o` or `load -o`; frames of a server, see below."),
    ],
    simulated: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The simulation of the live shadow test whose frames are in DIR."),
    ] = None,
    load_run: Annotated[
        Path | None,
        typer.Option("--load", metavar="DIR", help="With --simulated: the load run that sent its requests."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="File to write.", show_default=f"DIR/{PAGE_IN_RUN}"),
    ] = None,
) -> None:
    """Write a saved run as an HTML page.

    The page is a single file that loads nothing from elsewhere. With --simulated it shows a live shadow test beside its
    simulation: DIR then holds the windows.parquet, latency.parquet and requests.parquet that `serve` gives under
    /shadowsim/experiments/NAME/. The figures and verdicts are also printed.
    """
    from shadowsim.measuring.generator.load_run import LoadRun, is_load_run
    from shadowsim.result import Result

    if simulated is None:
        if load_run is not None:
            raise InputError("--load", "needs --simulated, the simulation of the live test", str(load_run))
        run = LoadRun.load(directory) if is_load_run(directory) else Result.load(directory)
        typer.echo(f"wrote {write_page(run, out or directory / PAGE_IN_RUN)}")
        return
    from shadowsim.measuring.rehearsal import rehearsal

    rehearsed = rehearsal(directory, simulated, load_run)
    typer.echo(f"{rehearsed}\n\nwrote {write_page(rehearsed, out or directory / PAGE_IN_RUN)}")


@app.command(epilog="Example: shadowsim instances 'ml.g5*'")
def instances(
    pattern: Annotated[
        str,
        typer.Argument(metavar="PATTERN", help="Part of a name, or a pattern as in a shell.", show_default="all types"),
    ] = "*",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """List instance types.

    Shows their hardware and their price per hour, where a dated example is known.
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
app.add_typer(load.app)
app.add_typer(measure.app)
app.add_typer(reference.app)
app.add_typer(serve.app)


def _read_prices(file: Path) -> Prices:
    from shadowsim.planning.costs import read_prices

    return read_prices(file)


def _description(file: Origin, prices: Prices | None, now: datetime) -> str:
    """Return a text on a request or a scenario.

    Raises
    ------
    ValidationError
        For a request, with everything that is wrong, and for a scenario whose Schedule has ended.
    InputError
        For a scenario, with everything that is wrong.
    """
    from shadowsim.aws.contract import violations
    from shadowsim.aws.experiment import Experiment, past_rules
    from shadowsim.aws.instances import experiment_text
    from shadowsim.aws.request_sources import request_source
    from shadowsim.documents import refuse_doubtful
    from shadowsim.scenario.fields import BLOCKS

    price_of = None if prices is None else prices.quoted
    document = file.document()
    if not document:
        needed = re.findall(r"at '(\w+)'", "\n".join(violations("CreateInferenceExperiment", document)))
        names = ", ".join(name[0].upper() + name[1:] for name in needed)
        raise InputError(str(file), f"is an empty object; a request needs {names}")
    if not any(key in BLOCKS for key in document):
        found = request_source(document, "request", file.resource, file.parameters)
        refuse_doubtful(found.request)
        experiment = Experiment.from_request(found.request, now, refuse_past=file.from_aws is None)
        assumed = "".join(f"\n{line}" for line in wrapped_assumptions(found.assumed.values()))
        return experiment_text(experiment, price_of) + (f"\n{assumed}" if assumed else "")
    from shadowsim.planning.costs import cost
    from shadowsim.report.analysis_text import data_text
    from shadowsim.report.scenario_text import scenario_text
    from shadowsim.scenario.scenario import Scenario

    scenario = Scenario.from_dict(document, file.folder)
    broken = list(past_rules(scenario.experiment.to_request().get("Schedule"), now))
    if broken:
        raise ValidationError(broken)
    data = data_text(cost(scenario, prices))
    assumed = "".join(f"\n{line}" for line in assumption_lines(scenario))
    return f"{experiment_text(scenario.experiment, price_of)}{data}\n\n{scenario_text(scenario)}{assumed}"


def _matching(pattern: str) -> list[InstanceType]:
    from shadowsim.aws.instances import matching_types

    if not any(sign in pattern for sign in "*?["):
        try:
            return matching_types(f"*{pattern}*")
        except InputError:
            pass  # the error below shows the pattern as it was typed
    return matching_types(pattern)
