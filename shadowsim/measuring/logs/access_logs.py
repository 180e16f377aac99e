"""Reads access logs of web servers: nginx in any log_format, Apache in the common and the combined format.

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
from shadowsim.scenario.log_forms import COMBINED, NGINX_JSON, NGINX_TIMES, head_of

_REST = re.compile(
    r'(?:\s+"(?:[^"\\]|\\.)*")*'
    r"(?:\s+(?P<request_time>\d+\.\d{3})(?=\s*$))?"
    r'(?P<named>(?:\s+\w+="?[^"\s]*"?)*)\s*'
)
_NAMED = re.compile(r'(\w+)="?([^"\s]*)"?')
_TRIED = re.compile(r"[,:]")
_FIRST = 1_000

_Values = Mapping[str, str | None]


class _Requests:
    """Requests of an access log, and which variables it has."""

    def __init__(self) -> None:
        self.columns = RequestColumns("request_bytes", "response_bytes")
        self.names: set[str] = set()
        self.step_s = 1.0
        self.n_without = 0  # requests without $request_time

    def add(self, values: _Values) -> None:
        """Add a request with the values of nginx's variables; raise ValueError when they cannot be read."""
        at = next((name for name in NGINX_TIMES if values.get(name)), None)
        if at is None:
            raise ValueError("it has no time")
        text = str(values[at])
        end_ns = common_log_ns(text) if at == "time_local" else time_ns(text)
        whole_s, upstream_s = _seconds(values.get("request_time")), _tried_s(values.get("upstream_response_time"))
        n = len(self.columns)
        if n == 0:
            self.step_s = resolution_s(text) if at != "time_local" else 1.0
        if n < _FIRST:  # which variables the format has is known after a few lines
            self.names |= {name for name, value in values.items() if value is not None}
        has_upstream = "upstream_response_time" in self.names
        latency_s = upstream_s if has_upstream else whole_s
        sent = values.get("bytes_sent") or values.get(BODY_BYTES)
        code = int(str(values.get("status") or 0))
        before_s = 0.0 if whole_s != whole_s else whole_s
        self.n_without += whole_s != whole_s
        self.columns.add(
            *(end_ns, before_s, latency_s, status_of(code)), *(_seconds(values.get("request_length")), _seconds(sent))
        )


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
    match = COMBINED.fullmatch(line)
    rest = match and _REST.fullmatch(match["rest"])
    if match is None or rest is None:
        return None
    values: dict[str, str | None] = {
        "time_local": match["time"],
        "status": match["status"],
        BODY_BYTES: None if match["bytes"] == "-" else match["bytes"],
    }
    named = dict(_NAMED.findall(rest["named"])) if rest["named"] else {}
    if rest["request_time"] is not None:
        values["request_time"] = rest["request_time"]
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
