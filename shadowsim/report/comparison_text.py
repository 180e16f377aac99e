"""Renders comparisons of saved runs as text, and decides whether a run passes as a gate.

A run does not pass if a metric is worse, or if a pool is OVERLOADED and its counterpart is not: the latencies of such a
pool depend on the length of the run, and may have no interval at all, so that no metric need have the outcome worse.

Rows show the change with a sign and a unit, and the interval in the same unit.

Where the sides do not carry the same load, the text begins with that, and with the difference that the model's own
service makes: that at the same load.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError, did_you_mean
from shadowsim.frames import ROLES
from shadowsim.measuring.generator.load_run import is_load_run
from shadowsim.planning.run_comparison import EqualLoad, at_source_load, compare_runs
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.comparison import compare
from shadowsim.statistics.loads import ATTRIBUTE, Loads, loads_of_table, note_of_pools, note_of_sessions
from shadowsim.statistics.metric_rows import is_one_sided, is_uncertain
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
from shadowsim.text import OVERLOADED, compact, grid, percent, significant, time_text, trimmed_time, wrapped
from shadowsim.verdict import STATUSES, TOO_SHORT, PoolVerdict, verdict

Row = Mapping[str, Any]


def pair_of(table: pd.DataFrame) -> tuple[str, str]:
    """Return the names of a comparison's sides: baseline and result, or source and shadow."""
    return ("baseline", "result") if "baseline" in table else ("source", "shadow")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _scaled(row: Row) -> tuple[float, float, float, str]:
    """Return a row's change and both ends of its interval in a readable unit, and the unit."""
    if row["unit"] != "s":
        return 100.0 * row["difference"], 100.0 * row["low"], 100.0 * row["high"], "pt"
    if _LARGE <= row["ratio"] < math.inf:
        return row["ratio"], row["ratio_low"], row["ratio_high"], _TIMES
    if math.isnan(row["ratio"]):
        scale, unit = (1e3, "ms") if abs(row["difference"]) < 1.0 else (1.0, "s")
        return scale * row["difference"], scale * row["low"], scale * row["high"], unit
    return 100.0 * (row["ratio"] - 1.0), 100.0 * (row["ratio_low"] - 1.0), 100.0 * (row["ratio_high"] - 1.0), "%"


def change(row: Row) -> str:
    """Return a row's difference as text: latencies in per cent or as a factor, shares in points, pairs as a time."""
    x, _, _, unit = _scaled(row)
    return f"{_figure(x, unit)} {unit}" if math.isfinite(x) and not is_uncertain(row) else "-"


def values(row: Row) -> list[str]:
    """Return the values of both sides as text.

    A quantile without an interval is a dash, and one with a lower end only, as of a one-sided answer, is "> 312 ms".
    """
    texts = []
    for side in ("baseline", "result") if "baseline" in row else ("source", "shadow"):
        low, high = row[f"{side}_low"], row[f"{side}_high"]
        if row["unit"] != "s":
            texts.append(percent(row[side], 3))
        elif math.isinf(high):
            texts.append(f"> {time_text(low)}")
        else:
            texts.append("-" if is_uncertain(row) and math.isnan(low + high) else time_text(row[side]))
    return texts


def interval(row: Row) -> str:
    """Return the interval of a row's `change` as text, in the same unit; "+40 or more" for a one-sided answer."""
    _, low, high, unit = _scaled(row)
    if is_one_sided(row):
        return f"{_figure(low, unit)} or more" if row["outcome"] == WORSE else f"{_figure(high, unit)} or less"
    return "-" if math.isnan(low) or math.isnan(high) else f"{_figure(low, unit)} to {_figure(high, unit)}"


def _figure(x: float, unit: str) -> str:
    return significant(x) if unit == _TIMES and math.isfinite(x) else signed(x)


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
    "ttft_slo_miss": "ttft SLO missed",
    "tpot_slo_miss": "tpot SLO missed",
    "paired_mean": "pairs mean",
    "paired_p5": "      p5",
    "paired_p50": "      p50",
    "paired_p95": "      p95",
}
_MISSED_PAIR = re.compile(r"goodput_miss\(ttft <= (\S+) s, tpot <= (\S+) s\)")
_OF_TOKENS = re.compile(r"^(ttft|tpot)_")
_LARGE, _TIMES = 10.0, "times"  # factors from which a change reads better as one than in per cent
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
    too_short : tuple of str
        One sentence per pool for which a run is TOO SHORT.
    loads : Loads or None
        The loads of the two sides of a run, where they differ.
    equal_load : EqualLoad or None
        The shadow at the source's load, where it could be simulated.
    notes : tuple of str
        What else than the models makes sides differ: sessions that are copied whole, or loads that differ between runs.
    name : str
        What was compared, in short: the experiment, or the directories of two runs.
    """

    table: pd.DataFrame
    terms: Terms
    confidence: float
    overloaded: tuple[str, ...]
    head: str
    too_short: tuple[str, ...] = ()
    loads: Loads | None = None
    equal_load: EqualLoad | None = None
    notes: tuple[str, ...] = ()
    name: str = ""

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
                raise InputError(
                    "--metric", f"must be one of {', '.join(known)}", metric, hint=did_you_mean(metric, known)
                )
        return replace(self, table=self.table[self.table["metric"].isin(metrics)]) if metrics else self

    def __str__(self) -> str:
        rows = self.rows()
        loads = [wrapped(sentence) for sentence in load_sentences(self.loads, self.equal_load, self.notes)]
        short = [wrapped(f"{TOO_SHORT}: {' '.join(self.too_short)}", hanging="  ")] if self.too_short else []
        table = [grid(rows, left=(0, 6))] if len(rows) > 1 else []
        said, notes = (
            [wrapped(text, hanging="  ") for text in texts]
            for texts in ([*self.unchanged(), *self.conclusions()], self.reading())
        )
        blocks = [short, loads, [wrapped(self.head)], table, said, notes]
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def unchanged(self) -> list[str]:
        """Return a sentence per variant that is the same in both runs."""
        return [f"{name}: the same in both runs, to the bit." for name, part in self._parts() if _is_same(name, part)]

    def conclusions(self) -> list[str]:
        """Return sentences on what is overloaded, and what is worse, better and undecided."""
        return [*(f"{text}." for text in self.overloaded), *verdict_sentences(self.table, self.loads)]

    def reading(self) -> list[str]:
        """Return sentences on how to read the table."""
        return reading_notes(self._shown, self.terms)

    def rows(self) -> list[list[str]]:
        """Return a head and a row of cells per metric; those of each variant below its name."""
        rows = [["", *pair_of(self.table), "change", f"{100 * self.confidence:g} % interval", "n_eff", "verdict"]]
        for name, part in self.differing():
            rows += [[name] + [""] * 6] if name else []
            rows += [_cells(row) for row in records(part)]
        return rows

    def differing(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the rows that are shown of each variant that is not the same in both runs, by its name."""
        return [(name, part) for name, part in self._parts() if not _is_same(name, part)]

    @property
    def _shown(self) -> pd.DataFrame:
        return _without_empty_errors(self.table, pair_of(self.table))

    def _parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the rows of each variant; all of them under "" in a comparison of two variants."""
        if "variant" not in self._shown:
            return [("", self._shown)]
        return [(str(name), part) for name, part in self._shown.groupby("variant", sort=False)]

    def to_dict(self) -> dict[str, object]:
        """Return the comparison as a JSON object."""
        gate = {"worse": self.worse, "not_enough_data": self.unsure, "overloaded": list(self.overloaded)}
        gate["too_short"] = list(self.too_short)
        load = self.loads and self.loads.to_dict() | {"at_source_load": _equal_load_dict(self.equal_load)}
        return (
            gate
            | {"confidence": self.confidence, "metrics": self.table.to_dict("records"), "load": load}
            | {"notes": list(self.notes)}
        )


def compare_saved(directory: Path, **asked: Any) -> SavedComparison:
    """Compare the shadow of a saved run, or of its replications, with the source.

    `asked` are keyword arguments of `compare`.
    """
    folders = _folders(directory)
    if is_load_run(directory):
        raise InputError(str(directory), "is a load run of one service: compare it with another run of it (DIR DIR2)")
    runs = frames_of(folders)
    table = compare(runs, **asked)
    scenarios = [_scenario_of(folder) for folder in folders]
    statuses = _statuses(runs, scenarios)
    overloaded = _overloaded(statuses.get("shadow"), statuses.get("source"), "and the source is not")
    sides = [f"{role} {_name(runs, role)}" for role in ROLES]
    n = [int(table[f"n_{role}"].max()) for role in ROLES]
    requests = "; ".join(f"{side}: {count:,} requests" for side, count in zip(sides, n, strict=True))
    replications = f", of {len(runs)} replications" if len(runs) > 1 else ""
    loads = loads_of_table(table)
    source_status = statuses["source"].status if "source" in statuses else ""
    equal = equal_load(scenarios[0], loads, source_status, **_plain_terms(asked))
    head, short, confidence = f"{requests}{replications}", _too_short(statuses), asked.get("confidence", CONFIDENCE)
    notes = tuple(filter(None, [note_of_sessions(runs), note_of_pools(runs)]))
    name = scenarios[0].experiment.name if scenarios[0] else directory.name
    return SavedComparison(table, _terms(asked), confidence, overloaded, head, short, loads, equal, notes, name)


def equal_load(
    scenario: Scenario | None, loads: Loads | None, source_status: str = "", **terms: Any
) -> EqualLoad | None:
    """Return the comparison at the source's load where loads differ, and None where that says nothing or is unknown.

    `terms` are keyword arguments of `compare`.
    """
    if scenario is None or loads is None or loads.same_requests or source_status == OVERLOADED:
        return None
    try:
        return at_source_load(scenario, **terms)
    except InputError:
        return None  # such as a pool that would be too large: the loads themselves are still shown


def load_sentences(loads: Loads | None, equal: EqualLoad | None, notes: Sequence[str] = ()) -> list[str]:
    """Return the sentences on unequal loads, on what the model's own service explains, and other notes that exist."""
    sentences = [loads.note] if loads else []
    if loads and equal:
        sentences.append(_equal_load_text(equal))
    return [*sentences, *filter(None, notes)]


def _equal_load_text(equal: EqualLoad) -> str:
    """Return the difference at the source's load in words."""
    s, shadow = equal.scenario, equal.verdict.shadow
    n = s.side("shadow").n_instances
    whole = f" of {duration_text(equal.horizon_s)}" if s.horizon_s < equal.horizon_s else ""
    instances = "1 instance" if n == 1 else f"{n:,} instances"
    where = f"At the source's load (simulated: all requests to {instances}, {duration_text(s.horizon_s)}{whole})"
    if shadow.status == OVERLOADED:
        return f"{where} {shadow.variant} would be {OVERLOADED}, at {shadow.peak_load:.2f} of its capacity."
    rows = {row["metric"]: row for row in records(equal.table)}
    known = [name for name in ("mean", "p50", "p99") if name in rows and change(rows[name]) != "-"]
    changes = [f"{name} {change(rows[name])}{_bounds(rows[name])}" for name in known]
    differs = f"{where} the shadow would differ by {', '.join(changes)}"
    return f"{differs}: the difference that remains is the model's, the rest is due to load."


def _bounds(row: Row) -> str:
    return "" if interval(row) == "-" else f" ({interval(row)})"


def _equal_load_dict(equal: EqualLoad | None) -> dict[str, object] | None:
    if equal is None:
        return None
    n = equal.scenario.side("shadow").n_instances
    return {
        "simulated_s": equal.scenario.horizon_s,
        "shadow_instances": n,
        "shadow_verdict": equal.verdict.shadow.status,
        "metrics": equal.table.to_dict("records"),
    }


def compare_two_saved(earlier: Path, later: Path, role: str | None, **asked: Any) -> SavedComparison:
    """Compare the variants of a saved run with the same ones of an earlier run.

    `asked` are keyword arguments of `compare_runs`.
    """
    if role is not None and role not in ROLES:
        raise InputError("--role", "must be source or shadow", role)
    roles = ROLES if role is None else (role,)
    if is_load_run(earlier) or is_load_run(later):
        roles = ("source",)  # a load run has no other
    table = compare_runs(later, earlier, **asked)
    before, after = (_statuses_in(folder) for folder in (earlier, later))
    short = tuple(
        f"{folder}: {text}"
        for folder, statuses in ((earlier, before), (later, after))
        for text in _too_short({role: pool for role, pool in statuses.items() if role in roles})
    )
    overloaded = [s for r in roles for s in _overloaded(after.get(r), before.get(r), f"and was not in {earlier}")]
    head = f"baseline: {earlier}; result: {later}"
    shown = table[table["role"].isin(roles)]
    differing = table.attrs.get(ATTRIBUTE, {})
    notes = tuple(load["note"] for name, load in differing.items() if name in set(shown["variant"]))
    confidence = asked.get("confidence", CONFIDENCE)
    name = f"{later.name} against {earlier.name}"
    return SavedComparison(shown, _terms(asked), confidence, tuple(overloaded), head, short, notes=notes, name=name)


def _plain_terms(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of `compare` that hold for another run as well."""
    plain = ("margin_pct", "margin_points", "confidence", "slo_s", "ttft_slo_s", "tpot_slo_s")
    return {name: asked[name] for name in plain if name in asked}


def _terms(asked: Mapping[str, Any]) -> Terms:
    return Terms(asked.get("margin_pct", MARGIN_PCT), asked.get("margin_points", MARGIN_POINTS))


def _folders(directory: Path) -> list[Path]:
    """Return the directories of the runs that `simulate -o` wrote: one, or one per replication."""
    if not os.path.isdir(directory):  # reading it raises the error
        return [directory]
    return [p for r in range(len(os.listdir(directory))) if (p := directory / f"replication-{r}").is_dir()] or [
        directory
    ]


def _scenario_of(folder: Path) -> Scenario | None:
    """Return the scenario of a saved run; None for frames alone, or if it cannot be read, as without its trace.

    That of a load run says nothing about the service, and None is returned, too.
    """
    if is_load_run(folder):
        return None
    try:
        return Scenario.load(folder / "scenario.json") if (folder / "scenario.json").is_file() else None
    except InputError:
        return None


def _statuses_in(directory: Path) -> dict[str, PoolVerdict]:
    folders = _folders(directory)
    return _statuses(frames_of(folders), [_scenario_of(folder) for folder in folders])


def _statuses(runs: Sequence[Frames], scenarios: Sequence[Scenario | None]) -> dict[str, PoolVerdict]:
    """Return by role the gravest verdict of a pool over the runs."""
    statuses: dict[str, PoolVerdict] = {}
    for run, scenario in zip(runs, scenarios, strict=True):
        if "windows" not in run or "utilisation" not in run["windows"]:
            continue  # a CloudWatch export has no utilisation
        for pool in verdict(run["windows"], scenario).pools:
            worst = statuses.get(pool.role, pool)
            statuses[pool.role] = max(worst, pool, key=lambda one: STATUSES.index(one.status))
    return statuses


def _too_short(statuses: Mapping[str, PoolVerdict]) -> tuple[str, ...]:
    return tuple(pool.why for pool in statuses.values() if pool.status == TOO_SHORT)


def _overloaded(pool: PoolVerdict | None, other: PoolVerdict | None, contrast: str) -> tuple[str, ...]:
    """Return the sentence about a pool that is OVERLOADED and whose counterpart is not, or none."""
    if pool is None or pool.status != OVERLOADED or (other is not None and other.status == OVERLOADED):
        return ()
    return (f"{pool.variant} is {OVERLOADED}, {contrast}",)


def _is_same(name: str, part: pd.DataFrame) -> bool:
    """Return whether a variant did not differ at all between two runs."""
    return bool(name) and bool((part["difference"] == 0.0).all())


def label(metric: str) -> str:
    """Return the name of a metric in text tables."""
    if pair := _MISSED_PAIR.fullmatch(metric):
        return f"missed {' / '.join(trimmed_time(float(limit)) for limit in pair.groups())}"
    return _METRICS.get(metric, _OF_TOKENS.sub(r"\1 ", metric))


def _name(runs: Sequence[Frames], role: str) -> str:
    frame = next(iter(runs[0].values()))
    names = frame.loc[frame["role"] == role, "variant"] if "variant" in frame else pd.Series(dtype=str)
    return str(names.iloc[0]) if len(names) else ""


def _cells(row: Row) -> list[str]:
    name = label(row["metric"])
    n_eff = "-" if math.isnan(row["n_eff"]) else compact(row["n_eff"])
    return [name, *values(row), change(row), interval(row), n_eff, outcome_text(row)]


def outcome_text(row: Row) -> str:
    """Return a row's verdict in a few words: "worse", "no difference at 42 % load" where loads differ."""
    verdict, _, load = str(row["verdict"]).partition(", at ")
    outcome = _NO_DIFFERENCE if row["outcome"] == SAME else row["outcome"] if is_one_sided(row) else verdict
    return f"{outcome} at {load.partition(' against ')[0]}" if load else str(outcome)


def verdict_sentences(table: pd.DataFrame, loads: Loads | None) -> list[str]:
    """Return what is worse, better and undecided in a comparison, a sentence each."""
    by_variant = "variant" in table
    qualifier = f", {loads.qualifier}" if loads and loads.qualifier else ""
    lines = []
    for outcome, heading in ((WORSE, "Worse"), (BETTER, "Better"), (NOT_ENOUGH, "Not enough data for")):
        rows = records(table[table["outcome"] == outcome])
        if not rows:
            continue
        names = [str(row["metric"]).replace("_", " ") for row in rows]
        names = [f"{row['variant']} {name}" if by_variant else name for name, row in zip(names, rows, strict=True)]
        if outcome != NOT_ENOUGH:
            names = [f"{name} {_sure_change(row)}" for name, row in zip(names, rows, strict=True)]
        where = qualifier if outcome != NOT_ENOUGH else ""
        lines.append(f"{heading}{where}: {', '.join(names)}.")
    judged = table["outcome"][table["outcome"] != NOT_JUDGED]
    if (judged == SAME).all():
        return [f"No metric differs by more than the margin{qualifier}."]
    return lines if (judged == WORSE).any() else [f"No metric is worse{qualifier}.", *lines]


def _sure_change(row: Row) -> str:
    """Return a row's `change`, or the least one of a one-sided answer, whose estimate is uncertain."""
    if not is_one_sided(row):
        return change(row)
    _, low, high, unit = _scaled(row)
    return f"at least {_figure(low if row['outcome'] == WORSE else high, unit)} {unit}"


def _without_empty_errors(table: pd.DataFrame, pair: Sequence[str]) -> pd.DataFrame:
    """Return the rows without those of 4XX and 5XX errors that did not occur, unless there are no others."""
    empty = table["metric"].isin(["error_rate_4xx", "error_rate_5xx"]) & (table[list(pair)] == 0.0).all(axis=1)
    return table if empty.all() else table[~empty]


def reading_notes(table: pd.DataFrame, terms: Terms) -> list[str]:
    """Return sentences on how to read a comparison's table."""
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
    if table["metric"].str.match(_OF_TOKENS).any():
        notes.append("ttft, tpot: times from arrival to the first token, and per token after it.")
    if table["metric"].str.match(_MISSED_PAIR).any():
        notes.append("missed: requests that are not answered within both limits, of ttft and of tpot (run.goodput).")
    if table["metric"].str.startswith("paired").any():
        notes.append("pairs: shadow minus source of the same request; equal variants have a p5 and a p95, too.")
    notes.append("n_eff: effective sample size of the smaller side.")
    methods = dict.fromkeys(method.partition(",")[0] for method in table["method"])
    same = " Both runs have the same requests." if table["method"].str.endswith("same requests").any() else ""
    notes.append(f"Intervals from {' and '.join(methods)}.{same}")
    return notes
