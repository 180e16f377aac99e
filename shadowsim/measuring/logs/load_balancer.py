"""Reads what AWS's Application Load Balancer logs to S3 (gzip): a line a request.

`target_processing_time` runs from the moment the balancer passed a request on to the first byte of the answer's
headers; it is what CloudWatch calls TargetResponseTime, and -1 where no target answered. A request was received at
`request_creation_time`; `time` is when the answer was made.
"""

from __future__ import annotations

import re
from pathlib import Path

from shadowsim.measuring.logs.log_lines import LogLines
from shadowsim.measuring.logs.log_times import date_ns
from shadowsim.measuring.logs.request_columns import FAILED, NAN, TIMED_OUT, RequestColumns, status_of
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.log_forms import ALB_LINE

# The last time in a line that stands by itself, after the rule's priority and before the action.
_CREATED = re.compile(r' (?:-?\d+|-) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.?\d*Z) "')
_CLIENT_GONE, _GATEWAY_TIMEOUT = 460, 504


def read_load_balancer(files: list[Path], form: str) -> Measurement:
    """Read the log, of which a folder may hold many files."""
    lines = LogLines(files)
    columns = RequestColumns("request_bytes", "response_bytes")
    n_without = 0
    for line in lines:
        match = ALB_LINE.match(line)
        if match is None:
            lines.damaged("it has not the fields of an Application Load Balancer's log")
            continue
        before_s, latency_s, after_s = float(match["before"]), float(match["latency"]), float(match["after"])
        created = _CREATED.search(line, match.end())
        try:
            if created is not None:
                at_ns, whole_s = date_ns(created[1]), 0.0
            else:
                at_ns, whole_s = date_ns(match["time"]), sum(max(x, 0.0) for x in (before_s, latency_s, after_s))
                n_without += 1
        except ValueError as error:
            lines.damaged(str(error)[:80])
            continue
        code = int(match["status"]) if match["status"] != "-" else 0
        status = FAILED if code == _CLIENT_GONE else status_of(code)
        if code == _GATEWAY_TIMEOUT and match["of_target"] == "-":
            status = TIMED_OUT
        columns.add(
            *(at_ns, whole_s, NAN if latency_s < 0.0 else latency_s, status),
            *(float(match["received"]), float(match["sent"])),
        )
    lacks = [
        "Latencies are target_processing_time, to the first byte of an answer's headers: a streamed one lasts longer.",
        "Bytes include headers.",
    ]
    if n_without:
        lacks.append(
            f"{n_without:,} lines have no request_creation_time: these arrived their three times before `time`."
        )
    return columns.measurement(form, lines, resolution_s=1e-3, latency_resolution_s=1e-3, lacks=lacks)
