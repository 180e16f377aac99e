"""Reads what SageMaker and shadowsim wrote: data captures, frames, tables of requests."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import numpy as np
import pandas as pd

from shadowsim import frames
from shadowsim.captures.folders import arrivals_of, read_captures
from shadowsim.errors import InputError, did_you_mean, shown
from shadowsim.measuring.generator.load_run import is_load_run, read_load_run
from shadowsim.measuring.measurement import REQUEST_COLUMNS, Measurement
from shadowsim.scenario.log_forms import CAPTURES
from shadowsim.scenario.table_files import line_of, listing, read_table

FRAMES = "shadowsim run"
_WINDOWS, _LATENCY, _REQUESTS = "windows.parquet", "latency.parquet", "requests.parquet"
_MOMENTS = ("arrival_s", "sent_s", "first_byte_s", "done_s")
_NUMBERS = [name for name in REQUEST_COLUMNS if name not in ("status", "inference_id")]
_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def is_run(folder: Path) -> bool:
    """Tell whether a folder has the frames of a run."""
    return (folder / _WINDOWS).is_file()


def read_capture_files(source: Path) -> Measurement:
    """Read a capture file, or a folder of those of one variant."""
    captures = read_captures(source, bodies=False)
    table = arrivals_of(captures, source)
    reading = captures.reading
    moments = table["timestamp"]
    requests = pd.DataFrame(
        {
            "arrival_s": (moments - moments.iloc[0]).dt.total_seconds(),
            "latency_s": np.nan,
            "status": pd.Series([pd.NA] * len(table), dtype=frames.TEXT),
            "inference_id": table["inference_id"],
            "request_bytes": table["request_bytes"],
            "response_bytes": table["response_bytes"],
        }
    )
    return Measurement(
        CAPTURES,
        requests=requests,
        started=moments.iloc[0].floor("us").to_pydatetime().astimezone(UTC),
        resolution_s=1.0,
        lacks=(
            "Captures hold neither latencies nor whether a request was answered.",
            "Their times are whole seconds: they were spread at random within them.",
            "Where capture samples requests, only that share of them is here.",
        ),
        n_lines=reading.n_records + reading.n_torn + reading.n_broken,
        n_damaged=reading.n_torn + reading.n_broken,
        first_damaged=reading.first_flaw or "",
    )


def read_run(folder: Path, variant: str | None = None) -> Measurement:
    """Read the frames of a run in a folder: those of a variant, by default its source.

    A simulation keeps only a sample of its requests. Such a sample is no traffic: only windows and quantiles are taken.
    """
    if is_load_run(folder):
        measured = read_load_run(folder)
        if variant is not None:
            raise InputError("variant", f"must be left out: a {measured.form} is of one service", variant)
        return measured
    windows = frames.read(folder / _WINDOWS, frames.WINDOWS, frames.OPTIONAL["windows"])
    roles, lacks = dict(zip(windows["role"], windows["variant"], strict=True)), []
    role = "source" if "source" in roles else next(iter(roles))
    if variant is not None:
        known = list(roles.values())
        if variant not in known:
            raise InputError("variant", f"must be one of {listing(known)}", variant, hint=did_you_mean(variant, known))
        role = next(role for role, name in roles.items() if name == variant)
    elif len(roles) > 1:
        lacks.append("The run has two variants: this is its source.")
    windows = windows[windows["role"] == role].reset_index(drop=True)
    gaps = np.diff(windows["time_s"].to_numpy(np.float64))
    windows.insert(1, "period_s", float(gaps[0]) if gaps.size else np.nan)
    requests = _requests(folder / _REQUESTS, role)
    quantiles: dict[float, float] = {}
    n_all = int(windows["Invocations"].sum())
    if requests is not None and len(requests) < n_all:
        lacks.append(f"Of its {n_all:,} requests it kept a sample of {len(requests):,}, which is no traffic.")
        requests = None
        latency = frames.read(folder / _LATENCY, frames.LATENCY, frames.OPTIONAL["latency"])
        table = frames.quantiles(latency[latency["role"] == role], _QUANTILES)
        quantiles = dict(zip(_QUANTILES, map(float, table.iloc[0]), strict=True)) if len(table) else {}
    return Measurement(
        FRAMES,
        requests=requests,
        windows=windows,
        quantiles=quantiles,
        open_loop=True,
        lacks=tuple(lacks),
    )


def read_requests_table(files: list[Path], form: str, variant: str | None = None) -> Measurement:
    """Read a table in CSV, JSON lines or Parquet with columns of `Measurement.requests`; the status may be left out.

    Of a table with columns `variant` and `role`, the rows of a variant are taken, by default those of the source.
    """
    file = files[0]
    table = _of_variant(read_table(file, shown(file)), variant, shown(file))
    for name in ("arrival_s", "latency_s"):
        if name not in table.columns:
            raise InputError(shown(file), f"must have a column {name}; it has {listing(map(str, table.columns))}")
    for name in table.columns.intersection(_NUMBERS):
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = numbers.isna() if name == "arrival_s" else (numbers.isna() & table[name].notna()) | (numbers < 0.0)
        if wrong.any():
            row = int(np.argmax(wrong))
            line = line_of(file, row)
            where = f"row {row + 1}" if line is None else f"line {line}"
            least = "" if name == "arrival_s" else ", 0 or more,"
            raise InputError(
                shown(file), f"must have a number{least} in column {name}, in {where}", table[name].iloc[row]
            )
        table[name] = numbers
    lacks = []
    if "status" not in table.columns:
        lacks.append("There is no status: errors cannot be told from answers.")
        table["status"] = pd.Series([pd.NA] * len(table), dtype=frames.TEXT)
    kept = table[[name for name in REQUEST_COLUMNS if name in table.columns]]
    requests = kept.sort_values("arrival_s", kind="stable", ignore_index=True)
    for name in requests.columns.intersection(list(_MOMENTS)):
        requests[name] -= table["arrival_s"].min()
    return Measurement(form, requests=requests, lacks=tuple(lacks), n_lines=len(table))


def _of_variant(table: pd.DataFrame, variant: str | None, name: str) -> pd.DataFrame:
    if variant is None:
        return table[table["role"] == "source"].reset_index(drop=True) if "role" in table.columns else table
    if "variant" not in table.columns:
        raise InputError("variant", f"must be left out, since {name} has no column variant", variant)
    known = [*map(str, table["variant"].unique())]
    if variant not in known:
        raise InputError("variant", f"must be one of {listing(known)}", variant, hint=did_you_mean(variant, known))
    return table[table["variant"] == variant].reset_index(drop=True)


def _requests(file: Path, role: str) -> pd.DataFrame | None:
    if not file.exists():
        return None
    frame = frames.read(file, frames.REQUESTS)
    more = pd.read_parquet(file)
    for name in REQUEST_COLUMNS:
        if name in more.columns and name not in frame.columns:
            frame[name] = more[name].array  # row by row: files may hold any index
    frame = frame[frame["role"] == role].sort_values("arrival_s", kind="stable", ignore_index=True)
    if frame.empty:
        raise InputError(str(file), f"has no requests of the {role}")
    return frame[[name for name in REQUEST_COLUMNS if name in frame.columns]]
