"""Measures the coverage of the intervals of `compare`, their false alarms, and their power.

All runs are A/A runs: the shadow equals the source. Their truth is 0 for the difference; for a side it is known by
theory, by a run of 30 million requests, or from all runs of the case together, of which a single one is too small a
part to matter.

* covers: the share of the runs with an interval whose interval contains the truth, for the difference (0) and for
  either side;
* interval: the share of the runs that have one; the others say "not enough data";
* alarms: the share of all runs called worse or better; same: no difference larger than 15 %;
* i.i.d.: the coverage of order statistics of independent requests.

The tables are

* p99 of M/M/4 and of lognormal service (SCV 0.5) at three loads and two lengths, against textbook intervals;
* mean, p50, p99, p99.9 and errors with other traffic, service, routing, refusals, shares and copied sessions;
* the power for a shadow whose p99 is 30 % worse, and for shadows that are slower and slower, up to near saturation,
  where it must not fall.

Each has a short form of a few runs, which finds gross faults, and a long one (`-m long`) of `SHADOWSIM_COVERAGE_RUNS`
runs per case, 200 by default.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aa_pairs import LAWS, MEAN_S, WORKERS, alike, exact, long_run
from scipy.stats import binom

from shadowsim import Result, Scenario, frames, simulate
from shadowsim.statistics.sections import frames_of, sections_of

Q = 0.99
MARGIN_PCT = 15.0
FEW, MANY = 8, int(os.environ.get("SHADOWSIM_COVERAGE_RUNS", "200"))
METRICS = {"mean": None, "p50": 0.5, "p99": 0.99, "p99.9": 0.999, "error_rate": None}
LOADS = (0.5, 0.8, 0.9)
# Factor of the shadow's service times that makes its p99 30 % worse: M/M/4 by theory, lognormal by long runs
SLOWER = {
    ("exponential", 0.5): 1.2308,
    ("exponential", 0.8): 1.0595,
    ("lognormal", 0.5): 1.2298,
    ("lognormal", 0.8): 1.0612,
}

Table = Callable[[str, str, str], None]

of_few_and_many = pytest.mark.parametrize(
    "n_runs", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.long)]
)


def runs(law: str, load: float, n: int, slower: float, n_runs: int) -> Iterator[Result]:
    for r in range(n_runs):
        yield simulate(alike(law, load, n, 1000 + r, slower), workers=1)


def compared(law: str, load: float, n: int, n_runs: int, slower: float = 1.0) -> pd.DataFrame:
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


@of_few_and_many
def test_an_a_a_run_covers_the_truth_or_has_not_enough_data(table: Table, n_runs: int) -> None:
    failures = []
    table("p99 of A/A runs: load, requests", "covers 0 / truth, alarms, same", "interval, i.i.d. covers")
    for load in LOADS:
        true = {law: truth(law, load) for law in LAWS}
        for n in (20_000, 200_000):
            d = pd.concat([compared(law, load, n, n_runs // 2).assign(law=law) for law in LAWS])
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
            if not within(round(alarms * len(d)), len(d), 0.0, 0.07):
                failures.append(f"{load}, {n}: {alarms:.1%} alarms")
            if n == 200_000 and load <= 0.8 and not within(int(has.sum()), has.size, 0.9, 1.0):
                failures.append(f"{load}, {n}: an interval in {has.mean():.1%}")
    assert not failures


def within(hits: int, n: int, low: float, high: float) -> bool:
    """Return whether chance explains the hits for some probability from low to high, at a level of 0.1 % each side."""
    return bool(binom.ppf(0.001, n, low) <= hits <= binom.ppf(0.999, n, high))


@of_few_and_many
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("load", LOADS[:2])
def test_a_p99_worse_by_30_percent_is_called_worse(table: Table, law: str, load: float, n_runs: int) -> None:
    slower = SLOWER[law, load]
    ratio = long_run(law, load, Q, slower) / truth(law, load)
    assert ratio == pytest.approx(1.3, abs=0.02)
    d = compared(law, load, 200_000, n_runs, slower)
    found = int((d["outcome"] == "worse").sum())
    power = found / n_runs
    table(f"p99 worse by {ratio - 1:.1%}: {law}, {load}, 200,000", f"worse in {power:.1%}", "goal 80%")
    assert within(found, n_runs, 0.8, 1.0)


def pools(
    traffic: dict[str, Any], n: int, mean_s: float = MEAN_S, routing: str = "RANDOM", **more: Any
) -> dict[str, Any]:
    """Return a case of n requests to equal pools, all copied, with four workers each; `more` may change that.

    LEAST_OUTSTANDING_REQUESTS has the workers on four instances.
    """
    horizon_s = n * mean_s / (WORKERS * traffic.pop("load"))
    by_instance = routing == "LEAST_OUTSTANDING_REQUESTS"
    changes = {"traffic": traffic, "horizon_s": horizon_s, "run.period_s": horizon_s / 100, "endpoint.routing": routing}
    for role in ("source", "shadow"):
        changes[f"{role}.instance_count"] = WORKERS if by_instance else 1
        changes[f"{role}.workers"] = 1 if by_instance else WORKERS
        changes[f"{role}.time"] = {"law": "exponential", "mean_s": mean_s}
    return changes | more


def flat(load: float, process: str = "poisson", pools: int = 1, **more: Any) -> dict[str, Any]:
    return {"process": process, "rate_per_s": load * pools * WORKERS / MEAN_S, "load": load * pools} | more


def modulated(sojourns: int) -> dict[str, Any]:
    """Return MMPP traffic of loads 0.25 and 0.75, with this many sojourns in N requests."""
    rates = [0.25 * WORKERS / MEAN_S, 0.75 * WORKERS / MEAN_S]
    return {"process": "mmpp", "rates_per_s": rates, "mean_sojourn_s": [N / 20.0 / sojourns] * 2, "load": 0.5}


def a_day(profile: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a case of a day in windows of a minute, with service times of 0.25 s."""
    day = {"horizon_s": 86400.0, "run.period_s": 60.0}
    return pools({"process": "poisson", "profile": profile, "load": 0.5}, N, 0.25, **more) | day


def by_hours(*rates: float) -> dict[str, Any]:
    """Return a profile of these rates, six hours each."""
    return {"kind": "steps", "steps": [{"from_s": 21600 * i, "rate_per_s": rate} for i, rate in enumerate(rates)]}


def limited(role: str) -> dict[str, Any]:
    return {f"{role}.queue_limit": 8}


N = 100_000
PARETO = {"law": "pareto", "mean_s": MEAN_S, "scv": 0.45}
DAY = {"kind": "diurnal", "base_per_s": 4.0, "peak_per_s": 12.8}  # loads 0.25 and 0.8
STEPS = by_hours(12.8, 4.0, 12.8, 4.0)
LEAST = "LEAST_OUTSTANDING_REQUESTS"
AZURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "azure_llm_code_2023.csv"
CASES: dict[str, dict[str, Any]] = {
    "MMPP, 40 sojourns": pools(modulated(40), N),
    "MMPP, 12 sojourns": pools(modulated(12), N),
    "MMPP, 4 sojourns": pools(modulated(4), N),
    "gamma arrivals, SCV 4": pools(flat(0.7, "gamma", scv=4.0), N),
    "pareto service": pools(flat(0.5), N) | {f"{role}.time": PARETO for role in ("source", "shadow")},
    "a day": a_day(DAY),
    "a day, least outstanding": a_day(DAY, routing=LEAST),
    "steps": a_day(STEPS),
    "steps, least outstanding": a_day(STEPS, routing=LEAST),
    "least outstanding": pools(flat(0.8), N, routing=LEAST),
    "refusals at load 0.9": pools(flat(0.9), N, **limited("source"), **limited("shadow")),
    "hash, 2,000 sessions, 30 %": pools(flat(0.7, pools=10, sessions=2000), N, sampling_percentage=30)
    | {"source.instance_count": 10, "shadow.instance_count": 3, "mirror.rule": "hash"},
    "10 % share": pools(flat(0.7, pools=10), 3 * N, sampling_percentage=10) | {"source.instance_count": 10},
    "trace of Azure, 12 times": pools({"process": "trace", "path": str(AZURE), "repeat": 12, "load": 0.5}, N, 0.78)
    | {"horizon_s": 12 * 3435.9, "run.period_s": 60.0},
}


def case(name: str, seed: int) -> Scenario:
    return alike("exponential", 0.5, N, seed).replace(CASES[name])


def together(latency: pd.DataFrame, compared: pd.DataFrame) -> dict[str, float]:
    """Return the value of each metric over both sides of all runs."""
    values = {m: float(frames.quantile(latency, q)["all"]) for m, q in METRICS.items() if q}
    for metric in [m for m, q in METRICS.items() if q is None]:
        rows = compared[compared["metric"] == metric]
        n = rows[["n_source", "n_shadow"]].to_numpy()
        values[metric] = float((rows[["source", "shadow"]].to_numpy() * n).sum() / n.sum())
    return values


@of_few_and_many
@pytest.mark.parametrize("name", CASES)
def test_other_traffic_is_covered_or_has_not_enough_data(table: Table, name: str, n_runs: int) -> None:
    if "Azure" in name and not AZURE.exists():
        pytest.skip("needs the trace of Azure beside the project")
    rows_of_runs, latencies, failures = [], [], []
    for r in range(n_runs):
        result = simulate(case(name, 2000 + r), workers=1)
        rows_of_runs.append(result.compare())
        latencies.append(result.latency.groupby(["low_s", "high_s"], as_index=False)["count"].sum())
    d = pd.concat(rows_of_runs)
    for metric, value in together(pd.concat(latencies).assign(role="both", variant="all"), d).items():
        rows = d[d["metric"] == metric]
        if metric == "error_rate" and not value:
            continue
        shown = rows[rows["low"].notna() & np.isfinite(rows["low"] + rows["high"])]
        zero = (shown["low"] <= 0.0) & (shown["high"] >= 0.0)
        sides = [(shown[f"{side}_low"] <= value) & (shown[f"{side}_high"] >= value) for side in ("source", "shadow")]
        worse, better = ((rows["outcome"] == outcome).mean() for outcome in ("worse", "better"))
        covers = [f"{x.mean():.1%}" if x.size else "-" for x in (zero, *sides)]
        table(
            f"{name}: {metric}",
            f"{covers[0]} / {covers[1]}, {covers[2]}, {worse:.1%} + {better:.1%}",
            f"{len(shown)} of {len(rows)}",
        )
        for what, hits in zip(("0", "the source's", "the shadow's"), (zero, *sides), strict=True):
            if hits.size and not within(int(hits.sum()), hits.size, 0.9, 1.0):
                failures.append(f"{metric}: {hits.mean():.1%} of {hits.size} cover {what}")
        if not within(round((worse + better) * n_runs), n_runs, 0.0, 0.07):
            failures.append(f"{metric}: {worse + better:.1%} alarms")
        if name in ("MMPP, 12 sojourns", "MMPP, 4 sojourns") and metric != "error_rate" and len(shown):
            failures.append(f"{metric}: {len(shown)} intervals of too few cycles")
    assert not failures


@of_few_and_many
@pytest.mark.parametrize(("load", "changes"), [(0.8, (1.06, 1.14, 1.20)), (0.5, (1.85, 1.95))])
def test_the_power_does_not_fall_as_the_change_grows(
    table: Table, load: float, changes: tuple[float, ...], n_runs: int
) -> None:
    best = {"p99": 0.0, "mean": 0.0}
    failures = []
    for slower in changes:
        d = pd.concat([run.compare() for run in runs("exponential", load, 200_000, slower, n_runs)])
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
