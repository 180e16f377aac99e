"""Reads JMeter's results (.jtl), in CSV with a line of names or in XML.

`timeStamp` is the start of a sample and `elapsed` its length, both in milliseconds, `Latency` the time to the first
byte; in XML `ts`, `t` and `lt`. Samples of transaction controllers sum up those within them and are no requests. In XML
a request that was redirected, or fetched resources of a page, holds the single requests, and these are counted.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from shadowsim.errors import InputError, shown
from shadowsim.measuring.logs.log_lines import LogLines, csv_rows
from shadowsim.measuring.logs.log_times import has_zone, resolution_s, time_ns
from shadowsim.measuring.logs.request_columns import (
    ANSWERED,
    BROKEN,
    FAILED,
    NAN,
    TIMED_OUT,
    RequestColumns,
    status_of,
)
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.table_files import DAMAGED_ERRORS, open_text

_TRANSACTION = "Number of samples in transaction"
_XML_NAMES = {
    "ts": "timeStamp",
    "t": "elapsed",
    "lt": "Latency",
    "rc": "responseCode",
    "rm": "responseMessage",
    "s": "success",
    "by": "bytes",
    "sby": "sentBytes",
}


class _Samples:
    """Samples as requests, with what has to be said of them."""

    def __init__(self) -> None:
        self.columns = RequestColumns("first_byte_s", "request_bytes", "response_bytes")
        self.step_s = 1e-3
        self.without_zone = False
        self.n_transactions = 0

    def add(self, sample: Mapping[str, str]) -> None:
        """Add a sample; raise ValueError, or KeyError, for one without a time and a length."""
        if sample.get("responseMessage", "").startswith(_TRANSACTION):
            self.n_transactions += 1
            return
        at = sample["timeStamp"]
        start_ns, elapsed_s = time_ns(at), float(sample["elapsed"]) / 1e3
        if not len(self.columns):
            self.step_s, self.without_zone = resolution_s(at), not has_zone(at)
        first_s = float(sample.get("Latency") or NAN) / 1e3
        sent, received = float(sample.get("sentBytes") or NAN), float(sample.get("bytes") or NAN)
        status = _status(sample.get("responseCode", ""), sample.get("success", "true"))
        self.columns.add(start_ns, 0.0, elapsed_s, status, first_s or NAN, sent, received)


def read_jmeter_csv(files: list[Path], form: str) -> Measurement:
    """Read a .jtl in CSV."""
    lines, samples = LogLines(files), _Samples()
    names, rows = csv_rows(lines)
    for row in rows:
        try:
            samples.add(dict(zip(names, row, strict=True)))
        except ValueError as error:
            lines.damaged(str(error)[:80])
    return _measurement(form, lines, samples)


def read_jmeter_xml(files: list[Path], form: str) -> Measurement:
    """Read a .jtl in XML; one that breaks off, as when JMeter was killed, is read to there."""
    file, lines, samples = files[0], LogLines(files), _Samples()
    has_inner: list[bool] = []  # for each open element, whether a request lies within it
    try:
        with open_text(file, errors="replace") as text:
            root = None
            for event, element in ET.iterparse(text, events=("start", "end")):
                root = element if root is None else root
                if event == "start":
                    has_inner.append(False)
                    continue
                inner = has_inner.pop()
                if element.tag == "httpSample" or (element.tag == "sample" and not inner):
                    if has_inner:
                        has_inner[-1] = True
                    lines.n_lines += 1
                    if not inner:
                        _add_element(element, samples, lines)
                elif inner and has_inner:
                    has_inner[-1] = True
                if len(has_inner) <= 1:
                    root.clear()
    except ET.ParseError as error:
        lines.number, lines.n_lines = error.position[0], lines.n_lines + 1
        lines.damaged(f"the XML breaks off or is no XML ({error.msg})")
    except DAMAGED_ERRORS as error:
        raise InputError(shown(file), f"cannot be read ({' '.join(str(error).split())[:120]})") from None
    return _measurement(form, lines, samples)


def _add_element(element: ET.Element, samples: _Samples, lines: LogLines) -> None:
    try:
        samples.add({_XML_NAMES[name]: value for name, value in element.attrib.items() if name in _XML_NAMES})
    except (KeyError, ValueError) as error:
        lines.number = lines.n_lines
        lines.damaged(f"sample {lines.n_lines}: {str(error)[:80]}")


def _measurement(form: str, lines: LogLines, samples: _Samples) -> Measurement:
    lacks = [
        "JMeter's threads wait for answers, unless a timer or an open model of threads set the rate.",
        "Latencies are `elapsed`, which includes the time to connect; bytes include headers.",
    ]
    if samples.without_zone:
        lacks.append("Times name no zone and were read as UTC.")
    if samples.n_transactions:
        lacks.append(f"{samples.n_transactions:,} samples of transaction controllers were left out: no requests.")
    measured = samples.columns.measurement(
        form, lines, resolution_s=samples.step_s, latency_resolution_s=1e-3, lacks=lacks
    )
    return measured


def _status(code: str, success: str) -> int:
    if not code.isdigit():
        return TIMED_OUT if "timeout" in code.lower() else FAILED
    status = status_of(int(code))
    return BROKEN if status == ANSWERED and success.lower() == "false" else status
