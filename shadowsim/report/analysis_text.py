"""Formats noise floors, goals, sizes, plans and sweeps as tables with their conclusion below.

The sentence below a table states what follows from it; notes state what its figures rest on. All tables fit 100
columns, and most fit 80.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from string import ascii_lowercase
from typing import Any

import pandas as pd

from shadowsim.aws.instances import duration_text
from shadowsim.planning.costs import Cost
from shadowsim.planning.sheet import FIXED, NO_REQUEST, NO_REQUEST_IN_RUN, NOT_MEASURED, answers, recommend
from shadowsim.planning.slo import Goal, Slo
from shadowsim.report.comparison_text import label, records
from shadowsim.report.run_text import overload_note
from shadowsim.statistics.estimates import critical
from shadowsim.statistics.terms import CONFIDENCE
from shadowsim.text import OVERLOADED, compact, count, grid, percent, significant, time_text, wrapped
from shadowsim.verdict import STATUSES, TOO_SHORT, is_uncertain_in

Row = Mapping[str, Any]

_PERCENTAGE = re.compile(r"(.*?)(?:(\d+)(?= ?%))?((?(2) ?%.*|)$)", re.DOTALL)
_SWEPT_QUANTILES, _SWEPT_SHARES = ("p50_s", "p99_s", "p99_9_s"), ("utilisation", "error_rate")
_NORMAL = 1.96  # half-width of a 95 % interval, in standard errors


def noise_text(floor: pd.DataFrame, horizon_s: float) -> str:
    """Return the table of `noise_floor`, the smallest difference of p99 that means something, and false alarms."""
    short = floor.iloc[0]["too_short"]
    lines = [] if not short else [wrapped(f"{TOO_SHORT}: {percent(short, 0)} of the runs; their quantiles say little.")]
    lines += [wrapped(noise_setup(floor, horizon_s)), "", grid(noise_rows(floor)), ""]
    answer = noise_answer(floor)
    lines += [wrapped(answer)] if answer else []
    return "\n".join([*lines, wrapped(alarms_text(floor), hanging="  ")])


def noise_setup(floor: pd.DataFrame, horizon_s: float) -> str:
    """Return what was compared, in a sentence."""
    first = floor.iloc[0]
    pool = f"{first['instance_count']:,} instances for {first['sampling_percentage']} % of the requests"
    return (
        f"The source against itself: {first['n']} runs of {duration_text(horizon_s)}; as shadow, {pool}: "
        f"{compact(first['n_source'])} requests and {compact(first['n_shadow'])} copies per run."
    )


def noise_rows(floor: pd.DataFrame) -> list[list[str]]:
    """Return a head and a row of cells per metric."""
    rows = [["", "value", "typical", "19 of 20 below", "worse", "better", "same", "not enough"]]
    for row in records(floor):
        if row["metric"] in ("error_rate_4xx", "error_rate_5xx") and row["value"] == 0.0:
            continue  # the row `error_rate` says it
        formatter = _difference if row["unit"] == "s" else _points
        cells = [time_text(row["value"]) if row["unit"] == "s" else percent(row["value"], 3)]
        cells += [formatter(row[name], row[f"{name}_pct"]) for name in ("typical", "most")]
        cells += [percent(row[name], 0) for name in ("worse", "better", "same", "not_enough")]
        rows.append([label(row["metric"]), *cells])
    return rows


def noise_answer(floor: pd.DataFrame) -> str:
    """Return the smallest difference of p99 that means something, in a sentence; "" where none is known."""
    p99 = floor[floor["metric"] == "p99"]
    if p99.empty or not math.isfinite(p99["most"].iloc[0]):
        return ""
    most, pct = p99["most"].iloc[0], p99["most_pct"].iloc[0]
    return f"A difference of p99 below {percent(pct / 100.0, 2)} ({time_text(most)}) is noise in this set-up."


def alarms_text(floor: pd.DataFrame) -> str:
    """Return how often each metric was called worse or better though nothing differs."""
    false = floor["worse"] + floor["better"]
    alarms = [f"{row.metric} in {percent(f, 0)}" for row, f in zip(floor.itertuples(), false, strict=True) if f > 0.0]
    if not alarms:
        return "No run gave a false alarm."
    return f"False alarms (share of runs called worse or better): {', '.join(alarms)}."


def _difference(x_s: float, pct: float) -> str:
    return f"{time_text(x_s)} ({percent(pct / 100.0, 2)})" if math.isfinite(x_s) else "-"


def _points(share: float, _: float) -> str:
    return "-" if math.isnan(share) else f"{significant(100.0 * share, 2)} pt"


def goals_text(goals: pd.DataFrame, slo: Slo) -> str:
    """Return one line per goal of `goals_frame`, with a 95 % half-width where the standard error is known."""
    rows = []
    for goal, row in zip(slo.goals, goals.to_dict("records"), strict=True):
        half = _NORMAL * row["standard_error"]
        close = ", too close to be certain" if abs(row["margin"]) < half else ""
        outcome = "met" if row["met"] else "missed" if math.isfinite(row["value"]) else "unknown, so not met"
        rows.append(["goal", str(goal), figure(goal, row["value"], half), f"{outcome}{close}"])
    return grid(rows, left=(0, 1, 3))


def figure(goal: Goal, value: float, half: float = math.nan) -> str:
    """Return the value of a goal's metric in its unit, with a half-width where there is one."""
    if not math.isfinite(value):
        return "-"
    text = time_text if goal.is_time else _percent
    return f"{text(value)} +- {text(half)}" if math.isfinite(half) and half > 0.0 else text(value)


def _percent(share: float) -> str:
    return f"{significant(100.0 * share)} %"


def sizing_text(frame: pd.DataFrame, slo: Slo, duration_s: float) -> str:
    """Return one table per role of `size`, and below it what decides, quotas, notes and the cheapest answer."""
    blocks = []
    for role, part in frame.groupby("role", sort=False):
        table, notes = size_rows(part, slo)
        left = (0, 1) if "pool" in part and part["instance_type"].nunique() > 1 else (0,)
        lines = [
            wrapped(note, "  " if i else "", "    " if i else "  ") for of_row in notes for i, note in enumerate(of_row)
        ]
        answer = size_answer(part, str(role), duration_s)
        # an example of what to type stands in a line of its own
        wrapped_answer = answer if "\n" in answer else wrapped(answer)
        blocks.append("\n".join([grid(table, left=left), "", *lines, "", wrapped_answer]))
    blocks.insert(0, wrapped(f"goals: {slo}", hanging="  "))
    return "\n\n".join(blocks)


def size_rows(part: pd.DataFrame, slo: Slo) -> tuple[list[list[str]], list[list[str]]]:
    """Return the table of a role's rows of `size`, its head first, and the notes on each row."""
    role = str(part["role"].iloc[0])
    goals = slo.of(role)
    scales = "pool" in part
    several = part["instance_type"].nunique() > 1 or not scales
    # Beside policies there is no room for figures that decide nothing; a goal of utilisation has its own column.
    used = [] if scales or any(g.metric == "utilisation" for g in goals) else ["utilisation"]
    prices = [] if scales else ["price_usd_per_h"]
    head = [role, *(["pool"] if scales and several else []), *(["target"] if scales else []), "instances"]
    for goal in goals:
        name = goal.column.removesuffix("_s")
        head.append(name.replace("_", ".") if goal.metric == "quantile" else name)
    table = [[*head, *used, *(["USD/h"] if prices else []), "USD", *(["met"] if scales else []), "certain"]]
    notes = []
    for row in records(part):
        answered = not pd.isna(row["instance_count"])
        cells = [figure(g, row[g.column], _NORMAL * row[f"{g.column}_error"]) if answered else "-" for g in goals]
        table.append(
            [
                *([row["instance_type"]] if several else []),
                *([row["pool"], _target_text(row["target"])] if scales else []),
                _instances_text(row) if answered else "-",
                *cells,
                *(percent(row[name]) for name in used),
                *(usd_text(row[name], 3) for name in prices),
                usd_text(row["cost_usd"]) if answered else "-",
                *([_yes(row["met"]) if answered else "-"] if scales else []),
                _yes(row["certain"]) if answered else "-",
            ]
        )
        notes.append(_size_notes(row, answered))
    return table, notes


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _target_text(target: float) -> str:
    return "" if math.isnan(target) else f"{target:,.6g}"


def _instances_text(row: Row) -> str:
    """Return a count; for a scaling policy its bounds, and the mean that is charged for."""
    if row.get("pool", FIXED) == FIXED:
        return count(row["instance_count"])
    return f"{row['min']:,} to {row['max']:,}, mean {row['billed_instances']:.2f}"


def _size_notes(row: Row, answered: bool) -> list[str]:
    notes = [f"decided by {row['binding']}"] if answered else []
    heads = {"one_fewer": "one fewer", "one_lost": "one down", "zone_lost": "a third down", "quota": "quotas"}
    if row.get("one_lost") and row["zone_lost"] == row["one_lost"].replace("one down", "a third down"):
        del heads["zone_lost"]  # of few instances one is a third: the same loss is said once
        heads["one_lost"] = "one or a third down"
    notes += [f"{head}: {row[name]}" for name, head in heads.items() if row.get(name)]
    notes += [row["note"]] if row["note"] else []
    name = row["instance_type"] if row.get("pool", FIXED) == FIXED else f"{row['instance_type']}, {row['pool']}"
    notes[:1] = [f"{name}: {note}" for note in notes[:1]]
    return notes


def size_answer(part: pd.DataFrame, role: str, duration_s: float) -> str:
    """Return the cheapest pool that meets a role's goals and its cost for a duration, or why there is none."""
    able = answers(part)
    if able.empty:
        return no_answer_text(part, role)
    best = able.iloc[0]
    pool = pool_text(best)
    if math.isnan(best["cost_usd"]):
        return f"The {role} needs {pool}, at an unknown price."
    least = "Cheapest" if len(able) > 1 else "Enough"
    text = f"{least} for the {role}: {pool}, {best['cost_usd']:,.2f} USD for {duration_text(duration_s)}"
    return f"{text}{'' if best['certain'] else ', which is not certain'}."


def pool_text(row: Row | pd.Series[Any]) -> str:
    """Return the pool of a row of `size`: "4 x ml.m5.xlarge", "2 to 8 x ml.m5.xlarge by a target of 1,430"."""
    if row.get("pool", FIXED) == FIXED:
        return f"{row['instance_count']:,} x {row['instance_type']}"
    return f"{row['min']:,} to {row['max']:,} x {row['instance_type']} by a target of {_target_text(row['target'])}"


def no_answer_text(part: pd.DataFrame, role: str) -> str:
    """Return why no row of `size` has an answer for a role: the goals are missed, or nothing could be judged."""
    unmeasured = part.loc[part["note"] == NOT_MEASURED, "instance_type"]
    if part["note"].isin([NO_REQUEST, NO_REQUEST_IN_RUN]).all():
        return f"No type could be judged for the {role}: no request reaches it."
    if unmeasured.empty:
        return f"No type meets the goals of the {role}."
    if len(unmeasured) < len(part):
        names = ", ".join(unmeasured)
        return wrapped(f"No type that was measured meets the goals of the {role}; nothing is known of {names}.")
    example = f'{role}.by_instance_type={{"{unmeasured.iloc[0]}": {{"time": {{"mean_s": 0.03}}}}}}'
    lines = [
        wrapped(
            f"No type could be judged for the {role}: its service has no times for them. Give measured times, as in"
        ),
        f"  --set '{example}'",
    ]
    return "\n".join(lines)


def usd_text(x: float, decimals: int = 2) -> str:
    """Return an amount of US dollars, or "unknown" for NaN."""
    return "unknown" if math.isnan(x) else f"{x:,.{decimals}f}"


def data_text(cost: Cost) -> str:
    """Return one line for each known cost of data and captures, to follow those of `experiment_text`.

    Each line begins with a line feed; "" if nothing is known.
    """
    lines = []
    for row in records(cost.items):
        _, scales, bounds = row["note"].partition("; it scales ")
        if scales:
            role = row["item"].removesuffix(" instances")
            lines.append(
                wrapped(f"{bounds}; above it is charged for InstanceCount", f"{role + ' scales':<16}", " " * 16)
            )
        if row["unit"] == "instance-hours" or not row["quantity"] > 0.0:
            continue  # `experiment_text` has the instances; unknown quantities and zeros are left out
        amount = f"{significant(row['quantity'])} {row['unit']}"
        price = "" if math.isnan(row["cost_usd"]) else f", {row['cost_usd']:,.2f} USD"
        lines.append(wrapped(f"{amount}{price}: {row['of']}; {row['note']}", f"{row['item']:<16}", " " * 16))
    return "".join(f"\n{line}" for line in lines)


def plan_text(frame: pd.DataFrame, effect: str, power: float) -> str:
    """Return one row per share and duration of `plan`, notes on their limits, and the cheapest that suffices."""
    rows, notes = plan_rows(frame, effect)
    lines = [wrapped(note, hanging="  ") for note in notes]
    return "\n".join([grid(rows, left=(1, 7, 8)), "", *lines, "", wrapped(plan_answer(frame, power))])


def plan_rows(frame: pd.DataFrame, effect: str) -> tuple[list[list[str]], list[str]]:
    """Return the table of `plan`, its head first, and the notes below it: what columns mean, and the rows' letters."""
    from shadowsim.planning.plan_effects import parse_effect

    parsed, notes = parse_effect(effect), _Footnotes()
    unit, outcome = "pt" if parsed.is_share else "%", "worse" if parsed.amount > 0.0 else "better"
    rows = [["share", "duration", "finds it", "false alarms", "visible", "instances", "USD", "reached", "notes"]]
    for row in records(frame):
        rows.append(
            [
                f"{row['sampling_percentage']} %",
                duration_text(row["duration_s"]),
                *(_share_text(row[name], row[f"{name}_error"]) for name in ("power", "false_alarm")),
                "-" if math.isnan(row["visible_pct"]) else f"{significant(row['visible_pct'], 2)} {unit}",
                count(row["shadow_instances"]),
                usd_text(row["cost_usd"]),
                "yes" if row["reaches"] else "-",
                " ".join(sorted(notes.mark(note) for note in row["note"].split("; ") if note)),
            ]
        )
    legend = [
        f"finds it: share of tests that call the shadow {outcome} when it is ({effect}), with its standard error.",
        "visible: the smallest difference that is found so often. instances: what the share needs.",
    ]
    far = frame.loc[frame["how"] != "simulated", "simulated_h"]
    if len(far):
        least, most = (duration_text(60.0 * max(1.0, round(60.0 * h))) for h in (far.min(), far.max()))
        rehearsed = least if least == most else f"{least} to {most}"
        legend.append(f"{len(far)} of {len(frame)} rows are extrapolated from rehearsals of {rehearsed}.")
    return rows, [*legend, *notes.lines()]


def plan_answer(frame: pd.DataFrame, power: float, effect: str = "it") -> str:
    """Return the cheapest test that finds an effect often enough, in a sentence, or that there is none."""
    best = recommend(frame)
    if best is None:
        return f"No share and duration finds {effect} in {percent(power, 0)} of tests."
    cost = "at an unknown cost" if math.isnan(best["cost_usd"]) else f"for {best['cost_usd']:,.2f} USD"
    n = best["shadow_instances"]
    test = f"{best['sampling_percentage']} % of the requests for {duration_text(best['duration_s'])}"
    pool = f"{count(n)} shadow {'instance' if n == 1 else 'instances'}"
    return f"Cheapest that finds {effect} in {percent(power, 0)} of tests: {test} on {pool}, {cost}."


class _Footnotes:
    """Collects the notes of rows without repetition; notes that differ only in a percentage are merged into one."""

    def __init__(self) -> None:
        self._percentages: dict[str, list[str]] = {}

    def mark(self, note: str) -> str:
        """Record a note, and return its letter."""
        head, number, tail = _PERCENTAGE.match(note).groups()  # type: ignore[union-attr]  # it matches any text
        values = self._percentages.setdefault(f"{head}{{}}{tail}", [])
        if number is not None and number not in values:
            values.append(number)
        return ascii_lowercase[min(list(self._percentages).index(f"{head}{{}}{tail}"), 25)]

    def lines(self) -> list[str]:
        """Return one line per note, in the order of their letters."""
        texts = (note.replace("{}", ", ".join(values)) for note, values in self._percentages.items())
        return [f"{letter}: {text}." for letter, text in zip(ascii_lowercase, texts, strict=False)]


def _share_text(share: float, error: float) -> str:
    return "-" if math.isnan(share) else f"{percent(share, 0)} +- {100.0 * error:.0f}"


def sweep_text(frame: pd.DataFrame, paths: Iterable[str]) -> str:
    """Return one row per cell and variant of `sweep`; the source only once if it is the same in all cells.

    A quantile that a run of the cell is too short for (`verdict.uncertain_quantiles`) is a dash, or has the interval of
    its mean over replications.
    """
    swept = list(paths)
    rows, fixed, notes = sweep_rows(frame, swept)
    # Long paths take two lines.
    heads = [head.rpartition(".") if head in swept else ("", "", head) for head in rows[0]]
    above = [[f"{a}{dot}" for a, dot, _ in heads]] if any(dot for _, dot, _ in heads) else []
    rows = [*above, [name for _, _, name in heads], *rows[1:]]
    lines = [wrapped(f"in all cells: {fixed}", hanging="  "), ""] if fixed else []
    lines.append(grid(rows, left=(0, len(rows[0]) - 1)) + overload_note(frame["verdict"]))
    return "\n".join([*lines, "", wrapped(" ".join([sweep_answer(frame), *notes]))])


def sweep_rows(frame: pd.DataFrame, paths: Iterable[str]) -> tuple[list[list[str]], str, list[str]]:
    """Return the table of `sweep`, its head first, the settings that all cells share, and notes."""
    values = {path: frame[path].map(setting_text) for path in paths}
    varied = [path for path in values if values[path].nunique() > 1]
    n = int(frame["replication"].max()) + 1
    cell = _cells_of(frame)
    source = frame[frame["role"] == "source"].groupby("replication")
    same = all((source[name].nunique(dropna=False) == 1).all() for name in ("mean_s", "maximum_s", "utilisation"))
    changing = "billed_instances" in frame and bool((frame["billed_instances"] != frame["instance_count"]).any())
    figures = [*(["instances"] if changing else []), "p50", "p99", "p99.9", "utilised", "errors", "verdict"]
    rows = [["", *varied, *figures]]
    for (i, role), part in frame.groupby([cell, "role"], sort=False):
        if not (same and role == "source"):
            rows.append([str(role), *(values[path][part.index[0]] for path in varied), *_sweep_cells(part, changing)])
        elif i == 0:
            rows.append(["source", *[""] * len(varied), *_sweep_cells(part, changing)])
    n_cells = int(cell.nunique())
    notes = ["The source is the same in all cells."] if same and n_cells > 1 else []
    notes += [f"Figures are means over {n} replications."] if n > 1 else []
    notes += ["Instances: the mean over the run that is charged for."] if changing else []
    if any(is_uncertain_in(frame, name).any() for name in _SWEPT_QUANTILES):
        interval = f"with the {percent(CONFIDENCE, 0)} interval of their mean" if n > 1 else "as dashes"
        notes.append(f"Quantiles that a run is too short for are shown {interval}.")
    return rows, ", ".join(f"{path} = {values[path].iloc[0]}" for path in values if path not in varied), notes


def sweep_answer(frame: pd.DataFrame) -> str:
    """Return how many cells have which verdict, in a sentence."""
    worst = [max(part["run_verdict"], key=STATUSES.index) for _, part in frame.groupby(_cells_of(frame))]
    counts = [f"{count(worst.count(status))} {status}" for status in STATUSES if status in worst]
    return f"{count(len(worst))} {'cell' if len(worst) == 1 else 'cells'}: {', '.join(counts)}."


def _cells_of(frame: pd.DataFrame) -> pd.Index[int]:
    """Return the number of each row's cell: rows are its replications' variants."""
    return frame.index // (2 * (int(frame["replication"].max()) + 1))


def _sweep_cells(part: pd.DataFrame, changing: bool) -> list[str]:
    worst = max(part["verdict"], key=STATUSES.index)
    mark = "*" if worst == OVERLOADED else ""
    columns = {name: part[name if name in part else f"achieved_{name}"] for name in (*_SWEPT_QUANTILES, *_SWEPT_SHARES)}
    times = [
        _uncertain_text(columns[name]) if is_uncertain_in(part, name).any() else time_text(columns[name].mean()) + mark
        for name in _SWEPT_QUANTILES
    ]
    used, errors = (float(columns[name].mean()) for name in _SWEPT_SHARES)
    instances = [f"{part['billed_instances'].mean():.2f}"] if changing else []
    return [*instances, *times, percent(used), "none" if errors == 0.0 else percent(errors, 2), worst]


def _uncertain_text(values: pd.Series[float]) -> str:
    """Return the mean of a quantile over replications with its half-width; a dash for a single run."""
    n = int(values.count())
    if n < 2:
        return "-"
    half = critical(1.0 - CONFIDENCE, n - 1) * float(values.std()) / math.sqrt(n)
    return f"{time_text(values.mean())} +- {time_text(half)}"


def setting_text(value: object) -> str:
    """Return the value of a setting, "-" for None."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
