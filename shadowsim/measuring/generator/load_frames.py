"""Lays out the rows of a load run as frames: windows, latency, requests, and tokens of streams.

A load run sees one service from outside. Its requests have the source's variant and role, no wait and no service time,
and the instance 0, since nobody says which one answered. Latency counts from the planned time to the last byte, or to
the time-out; a request that got no answer at all, or was not sent, has none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints
from shadowsim.frames import (
    FIRST_TOKEN,
    LATENCY_MEASURE,
    LOAD_REQUESTS,
    LOAD_TOKENS,
    LOAD_WINDOWS,
    LOST_CAUSES,
    MOST_SECTIONS,
    PER_TOKEN,
    REQUESTS,
    TIME_COLUMNS,
    TOKEN_LATENCY,
    TOKEN_REQUESTS,
    TOKEN_WINDOWS,
    WINDOWS,
    Column,
    build,
    repeated,
)
from shadowsim.histogram import N_BUCKETS, buckets_of
from shadowsim.measuring.generator.load_records import (
    ANSWERED,
    CUT,
    DROPPED,
    ERROR_4XX,
    ERROR_5XX,
    STATUSES,
    TIMED_OUT,
    UNAVAILABLE,
    RecordTable,
)
from shadowsim.period_counts import PeriodCounts, TimeCounts, latency_rows, window_row
from shadowsim.scenario.scenario import Scenario

SAMPLE_S = 10.0  # between two samples of the requests in flight, as in all windows
_WITH_LATENCY = (ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT)
_GOODPUT = "goodput_"


def load_frames(scenario: Scenario, table: RecordTable, id_prefix: str = "") -> dict[str, pd.DataFrame]:
    """Return the frames of a run, by name.

    Parameters
    ----------
    scenario : Scenario
        Gives the variant's name, the periods and the horizon; all planned times lie before the horizon.
    table : RecordTable
    id_prefix : str
        What inference ids begin with; "" without any.
    """
    in_tokens = bool((np.asarray(table["output_tokens"]) >= 0).any())
    requests = _requests(scenario, table, id_prefix, in_tokens)
    measures = {LATENCY_MEASURE: requests["latency_s"].to_numpy(np.float64)}
    if in_tokens:
        measures[FIRST_TOKEN] = requests["first_token_s"].to_numpy(np.float64)
        measures[PER_TOKEN] = time_per_token_s(requests)
    window = np.minimum(
        (requests["arrival_s"].to_numpy(np.float64) / scenario.period_s).astype(np.int64), _last(scenario)
    )
    return {
        "windows": _windows(scenario, requests, table, window, measures),
        "latency": _latency(scenario, window, measures),
        "requests": requests,
        "tokens": _tokens(table),
    }


def time_per_token_s(requests: pd.DataFrame) -> Floats:
    """Return the mean time between the tokens of each answer; NaN for those with fewer than two tokens."""
    n = requests["output_tokens"].to_numpy(np.float64, na_value=np.nan)
    rest_s = (requests["latency_s"] - requests["first_token_s"]).to_numpy(np.float64)
    is_known = (n >= 2) & (requests["status"] == STATUSES[ANSWERED]).to_numpy()
    per_token_s: Floats = np.divide(rest_s, n - 1.0, out=np.full(n.size, np.nan), where=is_known)
    return per_token_s


def _requests(scenario: Scenario, table: RecordTable, id_prefix: str, in_tokens: bool) -> pd.DataFrame:
    n, status, planned = len(table), table["status"], table["planned"]
    latency = np.where(np.isin(status, _WITH_LATENCY), table["done"] - planned, np.nan)
    number = table["number"].astype(np.int64)
    ids = np.char.add(id_prefix, number.astype(str)) if id_prefix and n else np.full(n, "")
    columns = {
        "request": number,
        "inference_id": ids,
        "variant": np.full(n, scenario.side("source").variant.name),
        "role": np.full(n, "source"),
        "arrival_s": planned,
        "instance": np.zeros(n, np.int64),
        "wait_s": np.full(n, np.nan),
        "service_s": np.full(n, np.nan),
        "latency_s": latency,
        "status": repeated(STATUSES, status.astype(np.intp)),
        "request_bytes": _known(table["request_bytes"]),
        "response_bytes": _known(table["response_bytes"]),
        **{name: table[name.removesuffix("_s")] for name in ("sent_s", "first_byte_s", "done_s")},
        "cause": repeated(("", *table.causes), (table["cause"] + 1).astype(np.intp)),
        "stage": _known(table["stage"]),
        "in_flight_limit": _known(table["limit"]),
    }
    schema: tuple[Column, ...] = REQUESTS
    if in_tokens:
        columns |= {
            "first_token_s": np.where(status == ANSWERED, table["first_token"] - planned, np.nan),
            "prompt_tokens": _known(table["prompt_tokens"]),
            "output_tokens": _known(table["output_tokens"]),
        }
        schema += TOKEN_REQUESTS
    return build(schema + LOAD_REQUESTS, columns)


def _tokens(table: RecordTable) -> pd.DataFrame:
    order = np.lexsort((table.token_time, table.token_number))
    number, time = table.token_number[order], table.token_time[order]
    rows = np.searchsorted(table["number"], number)  # a table is in order of its requests' numbers
    return build(LOAD_TOKENS, {"request": number, "token_s": time - table["planned"][rows]})


def _windows(
    scenario: Scenario, requests: pd.DataFrame, table: RecordTable, window: Ints, measures: dict[str, Floats]
) -> pd.DataFrame:
    n_windows, period_s, status = scenario.n_windows, scenario.period_s, table["status"]
    latency, lag = measures[LATENCY_MEASURE], table["lag"]
    in_flight = _samples_in_flight(table, scenario.horizon_s)
    rows = []
    # requests are in order of time, but those of several stages need not be
    order = np.argsort(window, kind="stable")
    edges = np.searchsorted(window[order], np.arange(n_windows + 1))
    for i in range(n_windows):
        at = order[edges[i] : edges[i + 1]]
        begin, end = i * period_s, min((i + 1) * period_s, scenario.horizon_s)
        first, last = np.searchsorted(in_flight[:, 0], (begin, end))
        samples = in_flight[first:last, 1]
        period = _counts(latency[at], status[at], ~np.isnan(table["sent"][at]), samples)
        row = {"time_s": begin, "variant": scenario.side("source").variant.name, "role": "source"}
        row |= window_row(period, end - begin)
        row |= {"copies_made": None, **{f"copies_lost_{cause}": None for cause in LOST_CAUSES}}
        row |= {"captured_records": 0, "captured_bytes": None}
        late = lag[at][~np.isnan(lag[at])]
        row["requests_planned"] = at.size
        row["requests_dropped"] = int((status[at] == DROPPED).sum())
        row["generator_lag_p99_s"] = float(np.quantile(late, 0.99)) if late.size else np.nan
        for measure in measures.keys() - {LATENCY_MEASURE}:
            row |= TimeCounts.of(measures[measure][at]).columns(TIME_COLUMNS[measure])
        rows.append(row)
    schema: tuple[Column, ...] = WINDOWS
    if len(measures) > 1:
        schema += tuple(c for c in TOKEN_WINDOWS if not c.name.startswith(_GOODPUT))
        produced = requests["output_tokens"].fillna(0).to_numpy(np.float64)
        done = requests["done_s"].to_numpy(np.float64)
        is_done = np.isfinite(done)
        # answers that end after the run count in its last window
        at_end = np.minimum((done[is_done] / period_s).astype(np.int64), n_windows - 1)
        tokens = np.bincount(at_end, produced[is_done], n_windows)
        for row, n_tokens in zip(rows, tokens, strict=False):
            row["output_tokens"] = int(n_tokens)
    schema += LOAD_WINDOWS
    return build(schema, {c.name: [row.get(c.name) for row in rows] for c in schema})


def _counts(latency: Floats, status: Ints, sent: NDArray[np.bool_], in_flight: Floats) -> PeriodCounts:
    period = PeriodCounts(n=int(sent.sum()), n_per_instance=float(sent.sum()), n_instances=1)
    period.latency = TimeCounts.of(latency)
    period.errors_4xx = int((status == ERROR_4XX).sum())
    period.errors_5xx = int(np.isin(status, (ERROR_5XX, UNAVAILABLE)).sum())
    period.model_errors = int((sent & (status != ANSWERED) & (status != CUT)).sum())
    for number in in_flight.tolist():
        period.sample([int(number)])
    return period


def _latency(scenario: Scenario, window: Ints, measures: dict[str, Floats]) -> pd.DataFrame:
    n_sections = min(MOST_SECTIONS, scenario.n_windows)
    section = window * n_sections // scenario.n_windows
    variants = (scenario.side("source").variant.name, "")
    parts = []
    for values in measures.values():
        is_known = ~np.isnan(values)
        key = section[is_known] * N_BUCKETS + buckets_of(values[is_known])
        found, count = np.unique(key, return_counts=True)
        places = zip(*(part.tolist() for part in np.divmod(found, N_BUCKETS)), strict=True)
        parts.append(latency_rows({(s, 0, b): n for (s, b), n in zip(places, count.tolist(), strict=True)}, variants))
    if len(parts) == 1:
        return parts[0]
    both = pd.concat(parts, ignore_index=True)
    both["measure"] = np.repeat(np.array(list(measures), object), [len(part) for part in parts])
    return both.astype({c.name: c.dtype for c in TOKEN_LATENCY})


def _samples_in_flight(table: RecordTable, horizon_s: float) -> Floats:
    """Return the number of requests in flight every 10 s, shape (samples, 2) with the time first."""
    sent, done = (np.sort(table[name][~np.isnan(table["sent"])]) for name in ("sent", "done"))
    at = np.arange(SAMPLE_S, horizon_s, SAMPLE_S)
    n = np.searchsorted(sent, at, side="right") - np.searchsorted(done, at, side="right")  # NaN sorts last
    return np.column_stack([at, n]).astype(np.float64)


def _known(values: Ints) -> pd.arrays.IntegerArray:
    """Return whole numbers in which -1 is missing."""
    return pd.arrays.IntegerArray(values.astype(np.int64), values < 0)


def _last(scenario: Scenario) -> int:
    return scenario.n_windows - 1
