"""When requests come: the rate, where it is known, and the moments of the gaps, of each kind of traffic.

What the kinds mean and how a scenario file says them: traffic.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shadowsim.errors import InputError
from shadowsim.scenario.laws import Law
from shadowsim.scenario.modulation import mmpp_dispersion, mmpp_rate, mmpp_scv
from shadowsim.scenario.rates import Knots, Profile
from shadowsim.scenario.traces import Trace, read_trace

Floats = NDArray[np.float64]

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
        return all(part.process == "trace" for part in self.parts or [self])

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
