"""Reads the text of wrk and wrk2, and percentile spectra of HdrHistogram.

A spectrum is a table `Value Percentile TotalCount 1/(1-Percentile)`, closed by lines that begin with `#[`. wrk2 prints
it in milliseconds; vegeta's `hdrplot` names the unit, `Value(ms)`; any other leaves it to whoever wrote the file, so it
has to be given. wrk prints a few percentiles with their units.
"""

from __future__ import annotations

import re
from pathlib import Path

from shadowsim.errors import InputError
from shadowsim.measuring.logs.log_lines import LogLines
from shadowsim.measuring.logs.run_totals import RunTotals, probability, totals_measurement
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.log_forms import HDR, WRK

UNIT_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}

_ROW = re.compile(r"\s*([\d.]+)\s+([01](?:\.\d+)?)\s+(\d+)(?:\s+(?:[\d.]+|inf|Infinity|∞))?\s*")
_HEADER = re.compile(r"\W*Value(?:\s*\((?P<unit>\w+)\))?\W.*Percentile.*TotalCount")
_FOOT = re.compile(r"#\[(Mean|Max)\s*=\s*([\d.]+)")
_TIME = r"([\d.]+)(us|ms|s|m|h)"
_PERCENT = re.compile(rf"\s*([\d.]+)%\s+{_TIME}\s*")
_LATENCY = re.compile(rf"\s*Latency\s+{_TIME}\s+{_TIME}\s+{_TIME}\s")
_DONE = re.compile(rf"\s*(\d+) requests in {_TIME},")
_NOT_2XX = re.compile(r"\s*Non-2xx or 3xx responses: (\d+)")
_SOCKETS = re.compile(r"\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_WRK_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_spectrum(files: list[Path], form: str, latency_unit: str | None) -> Measurement:
    """Read a percentile spectrum; `latency_unit` is that of its values, unless its header names one."""
    lines = LogLines(files)
    quantiles, n, foot, named = _spectrum(lines)
    unit = named or latency_unit
    if unit is None:
        what = "is a percentile spectrum that does not say the unit of its values: give latency_unit, one of"
        raise InputError(str(files[0]), f"{what} {', '.join(UNIT_S)} (--latency-unit ms)")
    lines.refuse_unless_read(len(quantiles), form)
    scale = UNIT_S[unit]
    seconds = {q: value * scale for q, value in quantiles.items()}
    totals = RunTotals(
        n_requests=n,
        mean_s=foot["Mean"] * scale if "Mean" in foot else None,
        least_s=seconds.get(0.0),
        most_s=foot["Max"] * scale if "Max" in foot else None,
    )
    lacks = [
        "A spectrum has no single requests and no times: rate, gaps and errors are not known.",
        "It does not say whether latencies count from the planned time of a request.",
    ]
    return totals_measurement(HDR, totals, seconds, lacks, None, lines)


def read_wrk(files: list[Path], form: str) -> Measurement:
    """Read what wrk or wrk2 printed, preferably with --latency."""
    lines = LogLines(files)
    text = list(lines)
    done = _first(_DONE, text)
    if done is None:
        raise InputError(str(files[0]), "looks like wrk's text, but has no line such as `700 requests in 2.01s`")
    is_wrk2 = any("HdrHistogram" in line for line in text)
    # Of wrk2's two distributions, corrected and not, the corrected one comes first.
    shares = [match for line in text if (match := _PERCENT.fullmatch(line))]
    quantiles: dict[float, float] = {}
    for match in shares:
        quantiles.setdefault(probability(match[1]), _wrk_seconds(match[2], match[3]))
    if is_wrk2 and any(_HEADER.match(line) for line in text):
        spectrum, _, _, _ = _spectrum(text)
        quantiles = {q: value * 1e-3 for q, value in spectrum.items()}
    latency = _first(_LATENCY, text)
    other, sockets = _first(_NOT_2XX, text), _first(_SOCKETS, text)
    totals = RunTotals(
        n_requests=int(done[1]),
        length_s=_wrk_seconds(done[2], done[3]),
        mean_s=_wrk_seconds(latency[1], latency[2]) if latency else None,
        most_s=_wrk_seconds(latency[5], latency[6]) if latency else None,
        n_other_errors=(int(other[1]) if other else 0) + (sum(map(int, sockets.groups())) if sockets else 0),
    )
    lacks = ["wrk keeps no single requests: neither gaps nor the course of the run are known."]
    lacks += [] if quantiles else ["Without --latency wrk prints no quantiles."]
    if is_wrk2:
        lacks.append("wrk2 counts from the planned time, but has no more requests in flight than connections.")
    else:
        lacks.append("wrk waits for answers before it sends on: what a stall delays is not measured.")
    return totals_measurement("wrk2 text" if is_wrk2 else WRK, totals, quantiles, lacks, open_loop=is_wrk2)


def _spectrum(lines: LogLines | list[str]) -> tuple[dict[float, float], int, dict[str, float], str | None]:
    """Return values by quantile of the first spectrum, how many were counted, its mean and maximum, and its unit."""
    quantiles: dict[float, float] = {}
    foot: dict[str, float] = {}
    unit, n, inside = None, 0, False
    for line in lines:
        header = _HEADER.match(line)
        if header:
            if inside:
                break
            unit, inside = header["unit"], True
        elif inside and (row := _ROW.fullmatch(line)):
            quantiles.setdefault(float(row[2]), float(row[1]))
            n = max(n, int(row[3]))
        elif inside and line.startswith("#["):
            foot |= {name: float(value) for name, value in _FOOT.findall(line)}
        elif inside and foot:
            break
        elif inside and isinstance(lines, LogLines):
            lines.damaged("it is no row of a spectrum: value, percentile, count")
    if unit is not None and unit not in UNIT_S:
        raise InputError("Value", f"must be in one of {', '.join(UNIT_S)}", unit)
    return quantiles, n, foot, unit


def _first(pattern: re.Pattern[str], text: list[str]) -> re.Match[str] | None:
    return next((match for line in text if (match := pattern.match(line))), None)


def _wrk_seconds(number: str, unit: str) -> float:
    return float(number) * _WRK_UNITS_S[unit]
