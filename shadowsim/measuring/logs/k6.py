"""Reads the points that k6 writes with --out csv or --out json: several a request, each with a metric.

k6 stamps all points of a request with its end. http_req_duration is sending, waiting and receiving, in milliseconds; it
leaves out the wait for a connection, http_req_blocked (k6's lib/netext/httpext/tracer.go). A request is taken to arrive
when it was sent, http_req_duration before the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shadowsim.errors import InputError
from shadowsim.measuring.logs.log_lines import LogLines, csv_rows, json_objects
from shadowsim.measuring.logs.log_times import resolution_s, time_ns
from shadowsim.measuring.logs.request_columns import FAILED, NAN, TIMED_OUT, RequestColumns, status_of
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.log_forms import K6_CSV

_REQUESTS, _DURATION, _SENDING, _WAITING = "http_reqs", "http_req_duration", "http_req_sending", "http_req_waiting"
_DROPPED = "dropped_iterations"
_METRICS = {_REQUESTS, _DURATION, _SENDING, _WAITING, _DROPPED}
_FIRST = 100
_TIMED_OUT_CODE = "1050"
_COLUMNS = ("metric_name", "timestamp", "metric_value")

_Point = tuple[str, str, float, str, str]  # metric, time, value, status, error code


def read_k6(files: list[Path], form: str) -> Measurement:
    """Read points in CSV or JSON lines."""
    lines = LogLines(files)
    points = _csv_points(lines) if form == K6_CSV else _json_points(lines)
    columns = RequestColumns("first_byte_s")
    request: dict[str, float] = {}
    end = status = error = ""
    step_s, dropped, n_without = 1.0, 0.0, 0

    def finish() -> None:
        nonlocal n_without
        if not request:
            return
        try:
            end_ns = time_ns(end)
        except ValueError as wrong:
            lines.damaged(str(wrong))
            return
        duration_s = request.get(_DURATION, NAN)
        sent_s = request.get(_SENDING, NAN) + request.get(_WAITING, NAN)
        n_without += not status
        code = int(status) if status.isdigit() else 0
        result = TIMED_OUT if error == _TIMED_OUT_CODE else status_of(code) if code else FAILED
        columns.add(end_ns, 0.0 if duration_s != duration_s else duration_s, duration_s, result, sent_s)

    for metric, at, value, of_status, of_error in points:
        if metric == _DROPPED:
            dropped += value
            continue
        if metric in request:
            finish()
            request.clear()
        if not request:
            end, status, error = at, of_status, of_error
            if len(columns) < _FIRST:  # Go leaves out zeros at the end of a fraction
                step_s = min(step_s, resolution_s(at))
        request[metric] = value / 1000.0
    finish()
    if n_without == len(columns) > 0:
        what = "has no status in any point: k6's option systemTags left it out, and errors cannot be told from answers"
        raise InputError(str(files[0]), what)
    lacks = [
        "k6 does not say which executor made the load: that of ramping or constant VUs waits for answers.",
        "Latencies are http_req_duration, which leaves out waiting for a connection; arrivals are that long before "
        "the end of a request.",
    ]
    if dropped:
        lacks.insert(0, f"k6 dropped {dropped:,.0f} iterations for want of VUs: the load is less than was asked.")
    return columns.measurement(
        form,
        lines,
        resolution_s=step_s,
        latency_resolution_s=0.0,
        lacks=lacks,
        open_loop=True if dropped else None,  # only executors of an arrival rate drop iterations
    )


def _csv_points(lines: LogLines) -> Iterator[_Point]:
    names, rows = csv_rows(lines)
    metric_at, time_at, value_at = (names.index(name) for name in _COLUMNS)
    status_at = names.index("status") if "status" in names else None
    error_at = names.index("error_code") if "error_code" in names else None
    for row in rows:
        metric = row[metric_at]
        if metric in _METRICS:
            try:
                value = float(row[value_at])
            except ValueError:
                lines.damaged(f"its metric_value is no number: {row[value_at][:40]}")
                continue
            yield (
                metric,
                row[time_at],
                value,
                "" if status_at is None else row[status_at],
                "" if error_at is None else row[error_at],
            )


def _json_points(lines: LogLines) -> Iterator[_Point]:
    for value in json_objects(lines):
        metric, data = value.get("metric"), value.get("data")
        if value.get("type") != "Point" or metric not in _METRICS:
            continue
        try:
            tags = data.get("tags") or {}  # type: ignore[union-attr]
            status, error = str(tags.get("status", "")), str(tags.get("error_code", ""))
            yield str(metric), str(data["time"]), float(data["value"]), status, error  # type: ignore[index]
        except (AttributeError, KeyError, TypeError, ValueError):
            lines.damaged("it has no time and value in its data")
