"""Defines step-model: the command that fits models of services to measurements."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from shadowsim.cli.console import print_frame, print_json
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

app = typer.Typer()


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
