"""Fits step times to single measurements: how long a prefill took, and each token after it.

A measurement is of a batch of n sequences with prompts of p tokens, each of which produces o tokens. One step prefills
all prompts: P = n p tokens, n sequences, and Q = n p² pairs. Then o - 1 steps decode; step k finds the n sequences with
p + k tokens each, so that the mean of K over k = 1 ... o - 1 is n (p + o / 2), exactly. Repeats of a measurement are
averaged into one cell: they tell how well a time repeats, not how well the model fits, and errors are those of cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError
from shadowsim.measuring.weighted_fit import Coefficients, fit_nonnegative
from shadowsim.scenario.step_models import STEP_KEYS
from shadowsim.text import count, percent

PREFILL, DECODE = 0, 1
_MS = 1e-3
_EARLY = 0.05  # relative: a difference of the end-to-end time that is no rounding
_FAR = 0.1  # relative: a mean miss of prefills that is worth a sentence


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Means of repeated measurements.

    Attributes
    ----------
    group : ndarray of int
        PREFILL or DECODE.
    measured_s : ndarray
        Seconds of a step.
    columns : mapping of str to ndarray
        What each coefficient is multiplied by; none is 0 throughout.
    """

    group: Ints
    measured_s: Floats
    columns: Mapping[str, Floats]


def fit_rows(columns: Mapping[str, Floats], name: str) -> tuple[Coefficients, Cells, list[str]]:
    """Fit step times to the measurements of one configuration.

    Parameters
    ----------
    columns : mapping of str to ndarray
        The canonical columns of single measurements.
    name : str
        The configuration, in errors.

    Returns
    -------
    Coefficients, Cells, list of str
        The last are sentences about what was left out, and about how the model misses.

    Raises
    ------
    InputError
        When there are not two different measurements.
    """
    output, notes = _outputs(columns)
    cells = _cells(columns, output)
    if np.bincount(cells.group, minlength=2).max() < 2:
        what = "must have at least two measurements that differ in prompt_tokens, batch or output_tokens"
        raise InputError(name, " ".join([what, *(f"({note.rstrip('.')})" for note in notes)]))
    fit = fit_nonnegative(cells.columns, cells.measured_s, cells.group)
    return fit, cells, notes + _prefill_note(cells, fit)


def _outputs(columns: Mapping[str, Floats]) -> tuple[Floats, list[str]]:
    """Return the tokens that each sequence produced, NaN for rows to leave out, and sentences about changes."""
    output = columns["output_tokens"].copy()
    if "e2e_ms" not in columns:
        return output, []
    produced = 1.0 + (columns["e2e_ms"] - columns["prefill_ms"]) / columns["token_ms"]
    ended = produced < output * (1.0 - _EARLY)  # false for blanks
    longer = produced > output * (1.0 + _EARLY)
    output[ended] = np.maximum(produced[ended], 1.0)
    output[longer] = np.nan
    notes = []
    if ended.any():
        notes.append(
            f"{ended.sum()} of {len(output)} rows ended early: their end-to-end time holds fewer tokens than "
            "output_tokens says, and the context was computed with those."
        )
    if longer.any():
        notes.append(
            f"{longer.sum()} of {len(output)} rows were left out: their end-to-end time is longer than prefill and "
            "tokens together, so the batch was not served at once."
        )
    return output, notes


def _cells(columns: Mapping[str, Floats], output: Floats) -> Cells:
    """Average the repeats: prefill by prompt and batch, decode by output too."""
    prompt, n, asked = (columns[c] for c in ("prompt_tokens", "batch", "output_tokens"))
    none = np.zeros(len(n))
    rows: list[tuple[int, float, tuple[float, ...]]] = []
    for group, column, keys in (
        (PREFILL, columns["prefill_ms"], (prompt, n)),
        (DECODE, columns["token_ms"], (prompt, n, asked)),
    ):
        usable = np.isfinite(column) & np.isfinite(output) & ((output > 1.0) | (group == PREFILL))
        regressors = np.column_stack(
            [np.ones(len(n)), n * prompt, n, none, n * prompt**2, none]
            if group == PREFILL
            else [np.ones(len(n)), none, n, n * (prompt + output / 2.0), none, none]
        )
        key = np.column_stack(keys)[usable]
        for cell in np.unique(key, axis=0) if len(key) else ():
            mine = np.flatnonzero(usable)[(key == cell).all(axis=1)]
            rows.append((group, float(column[mine].mean()) * _MS, tuple(regressors[mine].mean(axis=0))))
    table = np.array([row[2] for row in rows]).reshape(len(rows), len(STEP_KEYS))
    return Cells(
        group=np.array([row[0] for row in rows], np.int64),
        measured_s=np.array([row[1] for row in rows]),
        columns={name: table[:, i] for i, name in enumerate(STEP_KEYS) if table[:, i].any()},
    )


def _prefill_note(cells: Cells, fit: Coefficients) -> list[str]:
    """Return a sentence on prefills that are far from the model's curve, with the shortest and the worst of them."""
    prefill = np.flatnonzero(cells.group == PREFILL)
    misses = fit.misses[prefill]
    if not len(prefill) or np.abs(misses).mean() < _FAR:
        return []
    tokens = cells.columns["per_prefill_token_s"][prefill]
    short, worst = int(np.argmin(tokens)), int(np.argmax(np.abs(misses)))
    cases = [
        f"{percent(abs(misses[i]), 0)} {'less' if misses[i] < 0.0 else 'more'} than was measured for "
        f"{count(tokens[i])} tokens"
        for i in dict.fromkeys((short, worst))
    ]
    floor = " A floor is missing: a step model has no term for what a prefill takes at least."
    return [
        f"Prefill times do not follow the model: it gives {' and '.join(cases)}.{floor * bool(misses[short] < -_FAR)}"
    ]
