"""How well `calibrate` finds what made a log: a table by law, workers, load and slowdown, and coverage of intervals.

Run all of it with `pytest -n 0 -s -m "long or not long" benchmarks/test_calibration.py`; it takes half an hour.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from served_logs import fifo_log, measured, services

import shadowsim as ss
from shadowsim.text import grid

LAWS = ("exponential", "lognormal", "gamma", "weibull", "uniform")
OVERHEAD_S, MEAN_S, N = 0.002, 0.02, 20_000
FEW, MANY = 12, 200


def recovered(law, workers, load, slowest=1.0, n=N, seed=0):
    """Return what was found: errors of mean and p99 in %, workers found, whether they are identified, and the text."""
    slowdown = np.linspace(1.0, slowest, workers)
    log = fifo_log(law, workers, load, n=n, seed=seed, slowdown=slowdown, overhead_s=OVERHEAD_S, mean_s=MEAN_S)
    found = ss.calibrate(measured(*log))
    p99 = np.quantile(services(law, 2_000_000, np.random.default_rng(1), MEAN_S), 0.99)
    errors = [
        100.0 * (found[name].value / truth - 1.0) for name, truth in (("time.mean_s", MEAN_S), ("time.p99_s", p99))
    ]
    wide = 100.0 * (found["time.mean_s"].high / found["time.mean_s"].value - 1.0)
    return errors, found["workers"].value, found["workers"].is_identified, wide


@pytest.mark.parametrize("every", [pytest.param(1, id="all", marks=pytest.mark.long), pytest.param(6, id="each sixth")])
def test_recovery(every):
    rows = [("law", "workers", "load", "slowdown", "mean %", "+-", "p99 %", "found", "identified")]
    good = []
    loads = (0.5, 1.0), (0.8, 1.0), (0.65, 1.5)
    cases = [
        (*case, n) for n, case in enumerate(product(LAWS, (1, 2, 4, 8), loads)) if case[1] > 1 or case[2][1] == 1.0
    ]
    for law, workers, (load, slowest), seed in cases[::every]:
        (mean, p99), c, known, wide = recovered(law, workers, load, slowest, seed=seed)
        good.append(known and c == workers and abs(mean) <= 2.0 and abs(p99) <= 5.0)
        # whatever is off by more is said to be uncertain
        assert not known or c == workers
        assert abs(mean) <= max(2.0, 2.5 * wide)
        texts = f"{mean:+.1f}", f"{wide:.1f}", f"{p99:+.1f}", str(c), "yes" if known else "no"
        rows.append((law, str(workers), f"{load:g}", f"{slowest:g}", *texts))
    print("\n" + grid(rows))
    print(f"workers exact, mean within 2 % and p99 within 5 %: {sum(good)} of {len(good)}")
    assert np.mean(good) >= 0.8


@pytest.mark.parametrize("n_runs", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.long)])
@pytest.mark.parametrize(("law", "workers", "load", "slowest"), [("gamma", 2, 0.5, 1.0), ("lognormal", 4, 0.7, 1.0)])
def test_coverage(law, workers, load, slowest, n_runs):
    truths = {"time.mean_s": MEAN_S, "endpoint.overhead_s": OVERHEAD_S, f"slowdown[{workers}]": slowest}
    truths["time.p99_s"] = np.quantile(services(law, 2_000_000, np.random.default_rng(1), MEAN_S), 0.99)
    hits = dict.fromkeys(truths, 0)
    for seed in range(n_runs):
        log = fifo_log(law, workers, load, n=4_000, seed=seed, overhead_s=OVERHEAD_S)
        found = ss.calibrate(measured(*log))
        for name, truth in truths.items():
            hits[name] += found[name].low <= truth <= found[name].high
    print(f"\n{law}, {workers} workers, load {load:g}: " + ", ".join(f"{n} {k / n_runs:.3f}" for n, k in hits.items()))
    # Goal: 0.9 of them, less three standard errors of a share of 0.93.
    assert min(hits.values()) >= 0.9 * n_runs - 3.0 * np.sqrt(0.93 * 0.07 * n_runs)
