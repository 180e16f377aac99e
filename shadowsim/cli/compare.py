"""Defines compare, noise-floor, agreement and benchmark-compare: the commands that compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shadowsim.cli.completions import metric_names
from shadowsim.cli.console import FAILED_GOAL, print_frame, print_json, show
from shadowsim.cli.option_parsers import number, option_parser, share, whole
from shadowsim.cli.options import (
    Confidence,
    Csv,
    Edits,
    File,
    Json,
    MarginPct,
    MarginPoints,
    Quiet,
    Rate,
    Report,
    Seed,
    SloS,
    TpotSloS,
    TtftSloS,
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
    ANSWER_FORMAT,
    BENCHMARK_MARGIN_PCT,
    EXAMPLES,
    NOISE_FLOOR_RUNS,
    TOLERANCE,
)
from shadowsim.quantities import per_cent
from shadowsim.statistics.terms import CONFIDENCE, DEFAULT_SPENDING, MARGIN_PCT, MARGIN_POINTS

# \b keeps the lines of a help text as they are.
_COMPARE_EXAMPLES = """\b
Examples:
  shadowsim compare run
  shadowsim compare run --metric p99 --margin-pct 5 --strict
  shadowsim compare last-release run --role shadow --json
"""

_BENCHMARK_EXAMPLES = """\b
Examples:
  shadowsim benchmark-compare old.json new.json
  shadowsim benchmark-compare old.json new.json --margin 10% --json
  shadowsim benchmark-compare runs/old runs/new
"""

app = typer.Typer()


@app.command(epilog=_COMPARE_EXAMPLES)
def compare(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A saved run, as `simulate -o DIR` writes it.")],
    later: Annotated[
        Path | None,
        typer.Argument(metavar="DIR2", help="A later run: its variants are compared with the same variants of DIR."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="M",
            autocompletion=metric_names,
            help="Show only this metric, such as p99 or ttft_p99; repeatable.",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="With DIR2: compare only source or shadow.", show_default="both"),
    ] = None,
    margin_pct: MarginPct = MARGIN_PCT,
    margin_points: MarginPoints = MARGIN_POINTS,
    confidence: Confidence = CONFIDENCE,
    slo_s: SloS = None,
    ttft_slo_s: TtftSloS = None,
    tpot_slo_s: TpotSloS = None,
    look: Annotated[
        int | None,
        typer.Option(parser=option_parser(whole), metavar="K", help="This is look K of --looks at a running test."),
    ] = None,
    looks: Annotated[
        int | None, typer.Option(parser=option_parser(whole), metavar="N", help="Number of looks planned.")
    ] = None,
    spending: Annotated[
        str | None,
        typer.Option(
            metavar="S", help="How the looks share the level: obrien-fleming or pocock.", show_default=DEFAULT_SPENDING
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="M",
            help="sections, replications, requests or windows.",
            show_default="the first that the saved run allows",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also exit with 1 when a metric has not enough data.")
    ] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
) -> None:
    """Compare the shadow with the source, or two runs.

    Shows for each metric both sides, the difference with its interval, and a verdict: worse, better, no difference
    larger than the margin, or not enough data. Where the sides do not carry the same load, it says so first, and
    simulates the shadow at the source's load to tell which difference is the model's. Exits with 1 when a metric is
    worse, or when a pool is OVERLOADED and its counterpart is not.
    """
    refuse_both_formats(as_json, as_csv)
    staged = {"look": look, "looks": looks, "spending": spending}
    staged = {name: value for name, value in staged.items() if value is not None}
    if later is not None and staged:
        raise InputError(f"--{next(iter(staged))}", "is for one run, but DIR2 is given")
    if later is None and role is not None:
        raise InputError("--role", "is for two runs; within one, the shadow is compared with the source")
    from shadowsim.report.comparison_text import compare_saved, compare_two_saved

    terms = {
        "margin_pct": margin_pct,
        "margin_points": margin_points,
        "confidence": confidence,
        "slo_s": slo_s,
        "ttft_slo_s": ttft_slo_s,
        "tpot_slo_s": tpot_slo_s,
        "method": method,
    }
    if later is None:
        comparison = compare_saved(directory, **terms, **staged)
    else:
        comparison = compare_two_saved(directory, later, role, **terms)
    comparison = comparison.only(metrics or [])
    if as_json:
        print_json(comparison.to_dict())
    elif as_csv:
        print_frame(comparison.table, as_json=False)
    else:
        show(str(comparison))
    write_analysis(comparison, report, as_json or as_csv)
    if comparison.worse or (strict and comparison.unsure):
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog="Example: shadowsim noise-floor scenario.json --set sampling_percentage=10")
@from_anywhere
def noise_floor(
    file: File = None,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    replications: Annotated[
        int | None,
        typer.Option(
            parser=option_parser(whole, least=2),
            metavar="N",
            help="Number of runs.",
            show_default=f"the scenario's run.replications, or {NOISE_FLOOR_RUNS}",
        ),
    ] = None,
    margin_pct: MarginPct = MARGIN_PCT,
    margin_points: MarginPoints = MARGIN_POINTS,
    confidence: Confidence = CONFIDENCE,
    slo_s: SloS = None,
    ttft_slo_s: TtftSloS = None,
    tpot_slo_s: TpotSloS = None,
    workers: Workers = None,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
    quiet: Quiet = False,
) -> None:
    """Measure the noise floor: the source against itself.

    Compares the source with itself (A/A) in independent runs, and shows how far apart both sides are and how often
    that is called worse or better.
    """
    refuse_both_formats(as_json, as_csv)
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning.noise_floor import noise_floor as measure_noise_floor
    from shadowsim.planning.noise_floor import other_share_text
    from shadowsim.report.analysis_text import noise_text

    other_share = other_share_text(scenario)
    floor = measure_noise_floor(
        scenario,
        margin_pct=margin_pct,
        margin_points=margin_points,
        confidence=confidence,
        slo_s=slo_s,
        ttft_slo_s=ttft_slo_s,
        tpot_slo_s=tpot_slo_s,
        replications=replications,
        workers=workers,
        progress=shows_progress(as_json, as_csv, quiet),
    )
    if as_json or as_csv:
        print_frame(floor, as_json)
    else:
        print_assumptions(scenario, file, [other_share] if other_share else [])
        show(noise_text(floor, scenario.horizon_s))
    write_analysis(floor, report, as_json or as_csv, scenario=scenario)


@app.command(epilog="Example: shadowsim agreement AllTraffic Shadow-01 --ignore '$.request_id' --at-least 99%")
def agreement(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE_CAPTURES", help="SageMaker's capture folder (or file) of the source."),
    ],
    shadow: Annotated[Path, typer.Argument(metavar="SHADOW_CAPTURES", help="The same of the shadow.")],
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Field to leave out, such as $.request_id or $.items[*].id; repeatable."),
    ] = None,
    rtol: Annotated[
        float, typer.Option(parser=option_parser(number), metavar="X", help="Relative tolerance of numbers.")
    ] = TOLERANCE,
    atol: Annotated[
        float, typer.Option(parser=option_parser(number), metavar="X", help="Absolute tolerance of numbers.")
    ] = TOLERANCE,
    confidence: Confidence = CONFIDENCE,
    examples: Annotated[
        int,
        typer.Option(parser=option_parser(whole, least=0), metavar="N", help="Show at most this many disagreements."),
    ] = EXAMPLES,
    answer_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format of the answers: auto, json, csv or bytes. auto takes what fits both, not the content type.",
        ),
    ] = ANSWER_FORMAT,
    at_least: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(share),
            metavar="SHARE",
            help="Exit with 1 unless the share equal as values is certainly at least this: 99%.",
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
) -> None:
    """Compare captured responses of source and shadow.

    Pairs them by inference ID. Shows the shares that are equal byte for byte and as values, differences per field, what
    was left out, and examples; --csv prints the fields. --at-least judges the lower end of the interval, since a few
    pairs that agree prove little.
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.captures.agreement import agreement as measure_agreement

    result = measure_agreement(
        source,
        shadow,
        ignore=ignore or (),
        rtol=rtol,
        atol=atol,
        confidence=confidence,
        examples=examples,
        format=answer_format,
    )
    met = at_least is None or result.within.low >= at_least  # false for NaN, when there are no pairs
    if as_json:
        print_json(result.to_dict() | ({} if at_least is None else {"at_least": at_least, "met": met}))
    elif as_csv:
        print_frame(result.fields, as_json=False)
    else:
        show(str(result))
        if at_least is not None:
            show("\n" + _goal_text(result.within.share, result.within.low, result.within.high, at_least))
    if report is not None:
        from shadowsim.report.measured_analyses import agreement_analysis

        write_analysis(agreement_analysis(result, at_least), report, as_json or as_csv)
    if not met:
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_BENCHMARK_EXAMPLES)
def benchmark_compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A pytest-benchmark file, or a directory of several.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The same of the newer version.")],
    margin: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(per_cent),
            metavar="M",
            help="Largest change that does not matter, as in 3%.",
            show_default=f"{BENCHMARK_MARGIN_PCT:g}%",
        ),
    ] = None,
    confidence: Confidence = CONFIDENCE,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
) -> None:
    """Compare benchmarks of two versions.

    Shows for each benchmark both medians, the change with its interval, and whether the change is significant (after
    benchstat). Exits with 1 when a benchmark is significantly slower by more than the margin. The rounds of one file
    are not independent runs: directories of several files, recorded in turn, show what really changed.
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.testing.benchmark_comparison import SLOWER, benchmarks_object, benchmarks_text, compare_benchmarks
    from shadowsim.testing.benchmark_files import read_timings

    margin_pct = BENCHMARK_MARGIN_PCT if margin is None else margin
    before, after = (read_timings(path) for path in (old, new))
    table = compare_benchmarks(before, after, margin_pct=margin_pct, confidence=confidence)
    if as_json:
        print_json(benchmarks_object(table))
    elif as_csv:
        print_frame(table, as_json=False)
    else:
        show(benchmarks_text(table, before, after, margin_pct))
    if report is not None:
        from shadowsim.report.measured_analyses import benchmarks_analysis

        write_analysis(benchmarks_analysis(table, before, after, margin_pct), report, as_json or as_csv)
    if (table["verdict"] == SLOWER).any():
        raise typer.Exit(FAILED_GOAL)


def _goal_text(equal: float, low: float, high: float, at_least: float) -> str:
    """Return whether the share equal as values reaches the goal, from the share and its interval."""
    from shadowsim.text import percent, wrapped

    goal = f"equal as values in at least {100.0 * at_least:g} %"
    if low >= at_least:
        return wrapped(f"met: {goal}; the interval's lower end is {percent(low, 2)}.")
    if high < at_least:
        return wrapped(f"missed: {goal}; it is {percent(equal, 2)}.")
    return wrapped(f"not certain, so not met: {goal}; the interval is {percent(low, 2)} to {percent(high, 2)}.")
