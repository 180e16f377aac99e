"""Defines measured, calibrate, predict and step-model: what logs say, and services that fit to it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from shadowsim.cli.console import FAILED_GOAL, print_frame, print_json, show, writing
from shadowsim.cli.option_parsers import number, option_parser, share, split_commas, whole
from shadowsim.cli.options import Csv, Json, Quiet, Report, in_existing_folder, refuse_both_formats, shows_progress
from shadowsim.cli.outputs import write_analysis
from shadowsim.errors import InputError
from shadowsim.option_defaults import PREDICTION_DRAWS, PREDICTION_MARGIN_PCT, PREDICTION_TOLERANCE_PCT

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
            callback=in_existing_folder("-o"),
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
    report: Report = None,
) -> None:
    """Show what a log says, and make traffic of it.

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
    write_analysis(measurement, report, as_json or as_csv)


_CALIBRATE_EXAMPLES = """\b
Examples:
  shadowsim calibrate load-run -o service.json
  shadowsim calibrate requests.csv -o service.json --reserve 30%
  shadowsim calibrate load-run --json
"""

_PREDICT_EXAMPLES = """\b
Examples:
  shadowsim predict service.json load-run
  shadowsim predict service.json load-run --workers 8 --report prediction.html
  shadowsim predict service.json requests.csv --strict --json
"""

Variant = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of a run with several variants the one to take.", show_default="the source"),
]


@app.command(epilog=_CALIBRATE_EXAMPLES)
def calibrate(
    measurements: Annotated[
        Path, typer.Argument(metavar="MEASUREMENTS", help="A run's directory, a table of requests, or a log.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE.json",
            dir_okay=False,
            callback=in_existing_folder("-o"),
            help="Write the service, for `predict`.",
        ),
    ] = None,
    reserve: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(share),
            metavar="SHARE",
            help="Share of the run's time, at its end, to leave to `predict`, such as 30%.",
        ),
    ] = None,
    instances: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole), metavar="N", help="Instances that served it, where no column tells which."
        ),
    ] = 1,
    variant: Variant = None,
    as_json: Json = False,
    as_csv: Csv = False,
    report: Report = None,
) -> None:
    """Calibrate a service model to a measured run.

    MEASUREMENTS is the directory of a run, a table with a row per request and the columns arrival_s and latency_s, or a
    log that `shadowsim measured` reads. Shows each parameter with its interval, and which ones the data leave open and
    why. FILE.json holds the block for services.VARIANT of a scenario under `service`, and its uncertainty beside it.
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.measuring.calibrate import calibrate as fit_service

    calibration = fit_service(measurements, reserve=reserve, instances=instances, variant=variant)
    if out is not None:
        writing(out, lambda: calibration.save(out))
    if as_json:
        print_json(calibration.to_dict())
    elif as_csv:
        print_frame(calibration.table, as_json=False)
    else:
        typer.echo(str(calibration))
        if out is not None:
            typer.echo(f"\nwrote {out} (service: a block for services.VARIANT)")
    write_analysis(calibration, report, as_json or as_csv)


@app.command(epilog=_PREDICT_EXAMPLES)
def predict(
    service: Annotated[Path, typer.Argument(metavar="SERVICE.json", help="What `calibrate -o` wrote.")],
    load_run: Annotated[
        Path, typer.Argument(metavar="LOAD_DIR", help="A run that was not used: its directory, a table, or a log.")
    ],
    workers: Annotated[
        int | None,
        typer.Option(parser=option_parser(whole), metavar="N", help="Workers, where they differ from the calibrated."),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(parser=option_parser(whole), metavar="N", help="Instances, where they differ."),
    ] = None,
    routing: Annotated[str, typer.Option(metavar="R", help="RANDOM or LEAST_OUTSTANDING_REQUESTS.")] = "RANDOM",
    variant: Variant = None,
    margin_pct: Annotated[
        float,
        typer.Option(parser=option_parser(number), metavar="PCT", help="By how much the band is widened, in %."),
    ] = PREDICTION_MARGIN_PCT,
    tolerance_pct: Annotated[
        float,
        typer.Option(parser=option_parser(number), metavar="PCT", help="The widest band that gives a verdict, in %."),
    ] = PREDICTION_TOLERANCE_PCT,
    draws: Annotated[
        int, typer.Option(parser=option_parser(whole, least=20), metavar="N", help="Runs to simulate.")
    ] = PREDICTION_DRAWS,
    report: Report = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also exit with 1 when it cannot tell.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Predict a measured run, and judge the model.

    Simulates the run's own arrivals with the calibrated service, and shows measured and predicted quantiles with a band
    that holds the uncertainty of the service and the chance of one run. Exits with 1 when the model is not right.
    """
    refuse_both_formats(as_json, as_csv)
    from shadowsim.engine.progress import progress_bar
    from shadowsim.measuring.predict import NOT_RIGHT, RIGHT
    from shadowsim.measuring.predict import predict as try_service

    with progress_bar(draws, shows_progress(as_json, as_csv, quiet)) as advance:
        prediction = try_service(
            service,
            load_run,
            workers=workers,
            instances=instances,
            routing=routing,
            variant=variant,
            margin_pct=margin_pct,
            tolerance_pct=tolerance_pct,
            draws=draws,
            advance=advance,
        )
    if as_json:
        print_json(prediction.to_dict())
    elif as_csv:
        print_frame(prediction.table, as_json=False)
    else:
        show(f"{prediction}\n")
    write_analysis(prediction, report, as_json or as_csv)
    if prediction.verdict == NOT_RIGHT or (strict and prediction.verdict != RIGHT):
        raise typer.Exit(FAILED_GOAL)


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
    report: Report = None,
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
    if presets and report is not None:
        raise InputError("--report", "must not be given together with --presets, which analyse nothing")
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
    write_analysis(fits, report, as_json or as_csv)


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
