"""Formats a rehearsal: live and simulated figures side by side, and how the variants differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shadowsim.frames import ROLES
from shadowsim.measuring.rehearsal import HIGHER, LOWER
from shadowsim.report.comparison_text import change, interval, records
from shadowsim.report.load_text import target_lines, verdict_lines
from shadowsim.statistics.terms import BETTER, NOT_JUDGED, WORSE
from shadowsim.text import count, grid, percent, time_text, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from shadowsim.measuring.rehearsal import LiveRehearsal

CALIBRATED = "Intervals hold the chance of the runs; that the service was itself measured is in the bands of `predict`."


def rehearsal_text(run: LiveRehearsal) -> str:
    """Return a rehearsal in lines of at most 80 columns."""
    callers = [] if run.load is None else ["", *target_lines(run.load), *verdict_lines(run.load)]
    lines = [*map(wrapped, what_ran(run)), *callers, "", grid(figure_rows(run)), ""]
    lines += [wrapped(sentence, hanging="  ") for sentence in [difference_sentence(run), *agreement_sentences(run)]]
    return "\n".join([*lines, wrapped(CALIBRATED)])


def what_ran(run: LiveRehearsal) -> list[str]:
    """Return sentences on the live test: its requests, the share copied, and lost copies."""
    experiment = run.simulated.scenario.experiment
    n, n_copies = (int((run.live.requests["role"] == role).sum()) for role in ROLES)
    share = percent(n_copies / n, 3) if n else "none"
    lost = ", ".join(f"{count(number)} by {cause}" for cause, number in run.lost.items())
    return [
        f"Live: {experiment.name}, {count(n)} requests to {experiment.source.name}; "
        f"{count(n_copies)} ({share} of {experiment.sampling_percentage} %) were copied to "
        f"{experiment.shadow.name}. Copies lost: {lost or 'none'}."
    ]


def figure_rows(run: LiveRehearsal) -> list[list[str]]:
    """Return the figures under two rows of headings: who, and whether live or simulated."""
    names = [name.partition("_") for name in run.figures.columns]
    rows = [
        ["", *(role or kind for kind, _, role in names)],
        ["", *(kind if role else "live" for kind, _, role in names)],
    ]
    for figure, values in run.figures.iterrows():
        rows.append([label(str(figure)), *(figure_text(str(figure), float(value)) for value in values)])
    return rows


def label(metric: str) -> str:
    """Return the name of a metric or figure in words."""
    return metric.replace("_", " ")


def figure_text(figure: str, value: float) -> str:
    """Return a figure with its unit."""
    if math.isnan(value):
        return "-"
    if figure == "requests":
        return count(int(value))
    return percent(value, 2) if figure == "error_rate" else time_text(value)


def difference_sentence(run: LiveRehearsal) -> str:
    """Return how the live shadow differs from the live source."""
    judged = run.comparison[run.comparison["outcome"] != NOT_JUDGED]
    return f"Shadow against source, live: {_by_verdict(judged, lambda row: str(row['verdict']))}."


def agreement_sentences(run: LiveRehearsal) -> list[str]:
    """Return for each variant whether it is as simulated, and which metrics are not."""
    sentences = []
    for role in ROLES:
        rows = run.against_simulation[run.against_simulation["role"] == role]
        verdict, groups = run.verdicts[role], _by_verdict(rows, agreement_text)
        found = f": {groups.removeprefix(f'{verdict}: ')}" if groups.startswith(f"{verdict}: ") else f"; {groups}"
        sentences.append(f"{role.capitalize()}: {verdict}{found}.")
    return sentences


def agreement_text(row: Mapping[str, Any]) -> str:
    """Return whether a live metric is as the simulated one."""
    return str(row["agreement"])


def _by_verdict(table: pd.DataFrame, verdict_of: Callable[[Mapping[str, Any]], str]) -> str:
    """Return the metrics by verdict, those that differ with their changes."""
    groups: dict[str, list[str]] = {}
    for row in records(table):
        verdict = verdict_of(row)
        differs = verdict in (HIGHER, LOWER) or ("agreement" not in row and row["outcome"] in (WORSE, BETTER))
        within = "" if interval(row) == "-" else f" ({interval(row)})"
        shown = f" {change(row)}{within}" if differs and change(row) != "-" else ""
        groups.setdefault(verdict, []).append(f"{label(str(row['metric']))}{shown}")
    return "; ".join(f"{verdict}: {', '.join(metrics)}" for verdict, metrics in groups.items()) or "nothing to compare"
