"""Reads results of load tools for language models, inference-perf and AIPerf, and their reports.

inference-perf writes an array of requests (per_request_lifecycle_metrics.json) with start, end and the times of output
tokens on a clock of its own, in seconds. AIPerf writes a record a line (profile_export.jsonl) with nanoseconds since
1970 and metrics that name their units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from shadowsim.errors import InputError
from shadowsim.measuring.logs.log_lines import LogLines, json_array, json_document, json_objects
from shadowsim.measuring.logs.log_times import date_ns
from shadowsim.measuring.logs.request_columns import (
    ANSWERED,
    FAILED,
    NAN,
    TIMED_OUT,
    RequestColumns,
    status_of,
)
from shadowsim.measuring.logs.run_totals import RunTotals, probability, totals_measurement
from shadowsim.measuring.measurement import Measurement

_COLUMNS = ("first_token_s", "prompt_tokens", "output_tokens")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_CODE = re.compile(r"\b([45]\d\d)\b")
_CANCELLED = 499  # by the client
_OPEN_LOOP = "The records do not say whether requests came at their own times or waited for answers."


def read_inference_perf(files: list[Path], form: str) -> Measurement:
    """Read inference-perf's requests."""
    lines = LogLines(files)
    columns = RequestColumns(*_COLUMNS)
    by_chunk = False
    for number, record in enumerate(json_array(lines), 1):
        try:
            start_s, end_s = float(record["start_time"]), float(record["end_time"])
            info, error = record.get("info") or {}, record.get("error")
            response, request = info.get("response_metrics") or {}, info.get("request_metrics") or {}
            prompt = info.get("input_tokens", (request.get("text") or {}).get("input_tokens"))
            output = info.get("output_tokens", response.get("output_tokens"))
            times = info.get("output_token_times") or response.get("output_token_times") or []
            tokens_s = [float(time) - start_s for time in times]
            if not times and response.get("chunk_times"):
                times, by_chunk = response["chunk_times"], True
            first_s = float(times[0]) - start_s if times else NAN
            status = (
                ANSWERED
                if error is None
                else _error_status(0, str(error.get("error_type")), str(error.get("error_msg")))
            )
            columns.add(
                *(round(start_s * 1e9), 0.0, end_s - start_s, status, first_s),
                *(NAN if prompt is None else float(prompt), NAN if output is None else float(output)),
            )
            columns.add_tokens(tokens_s)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            lines.damaged(f"request {number} cannot be read ({error!r})")
    lacks = ["Times are on a clock of inference-perf's own: the date of the run is not known.", _OPEN_LOOP]
    if by_chunk:
        lacks.append("The times of tokens are not kept: the first chunk of an answer was taken for its first token.")
    return columns.measurement(form, lines, resolution_s=0.0, latency_resolution_s=0.0, lacks=lacks, since_1970=False)


def read_aiperf(files: list[Path], form: str) -> Measurement:
    """Read AIPerf's records; those of its warm-up are left out."""
    lines = LogLines(files)
    columns = RequestColumns(*_COLUMNS)
    n_warm_up = 0
    for record in json_objects(lines):
        try:
            metadata, metrics, error = record["metadata"], record.get("metrics") or {}, record.get("error")
            if metadata.get("benchmark_phase") == "warmup":
                n_warm_up += 1
                continue
            start_ns, end_ns = int(metadata["request_start_ns"]), metadata.get("request_end_ns")
            latency_s = _metric_s(metrics, "request_latency")
            if latency_s != latency_s and end_ns is not None:
                latency_s = (int(end_ns) - start_ns) / 1e9
            status = ANSWERED
            if error is not None:
                status = _error_status(int(error.get("code") or 0), str(error.get("type")), "")
            prompt = _metric(metrics, "input_sequence_length", "error_isl")
            output = _metric(metrics, "output_sequence_length", "output_token_count")
            columns.add(start_ns, 0.0, latency_s, status, _metric_s(metrics, "time_to_first_token"), prompt, output)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            lines.damaged(f"it is no record that can be read ({error!r})")
    lacks = [_OPEN_LOOP]
    if n_warm_up:
        lacks.append(f"{n_warm_up:,} records of the warm-up were left out.")
    return columns.measurement(form, lines, resolution_s=0.0, latency_resolution_s=0.0, lacks=lacks)


def read_inference_perf_report(files: list[Path], form: str) -> Measurement:
    """Read a report of a run or of one of its stages (summary_ or stage_N_lifecycle_metrics.json)."""
    report = json_document(files[0])
    try:
        successes, failures, load = report["successes"], report["failures"], report.get("load_summary") or {}
        latency = (successes.get("latency") or {})["request_latency"]
        quantiles = _quantiles(latency, 1.0)
        totals = RunTotals(
            n_requests=int(successes["count"]) + int(failures["count"]),
            length_s=load.get("send_duration", report.get("benchmark_time_seconds")),
            mean_s=latency.get("mean"),
            least_s=latency.get("min"),
            most_s=latency.get("max"),
            n_other_errors=int(failures["count"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(str(files[0]), f"is no report of inference-perf's: {error!r} cannot be read") from None
    lacks = [_no_requests(totals), "Whether failed requests were answered with 4XX or 5XX is not read."]
    open_loop = False if "concurrency" in load else True if "requested_rate" in load else None
    return totals_measurement(form, totals, quantiles, lacks, open_loop)


def read_aiperf_report(files: list[Path], form: str) -> Measurement:
    """Read a report of a run (profile_export_aiperf.json)."""
    report = json_document(files[0])
    try:
        latency = report["request_latency"]
        scale = _UNITS_S[latency["unit"]]
        n_answered = int((report.get("request_count") or {}).get("avg", latency.get("count", 0)))
        n_errors = int((report.get("error_request_count") or {}).get("avg", 0))
        began, ended = report.get("start_time"), report.get("end_time")
        length_s = None
        if began and ended:
            length_s = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
        totals = RunTotals(
            n_requests=n_answered + n_errors,
            length_s=length_s,
            started_ns=date_ns(began) if began else None,
            mean_s=latency["avg"] * scale,
            least_s=latency["min"] * scale if "min" in latency else None,
            most_s=latency["max"] * scale if "max" in latency else None,
            n_other_errors=n_errors,
        )
        quantiles = _quantiles(latency, scale)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(str(files[0]), f"is no report of AIPerf's: {error!r} cannot be read") from None
    lacks = [_no_requests(totals), "Whether failed requests were answered with 4XX or 5XX is not read."]
    return totals_measurement(form, totals, quantiles, lacks, open_loop=None)


def _no_requests(totals: RunTotals) -> str:
    more = "" if totals.length_s else ", nor how long it took"
    return f"A report has no single requests: neither gaps nor the course of the run are known{more}."


def _quantiles(block: Mapping[str, Any], scale: float) -> dict[float, float]:
    named = {match[1]: value for key, value in block.items() if (match := _PERCENTILE.fullmatch(key))}
    named |= {"50": block["median"]} if "median" in block else {}
    return {probability(p): float(value) * scale for p, value in named.items() if value is not None}


def _metric(metrics: Mapping[str, Any], *names: str) -> float:
    return next((float(metrics[name]["value"]) for name in names if name in metrics), NAN)


def _metric_s(metrics: Mapping[str, Any], name: str) -> float:
    if name not in metrics:
        return NAN
    unit = metrics[name]["unit"]
    if unit not in _UNITS_S:
        raise ValueError(f"{name} in the unknown unit {unit}")
    return float(metrics[name]["value"]) * _UNITS_S[unit]


def _error_status(code: int, kind: str, message: str) -> int:
    if "timeout" in kind.lower():
        return TIMED_OUT
    found = _CODE.search(kind) or _CODE.match(message)
    code = code or (int(found[1]) if found else 0)
    return FAILED if code == _CANCELLED else status_of(code)
