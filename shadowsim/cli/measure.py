"""Defines measured and step-model: what logs say, and models of services that fit to measurements."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from shadowsim.cli.console import print_frame, print_json, writing
from shadowsim.cli.option_parsers import split_commas
from shadowsim.cli.options import Csv, Json, refuse_both_formats
from shadowsim.errors import InputError

# \b keeps the lines of a help text as they are.
_STEP_MODEL_EXAMPLES = """\b
Examples:
  shadowsim step-model measured.csv
  shadowsim step-model stages.csv --where model=llama-2-7b --json
  shadowsim step-model --presets
"""

_MEASURED_EXAMPLES = """\b
Examples:
  shadowsim measured access.log
  shadowsim measured access.log* --log-format '$msec $status $request_time'
  shadowsim measured k6.csv -o trace.csv
  shadowsim measured invocations.json latency.json --json
"""

app = typer.Typer()


@app.command(epilog=_MEASURED_EXAMPLES)
def measured(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG", help="A file or folder; several are pieces of one log.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="TRACE",
            dir_okay=False,
            help="Write the arrivals to TRACE (.csv, .csv.gz, .parquet).",
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="log_format of nginx, if the log's is not the combined one."),
    ] = None,
    latency_unit: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="ns, us, ms or s: unit of a percentile spectrum that does not say it."),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show what a log of a real service says, and make traffic of it.

    LOG is recognised by its content: results of k6, vegeta, wrk, wrk2, JMeter, inference-perf or AIPerf, a percentile
    spectrum, an access log of nginx, Apache or an ALB, an export of CloudWatch, SageMaker's captures, or a folder that
    shadowsim wrote. Shows its span, rate, latencies and errors, damaged lines, and what such a log does not know. -o
    writes a trace, which a scenario replays: {"process": "trace", "path": "TRACE"}.
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.measuring.logs.reading import read_measurement
    from shadowsim.measuring.overview import overview_object, overview_text
    from shadowsim.measuring.traffic_table import write_trace

    measurement = read_measurement(logs, log_format=log_format, latency_unit=latency_unit)
    said = overview_object(measurement)
    n_rows = None if out is None else writing(out, lambda: write_trace(measurement, out))
    if as_json:
        print_json(said)
    elif as_csv:
        from shadowsim.text import csv_text

        plain = {name: value for name, value in said.items() if not isinstance(value, list | dict)}
        typer.echo(csv_text([plain]), nl=False)
    else:
        typer.echo(overview_text(measurement))
        if n_rows is not None:
            typer.echo(f"\nwrote {out} ({n_rows:,} rows)")


@app.command(epilog=_STEP_MODEL_EXAMPLES)
def step_model(
    measurements: Annotated[
        Path | None,
        typer.Argument(metavar="MEASUREMENTS", help="A table (CSV, JSON or Parquet).", show_default=False),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Use only the rows with this value; repeatable."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns of which each combination of values gets its own fit, by commas.",
            show_default="model, hardware, parallelism and limits",
        ),
    ] = None,
    presets: Annotated[
        bool, typer.Option("--presets", help="List the presets that tokens.step may name, and fit nothing.")
    ] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Fit step times of a language model's server.

    MEASUREMENTS has either single measurements, in columns prompt_tokens, batch, output_tokens, prefill_ms and
    token_ms, or stages of a load test, in columns rate_per_s, output_tokens, e2e_s and ttft_s. Shows for each
    configuration the coefficients of tokens.step with standard errors, how far they miss, and what cannot be told
    apart. --json has blocks for services.VARIANT.tokens.
    """
    refuse_both_formats(as_json, as_csv)
    if presets == (measurements is not None):
        raise InputError("MEASUREMENTS", "must not be given together with --presets" if presets else "must be given")
    if presets:
        _list_presets(as_json, as_csv)
        return
    from shadowsim.measuring.step_model import step_model as fit_steps

    fits = fit_steps(str(measurements), where=dict(map(_condition, where or [])), by=split_commas(by))
    if as_json:
        print_json(fits.to_dict())
    elif as_csv:
        print_frame(fits.table, as_json=False)
    else:
        typer.echo(str(fits))


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals or not column:
        raise InputError("--where", "must be COLUMN=VALUE", text)
    return column, value


def _list_presets(as_json: bool, as_csv: bool) -> None:
    from shadowsim.measuring.step_model import presets_text
    from shadowsim.scenario.step_models import presets
    from shadowsim.text import csv_text

    listed = [*presets().values()]
    rows = [asdict(replace(one, step=dict(one.step))) for one in listed]
    if as_json:
        print_json(rows)
    elif as_csv:
        typer.echo(csv_text([{"name": row.pop("name"), **row.pop("step"), **row} for row in rows]), nl=False)
    else:
        typer.echo(presets_text(listed))
