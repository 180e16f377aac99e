"""Estimates a service from counts and percentiles a period, as CloudWatch has them.

Windows are grouped by their rate. In each group latency is modelled as a lognormal service plus the wait of M/G/c:
with the probability of Erlang's C (1917) a request waits, for an exponential time whose mean is that of Allen and
Cunneen (1990). Mean and shape of the service are fitted by least squares of logarithms for each number of workers. Only
the growth of latency with the rate tells the workers: where it is small, they stay open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.frames import PERCENTILES, US_PER_S
from shadowsim.measuring.calibration import LATENCY_ALONE, Draw, FittedParameter, FittedService, Z
from shadowsim.measuring.law_fit import rounded
from shadowsim.planning.queueing_theory import erlang_c
from shadowsim.text import count, percent, significant

if TYPE_CHECKING:
    import pandas as pd

LEAST_WINDOWS = 10
_GROUPS = 12
_NUMBERS = (*range(1, 17), 20, 24, 32, 48, 64)  # of workers that are tried
_PER_TAIL = 10.0  # requests of a window beyond a percentile, for it to be used
_CLEAR = 4.0  # of log likelihood
_VARIES = 1.2  # the greatest rate over the least, for waits to be told from services
_DRAWS = 60
_NAMES = ("p50", "p90", "p95", "p99")
_DEPTHS = (np.arange(80) + 0.5) / 80.0
_NORMAL = np.array([NormalDist().inv_cdf(p) for p in _DEPTHS.tolist()])
_BLOCKED = 1e3  # times the service: the latency of a group that workers could not serve


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Windows of about one rate together: requests per second and instance, and log latencies by statistic."""

    rate_per_s: Floats
    weight: Floats
    logs: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    workers: int
    log_mean: float
    log_scv: float
    covariance: Floats
    score: float
    spread: float


def fit_windows(windows: pd.DataFrame, instances: int, seed: int = 0) -> FittedService:
    """Return the service that windows show.

    Parameters
    ----------
    windows : DataFrame
        With `Invocations`, `period_s`, and at least two of `ModelLatency_Average`, `_p50`, `_p90`, `_p95`, `_p99`
        (microseconds).
    instances : int
        Instances that shared the requests evenly.
    seed : int
        Of the draws.

    Raises
    ------
    InputError
        When columns are missing, or there are too few windows with requests.
    """
    groups, used, n_requests = _groups(windows, instances)
    varied = float(groups.rate_per_s.max()) >= _VARIES * float(groups.rate_per_s.min())
    fits = [fit for c in (_NUMBERS if varied else _NUMBERS[-1:]) if (fit := _fit(groups, c)) is not None]
    best = max(fits, key=lambda fit: fit.score)
    possible = [fit for fit in fits if fit.score > best.score - _CLEAR]
    low, high = possible[0].workers, possible[-1].workers
    open_end = high == _NUMBERS[-1]
    if not varied:
        why = "the rate hardly varies, and only the growth of latency with it shows waits; the service time holds them"
    elif open_end:
        why = f"latency hardly grows with the rate: {low} workers or more are possible"
    elif low < high:
        why = f"windows fit {low} to {high} workers about equally well"
    else:
        why = ""
    rng = np.random.default_rng(seed)
    draws, figures = [], []
    odds = np.exp([fit.score - best.score for fit in possible])
    for _ in range(_DRAWS):
        one = possible[int(rng.choice(len(possible), p=odds / odds.sum()))]
        log_mean, log_scv = rng.multivariate_normal([one.log_mean, one.log_scv], one.covariance)
        draws.append(Draw(_service(log_mean, log_scv, one.workers), 0.0))
        figures.append(_figures(log_mean, log_scv))
    parameters = []
    for name, value in _figures(best.log_mean, best.log_scv).items():
        values = np.log([figure[name] for figure in figures])
        reach = math.exp(Z * float(np.hypot(values.std(), values.mean() - math.log(value))))
        parameters.append(FittedParameter(name, value, value / reach, value * reach))
    parameters += [
        FittedParameter("workers", best.workers, low if varied else 1, math.inf if open_end else high, why),
        FittedParameter("slowdown", None, why_not="windows do not show how many workers were busy; none is assumed"),
        FittedParameter("endpoint.overhead_s", None, why_not="ModelLatency does not contain it"),
    ]
    notes = (
        f"There are no single requests, but {count(len(windows))} windows; used are {', '.join(used)} of groups of "
        "windows by their rate.",
        "Assumed: arrivals within a window are random (Poisson), requests are spread evenly over instances, service "
        f"times are lognormal. The fit misses by {percent(best.spread)} (root mean square).",
        f"Rates an instance: {significant(float(groups.rate_per_s.min()))} to "
        f"{significant(float(groups.rate_per_s.max()))} requests per second.",
    )
    service = _service(best.log_mean, best.log_scv, best.workers)
    return FittedService(service, 0.0, tuple(parameters), notes, tuple(draws), n_requests)


def describe_quantiles(quantiles: Mapping[float, float]) -> FittedService:
    """Return the service that has the quantiles of latency of a whole run, in seconds, as its own."""
    points = {f"{p:g}": rounded(s) for p, s in sorted(quantiles.items())}
    if len(points) < 2:
        raise InputError("measurements", "must have at least two quantiles of latency", len(points))
    service = {"time": {"law": "empirical", "quantiles_s": points}}
    why = "quantiles of a whole run do not show waits apart from services"
    parameters = (
        FittedParameter("workers", None, why_not=why),
        FittedParameter("slowdown", None, why_not=why),
        FittedParameter("endpoint.overhead_s", None, why_not=why),
    )
    return FittedService(service, 0.0, parameters, (LATENCY_ALONE,), (), 0)


def _groups(windows: pd.DataFrame, instances: int) -> tuple[_Groups, list[str], int]:
    missing = [column for column in ("Invocations", "period_s") if column not in windows.columns]
    if missing:
        raise InputError("measurements", f"must have windows with the column {missing[0]}")
    columns = {"mean": "ModelLatency_Average"} | {name: f"ModelLatency_{name}" for name in _NAMES}
    columns = {name: column for name, column in columns.items() if column in windows.columns}
    n = windows["Invocations"].to_numpy(np.float64)
    rows = n > 0.0
    for column in columns.values():
        rows &= windows[column].to_numpy(np.float64) > 0.0
    few = float(np.median(n[rows])) if rows.any() else 0.0
    columns = {x: c for x, c in columns.items() if x == "mean" or (1.0 - PERCENTILES[x]) * few >= _PER_TAIL}
    if int(rows.sum()) < LEAST_WINDOWS or len(columns) < 2:
        constraint = (
            f"must have at least {LEAST_WINDOWS} windows with two statistics of ModelLatency, each with ten requests "
            "beyond it"
        )
        raise InputError("measurements", constraint, int(rows.sum()))
    table = windows[rows]
    rate = table["Invocations"].to_numpy(np.float64) / table["period_s"].to_numpy(np.float64) / instances
    parts = np.array_split(np.argsort(rate, kind="stable"), min(_GROUPS, len(rate) // 2))
    logs = {
        name: np.array([np.log(table[column].to_numpy(np.float64)[part] / US_PER_S).mean() for part in parts])
        for name, column in columns.items()
    }
    groups = _Groups(np.array([rate[part].mean() for part in parts]), np.array([len(part) for part in parts]), logs)
    return groups, list(columns.values()), int(n.sum())


def _fit(groups: _Groups, workers: int) -> _Fit | None:
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    first = next(iter(groups.logs.values()))[0]

    def misses(x: Floats) -> Floats:
        modelled = _latencies(float(x[0]), float(x[1]), workers, groups)
        return np.concatenate([modelled[name] - groups.logs[name] for name in groups.logs])

    found = least_squares(misses, [first - 0.1, -1.0], bounds=([first - 8.0, -8.0], [first + 3.0, 3.0]))
    n = len(found.fun)
    if not np.isfinite(found.fun).all():
        return None
    variance = float(found.fun @ found.fun) / max(n - 3, 1)
    information = found.jac.T @ found.jac
    covariance = np.linalg.pinv(information) * variance
    score = -0.5 * n * math.log(max(variance, 1e-12))
    return _Fit(workers, float(found.x[0]), float(found.x[1]), covariance, score, math.sqrt(variance))


def _latencies(log_mean: float, log_scv: float, workers: int, groups: _Groups) -> dict[str, Floats]:
    """Return the logarithms of the statistics of latency, by group."""
    mean_s, scv = math.exp(log_mean), math.exp(log_scv)
    sigma2 = math.log1p(scv)
    service = mean_s * np.exp(math.sqrt(sigma2) * _NORMAL - 0.5 * sigma2)
    logs: dict[str, list[float]] = {name: [] for name in groups.logs}
    for rate in groups.rate_per_s.tolist():
        offered = rate * mean_s
        if offered >= 0.999 * workers:
            for values in logs.values():
                values.append(math.log(_BLOCKED * mean_s * offered / workers))
            continue
        waits = erlang_c(workers, offered)
        mean_wait = 0.5 * (1.0 + scv) * mean_s / (workers - offered)  # of those that wait
        wait = np.where(1.0 - waits < _DEPTHS, -mean_wait * np.log(np.minimum((1.0 - _DEPTHS) / waits, 1.0)), 0.0)
        latency = np.sort(np.add.outer(service, wait).ravel())
        for name, values in logs.items():
            x = mean_s + waits * mean_wait if name == "mean" else latency[int(PERCENTILES[name] * len(latency))]
            values.append(math.log(x))
    return {name: np.array(values) for name, values in logs.items()}


def _service(log_mean: float, log_scv: float, workers: int) -> dict[str, Any]:
    time = {"law": "lognormal", "mean_s": rounded(math.exp(log_mean)), "scv": rounded(math.exp(log_scv))}
    return {"time": time, "workers": workers}


def _figures(log_mean: float, log_scv: float) -> dict[str, float]:
    sigma2 = math.log1p(math.exp(log_scv))
    middle = math.exp(log_mean - 0.5 * sigma2)
    p99 = middle * math.exp(2.3263478740408408 * math.sqrt(sigma2))
    return {"time.mean_s": math.exp(log_mean), "time.p50_s": middle, "time.p99_s": p99}
