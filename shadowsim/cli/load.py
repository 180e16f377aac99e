"""Defines load: the command that sends planned requests to a real service and measures it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadowsim.cli.console import FAILED_GOAL, INTERRUPTED, print_frame, print_json, show, writing
from shadowsim.cli.option_parsers import number, option_parser, positive_s, time_s, whole
from shadowsim.cli.options import (
    Csv,
    Edits,
    Json,
    Origin,
    Quiet,
    Seed,
    assumption_lines,
    refuse_both_formats,
    shows_progress,
)
from shadowsim.cli.outputs import make_folder, remove_earlier
from shadowsim.errors import InputError
from shadowsim.option_defaults import PAGE_IN_RUN

if TYPE_CHECKING:
    from shadowsim.measuring.generator.load_records import LiveCounts
    from shadowsim.measuring.generator.load_run import LoadRun

# \b keeps the lines of a help text as they are.
_EXAMPLES = """\b
Examples:
  shadowsim load http://127.0.0.1:8080/invocations --rate 200 --duration 60
  shadowsim load URL --rate 50 --body bodies.jsonl --slo "p99 <= 200ms" -o run
  shadowsim load URL --scenario scenario.json --duration 10min --processes 2
  shadowsim load URL --stages "10/s 30s, 20/s 30s, 40/s 30s"
  shadowsim load URL --characterise --body request.json -o run
  shadowsim load http://127.0.0.1:8000/v1/completions --protocol openai \\
      --rate 2 --body prompts.jsonl
  shadowsim load --endpoint my-endpoint --replay captures/ -o run \\
      --real-aws --max-rate 25
"""
_WEEK_S, _HOUR_S = 604_800.0, 3_600.0

app = typer.Typer()


@app.command(epilog=_EXAMPLES)
def load(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="Where requests go; or else --endpoint.", show_default=False)
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="A SageMaker endpoint; its requests are signed.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(parser=option_parser(number), metavar="R", help="Mean rate in requests per second (Poisson)."),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(positive_s, most=_WEEK_S),
            metavar="T",
            help="Length of the run, in seconds or as in 10min.",
            show_default="60 s, or the scenario's horizon",
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help="Send the traffic of this scenario: profile, bursts, trace, sizes."),
    ] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="STAGES", help='Rates one after the other: "10/s 30s, 20/s 1min".')
    ] = None,
    characterise: Annotated[
        bool,
        typer.Option(
            "--characterise", help="Run the experiment for calibrate: one request, a concurrency ladder, mixed load."
        ),
    ] = False,
    stage_length: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(positive_s, most=_HOUR_S),
            metavar="T",
            help="Length of a stage of --characterise; mixed load lasts six times as long.",
            show_default="10 s",
        ),
    ] = None,
    max_concurrency: Annotated[
        int | None,
        typer.Option(
            parser=option_parser(whole, most=100_000),
            metavar="N",
            help="Top of the ladder of --characterise.",
            show_default="64",
        ),
    ] = None,
    body: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Bodies to send in turn: a file, a folder, lines of a .jsonl, rows of an .npy, or captures.",
            show_default="random bytes by the scenario's request_bytes, or none",
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="CAPTURES", help="Send the requests of SageMaker's capture files at their own times; needs -o."
        ),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="A header of each request; repeatable.")
    ] = None,
    method: Annotated[str, typer.Option(metavar="METHOD", help="HTTP method for a URL.")] = "POST",
    protocol: Annotated[
        str, typer.Option(metavar="http|openai", help="openai times and counts the tokens of completions.")
    ] = "http",
    stream: Annotated[
        bool, typer.Option("--stream", help="Ask an endpoint for response streams, and time their first tokens.")
    ] = False,
    inference_ids: Annotated[
        bool, typer.Option("--inference-ids", help="Send inference ids to a URL, too, as an endpoint always gets.")
    ] = False,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The SageMaker runtime's.", show_default="AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME, or AWS"
        ),
    ] = None,
    region: Annotated[str | None, typer.Option(metavar="REGION", help="Region of the endpoint.")] = None,
    real_aws: Annotated[
        bool, typer.Option("--real-aws", help="Allow requests to AWS itself; needs --max-rate.")
    ] = False,
    max_rate: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(number),
            metavar="R",
            help="Never send more per second; requests held back make the run no longer open-loop.",
        ),
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            parser=option_parser(whole),
            metavar="N",
            help="Drop and count requests beyond this many unanswered ones.",
            show_default="unlimited",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(positive_s, most=_HOUR_S),
            metavar="T",
            help="Longest wait for an answer.",
            show_default="the scenario's, 60 s",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(parser=option_parser(whole, most=64), metavar="N", help="Number of sending processes.")
    ] = 1,
    max_lag: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(time_s),
            metavar="T",
            help="The run is invalid if p99 of how late requests leave is above this.",
            show_default="10ms, or 5 % of the median latency",
        ),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", help="Go on when no request has reached the service yet; else such a run ends after 3 s."
        ),
    ] = False,
    edits: Edits = None,
    seed: Seed = None,
    slo: Annotated[
        str | None,
        typer.Option(metavar="GOALS", help='Exit with 1 unless these are met: "p99 <= 200ms and error_rate < 1%".'),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write the frames (Parquet), scenario and load.json into DIR."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help=f"Also write an HTML page, DIR/{PAGE_IN_RUN}; needs -o.")
    ] = False,
    as_json: Json = False,
    as_csv: Csv = False,
    quiet: Quiet = False,
) -> None:
    """Load a real service at planned times, and measure it.

    Requests leave when they are due, whatever the answers; latency counts from the planned time. Arrivals are those
    that simulate has for the same scenario and seed. A run whose own generator was late, dropped requests or ran out
    of CPU is invalid, and exits with 1, as one that misses its goals does. Ctrl-C ends a run and keeps what was
    measured.
    """
    refuse_both_formats(as_json, as_csv)
    if report and out is None:
        raise InputError("--report", "needs -o DIR, in which the page is written")
    from shadowsim.measuring.generator.load_run import load_goals
    from shadowsim.measuring.generator.load_schedule import captured_traffic
    from shadowsim.measuring.generator.saturation import GeneratorLimits
    from shadowsim.measuring.generator.sender import Ladder
    from shadowsim.measuring.load import load as load_service
    from shadowsim.scenario.paths import parse_set

    goals = None if slo is None else load_goals(slo)
    ladder: bool | Ladder = False
    if characterise:
        if slo is not None:
            raise InputError("--slo", "must not be given together with --characterise, whose loads differ on purpose")
        given: dict[str, Any] = {"stage_s": stage_length, "greatest": max_concurrency, "seed": seed}
        given["mixed_s"] = None if stage_length is None else 6.0 * stage_length
        ladder = replace(Ladder(), **{name: value for name, value in given.items() if value is not None})
    elif stage_length is not None or max_concurrency is not None:
        option = "--stage-length" if stage_length is not None else "--max-concurrency"
        raise InputError(option, "is for --characterise")
    changes = dict(map(parse_set, edits or []))
    if replay is not None:
        _check_replay(out, {"--body": body, "--scenario": scenario, "--rate": rate, "--stages": stages} | dict(changes))
    if out is not None:
        make_folder(out)
    if replay is not None and out is not None:
        body, changes = replay, {"traffic": captured_traffic(replay, out, seed or 0)} | changes
    live = _LiveLine() if shows_progress(as_json, as_csv, quiet) else None
    options: dict[str, Any] = {
        "endpoint": endpoint,
        "scenario": None if scenario is None else Origin(scenario).source(),
        "rate_per_s": rate,
        "duration_s": duration,
        "stages": stages or (),
        "characterise": ladder,
        "changes": changes,
        "seed": seed,
        "body": body,
        "headers": _headers(header or []),
        "method": method,
        "protocol": protocol,
        "stream": stream,
        "inference_ids": True if inference_ids else None,
        "endpoint_url": endpoint_url,
        "region": region,
        "real_aws": real_aws,
        "max_rate_per_s": max_rate,
        "max_in_flight": max_in_flight,
        "timeout_s": timeout,
        "processes": processes,
        "limits": None if max_lag is None else GeneratorLimits(lag_s=max_lag, lag_share=0.0),
        "keep_going": keep_going,
    }
    try:
        run = load_service(url, on_counts=live, **options)
    finally:
        if live is not None:
            live.clear()
    written = [] if out is None else _save(run, out, report)
    rows = None if goals is None else run.evaluate(goals)
    if as_json:
        figures = run.summary().reset_index().to_dict("records")[0]
        extra = {} if rows is None else {"goals": rows.to_dict("records")}
        print_json({"summary": figures, "run": run.about, "assumed": list(run.scenario.assumptions)} | extra)
    elif as_csv:
        print_frame(run.summary(), as_json=False, index=True)
    else:
        # what a plain run assumes is in its scenario file alone
        lines = assumption_lines(run.scenario) if out is not None or scenario is not None or edits else []
        show("\n".join([*lines, *([""] if lines else []), str(run)]))
        if rows is not None:
            show("\n" + _goal_lines(rows.to_dict("records")))
        typer.echo("".join(f"\n{line}" for line in written), nl=bool(written))
    if run.about["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    missed = rows is not None and not rows["met"].all()
    if missed or not run.verdict.is_valid or not (run.requests["status"] == "answered").any():
        raise typer.Exit(FAILED_GOAL)


def _save(run: LoadRun, out: Path, report: bool) -> list[str]:
    lines = [f"removed {path} (of an earlier run)" for path in remove_earlier(out, [out], report)]
    writing(out, lambda: run.save(out))
    tables = "windows, latency and requests" if run.tokens is None else "windows, latency, requests and tokens"
    lines.append(f"wrote {out}/ (load.json, scenario.json; {tables} as Parquet)")
    if report:
        lines.append(f"wrote {writing(out, lambda: run.report(out / PAGE_IN_RUN))}")
    return lines


def _check_replay(out: Path | None, others: Mapping[str, object]) -> None:
    """Refuse what cannot be given together with --replay."""
    if out is None:
        raise InputError("--replay", "needs -o DIR, in which the arrival times are kept")
    for option, value in others.items():
        if value is not None and (option.startswith("--") or option.partition(".")[0] == "traffic"):
            raise InputError(option, "must not be given together with --replay", value)


def _headers(texts: list[str]) -> dict[str, str]:
    headers = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise InputError("--header", 'must be a name and a value such as "Accept: application/json"', text)
        headers[name.strip()] = value.strip()
    return headers


def _goal_lines(rows: list[dict[Hashable, Any]]) -> str:
    from shadowsim.text import grid, percent, time_text

    def shown(row: Mapping[Hashable, Any]) -> str:
        is_share = "rate" in row["goal"] or "share" in row["goal"] or "goodput" in row["goal"]
        return percent(row["value"], 2) if is_share else time_text(row["value"])

    return grid([[row["goal"], shown(row), "met" if row["met"] else "MISSED"] for row in rows], left=(0, 2))


class _LiveLine:
    """The line on a terminal that shows a run while it lasts."""

    def __init__(self) -> None:
        self._due, self._sent, self._at = 0, 0, monotonic()

    def __call__(self, counts: LiveCounts, elapsed_s: float) -> None:
        """Show the counts: rates of the last second, all else since the start."""
        line = live_text(counts, elapsed_s, counts.due - self._due, counts.sent - self._sent, monotonic() - self._at)
        self._due, self._sent, self._at = counts.due, counts.sent, monotonic()
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{line[:width]:<{width}}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the terminal as it was."""
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def live_text(counts: LiveCounts, elapsed_s: float, due: int, sent: int, since_s: float) -> str:
    """Return the line of a run: rates asked and achieved lately, latencies, failures and lag since the start."""
    from shadowsim.histogram import quantile_within
    from shadowsim.text import count, time_text

    since_s = max(since_s, 1e-9)

    def quantile(buckets: Mapping[int, int], q: float) -> str:
        return time_text(quantile_within(buckets, q, 0.0, float("inf")))

    parts = (
        f"{elapsed_s:.0f} s: sent {sent / since_s:,.0f} of {due / since_s:,.0f}/s",
        f"p50 {quantile(dict(counts.latency), 0.5)}",
        f"p99 {quantile(dict(counts.latency), 0.99)}",
        f"{count(counts.failed)} errors",
        f"lag p99 {quantile(dict(counts.lag), 0.99)}",
        *((f"{count(counts.dropped)} dropped",) if counts.dropped else ()),
        f"{count(counts.in_flight)} in flight",
    )
    return ", ".join(parts)
