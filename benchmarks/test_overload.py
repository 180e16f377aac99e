"""Measures false and true OVERLOADED where the load of a window is random.

Each row is a pool whose load lies below 1, and the same pool at a load of 1.1. False is the share of runs that are
called OVERLOADED below 1, found that at 1.1. A window of 60 s holds 1,920 requests on average, a run six hours.
`SHADOWSIM_OVERLOAD_RUNS` sets the runs per cell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import Scenario, simulate
from shadowsim.text import OVERLOADED
from shadowsim.verdict import verdict

RUNS = int(os.environ.get("SHADOWSIM_OVERLOAD_RUNS", "10"))
RATE_PER_S = 32.0
HORIZON_S = 6 * 3600.0
OVERLOAD = 1.1
Table = Callable[[str, str, str], None]


def halves(process: str, **more: object) -> list[dict[str, Any]]:
    return [{"process": process, "rate_per_s": RATE_PER_S / 2} | more] * 2


def pool(
    traffic: object, scv: float, load: float, seed: int, folder: Path, workers: int = 1, **more: object
) -> Scenario:
    served = service("lognormal", load * workers / RATE_PER_S, workers, scv=scv, **more)
    return run_of(traffic, served, seed, folder)


def run_of(traffic: object, served: dict[str, Any], seed: int, folder: Path) -> Scenario:
    run = {"horizon_s": HORIZON_S, "sample_requests": 0, "seed": seed}
    return scenario(traffic, served, base_dir=folder, share=50, **run)


def recorded(load: float, seed: int, folder: Path) -> Scenario:
    """Return a trace of gamma gaps of SCV 25 whose rows tell lognormal work of SCV 16."""
    rng = np.random.default_rng(seed)
    n = int(RATE_PER_S * HORIZON_S)
    time_s = np.cumsum(rng.gamma(1 / 25, 25 / RATE_PER_S, n))
    sigma = np.sqrt(np.log(17.0))
    size = load / RATE_PER_S * rng.lognormal(-(sigma**2) / 2, sigma, n)
    pd.DataFrame({"time_s": time_s - time_s[0], "size": size}).to_parquet(folder / "trace.parquet")
    served = {"time": {"law": "linear", "base_s": 0.0, "size": 1.0}, "workers": 1}
    return run_of({"process": "trace", "path": "trace.parquet"}, served, seed, folder)


POISSON = {"process": "poisson", "rate_per_s": RATE_PER_S}
FLIPPING = {"process": "mmpp", "rates_per_s": [0.0, 2.0 * RATE_PER_S], "mean_sojourn_s": 1.0}
# name, load below 1, scenario by load, seed and folder, whether the verdict knows the scenario
CASES = [
    ("one Poisson stream, work SCV 16", 0.8, partial(pool, POISSON, 16.0), True),
    ("two Poisson streams, work SCV 16", 0.8, partial(pool, halves("poisson"), 16.0), True),
    ("slowdown [1, 1], work SCV 16", 0.8, partial(pool, POISSON, 16.0, workers=2, slowdown=[1.0, 1.0]), True),
    ("two Poisson streams, work SCV 8", 0.8, partial(pool, halves("poisson"), 8.0), True),
    ("rate that flips every second", 0.9, partial(pool, FLIPPING, 1.0), True),
    ("two gamma streams of SCV 25", 0.8, partial(pool, halves("gamma", scv=25.0), 1.0), True),
    ("trace, gaps of SCV 25, work SCV 16", 0.8, recorded, True),
    ("frames alone, work SCV 16", 0.8, partial(pool, POISSON, 16.0), False),
    ("frames alone, rate that flips", 0.9, partial(pool, FLIPPING, 1.0), False),
]


def called(
    make: Callable[[float, int, Path], Scenario], load: float, known: bool, folder: Path, n_runs: int
) -> Iterator[bool]:
    for seed in range(n_runs):
        s = make(load, 1000 + seed, folder)
        result = simulate(s, workers=1)
        pools = verdict(result.windows, s if known else None).pools
        yield next(p.status for p in pools if p.role == "source") == OVERLOADED


@pytest.mark.parametrize(("name", "load", "make", "known"), CASES, ids=[case[0] for case in CASES])
def test_random_load_is_called_overloaded_only_where_it_is(
    name: str, load: float, make: Callable[..., Scenario], known: bool, table: Table, tmp_path: Path
) -> None:
    false, found = (float(np.mean(list(called(make, x, known, tmp_path, RUNS)))) for x in (load, OVERLOAD))
    table(f"OVERLOADED, {name}: at {load}, at {OVERLOAD}", f"{false:.1%}", f"{found:.1%}")
    assert false < max(0.05, 1.5 / RUNS)  # one run of few may be wrong
    assert found >= min(0.95, 1.0 - 1.5 / RUNS)
