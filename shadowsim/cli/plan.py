"""Defines size, capacity, scaling-policy, plan and sweep: the commands that propose a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from shadowsim.cli.completions import instance_types, setting_paths
from shadowsim.cli.console import FAILED_GOAL, print_frame, print_json, show
from shadowsim.cli.option_parsers import number, option_parser, seconds, split_commas, whole
from shadowsim.cli.options import (
    Csv,
    Edits,
    File,
    Json,
    PriceFile,
    Quiet,
    Rate,
    Report,
    Seed,
    Workers,
    from_anywhere,
    print_assumptions,
    refuse_both_formats,
    scenario_of,
    shows_progress,
)
from shadowsim.cli.outputs import write_analysis
from shadowsim.errors import InputError
from shadowsim.option_defaults import (
    ALPHA,
    CAPACITY_REPLICATIONS,
    EFFECT,
    HEADROOM_PCT,
    LOOKS,
    MAX_INSTANCES,
    POWER,
    REHEARSALS,
    SAMPLING_PERCENTAGES,
)
from shadowsim.statistics.terms import CONFIDENCE
from shadowsim.text import wrapped

if TYPE_CHECKING:
    from concurrent.futures import Executor

# \b keeps the lines of a help text as they are.
_SIZE_EXAMPLES = """\b
Examples:
  shadowsim size --slo "p99 <= 100ms"
  shadowsim size scenario.json --slo "p99 <= 200ms and error_rate < 0.1%"
  shadowsim size s.json --slo "mean < 25ms" --types ml.m5.large,ml.c5.large
  shadowsim size request.json --rate 400 --slo "p99 < 1s" --prices prices.csv
"""
_CAPACITY_EXAMPLES = """\b
Examples:
  shadowsim capacity --slo "shadow.p99 <= 100ms"
  shadowsim capacity s.json --slo "source.p95 <= 1s and p99 <= 2s"
  shadowsim capacity llm.json --slo "ttft.p99 <= 1s" --report page.html
"""
_SCALING_EXAMPLES = """\b
Examples:
  shadowsim scaling-policy scenario.json
  shadowsim scaling-policy scenario.json --slo "shadow.p99 <= 200ms"
  shadowsim scaling-policy s.json --format cloudformation > scaling.json
"""
_PLAN_EXAMPLES = """\b
Examples:
  shadowsim plan --effect "p99 +5%"
  shadowsim plan s.json --effect "mean +2ms" --durations 6h,1d --power 0.9
  shadowsim plan s.json --effect "ttft p99 +10%" --replications 20
  shadowsim plan request.json --rate 400 --shares 10,50 --looks 3 --json
"""
_SWEEP_EXAMPLES = """\b
Examples:
  shadowsim sweep --set shadow.instance_count=1,2 --set rate_per_s=100,200
  shadowsim sweep scenario.json --set sampling_percentage=10,50,100 --csv
  shadowsim sweep s.json --set rate_per_s=100,200 --replications 5 --cache DIR
  shadowsim sweep s.json --set seed=1,2,3 --dask HOST:8786
"""

DASK_TIMEOUT_S = 10.0  # for the scheduler's first answer

app = typer.Typer()


@app.command(epilog=_SIZE_EXAMPLES)
@from_anywhere
def size(
    file: File = None,
    slo: Annotated[
        str | None,
        typer.Option(metavar="GOALS", help='Goals to meet: "shadow.p99 <= 200ms and error_rate < 0.1%".'),
    ] = None,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE,...",
            autocompletion=instance_types,
            help="Instance types to try.",
            show_default="the variant's, and those in its by_instance_type",
        ),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE,...",
            help="Roles whose instances are counted: source, shadow.",
            show_default="the roles that the goals mention",
        ),
    ] = None,
    headroom_pct: Annotated[
        float,
        typer.Option(parser=option_parser(number), metavar="PCT", help="Raise the rate by this percentage first."),
    ] = HEADROOM_PCT,
    confidence: Annotated[
        float,
        typer.Option(parser=option_parser(number), metavar="C", help="Confidence needed to call an answer certain."),
    ] = CONFIDENCE,
    max_instances: Annotated[
        int, typer.Option(parser=option_parser(whole), metavar="N", help="Upper limit of instances to try.")
    ] = MAX_INSTANCES,
    prices: PriceFile = None,
    workers: Workers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also exit with 1 when an answer is not certain.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Find the fewest instances that meet goals.

    Shows for each instance type, cheapest first, the number of instances, cost, quotas, what decides, and what one
    instance fewer would do, or the loss of one or of a third. For a variant with `scaling` it also finds the cheapest
    target, min and max, and simulates AWS's rule of thumb. Goals are METRIC OP VALUE joined by `and`: p50 to p99.9,
    mean, wait_mean, share(latency > T), share(wait > T), error_rate, utilisation. Exits with 1 when no type meets them.
    """
    refuse_both_formats(as_json, as_csv)
    if not slo:
        raise InputError("--slo", 'is required: the goals to meet, as in --slo "p99 <= 200ms and error_rate < 0.1%"')
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning.sheet import answers
    from shadowsim.planning.size import size as find_sizes
    from shadowsim.planning.slo import parse_slo
    from shadowsim.report.analysis_text import sizing_text

    goals = parse_slo(slo)
    roles = list(dict.fromkeys(goal.role for goal in goals.goals)) if variants is None else variants.split(",")
    frame = find_sizes(
        scenario,
        goals,
        split_commas(types),
        roles,
        headroom_pct,
        confidence=confidence,
        max_instances=max_instances,
        workers=workers,
        prices=prices,
        progress=shows_progress(as_json, as_csv, quiet),
    )
    if as_json or as_csv:
        print_frame(frame, as_json)
    else:
        print_assumptions(scenario, file)
        show(sizing_text(frame, goals, scenario.experiment.duration_s))
    write_analysis(frame, report, as_json or as_csv, goals, scenario)
    solved = answers(frame).groupby("role").first()
    if len(solved) < frame["role"].nunique() or (strict and not solved["certain"].all()):
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_CAPACITY_EXAMPLES)
@from_anywhere
def capacity(
    file: File = None,
    slo: Annotated[
        str | None,
        typer.Option(metavar="GOALS", help='Goals to hold: "shadow.p99 <= 200ms and error_rate < 0.1%".'),
    ] = None,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    confidence: Annotated[
        float, typer.Option(parser=option_parser(number), metavar="C", help="Confidence level of the interval.")
    ] = CONFIDENCE,
    replications: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole), metavar="N", help="Number of runs at the answer, which give its interval."
        ),
    ] = CAPACITY_REPLICATIONS,
    workers: Workers = None,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Find the greatest rate that the pools hold.

    Multiplies the whole traffic by a factor, and finds the greatest at which the goals are met, with an interval; the
    share that is copied stays. A trace is played faster, not thinned. Shows what decides, the figures and the
    utilisation at that rate, and from which rate on queues grow without end. Exits with 1 when no rate holds.
    """
    refuse_both_formats(as_json, as_csv)
    if not slo:
        raise InputError("--slo", 'is required: the goals to hold, as in --slo "p99 <= 200ms and error_rate < 0.1%"')
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning.capacity import capacity as find_rates
    from shadowsim.planning.slo import parse_slo
    from shadowsim.report.capacity_text import capacity_text

    goals = parse_slo(slo)
    frame = find_rates(
        scenario,
        goals,
        confidence=confidence,
        replications=replications,
        workers=workers,
        progress=shows_progress(as_json, as_csv, quiet),
    )
    if as_json or as_csv:
        print_frame(frame, as_json)
    else:
        print_assumptions(scenario, file)
        show(capacity_text(frame, goals, confidence))
    write_analysis(frame, report, as_json or as_csv, goals, scenario)
    if frame["rate_per_s"].isna().any():
        raise typer.Exit(FAILED_GOAL)


@app.command("scaling-policy", epilog=_SCALING_EXAMPLES)
@from_anywhere
def scaling_policy(
    file: File = None,
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="GOALS",
            help="Find the cheapest policy that meets these goals first, as size does.",
            show_default="the scenario's own policy",
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="json (requests, for boto3) or cloudformation."),
    ] = "json",
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    prices: PriceFile = None,
    workers: Workers = None,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Print scaling policies as AWS takes them.

    Prints RegisterScalableTarget and PutScalingPolicy of Application Auto Scaling for each variant with `scaling`, or a
    CloudFormation template; and on standard error what the documents cannot say. Exits with 1 when no policy meets the
    goals.
    """
    from shadowsim.planning.scaling_documents import check_request, documents_of
    from shadowsim.planning.size import size as find_sizes
    from shadowsim.planning.size_policies import no_policy_text, with_cheapest_policy
    from shadowsim.planning.slo import parse_slo

    goals = None if slo is None else parse_slo(slo)
    scenario = scenario_of(file, rate, edits, seed)
    roles = check_request(scenario, goals, form)
    frame = None
    if goals is not None:
        progress = shows_progress(True, False, quiet)
        frame = find_sizes(scenario, goals, variants=roles, workers=workers, prices=prices, progress=progress)
        why = no_policy_text(frame)
        if why:
            typer.echo(wrapped(why), err=True)
            raise typer.Exit(FAILED_GOAL)
        scenario = with_cheapest_policy(scenario, frame)
    printed = documents_of(scenario, form)
    print_json(printed.documents)
    if not quiet:
        for note in printed.notes:
            typer.echo(wrapped(note, "note  ", "      "), err=True)
    if report is not None:
        from shadowsim.report.measured_analyses import scaling_analysis
        from shadowsim.report.planned_analyses import analysis_of_frame

        size_found = None if frame is None else analysis_of_frame(frame, goals, scenario)
        write_analysis(scaling_analysis(printed, size_found), report, True, scenario=scenario)


@app.command(epilog=_PLAN_EXAMPLES)
@from_anywhere
def plan(
    file: File = None,
    effect: Annotated[
        str,
        typer.Option(
            metavar="EFFECT", help='Effect to find: "p99 +5%", "mean +2ms", "error_rate +0.5%", "tpot p95 +5%".'
        ),
    ] = EFFECT,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    power: Annotated[
        float,
        typer.Option(parser=option_parser(number), metavar="P", help="Share of tests that should find the effect."),
    ] = POWER,
    alpha: Annotated[
        float,
        typer.Option(parser=option_parser(number), metavar="A", help="Significance level of the two-sided test."),
    ] = ALPHA,
    shares: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PCT,...",
            help="Sampling percentages to try.",
            show_default=",".join(map(str, SAMPLING_PERCENTAGES)),
        ),
    ] = None,
    durations: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T,...",
            help="Durations to try, as in 90min,6h,7d.",
            show_default="several, up to the Schedule's",
        ),
    ] = None,
    looks: Annotated[
        int, typer.Option(parser=option_parser(whole), metavar="N", help="Number of looks at the running test.")
    ] = LOOKS,
    replications: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole),
            metavar="N",
            help="Number of tests rehearsed with the effect, and as many without.",
        ),
    ] = REHEARSALS,
    prices: PriceFile = None,
    workers: Workers = None,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Find the share and the duration that show an effect.

    Rehearses the test at each share and duration, with a shadow that is worse by the effect and with one that is
    equally good. Shows how often the effect is found, false alarms, what is needed, and the cheapest test that
    suffices. Exits with 1 when no test reaches the power.
    """
    refuse_both_formats(as_json, as_csv)
    percentages = None if shares is None else [whole(text, "--shares") for text in split_commas(shares) or []]
    lengths_s = None if durations is None else [seconds(text, "--durations") for text in split_commas(durations) or []]
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning.plan import plan as rehearse_tests
    from shadowsim.planning.sheet import recommend
    from shadowsim.report.analysis_text import plan_text

    frame = rehearse_tests(
        scenario,
        effect,
        power,
        alpha=alpha,
        shares=percentages,
        durations=lengths_s,
        looks=looks,
        replications=replications,
        workers=workers,
        prices=prices,
        progress=shows_progress(as_json, as_csv, quiet),
    )
    best = recommend(frame)
    if as_json:
        recommended = None if best is None else best.to_dict()
        assumed = list(scenario.assumptions)
        print_json({"cells": frame.to_dict("records"), "recommended": recommended, "assumptions": assumed})
    elif as_csv:
        print_frame(frame, as_json=False)
    else:
        print_assumptions(scenario, file)
        show(plan_text(frame, effect, power))
    write_analysis(frame, report, as_json or as_csv, power, scenario)
    if best is None:
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_SWEEP_EXAMPLES)
@from_anywhere
def sweep(
    file: File = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=V,V,...",
            autocompletion=setting_paths,
            help="Values of a path; every combination is run; repeatable.",
        ),
    ] = None,
    rate: Rate = None,
    seed: Seed = None,
    replications: Annotated[
        int | None,
        typer.Option(
            parser=option_parser(whole),
            metavar="N",
            help="Number of runs per cell.",
            show_default="the scenario's run.replications",
        ),
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on a Dask cluster: the address of its scheduler.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep finished runs in this directory, and do not run them again."),
    ] = None,
    workers: Workers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless all runs are STABLE.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Simulate all combinations of settings.

    Prints one row per combination and variant; --csv and --json have all columns. A value may be JSON: a comma inside
    brackets, braces or quotes does not separate values. All cells see the same arrivals and draws (common random
    numbers).
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.planning.sweep_grid import grid_of

    grid = grid_of(settings or [])
    if not grid:
        raise InputError("--set", "is required: what to vary, as in --set sampling_percentage=10,50,100")
    swept_rate = grid.get("rate_per_s", [None])[0]
    if rate is None and file is not None:  # a plain request needs a rate to become a scenario, and any of them will do
        rate = cast("float | None", swept_rate)  # which the scenario checks
    scenario = scenario_of(file, rate, seed=seed)
    from shadowsim.planning.sweep import sweep as run_cells
    from shadowsim.report.analysis_text import sweep_text

    progress = shows_progress(as_json, as_csv, quiet)
    with _cluster(dask) as executor:
        frame = run_cells(scenario, grid, executor, replications, cache, workers=workers, progress=progress)
    if as_json or as_csv:
        print_frame(frame, as_json)
    else:
        print_assumptions(scenario, file)
        show(sweep_text(frame, grid))
    write_analysis(frame, report, as_json or as_csv, None, scenario)
    if strict and not (frame["run_verdict"] == "STABLE").all():
        raise typer.Exit(FAILED_GOAL)


@contextmanager
def _cluster(address: str | None) -> Iterator[Executor | None]:
    """Connect to a Dask cluster, and disconnect at the end; without an address, yield None: this machine."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--dask", "needs Dask: pip install 'shadowsim[dask]'") from None
    try:
        client: Any = Client(address, timeout=DASK_TIMEOUT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("--dask", f"must be the address of a scheduler that answers ({why})", address) from None
    with client:
        yield client.get_executor()
