"""Traffic: when requests come, and how large they are.

===========  =========================================================================================================
poisson      at `rate_per_s`, or by a `profile`
constant     evenly spaced, likewise
gamma        likewise, with independent gamma gaps of squared coefficient of variation `scv` (1 is Poisson; 100 is
             bursts with long pauses)
mmpp         Poisson with a rate that jumps (modulation.py): `rates_per_s`, a rate a state, and `mean_sojourn_s`, one
             for all or one a state
trace        replays a file (traces.py): `path`, `time_column`, `speed`, `repeat`
===========  =========================================================================================================

A rate is flat (`rate_per_s`) or has a `profile` (profiles.py). A profile says its own rates, and then no `rate_per_s`
is needed. With one, the profile gives only the shape: all of it is multiplied so that its *mean over the horizon* is
`rate_per_s`. That is one rule for all kinds, and makes `--rate 800` mean 800 requests a second whatever the shape. For
mmpp it is likewise the mean in the long run that becomes `rate_per_s`; that of a run varies with the path. A trace has
its own rate, which `speed` multiplies.

The clock of gamma gaps under a profile is the expected number of requests so far: gaps are stretched where the rate is
low.

A list of such blocks is their superposition: the requests of all of them, in order of time. `request_bytes`,
`response_bytes` and `sessions` are then those of all requests alike, and each block that is to say them must say the
same. Rates are set block by block (`traffic.0.rate_per_s`).

The clock of a diurnal profile is that of the experiment: its Schedule's StartTime in UTC. Without one, t = 0 is a
Monday at 00:00.

The package ships one trace, `"path": "builtin:trace_small"`: 500 requests in about eleven minutes with the columns of
the Azure LLM traces. It is synthetic and ours: numpy's default_rng(20240607) drew, in this order, 500 exponential gaps
of mean 1.5 s (those of requests 200 to 299, counted from 0, divided by 4: a burst), context tokens as a rounded
lognormal with median 1,200 and sigma 0.9 and generated tokens as a geometric with mean 40, both clipped to 1..8,000;
the first gap is left out, times begin at 2024-03-04 09:00:00 and are rounded down to 100 ns.

When requests come: the rate, where it is known, and the moments of the gaps, of each kind of traffic.

What the kinds mean and how a scenario file says them: traffic.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.laws import MAX_SCV, Law, parse_law
from shadowsim.scenario.rates import Knots, Profile, mmpp_dispersion, mmpp_rate, mmpp_scv, parse_profile
from shadowsim.scenario.traces import Trace, read_trace, resolve

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Traffic:
    """When requests come, made by `traffic.parse_traffic`.

    Attributes
    ----------
    process : str
        poisson, constant, gamma, mmpp or trace; superposition for a list.
    rate_per_s : float or None
        The mean rate over the horizon; None when the profile, the states, the trace or the parts say it.
    profile : Profile or None
        The rate's shape; None for flat.
    gap_law : Law or None
        Gamma: the law of a gap at rate 1, of mean 1.
    rates_per_s, mean_sojourn_s : tuple of float
        MMPP: a rate and a mean sojourn a state; already brought to `rate_per_s`.
    file, time_column, speed, repeat
        A trace's file, the column with its times (None: the usual names), how fast and how often it is played.
    parts : tuple of Traffic
        Superposition: what is superposed; sizes and sessions are those of the whole.
    request_bytes, response_bytes : Law or None
        Sizes of the bodies.
    sessions : int, str or None
        Whose request each is: how many sessions there are, each request being of any of them alike; or the trace's
        column with the session's number. Only the copy rule `hash` asks.
    path : str
        Where it stands in the scenario, for errors.
    block : object
        The JSON value that this was made of.
    """

    process: str
    rate_per_s: float | None = None
    profile: Profile | None = None
    gap_law: Law | None = None
    rates_per_s: tuple[float, ...] = ()
    mean_sojourn_s: tuple[float, ...] = ()
    file: Path | None = None
    time_column: str | None = None
    speed: float = 1.0
    repeat: int = 1
    parts: tuple[Traffic, ...] = ()
    request_bytes: Law | None = None
    response_bytes: Law | None = None
    sessions: int | str | None = None
    path: str = "traffic"
    block: object = None

    @property
    def streams(self) -> tuple[Traffic, ...]:
        """The streams of requests that it consists of: its parts, or itself alone."""
        return self.parts or (self,)

    @property
    def has_knots(self) -> bool:
        """Whether the rate is a function of time that is known before the run: `knots` gives it."""
        return self.process in ("poisson", "constant", "gamma")

    def knots(self, horizon_s: float, start: datetime | None = None) -> Knots:
        """Return the rate as a piecewise-linear function, where it is one that is known.

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
        ValueError
            For a trace, an MMPP, whose path is drawn, and a superposition.
        """
        if not self.has_knots:
            raise ValueError(f"{self.process} traffic has no rate that is known before the run")
        if self.profile is None:
            return np.array([0.0, horizon_s]), np.full(2, self.rate_per_s)
        time, rate = self.profile.knots(horizon_s, _clock_s(start))
        if self.rate_per_s is not None:
            mean = _mean(time, rate)
            if mean == 0.0:
                what = "must have a rate > 0 within the horizon, to be scaled to rate_per_s"
                raise InputError(f"{self.path}.profile", what)
            rate = rate * (self.rate_per_s / mean)
        return time, rate

    def mean_rate(self, horizon_s: float, start: datetime | None = None) -> float:
        """Return the mean rate over the horizon, requests a second; for a trace, that of the requests within it.

        That of an MMPP is the expected one: its first state is drawn by the shares of time.
        """
        if self.process == "superposition":
            return math.fsum(part.mean_rate(horizon_s, start) for part in self.parts)
        if self.process == "mmpp":
            return mmpp_rate(self.rates_per_s, self.mean_sojourn_s)
        if self.process == "trace":
            return self.trace().n_before(horizon_s) / horizon_s
        return _mean(*self.knots(horizon_s, start))

    @property
    def jump_per_s(self) -> float:
        """How far the busiest states of modulated streams lie above their mean rates, requests per second."""
        modulated = [part for part in self.streams if part.process == "mmpp"]
        return sum(max(part.rates_per_s) - mmpp_rate(part.rates_per_s, part.mean_sojourn_s) for part in modulated)

    @property
    def scv(self) -> float | None:
        """Variance / mean² of the times between requests.

        For a trace that of the gaps of all its passes; None when there are fewer than two of them or all are 0. None
        under a profile, and for a superposition, unless all of it is Poisson and so the whole, too.
        """
        if self.profile is not None:
            return None
        match self.process:
            case "poisson":
                return 1.0
            case "constant":
                return 0.0
            case "mmpp":
                return mmpp_scv(self.rates_per_s, self.mean_sojourn_s)
            case "superposition":
                return 1.0 if all(part.process == "poisson" and part.scv == 1.0 for part in self.parts) else None
            case "trace":
                return _sample_scv(self.trace())
        return self.gap_law.scv if self.gap_law else None

    @property
    def dispersion(self) -> float | None:
        """Limit of variance / mean of the number of requests within a long time.

        That of a renewal process is the scv of its gaps (Cox, Renewal Theory, 1962), that of a
        superposition the mean of its parts' weighted by their rates. None for a trace and under a profile.
        """
        if self.profile is not None or self.process == "trace":
            return None
        if self.process == "mmpp":
            return mmpp_dispersion(self.rates_per_s, self.mean_sojourn_s)
        if self.process != "superposition":
            return self.scv
        found = [(part.dispersion, part.mean_rate(1.0)) for part in self.parts if part.profile is None]
        known = [(dispersion, rate) for dispersion, rate in found if dispersion is not None]
        if len(known) < len(self.parts):
            return None
        return math.fsum(d * rate for d, rate in known) / math.fsum(rate for _, rate in known)

    def trace(self) -> Trace:
        """Return one pass of the trace, and how often it is played; the file is read again only when it has changed."""
        if self.file is None:
            raise ValueError(f"{self.process} traffic has no trace")
        return read_trace(self.file, self.time_column, self.speed, self.repeat, self.path)

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The traces that are played: of itself, or of its parts."""
        found = [part for part in (self, *self.parts) if part.process == "trace"]
        return tuple(part.trace() for part in found)

    @property
    def only_traces(self) -> bool:
        """Whether all requests come from traces, so that they end by themselves."""
        return all(part.process == "trace" for part in self.streams)

    def to_dict(self) -> object:
        """Return the JSON value that this was made of."""
        return self.block


def _sample_scv(trace: Trace) -> float | None:
    """Return the variance / mean² of the gaps of all passes; between two passes lies one mean gap."""
    gaps = np.diff(trace.arrival_s)
    mean = gaps.mean() if gaps.size else 0.0
    if gaps.size < 2 or mean == 0.0:
        return None
    n = trace.n_requests - 1
    return math.fsum((gaps / mean - 1.0) ** 2) * trace.repeat / n


def _mean(time: Floats, rate: Floats) -> float:
    return math.fsum(np.diff(time) * (rate[1:] + rate[:-1]) / 2.0) / float(time[-1])


def _clock_s(start: datetime | None) -> float:
    """Return seconds since Monday 00:00 UTC."""
    if start is None:
        return 0.0
    utc = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    midnight = utc.replace(hour=0, minute=0, second=0, microsecond=0)
    return utc.weekday() * float(DAY_S) + (utc - midnight).total_seconds()


RATED = ("rate_per_s", "profile")
# What each process takes beside the keys that all share.
KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "poisson": RATED,
        "gamma": (*RATED, "scv"),
        "mmpp": ("rate_per_s", "rates_per_s", "mean_sojourn_s"),
        "constant": RATED,
        "trace": ("path", "time_column", "speed", "repeat"),
    }
)
SHARED = ("request_bytes", "response_bytes", "sessions")
LATER = ("retries", "resample")
MAX_REPEAT = 1_000_000
MAX_SESSIONS = 2**31 - 1
MAX_STATES = 100
MAX_PARTS = 100


def parse_traffic(value: object, path: str = "traffic", base_dir: Path | None = None) -> Traffic:
    """Make traffic of its JSON value.

    Parameters
    ----------
    value : dict or list of dict
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
        return _superposition(value, path, base_dir or Path())
    return _parse_block(Block.of(value, path), base_dir or Path())


def _parse_block(block: Block, base_dir: Path) -> Traffic:
    every = dict.fromkeys(key for keys in KEYS.values() for key in keys)
    block.only(("process", *SHARED, *every), LATER)
    process = block.choice("process", None, list(KEYS))
    for key in every:
        if block.has(key) and key not in KEYS[process]:
            *others, last = [name for name in KEYS if key in KEYS[name]]
            owners = f"{', '.join(others)} and {last}" if others else last
            hint = "; speed sets the rate of a trace" if (process, key) == ("trace", "rate_per_s") else ""
            what = f"belongs to {owners} traffic, not to process {process}"
            raise InputError(block.at(key), what, block.values[key], hint=hint)
    traffic = _with_sizes(Traffic(process, path=block.path, block=block.values), block, base_dir)
    if process == "trace":
        return replace(
            traffic,
            file=resolve(block.text("path"), base_dir),
            time_column=block.text("time_column") if block.has("time_column") else None,
            speed=block.number("speed", 1.0, above=0.0),
            repeat=block.integer("repeat", 1, least=1, most=MAX_REPEAT),
        )
    if process == "mmpp":
        rate, rates, sojourns = _states(block)
        return replace(traffic, rate_per_s=rate, rates_per_s=rates, mean_sojourn_s=sojourns)
    profile = parse_profile(block.block("profile")) if block.has("profile") else None
    # Without a profile the rate is required: `need` says so.
    rate = block.number("rate_per_s", above=0.0) if profile is None or block.has("rate_per_s") else None
    gap_law = _gap_law(block) if process == "gamma" else None
    return replace(traffic, rate_per_s=rate, profile=profile, gap_law=gap_law)


def _superposition(values: list[object], path: str, base_dir: Path) -> Traffic:
    if not 1 <= len(values) <= MAX_PARTS:
        raise InputError(path, f"must be an object {{...}} or a list of 1 to {MAX_PARTS} of them", values)
    blocks = [Block.of(value, f"{path}.{i}") for i, value in enumerate(values)]
    for key in SHARED:
        for block in blocks:
            if block.values.get(key) != blocks[0].values.get(key):
                what = "must be the same in every block of a list: it is drawn for all requests alike"
                raise InputError(block.at(key), what, block.values.get(key))
    parts = tuple(
        _parse_block(Block(block.path, {k: v for k, v in block.values.items() if k not in SHARED}), base_dir)
        for block in blocks
    )
    return _with_sizes(Traffic("superposition", parts=parts, path=path, block=values), blocks[0], base_dir)


def _with_sizes(traffic: Traffic, block: Block, base_dir: Path) -> Traffic:
    return replace(
        traffic,
        request_bytes=_bytes(block, "request_bytes", traffic.process, base_dir),
        response_bytes=_bytes(block, "response_bytes", traffic.process, base_dir),
        sessions=_sessions(block, traffic.process),
    )


def _gap_law(block: Block) -> Law:
    if block.has("scv") and block.values["scv"] == 0:
        raise InputError(block.at("scv"), "must be > 0: gaps without variance are process constant", 0)
    return Law("gamma", 1.0, block.number("scv", above=0.0, most=MAX_SCV))


def _states(block: Block) -> tuple[float | None, tuple[float, ...], tuple[float, ...]]:
    """Return the wanted mean rate, if any, and each state's rate and mean sojourn."""
    rates = block.numbers("rates_per_s", least=0.0)
    n = len(rates)
    if not 2 <= n <= MAX_STATES or not any(rates):
        what = f"must have 2 to {MAX_STATES} rates, one of them > 0"
        raise InputError(block.at("rates_per_s"), what, block.values["rates_per_s"])
    if isinstance(block.need("mean_sojourn_s"), list):
        sojourns = block.numbers("mean_sojourn_s", above=0.0)
        if len(sojourns) != n:
            raise InputError(block.at("mean_sojourn_s"), f"must be one number, or one for each of {n} rates", sojourns)
    else:
        sojourns = (block.number("mean_sojourn_s", above=0.0),) * n
    if not block.has("rate_per_s"):
        return None, rates, sojourns
    wanted, mean = block.number("rate_per_s", above=0.0), mmpp_rate(rates, sojourns)
    # Rates that differ by hundreds of orders of magnitude have a mean of 0, or are scaled past all numbers.
    scaled = tuple(rate / mean * wanted for rate in rates) if mean > 0.0 else (math.inf,)
    if not all(map(math.isfinite, scaled)):
        raise InputError(block.at("rate_per_s"), "must be a mean that rates_per_s can be brought to", wanted)
    return wanted, scaled, sojourns


def _bytes(block: Block, key: str, process: str, base_dir: Path) -> Law | None:
    if not block.has(key):
        return None
    law = parse_law(block.values[key], block.at(key), "bytes", base_dir)
    if law.kind == "linear" and process != "trace":
        raise InputError(block.at(key), _needs_trace("a law of trace columns", process), law.block)
    return law


def _sessions(block: Block, process: str) -> int | str | None:
    if not block.has("sessions"):
        return None
    if not isinstance(block.values["sessions"], str):
        return block.integer("sessions", least=1, most=MAX_SESSIONS)
    if process != "trace":
        raise InputError(block.at("sessions"), _needs_trace("a column", process), block.values["sessions"])
    return block.text("sessions")


def _needs_trace(what: str, process: str) -> str:
    alone = ", and no list," if process == "superposition" else ""
    return f"needs trace traffic{alone} for {what}"
