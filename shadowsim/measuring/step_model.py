"""Fits the step times of a language model's server to measurements, and says what they leave open.

A step with P tokens of prompts and n sequences lasts base_s + per_prefill_token_s P + per_sequence_s n +
per_kv_token_s K + per_prefill_pair_s Q, where K is the tokens that the decoding sequences have so far, and Q the sum
over prompts of (tokens done after the step)² - (those done before it). `step_model` finds the coefficients by least
squares of relative errors, from single measurements of prefill and token times (step_rows.py) or from stages of a load
test (step_stages.py; step_columns.py tells the columns of both). Its notes say what it assumes and cannot tell.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError
from shadowsim.measuring.step_columns import Measurements, joined, measurements_of
from shadowsim.measuring.step_rows import DECODE, PREFILL, fit_rows
from shadowsim.measuring.step_stages import Prediction, fit_stages, predict_highest
from shadowsim.measuring.weighted_fit import Coefficients
from shadowsim.scenario.step_models import STEP_KEYS
from shadowsim.scenario.table_files import line_of, read_table
from shadowsim.text import grid, percent, time_text, trimmed_number, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from shadowsim.scenario.step_models import StepPreset

_PRINTED = 6  # significant digits of coefficients for a scenario


@dataclass(frozen=True, slots=True)
class Misses:
    """The mean and the greatest relative miss of modelled times; NaN where none is known."""

    mean: float
    worst: float

    @classmethod
    def of(cls, misses: Floats) -> Misses:
        """Summarise relative misses."""
        sizes = np.abs(misses)
        return cls(float(sizes.mean()), float(sizes.max())) if sizes.size else cls(math.nan, math.nan)

    def text(self, what: str) -> str:
        """Return both as text, or "" where none is known."""
        return "" if math.isnan(self.mean) else f"{what} {percent(self.mean)} (worst {percent(self.worst)})"


@dataclass(frozen=True, slots=True)
class StepFit:
    """Fitted step times of one configuration.

    Attributes
    ----------
    configuration : mapping of str to str
        The columns and values that its rows share; empty where the table has no such columns.
    step : mapping of str to float
        Coefficients in seconds, as in a scenario's `tokens.step`; 0 for those that are left out.
    errors : mapping of str to float
        Standard errors between cells; NaN for coefficients that are left out, or without a degree of freedom.
    before_s : float or None
        As in a scenario's `tokens`; None where the measurements do not tell.
    n_cells : int
        Different measurements: means of repeats, or stages.
    first_token : Misses
        Of prefill times; for load stages, of the times to the first token.
    per_token : Misses
        Of the times per token after the first, which are those of steps that decode.
    notes : tuple of str
        Sentences about what was left out, and what cannot be told apart.
    """

    configuration: Mapping[str, str]
    step: Mapping[str, float]
    errors: Mapping[str, float]
    before_s: float | None
    n_cells: int
    first_token: Misses
    per_token: Misses
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its configuration in words: "llama2-70b, h100-80gb, tensor_parallel 8"."""
        return configuration_text(self.configuration) or "all rows"

    @property
    def misses(self) -> dict[str, Misses]:
        """Its misses by measure."""
        return {"first_token": self.first_token, "per_token": self.per_token}

    @property
    def tokens(self) -> dict[str, Any]:
        """The block for a scenario's `services.VARIANT.tokens`."""
        rounded = {key: float(f"{value:.{_PRINTED}g}") for key, value in self.step.items() if value or key == "base_s"}
        before = {} if self.before_s is None else {"before_s": float(f"{self.before_s:.{_PRINTED}g}")}
        return {"step": rounded, **before}


@dataclass(frozen=True, slots=True)
class StepFits:
    """Fitted step times, one per configuration; `str()` gives a report, `to_dict()` an object for JSON.

    Attributes
    ----------
    fits : tuple of StepFit
        In the order in which the table has them.
    is_stages : bool
        Whether they were fitted to stages of a load test.
    notes : tuple of str
        Sentences that hold for all fits: how the table was read, and what was assumed.
    """

    fits: tuple[StepFit, ...]
    is_stages: bool
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row per configuration: coefficients with standard errors (`_error`), and relative misses."""
        import pandas as pd

        rows = []
        for fit in self.fits:
            row: dict[str, Any] = dict(fit.configuration)
            for key in STEP_KEYS:
                row |= {key: fit.step[key], f"{key}_error": fit.errors[key]}
            row |= {"before_s": fit.before_s, "n_cells": fit.n_cells}
            for measure, misses in fit.misses.items():
                row |= {f"{measure}_miss": misses.mean, f"{measure}_worst": misses.worst}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as an object for JSON; each fit's `tokens` can be pasted into a scenario."""
        fits = [
            {
                "configuration": dict(fit.configuration),
                "tokens": fit.tokens,
                "standard_errors": {key: fit.errors[key] for key in fit.tokens["step"]},
                "n_cells": fit.n_cells,
                "misses": {measure: asdict(misses) for measure, misses in fit.misses.items()},
                "notes": list(fit.notes),
            }
            for fit in self.fits
        ]
        return {"fits": fits, "notes": list(self.notes)}

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the fits as an HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def __repr__(self) -> str:
        return f"<StepFits of {'; '.join(fit.name for fit in self.fits)}>"

    def __str__(self) -> str:
        notes = "\n".join(wrapped(note, hanging="  ") for note in self.notes)
        return "\n\n".join([*(self._fit_text(fit) for fit in self.fits), notes])

    def _fit_text(self, fit: StepFit) -> str:
        missed = self.misses_text(fit)
        lines = [
            wrapped(self.heading(fit)),
            "\n".join(f"  {line}" for line in grid(self.coefficient_rows(fit)).splitlines()),
            *([wrapped(missed, "  ")] if missed else []),
            *(wrapped(note, "  ", "    ") for note in fit.notes),
        ]
        return "\n".join(lines)

    def heading(self, fit: StepFit) -> str:
        """Return a fit's configuration, and on how much it rests."""
        return f"{fit.name}: {fit.n_cells} {'stages' if self.is_stages else 'cells'}"

    def coefficient_rows(self, fit: StepFit) -> list[tuple[str, str, str]]:
        """Return a row of cells per coefficient: its key, its time, its standard error."""
        rows = [
            (key, time_text(fit.step[key]), "" if math.isnan(fit.errors[key]) else f"+- {time_text(fit.errors[key])}")
            for key in STEP_KEYS
            if fit.step[key] or key == "base_s"
        ]
        return rows if fit.before_s is None else [*rows, ("before_s", time_text(fit.before_s), "")]

    def misses_text(self, fit: StepFit) -> str:
        """Return how far a fit misses the measured times; "" if that is not known."""
        first = fit.first_token.text("first tokens" if self.is_stages else "prefills")
        missed = "; ".join(filter(None, (fit.per_token.text("times per token"), first)))
        return f"misses: {missed}" if missed else ""


def step_model(
    measurements: str | Path | pd.DataFrame,
    *,
    where: Mapping[str, object] | None = None,
    by: Sequence[str] | None = None,
) -> StepFits:
    """Fit step times to measurements of a language model's server.

    Parameters
    ----------
    measurements : str, Path or DataFrame
        Single measurements, with `prompt_tokens`, `batch`, `output_tokens`, `prefill_ms` and `token_ms`; or stages of a
        load test, with `rate_per_s`, `output_tokens`, `e2e_s` and `ttft_s`. A file may be CSV, JSON or Parquet.
    where : mapping of str to object, optional
        Keeps only the rows with these values, by column.
    by : sequence of str, optional
        The columns that make a configuration, each with a fit of its own. By default those of model, hardware,
        parallelism and limits that the table has.

    Returns
    -------
    StepFits

    Raises
    ------
    InputError
        When columns are missing, a value is no positive number, or no configuration has enough rows; `notes` name
        those that have not.

    Examples
    --------
    >>> import pandas as pd
    >>> import shadowsim as ss
    >>> sizes = ((64, 1, 9), (64, 8, 9), (512, 1, 9))
    >>> rows = [(p, n, o, 20 + 0.1 * n * p + 0.5 * n, 20 + 0.5 * n) for p, n, o in sizes]
    >>> table = pd.DataFrame(rows, columns=["prompt_tokens", "batch", "output_tokens", "prefill_ms", "token_ms"])
    >>> fits = ss.step_model(table)
    >>> round(fits.fits[0].step["base_s"], 6), round(fits.fits[0].step["per_sequence_s"], 6)
    (0.02, 0.0005)
    """
    if isinstance(measurements, str | Path):
        file = Path(measurements)
        name, table = str(file), read_table(file, "measurements")
    else:
        file, name, table = None, "measurements", measurements.reset_index(drop=True)

    def place(row: int) -> str:
        line = None if file is None else line_of(file, row)
        return f"row {row + 1}" if line is None else f"line {line}"

    read = measurements_of(table, name, where or {}, by, place)
    fit = _fit_of_stages if read.is_stages else _fit_of_rows
    fits, refused = [], []
    for part in read.by_configuration:
        try:
            fits.append(fit(part, _place_of(name, part)))
        except InputError as error:
            refused.append(error)
    if not fits:
        raise refused[0]
    shared = [note for note in fits[0].notes if all(note in one.notes for one in fits)]
    unit = (
        "stages" if read.is_stages else "cells, in which repeats count once; so they hold what the model does not fit"
    )
    general = [f"Standard errors (+-) are those between {unit}.", *_assumed(read.is_stages)]
    return StepFits(
        fits=tuple(_without(one, shared) if len(fits) > 1 else one for one in fits),
        is_stages=read.is_stages,
        notes=(
            *(f"Not fitted: {error}." for error in refused),
            *read.notes,
            *general,
            *(shared if len(fits) > 1 else ()),
        ),
    )


def configuration_text(configuration: Mapping[str, str]) -> str:
    """Return a configuration in words; a bare number stands behind its column's name."""
    return ", ".join(f"{c} {v}" if v.replace(".", "").isdigit() else v for c, v in configuration.items())


def presets_text(presets: Sequence[StepPreset]) -> str:
    """Return presets as a table, with their sources below it."""
    head = ("preset", "base", "token", "sequence", "per token", "first")
    rows = [
        (
            p.name,
            *(time_text(p.step[key]) if p.step[key] else "-" for key in STEP_KEYS[:3]),
            percent(p.per_token_miss),
            percent(p.first_token_miss, 0),
        )
        for p in presets
    ]
    notes = [
        "base, token and sequence are base_s, per_prefill_token_s and per_sequence_s; --json and --csv have all "
        "coefficients. Per token and first: how far the model misses times per token, and prefills or first tokens, in "
        "the mean.",
        *dict.fromkeys(f"{p.measured}: {p.source}." for p in presets),
    ]
    return "\n\n".join([grid([head, *rows]), "\n".join(wrapped(note, hanging="  ") for note in notes)])


def _place_of(name: str, part: Measurements) -> str:
    text = configuration_text(part.configuration)
    return f"{name} ({text})" if text else name


def _without(fit: StepFit, shared: Sequence[str]) -> StepFit:
    return replace(fit, notes=tuple(note for note in fit.notes if note not in shared))


def _assumed(is_stages: bool) -> list[str]:
    if is_stages:
        return []
    return [
        "prefill_ms is taken as one step that reads the prompts of the whole batch, and token_ms as the mean of the "
        "steps after it. The time outside steps (before_s, after_s) is not measured by such rows."
    ]


def _fit_of_rows(part: Measurements, name: str) -> StepFit:
    fit, cells, notes = fit_rows(part.columns, name)
    constant = {
        c: float(part.columns[c][0])
        for c in ("prompt_tokens", "batch", "output_tokens")
        if np.ptp(part.columns[c]) == 0.0
    }
    unvaried = joined([f"{c} is {value:g}" for c, value in constant.items()]) if constant else ""
    return StepFit(
        configuration=part.configuration,
        step={**dict.fromkeys(STEP_KEYS, 0.0), **fit.values},
        errors={**dict.fromkeys(STEP_KEYS, math.nan), **fit.errors},
        before_s=None,
        n_cells=len(cells.measured_s),
        first_token=Misses.of(fit.misses[(cells.group == PREFILL) & (fit.n_free > 0)]),
        per_token=Misses.of(fit.misses[(cells.group == DECODE) & (fit.n_free > 0)]),
        notes=(*_unmeasured(cells.group), *_open_questions(fit, unvaried), *notes),
    )


def _fit_of_stages(part: Measurements, name: str) -> StepFit:
    columns = part.columns
    fitted = fit_stages(columns, name)
    coefficients = fitted.coefficients
    ttft_s = fitted.first_token_s(columns["rate_per_s"] * columns["e2e_s"])
    prediction = predict_highest(columns, name)
    return StepFit(
        configuration=part.configuration,
        step={**dict.fromkeys(STEP_KEYS, 0.0), **coefficients.values},
        errors={**dict.fromkeys(STEP_KEYS, math.nan), **coefficients.errors},
        before_s=fitted.before_s,
        n_cells=len(fitted.step_s),
        first_token=Misses.of(ttft_s / columns["ttft_s"] - 1.0),
        per_token=Misses.of(coefficients.misses if coefficients.n_free else np.empty(0)),
        notes=(*_open_questions(coefficients), *fitted.notes, *_prediction_note(prediction)),
    )


def _prediction_note(prediction: Prediction | None) -> list[str]:
    if prediction is None:
        return []
    rate, measured = trimmed_number(prediction.rate_per_s), time_text(prediction.measured["e2e_s"])
    if not math.isfinite(prediction.e2e_s):
        return [f"Fitted without {rate}/s, it says that the server cannot keep up there; measured {measured}."]
    error = prediction.error("e2e_s")
    return [
        f"Fitted without {rate}/s, it predicts a mean end-to-end time of {time_text(prediction.e2e_s)} there, "
        f"{percent(abs(error))} {'less' if error < 0.0 else 'more'} than was measured ({measured})."
    ]


def _unmeasured(group: Ints) -> list[str]:
    """Return a sentence where prefill or decode steps were not measured at all."""
    if PREFILL not in group:
        return ["No prefill was measured: per_prefill_token_s and per_prefill_pair_s are 0."]
    if DECODE not in group:
        return ["No times of tokens were measured: per_kv_token_s is 0."]
    return []


def _open_questions(fit: Coefficients, unvaried: str = "") -> list[str]:
    """Return sentences about coefficients that are left out, or hardly known."""
    notes = []
    for key, others in fit.dependent.items():
        because = f" ({unvaried} in all rows)" if unvaried else ""
        holds = "holds" if len(others) == 1 else "hold"
        notes.append(f"{key} cannot be told from {joined(others)}{because}: it is 0, and {joined(others)} {holds} it.")
    for key, (value, error) in fit.negative.items():
        if value < 0.0:
            spread = "" if math.isnan(error) else f" +- {time_text(error)}"
            notes.append(f"{key} is left out: it would be negative (-{time_text(-value)}{spread}).")
        else:
            notes.append(f"{key} is left out: others would be negative beside it.")
    if fit.n_free == 0:
        notes.append("There are as many coefficients as cells, so that neither their errors nor misses can be known.")
    for (key, other), correlation in fit.correlations.items():
        notes.append(f"{other} and {key} are known together only: their estimates are correlated by {correlation:.3f}.")
    for key, error in fit.errors.items():
        if error > fit.values[key] > 0.0:
            notes.append(f"{key} is hardly known: its standard error is {percent(error / fit.values[key], 0)} of it.")
    return notes
