"""Compares each variant of a run with itself in an earlier run, also as an assertion for tests.

Source is compared with source and shadow with shadow, by the statistics of `compare`: each metric has a difference, an
interval that allows for correlated requests, and an outcome.

Runs of one seed with the same traffic and windows have the same requests with the same random numbers: most of their
noise is common to both, and the interval of the difference is narrower the more their sections are correlated. Test
suites should use such runs, since the check then also gives the same answer each time. The interval tells how two
designs differ on that traffic; a real experiment, in which only the arrivals are shared, will see much less. Runs of
different seeds are taken as independent.

Within one run, a shadow that gets fewer requests per worker is faster without being better. `at_source_load` simulates
it at the source's load: the difference that remains there is the model's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from shadowsim.engine.replicate import worst_by_variant
from shadowsim.engine.simulate import simulate
from shadowsim.errors import InputError, did_you_mean
from shadowsim.frames import NOT_SAVED, ROLES
from shadowsim.planning.load import MOST_REQUESTS, demand_of, run_length, with_length
from shadowsim.quantities import per_cent
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.batch_means import MIN_BATCHES
from shadowsim.statistics.comparison import compare
from shadowsim.statistics.loads import ATTRIBUTE as LOADS
from shadowsim.statistics.loads import loads_of_runs
from shadowsim.statistics.metric_rows import MIN_CYCLES, is_one_sided, is_uncertain, metric_rows, verdict_of
from shadowsim.statistics.sections import Sections, frames_of, given_traffic, sections_of
from shadowsim.statistics.terms import (
    BETTER,
    CONFIDENCE,
    MARGIN_PCT,
    MARGIN_POINTS,
    NOT_ENOUGH,
    NOT_ENOUGH_DATA,
    SAME,
    WORSE,
    check_limits,
    limits_of,
    terms_of,
)
from shadowsim.text import OVERLOADED, grid, percent, short_name, time_text
from shadowsim.verdict import TOO_SHORT, Verdict

Runs = Result | str | os.PathLike[str] | Sequence[Result | str | os.PathLike[str]]

COLUMNS = (
    *("variant", "role", "metric", "unit", "baseline", "result", "difference", "low", "high"),
    *("ratio", "ratio_low", "ratio_high", "n_baseline", "n_result", "n_eff", "margin", "outcome", "verdict", "method"),
    *("baseline_low", "baseline_high", "result_low", "result_high"),
)
_REPLICATION = "replication-{}"
_FURTHEST = 0.999  # quantile that a run at the source's load shows
_LEAST_WINDOWS = 100  # of such a run, one per section


def compare_runs(
    result: Runs,
    baseline: Runs,
    *,
    margin_pct: float = MARGIN_PCT,
    margin_points: float = MARGIN_POINTS,
    confidence: float = CONFIDENCE,
    slo_s: float | str | None = None,
    ttft_slo_s: float | str | None = None,
    tpot_slo_s: float | str | None = None,
    method: str | None = None,
) -> pd.DataFrame:
    """Compare each variant of a run with the same variant of an earlier run.

    Parameters
    ----------
    result, baseline : Result, path, or a list of these
        A run; the directory of a saved run, or of saved replications from `shadowsim simulate -o`; or independent runs
        of one scenario, as `replicate` returns them.
    margin_pct : float
        A difference of latency that does not matter, in per cent of the baseline's.
    margin_points : float
        A difference of error rates and of the SLO-miss share that does not matter, in percentage points.
    confidence : float
        Confidence level of each interval.
    slo_s : float or str, optional
        Adds the metric slo_miss: the share of answers that take longer than this, in seconds or as in "200ms".
    ttft_slo_s, tpot_slo_s : float or str, optional
        Add ttft_slo_miss and tpot_slo_miss of services in tokens, as for `compare`.
    method : str, optional
        As for `compare`; by default "replications" if both sides have at least ten runs, else the first that the frames
        of both sides allow.

    Returns
    -------
    DataFrame
        One row per variant and metric, source first. The columns are `variant` (the name in the result), `role`, and
        those of `compare` with the baseline in place of the source and the result in place of the shadow: `difference`
        is result minus baseline, `ratio` is result over baseline, and the `outcome` "worse" means that the result is
        worse. A variant that received no request on one side has no rows of latencies.

        Where the utilisation of a variant differs between the runs by more than 5 points, the frame's `attrs["load"]`
        holds both and a sentence, by variant; verdicts say it unless its instances get the same number of requests.

    Raises
    ------
    InputError
        When a parameter or a run cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 500}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
    >>> before = ss.simulate(scenario)
    >>> after = ss.simulate(scenario.replace({"shadow.time.mean_s": "23ms"}))
    >>> table = ss.compare_runs(after, before)
    >>> print(table.loc[table["metric"] == "p99", ["variant", "outcome"]].to_string(index=False))
       variant outcome
    AllTraffic    same
     Shadow-01   worse
    """
    terms, limits_s = terms_of(margin_pct, margin_points, confidence), limits_of(slo_s, ttft_slo_s, tpot_slo_s)
    new, old = _runs(result, "result"), _runs(baseline, "baseline")
    same_requests = _same_requests(new, old)
    after, before = _sections(new, old, method, same_requests)
    names = _names(new)
    rows, loads = [], {}
    for role in ROLES:
        if differing := loads_of_runs(frames_of(old), frames_of(new), role):
            loads[names[role]] = differing
        cycles = min(before.cycles, after.cycles)
        pair = Sections(before.side(role), after.side(role), after.method, after.independent, cycles)
        for row in metric_rows(pair, terms, limits_s, same_requests):
            renamed = {_renamed(key): value for key, value in row.items()}
            renamed["verdict"] = verdict_of(row, terms)
            if differing and differing.qualifier and row["outcome"] in (WORSE, BETTER, SAME):
                renamed["verdict"] += f", {differing.qualifier}"
            renamed["method"] += ", same requests" if same_requests else ""
            rows.append({"variant": names[role], "role": role, **renamed})
    check_limits(limits_s, {row["metric"] for row in rows})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n_baseline": "int64", "n_result": "int64"})
    if loads:
        table.attrs[LOADS] = {
            name: {"baseline": load.source, "result": load.shadow, "note": load.note_of_runs(name)}
            for name, load in loads.items()
        }
    return table


def assert_no_regression(
    result: Runs,
    baseline: Runs,
    margin: str | float = "10%",
    *,
    margin_points: float = MARGIN_POINTS,
    metrics: Sequence[str] | None = None,
    roles: Sequence[str] = ROLES,
    confidence: float = CONFIDENCE,
    slo_s: float | str | None = None,
    ttft_slo_s: float | str | None = None,
    tpot_slo_s: float | str | None = None,
) -> pd.DataFrame:
    """Fail if a run is worse than its baseline.

    A run is worse if a metric of `compare_runs` has the outcome "worse" (its interval, which may be one-sided, lies
    above 0 and reaches beyond the margin), or if a pool is OVERLOADED that was not. A run that does not differ at all
    is not worse, however short it is.

    Parameters
    ----------
    result, baseline
        As for `compare_runs`; `result.save(directory)` or `shadowsim simulate -o` writes a baseline.
    margin : str or float
        A difference of latency that does not matter: "5%", or the share 0.05.
    margin_points : float
        A difference of error rates that does not matter, in percentage points.
    metrics : sequence of str, optional
        Metrics of `compare_runs` to check; each must have enough data. By default all metrics with enough data are
        checked, and there must be at least one if anything differs.
    roles : sequence of str
        The variants to check: "source", "shadow" or both.
    confidence : float
        Confidence level of each interval. Runs of different seeds can therefore fail by chance, in about
        (1 - confidence) / 2 of the cases for each metric whose interval is wider than the margin, at a level that is
        divided among the variants; runs of the same seed give the same answer each time.
    slo_s : float or str, optional
        Adds the metric slo_miss, as in `compare_runs`.
    ttft_slo_s, tpot_slo_s : float or str, optional
        Add ttft_slo_miss and tpot_slo_miss, as in `compare_runs`.

    Returns
    -------
    DataFrame
        The comparison, if it does not fail.

    Raises
    ------
    AssertionError
        With the table of the metrics that differ.
    InputError
        When a parameter or a run cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 50}
    >>> run = ss.simulate(ss.default_scenario().replace({"traffic": traffic, "horizon_s": 600}))
    >>> _ = run.save("last-release")
    >>> set(ss.assert_no_regression(run, "last-release", margin="5%")["outcome"]) <= {"same", "not_enough"}
    True
    """
    __tracebackhide__ = True
    wrong = [roles] if isinstance(roles, str) else [role for role in roles if role not in ROLES]
    if wrong or not roles:
        raise InputError("roles", "must be a list of source and shadow", *wrong[:1])
    new, old = _runs(result, "result"), _runs(baseline, "baseline")
    terms: dict[str, Any] = {"margin_pct": per_cent(margin, "margin"), "margin_points": margin_points}
    terms |= {"slo_s": slo_s, "ttft_slo_s": ttft_slo_s, "tpot_slo_s": tpot_slo_s}
    table = compare_runs(new, old, confidence=confidence, **terms)
    certain = table["outcome"] == WORSE
    if certain.any() and len(roles) > 1 and not _same_requests(new, old):
        certain &= compare_runs(new, old, confidence=1.0 - (1.0 - confidence) / len(roles), **terms)["outcome"] == WORSE
    checked = table[table["role"].isin(roles)]
    if metrics is not None:
        checked = checked[checked["metric"].isin(_known(metrics, table))]
    faults = [_fault(row) for row in checked[certain[checked.index]].to_dict("records")]
    faults = [*_overloaded(new, old, roles), *faults]
    changed = checked[checked["difference"] != 0.0]
    unknown = changed[changed["outcome"] == NOT_ENOUGH]
    if metrics is not None:
        faults += [f"{row['variant']}: {row['metric']} cannot be judged" for row in unknown.to_dict("records")]
    elif len(unknown) and len(unknown) == len(changed):
        faults.append("none of what differs can be judged")
    if not faults:
        return table
    short = [name for name, status in worst_by_variant(new).items() if status == TOO_SHORT]
    notes = [f"{TOO_SHORT}: the run of {' and '.join(short)}; its quantiles say little"] if short else []
    lines = [*faults, "", *notes, regressions_text(changed)]
    if len(unknown):
        lines.append(
            f'"{NOT_ENOUGH_DATA}": run.horizon_s must be longer, with at least {MIN_BATCHES} windows (run.period_s) '
            f"and {MIN_CYCLES} cycles of a modulated rate"
        )
    raise AssertionError("\n".join(lines))


@dataclass(frozen=True, slots=True, eq=False)
class EqualLoad:
    """A comparison of the shadow, simulated at the source's load, with the source.

    Attributes
    ----------
    table : DataFrame
        The frame of `compare`: the difference that remains is the model's.
    scenario : Scenario
        What was simulated.
    horizon_s : float
        Length of the run that it stands for, seconds; that of `scenario` may be shorter.
    verdict : Verdict
    """

    table: pd.DataFrame
    scenario: Scenario
    horizon_s: float
    verdict: Verdict


def at_source_load(scenario: Scenario, **terms: Any) -> EqualLoad:
    """Simulate the shadow at the source's load, and compare it with the source.

    The shadow keeps its service, routing and workers per instance. All requests are copied to it on arrival, without
    limits, and it has as many workers in all as the source. The run is shortened to what p99.9 needs, as by `size`, and
    to 20 million requests at most unless a day's profile has more; it does not depend on the saved run's results.

    Parameters
    ----------
    scenario : Scenario
        The test, whose shadow may get any share of the requests.
    **terms
        Keyword arguments of `compare`.

    Raises
    ------
    InputError
        When the scenario cannot be simulated so.
    """
    equal = equal_scenario(scenario)
    run = _cached_run(json.dumps(equal.to_dict(), sort_keys=True), equal.base_dir)
    return EqualLoad(compare(run, **terms), run.scenario, scenario.horizon_s, run.verdict)


def equal_scenario(scenario: Scenario) -> Scenario:
    """Return the scenario with a shadow at the source's load, and with a shorter run."""
    source, shadow = (scenario.side(role) for role in ROLES)
    workers = source.n_instances * source.workers
    pool = {"shadow.instance_count": workers // shadow.workers}
    if workers % shadow.workers:
        pool = {"shadow.instance_count": source.n_instances, "shadow.workers": source.workers}
    no_limits = {f"mirror.{name}": None for name in ("max_in_flight", "max_body_bytes", "max_per_s")}
    copies = {"sampling_percentage": 100, "mirror.instant": "arrival", "run.sample_requests": 0} | no_limits
    equal = scenario.replace(pool | copies)
    pools = [(role, demand_of(equal, role), equal.side(role).n_instances) for role in ROLES]
    enough_s = max(run_length(equal, role, demand, n, _FURTHEST).long_s for role, demand, n in pools)
    horizon_s = min(enough_s, _most_s(equal))
    period_s = min(equal.period_s, horizon_s / _LEAST_WINDOWS)
    return with_length(equal, horizon_s, {"run.period_s": period_s})


def _most_s(scenario: Scenario) -> float:
    """Return the longest run that is affordable, but at least a day or the whole horizon if it has no more requests."""
    rate_per_s = scenario.traffic.mean_rate(scenario.horizon_s, scenario.start)
    return max(MOST_REQUESTS / max(rate_per_s, 1e-9), 86400.0 if rate_per_s * 86400.0 <= 2 * MOST_REQUESTS else 0.0)


@lru_cache(maxsize=8)
def _cached_run(document: str, base_dir: Path) -> Result:
    """Return the run of a scenario; pages and cards of one run ask for it again and again."""
    return simulate(Scenario.from_dict(json.loads(document), base_dir))


def regressions_text(table: pd.DataFrame) -> str:
    """Return a frame of `compare_runs` as a text table."""
    rows = [("variant", "metric", "baseline", "result", "change", "interval", "verdict")]
    for row in table.to_dict("records"):
        if row["unit"] == "s":
            values = ["-" if is_uncertain(row) else time_text(row[key]) for key in ("baseline", "result")]
            change, low, high = ((row[key] - 1.0) * 100.0 for key in ("ratio", "ratio_low", "ratio_high"))
            unit = "%"
        else:
            values = [percent(row[key], 3) for key in ("baseline", "result")]
            change, low, high = (row[key] * 100.0 for key in ("difference", "low", "high"))
            unit = "points"
        if is_one_sided(row):
            interval = f"{_signed(low)} or more" if row["outcome"] == WORSE else f"{_signed(high)} or less"
        else:
            interval = "-" if math.isnan(low) or math.isnan(high) else f"{_signed(low)} to {_signed(high)}"
        change_text = "-" if math.isnan(change) or is_uncertain(row) else f"{_signed(change)} {unit}"
        verdict = row["outcome"] if is_one_sided(row) else row["verdict"]
        rows.append((short_name(row["variant"]), row["metric"], *values, change_text, interval, verdict))
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
    if not os.path.isdir(folder):  # Path.is_dir raises for names that are too long
        raise InputError(str(folder), NOT_SAVED)
    if not (folder / _REPLICATION.format(0)).is_dir():
        return [Result.load(folder)]
    n = next(n for n in range(1, len(list(folder.iterdir())) + 1) if not (folder / _REPLICATION.format(n)).is_dir())
    return [Result.load(folder / _REPLICATION.format(r)) for r in range(n)]


def _sections(
    new: Sequence[Result], old: Sequence[Result], method: str | None, same_requests: bool
) -> tuple[Sections, Sections]:
    """Return both sides, cut into sections by the same method.

    The rate of the same requests took the same course, even if it was drawn.
    """
    runs = [frames_of(list(side)) for side in (new, old)]
    if same_requests:
        runs = [given_traffic(side) for side in runs]
    after, before = (sections_of(side, method) for side in runs)
    if after.method != before.method:
        after, before = (sections_of(side, "sections") for side in runs)
    return after, before


def _same_requests(new: Sequence[Result], old: Sequence[Result]) -> bool:
    """Return whether the runs are pairs of the same seed, traffic and windows."""

    def key(run: Result) -> tuple[object, ...]:
        s = run.scenario
        return s.seed, s.document["traffic"], s.horizon_s, s.period_s

    return len(new) == len(old) and all(key(a) == key(b) for a, b in zip(new, old, strict=True))


def _names(runs: Sequence[Result]) -> dict[str, str]:
    return {role: runs[0].scenario.side(role).variant.name for role in ROLES}


def _renamed(key: str) -> str:
    """Return the name of a column of `compare` for two runs: n_source is n_baseline, shadow_low is result_low."""
    return key.replace("source", "baseline").replace("shadow", "result")


def _known(metrics: Sequence[str], table: pd.DataFrame) -> list[str]:
    known = list(dict.fromkeys(table["metric"]))
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        if metric not in known:
            hint = did_you_mean(metric, known) or f"; known are {', '.join(known)}"
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
    one_sided = is_one_sided(row)
    change = row["ratio_low" if one_sided else "ratio"] - 1.0 if row["unit"] == "s" else row["difference"]
    change_text = f"{_signed(100.0 * change)} {'%' if row['unit'] == 's' else 'points'}"
    return f"{row['variant']}: {row['metric']} is worse ({'at least ' if one_sided else ''}{change_text})"


def _signed(x: float) -> str:
    """Return a number with its sign, to a tenth or three digits: "+12.1", "-0.3", "0.0"."""
    text = f"{x:+.1f}" if abs(x) >= 1.0 else f"{x:+.2g}"
    return "0" if float(text) == 0.0 else text
