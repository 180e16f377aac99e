"""Reads measurements from the folder of a run, or from a table with a row per request.

A folder holds the frames of a run (`requests.parquet`, and `windows.parquet` where there are windows), as `shadowsim
load` and `simulate` write it. A table is a CSV, JSON or Parquet file with the columns of `Measurement.requests`, of
which `arrival_s` and `latency_s` are needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shadowsim.errors import InputError, did_you_mean
from shadowsim.json_files import path_of
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.table_files import listing, read_table, sizes

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("arrival_s", "latency_s")
NUMBERS = (
    *NEEDED,
    *("sent_s", "first_byte_s", "done_s", "first_token_s", "prompt_tokens", "output_tokens"),
    *("request_bytes", "response_bytes", "instance", "stage"),
)
ANSWERED = ("answered", "error_4xx", "error_5xx")


def measurement_of(source: Measurement | str | os.PathLike[str], variant: str | None = None) -> Measurement:
    """Return a measurement, read if it is a path.

    Parameters
    ----------
    source : Measurement or path
    variant : str, optional
        Of a run with several variants the one to take; by default the source.

    Raises
    ------
    InputError
        When a file or a column is missing, or a run has only a sample of its requests.
    """
    if isinstance(source, Measurement):
        return source
    path = path_of(source, "measurements")
    if path.is_dir():
        return _of_folder(path, variant)
    table = read_table(path, "measurements")
    return Measurement("table of requests", requests=tidy(_of_variant(table, variant, str(path)), str(path)))


def tidy(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table of requests in order of arrival, with numbers where numbers are needed, from 0 s on.

    Raises
    ------
    InputError
        When a needed column is missing, or a time of arrival is.
    """
    known = [*map(str, table.columns)]
    for column in NEEDED:
        if column not in known:
            constraint = f"must have the columns {' and '.join(NEEDED)}, in seconds; it has {listing(known)}"
            raise InputError(name, constraint, hint=did_you_mean(column, known))
    tidied = table.copy()
    for column in NUMBERS:
        if column in known:
            try:
                tidied[column] = table[column].astype("float64")
            except (TypeError, ValueError):
                _, flaw = sizes(table[column])
                row, value = flaw or (1, None)
                raise InputError(
                    name, f"must have numbers in column {column}, which fails in row {row}", value
                ) from None
    arrival = tidied["arrival_s"].to_numpy()
    if not len(arrival):
        raise InputError(name, "must have at least one request")
    if not np.isfinite(arrival).all():
        row = int(np.flatnonzero(~np.isfinite(arrival))[0])
        raise InputError(
            name, f"must have a time in column arrival_s, which fails in row {row + 1}", float(arrival[row])
        )
    negative = tidied["latency_s"].to_numpy() < 0.0
    if negative.any():
        row = int(np.flatnonzero(negative)[0])
        value = float(tidied["latency_s"].iloc[row])
        raise InputError(name, f"must have latencies >= 0 in column latency_s, which fails in row {row + 1}", value)
    if "status" not in known:
        tidied["status"] = np.where(np.isnan(tidied["latency_s"]), "failed", "answered")
    first = float(arrival.min())
    for column in ("arrival_s", "sent_s", "first_byte_s", "done_s"):
        if column in known:
            tidied[column] -= first
    return tidied.sort_values("arrival_s", kind="stable", ignore_index=True)


def _of_folder(folder: Path, variant: str | None) -> Measurement:
    import pandas as pd

    file = folder / "requests.parquet"
    if not file.is_file():
        raise InputError(str(folder), "holds no requests.parquet, so it is no run")
    table = _of_variant(read_table(file, "measurements"), variant, str(file))
    windows_file = folder / "windows.parquet"
    windows = None
    if windows_file.is_file():
        windows = _of_variant(pd.read_parquet(windows_file), variant, str(windows_file)).reset_index(drop=True)
        n = int(windows["Invocations"].sum())
        if n > len(table):
            constraint = (
                f"must have all requests, and has a sample of {len(table):,} of {n:,}: without the others, waits "
                "cannot be told from services (simulate with run.sample_requests above the number of requests)"
            )
            raise InputError(str(file), constraint)
    return Measurement("shadowsim run", requests=tidy(table, str(file)), windows=windows, open_loop=None)


def _of_variant(table: pd.DataFrame, variant: str | None, name: str) -> pd.DataFrame:
    if variant is None:
        return table[table["role"] == "source"] if "role" in table.columns else table
    if "variant" not in table.columns:
        raise InputError("variant", f"must be left out, since {name} has no column variant", variant)
    known = [*map(str, table["variant"].unique())]
    if variant not in known:
        raise InputError("variant", f"must be one of {listing(known)}", variant, hint=did_you_mean(variant, known))
    return table[table["variant"] == variant]
