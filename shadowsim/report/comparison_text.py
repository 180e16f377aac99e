"""Renders comparisons of saved runs as text, and decides whether a run passes as a gate.

A run does not pass if a metric is worse, or if a pool is OVERLOADED and its counterpart is not: the latencies of such a
pool depend on the length of the run, and may have no interval at all, so that no metric need have the outcome worse.

Rows show the change with a sign and a unit, and the interval in the same unit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from shadowsim.errors import InputError, nearest
from shadowsim.frames import ROLES
from shadowsim.planning.run_comparison import compare_runs
from shadowsim.statistics.comparison import compare, is_one_sided
from shadowsim.statistics.sections import Frames, frames_of
from shadowsim.statistics.terms import (
    BETTER,
    CONFIDENCE,
    MARGIN_PCT,
    MARGIN_POINTS,
    NOT_ENOUGH,
    NOT_ENOUGH_DATA,
    NOT_JUDGED,
    SAME,
    WORSE,
    Terms,
)
from shadowsim.text import OVERLOADED, compact, grid, percent, significant, time_text, wrapped
from shadowsim.verdict import STATUSES, verdict

Row = Mapping[str, Any]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _scaled(row: Row) -> tuple[float, float, float, str]:
    """Return a row's change and both ends of its interval in a readable unit, and the unit."""
    if row["unit"] != "s":
        return 100.0 * row["difference"], 100.0 * row["low"], 100.0 * row["high"], "pt"
    if math.isnan(row["ratio"]):
        scale, unit = (1e3, "ms") if abs(row["difference"]) < 1.0 else (1.0, "s")
        return scale * row["difference"], scale * row["low"], scale * row["high"], unit
    return 100.0 * (row["ratio"] - 1.0), 100.0 * (row["ratio_low"] - 1.0), 100.0 * (row["ratio_high"] - 1.0), "%"


def change(row: Row) -> str:
    """Return a row's difference as text: latencies in per cent, shares in points, paired requests as a time."""
    x, _, _, unit = _scaled(row)
    return f"{signed(x)} {unit}" if math.isfinite(x) else "-"


def interval(row: Row) -> str:
    """Return the interval of a row's `change` as text, in the same unit; "+40 or more" for a one-sided answer."""
    _, low, high, _ = _scaled(row)
    if is_one_sided(row):
        return f"{signed(low)} or more" if row["outcome"] == WORSE else f"{signed(high)} or less"
    return "-" if math.isnan(low) or math.isnan(high) else f"{signed(low)} to {signed(high)}"


def signed(x: float) -> str:
    """Return a number with its sign and two or three digits: "+12.1", "-0.31", "0"."""
    if math.isinf(x):
        return "+inf" if x > 0 else "-inf"
    text = significant(x, 3 if abs(x) >= 1.0 else 2)
    return text if x <= 0.0 else f"+{text}"


_METRICS = {
    "error_rate_4xx": "4XX errors",
    "error_rate_5xx": "5XX errors",
    "error_rate": "errors",
    "slo_miss": "SLO missed",
    "paired_mean": "pairs mean",
    "paired_p5": "      p5",
    "paired_p50": "      p50",
    "paired_p95": "      p95",
}
_NO_DIFFERENCE = "no difference"


@dataclass(frozen=True, slots=True, eq=False)
class SavedComparison:
    """A comparison of the variants of a saved run, or of the same variants of two runs. `str()` renders it.

    Attributes
    ----------
    table : DataFrame
        A frame of `compare` or of `compare_runs`.
    terms : Terms
        Margins of the table.
    confidence : float
        Confidence level of the intervals.
    overloaded : tuple of str
        One sentence per pool that is OVERLOADED and whose counterpart is not.
    head : str
        The compared runs or variants, in words.
    """

    table: pd.DataFrame
    terms: Terms
    confidence: float
    overloaded: tuple[str, ...]
    head: str

    @property
    def worse(self) -> bool:
        """Whether the run does not pass."""
        return bool(self.overloaded) or bool((self.table["outcome"] == WORSE).any())

    @property
    def unsure(self) -> bool:
        """Whether a metric has not enough data."""
        return bool((self.table["outcome"] == NOT_ENOUGH).any())

    def only(self, metrics: Sequence[str]) -> SavedComparison:
        """Return the comparison of some metrics only; of all if none is named.

        Raises
        ------
        InputError
            When a metric is unknown.
        """
        known = list(dict.fromkeys(self.table["metric"]))
        for metric in metrics:
            if metric not in known:
                raise InputError("--metric", f"must be one of {', '.join(known)}", metric, hint=nearest(metric, known))
        return replace(self, table=self.table[self.table["metric"].isin(metrics)]) if metrics else self

    def __str__(self) -> str:
        pair = ("baseline", "result") if "baseline" in self.table else ("source", "shadow")
        table = _without_empty_errors(self.table, pair)
        rows, same = [["", *pair, "change", f"{100 * self.confidence:g} % interval", "n_eff", "verdict"]], []
        parts = table.groupby("variant", sort=False) if "variant" in table else [("", table)]
        for name, part in ((str(name), part) for name, part in parts):
            if name and (part["difference"] == 0.0).all():
                same.append(f"{name}: the same in both runs, to the bit")
                continue
            rows += [[name] + [""] * 6] if name else []
            rows += [_cells(row, pair) for row in records(part)]
        sentences = [wrapped(f"{text}.", hanging="  ") for text in (*same, *self.overloaded)]
        blocks = [[wrapped(self.head)], [grid(rows, left=(0, 6))] if len(rows) > 1 else [],
                  [*sentences, *_verdict_lines(self.table)], _notes(table, self.terms)]  # fmt: skip
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def to_dict(self) -> dict[str, object]:
        """Return the comparison as a JSON object."""
        gate = {"worse": self.worse, "not_enough_data": self.unsure, "overloaded": list(self.overloaded)}
        return gate | {"confidence": self.confidence, "metrics": self.table.to_dict("records")}


def compare_saved(directory: Path, **asked: Any) -> SavedComparison:
    """Compare the shadow of a saved run, or of its replications, with the source.

    `asked` are keyword arguments of `compare`.
    """
    runs = frames_of(_folders(directory))
    table = compare(runs, **asked)
    statuses = _statuses(runs)
    overloaded = _overloaded(statuses.get("shadow"), statuses.get("source"), "and the source is not")
    sides = [f"{role} {_name(runs, role)}" for role in ROLES]
    n = [int(table[f"n_{role}"].max()) for role in ROLES]
    requests = "; ".join(f"{side}: {count:,} requests" for side, count in zip(sides, n, strict=True))
    replications = f", of {len(runs)} replications" if len(runs) > 1 else ""
    return SavedComparison(
        table, _terms(asked), asked.get("confidence", CONFIDENCE), overloaded, f"{requests}{replications}"
    )


def compare_two_saved(earlier: Path, later: Path, role: str | None, **asked: Any) -> SavedComparison:
    """Compare the variants of a saved run with the same ones of an earlier run.

    `asked` are keyword arguments of `compare_runs`.
    """
    if role is not None and role not in ROLES:
        raise InputError("--role", "must be source or shadow", role)
    roles = ROLES if role is None else (role,)
    table = compare_runs(later, earlier, **asked)
    before, after = (_statuses(frames_of(_folders(folder))) for folder in (earlier, later))
    overloaded = [s for r in roles for s in _overloaded(after.get(r), before.get(r), f"and was not in {earlier}")]
    head = f"baseline: {earlier}; result: {later}"
    shown = table[table["role"].isin(roles)]
    return SavedComparison(shown, _terms(asked), asked.get("confidence", CONFIDENCE), tuple(overloaded), head)


def _terms(asked: Mapping[str, Any]) -> Terms:
    return Terms(asked.get("margin_pct", MARGIN_PCT), asked.get("margin_points", MARGIN_POINTS))


def _folders(directory: Path) -> list[Path]:
    """Return the directories of the runs that `simulate -o` wrote: one, or one per replication."""
    if not os.path.isdir(directory):  # reading it raises the error
        return [directory]
    return [p for r in range(len(os.listdir(directory))) if (p := directory / f"replication-{r}").is_dir()] or [
        directory
    ]


def _statuses(runs: Sequence[Frames]) -> Mapping[str, tuple[str, str]]:
    """Return by role the gravest status of its pool over the runs, and the variant."""
    statuses: dict[str, tuple[str, str]] = {}
    for run in runs:
        if "windows" not in run or "utilisation" not in run["windows"]:
            continue  # a CloudWatch export has no utilisation
        for pool in verdict(run["windows"]).pools:
            worst = max(statuses.get(pool.role, (STATUSES[0],))[0], pool.status, key=STATUSES.index)
            statuses[pool.role] = worst, pool.variant
    return statuses


def _overloaded(pool: tuple[str, str] | None, other: tuple[str, str] | None, contrast: str) -> tuple[str, ...]:
    """Return the sentence about a pool that is OVERLOADED and whose counterpart is not, or none."""
    if pool is None or pool[0] != OVERLOADED or (other is not None and other[0] == OVERLOADED):
        return ()
    return (f"{pool[1]} is {OVERLOADED}, {contrast}",)


def label(metric: str) -> str:
    """Return the name of a metric in text tables."""
    return _METRICS.get(metric, metric)


def _name(runs: Sequence[Frames], role: str) -> str:
    frame = next(iter(runs[0].values()))
    names = frame.loc[frame["role"] == role, "variant"] if "variant" in frame else pd.Series(dtype=str)
    return str(names.iloc[0]) if len(names) else ""


def _cells(row: Row, pair: Sequence[str]) -> list[str]:
    values = [row[side] for side in pair]
    name = label(row["metric"])
    n_eff = "-" if math.isnan(row["n_eff"]) else compact(row["n_eff"])
    outcome = _NO_DIFFERENCE if row["outcome"] == SAME else row["outcome"] if is_one_sided(row) else row["verdict"]
    value_text = time_text if row["unit"] == "s" else lambda x: percent(x, 3)
    return [name, *map(value_text, values), change(row), interval(row), n_eff, outcome]


def _verdict_lines(table: pd.DataFrame) -> list[str]:
    by_variant = "variant" in table
    lines = []
    for outcome, heading in ((WORSE, "Worse"), (BETTER, "Better"), (NOT_ENOUGH, "Not enough data for")):
        rows = records(table[table["outcome"] == outcome])
        if not rows:
            continue
        names = [f"{row['variant']} {row['metric']}" if by_variant else row["metric"] for row in rows]
        if outcome != NOT_ENOUGH:
            names = [f"{name} {_sure_change(row)}" for name, row in zip(names, rows, strict=True)]
        lines.append(wrapped(f"{heading}: {', '.join(names)}.", hanging="  "))
    judged = table["outcome"][table["outcome"] != NOT_JUDGED]
    if (judged == SAME).all():
        return ["No metric differs by more than the margin."]
    return lines if (judged == WORSE).any() else ["No metric is worse.", *lines]


def _sure_change(row: Row) -> str:
    """Return a row's `change`, or the least one of a one-sided answer, whose estimate is uncertain."""
    if not is_one_sided(row):
        return change(row)
    _, low, high, unit = _scaled(row)
    return f"at least {signed(low if row['outcome'] == WORSE else high)} {unit}"


def _without_empty_errors(table: pd.DataFrame, pair: Sequence[str]) -> pd.DataFrame:
    """Return the rows without those of 4XX and 5XX errors that did not occur, unless there are no others."""
    empty = table["metric"].isin(["error_rate_4xx", "error_rate_5xx"]) & (table[list(pair)] == 0.0).all(axis=1)
    return table if empty.all() else table[~empty]


def _notes(table: pd.DataFrame, terms: Terms) -> list[str]:
    notes = []
    units = dict.fromkeys(table["unit"][table["outcome"] == SAME])
    if units:
        margins = " or ".join(terms.margin_text(unit) for unit in units)
        notes.append(f"{_NO_DIFFERENCE}: the whole interval lies within the margin, {margins}.")
    if (table["outcome"] == NOT_ENOUGH).any():
        notes.append(
            f"{NOT_ENOUGH_DATA}: the interval contains 0 and exceeds the margin, or there is none; run longer."
        )
    if any(is_one_sided(row) for row in records(table)):
        notes.append("or more, or less: one side has too few independent answers for the other end; run longer.")
    if table["metric"].str.startswith("paired").any():
        notes.append("pairs: shadow minus source of the same request; equal variants have a p5 and a p95, too.")
    notes.append("n_eff: effective sample size of the smaller side.")
    methods = dict.fromkeys(method.partition(",")[0] for method in table["method"])
    same = " Both runs have the same requests." if table["method"].str.endswith("same requests").any() else ""
    notes.append(f"Intervals from {' and '.join(methods)}.{same}")
    return [wrapped(note, hanging="  ") for note in notes]
