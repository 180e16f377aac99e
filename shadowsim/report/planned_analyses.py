"""Tells what frames of sizes, rates, plans, sweeps and comparisons answer, for their pages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import pandas as pd

from shadowsim import plots
from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError
from shadowsim.option_defaults import EFFECT, POWER
from shadowsim.planning.sheet import answers, recommend
from shadowsim.planning.slo import Slo, parse_slo
from shadowsim.plots.goal_axis import goals_of
from shadowsim.plots.heatmap import setting_in_words, setting_title, sweep_maps
from shadowsim.report.analysis import BAD, GOOD, NEUTRAL, UNSURE, Analysis, table_of
from shadowsim.report.analysis_text import (
    alarms_text,
    noise_answer,
    noise_rows,
    noise_setup,
    plan_answer,
    plan_rows,
    size_answer,
    size_rows,
    sweep_answer,
    sweep_rows,
)
from shadowsim.report.capacity_text import answer_text, capacity_rows
from shadowsim.report.comparison_text import SavedComparison, change, load_sentences, pair_of, records
from shadowsim.report.html_page import Chart
from shadowsim.report.run_text import overload_note
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.loads import SESSIONS, loads_of_table
from shadowsim.statistics.terms import (
    BETTER,
    CONFIDENCE,
    MARGIN_PCT,
    MARGIN_POINTS,
    NOT_JUDGED,
    WORSE,
    Terms,
)
from shadowsim.text import OVERLOADED, percent, time_text
from shadowsim.verdict import TOO_SHORT, is_uncertain_in

_MOST_NAMED = 4  # overloaded cells of a sweep in a sentence

Goal = str | Slo | float | None


def analysis_of_frame(frame: pd.DataFrame, goal: Goal = None, scenario: Scenario | None = None) -> Analysis:
    """Return what the page of a frame shows; the frame's columns tell which function returned it.

    Raises
    ------
    InputError
        If no such function returns such a frame.
    """
    for columns, analysis in _KINDS.items():
        if set(columns) <= set(frame.columns):
            return analysis(frame, goal, scenario)
    raise InputError("frame", "must be one of size, capacity, plan, sweep, compare or noise_floor")


def _slo_of(frame: pd.DataFrame, goal: Goal) -> Slo:
    """Return the goals that are given, or that the frame was made for, or else those that decided."""
    given = goal if isinstance(goal, str | Slo) else frame.attrs.get("goals")
    return parse_slo(given) if given else Slo(tuple(goals_of(frame, None)))


def _size(frame: pd.DataFrame, goal: Goal, scenario: Scenario | None) -> Analysis:
    known = bool(frame["instance_count"].notna().any())
    slo = _slo_of(frame, goal) if known or goal or "goals" in frame.attrs else None
    duration_s = scenario.experiment.duration_s if scenario else frame.attrs.get("duration_s", math.nan)
    said, tables = [], []
    for role, part in frame.groupby("role", sort=False):
        said.append(" ".join(size_answer(part, str(role), duration_s).split()))
        best = answers(part).index[:1]
        if slo is not None:
            rows, notes = size_rows(part, slo)
            kinds = "|".join(map(re.escape, part["instance_type"]))
            texts = [re.sub(rf"^(?:{kinds})(?:, [^:;]+)?: ", "", "; ".join(of_row)) for of_row in notes]
            tables.append(table_of(rows, "", texts, [list(part.index).index(key) for key in best]))
    solved = answers(frame).groupby("role").first()
    all_solved = len(solved) == frame["role"].nunique()
    tone = BAD if not all_solved else GOOD if solved["certain"].all() else UNSURE
    charts = []
    if known:
        charts = [
            Chart("instances", plots.latency_against_instances(frame, slo), _tried_text(frame, slo)),
            Chart("cost", plots.cost_frontier(frame, slo), " ".join(said)),
        ]
    return Analysis(
        kicker="Fewest instances that meet the goals",
        answer=" ".join(said),
        charts=charts,
        tables=tables,
        tone=tone,
        texts=[f"Goals: {slo}."] if slo else [],
        notes=["Cheapest first. After ±: the half-width of the 95 % interval. The bold row is the answer."],
    )


def _tried_text(frame: pd.DataFrame, slo: Slo | None) -> str:
    """Return the first goal's metric at each count that was tried."""
    goal = goals_of(frame, slo)[0]
    tried = pd.DataFrame(frame.attrs.get("tried", []))
    both = pd.concat([frame, tried], ignore_index=True) if len(tried) else frame
    both = both[(both["role"] == goal.role) & both["instance_count"].notna() & both[goal.column].notna()]
    both = both.drop_duplicates(["instance_type", "instance_count"]).sort_values(["instance_type", "instance_count"])
    show = time_text if goal.is_time else percent
    texts = [f"{row['instance_count']} x {row['instance_type']} {show(row[goal.column])}" for row in records(both)]
    return f"{goal}, by instances: {', '.join(texts)}."


def _capacity(frame: pd.DataFrame, goal: Goal, _: Scenario | None) -> Analysis:
    slo = _slo_of(frame, goal) if goal or "goals" in frame.attrs or frame["binding"].any() else None
    holds = bool(frame["rate_per_s"].notna().any())
    confidence = float(frame.attrs.get("confidence", CONFIDENCE))
    tables, charts = [], []
    if slo is not None:
        rows, notes = capacity_rows(frame, slo, confidence)
        rows[0] = [head.replace("x now", "× now") for head in rows[0]]
        tables = [table_of(rows, "", [note.partition(": ")[2] for note in notes])]  # each stands below its row
    if holds and slo is not None:
        charts = [Chart("rates", plots.latency_against_rate(frame, slo), answer_text(frame))]
    return Analysis(
        kicker="Greatest rate that the pools hold",
        answer=answer_text(frame),
        charts=charts,
        tables=tables,
        tone=NEUTRAL if holds else BAD,
        texts=[f"Goals: {slo}."] if slo else [],
        notes=["After ±: the half-width of the interval."],
    )


def _plan(frame: pd.DataFrame, goal: Goal, _: Scenario | None) -> Analysis:
    effect = str(frame.attrs.get("effect", EFFECT))
    power = float(goal if isinstance(goal, int | float) else frame.attrs.get("power", POWER))
    rows, notes = plan_rows(frame, effect)
    best = recommend(frame)
    chosen = [] if best is None else [list(frame.index).index(best.name)]
    likeliest = records(frame.sort_values("power", ascending=False, kind="stable"))[0]
    gist = (
        f"Found most often, in {percent(likeliest['power'], 0)} of tests: {likeliest['sampling_percentage']} % of the "
        f"requests for {duration_text(likeliest['duration_s'])}."
    )
    found = plan_answer(frame, power, effect)
    return Analysis(
        kicker="Plan of a shadow test",
        answer=found,
        charts=[Chart("power", plots.power(frame), gist), Chart("cost", plots.cost_frontier(frame, power), found)],
        tables=[table_of(rows, "The bold row is the answer." if chosen else "", chosen=chosen)],
        tone=NEUTRAL if chosen else BAD,
        notes=notes,
    )


def _sweep(frame: pd.DataFrame, _: Goal, __: Scenario | None) -> Analysis:
    paths = [str(name) for name in frame.columns[: list(frame.columns).index("replication")]]
    rows, _fixed, notes = sweep_rows(frame, paths)
    fixed = [setting_in_words(path, frame[path].iloc[0]) for path in paths if path not in _varied(frame, paths)]
    charts = []
    try:
        for key, column in (("p99", "p99_s"), ("utilisation", "utilisation")):
            for i, (part, figure) in enumerate(sweep_maps(frame, column)):
                charts.append(Chart(f"{key}{i or ''}", figure, _swept_text(part, _varied(part, paths), column)))
    except InputError as error:
        if error.path != "frame":
            raise
        notes = [*notes, "There are too many settings for charts: select rows of the frame."]
    over = overload_note(frame["verdict"]).strip()
    rows[0] = [setting_title(name) if name in paths else name for name in rows[0]]
    return Analysis(
        kicker="Sweep of shadow tests",
        answer=sweep_answer(frame),
        charts=charts,
        tables=[table_of(rows)],
        texts=[_overloaded_text(frame, _varied(frame, paths)), f"In all cells: {', '.join(fixed)}." if fixed else ""],
        notes=[*notes, *([" ".join(over.split())] if over else [])],
    )


def _varied(frame: pd.DataFrame, paths: list[str]) -> list[str]:
    return [path for path in paths if frame[path].nunique(dropna=False) > 1]


def _overloaded_text(frame: pd.DataFrame, varied: list[str]) -> str:
    """Return the settings under which a pool is overloaded, "" for none or many."""
    over = records(frame[frame["verdict"] == OVERLOADED])
    named = {f"the {row['role']} at {_settings_text(row, varied)}": None for row in over}
    return f"{OVERLOADED}: {'; '.join(named)}." if 0 < len(named) <= _MOST_NAMED and varied else ""


def _settings_text(row: Mapping[str, object], varied: list[str]) -> str:
    return ", ".join(setting_in_words(path, row[path]) for path in varied)


def _swept_text(frame: pd.DataFrame, varied: list[str], column: str) -> str:
    """Return the least and the greatest value of the shadow, and the settings that have them."""
    shadow = frame[(frame["role"] == "shadow") & ~is_uncertain_in(frame, column) & (frame["verdict"] != OVERLOADED)]
    shadow = shadow[shadow[column].notna()]
    if shadow.empty:
        return "No cell has a value to show."
    show = time_text if column.endswith("_s") else percent
    name = column.removesuffix("_s")
    ends = [records(shadow.loc[[shadow[column].idxmin()]])[0], records(shadow.loc[[shadow[column].idxmax()]])[0]]
    texts = [f"{show(row[column])} at {_settings_text(row, varied)}" for row in ends]
    return f"The shadow's {name}, where it is not {OVERLOADED}: from {' to '.join(texts)}."


def _compared(frame: pd.DataFrame, _: Goal, __: Scenario | None) -> Analysis:
    """Return the page of a frame of `compare`, or of `compare_runs`, without what only its runs can tell."""
    margins = frame[frame["unit"] == "share"]["margin"].dropna()
    points = 100.0 * float(margins.iloc[0]) if len(margins) else MARGIN_POINTS
    terms = Terms(_margin_pct(frame), points)
    loads = loads_of_table(frame) if pair_of(frame)[0] == "source" else None
    noted = tuple(filter(None, [frame.attrs.get(SESSIONS, "")]))
    confidence = float(frame.attrs.get("confidence", CONFIDENCE))
    return comparison_analysis(SavedComparison(frame, terms, confidence, (), "", loads=loads, notes=noted))


def _margin_pct(frame: pd.DataFrame) -> float:
    first = pair_of(frame)[0]
    times = frame[(frame["unit"] == "s") & (frame[first] > 0.0) & frame["margin"].notna()]
    return MARGIN_PCT if times.empty else float((100.0 * times["margin"] / times[first]).median())


def comparison_analysis(comparison: SavedComparison) -> Analysis:
    """Return the page of a comparison of a run's variants, or of two runs."""
    table = comparison.table
    said, (head, *rows) = comparison.conclusions(), comparison.rows()
    rows = [[re.sub(r"^\s+", "pairs ", name), *cells] for name, *cells in rows]  # which a terminal indents
    outcome = "Worse" if comparison.worse else "Not enough data" if comparison.unsure else "Not worse"
    tone = BAD if comparison.worse else UNSURE if comparison.unsure else GOOD
    # A verdict under another load is not one on the model.
    tone = NEUTRAL if comparison.loads and not comparison.overloaded else tone
    loads = load_sentences(comparison.loads, comparison.equal_load, comparison.notes)
    between_runs = pair_of(table)[0] == "baseline"
    gist = " ".join(said)
    charts = [
        Chart(f"comparison{i or ''}", plots.differences(part, name=name), changes_text(part) if name else gist)
        for i, (name, part) in enumerate(comparison.differing())
    ]
    return Analysis(
        kicker="Comparison of two runs" if between_runs else "Comparison within a run",
        answer=said[0],
        charts=charts,
        tables=[table_of([head, *rows])] if rows else [],
        status=outcome,
        tone=tone,
        texts=[
            *said[1:],
            *comparison.unchanged(),
            *loads,
            *(f"{TOO_SHORT}: {text}" for text in comparison.too_short),
            f"{comparison.head[:1].upper()}{comparison.head[1:]}.",
        ],
        notes=comparison.reading(),
        title=comparison.name,
    )


def changes_text(compared: pd.DataFrame) -> str:
    """Return the metrics that are worse, better and undecided, with their changes."""
    changes_by_verdict: dict[str, list[str]] = {}
    for row in records(compared[compared["outcome"] != NOT_JUDGED]):
        verdict = row["outcome"] if row["outcome"] in (WORSE, BETTER) else row["verdict"]
        by = "" if change(row) == "-" else f" {change(row)}"
        changes_by_verdict.setdefault(verdict, []).append(f"{str(row['metric']).replace('_', ' ')}{by}")
    parts = [f"{verdict}: {', '.join(changes)}" for verdict, changes in changes_by_verdict.items()]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def _noise(frame: pd.DataFrame, _: Goal, scenario: Scenario | None) -> Analysis:
    horizon_s = scenario.horizon_s if scenario else frame.attrs.get("horizon_s", math.nan)
    short = frame["too_short"].iloc[0] if "too_short" in frame else 0.0
    said = noise_answer(frame) or "The runs are too short to tell which difference of p99 is noise."
    set_up = [noise_setup(frame, horizon_s)] if "n_source" in frame else []
    if short:
        set_up.append(f"{TOO_SHORT}: {percent(short, 0)} of the runs; their quantiles say little.")
    typical = [f"{row['metric']} {row['typical_pct']:.2f} %" for row in records(frame[frame["unit"] == "s"])]
    return Analysis(
        kicker="Noise floor of a shadow test",
        answer=said,
        charts=[
            Chart("noise", plots.noise_floor(frame), f"Typical differences: {', '.join(typical)}. {alarms_text(frame)}")
        ],
        tables=[table_of(noise_rows(frame), "Value: of the source. Worse to not enough: shares of the runs.")],
        texts=[*set_up, alarms_text(frame)],
        notes=["Typical: the median difference; 19 of 20 below: its 95 % quantile; pt: percentage points."],
    )


# Columns that only the frames of one function have.
_KINDS: Mapping[tuple[str, str], Callable[[pd.DataFrame, Goal, Scenario | None], Analysis]] = {
    ("one_fewer", "instance_count"): _size,
    ("limit_per_s", "factor"): _capacity,
    ("power", "reaches"): _plan,
    ("run_verdict", "replication"): _sweep,
    ("ratio_low", "margin"): _compared,
    ("typical", "most"): _noise,
}
