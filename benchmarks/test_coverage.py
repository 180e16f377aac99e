"""Measures the coverage of the intervals of `compare`, and of textbook intervals for independent requests.

300 A/A runs per cell, half M/M/4 and half lognormal (SCV 0.5); the shadow equals the source, and all requests are
copied. All figures are of p99.

* covers: the share of the runs with an interval whose interval contains the truth, for the difference (which is 0) and
  for either side (M/M/4 by theory, lognormal by a run of 30 million requests);
* interval: the share of the runs that have one; the others say "not enough data";
* alarms: the share of all runs called worse or better; same: no difference larger than 15 %;
* i.i.d.: the coverage of order statistics of independent requests.

Then 150 runs per cell whose shadow's p99 is 30 % worse: the share that is called worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
from aa_pairs import LAWS, alike, exact, long_run
from scipy.stats import binom

from shadowsim import Result, simulate
from shadowsim.statistics.sections import frames_of, sections_of

Q = 0.99
MARGIN_PCT = 15.0
RUNS = 150  # per law
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
