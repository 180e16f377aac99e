"""Reads exports of CloudWatch: get-metric-statistics and get-metric-data of the AWS CLI, and tables.

A table is what the console's "Download as .csv" or a spreadsheet gives: a column of times, and lines above the first of
them that name each column's metric and statistic. In get-metric-data they are found in Label, or in Id. Several files
are joined, as of several metrics.

CloudWatch knows periods, not requests. SageMaker's latencies are microseconds; get-metric-statistics names its unit.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.errors import InputError
from shadowsim.frames import US_PER_S
from shadowsim.measuring.logs.log_lines import LogLines, json_document
from shadowsim.measuring.logs.log_times import date_ns, has_zone, time_ns
from shadowsim.measuring.logs.run_totals import probability
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.log_forms import CLOUDWATCH_METRICS, delimiter_of

_PLAIN = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
_STATISTIC = re.compile(
    r"(?<![A-Za-z0-9])(SampleCount|Average|Sum|Minimum|Maximum|p\d{1,2}(?:[._]\d+)?|p100)(?![A-Za-z0-9])", re.I
)
_SPELT = {name.lower(): name for name in _PLAIN}
_US = {"Microseconds": 1.0, "Milliseconds": 1e3, "Seconds": 1e6}
_LATENCIES = ("ModelLatency", "OverheadLatency", "FirstChunkLatency")
_COUNTS = (
    *("Invocations", "InvocationsPerInstance"),
    *("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors"),
)
_MINUTE_S = 60.0

_Series = dict[tuple[str, str], dict[int, float]]


class _Periods:
    """Values by metric, statistic and time, and what has to be said of them."""

    def __init__(self) -> None:
        self.series: _Series = {}
        self.lacks: list[str] = []
        self.from_labels: dict[tuple[str, str], str] = {}

    def say(self, sentence: str) -> None:
        if sentence not in self.lacks:
            self.lacks.append(sentence)

    def put(self, metric: str, statistic: str, ns: int, value: float, file: Path) -> None:
        values = self.series.setdefault((metric, statistic), {})
        if values.setdefault(ns, value) != value:
            what = f"has two values of {metric} {statistic} at one time: keep the series of one variant"
            raise InputError(str(file), what, f"{values[ns]:g} and {value:g}")

    def name_of(self, label: str, other: str, file: Path) -> tuple[str, str] | None:
        """Return the metric and statistic that a series has by its label or id; None for another metric."""
        texts = (label, other)
        metrics = [
            m for text in texts for m in CLOUDWATCH_METRICS if re.search(rf"(?<![A-Za-z]){m}(?![A-Za-z])", text, re.I)
        ]
        if not metrics:
            self.say(f"The series {label or other!r} is none that is read.")
            return None
        found = next((match[1] for text in texts if (match := _STATISTIC.search(text))), None)
        if found is None and metrics[0] in _COUNTS:
            self.say(f"The series {label or other!r} does not name its statistic, and was taken for a Sum.")
            found = "Sum"
        if found is None:
            what = f"has a series {label or other!r} that does not name its statistic: give it a Label such as"
            raise InputError(str(file), f'{what} "{metrics[0]} p99"')
        statistic = _SPELT.get(found.lower(), found.lower().replace("_", "."))
        named = (metrics[0], statistic)
        if self.from_labels.setdefault(named, label or other) != (label or other):
            series = f"{self.from_labels[named]!r} and {label or other!r}"
            raise InputError(str(file), f"has several series of {' '.join(named)} ({series}): keep one variant's")
        return named


def read_cloudwatch_statistics(files: list[Path], form: str) -> Measurement:
    """Read what `aws cloudwatch get-metric-statistics` printed, a metric a file."""
    periods = _Periods()
    for file in files:
        document = json_document(file)
        metric = str(document.get("Label"))
        if metric not in CLOUDWATCH_METRICS:
            periods.say(f"The metric {metric!r} of {file.name} is none that is read.")
            continue
        try:
            for point in document["Datapoints"]:
                ns, unit = _ns(point["Timestamp"]), point.get("Unit")
                scale = _US.get(unit) if metric in _LATENCIES else 1.0
                if scale is None:
                    raise InputError(str(file), f"must give {metric} in {', '.join(_US)}", unit)
                percentiles = point.get("ExtendedStatistics") or {}
                for statistic in _PLAIN:
                    if statistic in point:
                        factor = 1.0 if statistic == "SampleCount" else scale
                        periods.put(metric, statistic, ns, float(point[statistic]) * factor, file)
                for name, value in percentiles.items():
                    periods.put(metric, name.lower(), ns, float(value) * scale, file)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(str(file), f"has a data point that cannot be read: {error!r}") from None
    return _measurement(form, periods, files)


def read_cloudwatch_data(files: list[Path], form: str) -> Measurement:
    """Read what `aws cloudwatch get-metric-data` printed; further pages may stand in further files."""
    periods = _Periods()
    for file in files:
        try:
            for result in json_document(file)["MetricDataResults"]:
                named = periods.name_of(str(result.get("Label") or ""), str(result.get("Id") or ""), file)
                if named is None:
                    continue
                if result.get("StatusCode", "Complete") == "PartialData":
                    periods.say(f"The series {result.get('Label')!r} goes on in a further page (NextToken).")
                for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                    periods.put(*named, _ns(at), float(value), file)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(str(file), f"has a result that cannot be read: {error!r}") from None
    if any(metric in _LATENCIES for metric, _ in periods.series):
        periods.say("get-metric-data names no unit: latencies were taken for microseconds, as SageMaker's are.")
    return _measurement(form, periods, files)


def read_cloudwatch_table(files: list[Path], form: str) -> Measurement:
    """Read a table with a column of times and columns that name a metric and a statistic."""
    periods, read = _Periods(), [LogLines([file]) for file in files]
    for lines in read:
        for named, at, value in _cells(lines, periods):
            periods.put(*named, at, value, lines.files[0])
    if any(metric in _LATENCIES for metric, _ in periods.series):
        periods.say("A table names no unit: latencies were taken for microseconds, as SageMaker's are.")
    return replace(
        _measurement(form, periods, files),
        n_lines=sum(lines.n_lines for lines in read),
        n_damaged=sum(lines.n_damaged for lines in read),
        first_damaged=next((lines.first_damaged for lines in read if lines.n_damaged), ""),
    )


def _cells(lines: LogLines, periods: _Periods) -> Iterator[tuple[tuple[str, str], int, float]]:
    """Yield metric with statistic, time and value of each cell; damaged lines have none."""
    header: list[list[str]] = []
    columns: list[tuple[str, str] | None] = []
    delimiter = ","
    for line in lines:
        if not header:
            delimiter = delimiter_of(line)
        row = next(csv.reader([line], delimiter=delimiter))
        try:
            ns = _ns(row[0])
        except (ValueError, IndexError):
            if columns:
                lines.damaged("its first field is no time")
            else:
                header.append(row)
            continue
        if not columns:
            if not has_zone(row[0]):
                periods.say("Times name no zone and were read as UTC.")
            columns = _columns_of(header, periods, lines.files[0])
        known = [(named, cell) for named, cell in zip(columns, row, strict=False) if named is not None and cell.strip()]
        try:
            values = [float(cell) for _, cell in known]
        except ValueError as error:
            lines.damaged(str(error))
            continue
        for (named, _), value in zip(known, values, strict=True):
            yield named, ns, value


def _columns_of(header: list[list[str]], periods: _Periods, file: Path) -> list[tuple[str, str] | None]:
    """Return what each column holds, by all cells above its first value; None for another metric, and the times."""
    width = max(map(len, header), default=0)
    texts = [" ".join(cells[i] for cells in header if i < len(cells)) for i in range(width)]
    return [None, *(periods.name_of(text, "", file) for text in texts[1:])]


def _measurement(form: str, periods: _Periods, files: list[Path]) -> Measurement:
    times = sorted({ns for values in periods.series.values() for ns in values})
    if not times:
        raise InputError(str(files[0]), f"looks like {form}, and holds no values of {', '.join(CLOUDWATCH_METRICS)}")
    period_s = float(np.diff(times).min()) / 1e9 if len(times) > 1 else _MINUTE_S
    lacks = ["CloudWatch has no single requests: gaps within a period, and their order, are not known."]
    if len(times) == 1:
        lacks.append("There is one period alone, which was taken for a minute.")
    columns: dict[str, list[float]] = {}
    for (metric, statistic), values in periods.series.items():
        name = _column(metric, statistic)
        if name is None:
            periods.say(f"{metric} {statistic} was not used.")
        else:
            columns[name] = [values.get(ns, float("nan")) for ns in times]
    if "Invocations" not in columns and "ModelLatency_SampleCount" in columns:
        columns["Invocations"] = columns["ModelLatency_SampleCount"]
        lacks.append("There is no Invocations: it was taken for the SampleCount of ModelLatency.")
    quantiles: dict[float, float] = {}
    percentiles = {name: values for name, values in columns.items() if re.fullmatch(r"ModelLatency_p[\d_]+", name)}
    if len(times) == 1:
        quantiles = {
            probability(name.split("_p")[1].replace("_", ".")): v[0] / US_PER_S for name, v in percentiles.items()
        }
    elif percentiles:
        lacks.append("Percentiles are those of single periods: those of the whole run cannot be had from them.")
    if not any(name.startswith("ModelLatency") for name in columns):
        lacks.append("There is no ModelLatency.")
    if "Invocations" not in columns:
        lacks.append("There is no Invocations: the rate is not known.")
    frame = {"time_s": [(ns - times[0]) / 1e9 for ns in times], "period_s": period_s, **columns}
    return Measurement(
        form,
        windows=pd.DataFrame(frame),
        quantiles=dict(sorted(quantiles.items())),
        started=datetime.fromtimestamp(0, UTC) + timedelta(microseconds=times[0] // 1000),
        resolution_s=period_s,
        lacks=(*lacks, *periods.lacks),
    )


def _column(metric: str, statistic: str) -> str | None:
    """Return the column of windows for a statistic; None for one that windows have not."""
    if metric in _COUNTS:
        return metric if statistic == "Sum" else None
    if metric == "ConcurrentRequestsPerModel":
        return f"{metric}_{statistic}" if statistic in ("Minimum", "Maximum") else None
    if metric == "OverheadLatency":
        return f"{metric}_{statistic}" if statistic == "Average" else None
    if metric != "ModelLatency" or statistic == "Sum":
        return None
    return f"{metric}_{statistic.replace('.', '_')}"


def _ns(value: Any) -> int:
    """Return a time as the AWS CLI writes it: ISO 8601, or seconds since 1970 in its older versions."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(value * 1000) * 1_000_000
    text = str(value).strip()
    return time_ns(text) if text[:1].isdigit() and text[:4].isdigit() else date_ns(text)
