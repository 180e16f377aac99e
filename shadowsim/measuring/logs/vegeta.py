"""Reads vegeta's results, as `vegeta encode --to json` or `--to csv` writes them, and its JSON report.

A result has the time at which the request was sent and its latency in nanoseconds, whichever encoding it has
(lib/results.go of vegeta). The gob encoding, which `vegeta attack` writes, can only be read by vegeta.
"""

from __future__ import annotations

from pathlib import Path

from shadowsim.errors import InputError
from shadowsim.measuring.logs.log_lines import LogLines, json_document, json_objects
from shadowsim.measuring.logs.log_times import date_ns, time_ns
from shadowsim.measuring.logs.request_columns import FAILED, TIMED_OUT, RequestColumns, status_of
from shadowsim.measuring.logs.run_totals import RunTotals, probability, totals_measurement
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.log_forms import VEGETA_CSV, VEGETA_REPORT

_LACKS = [
    "Latencies count from when a request was really sent: a lag of vegeta itself is not in them.",
    "Arrivals are independent of the answers unless vegeta ran with -max-workers or -rate 0.",
]
_TIME_OUT = ("timeout", "deadline exceeded")


def read_vegeta(files: list[Path], form: str) -> Measurement:
    """Read results in CSV or JSON lines."""
    lines = LogLines(files)
    columns = RequestColumns("request_bytes", "response_bytes")
    (_read_csv if form == VEGETA_CSV else _read_json)(lines, columns)
    return columns.measurement(
        form, lines, resolution_s=0.0, latency_resolution_s=0.0, lacks=list(_LACKS), open_loop=True
    )


def read_vegeta_report(files: list[Path], form: str) -> Measurement:
    """Read the report of `vegeta report --type json`: counts and quantiles of the whole run."""
    report = json_document(files[0])
    try:
        latencies, codes = report["latencies"], report["status_codes"]
        quantiles = {
            probability(key.removesuffix("th")): value / 1e9
            for key, value in latencies.items()
            if key.endswith("th") and key[:-2].isdigit()
        }
        totals = RunTotals(
            n_requests=int(report["requests"]),
            length_s=report["duration"] / 1e9,
            started_ns=date_ns(report["earliest"]),
            mean_s=latencies["mean"] / 1e9,
            least_s=latencies["min"] / 1e9 if "min" in latencies else None,
            most_s=latencies["max"] / 1e9,
            n_4xx=sum(n for code, n in codes.items() if code.startswith("4")),
            n_5xx=sum(n for code, n in codes.items() if code.startswith("5")),
            n_other_errors=codes.get("0", 0),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(str(files[0]), f"is no report of vegeta's: {error!r} cannot be read") from None
    lacks = ["A report has no single requests: neither gaps nor the course of the run are known.", *_LACKS]
    return totals_measurement(VEGETA_REPORT, totals, quantiles, lacks, open_loop=True)


def _read_csv(lines: LogLines, columns: RequestColumns) -> None:
    for line in lines:
        # The body, which may be megabytes long, stays in one piece.
        fields = line.split(",", 6)
        try:
            at, code, latency, sent, received, error = fields[:6]
            columns.add(
                *(time_ns(at), 0.0, int(latency) / 1e9, _status(int(code), error)), *(float(sent), float(received))
            )
        except ValueError:
            lines.damaged("it has not vegeta's columns: time, code, latency, bytes out, bytes in, error, ...")


def _read_json(lines: LogLines, columns: RequestColumns) -> None:
    for value in json_objects(lines):
        try:
            status = _status(int(value["code"]), str(value.get("error") or ""))
            latency_s, sent, received = value["latency"] / 1e9, value["bytes_out"], value["bytes_in"]
            columns.add(date_ns(value["timestamp"]), 0.0, latency_s, status, float(sent), float(received))
        except (KeyError, TypeError, ValueError) as error:
            lines.damaged(_why(error))


def _status(code: int, error: str) -> int:
    if code == 0:
        return TIMED_OUT if any(word in error.lower() for word in _TIME_OUT) else FAILED
    return status_of(code)


def _why(error: Exception) -> str:
    return f"it lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)[:80]
