"""The commands that ask what a test shows: compare, noise-floor and agreement; and what became slower of the code.

Each reads, calls one function and prints what that found; its help says when it ends with status 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shadowsim.cli.console import FAILED_GOAL, print_frame, print_json
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
    Seed,
    SloS,
    Workers,
    number_of,
    only_given,
    refuse_both_formats,
    scenario_of,
    terms,
    whole_of,
    with_bar,
)
from shadowsim.errors import InputError

if TYPE_CHECKING:
    pass

# The sign \b keeps a help text's lines as they are.
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
        typer.Argument(metavar="DIR2", help="A later one: its variants are compared with the same ones of DIR."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="M", help="Only this metric, such as p99; repeatable.")
    ] = None,
    role: Annotated[str | None, typer.Option(metavar="ROLE", help="With DIR2: only source or shadow. [both]")] = None,
    margin_pct: MarginPct = None,
    margin_points: MarginPoints = None,
    confidence: Confidence = None,
    slo_s: SloS = None,
    look: Annotated[str | None, typer.Option(metavar="K", help="This is look K of --looks at a running test.")] = None,
    looks: Annotated[str | None, typer.Option(metavar="N", help="How many looks are planned.")] = None,
    spending: Annotated[
        str | None, typer.Option(metavar="S", help="obrien-fleming or pocock. [obrien-fleming]")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="M", help="sections, replications, requests or windows. [what there is]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for not enough data, too.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare the shadow with the source, or two runs.

    Shows for each metric both sides, the difference with its interval, and a verdict: worse, better, no difference
    larger than the margin, or not enough data. Exits with 1 when a metric is worse, or a pool is OVERLOADED whose
    counterpart is not.
    """
    refuse_both_formats(as_json, as_csv)
    asked = terms(margin_pct, margin_points, confidence, slo_s) | only_given(method=method)
    staged = only_given(look=whole_of("--look", look), looks=whole_of("--looks", looks), spending=spending)
    if later is not None and staged:
        raise InputError(f"--{next(iter(staged))}", "is for one run, and DIR2 is another")
    if later is None and role is not None:
        raise InputError("--role", "is for two runs; in one, the shadow is compared with the source")
    from shadowsim.report import comparison_text

    if later is None:
        found = comparison_text.compare_saved(directory, **asked, **staged)
    else:
        found = comparison_text.compare_two_saved(directory, later, role, **asked)
    found = found.only(metrics or [])
    if as_json:
        print_json(found.to_dict())
    elif as_csv:
        print_frame(found.table, as_json=False)
    else:
        typer.echo(str(found))
    if found.worse or (strict and found.unsure):
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog="Example: shadowsim noise-floor scenario.json --set sampling_percentage=10")
def noise_floor(
    file: File = None,
    rate: Rate = None,
    edits: Edits = None,
    seed: Seed = None,
    replications: Annotated[str | None, typer.Option(metavar="N", help="How many runs. [10]")] = None,
    margin_pct: MarginPct = None,
    margin_points: MarginPoints = None,
    confidence: Confidence = None,
    slo_s: SloS = None,
    workers: Workers = None,
    as_json: Json = False,
    as_csv: Csv = False,
    quiet: Quiet = False,
) -> None:
    """Show the differences that a set-up shows when there are none.

    The source is compared with itself (A/A), as often as there are runs: how far apart both sides are, and how often
    that is called worse or better.
    """
    refuse_both_formats(as_json, as_csv)
    n, threads = whole_of("--replications", replications, 2), whole_of("--workers", workers)
    asked = terms(margin_pct, margin_points, confidence, slo_s) | only_given(replications=n, workers=threads)
    scenario = scenario_of(file, rate, edits, seed)
    from shadowsim.planning import noise_floor as noise
    from shadowsim.report.analysis_text import noise_text

    floor = noise.noise_floor(scenario, **asked, progress=with_bar(as_json, as_csv, quiet))
    if as_json or as_csv:
        print_frame(floor, as_json)
    else:
        typer.echo(noise_text(floor, scenario.horizon_s))


@app.command(epilog="Example: shadowsim agreement AllTraffic Shadow-01 --ignore '$.request_id' --at-least 99%")
def agreement(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE_CAPTURES", help="The source's capture folder (or a file) of SageMaker.")
    ],
    shadow: Annotated[Path, typer.Argument(metavar="SHADOW_CAPTURES", help="The shadow's.")],
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="A field to leave out, such as $.request_id or $.items[*].id; repeatable."),
    ] = None,
    rtol: Annotated[str | None, typer.Option(metavar="X", help="Tolerance of numbers, relative. [0]")] = None,
    atol: Annotated[str | None, typer.Option(metavar="X", help="Tolerance of numbers, absolute. [0]")] = None,
    confidence: Confidence = None,
    examples: Annotated[str | None, typer.Option(metavar="N", help="Disagreements shown, at most. [5]")] = None,
    at_least: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Exit with 1 unless the share equal as values is surely so great: 99%."),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare the answers of both variants, from their captures.

    Pairs them by inference id: shares that are equal byte for byte and as values, differences field by field, what was
    left out, and examples. --csv gives the fields. --at-least asks for the lower end of the interval: a few pairs that
    agree are no proof.
    """
    refuse_both_formats(as_json, as_csv)
    wanted = _share("--at-least", at_least)
    asked = only_given(
        ignore=ignore,
        rtol=number_of("--rtol", rtol),
        atol=number_of("--atol", atol),
        confidence=number_of("--confidence", confidence),
        examples=whole_of("--examples", examples, 0),
    )
    from shadowsim.captures import agreement as agreements

    found = agreements.agreement(source, shadow, **asked)
    met = wanted is None or found.within.low >= wanted  # NaN of no pairs is not met
    if as_json:
        print_json(found.to_dict() | ({} if wanted is None else {"at_least": wanted, "met": met}))
    elif as_csv:
        print_frame(found.fields, as_json=False)
    else:
        typer.echo(str(found))
        if wanted is not None:
            typer.echo("\n" + _reached(found.within.share, found.within.low, found.within.high, wanted))
    if not met:
        raise typer.Exit(FAILED_GOAL)


@app.command(epilog=_BENCHMARK_EXAMPLES)
def benchmark_compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A file of pytest-benchmark, or a directory of several.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Likewise, of the newer version.")],
    margin: Annotated[str, typer.Option(metavar="M", help="A change that does not matter, as in 3%.")] = "5%",
    confidence: Confidence = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare benchmarks of two versions.

    Shows for each benchmark both medians, the change with its interval, and whether that is chance (after benchstat).
    Exits with 1 when one is slower by more than the margin, and that is significant. The rounds of one file are no
    independent runs: directories of several files, made in turn, show what truly changed.
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.scenario.fields import per_cent
    from shadowsim.testing import benchmark_comparison, benchmark_files

    margin_pct = per_cent(margin, "--margin")
    before, after = (benchmark_files.read_timings(path) for path in (old, new))
    asked = only_given(confidence=number_of("--confidence", confidence))
    table = benchmark_comparison.compare_benchmarks(before, after, margin_pct=margin_pct, **asked)
    if as_json:
        print_json(benchmark_comparison.benchmarks_object(table))
    elif as_csv:
        print_frame(table, as_json=False)
    else:
        typer.echo(benchmark_comparison.benchmarks_text(table, before, after, margin_pct))
    if (table["verdict"] == benchmark_comparison.SLOWER).any():
        raise typer.Exit(FAILED_GOAL)


def _share(option: str, text: str | None) -> float | None:
    """Return the share that an option gives: 99% or 0.99."""
    if text is None:
        return None
    number = number_of(option, text.strip().removesuffix("%"))
    assert number is not None
    share = number / 100.0 if text.strip().endswith("%") else number
    if not 0.0 <= share <= 1.0:
        raise InputError(option, "must be a share such as 99% or 0.99", text)
    return share


def _reached(share: float, low: float, high: float, wanted: float) -> str:
    from shadowsim.text import percent, wrapped

    goal = f"equal as values in at least {100.0 * wanted:g} %"
    if low >= wanted:
        return wrapped(f"met: {goal}; the interval's lower end is {percent(low, 2)}.")
    if high < wanted:
        return wrapped(f"missed: {goal}; it is {percent(share, 2)}.")
    return wrapped(f"not certain, so not met: {goal}; the interval is {percent(low, 2)} to {percent(high, 2)}.")
