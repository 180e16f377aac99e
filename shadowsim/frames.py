"""Declares the columns of the three frames, and reads, builds and evaluates such frames.

A frame is a pandas DataFrame with plain columns and a RangeIndex. Simulator, local server and load generator write
the same schemas: `WINDOWS` has one row per period and variant, `LATENCY` one per section, variant and bucket,
`REQUESTS` one per request and variant. Counts that a row cannot have (copies, in a source row) are missing. `ACTIONS`
is what changed the pools of a simulation with scaling or outages: one row per scaling action and per outage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray
from pandas.api.types import is_list_like

from shadowsim import histogram
from shadowsim.arrays import Floats
from shadowsim.errors import InputError


class Column(NamedTuple):
    """A column: pandas' name of its `dtype`, its `unit` ("" for names and counts), and its meaning."""

    name: str
    dtype: str
    unit: str
    meaning: str


US_PER_S = 1e6  # latencies of windows are in microseconds, as CloudWatch's are
COUNT, FLAG, REAL, TEXT = "int64", "Int64", "float64", "str"
SCENARIO_FILE = "scenario.json"  # of a saved result, beside its frames
LOAD_FILE, TOKENS_FILE = "load.json", "tokens.parquet"  # of a saved load run, beside them
ROLES = ("source", "shadow")
NOT_SAVED = "is not a directory with a saved result; `simulate -o DIR` or Result.save makes one"
MOST_SECTIONS = 100  # of a run: groups of whole windows
LOST_CAUSES = ("max_body_bytes", "max_in_flight", "max_per_s")
SERVER_LAG, SERVER_CRASH = "server_lag", "server_crash"  # a live server's own causes
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}

WINDOWS = (
    Column("time_s", REAL, "s", "start of the window, from the start of the run"),
    Column("variant", TEXT, "", "VariantName"),
    Column("role", TEXT, "", "source or shadow"),
    Column("instance_count", COUNT, "", "instances of the variant"),
    Column("Invocations", COUNT, "", "requests that arrived in the window, copies for the shadow"),
    Column("InvocationsPerInstance", REAL, "", "Invocations over instances"),
    Column("ModelLatency_SampleCount", COUNT, "", "requests with a ModelLatency: all but the refused"),
    Column("ModelLatency_Average", REAL, "us", "mean of wait plus service of the requests that arrived in the window"),
    Column("ModelLatency_Minimum", REAL, "us", "the least ModelLatency of the window"),
    Column("ModelLatency_Maximum", REAL, "us", "the greatest ModelLatency of the window"),
    *(
        Column(f"ModelLatency_{p}", REAL, "us", f"quantile of ModelLatency at {q:g}, to within a bucket of 0.8 %")
        for p, q in PERCENTILES.items()
    ),
    Column("OverheadLatency_Average", REAL, "us", "time that the platform adds to ModelLatency"),
    Column("Invocation4XXErrors", COUNT, "", "answers of the model with a status 4XX"),
    Column("Invocation5XXErrors", COUNT, "", "answers with a status 5XX, refusals of a full queue included"),
    Column("InvocationModelErrors", COUNT, "", "answers other than 2XX, time-outs and refusals included"),
    Column(
        "ConcurrentRequestsPerModel_Minimum", REAL, "", "least number waiting or in service at an instance, every 10 s"
    ),
    Column("ConcurrentRequestsPerModel_Maximum", REAL, "", "greatest such number"),
    Column("wait_mean_s", REAL, "s", "mean wait of the accepted requests"),
    Column("utilisation", REAL, "", "share of the workers' time spent working in the window, 0 to 1"),
    Column(
        "offered_load", REAL, "", "work that arrived, refused requests included, over the workers' time in the window"
    ),
    Column("copies_made", FLAG, "", "copies that reached the shadow (shadow rows)"),
    *(Column(f"copies_lost_{c}", FLAG, "", f"copies lost to mirror.{c} (shadow rows)") for c in LOST_CAUSES),
    Column("captured_records", COUNT, "", "requests written by data capture"),
    Column("captured_bytes", FLAG, "B", "payloads captured, before encoding; missing when payload sizes are not known"),
)

LIVE_WINDOWS = (
    *WINDOWS,
    Column(f"copies_lost_{SERVER_LAG}", FLAG, "", "copies not made since the server was late (shadow rows)"),
    Column(f"copies_lost_{SERVER_CRASH}", FLAG, "", "copies lost with a killed process of the server (shadow rows)"),
)

LATENCY = (
    Column("section", COUNT, "", "group of whole windows, at most 100 in a run"),
    Column("variant", TEXT, "", "VariantName"),
    Column("role", TEXT, "", "source or shadow"),
    Column("low_s", REAL, "s", "lower edge of the bucket; the first bucket reaches down to 0"),
    Column("high_s", REAL, "s", "upper edge of the bucket; the last bucket has no end"),
    Column("count", COUNT, "", "requests whose ModelLatency lies in the bucket"),
)

REQUESTS = (
    Column("request", COUNT, "", "number of the source request, from 0"),
    Column("inference_id", TEXT, "", "id that a request and its copy have in common"),
    Column("variant", TEXT, "", "VariantName"),
    Column("role", TEXT, "", "source or shadow"),
    Column("arrival_s", REAL, "s", "arrival at the variant, from the start of the run"),
    Column("instance", COUNT, "", "number of the instance that took it, from 0"),
    Column("wait_s", REAL, "s", "time in the instance's queue; missing when refused"),
    Column("service_s", REAL, "s", "time in service; missing when refused"),
    Column("latency_s", REAL, "s", "ModelLatency: wait plus service, at most the time-out; missing when refused"),
    Column(
        "status",
        TEXT,
        "",
        "answered, error_4xx, error_5xx, timed_out, refused, unavailable, failed, or broken: an unreadable answer",
    ),
    Column("request_bytes", FLAG, "B", "payload of the request, where known"),
    Column("response_bytes", FLAG, "B", "payload of the answer, where known"),
)

# Columns that only runs with scaling, batching, outages or retries have.
EVENT_WINDOWS = (
    Column("desired_instance_count", COUNT, "", "instances that the scaling policy wants at the window's end"),
    Column("serving_instance_count", REAL, "", "mean number of instances that take requests"),
    Column("existing_instance_count", REAL, "", "mean number with starting, draining and failed ones"),
    Column("requests_unavailable", FLAG, "", "requests that came while no instance served: 5XX"),
    Column("requests_failed", FLAG, "", "requests that were lost with their instance"),
    Column("retries", FLAG, "", "arrivals that are no first attempts"),
    Column("batches", FLAG, "", "batches that start in the window; without batching one request each"),
    Column("batch_size_mean", REAL, "", "mean size of these batches"),
    Column("calls", FLAG, "", "callers' requests, with all their attempts, whose first attempt came in the window"),
    Column("calls_answered", FLAG, "", "calls that ended with an answer 2XX"),
    Column("call_latency_mean_s", REAL, "s", "mean time from a call's first attempt to its end"),
)
EVENT_REQUESTS = (Column("attempt", COUNT, "", "0 for the first attempt, 1 for the first retry, ..."),)

SCALE_OUT, SCALE_IN, OUTAGE = "scale_out", "scale_in", "outage"
ACTIONS = (
    Column("time_s", REAL, "s", "when it takes effect, or the instance fails, from the start of the run"),
    Column("variant", TEXT, "", "VariantName"),
    Column("role", TEXT, "", "source or shadow"),
    Column("action", TEXT, "", f"{SCALE_OUT}, {SCALE_IN} or {OUTAGE}"),
    Column("desired_before", FLAG, "", "desired instances before a scaling action"),
    Column("desired_after", FLAG, "", "desired instances after it"),
    Column("decided_s", REAL, "s", "time of the data point at which a scaling action was decided"),
    Column("metric_value", REAL, "", "the policy's metric at that data point, per serving instance"),
    Column("instance", FLAG, "", "number of the instance that fails"),
    Column("serving_after", COUNT, "", "instances that serve right after the action or outage"),
    Column("done_s", REAL, "s", "when new instances serve, or the failed one is repaired; missing where it is gone"),
)

# Columns that only runs with services in tokens have. Times to the first token and per token have histograms of their
# own, with the buckets of ModelLatency: that of a window gives its quantiles, and those of a section's windows together
# the rows of `latency` with that measure. `of_measure` picks rows, so that measures are never mixed.
MEASURES = LATENCY_MEASURE, FIRST_TOKEN, PER_TOKEN = "latency", "first_token", "per_token"
TIME_COLUMNS = {  # beginnings of the names of columns of `windows`, by measure
    LATENCY_MEASURE: "ModelLatency",
    FIRST_TOKEN: "FirstChunkModelLatency",
    PER_TOKEN: "TimePerOutputToken",
}
SHORT_NAMES = {FIRST_TOKEN: "ttft", PER_TOKEN: "tpot"}  # in figures of summaries and goals
_TOKEN_TIMES = {
    TIME_COLUMNS[FIRST_TOKEN]: ("the time from arrival to the first token", "requests that had their first token"),
    TIME_COLUMNS[PER_TOKEN]: ("the mean time between tokens", "answered requests of at least two tokens"),
}


def goodput_column(i: int) -> str:
    """Return the column of windows that counts requests within pair `i` of run.goodput, counted from 0."""
    return f"goodput_{i + 1}"


GOODPUT_COLUMNS = tuple(goodput_column(i) for i in range(8))
PREFIX_QUERIED, PREFIX_HIT = "prefix_queried_tokens", "prefix_hit_tokens"

TOKEN_WINDOWS = (
    *(
        column
        for name, (time, whose) in _TOKEN_TIMES.items()
        for column in (
            Column(f"{name}_SampleCount", FLAG, "", f"{whose} in time, of those that arrived in the window"),
            Column(f"{name}_Average", REAL, "us", f"mean of {time}, of these requests"),
            Column(f"{name}_Minimum", REAL, "us", "the least such time"),
            Column(f"{name}_Maximum", REAL, "us", "the greatest such time"),
            *(
                Column(f"{name}_{p}", REAL, "us", f"quantile of these times at {q:g}, to within a bucket of 0.8 %")
                for p, q in PERCENTILES.items()
            ),
        )
    ),
    Column("output_tokens", FLAG, "", "tokens that were produced in the window"),
    Column("prefill_tokens", FLAG, "", "tokens of prompts that were computed in the window, again after preemptions"),
    Column("preemptions", FLAG, "", "sequences that gave their blocks back in the window"),
    Column(
        PREFIX_QUERIED,
        FLAG,
        "",
        "tokens of the prompts that were admitted first in the window; with prefix caches only",
    ),
    Column(PREFIX_HIT, FLAG, "", "of these, tokens that the instance's prefix cache had"),
    Column("running_sequences_mean", REAL, "", "mean number of running sequences of an instance, every 10 s"),
    Column("running_sequences_maximum", REAL, "", "greatest such number"),
    Column("cache_use_mean", REAL, "", "mean share of an instance's cache that running sequences hold, every 10 s"),
    Column("cache_use_maximum", REAL, "", "greatest such share"),
    *(
        Column(name, FLAG, "", f"requests answered within pair {i} of run.goodput, counted from 1")
        for i, name in enumerate(GOODPUT_COLUMNS, start=1)
    ),
)
TOKEN_LATENCY = (
    Column(
        "measure",
        TEXT,
        "",
        f"what was measured: {LATENCY_MEASURE} (ModelLatency), {FIRST_TOKEN} or {PER_TOKEN}",
    ),
)
TOKEN_REQUESTS = (
    Column("first_token_s", REAL, "s", "time from arrival to the first token; missing if that did not come in time"),
    Column("prompt_tokens", FLAG, "", "tokens of the prompt"),
    Column("output_tokens", FLAG, "", "tokens of a whole answer, whether or not they were all produced"),
)
PREFIX_REQUESTS = (
    Column("cached_tokens", FLAG, "", "tokens of the prompt in the prefix cache when it was admitted first"),
)

# Columns that only runs of the load generator have. Their `arrival_s` is the planned time, and latency counts from it.
LOAD_WINDOWS = (
    Column("requests_planned", FLAG, "", "requests whose planned time lies in the window"),
    Column("requests_dropped", FLAG, "", "of these, requests that the generator did not send"),
    Column("generator_lag_p99_s", REAL, "s", "p99 of how late the generator sent these requests"),
)
LOAD_REQUESTS = (
    Column("sent_s", REAL, "s", "when it was sent, from the start of the run; missing if it was not"),
    Column("first_byte_s", REAL, "s", "when the head of the answer came, from the start of the run"),
    Column("done_s", REAL, "s", "when the answer was complete, or the request failed, from the start of the run"),
    Column("cause", TEXT, "", 'why it was not answered, in words; its status may also be dropped or cut; "" for none'),
    Column("stage", FLAG, "", "number of the stage that it belongs to"),
    Column("in_flight_limit", FLAG, "", "number of requests that its stage kept in flight"),
)

# A frame of its own, of load runs whose answers came as streams.
LOAD_TOKENS = (
    Column("request", COUNT, "", "number of the request"),
    Column("token_s", REAL, "s", "when a token of its answer came, from the request's arrival"),
)

OPTIONAL = {
    "windows": LIVE_WINDOWS[len(WINDOWS) :] + EVENT_WINDOWS + TOKEN_WINDOWS + LOAD_WINDOWS,
    "latency": TOKEN_LATENCY,
    "requests": EVENT_REQUESTS + TOKEN_REQUESTS + PREFIX_REQUESTS + LOAD_REQUESTS,
}
SCHEMAS = {"windows": WINDOWS, "latency": LATENCY, "requests": REQUESTS}


def build(schema: tuple[Column, ...], columns: Mapping[str, Any]) -> pd.DataFrame:
    """Build a frame of a schema.

    Parameters
    ----------
    schema : tuple of Column
        `WINDOWS`, `LATENCY` or `REQUESTS`.
    columns : mapping
        For each column of the schema, and no other, a scalar or an array; one is an array, and all have one length.

    Raises
    ------
    KeyError
        When a column is missing or unknown.
    """
    unknown = set(columns) - {c.name for c in schema}
    if unknown:
        raise KeyError(f"not in the schema: {sorted(unknown)}")
    n = len(next(values for values in columns.values() if is_list_like(values)))
    return pd.DataFrame({c.name: _typed(columns[c.name], c.dtype, n) for c in schema})


def _typed(values: Any, dtype: Any, n: int) -> Any:
    """Return a column of a type, a scalar n times; to convert a whole frame takes pandas several times as long."""
    if not is_list_like(values):
        return pd.Series([values]).astype(dtype).array.repeat(n)
    if not isinstance(values, np.ndarray | ExtensionArray):
        values = pd.Series(values).array
    return values if str(values.dtype) == dtype else pd.Series(values).astype(dtype).array


def empty(schema: tuple[Column, ...]) -> pd.DataFrame:
    """Return a frame of a schema without rows."""
    return build(schema, {c.name: [] for c in schema})


def repeated(texts: Sequence[str], which: NDArray[np.intp]) -> ExtensionArray:
    """Return the column of texts `texts[which]`, built without one object per row."""
    return pd.Series(list(texts), dtype=TEXT).array.take(which)


def read(file: Path, schema: tuple[Column, ...], optional: tuple[Column, ...] = ()) -> pd.DataFrame:
    """Read a frame from Parquet, with those `optional` columns that it has.

    Raises
    ------
    InputError
        When the file is missing, is not Parquet, or lacks columns of the schema.
    """
    try:
        frame = pd.read_parquet(file)
    except FileNotFoundError:
        raise InputError(str(file), "is missing") from None
    except (OSError, ValueError) as error:  # pyarrow's errors are among both
        raise InputError(str(file), f"is not a Parquet file ({str(error).splitlines()[0]})") from None
    missing = [c.name for c in schema if c.name not in frame.columns]
    if missing:
        raise InputError(str(file), f"lacks the columns {', '.join(missing)}")
    schema += tuple(c for c in optional if c.name in frame.columns)
    return build(schema, {c.name: frame[c.name] for c in schema})


def failures(windows: pd.DataFrame) -> Floats:
    """Return by row of a `WINDOWS` frame how many requests were not answered with a status 2XX.

    Those that came while no instance served are 5XX of the endpoint, and no model errors.
    """
    model_errors: Floats = windows["InvocationModelErrors"].to_numpy(np.float64, na_value=np.nan)
    if "requests_unavailable" not in windows.columns:
        return model_errors
    unavailable: Floats = windows["requests_unavailable"].fillna(0).to_numpy(np.float64)
    return model_errors + unavailable


def weighted_utilisation(windows: pd.DataFrame, horizon_s: float) -> tuple[Floats, Floats]:
    """Return the utilisation of each window of one variant, and its weight in the mean over the run.

    The weight is the window's length, and where the number of instances changes, times those that serve. A window in
    which none serves has the weight 0.
    """
    weight = lengths_s(windows, horizon_s)
    if "serving_instance_count" in windows.columns:
        weight = weight * windows["serving_instance_count"].to_numpy(np.float64)
    values = windows["utilisation"].to_numpy(np.float64)
    return np.where(np.isnan(values), 0.0, values), np.where(np.isnan(values), 0.0, weight)


def lengths_s(windows: pd.DataFrame, horizon_s: float) -> Floats:
    """Return the lengths of one variant's windows, the last of which may be shorter."""
    return np.asarray(np.diff(np.append(windows["time_s"].to_numpy(np.float64), horizon_s)), np.float64)


def billed_instances(windows: pd.DataFrame, horizon_s: float) -> float:
    """Return the mean number of one variant's instances over the run that are charged for.

    They are all that exist: also while they start, drain or have failed.
    """
    name = "existing_instance_count" if "existing_instance_count" in windows.columns else "instance_count"
    return float(np.average(windows[name].to_numpy(np.float64), weights=lengths_s(windows, horizon_s)))


def of_measure(latency: pd.DataFrame, measure: str = LATENCY_MEASURE) -> pd.DataFrame:
    """Return the rows of a latency frame for one of `MEASURES`; without a column `measure` all are of ModelLatency."""
    if "measure" not in latency.columns:
        return latency if measure == LATENCY_MEASURE else latency.iloc[:0]
    return latency[latency["measure"] == measure]


def quantile(latency: pd.DataFrame, q: float, measure: str = LATENCY_MEASURE) -> pd.Series[float]:
    """Return a quantile of ModelLatency by variant, in seconds, from a latency frame.

    Parameters
    ----------
    latency : DataFrame
        A `LATENCY` frame; its sections are taken together.
    q : float
        In [0, 1].
    measure : str
        One of `MEASURES`, if the quantile is not of ModelLatency.

    Returns
    -------
    Series
        Indexed by variant, source first, without variants that have no answers. It is linear inside a bucket, and so
        within 0.8 % of the empirical quantile.
    """
    return quantiles(latency, [q], measure).iloc[:, 0]


def quantiles(latency: pd.DataFrame, qs: Sequence[float], measure: str = LATENCY_MEASURE) -> pd.DataFrame:
    """Return several quantiles like `quantile`: one row per variant, one column per quantile (`p50`, `p99.9`)."""
    for q in qs:
        if not isinstance(q, Real) or not 0.0 <= q <= 1.0:
            raise InputError("q", "must be in [0, 1], as 0.99 for p99", q)
    if measure not in MEASURES:
        raise InputError("measure", f"must be one of {', '.join(MEASURES)}", measure)
    latency = of_measure(latency, measure)
    by_variant = {
        str(variant): _bucket_quantiles(part, qs)
        for (_, variant), part in sorted(latency.groupby(["role", "variant"]), key=lambda item: item[0], reverse=True)
    }
    columns = [f"p{100 * q:g}" for q in qs]
    rows = np.array(list(by_variant.values()), np.float64).reshape(len(by_variant), len(qs))
    index = pd.Index(list(by_variant), dtype=latency["variant"].dtype, name="variant")
    return pd.DataFrame(rows, index=index, columns=columns)


def _bucket_quantiles(part: pd.DataFrame, qs: Sequence[float]) -> list[float]:
    low, bucket = np.unique(part["low_s"].to_numpy(np.float64), return_inverse=True)
    high = np.empty(low.size)
    high[bucket] = part["high_s"].to_numpy(np.float64)
    count = np.bincount(bucket, part["count"].to_numpy(np.float64)).astype(np.float64)  # exact: below 2**53
    return histogram.quantiles(low, high, count, qs)
