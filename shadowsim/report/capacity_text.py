"""Formats the greatest rates that pools hold as a table, with what decides and what it rests on below."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from shadowsim.aws.instances import duration_text
from shadowsim.planning.capacity_search import STABILITY
from shadowsim.planning.slo import Goal, Slo
from shadowsim.report.analysis_text import Row, figure
from shadowsim.report.comparison_text import records
from shadowsim.statistics.estimates import critical
from shadowsim.statistics.terms import CONFIDENCE
from shadowsim.text import grid, percent, trimmed_number, wrapped


def capacity_text(frame: pd.DataFrame, slo: Slo, confidence: float = CONFIDENCE) -> str:
    """Return one row per role of `capacity`, notes, and the answer in a sentence.

    After +- stand half-widths of intervals of the figures.
    """
    rows, notes = capacity_rows(frame, slo, confidence)
    lines = [wrapped(f"goals: {slo}", hanging="  "), "", grid(rows), ""]
    lines += [wrapped(note, hanging="  ") for note in notes]
    return "\n".join([*lines, "", wrapped(answer_text(frame))])


def capacity_rows(frame: pd.DataFrame, slo: Slo, confidence: float = CONFIDENCE) -> tuple[list[list[str]], list[str]]:
    """Return the table of `capacity`, its head first, and a note on each row."""
    names = list(dict.fromkeys(_name(goal) for goal in slo.goals if goal.metric != "utilisation"))
    table = [["", "requests/s", f"{100 * confidence:g} % interval", "x now", *names, "utilisation"]]
    notes = []
    for row in records(frame):
        figures = dict.fromkeys(names, "-")
        if _holds(row):
            t = critical(1.0 - confidence, row["replications"] - 1)
            for goal in slo.of(row["role"]):
                figures[_name(goal)] = figure(goal, row[goal.column], t * row[f"{goal.column}_error"])
        table.append(
            [
                row["role"],
                _rate(row["rate_per_s"]),
                _interval(row) if _holds(row) else "-",
                f"{row['factor']:.3g}" if _holds(row) else "-",
                *(figures[name] for name in names),
                percent(row["utilisation"]) if _holds(row) else "-",
            ]
        )
        notes.append(_note(row))
    return table, notes


def answer_text(frame: pd.DataFrame) -> str:
    """Return the greatest rate at which the goals of all roles hold, in a sentence."""
    row = records(frame)[0]
    if not _holds(row):
        return f"The {row['role']} holds no rate."
    pool = f"{row['instance_count']:,} x {row['instance_type']}"
    if math.isinf(row["high_per_s"]) and not row["binding"]:
        return f"The pools hold {_rate(row['rate_per_s'])} requests/s, the highest rate that was tried."
    return (
        f"The pools hold {_rate(row['rate_per_s'])} requests/s at the endpoint ({_interval(row)}), "
        f"{row['factor']:.3g} times the traffic's rate; the {row['role']}, {pool}, decides."
    )


def _holds(row: Row) -> bool:
    return not math.isnan(row["rate_per_s"])


def _note(row: dict[str, Any]) -> str:
    notes = []
    if row["binding"]:
        what = "the stability of its queues" if row["binding"] == STABILITY else row["binding"]
        notes.append(f"decided by {what}")
    if not math.isnan(row["limit_per_s"]):
        notes.append(f"stable below {_rate(row['limit_per_s'])} requests/s")
    if _holds(row):
        notes.append(f"{row['replications']} runs of {duration_text(3600.0 * row['simulated_h'])}")
    notes += [row["note"]] if row["note"] else []
    return f"{row['role']}: {'; '.join(notes)}"


def _interval(row: Row) -> str:
    return f"{_rate(row['low_per_s'])} to {_rate(row['high_per_s'])}"


def _rate(per_s: float) -> str:
    if math.isnan(per_s):
        return "-"
    return "any" if math.isinf(per_s) else trimmed_number(float(f"{per_s:.4g}"))


def _name(goal: Goal) -> str:
    return goal.column.removesuffix("_s").replace("_", "." if goal.metric == "quantile" else " ")
