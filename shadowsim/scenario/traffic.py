"""Describes arrivals of requests, their sizes, sessions and retries, and reads the `traffic` block.

===========  =========================================================================================================
poisson      at `rate_per_s`, or by a `profile`
constant     evenly spaced, likewise
gamma        likewise, with independent gamma gaps of squared coefficient of variation `scv` (1 is Poisson; 100 is
             bursts with long pauses)
mmpp         Poisson with a rate that jumps (rates.py): `rates_per_s`, one rate per state, and `mean_sojourn_s`, one for
             all or one per state
trace        replays a file (traces.py): `path`, `speed`, `repeat`; trace_times.py reads `time_column`, `time_unit`,
             `count_column`, `within` and `span_s`; `resample` (resample.py) draws another trace from it for each seed
===========  =========================================================================================================

A new process is a subclass of `Process` with an entry in `PROCESSES`, and its arrivals in engine/arrivals.py.

A rate is flat (`rate_per_s`) or has a `profile` (rates.py). A profile has its own rates, and `rate_per_s` is then
optional. If both are given, the profile is only a shape: all of it is multiplied so that its *mean over the horizon* is
`rate_per_s`. The same rule for all kinds makes `--rate 800` mean 800 requests per second whatever the shape. For mmpp
`rate_per_s` is likewise the long-run mean; the mean of a run varies with the path. A trace has its own rate, which
`speed` multiplies.

Gamma gaps under a profile are measured in expected requests, not in seconds: they are stretched where the rate is low.

A list of such blocks is their superposition: the requests of all of them, in order of time. `request_bytes`,
`response_bytes`, `sessions` and `retries` then hold for all requests alike, and must be the same in every block. Rates
are set block by block (`traffic.0.rate_per_s`).

`sessions` is a number of sessions, or the trace's column with their numbers; one of a column of lists is `"NAME[1]"`.

`retries` (retries.py) lets callers make failed requests again; the rates are then those of the requests without them.

A diurnal profile follows the clock of the experiment: its Schedule's StartTime in UTC. Without one, t = 0 is a Monday
at 00:00.

The package ships one trace, `"path": "builtin:trace_small"`: 500 requests in about eleven minutes with the columns of
the Azure LLM traces. It is synthetic: numpy's default_rng(20240607) drew, in this order, 500 exponential gaps of mean
1.5 s (those of requests 200 to 299, counted from 0, divided by 4: a burst), context tokens as a rounded lognormal with
median 1,200 and sigma 0.9 and generated tokens as a geometric with mean 40, both clipped to 1..8,000; the first gap is
left out, times begin at 2024-03-04 09:00:00 and are rounded down to 100 ns.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import Collector, InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import (
    Integer,
    Keys,
    Number,
    Parsed,
    Schema,
    Text,
    Word,
    chosen_by,
    given,
    optional,
    quantity,
)
from shadowsim.scenario.laws import MAX_SCV, Law, law_form, parse_law
from shadowsim.scenario.rates import (
    DAY_S,
    Knots,
    Profile,
    mmpp_dispersion,
    mmpp_rate,
    mmpp_scv,
    parse_profile,
    profile_form,
)
from shadowsim.scenario.resample import Resampling, parse_resampling, resampling_form
from shadowsim.scenario.retries import RetryPolicy, parse_retries, retries_form
from shadowsim.scenario.table_files import resolve
from shadowsim.scenario.trace_times import NO_TIME_OPTIONS, WITHIN, TimeOptions
from shadowsim.scenario.traces import Trace, read_trace

MAX_REPEAT = 1_000_000
MAX_SESSIONS = 2**31 - 1
MAX_STATES = 100
MAX_STREAMS = 100
MAX_JUMPS = 2_000_000  # of a modulated rate, whose path is kept in memory


class SharedKeys(Keys):
    """Keys of every block of traffic, which hold for all requests alike."""

    request_bytes = optional(
        Parsed(
            "Sizes of the requests' bodies.",
            lambda block, key, base_dir: parse_law(block.values[key], block.at(key), "bytes", base_dir),
            law_form("bytes"),
        ),
        "bodies have no size",
    )
    response_bytes = optional(
        Parsed(
            "Sizes of the answers' bodies.",
            lambda block, key, base_dir: parse_law(block.values[key], block.at(key), "bytes", base_dir),
            law_form("bytes"),
        ),
        "bodies have no size",
    )
    sessions = optional(
        Parsed(
            "Number of sessions, to any of which a request belongs, or the trace's column with their numbers; one of a "
            "column of lists is NAME[1].",
            lambda block, key, base_dir: _sessions(block, key),
            lambda: {
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": MAX_SESSIONS},
                    {"type": "string", "minLength": 1},
                ]
            },
        ),
        "no sessions",
    )
    retries = optional(
        Parsed(
            "What callers do about failures: a mode of botocore, or an object; the rates are those without retries.",
            lambda block, key, base_dir: parse_retries(block, key),
            retries_form,
        ),
        "none",
    )


SHARED = tuple(SharedKeys.declared())


class RateKeys(Keys):
    """Keys of traffic with a rate or a profile."""

    rate_per_s = optional(
        Number("Mean rate over the horizon, in requests per second; a profile is scaled to it.", above=0.0),
        "required, unless there is a `profile`",
    )
    profile = optional(
        Parsed(
            "The course of the rate over time.",
            lambda block, key, base_dir: parse_profile(block.block(key)),
            profile_form,
        ),
        "a flat rate",
    )

    @classmethod
    def schema(cls, tag: Mapping[str, Schema] | None = None, null: Iterable[str] = ()) -> Schema:
        """Return its schema, which needs a rate or a profile."""
        return super().schema(tag, null) | {"anyOf": [given("rate_per_s"), given("profile")]}


class GammaKeys(RateKeys):
    """Keys of traffic with gamma gaps."""

    scv = Number("Variance / mean² of the gaps: 1 is Poisson, 100 is bursts with long pauses.", above=0.0, most=MAX_SCV)


class ModulatedKeys(Keys):
    """Keys of modulated traffic."""

    rate_per_s = optional(
        Number("The long-run mean that `rates_per_s` are scaled to, in requests per second.", above=0.0),
        "the states' own mean",
    )
    rates_per_s = Parsed(
        "One rate per state, one of them above 0.",
        lambda block, key, base_dir: _state_rates(block, key),
        lambda: {
            "type": "array",
            "items": {"type": "number", "minimum": 0.0},
            "minItems": 2,
            "maxItems": MAX_STATES,
            "contains": {"type": "number", "exclusiveMinimum": 0.0},
        },
    )
    mean_sojourn_s = Parsed[tuple[float, ...] | float](
        "Mean time in a state: one for all, or one per state.",
        lambda block, key, base_dir: _sojourns(block, key),
        lambda: _one_or_each(quantity("mean_sojourn_s", above=0.0)),
    )


class TraceKeys(Keys):
    """Keys of a trace."""

    path = Text("The table of arrivals, relative to the scenario; `builtin:trace_small` ships with the package.")
    time_column = optional(Text("The column of arrivals."), "the one whose name and values say so")
    time_unit = optional(Text("s, ms, us, ns, iso or a strptime format."), "read off the column")
    count_column = optional(Text("The column of how many requests a row is."), "one, unless a column says so")
    within = Word(
        "How requests that share a coarse time are spread.",
        {"poisson": "at random", "even": "at equal distances", "together": "not at all"},
        default=WITHIN[0],
    )
    span_s = optional(Number("Length of one pass in the trace's own clock.", above=0.0), "read off the trace")
    speed = Number("Factor on its rate.", default=1.0, above=0.0)
    repeat = Integer("How often it is played, one pass after the other.", default=1, least=1, most=MAX_REPEAT)
    resample = optional(
        Parsed(
            "Draw another trace from it for each seed, in blocks.",
            lambda block, key, base_dir: parse_resampling(block),
            resampling_form,
        ),
        "it is replayed as it is",
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """The arrivals of requests and the sizes of their bodies, made by `parse_traffic`.

    Attributes
    ----------
    process : str
        A name in `PROCESSES`; superposition for a list.
    rate_per_s : float or None
        The mean rate over the horizon; None where the profile, the states, the trace or the streams determine it.
    profile : Profile or None
        The rate's shape; None for flat.
    gap_law : Law or None
        Gamma: the law of a gap at rate 1, of mean 1.
    rates_per_s, mean_sojourn_s : tuple of float
        MMPP: one rate and one mean sojourn per state; already scaled to `rate_per_s`.
    file, time_options, speed, repeat
        Trace: its file, what the scenario says of its times, the factor on its speed, and how many times it is played.
    resample : Resampling or None
        Trace: how other traces are drawn from it; None: it is replayed as it is.
    superposed : tuple of Traffic
        Superposition: its streams, without sizes, sessions and retries, which are those of the superposition.
    request_bytes, response_bytes : Law or None
        Sizes of the bodies.
    sessions : int, str or None
        Number of sessions, each request belonging to any of them with equal probability; or the trace's column with
        session numbers. Only the copy rule `hash` uses it.
    retries : RetryPolicy or None
        What callers do about failures; None for nothing.
    path : str
        Where it stands in the scenario, for errors.
    block : object
        The JSON value that this was made from.
    """

    process: str
    rate_per_s: float | None = None
    profile: Profile | None = None
    gap_law: Law | None = None
    rates_per_s: tuple[float, ...] = ()
    mean_sojourn_s: tuple[float, ...] = ()
    file: Path | None = None
    time_options: TimeOptions = NO_TIME_OPTIONS
    speed: float = 1.0
    repeat: int = 1
    resample: Resampling | None = None
    superposed: tuple[Traffic, ...] = ()
    request_bytes: Law | None = None
    response_bytes: Law | None = None
    sessions: int | str | None = None
    retries: RetryPolicy | None = None
    path: str = "traffic"
    block: object = None

    @property
    def streams(self) -> tuple[Traffic, ...]:
        """The streams of requests that it consists of: those superposed, or itself alone."""
        return self.superposed or (self,)

    @property
    def title(self) -> str:
        """The process in words."""
        return PROCESSES[self.process].title

    @property
    def has_knots(self) -> bool:
        """Whether the rate is a function of time that is known before the run: `knots` gives it."""
        return PROCESSES[self.process].has_knots

    def knots(self, horizon_s: float, start: datetime | None = None) -> Knots:
        """Return the rate as a piecewise-linear function, if it is known before the run.

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
            When a profile is zero over the whole horizon and cannot be scaled to a mean.
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
                constraint = "must have a rate > 0 within the horizon, to be scaled to rate_per_s"
                raise InputError(f"{self.path}.profile", constraint)
            rate = rate * (self.rate_per_s / mean)
        return time, rate

    def mean_rate(self, horizon_s: float, start: datetime | None = None) -> float:
        """Return the mean rate over the horizon, requests per second; for a trace, that of the requests within it.

        That of an MMPP is the expected one: its first state is drawn by the shares of time.
        """
        return PROCESSES[self.process].mean_rate(self, horizon_s, start)

    def rates_at(self, time_s: Floats, horizon_s: float, start: datetime | None = None) -> Floats | None:
        """Return the expected rate of a single stream at each time, requests per second; None for a trace."""
        return PROCESSES[self.process].rates_at(self, time_s, horizon_s, start)

    def peak_drawn_rate(self, horizon_s: float, start: datetime | None = None) -> float:
        """Return the highest rate of a single stream, requests per second; 0 for a trace, which is not drawn.

        Raises
        ------
        InputError
            When no request can come within the horizon, or an MMPP jumps too often.
        """
        return PROCESSES[self.process].peak_drawn_rate(self, horizon_s, start)

    @property
    def cycle_s(self) -> float:
        """Period after which a single stream's expected rate repeats; 0 for a steady one, infinity for never."""
        return PROCESSES[self.process].cycle_s(self)

    @property
    def jump_per_s(self) -> float:
        """How far the busiest states of modulated streams lie above their mean rates, requests per second."""
        modulated = [stream for stream in self.streams if stream.rates_per_s]
        return sum(max(s.rates_per_s) - mmpp_rate(s.rates_per_s, s.mean_sojourn_s) for s in modulated)

    @property
    def has_course(self) -> bool:
        """Whether the rate, or a part of it, is the same in each run: by a profile or a trace."""
        return any(stream.profile is not None or stream.process == "trace" for stream in self.streams)

    @property
    def modulation_s(self) -> float:
        """Longest sum of the mean sojourns in all states over the modulated streams; 0 without any."""
        return max(sum(stream.mean_sojourn_s) for stream in self.streams)

    @property
    def scv(self) -> float | None:
        """Variance / mean² of the times between requests.

        For a trace that of the gaps of all its passes; None when there are fewer than two of them or all are 0. None
        under a profile, and for a superposition unless all its streams, and so the whole, are Poisson.
        """
        return None if self.profile is not None else PROCESSES[self.process].scv(self)

    @property
    def dispersion(self) -> float | None:
        """Limit of variance / mean of the number of requests within a long time.

        That of a renewal process is the scv of its gaps (Cox, Renewal Theory, 1962), that of a superposition the mean
        of its streams' weighted by their rates. None for a trace and under a profile.
        """
        return None if self.profile is not None else PROCESSES[self.process].dispersion(self)

    def trace(self) -> Trace:
        """Return one pass of the trace, and how often it is played; the file is read again only when it has changed."""
        if self.file is None:
            raise ValueError(f"{self.process} traffic has no trace")
        return read_trace(self.file, self.time_options, self.speed, self.repeat, self.path)

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The traces of all streams that replay one."""
        return tuple(stream.trace() for stream in self.streams if stream.process == "trace")

    @property
    def only_traces(self) -> bool:
        """Whether all requests come from traces, so that they end by themselves."""
        return all(stream.process == "trace" for stream in self.streams)

    @property
    def is_recorded(self) -> bool:
        """Whether all requests come from traces as they were recorded, so that each run has the same ones."""
        return self.only_traces and all(stream.resample is None for stream in self.streams)

    def to_dict(self) -> object:
        """Return the JSON value that this was made from."""
        return self.block


class Process(ABC):
    """An arrival process; this base class has a rate that is known before the run.

    Attributes
    ----------
    title : str
        The process in words.
    keys : type of Keys, or None
        Keys of its block beside `process` and those of `SharedKeys`; None for what no block can choose.
    examples : tuple
        Blocks that show it.
    has_knots : bool
        Whether the rate is a function of time that is known before the run.
    """

    title: str
    keys: type[Keys] | None = RateKeys
    examples: tuple[object, ...] = ()
    has_knots = True

    def parse(self, block: Block, base_dir: Path) -> dict[str, Any]:
        """Return the fields of `Traffic` that the process's keys determine."""
        keys = RateKeys.read(block, base_dir, known=block.values)
        if keys.profile is None:
            block.need("rate_per_s")
        return {"rate_per_s": keys.rate_per_s, "profile": keys.profile}

    def mean_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        """Return the mean rate over the horizon."""
        return _mean(*traffic.knots(horizon_s, start))

    def rates_at(self, traffic: Traffic, time_s: Floats, horizon_s: float, start: datetime | None) -> Floats | None:
        """Return the expected rate at each time, or None if it is not known."""
        return np.interp(time_s, *traffic.knots(horizon_s, start))

    def peak_drawn_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        """Return the highest rate at which requests are drawn, or raise `InputError` when none can come."""
        time, rate = traffic.knots(horizon_s, start)
        if not ((rate[1:] + rate[:-1]) * np.diff(time) > 0.0).any():
            raise InputError(f"{traffic.path}.profile", f"must have a rate > 0 within the horizon of {horizon_s:g} s")
        return float(rate.max())

    def cycle_s(self, traffic: Traffic) -> float:
        """Return the period after which the expected rate repeats; 0 for a steady rate, infinity for never."""
        return 0.0 if traffic.profile is None else traffic.profile.cycle_s

    @abstractmethod
    def scv(self, traffic: Traffic) -> float | None:
        """Return variance / mean² of the gaps without a profile."""

    def dispersion(self, traffic: Traffic) -> float | None:
        """Return the limit of variance / mean of counts without a profile."""
        return self.scv(traffic)


class _Poisson(Process):
    title = "Poisson"
    examples = (
        {"process": "poisson", "rate_per_s": 500.0},
        {"process": "poisson", "profile": {"kind": "diurnal", "base_per_s": 160, "peak_per_s": 640}},
    )

    def scv(self, traffic: Traffic) -> float | None:
        return 1.0


class _Constant(Process):
    title = "evenly spaced"
    examples = ({"process": "constant", "rate_per_s": 500.0},)

    def scv(self, traffic: Traffic) -> float | None:
        return 0.0


class _GammaGaps(Process):
    title = "gamma gaps"
    keys = GammaKeys
    examples = ({"process": "gamma", "rate_per_s": 500.0, "scv": 4.0},)

    def parse(self, block: Block, base_dir: Path) -> dict[str, Any]:
        fields = super().parse(block, base_dir)
        if block.has("scv") and block.values["scv"] == 0:
            raise InputError(block.at("scv"), "must be > 0: gaps without variance are process constant", 0)
        keys = GammaKeys.read(block, base_dir, known=block.values)
        return {**fields, "gap_law": Law("gamma", 1.0, keys.scv)}

    def scv(self, traffic: Traffic) -> float | None:
        return traffic.gap_law.scv if traffic.gap_law else None


class _MarkovModulatedPoisson(Process):
    title = "a modulated Poisson process (MMPP)"
    keys = ModulatedKeys
    examples = ({"process": "mmpp", "rates_per_s": [100, 1500], "mean_sojourn_s": ["10min", "1min"]},)
    has_knots = False

    def parse(self, block: Block, base_dir: Path) -> dict[str, Any]:
        keys = ModulatedKeys.read(block, known=block.values)
        rates, given_s = keys.rates_per_s, keys.mean_sojourn_s
        sojourns = (given_s,) * len(rates) if isinstance(given_s, float) else given_s
        if len(sojourns) != len(rates):
            constraint = f"must be one number, or one for each of {len(rates)} rates"
            raise InputError(block.at("mean_sojourn_s"), constraint, sojourns)
        fields = {"rates_per_s": rates, "mean_sojourn_s": sojourns}
        if keys.rate_per_s is None:
            return fields
        wanted, mean = keys.rate_per_s, mmpp_rate(rates, sojourns)
        # Rates that differ by hundreds of orders of magnitude have a mean of 0, or are scaled past all numbers.
        scaled = tuple(rate / mean * wanted for rate in rates) if mean > 0.0 else (math.inf,)
        if not all(map(math.isfinite, scaled)):
            raise InputError(block.at("rate_per_s"), "must be a mean that rates_per_s can be brought to", wanted)
        return {**fields, "rate_per_s": wanted, "rates_per_s": scaled}

    def mean_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        return mmpp_rate(traffic.rates_per_s, traffic.mean_sojourn_s)

    def rates_at(self, traffic: Traffic, time_s: Floats, horizon_s: float, start: datetime | None) -> Floats | None:
        return np.full(time_s.size, traffic.mean_rate(horizon_s, start))

    def peak_drawn_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        if horizon_s / math.fsum(traffic.mean_sojourn_s) * len(traffic.mean_sojourn_s) > MAX_JUMPS:
            limit = f"must bring at most {MAX_JUMPS:,} jumps within the horizon of {horizon_s:g} s"
            raise InputError(f"{traffic.path}.mean_sojourn_s", limit, traffic.mean_sojourn_s)
        return max(traffic.rates_per_s)

    def scv(self, traffic: Traffic) -> float | None:
        return mmpp_scv(traffic.rates_per_s, traffic.mean_sojourn_s)

    def dispersion(self, traffic: Traffic) -> float | None:
        return mmpp_dispersion(traffic.rates_per_s, traffic.mean_sojourn_s)


class _RecordedTrace(Process):
    title = "a recorded trace"
    keys = TraceKeys
    examples = ({"process": "trace", "path": "builtin:trace_small", "speed": 20.0, "repeat": 40},)
    has_knots = False

    def parse(self, block: Block, base_dir: Path) -> dict[str, Any]:
        keys = TraceKeys.read(block, known=block.values)
        options = ("time_column", "time_unit", "count_column", "within", "span_s")
        return {
            "file": resolve(keys.path, base_dir),
            "time_options": TimeOptions(**{key: getattr(keys, key) for key in options}),
            "speed": keys.speed,
            "repeat": keys.repeat,
            "resample": keys.resample,
        }

    def mean_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        return traffic.trace().n_before(horizon_s) / horizon_s

    def rates_at(self, traffic: Traffic, time_s: Floats, horizon_s: float, start: datetime | None) -> Floats | None:
        return None

    def peak_drawn_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        return 0.0

    def cycle_s(self, traffic: Traffic) -> float:
        return math.inf

    def scv(self, traffic: Traffic) -> float | None:
        """Return the scv of the gaps of all passes; between two passes lies one mean gap."""
        trace = traffic.trace()
        gaps = np.diff(trace.arrival_s)
        mean = gaps.mean() if gaps.size else 0.0
        if gaps.size < 2 or mean == 0.0:
            return None
        n = trace.n_requests - 1
        return math.fsum((gaps / mean - 1.0) ** 2) * trace.repeat / n

    def dispersion(self, traffic: Traffic) -> float | None:
        return None


class _Superposition(Process):
    title = "several streams superposed"
    keys = None
    has_knots = False

    def mean_rate(self, traffic: Traffic, horizon_s: float, start: datetime | None) -> float:
        return math.fsum(stream.mean_rate(horizon_s, start) for stream in traffic.superposed)

    def scv(self, traffic: Traffic) -> float | None:
        poisson = all(stream.process == "poisson" and stream.scv == 1.0 for stream in traffic.superposed)
        return 1.0 if poisson else None

    def dispersion(self, traffic: Traffic) -> float | None:
        weighted = [(s.dispersion, s.mean_rate(1.0)) for s in traffic.superposed if s.profile is None]
        known = [(dispersion, rate) for dispersion, rate in weighted if dispersion is not None]
        if len(known) < len(traffic.superposed):
            return None
        return math.fsum(d * rate for d, rate in known) / math.fsum(rate for _, rate in known)


PROCESSES: Mapping[str, Process] = MappingProxyType(
    {
        "poisson": _Poisson(),
        "gamma": _GammaGaps(),
        "mmpp": _MarkovModulatedPoisson(),
        "constant": _Constant(),
        "trace": _RecordedTrace(),
        "superposition": _Superposition(),
    }
)


def traffic_schema() -> Schema:
    """Return the schema of the block `traffic`: one block, or a list of them that are superposed."""
    processes = {name: process for name, process in PROCESSES.items() if process.keys is not None}
    every = dict.fromkeys(key for process in processes.values() if process.keys for key in process.keys.declared())
    shared = {name: key.schema() for name, key in SharedKeys.declared().items()}
    kinds = {}
    for name, process in processes.items():
        assert process.keys is not None
        own = process.keys.schema({"process": {"const": name}}, every)
        kinds[name] = (
            process.title,
            {**own, "properties": own["properties"] | shared, "examples": list(process.examples)},
        )
    block = chosen_by("process", "How requests arrive.", kinds)
    listed = {"type": "array", "items": {"$ref": "#/$defs/traffic"}, "minItems": 1, "maxItems": MAX_STREAMS}
    return {"description": "One stream of requests, or a list of them.", "anyOf": [block, listed]}


def _mean(time: Floats, rate: Floats) -> float:
    return math.fsum(np.diff(time) * (rate[1:] + rate[:-1]) / 2.0) / float(time[-1])


def _clock_s(start: datetime | None) -> float:
    """Return seconds since Monday 00:00 UTC."""
    if start is None:
        return 0.0
    utc = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    midnight = utc.replace(hour=0, minute=0, second=0, microsecond=0)
    return utc.weekday() * DAY_S + (utc - midnight).total_seconds()


def parse_traffic(value: object, path: str = "traffic", base_dir: Path | None = None) -> Traffic:
    """Return the traffic that a JSON value describes.

    Parameters
    ----------
    value : dict or list of dict
        Its keys are in the module's docstring; `request_bytes` and `response_bytes` are laws (laws.py).
    path : str
        Where it stands, for errors.
    base_dir : Path, optional
        What its file paths are relative to; by default the working directory.

    Raises
    ------
    InputError
        When a key is unknown, not built yet or foreign to the process, or a value breaks its constraint. Trace
        files are read later, by `Traffic.trace`.
    """
    if isinstance(value, list):
        return _superposition(value, path, base_dir or Path())
    return _parse_block(Block.of(value, path), base_dir or Path())


def _parse_block(block: Block, base_dir: Path) -> Traffic:
    keys = {name: tuple(kind.keys.declared()) for name, kind in PROCESSES.items() if kind.keys is not None}
    every = dict.fromkeys(key for own in keys.values() for key in own)
    errors = Collector()
    with errors:
        block.only(("process", *SHARED, *every))
    with errors:
        process = block.choice("process", None, list(keys))
    errors.check()  # what the other keys must be depends on the process
    for key in every:
        with errors:
            if block.has(key) and key not in keys[process]:
                *others, last = [name for name in keys if key in keys[name]]
                owners = f"{', '.join(others)} and {last}" if others else last
                hint = "; speed sets the rate of a trace" if (process, key) == ("trace", "rate_per_s") else ""
                constraint = f"belongs to {owners} traffic, not to process {process}"
                raise InputError(block.at(key), constraint, block.values[key], hint=hint)
    errors.check()
    with errors:
        traffic = _with_shared(Traffic(process, path=block.path, block=block.values), block, base_dir)
    with errors:
        fields = PROCESSES[process].parse(block, base_dir)
    errors.check()
    return replace(traffic, **fields)


def _superposition(values: list[object], path: str, base_dir: Path) -> Traffic:
    if not 1 <= len(values) <= MAX_STREAMS:
        raise InputError(path, f"must be an object {{...}} or a list of 1 to {MAX_STREAMS} of them", values)
    blocks = [Block.of(value, f"{path}.{i}") for i, value in enumerate(values)]
    for key in SHARED:
        for block in blocks:
            if block.values.get(key) != blocks[0].values.get(key):
                constraint = "must be the same in every block of a list: it holds for all requests alike"
                raise InputError(block.at(key), constraint, block.values.get(key))
    errors, streams = Collector(), []
    for block in blocks:
        with errors:
            stream = Block(block.path, {k: v for k, v in block.values.items() if k not in SHARED})
            streams.append(_parse_block(stream, base_dir))
    errors.check()
    superposed = Traffic("superposition", superposed=tuple(streams), path=path, block=values)
    return _with_shared(superposed, blocks[0], base_dir)


def _with_shared(traffic: Traffic, block: Block, base_dir: Path) -> Traffic:
    keys, errors = SharedKeys.read(block, base_dir, known=block.values), Collector()
    for key in ("request_bytes", "response_bytes"):
        with errors:
            law: Law | None = getattr(keys, key)
            if law is not None and law.kind == "linear" and traffic.process != "trace":
                raise InputError(block.at(key), _needs_trace("a law of trace columns", traffic.process), law.block)
    with errors:
        if isinstance(keys.sessions, str) and traffic.process != "trace":
            raise InputError(block.at("sessions"), _needs_trace("a column", traffic.process), keys.sessions)
    errors.check()
    return replace(traffic, **{key: getattr(keys, key) for key in SHARED})


def _sessions(block: Block, key: str) -> int | str:
    if isinstance(block.values[key], str):
        return block.text(key)
    return block.integer(key, least=1, most=MAX_SESSIONS)


def _state_rates(block: Block, key: str) -> tuple[float, ...]:
    rates = block.numbers(key, least=0.0)
    if not 2 <= len(rates) <= MAX_STATES or not any(rates):
        constraint = f"must have 2 to {MAX_STATES} rates, one of them > 0"
        raise InputError(block.at(key), constraint, block.values[key])
    return rates


def _one_or_each(time: Schema) -> Schema:
    return {"anyOf": [*time["anyOf"], {"type": "array", "items": time, "minItems": 2, "maxItems": MAX_STATES}]}


def _sojourns(block: Block, key: str) -> tuple[float, ...] | float:
    one = not isinstance(block.values[key], list)
    return block.number(key, above=0.0) if one else block.numbers(key, above=0.0)


def _needs_trace(what: str, process: str) -> str:
    alone = ", and no list," if process == "superposition" else ""
    return f"needs trace traffic{alone} for {what}"
