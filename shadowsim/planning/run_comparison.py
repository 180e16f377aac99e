"""The same variants in two runs: what the later one changed, and a check for a test suite that it made nothing worse.

A run is compared with one that was kept, source with source and shadow with shadow, by the statistics of `compare`:
each metric has a difference, an interval that knows that requests wait for each other, and a verdict.

Runs of one seed with the same traffic and windows met the same requests, and what these would have asked for: most of
their noise is common to both, and the interval of the difference is as much narrower as their sections move together.
That is what to do in a test suite, where it also makes the check give the same answer each time. Such an interval says
how two designs differ on that traffic; a real experiment, in which nothing but arrivals is shared, will see much less.
Runs of other seeds are taken as independent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shadowsim.engine.replicate import worst_by_variant
from shadowsim.errors import InputError, nearest
from shadowsim.frames import ROLES
from shadowsim.result import Result
from shadowsim.scenario.fields import per_cent
from shadowsim.statistics.batch_means import MIN_BATCHES
from shadowsim.statistics.comparison import metric_rows, terms_of
from shadowsim.statistics.sections import Sections, frames_of, sections_of
from shadowsim.statistics.terms import (
    CONFIDENCE,
    MARGIN_PCT,
    MARGIN_POINTS,
    NOT_ENOUGH,
    NOT_ENOUGH_DATA,
    WORSE,
)
from shadowsim.text import OVERLOADED, grid, percent, short_name, time_text

Runs = Result | str | os.PathLike[str] | Sequence[Result | str | os.PathLike[str]]

COLUMNS = (
    *("variant", "role", "metric", "unit", "baseline", "result", "difference", "low", "high"),
    *("ratio", "ratio_low", "ratio_high", "n_baseline", "n_result", "n_eff", "margin", "outcome", "verdict", "method"),
    *("baseline_low", "baseline_high", "result_low", "result_high"),
)
_REPLICATION = "replication-{}"


def compare_runs(
    result: Runs,
    baseline: Runs,
    *,
    margin_pct: float = MARGIN_PCT,
    margin_points: float = MARGIN_POINTS,
    confidence: float = CONFIDENCE,
    slo_s: float | None = None,
    method: str | None = None,
) -> pd.DataFrame:
    """Compare each variant of a run with the same variant of an earlier run.

    Parameters
    ----------
    result, baseline : Result, path, or a list of these
        A run; the directory of a saved one, or of saved replications as `shadowsim simulate -o` writes them; or
        independent runs of one scenario, as `replicate` gives them.
    margin_pct : float
        A difference of latency that does not matter, in per cent of the baseline's.
    margin_points : float
        A difference of error rates and of the SLO-miss share that does not matter, in percentage points.
    confidence : float
        Of each interval.
    slo_s : float, optional
        Adds the share of answers that take longer, in seconds.
    method : str, optional
        As for `compare`; by default "replications" where both sides have at least ten runs, else the first that both
        sides' frames allow.

    Returns
    -------
    DataFrame
        A row a (variant, metric), source first. The columns are those of `compare` with the baseline in place of the
        source and the result in place of the shadow: `difference` is result less baseline, `ratio` result over
        baseline. Before them `variant` (its name in the result) and `role`. The verdict "worse" is of the result. A
        variant that no request reached on one side has no row of a latency.

    Raises
    ------
    InputError
        When a parameter or a run cannot be used.
    """
    terms = terms_of(margin_pct, margin_points, confidence, slo_s)
    new, old = _runs(result, "result"), _runs(baseline, "baseline")
    after, before = _sections(new, old, method)
    together = _met_the_same(new, old)
    names = _names(new)
    found = []
    for role in ROLES:
        pair = Sections(before.side(role), after.side(role), after.method, after.independent)
        for row in metric_rows(pair, terms, slo_s, together):
            named = {_renamed(key): value for key, value in row.items()}
            named["verdict"] = terms.verdict(row["outcome"], row["unit"])
            named["method"] += ", same requests" if together else ""
            found.append({"variant": names[role], "role": role, **named})
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"n_baseline": "int64", "n_result": "int64"})


def assert_no_regression(
    result: Runs,
    baseline: Runs,
    margin: str | float = "10%",
    *,
    margin_points: float = MARGIN_POINTS,
    metrics: Sequence[str] | None = None,
    roles: Sequence[str] = ROLES,
    confidence: float = CONFIDENCE,
    slo_s: float | None = None,
) -> pd.DataFrame:
    """Fail when a run is worse than its baseline.

    It is where a metric of `compare_runs` is "worse" (its interval lies above 0 and reaches beyond the margin), or a
    pool is OVERLOADED that was not. Where nothing differs at all, nothing is worse, however short the runs are.

    Parameters
    ----------
    result, baseline
        As for `compare_runs`; most often `result.save(directory)` made the baseline, or `shadowsim simulate -o`.
    margin : str or float
        A difference of latency that does not matter: "5%", or the share 0.05.
    margin_points : float
        A difference of error rates that does not matter, in percentage points.
    metrics : sequence of str, optional
        Metrics of `compare_runs` that are judged; each of them must have an interval. By default all are judged for
        which there is enough data, and there must be one if anything differs.
    roles : sequence of str
        Which of "source" and "shadow" are judged.
    confidence : float
        Of each interval. Runs of other seeds than the baseline's may so fail by chance, about 1 - confidence to
        either side for each metric whose interval is wider than the margin; runs of the same seed give the same answer
        each time.
    slo_s : float, optional
        Adds the metric slo_miss.

    Returns
    -------
    DataFrame
        The comparison, where it does not fail.

    Raises
    ------
    AssertionError
        With the table of what was judged.
    InputError
        When a parameter or a run cannot be used.
    """
    __tracebackhide__ = True
    wrong = [role for role in roles if role not in ROLES] if not isinstance(roles, str) else [roles]
    if wrong or not roles:
        raise InputError("roles", "must be a list of source and shadow", *wrong[:1])
    new, old = _runs(result, "result"), _runs(baseline, "baseline")
    table = compare_runs(
        new, old, margin_pct=per_cent(margin, "margin"), margin_points=margin_points, confidence=confidence, slo_s=slo_s
    )
    judged = table[table["role"].isin(roles)]
    if metrics is not None:
        judged = judged[judged["metric"].isin(_known(metrics, table))]
    faults = [_fault(row) for row in judged.to_dict("records") if row["outcome"] == WORSE]
    faults = [*_overloaded(new, old, roles), *faults]
    changed = judged[judged["difference"] != 0.0]
    unknown = changed[changed["outcome"] == NOT_ENOUGH]
    if metrics is not None:
        faults += [f"{row['variant']}: {row['metric']} cannot be judged" for row in unknown.to_dict("records")]
    elif len(unknown) and len(unknown) == len(changed):
        faults.append("none of what differs can be judged")
    if not faults:
        return table
    lines = [*faults, "", regressions_text(changed)]
    if len(unknown):
        lines.append(
            f'"{NOT_ENOUGH_DATA}": run.horizon_s must be longer, and at least {MIN_BATCHES} windows (run.period_s)'
        )
    raise AssertionError("\n".join(lines))


def regressions_text(table: pd.DataFrame) -> str:
    """Return what `compare_runs` found as a table for people."""
    rows = [("variant", "metric", "baseline", "result", "change", "interval", "verdict")]
    for row in table.to_dict("records"):
        if row["unit"] == "s":
            values = [time_text(row[key]) for key in ("baseline", "result")]
            change, low, high = ((row[key] - 1.0) * 100.0 for key in ("ratio", "ratio_low", "ratio_high"))
            unit = "%"
        else:
            values = [percent(row[key], 3) for key in ("baseline", "result")]
            change, low, high = (row[key] * 100.0 for key in ("difference", "low", "high"))
            unit = "points"
        interval = "-" if math.isnan(low) or math.isnan(high) else f"{_signed(low)} to {_signed(high)}"
        said = "-" if math.isnan(change) else f"{_signed(change)} {unit}"
        rows.append((short_name(row["variant"]), row["metric"], *values, said, interval, row["verdict"]))
    return grid(rows, left=(0, 1, 6))


def _runs(runs: Runs, name: str) -> list[Result]:
    if isinstance(runs, Result):
        return [runs]
    if isinstance(runs, (str, os.PathLike)):
        return _saved(Path(runs), name)
    if isinstance(runs, (list, tuple)) and runs:
        return [one for run in runs for one in _runs(run, name)]
    raise InputError(name, "must be a Result, the directory of a saved one, or a list of these", runs)


def _saved(folder: Path, name: str) -> list[Result]:
    if not os.path.isdir(folder):  # unlike Path's method it takes a name of any length
        how = "; Result.save(directory) or `shadowsim simulate -o DIR` makes one"
        raise InputError(name, "must be the directory of a saved result", folder, hint=how)
    if not (folder / _REPLICATION.format(0)).is_dir():
        return [Result.load(folder)]
    n = next(n for n in range(1, len(list(folder.iterdir())) + 1) if not (folder / _REPLICATION.format(n)).is_dir())
    return [Result.load(folder / _REPLICATION.format(r)) for r in range(n)]


def _sections(new: Sequence[Result], old: Sequence[Result], method: str | None) -> tuple[Sections, Sections]:
    """Both sides cut into sections in the same way."""
    runs = [frames_of(list(side)) for side in (new, old)]
    cut = [sections_of(side, method) for side in runs]
    if cut[0].method != cut[1].method:
        cut = [sections_of(side, "sections") for side in runs]
    return cut[0], cut[1]


def _met_the_same(new: Sequence[Result], old: Sequence[Result]) -> bool:
    """Whether the runs are pairs of the same seed, traffic and windows."""

    def met(run: Result) -> tuple[object, ...]:
        s = run.scenario
        return s.seed, s.document["traffic"], s.horizon_s, s.period_s

    return len(new) == len(old) and all(met(a) == met(b) for a, b in zip(new, old, strict=True))


def _names(runs: Sequence[Result]) -> dict[str, str]:
    return {role: runs[0].scenario.side(role).variant.name for role in ROLES}


def _renamed(key: str) -> str:
    """A column of `compare` as one of two runs: n_source is n_baseline, shadow_low is result_low."""
    return key.replace("source", "baseline").replace("shadow", "result")


def _known(metrics: Sequence[str], table: pd.DataFrame) -> list[str]:
    known = list(dict.fromkeys(table["metric"]))
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        if metric not in known:
            hint = nearest(metric, known) or f"; known are {', '.join(known)}"
            raise InputError("metrics", "must be metrics of the comparison", metric, hint=hint)
    return [metrics] if isinstance(metrics, str) else list(metrics)


def _overloaded(new: Sequence[Result], old: Sequence[Result], roles: Sequence[str]) -> list[str]:
    was, now = worst_by_variant(old), worst_by_variant(new)
    faults = []
    for role in roles:
        before, after = was.get(_names(old)[role]), now.get(_names(new)[role])
        if after == OVERLOADED and before != OVERLOADED:
            faults.append(f"{_names(new)[role]} is {OVERLOADED}, and was {before}")
    return faults


def _fault(row: Mapping[Hashable, Any]) -> str:
    change = row["ratio"] - 1.0 if row["unit"] == "s" else row["difference"]
    more = f"{_signed(100.0 * change)} {'%' if row['unit'] == 's' else 'points'}"
    return f"{row['variant']}: {row['metric']} is worse ({more})"


def _signed(x: float) -> str:
    """Return a number with its sign, to a tenth or three digits: "+12.1", "-0.3", "0.0"."""
    text = f"{x:+.1f}" if abs(x) >= 1.0 else f"{x:+.2g}"
    return "0" if float(text) == 0.0 else text
