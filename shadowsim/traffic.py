"""Traffic: when requests come, and how large they are.

`poisson` and `constant` follow a rate; `trace` replays a file (traces.py). A rate is flat (`rate_per_s`) or has a
`profile` (profiles.py).

A profile says its own rates, and then no `rate_per_s` is needed. With one, the profile gives only the shape: all of it
is multiplied so that its *mean over the horizon* is `rate_per_s`. That is one rule for all kinds, and makes
`--rate 800` mean 800 requests a second whatever the shape.

The clock of a diurnal profile is that of the experiment: its Schedule's StartTime in UTC. Without one, t = 0 is a
Monday at 00:00.

The package ships one trace, `"path": "builtin:trace_small"`: 500 requests in about eleven minutes with the columns of
the Azure LLM traces. It is synthetic and ours: numpy's default_rng(20240607) drew, in this order, 500 exponential gaps
of mean 1.5 s (those of requests 200 to 299, counted from 0, divided by 4: a burst), context tokens as a rounded
lognormal with median 1,200 and sigma 0.9 and generated tokens as a geometric with mean 40, both clipped to 1..8,000;
the first gap is left out, times begin at 2024-03-04 09:00:00 and are rounded down to 100 ns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shadowsim.datafiles import resolve
from shadowsim.errors import InputError
from shadowsim.laws import Law, parse_law
from shadowsim.paths import Block, not_built
from shadowsim.profiles import Knots, Profile, parse_profile
from shadowsim.traces import Trace, read_trace

Floats = NDArray[np.float64]

PROCESSES = ("poisson", "constant", "trace")
RATE_KEYS = ("rate_per_s", "profile")
TRACE_KEYS = ("path", "time_column", "speed", "repeat")
LATER = ("sessions", "retries", "resample")
MAX_REPEAT = 1_000_000

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Traffic:
    """When requests come, made by `parse_traffic`.

    Attributes
    ----------
    process : str
        One of `PROCESSES`.
    rate_per_s : float or None
        The mean rate over the horizon; None when the profile or the trace says it.
    profile : Profile or None
        The rate's shape; None for flat.
    file, time_column, speed, repeat
        A trace's file, the column with its times (None: the usual names), how fast and how often it is played.
    request_bytes, response_bytes : Law or None
        Sizes of the bodies.
    block : mapping
        The JSON object that this was made of.
    """

    process: str
    rate_per_s: float | None = None
    profile: Profile | None = None
    file: Path | None = None
    time_column: str | None = None
    speed: float = 1.0
    repeat: int = 1
    request_bytes: Law | None = None
    response_bytes: Law | None = None
    block: Mapping[str, object] = field(default_factory=dict)

    def knots(self, horizon_s: float, start: datetime | None = None) -> Knots:
        """Return the rate of a synthetic process as a piecewise-linear function.

        Parameters
        ----------
        horizon_s : float
            The last knot's time; > 0.
        start : datetime, optional
            What t = 0 is on the calendar; without a zone, UTC. None: a Monday at 00:00.

        Returns
        -------
        time_s : ndarray of float64, shape (n,)
            Non-decreasing from exactly 0 to exactly `horizon_s`; a jump is two knots at one time, never at either end.
        rate_per_s : ndarray of float64, shape (n,)
            The rate there, >= 0; linear between knots.

        Raises
        ------
        InputError
            When a profile that is zero all over the horizon should be brought to a mean.
        """
        if self.process == "trace":
            raise ValueError("a trace has no rate")
        if self.profile is None:
            return np.array([0.0, horizon_s]), np.full(2, self.rate_per_s)
        time, rate = self.profile.knots(horizon_s, _clock_s(start))
        if self.rate_per_s is not None:
            mean = _mean(time, rate)
            if mean == 0.0:
                raise InputError(
                    "traffic.profile", "must have a rate > 0 within the horizon, to be scaled to rate_per_s"
                )
            rate = rate * (self.rate_per_s / mean)
        return time, rate

    def mean_rate(self, horizon_s: float, start: datetime | None = None) -> float:
        """Return the mean rate over the horizon, requests a second; for a trace, that of the requests within it."""
        if self.process == "trace":
            return self.trace().n_before(horizon_s) / horizon_s
        return _mean(*self.knots(horizon_s, start))

    def trace(self) -> Trace:
        """Return one pass of the trace, and how often it is played; the file is read again only when it has changed."""
        if self.file is None:
            raise ValueError(f"{self.process} traffic has no trace")
        return read_trace(self.file, self.time_column, self.speed, self.repeat, "traffic")


def parse_traffic(value: object, path: str = "traffic", base_dir: Path | None = None) -> Traffic:
    """Make traffic of its JSON object.

    Parameters
    ----------
    value : dict
        Its keys are in the module's docstring; `request_bytes` and `response_bytes` are laws (laws.py).
    path : str
        Where it stands, for errors.
    base_dir : Path, optional
        What the files it names are relative to; by default the working directory.

    Raises
    ------
    InputError
        When a key is unknown, not built yet or foreign to the process, or a value breaks its constraint. Trace
        files are not read here but by `Traffic.trace`.
    """
    if isinstance(value, list):
        raise not_built(path, "a list of blocks")
    block = Block.of(value, path)
    block.only(("process", "request_bytes", "response_bytes", *RATE_KEYS, *TRACE_KEYS), LATER)
    process = block.choice("process", None, PROCESSES, ["gamma", "mmpp"])
    for key in RATE_KEYS if process == "trace" else TRACE_KEYS:
        if block.has(key):
            owner = "poisson and constant traffic" if process == "trace" else "a trace"
            raise InputError(block.at(key), f"belongs to {owner}, not to process {process}", block.values[key])
    base_dir = base_dir or Path()
    request_bytes, response_bytes = (
        _bytes(block, key, process, base_dir) for key in ("request_bytes", "response_bytes")
    )
    if process == "trace":
        return Traffic(
            process,
            file=resolve(block.text("path"), base_dir),
            time_column=block.text("time_column") if block.has("time_column") else None,
            speed=block.number("speed", 1.0, above=0.0),
            repeat=block.integer("repeat", 1, least=1, most=MAX_REPEAT),
            request_bytes=request_bytes,
            response_bytes=response_bytes,
            block=block.values,
        )
    profile = parse_profile(block.block("profile")) if block.has("profile") else None
    # Without a profile the rate is required: `need` says so.
    rate = block.number("rate_per_s", above=0.0) if profile is None or block.has("rate_per_s") else None
    return Traffic(
        process, rate, profile, request_bytes=request_bytes, response_bytes=response_bytes, block=block.values
    )


def _bytes(block: Block, key: str, process: str, base_dir: Path) -> Law | None:
    if not block.has(key):
        return None
    law = parse_law(block.values[key], block.at(key), "bytes", base_dir)
    if law.kind == "linear" and process != "trace":
        raise InputError(block.at(key), "needs trace traffic for a law of trace columns", law.block)
    return law


def _mean(time: Floats, rate: Floats) -> float:
    return math.fsum(np.diff(time) * (rate[1:] + rate[:-1]) / 2.0) / float(time[-1])


def _clock_s(start: datetime | None) -> float:
    """Return seconds since Monday 00:00 UTC."""
    if start is None:
        return 0.0
    utc = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    midnight = utc.replace(hour=0, minute=0, second=0, microsecond=0)
    return utc.weekday() * float(DAY_S) + (utc - midnight).total_seconds()
