"""Finds the columns of measured step times or load stages, and divides rows by configuration.

Single measurements have the columns `prompt_tokens`, `batch`, `output_tokens`, `prefill_ms` and `token_ms`, and may
have `e2e_ms`. Load stages have `rate_per_s`, `output_tokens`, `e2e_s` and `ttft_s`, and may have `prompt_tokens`,
`failures` and quantiles (`e2e_s_p99`, ...). Names of other tools are recognised (`ALIASES`), and said.

A configuration is what a server is: model, hardware, parallelism and limits (`CONFIGURATION`, or the columns that the
caller names). Other columns are not used, and said, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError, did_you_mean
from shadowsim.scenario.table_files import listing, sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

ROWS = {
    "prompt_tokens": ("prompt_size",),
    "batch": ("batch_size",),
    "output_tokens": ("token_size",),
    "prefill_ms": ("prompt_time",),
    "token_ms": ("token_time",),
    "e2e_ms": ("e2e_time",),
}
STAGES = {
    "rate_per_s": (),
    "output_tokens": ("output_tokens_median",),  # means contain the zeros of miscounted answers
    "e2e_s": ("e2e_s_mean",),
    "ttft_s": ("ttft_s_mean",),
    "prompt_tokens": ("prompt_tokens_mean",),
    "failures": (),
}
ROWS_MAY_HAVE = ("e2e_ms",)
STAGES_MAY_HAVE = ("prompt_tokens", "failures")
MAY_BE_BLANK = ("prefill_ms", "token_ms", "e2e_ms")
QUANTILES = ("e2e_s_p90", "e2e_s_p99")
CONFIGURATION = (
    *("model", "hardware", "gpu", "accelerator", "instance_type", "tensor_parallel", "pipeline_parallel"),
    *("data_parallel", "quantization", "dtype", "engine", "framework", "version"),
    *("max_num_seqs", "max_num_batched_tokens", "max_model_len", "max_sequences", "max_step_tokens"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """The rows of one configuration.

    Attributes
    ----------
    configuration : mapping of str to str
        Values by column; empty where the table has no such columns.
    columns : mapping of str to ndarray
        The canonical columns that the table has.
    """

    configuration: Mapping[str, str]
    columns: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTable:
    """A table of measurements, read.

    Attributes
    ----------
    is_stages : bool
        Whether its rows are stages of load tests; else single measurements.
    by_configuration : sequence of Measurements
        In the order in which the table has them.
    notes : sequence of str
        Sentences about how it was read.
    """

    is_stages: bool
    by_configuration: Sequence[Measurements]
    notes: Sequence[str]


def measurements_of(
    table: pd.DataFrame,
    name: str,
    where: Mapping[str, object],
    by: Sequence[str] | None,
    place: Callable[[int], str],
) -> MeasuredTable:
    """Read a table.

    Parameters
    ----------
    table : DataFrame
        Its index is 0, 1, ...
    name : str
        The table's name in errors.
    where : mapping of str to object
        Keeps only rows with these values.
    by : sequence of str or None
        The columns of a configuration; None for those of `CONFIGURATION` that the table has.
    place : callable
        Returns where a row of the table stands, such as "line 7".

    Raises
    ------
    InputError
        When columns are missing, a value is no positive number, or no rows are left.
    """
    known = [*map(str, table.columns)]
    is_stages, names = _kind(known, name)
    table = _chosen(table, name, where)
    for column in by or ():
        _refuse_unknown(column, known, name)
    configuration = [c for c in (CONFIGURATION if by is None else by) if c in known]
    notes: list[str] = []
    if "failures" in names:
        table, notes = _without_failures(table, names["failures"], name, place)
    names |= {q: q for q in QUANTILES if is_stages and q in known}
    columns = {c: _numbers(table[own], name, place, c) for c, own in names.items()}
    keys = table[configuration].astype(str).to_numpy() if configuration else np.empty((len(table), 0), str)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(map(tuple, keys)):
        groups.setdefault(key, []).append(i)
    used = {*names.values(), *configuration, *where}
    renamed = [f"{own} as {c}" for c, own in names.items() if own != c]
    if renamed:
        notes.append(
            f"Columns were read as {'load stages' if is_stages else 'single measurements'}: {joined(renamed)}."
        )
    unused = [column for column in known if column not in used]
    if unused:
        notes.append(f"Not used: {listing(unused)}.")
    if configuration:
        notes.append(f"There is one fit for each {joined(configuration)}.")
    parts = [
        Measurements(dict(zip(configuration, key, strict=True)), {c: v[rows] for c, v in columns.items()})
        for key, rows in groups.items()
    ]
    return MeasuredTable(is_stages, parts, notes)


def _kind(known: Sequence[str], name: str) -> tuple[bool, dict[str, str]]:
    """Return whether a table holds load stages, and its own name of each canonical column."""
    is_stages = "rate_per_s" in known
    columns, may_have = (STAGES, STAGES_MAY_HAVE) if is_stages else (ROWS, ROWS_MAY_HAVE)
    names = {c: n for c, others in columns.items() if (n := next((n for n in (c, *others) if n in known), None))}
    missing = [c for c in columns if c not in names and c not in may_have]
    if missing:
        what = f"must have the column{'s' * (len(missing) > 1)} {joined(missing)}"
        other = "" if is_stages else ", or rate_per_s for stages of a load test"
        raise InputError(name, f"{what}{other}; it has {listing(known)}", hint=did_you_mean(missing[0], known))
    return is_stages, names


def _without_failures(
    table: pd.DataFrame, column: str, name: str, place: Callable[[int], str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the stages of which no request failed, and a note on the others."""
    failed = _numbers(table[column], name, place, "failures") > 0.0
    if not failed.any():
        return table, []
    where = [place(int(row)) for row in table.index[failed]]
    noun = "stage with failures was" if len(where) == 1 else "stages with failures were"
    if failed.all():
        raise InputError(name, "has failures in every stage, and such stages tell no step times")
    return table[~failed], [f"{len(where)} {noun} left out: {listing(where)}."]


def _chosen(table: pd.DataFrame, name: str, where: Mapping[str, object]) -> pd.DataFrame:
    for column, value in where.items():
        _refuse_unknown(column, [*map(str, table.columns)], name)
        values = table[column].astype(str)
        chosen = table[_same(values, str(value))]
        if chosen.empty:
            has = listing(dict.fromkeys(values))
            raise InputError(
                name,
                f"has no row whose {column} is {value}; it has {has}",
                hint=did_you_mean(str(value), values.unique()),
            )
        table = chosen
    return table


def _same(values: pd.Series[Any], wanted: str) -> pd.Series[Any]:
    """Return which texts are the wanted one, or the same number."""
    import pandas as pd

    same = values == wanted
    try:
        return same | (pd.to_numeric(values, errors="coerce") == float(wanted))
    except ValueError:
        return same


def _refuse_unknown(column: str, known: Sequence[str], name: str) -> None:
    if column not in known:
        raise InputError(name, f"has no column {column}; it has {listing(known)}", hint=did_you_mean(column, known))


def _numbers(column: pd.Series[Any], name: str, place: Callable[[int], str], canonical: str) -> Floats:
    """Return a column as positive numbers; blanks are NaN where they may be."""
    present = column[column.notna()] if canonical in MAY_BE_BLANK else column
    values = np.full(len(column), np.nan)
    if present.empty:
        return values
    numbers, bad = sizes(present)
    least = ">= 0" if canonical == "failures" else "> 0"
    if bad is None and numbers is not None and least == "> 0" and not numbers.all():
        first = int(np.argmin(numbers))
        bad = (first + 1, present.iloc[first])
    if bad is not None:
        row, value = int(present.index[bad[0] - 1]), bad[1]
        raise InputError(
            name,
            f"{place(row)}: {column.name} must be a number {least}",
            value if isinstance(value, str) else float(str(value)),
        )
    values[column.notna().to_numpy()] = numbers
    return values


def joined(names: Sequence[str]) -> str:
    """Return names as "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
