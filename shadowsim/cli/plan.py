"""The commands that propose a test: size, plan and sweep.

Each reads, calls one function and prints what that found; its help says when it ends with status 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadowsim.cli.console import FAILED_GOAL, print_frame, print_json
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
    number_of,
    only_given,
    refuse_both_formats,
    scenario_of,
    whole_of,
    with_bar,
    write_analysis,
)
from shadowsim.errors import InputError

if TYPE_CHECKING:
    from concurrent.futures import Executor

# The sign \b keeps a help text's lines as they are.
_SIZE_EXAMPLES = """\b
Examples:
  shadowsim size --slo "p99 <= 100ms"
  shadowsim size scenario.json --slo "p99 <= 200ms and error_rate < 0.1%"
  shadowsim size s.json --slo "mean < 25ms" --types ml.m5.large,ml.c5.large
  shadowsim size request.json --rate 400 --slo "p99 < 1s" --prices prices.csv
"""
_PLAN_EXAMPLES = """\b
Examples:
  shadowsim plan --effect "p99 +5%"
  shadowsim plan s.json --effect "mean +2ms" --durations 6h,1d --power 0.9
  shadowsim plan request.json --rate 400 --shares 10,50 --looks 3 --json
"""
_SWEEP_EXAMPLES = """\b
Examples:
  shadowsim sweep --set shadow.instance_count=1,2 --set rate_per_s=100,200
  shadowsim sweep scenario.json --set sampling_percentage=10,50,100 --csv
  shadowsim sweep s.json --set rate_per_s=100,200 --replications 5 --cache DIR
  shadowsim sweep s.json --set seed=1,2,3 --dask HOST:8786
"""

ANSWERS_WITHIN_S = 10.0  # a scheduler

app = typer.Typer()


@app.command(epilog=_SIZE_EXAMPLES)
def size(
    file: File = None,
    slo: Annotated[
        str, typer.Option(metavar="GOALS", help='What must be met: "shadow.p99 <= 200ms and error_rate < 0.1%".')
    ] = "",
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    types: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE,...", help="Instance types. [the variant's, and its by_instance_type]"),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(metavar="ROLE,...", help="Whose instances: source, shadow. [of whom goals speak]"),
    ] = None,
    headroom_pct: Annotated[
        str | None, typer.Option(metavar="PCT", help="By how much the rate is raised first. [0]")
    ] = None,
    confidence: Annotated[str | None, typer.Option(metavar="C", help="Of a certain answer. [0.95]")] = None,
    max_instances: Annotated[str | None, typer.Option(metavar="N", help="More are not tried. [1000]")] = None,
    prices: PriceFile = None,
    workers: Workers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when an answer is not certain, too.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Find the fewest instances that meet goals.

    For each type, cheapest first, with cost, quotas, what decides, and what one instance fewer would do. Goals are
    METRIC OP VALUE joined by `and`: p50 to p99.9, mean, wait_mean, share(latency > T), share(wait > T), error_rate,
    utilisation. Exits with 1 when no type meets them.
    """
    refuse_both_formats(as_json, as_csv)
    if not slo:
        raise InputError("--slo", 'is needed: what must be met, such as --slo "p99 <= 200ms and error_rate < 0.1%"')
    asked = only_given(
        instance_types=_listed(types),
        headroom_pct=number_of("--headroom-pct", headroom_pct),
        confidence=number_of("--confidence", confidence),
        max_instances=whole_of("--max-instances", max_instances),
        workers=whole_of("--workers", workers),
        prices=prices,
    )
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning import size as sizing
    from shadowsim.planning.slo import parse_slo
    from shadowsim.report.analysis_text import sizing_text

    goals = parse_slo(slo)
    roles = list(dict.fromkeys(goal.role for goal in goals.goals)) if variants is None else variants.split(",")
    frame = sizing.size(scenario, goals, variants=roles, **asked, progress=with_bar(as_json, as_csv, quiet))
    if as_json or as_csv:
        print_frame(frame, as_json)
    else:
        typer.echo(sizing_text(frame, goals, scenario.experiment.duration_s))
    _say(write_analysis(frame, report, goals, scenario), as_json or as_csv)
    able = frame[frame["instance_count"].notna()].groupby("role").first()
    if len(able) < frame["role"].nunique() or (strict and not able["certain"].all()):
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_PLAN_EXAMPLES)
def plan(
    file: File = None,
    effect: Annotated[
        str, typer.Option(metavar="EFFECT", help='What is to be found: "p99 +5%", "mean +2ms", "error_rate +0.5%".')
    ] = "p99 +5%",
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    power: Annotated[str, typer.Option(metavar="P", help="How often a test should find it.")] = "0.8",
    alpha: Annotated[str | None, typer.Option(metavar="A", help="Level of the test, two-sided. [0.05]")] = None,
    shares: Annotated[
        list[str] | None, typer.Option(metavar="PCT,...", help="Sampling percentages. [10,25,50,100]")
    ] = None,
    durations: Annotated[
        list[str] | None, typer.Option(metavar="T,...", help="Such as 90min, 6h, 7d. [1h to the Schedule's length]")
    ] = None,
    looks: Annotated[str | None, typer.Option(metavar="N", help="How often the test is looked at. [1]")] = None,
    replications: Annotated[
        str | None, typer.Option(metavar="N", help="Tests rehearsed with the effect, and as many without. [100]")
    ] = None,
    prices: PriceFile = None,
    workers: Workers = None,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Find the share and the duration that show an effect.

    Rehearses the test at each share and duration, with a shadow that is worse by the effect and with one that is as
    good: how often it is found, false alarms, what is needed, and the cheapest test that will do. Exits with 1 when
    none reaches the power.
    """
    refuse_both_formats(as_json, as_csv)
    wanted = number_of("--power", power)
    assert wanted is not None
    times = _listed(durations)
    asked = only_given(
        alpha=number_of("--alpha", alpha),
        shares=[whole_of("--shares", share) for share in _listed(shares) or []] or None,
        durations=None if times is None else [float(t) if t.replace(".", "", 1).isdecimal() else t for t in times],
        looks=whole_of("--looks", looks),
        replications=whole_of("--replications", replications),
        workers=whole_of("--workers", workers),
        prices=prices,
    )
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning import plan as planning
    from shadowsim.planning.sheet import recommend
    from shadowsim.report.analysis_text import plan_text

    frame = planning.plan(scenario, effect, wanted, **asked, progress=with_bar(as_json, as_csv, quiet))
    best = recommend(frame)
    if as_json:
        print_json({"cells": frame.to_dict("records"), "recommended": None if best is None else best.to_dict()})
    elif as_csv:
        print_frame(frame, as_json=False)
    else:
        typer.echo(plan_text(frame, effect, wanted))
    _say(write_analysis(frame, report, wanted, scenario), as_json or as_csv)
    if best is None:
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_SWEEP_EXAMPLES)
def sweep(
    file: File = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=V,V,...", help="Values of a path; every combination is run; repeatable."),
    ] = None,
    rate: Rate = None,
    seed: Seed = None,
    replications: Annotated[
        str | None, typer.Option(metavar="N", help="How often each cell is run. [the scenario's run.replications]")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on a Dask cluster: its scheduler's address.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep finished runs there, and go on from them.")
    ] = None,
    workers: Workers = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless all runs are STABLE.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Simulate all combinations of settings.

    A row a combination and variant; --csv and --json have all columns. A value may be JSON: a comma inside brackets,
    braces or quotes separates nothing. All cells see the same arrivals and draws (common random numbers).
    """
    refuse_both_formats(as_json, as_csv)
    n, threads = whole_of("--replications", replications), whole_of("--workers", workers)
    from shadowsim.planning.sweep_grid import grid_of

    grid = grid_of(settings or [])
    if not grid:
        raise InputError("--set", "is needed: what to vary, such as --set sampling_percentage=10,50,100")
    swept = grid.get("rate_per_s", [None])[0]
    if rate is None and file is not None and swept is not None:
        rate = str(swept)  # a plain request is no scenario without one, whatever its cells then say
    scenario = scenario_of(file, rate, seed=seed)
    from shadowsim.planning import sweep as sweeps
    from shadowsim.report.analysis_text import sweep_text

    bar = with_bar(as_json, as_csv, quiet)
    with _cluster(dask) as executor:
        frame = sweeps.sweep(scenario, grid, executor, n, cache, workers=threads, progress=bar)
    if as_json or as_csv:
        print_frame(frame, as_json)
    else:
        typer.echo(sweep_text(frame, grid))
    _say(write_analysis(frame, report, None, scenario), as_json or as_csv)
    if strict and not (frame["run_verdict"] == "STABLE").all():
        raise typer.Exit(FAILED_GOAL)


def _say(lines: Sequence[str], for_machines: bool) -> None:
    """Say what was written, apart from what a machine reads."""
    for line in lines:
        typer.echo(line, err=for_machines)


@contextmanager
def _cluster(address: str | None) -> Iterator[Executor | None]:
    """Connect to a Dask cluster for as long as it is needed; None is this machine."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--dask", "needs Dask: pip install 'shadowsim[dask]'") from None
    try:
        client: Any = Client(address, timeout=ANSWERS_WITHIN_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("--dask", f"must be the address of a scheduler that answers ({why})", address) from None
    with client:
        yield client.get_executor()


def _listed(texts: list[str] | None) -> list[str] | None:
    """Return what an option lists, by commas or by standing several times."""
    return [name.strip() for text in texts for name in text.split(",")] if texts else None
