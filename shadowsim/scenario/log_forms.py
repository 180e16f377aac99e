"""Recognises logs, results of load tools and exports of CloudWatch by what is in them.

This is the one place that tells such files apart, by the first lines and never by the name. A file may look like more
than one form when several were written into it; whoever asks gets all of them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shadowsim.scenario.table_files import DAMAGED_ERRORS, open_text

K6_CSV, K6_JSON = "k6 CSV", "k6 JSON lines"
VEGETA_CSV, VEGETA_JSON, VEGETA_REPORT = "vegeta CSV", "vegeta JSON lines", "vegeta report"
WRK, HDR = "wrk text", "HdrHistogram percentiles"
JMETER_CSV, JMETER_XML = "JMeter CSV", "JMeter XML"
ACCESS_LOG, NGINX_JSON, NGINX_TABLE = "web server access log", "nginx JSON log", "table of nginx variables"
ALB = "ALB access log"
CLOUDWATCH_STATISTICS, CLOUDWATCH_DATA = "CloudWatch get-metric-statistics", "CloudWatch get-metric-data"
CLOUDWATCH_TABLE = "CloudWatch table"
INFERENCE_PERF, INFERENCE_PERF_REPORT = "inference-perf requests", "inference-perf report"
AIPERF, AIPERF_REPORT = "AIPerf records", "AIPerf report"
CAPTURES = "SageMaker captures"
REQUESTS_TABLE = "table of requests"  # with the columns of a measurement

# Forms that are no tables with a row a request or a period: a trace has to be made of them first.
NO_TABLES = (
    *(K6_JSON, VEGETA_REPORT, WRK, HDR, JMETER_XML, ACCESS_LOG, ALB, CLOUDWATCH_STATISTICS, CLOUDWATCH_DATA),
    *(INFERENCE_PERF_REPORT, AIPERF, AIPERF_REPORT),
)

NGINX_TIMES = ("msec", "time_iso8601", "time_local")
CLOUDWATCH_METRICS = (
    *("Invocations", "InvocationsPerInstance", "ModelLatency", "OverheadLatency", "FirstChunkLatency"),
    *("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors"),
    *("ConcurrentRequestsPerModel",),
)
# Text between quotes with escapes, unrolled: alternatives for each character would be five times as slow.
IN_QUOTES = r'[^"\\]*(?:\\.[^"\\]*)*'
COMBINED = re.compile(
    r"\S+ \S+ .+? \[(?P<time>\d{1,2}/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    rf'"{IN_QUOTES}" (?P<status>\d{{3}}) (?P<bytes>\d+|-)(?P<rest>.*)'
)
ALB_LINE = re.compile(
    r"(?:https?|h2|grpcs?|wss?) (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.?\d*Z) \S+ \S+ (?P<target>\S+) "
    r"(?P<before>-?\d+\.?\d*) (?P<latency>-?\d+\.?\d*) (?P<after>-?\d+\.?\d*) (?P<status>\d{3}|-) "
    r"(?P<of_target>\d{3}|-) (?P<received>\d+) (?P<sent>\d+) \""
)
VEGETA_ROW = re.compile(r"\d{18,19},\d{1,3},\d+,\d+,\d+,.*")

_HEAD_CHARS, _HEAD_LINES = 65_536, 50
_KEY = re.compile(r'"([A-Za-z_][\w.]*)"\s*:')
_SPECTRUM = re.compile(r"^[^\w\n]*Value\W.*\bPercentile\b.*\bTotalCount\b.*1/\(1-Percentile\)", re.MULTILINE)
_DATE_CELL = re.compile(r"\"?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a text file.

    Attributes
    ----------
    text : str
        At most 65,536 characters.
    lines : tuple of str
        The whole lines of it that are not blank, at most 50.
    keys : frozenset of str
        For JSON, the names of members that occur in it, however deep; for other text none.
    columns : frozenset of str
        The fields of the first line, read as CSV by its most frequent delimiter.
    """

    text: str
    lines: tuple[str, ...]
    keys: frozenset[str]
    columns: frozenset[str]

    def mostly(self, pattern: re.Pattern[str]) -> bool:
        """Tell whether at least half of the lines match."""
        return 2 * sum(bool(pattern.match(line)) for line in self.lines) >= max(len(self.lines), 1)


def head_of(file: Path) -> Head:
    """Read the beginning of a file; a file that cannot be read raises OSError or one of the decompressors' errors."""
    with open_text(file, errors="replace") as text:
        start = text.read(_HEAD_CHARS)
    return head_of_text(start)


def head_of_text(start: str) -> Head:
    """Return the head of a text, of which at most the first 65,536 characters are given."""
    lines = [line for line in start.splitlines(keepends=True) if line.strip()]
    if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")) and len(start) == _HEAD_CHARS:
        lines.pop()  # cut
    whole = tuple(line.rstrip("\r\n") for line in lines[:_HEAD_LINES])
    json_like = start.lstrip()[:1] in ("{", "[")
    keys = frozenset(_KEY.findall(start)) if json_like else frozenset()
    return Head(start, whole, keys, frozenset() if json_like or not whole else frozenset(header_of(whole[0])))


def header_of(line: str) -> list[str]:
    """Return the names of columns in a line, without blanks around them."""
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter_of(line)), [])]


def delimiter_of(line: str) -> str:
    """Return the most frequent of comma, semicolon, tab and bar in a line of column names."""
    return max(",;\t|", key=line.count)


def forms_of(head: Head) -> list[str]:
    """Return every form that the beginning of a file looks like: one, or several for a mixture, or none."""
    return [form for form, looks in _RULES.items() if looks(head)]


def no_table(file: Path) -> str | None:
    """Return the form of a file of which a trace has to be made first; None for any other file."""
    try:
        forms = forms_of(head_of(file))
    except (*DAMAGED_ERRORS, ValueError):
        return None
    return forms[0] if forms and forms[0] in NO_TABLES else None


def _has(*names: str) -> Callable[[Head], bool]:
    return lambda head: set(names) <= head.keys


def _cloudwatch_table(head: Head) -> bool:
    first = next((i for i, line in enumerate(head.lines) if _DATE_CELL.match(line)), None)
    if not first:
        return False
    return any(re.search(rf"\b{name}\b", line) for line in head.lines[:first] for name in CLOUDWATCH_METRICS)


_RULES: dict[str, Callable[[Head], bool]] = {
    K6_CSV: lambda head: {"metric_name", "timestamp", "metric_value"} <= head.columns,
    K6_JSON: lambda head: (
        {"type", "metric", "data"} <= head.keys and bool(re.search(r'"type"\s*:\s*"(Point|Metric)"', head.text))
    ),
    VEGETA_CSV: lambda head: head.mostly(VEGETA_ROW),
    VEGETA_JSON: _has("attack", "seq", "code", "timestamp", "latency"),
    VEGETA_REPORT: _has("latencies", "status_codes", "earliest"),
    WRK: lambda head: "Thread Stats" in head.text and "Requests/sec:" in head.text,
    HDR: lambda head: bool(_SPECTRUM.search(head.text)) and "Thread Stats" not in head.text,
    JMETER_CSV: lambda head: {"timeStamp", "elapsed"} <= head.columns,
    JMETER_XML: lambda head: "<testResults" in head.text,
    ACCESS_LOG: lambda head: head.mostly(COMBINED),
    NGINX_JSON: lambda head: (
        bool(head.keys & set(NGINX_TIMES)) and bool(head.keys & {"request_time", "body_bytes_sent", "status"})
    ),
    NGINX_TABLE: lambda head: bool(head.columns & set(NGINX_TIMES)) and "request_time" in head.columns,
    ALB: lambda head: head.mostly(ALB_LINE),
    # The AWS CLI may write Label behind all data points.
    CLOUDWATCH_STATISTICS: lambda head: "Datapoints" in head.keys and bool(head.keys & {"Label", "Timestamp"}),
    CLOUDWATCH_DATA: _has("MetricDataResults"),
    CLOUDWATCH_TABLE: _cloudwatch_table,
    INFERENCE_PERF: lambda head: head.text.lstrip().startswith("[") and {"start_time", "end_time", "info"} <= head.keys,
    INFERENCE_PERF_REPORT: lambda head: "successes" in head.keys and bool(head.keys & {"failures", "request_latency"}),
    AIPERF: _has("metadata", "metrics", "request_start_ns"),
    AIPERF_REPORT: lambda head: (
        {"request_latency", "unit", "avg"} <= head.keys and not head.keys & {"request_start_ns", "successes"}
    ),
    CAPTURES: _has("captureData", "eventMetadata"),
    REQUESTS_TABLE: lambda head: {"arrival_s", "latency_s"} <= head.columns | head.keys,
}
