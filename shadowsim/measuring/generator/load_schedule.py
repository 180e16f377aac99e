"""Plans a load run: the scenario that it follows, the moments of its requests, and their bodies.

Arrivals are those of the simulator: the same scenario and seed give the same times to the bit, so that a simulation and
a load run of one scenario have the same requests. Retries of the scenario's callers are left out.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.captures.folders import captured_arrivals
from shadowsim.errors import InputError
from shadowsim.measuring.generator.bodies import Bodies, random_bodies
from shadowsim.measuring.generator.sender import LoadStage
from shadowsim.quantities import parse_duration
from shadowsim.scenario.defaults import RUN, builtin_document
from shadowsim.scenario.laws import Law
from shadowsim.scenario.scenario import Scenario

ARRIVALS_FILE = "arrivals.parquet"  # of replayed captures, in the directory of the run
DURATION_S = 60.0
MOST_REQUESTS = 10_000_000  # whose rows are kept in memory
_MOST_SIZES = 1_000_000  # of random bodies, after which they come again
_PERIODS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)
_MOST_PERIODS = 120
_STAGE = re.compile(r"\s*([\d.eE+-]+)\s*/\s*(s|min|h)\s+(\S+)\s*")
_PER_S = {"s": 1.0, "min": 60.0, "h": 3600.0}
_PLACE_HOLDER = (
    "services: what serves the requests is not known; the built-in model stands in the file, and no figure uses it."
)


@dataclass(frozen=True, slots=True, eq=False)
class LoadSchedule:
    """The planned requests of a run.

    Attributes
    ----------
    due_s : ndarray of float64, shape (n,)
        Ascending, from the start of the run.
    stage : ndarray of int64, shape (n,)
        -1 without stages.
    stages : tuple of LoadStage
    """

    due_s: Floats
    stage: Ints
    stages: tuple[LoadStage, ...] = ()


def load_scenario(
    source: object = None,
    *,
    rate_per_s: float | None = None,
    duration_s: float | None = None,
    stages: Sequence[tuple[float, float]] = (),
    changes: Mapping[str, object] | None = None,
    seed: int | None = None,
    name: str = "load",
) -> Scenario:
    """Return the scenario whose traffic a run sends.

    Parameters
    ----------
    source : Scenario, mapping, JSON text or path, optional
        By default Poisson arrivals at `rate_per_s` for `duration_s`, or for a minute.
    rate_per_s, duration_s : float, optional
    stages : sequence of (float, float)
        Rates per second and lengths in seconds, one after the other.
    changes : mapping, optional
        As for `Scenario.replace`.
    seed : int, optional
    name : str
        Of the endpoint, in a scenario that is made here.

    Raises
    ------
    InputError, ValidationError
        When it cannot be used, or says nothing about the rate.
    """
    edits = dict(changes or {})
    if stages:
        if rate_per_s is not None or duration_s is not None:
            raise InputError("stages", "must not be given together with `rate_per_s` or `duration_s`")
        begins = np.cumsum([0.0, *(length for _, length in stages)])
        steps = [{"from_s": t, "rate_per_s": rate} for t, (rate, _) in zip(begins.tolist(), stages, strict=False)]
        profile = {"kind": "steps", "steps": steps}
        edits = {"traffic.rate_per_s": None, "traffic.profile": profile, "horizon_s": float(begins[-1])} | edits
    if seed is not None:
        edits["seed"] = seed
    if duration_s is not None:
        edits["horizon_s"] = duration_s
    if source is not None:
        return Scenario.of(source, rate_per_s, edits)
    if rate_per_s is None and not any(path.split(".")[0] in ("traffic", "rate_per_s") for path in edits):
        raise InputError("rate_per_s", "must be given, or `scenario` or `stages`, which say how many requests to send")
    traffic = edits.get("traffic")
    is_trace = isinstance(traffic, Mapping) and traffic.get("process") == "trace"
    # a trace alone is played to its end
    length_s = edits.get("horizon_s", edits.get("run.horizon_s", None if is_trace else DURATION_S))
    length_s = parse_duration(length_s, "horizon_s") if isinstance(length_s, str) else length_s
    document = builtin_document()
    experiment = dict(document["experiment"])  # type: ignore[call-overload]
    experiment |= {
        "Name": "load",
        "EndpointName": name if re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name) else "load",
    }
    document["experiment"] = experiment
    document["traffic"] = {"process": "poisson", "rate_per_s": rate_per_s if rate_per_s is not None else 1.0}
    period_s = _period_s(float(length_s)) if isinstance(length_s, int | float) else RUN["period_s"]
    document["run"] = {**RUN, "horizon_s": None if is_trace else DURATION_S, "period_s": period_s}
    return Scenario.from_dict(document, None, {"services": _PLACE_HOLDER}).replace(edits)


def captured_traffic(captures: str | os.PathLike[str], folder: Path, seed: int = 0) -> dict[str, object]:
    """Write the arrival times of SageMaker's captures into a folder, and return the traffic that replays them.

    Captures have times in whole seconds; where within its second a request comes is drawn (`captured_arrivals`). The
    bodies of `read_bodies` are in the order of seconds, too, so that each is sent in its own.
    """
    file = folder / ARRIVALS_FILE
    captured_arrivals(captures, seed=seed).to_parquet(file, index=False)
    # relative to the working directory, and so, once it is saved, to the run's: the directory may be moved
    return {"process": "trace", "path": os.path.relpath(file), "time_column": "timestamp"}


def parse_stages(text: str) -> list[tuple[float, float]]:
    """Return rates per second and lengths in seconds from a text such as "10/s 30s, 20/s 30s"."""
    stages = []
    for part in text.split(","):
        match = _STAGE.fullmatch(part)
        if not match:
            raise InputError("stages", 'must be rates and lengths such as "10/s 30s, 20/s 1min"', part.strip())
        try:
            rate = float(match[1]) / _PER_S[match[2]]
        except ValueError:
            raise InputError("stages", "must have a number as its rate", part.strip()) from None
        length_s = parse_duration(match[3], "stages")
        if not (math.isfinite(rate) and rate >= 0.0 and length_s > 0.0):
            raise InputError("stages", "must have a rate >= 0 and a length > 0", part.strip())
        stages.append((rate, length_s))
    return stages


def schedule_of(scenario: Scenario, stages: Sequence[tuple[float, float]] = ()) -> LoadSchedule:
    """Return the moments of a scenario's requests.

    Raises
    ------
    InputError
        There are more than can be kept.
    """
    expected = scenario.traffic.mean_rate(scenario.horizon_s, scenario.start) * scenario.horizon_s
    if expected > MOST_REQUESTS:
        what = (
            f"must bring at most {MOST_REQUESTS:,} requests within {scenario.horizon_s:g} s, which are kept in memory"
        )
        raise InputError("traffic", what, round(expected), hint="; give a shorter `duration_s`")
    from shadowsim.engine.arrivals import arrivals_of  # loads the compiler

    due_s = arrivals_of(scenario).times(scenario.n_windows)
    if not due_s.size:
        raise InputError(
            "traffic", f"must bring a request within {scenario.horizon_s:g} s; the mean number is", expected
        )
    if not stages:
        return LoadSchedule(due_s, np.full(due_s.size, -1))
    edges = np.cumsum([0.0, *(length for _, length in stages)])
    parts = tuple(
        LoadStage("rate", float(begin), float(end), rate_per_s=rate)
        for begin, end, (rate, _) in zip(edges[:-1], edges[1:], stages, strict=True)
    )
    return LoadSchedule(due_s, np.searchsorted(edges[1:-1], due_s, side="right").astype(np.int64), parts)


def bodies_of(scenario: Scenario, n_requests: int) -> Bodies | None:
    """Return random bytes of the sizes that the scenario's `request_bytes` give; None without such a law."""
    law = scenario.traffic.request_bytes
    if law is None:
        return None
    n = max(min(n_requests, _MOST_SIZES), 1)
    if law.kind == "linear":
        sizes = law.values(scenario.traffic.trace().columns)[:_MOST_SIZES]
    else:
        sizes = _drawn(law, np.random.default_rng(scenario.seed).random(n))
    return random_bodies(np.floor(sizes + 0.5).astype(np.int64), scenario.seed)


def load_assumptions(scenario: Scenario) -> Scenario:
    """Return the scenario with sentences on what a load run does not use of it."""
    assumed = dict(scenario.assumed)
    if scenario.traffic.retries is not None:
        assumed["traffic.retries"] = "traffic.retries: not used, a request that failed is not sent again."
    if scenario.warmup_s and not isinstance(scenario.warmup_s, int | float):
        assumed["run.warmup_s"] = "run.warmup_s: auto is not used for a load run; give seconds."
    return replace(scenario, assumed=assumed)


def _drawn(law: Law, uniform: Floats) -> Floats:
    lower, upper = law.tails(np.maximum(np.minimum(uniform, 1.0 - uniform), 1e-12))
    return np.where(uniform < 0.5, lower, upper)


def _period_s(length_s: float) -> float:
    """Return a length of windows that cuts a run into some dozens of them."""
    return next((period for period in _PERIODS if length_s / period <= _MOST_PERIODS), _PERIODS[-1])
