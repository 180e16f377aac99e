"""Reads access logs of web servers: nginx in any log_format, Apache in its two usual formats.

A server logs a request when it ends: it arrived $request_time before the logged time. The latency of the service behind
it is $upstream_response_time, the sum over several servers tried ("0.010, 0.020"); without that variable it is
$request_time, which counts the client's network, too. Both are in seconds, to the millisecond.

Without a format to go by, a line must have the common or the combined format; after that may come quoted text (as in
nginx's packages), `rt=` and `urt=` as F5's examples write them, or one number with three decimals, which is taken for
$request_time. Anything else needs the log_format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from shadowsim.errors import InputError
from shadowsim.measuring.logs.log_lines import LogLines, csv_rows, json_objects
from shadowsim.measuring.logs.log_times import common_log_ns, resolution_s, time_ns
from shadowsim.measuring.logs.nginx_formats import BODY_BYTES, pattern_of
from shadowsim.measuring.logs.request_columns import NAN, RequestColumns, status_of
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.log_forms import COMBINED, IN_QUOTES, NGINX_JSON, NGINX_TIMES, head_of

_REST = re.compile(
    rf'(?:\s+"{IN_QUOTES}")*'
    r"(?:\s+(?P<request_time>\d+\.\d{3})(?=\s*$))?"
    r'(?P<named>(?:\s+\w+="?[^"\s]*"?)*)\s*'
)
_LINE = re.compile(COMBINED.pattern.removesuffix("(?P<rest>.*)") + _REST.pattern)
_NAMED = re.compile(r'(\w+)="?([^"\s]*)"?')
_TRIED = re.compile(r"[,:]")
_FIRST = 1_000

_Values = Mapping[str, str | None]


class _Requests:
    """Requests of an access log, and which variables it has."""

    def __init__(self) -> None:
        self.columns = RequestColumns("request_bytes", "response_bytes")
        self.names: set[str] = set()
        self.time_name = NGINX_TIMES[0]
        self.has_upstream = False
        self.step_s = 1.0
        self.n_without = 0  # requests without $request_time

    def add(self, values: _Values) -> None:
        """Add a request with the values of nginx's variables; raise ValueError when they cannot be read."""
        get, at = values.get, self.time_name
        text = get(at)
        if not text:
            at = self.time_name = next((name for name in NGINX_TIMES if get(name)), at)
            text = get(at)
            if not text:
                raise ValueError("it has no time")
        end_ns = common_log_ns(text) if at == "time_local" else time_ns(text)
        n = len(self.columns)
        if n == 0:
            self.step_s = 1.0 if at == "time_local" else resolution_s(text)
        if n < _FIRST:  # which variables the format has is known after a few lines
            self.names |= {name for name, value in values.items() if value is not None}
            self.has_upstream = "upstream_response_time" in self.names
        before_s = whole_s = _seconds(get("request_time"))
        if whole_s != whole_s:
            before_s = 0.0
            self.n_without += 1
        latency_s = _tried_s(get("upstream_response_time")) if self.has_upstream else whole_s
        status = status_of(int(get("status") or 0))
        sent = _seconds(get("bytes_sent") or get(BODY_BYTES))
        self.columns.add(end_ns, before_s, latency_s, status, _seconds(get("request_length")), sent)


def read_access_log(files: list[Path], form: str, log_format: str | None) -> Measurement:
    """Read lines of text: in `log_format`, or else in the common or combined format."""
    lines, requests = LogLines(files), _Requests()
    if log_format is None:
        _refuse_unknown_rest(files[0])
        parse: Callable[[str], _Values | None] = _combined
    else:
        match_line = pattern_of(log_format).fullmatch

        def parse(line: str) -> _Values | None:
            match = match_line(line)
            return None if match is None else match.groupdict()

    add, damaged = requests.add, lines.damaged
    for line in lines:
        values = parse(line)
        if values is None:
            damaged("it does not fit the format")
            continue
        try:
            add(values)
        except ValueError as error:
            damaged(str(error)[:80])
    return _measurement(form, lines, requests, log_format is not None)


def read_nginx_json(files: list[Path], form: str) -> Measurement:
    """Read a JSON object a line, or a CSV table, whose names are those of nginx's variables."""
    lines, requests = LogLines(files), _Requests()
    if form == NGINX_JSON:
        for value in json_objects(lines):
            _add(requests, {name: None if one is None else str(one) for name, one in value.items()}, lines)
    else:
        names, rows = csv_rows(lines)
        for row in rows:
            _add(requests, dict(zip(names, row, strict=True)), lines)
    return _measurement(form, lines, requests, True)


def _add(requests: _Requests, values: _Values, lines: LogLines) -> None:
    try:
        requests.add(values)
    except ValueError as error:
        lines.damaged(str(error)[:80])


def _measurement(form: str, lines: LogLines, requests: _Requests, is_named: bool) -> Measurement:
    names, lacks = requests.names, []
    if "request_time" in names:
        lacks.append("Arrivals are the logged ends less $request_time.")
        if not is_named and "named" not in names:
            lacks[0] = (
                "The number after the combined format was taken for $request_time; arrivals are the ends less it."
            )
    else:
        lacks.append("There is no $request_time: arrivals are the ends of requests, which come later by their latency.")
    if requests.n_without and "request_time" in names:
        lacks.append(f"{requests.n_without:,} requests have no $request_time: their arrivals are their ends.")
    if "upstream_response_time" in names:
        lacks.append("Latencies are $upstream_response_time; those of requests that were not passed on are missing.")
    elif "request_time" in names:
        lacks.append("Latencies are $request_time, which counts the client's network, for want of the upstream's time.")
    else:
        lacks.append("There are no latencies.")
    if "status" not in names:
        lacks.append("There is no $status: errors cannot be told from answers.")
    if names & {"bytes_sent", BODY_BYTES}:
        lacks.append(f"Bytes are {'$bytes_sent, with headers' if 'bytes_sent' in names else 'those of bodies'}.")
    return requests.columns.measurement(
        form, lines, resolution_s=requests.step_s, latency_resolution_s=1e-3, lacks=lacks
    )


def _combined(line: str) -> _Values | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    time, status, n_bytes, request_time, rest = match.group("time", "status", "bytes", "request_time", "named")
    values: dict[str, str | None] = {
        "time_local": time,
        "status": status,
        BODY_BYTES: None if n_bytes == "-" else n_bytes,
    }
    if request_time is not None:
        values["request_time"] = request_time
    if not rest:
        return values
    named = dict(_NAMED.findall(rest))
    if "rt" in named:
        values |= {"request_time": named["rt"], "named": ""}
    if "urt" in named:
        values["upstream_response_time"] = named["urt"]
    return values


def _refuse_unknown_rest(file: Path) -> None:
    """Raise `InputError` when lines have the combined format and more that only their log_format explains."""
    head = head_of(file)
    rests = [match["rest"] for line in head.lines if (match := COMBINED.fullmatch(line))]
    unknown = [rest for rest in rests if not _REST.fullmatch(rest)]
    if 2 * len(unknown) > len(rests):
        what = "is an access log with more after the combined format; give its log_format (--log-format)"
        raise InputError(str(file), what, re.sub(r'^\s*"[^"]*" "[^"]*"\s*', "", unknown[0])[:80])


def _seconds(text: str | None) -> float:
    return NAN if text is None or text in ("", "-") else float(text)


def _tried_s(text: str | None) -> float:
    """Return the sum over the servers that were tried; NaN when none was."""
    if text is None or text in ("", "-"):
        return NAN
    if "," not in text and ":" not in text:
        return float(text)
    times = [_seconds(part.strip()) for part in _TRIED.split(text)]
    known = [time for time in times if time == time]
    return sum(known) if known else NAN
