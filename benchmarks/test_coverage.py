"""Measures the coverage of the intervals of `compare`, and of textbook intervals for independent requests.

300 A/A runs per cell, half M/M/4 and half lognormal (SCV 0.5); the shadow equals the source, and all requests are
copied. All figures are of p99.

* covers: the share of the runs with an interval whose interval contains the truth, for the difference (which is 0) and
  for either side (M/M/4 by theory, lognormal by a run of 30 million requests);
* interval: the share of the runs that have one; the others say "not enough data";
* alarms: the share of all runs called worse or better; same: no difference larger than 15 %;
* i.i.d.: the coverage of order statistics of independent requests.

Then 150 runs per cell whose shadow's p99 is 30 % worse: the share that is called worse.

Two tables have `SHADOWSIM_COVERAGE_RUNS` runs per case, 40 by default and 200 or more for a proof:

* A/A runs of other traffic, service, routing and shares: whether the intervals of mean, p50 and p99 cover 0 / the
  values of a long run in source and shadow, false alarms, and how many runs have an interval;
* the power for shadows that are slower and slower, up to near saturation: it must not fall.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aa_pairs import LAWS, MEAN_S, WORKERS, alike, exact, long_run
from scipy.stats import binom

from shadowsim import Result, Scenario, simulate
from shadowsim.statistics.sections import frames_of, sections_of

Q = 0.99
MARGIN_PCT = 15.0
RUNS = 150  # per law
CASE_RUNS = int(os.environ.get("SHADOWSIM_COVERAGE_RUNS", "40"))
METRICS = {"mean": None, "p50": 0.5, "p99": 0.99}
LONG = 100  # times as many requests in the run whose values are taken as true
LOADS = (0.5, 0.8, 0.9)
# Factor of the shadow's service times that makes its p99 30 % worse: M/M/4 by theory, lognormal by long runs
SLOWER = {
    ("exponential", 0.5): 1.2308,
    ("exponential", 0.8): 1.0595,
    ("lognormal", 0.5): 1.2298,
    ("lognormal", 0.8): 1.0612,
}

Table = Callable[[str, str, str], None]


def runs(law: str, load: float, n: int, slower: float, n_runs: int) -> Iterator[Result]:
    for r in range(n_runs):
        yield simulate(alike(law, load, n, 1000 + r, slower), workers=1)


def compared(law: str, load: float, n: int, slower: float = 1.0, n_runs: int = RUNS) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for run in runs(law, load, n, slower, n_runs):
        row = run.compare(margin_pct=MARGIN_PCT).set_index("metric").loc["p99"]
        sample = sections_of(frames_of(run), None).source.sample
        assert sample is not None
        half = 1.96 * math.sqrt(Q * (1 - Q) / sample.n)
        rows.append(row.to_dict() | {"iid_low": sample.quantile(Q - half), "iid_high": sample.quantile(Q + half)})
    return pd.DataFrame(rows)


def truth(law: str, load: float) -> float:
    return exact(Q, load) if law == "exponential" else long_run(law, load, Q)


def test_an_a_a_run_covers_the_truth_or_has_not_enough_data(table: Table) -> None:
    failures = []
    table("p99 of A/A runs: load, requests", "covers 0 / truth, alarms, same", "interval, i.i.d. covers")
    for load in LOADS:
        true = {law: truth(law, load) for law in LAWS}
        for n in (20_000, 200_000):
            d = pd.concat([compared(law, load, n).assign(law=law) for law in LAWS])
            p99 = d["law"].map(true)
            has = d["low"].notna()
            zero = ((d["low"] <= 0) & (d["high"] >= 0))[has]
            sides = [((d[f"{s}_low"] <= p99) & (d[f"{s}_high"] >= p99))[has] for s in ("source", "shadow")]
            side = pd.concat(sides)
            alarms = d["outcome"].isin(["worse", "better"]).mean()
            same = (d["outcome"] == "same").mean()
            iid = ((d["iid_low"] <= p99) & (d["iid_high"] >= p99)).mean()
            shown = f"{zero.mean():.1%} / {side.mean():.1%}" if has.any() else "- / -"
            table(f"{load}, {n:,}", f"{shown}, {alarms:.1%}, {same:.1%}", f"{has.mean():.1%}, {iid:.1%}")
            for name, hits in (("0", zero), ("the truth", side)):
                if hits.size and not within(int(hits.sum()), hits.size, 0.90, 0.98):
                    failures.append(f"{load}, {n}: {hits.mean():.1%} of {hits.size} cover {name}")
            if alarms >= 0.07:
                failures.append(f"{load}, {n}: {alarms:.1%} alarms")
            if n == 200_000 and load <= 0.8 and has.mean() < 0.9:
                failures.append(f"{load}, {n}: an interval in {has.mean():.1%}")
    assert not failures


def within(hits: int, n: int, low: float, high: float) -> bool:
    """Return whether chance explains the hits for some probability from low to high, at a level of 0.1 % each side."""
    return bool(binom.ppf(0.001, n, low) <= hits <= binom.ppf(0.999, n, high))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("load", LOADS[:2])
def test_a_p99_worse_by_30_percent_is_called_worse(table: Table, law: str, load: float) -> None:
    slower = SLOWER[law, load]
    ratio = long_run(law, load, Q, slower) / truth(law, load)
    assert ratio == pytest.approx(1.3, abs=0.02)
    d = compared(law, load, 200_000, slower)
    power = (d["outcome"] == "worse").mean()
    table(f"p99 worse by {ratio - 1:.1%}: {law}, {load}, 200,000", f"worse in {power:.1%}", "goal 80%")
    assert power >= 0.8


def modulated(sojourns: int, n: int) -> dict[str, Any]:
    """Return MMPP traffic of loads 0.25 and 0.75, with this many sojourns in n requests."""
    return {"process": "mmpp", "rates_per_s": [10.0, 30.0], "mean_sojourn_s": [n / 20.0 / sojourns] * 2}


def services(time: dict[str, Any]) -> dict[str, Any]:
    return {f"services.{role}.time": {"mean_s": MEAN_S} | time for role in ("Source", "Shadow")}


N = 100_000
CASES: dict[str, tuple[float, dict[str, Any]]] = {
    "MMPP, 40 sojourns": (0.5, {"traffic": modulated(40, N)}),
    "MMPP, 12 sojourns": (0.5, {"traffic": modulated(12, N)}),
    "MMPP, 4 sojourns": (0.5, {"traffic": modulated(4, N)}),
    "gamma arrivals, SCV 4": (0.7, {"traffic": {"process": "gamma", "rate_per_s": 28.0, "scv": 4.0}}),
    "pareto service": (0.5, services({"law": "pareto", "scv": 0.45})),
    "least outstanding requests": (
        0.8,
        {
            "endpoint.routing": "LEAST_OUTSTANDING_REQUESTS",
            "source.instance_count": 4,
            "shadow.instance_count": 4,
            "services.Source.workers": 1,
            "services.Shadow.workers": 1,
        },
    ),
    "10 % share": (
        0.7,
        {
            "sampling_percentage": 10,
            "source.instance_count": 10,
            "shadow.instance_count": 1,
            "traffic": {"process": "poisson", "rate_per_s": 280.0},
        },
    ),
}


def case(name: str, seed: int, n: int = N) -> Scenario:
    load, changes = CASES[name]
    rate = load * WORKERS / MEAN_S * (10.0 if name == "10 % share" else 1.0)
    times = {"horizon_s": n / rate, "run.period_s": n / rate / 100}
    return alike("exponential", load, n, seed).replace(times | changes)


def long_values(name: str) -> dict[str, float]:
    run = simulate(case(name, 1, LONG * N))
    summary = run.summary().iloc[0]
    return {metric: float(summary[f"{metric}_s"]) for metric in METRICS}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_other_traffic_is_covered_or_has_not_enough_data(table: Table, name: str) -> None:
    true, failures = long_values(name), []
    d = pd.concat([simulate(case(name, 2000 + r), workers=1).compare() for r in range(CASE_RUNS)])
    for metric, value in true.items():
        rows = d[d["metric"] == metric]
        shown = rows[rows["low"].notna() & np.isfinite(rows["low"] + rows["high"])]
        zero = (shown["low"] <= 0.0) & (shown["high"] >= 0.0)
        sides = [(shown[f"{side}_low"] <= value) & (shown[f"{side}_high"] >= value) for side in ("source", "shadow")]
        alarms = rows["outcome"].isin(["worse", "better"])
        covers = [f"{x.mean():.1%}" if x.size else "-" for x in (zero, *sides)]
        table(
            f"{name}: {metric}",
            f"{covers[0]} / {covers[1]}, {covers[2]}, {alarms.mean():.1%}",
            f"{len(shown)} of {len(rows)}",
        )
        for what, hits in zip(("0", "the source's", "the shadow's"), (zero, *sides), strict=True):
            if hits.size and hits.sum() < binom.ppf(0.001, hits.size, 0.9):
                failures.append(f"{metric}: {hits.mean():.1%} of {hits.size} cover {what}")
        if alarms.sum() > binom.ppf(0.999, alarms.size, 0.07):
            failures.append(f"{metric}: {alarms.mean():.1%} alarms")
        if name in ("MMPP, 12 sojourns", "MMPP, 4 sojourns") and len(shown):
            failures.append(f"{metric}: {len(shown)} intervals of too few cycles")
    assert not failures


@pytest.mark.long
@pytest.mark.parametrize(("load", "changes"), [(0.8, (1.06, 1.14, 1.20)), (0.5, (1.85, 1.95))])
def test_the_power_does_not_fall_as_the_change_grows(table: Table, load: float, changes: tuple[float, ...]) -> None:
    best = {"p99": 0.0, "mean": 0.0}
    failures = []
    for slower in changes:
        d = pd.concat([run.compare() for run in runs("exponential", load, 200_000, slower, CASE_RUNS)])
        for metric in best:
            rows = d[d["metric"] == metric]
            power = float((rows["outcome"] == "worse").mean())
            one_sided = float(np.isinf(rows["high"]).mean())
            table(
                f"M/M/4 at {load}, service x{slower}: {metric}", f"worse in {power:.1%}", f"one-sided {one_sided:.1%}"
            )
            if power < best[metric] - 0.05:
                failures.append(f"{metric} at x{slower}: {power:.1%} after {best[metric]:.1%}")
            best[metric] = max(best[metric], power)
    assert not failures
