"""Holds requests in tokens as fits of step times take them, and the cells that are fitted.

The coefficients are those of least squares, none below 0 (weighted_fit.py), of errors relative to the modelled times:
relative to measured ones, those that chance made short would count for the most. A machine that stands still for a
moment makes some times many times too long, and others too short, whose tokens then come at once. So an error beyond
`_FAR` robust standard deviations of its group counts as one of that size (Huber, 1964, doi 10.1214/aoms/1177703732).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from shadowsim.arrays import Flags, Floats, Ints
from shadowsim.measuring.calibration import Z
from shadowsim.measuring.measurement import sending_s
from shadowsim.measuring.weighted_fit import Coefficients, fit_nonnegative

if TYPE_CHECKING:
    import pandas as pd

DECODE, FIRST = 0, 1  # groups of cells
COLUMNS = ("prompt_tokens", "output_tokens", "first_token_s")
MAY_BE_NONE = ("per_prompt_s", "per_prefill_pair_s")  # terms that are left out where they tell nothing
_NOTHING = 0.005  # of a time: what such a term must add at least
_FAR, _PER_MAD = 2.5, 1.4826  # standard deviations; their number of median absolute deviations, if normal
_REWEIGHTS, _SETTLED = 30, 1e-4
_BUNCHED = 0.02  # of the median time between tokens: less is that of tokens which were kept back, and came at once


@dataclass(frozen=True, slots=True, eq=False)
class TokenLog:
    """Requests in tokens, in order of arrival, which is when they were sent; times in s, and the instance of each.

    Of those that came at once, when their tokens were made is a guess: one after the other in the median time, up to
    the last. `token_request` and `token_s` are the request and the time of single tokens, in order of both, of those
    requests of which all tokens were seen apart; empty where none was.
    """

    arrival_s: Floats
    first_s: Floats
    last_s: Floats
    prompt: Floats
    output: Floats
    instance: Ints
    at_once: Flags
    token_request: Ints
    token_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class StepCells:
    """What was measured, and what each coefficient is multiplied by.

    Attributes
    ----------
    measured_s : ndarray of float64, shape (n,)
    columns : mapping of str to ndarray
        Keys are `STEP_KEYS` and "before_s".
    group : ndarray of int64, shape (n,)
        DECODE or FIRST.
    per_s : ndarray of float64, shape (n,)
        What errors are relative to.
    """

    measured_s: Floats
    columns: Mapping[str, Floats]
    group: Ints
    per_s: Floats

    @classmethod
    def joined(cls, parts: Sequence[StepCells]) -> StepCells:
        """Return the cells of several parts, which have the same columns."""
        return cls(
            np.concatenate([part.measured_s for part in parts]),
            {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
            np.concatenate([part.group for part in parts]),
            np.concatenate([part.per_s for part in parts]),
        )

    def rows(self, which: Ints) -> StepCells:
        """Return some of the cells, which may be repeated."""
        columns = {name: column[which] for name, column in self.columns.items()}
        return StepCells(self.measured_s[which], columns, self.group[which], self.per_s[which])

    def fit(self) -> Coefficients:
        """Return the coefficients; a column that is 0 throughout has none."""
        used = {name: column for name, column in self.columns.items() if column.any()}
        fit = fit_nonnegative(used, self.measured_s, self.group, self.per_s)
        for name in MAY_BE_NONE:
            value = fit.values.get(name, 0.0)
            if name in used and not (
                value > Z * fit.errors[name] and float((value * used[name] / self.per_s).max()) >= _NOTHING
            ):
                del used[name]
                fit = fit_nonnegative(used, self.measured_s, self.group, self.per_s)
        return fit

    def settled(self) -> tuple[StepCells, Coefficients]:
        """Return the cells as the robust fit takes them, and that fit, which misses what was measured."""
        cells, fit = self, self.fit()
        for _ in range(_REWEIGHTS):
            before, modelled_s = fit.values, cells.measured_s * (1.0 + fit.misses)
            error, far = self.measured_s / modelled_s - 1.0, np.empty(len(modelled_s))
            for g in np.unique(self.group):
                mine = self.group == g
                far[mine] = max(_FAR * _PER_MAD * float(np.median(np.abs(error[mine]))), _NOTHING)
            seen_s = modelled_s * (1.0 + np.clip(error, -far, far))
            cells = replace(self, measured_s=seen_s, per_s=modelled_s)
            fit = cells.fit()
            if all(abs(fit.values.get(name, 0.0) - value) <= _SETTLED * value for name, value in before.items()):
                break
        return cells, replace(fit, misses=cells.measured_s * (1.0 + fit.misses) / self.measured_s - 1.0)


def token_log(requests: pd.DataFrame, token_times: pd.DataFrame | None = None) -> TokenLog:
    """Return the requests of which first and last token are known.

    Parameters
    ----------
    requests : DataFrame
        Answered requests of `Measurement.requests`, indexed as there.
    token_times : DataFrame, optional
        As `Measurement.token_times`.
    """
    values = {c: requests[c].to_numpy(np.float64) for c in ("arrival_s", "latency_s", *COLUMNS)}
    values["sent_s"] = sending_s(requests)
    whole = np.all([np.isfinite(column) for column in values.values()], axis=0)
    whole &= (values["output_tokens"] >= 1.0) & (values["first_token_s"] <= values["latency_s"])
    rows = np.flatnonzero(whole)
    rows = rows[np.argsort(values["sent_s"][rows], kind="stable")]
    values = {c: column[rows] for c, column in values.items()}
    instance = np.zeros(len(rows), np.int64)
    if "instance" in requests.columns and requests["instance"].notna().all():
        instance = np.unique(requests["instance"].to_numpy()[rows], return_inverse=True)[1].astype(np.int64)
    sent, arrival, output = values["sent_s"], values["arrival_s"], values["output_tokens"]
    first, last = arrival + values["first_token_s"], arrival + values["latency_s"]
    apart_s = (last - first) / np.maximum(output - 1.0, 1.0)
    several = output > 1.0
    median_s = float(np.median(apart_s[several])) if several.any() else 0.0
    at_once = several & (apart_s < _BUNCHED * median_s)
    first = np.where(at_once, np.maximum(last - median_s * (output - 1.0), sent), first)
    token_request, token_s = np.empty(0, np.int64), np.empty(0)
    if token_times is not None:
        place = np.full(int(requests.index.max()) + 1, -1)  # in the log, by row of the measurement
        place[requests.index[rows]] = np.where(at_once, -1, np.arange(len(rows)))
        row = token_times["row"].to_numpy(np.int64)
        mine = np.where(row < len(place), place[np.minimum(row, len(place) - 1)], -1)
        n_seen = np.bincount(mine[mine >= 0], minlength=len(rows))
        used = (mine >= 0) & (n_seen == output)[mine]
        token_request, token_s = mine[used], arrival[mine[used]] + token_times["token_s"].to_numpy(np.float64)[used]
        order = np.lexsort((token_s, token_request))
        token_request, token_s = token_request[order], token_s[order]
    columns = values["prompt_tokens"], output, instance, at_once
    return TokenLog(sent, first, last, *columns, token_request, token_s)
