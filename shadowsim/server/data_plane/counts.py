"""Counts of a variant's requests: one record per period for CloudWatch and the frames, and totals.

A request counts in the period of its arrival, as soon as its answer is known. Its work and the tokens of its answer
are spread evenly over the time in which they were done. Latencies are kept as counts per bucket
of the simulator (0.8 % wide), so that a quiet minute takes some hundred bytes and a busy one a few thousand. Past
minutes are packed, and the oldest are dropped when there are more than 30 days of them. Totals since the start only
grow.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shadowsim.frames import FIRST_TOKEN, PER_TOKEN
from shadowsim.period_counts import PeriodCounts, StreamCounts
from shadowsim.server.data_plane.backends import ANSWERED, ERROR_4XX, ERROR_5XX, REFUSED, Answer
from shadowsim.server.data_plane.streamed_bodies import TokenFigures

MINUTE_S = 60.0
KEPT_PERIODS = 43_200  # 30 days of minutes
_OPEN_PERIODS = 3  # periods that stay unpacked for late answers
_MOST_SPANNED = 64  # periods over which one request's work is spread; work beyond these is not counted
# upper bounds of the histogram in Totals
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRequest:
    """A request that a variant has served.

    Attributes
    ----------
    request : int
        Number of the source's request.
    inference_id : str
        "" if the caller gave none.
    arrival_s : float
        Arrival at the variant, in seconds since 1970.
    instance, n_instances : int
        Index of the instance that took it, and number of instances.
    answer : Answer
    overhead_s : float
        Time that the server added to the latency.
    request_bytes : int
    first_part_s : float
        Time until the caller had the first part of a streamed answer; NaN for any other.
    captured_bytes : int or None
        Bytes of the captured payloads; None if it was not captured.
    is_copy : bool
        Whether the variant was a shadow when it served it.
    """

    request: int
    inference_id: str
    arrival_s: float
    instance: int
    n_instances: int
    answer: Answer
    overhead_s: float
    request_bytes: int
    first_part_s: float = math.nan
    captured_bytes: int | None = None
    is_copy: bool = False


@dataclass(slots=True)
class Totals:
    """Counts since the start; `below` counts latencies by the lowest of BOUNDS_S that they do not exceed."""

    n: int = 0
    model_errors: int = 0
    captured_records: int = 0
    latency_sum: float = 0.0
    below: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    lost: dict[str, int] = field(default_factory=dict)

    def add(self, served: ServedRequest) -> None:
        """Count a request."""
        answer = served.answer
        self.n += 1
        self.model_errors += answer.outcome != ANSWERED
        self.captured_records += served.captured_bytes is not None
        if answer.outcome != REFUSED:
            self.latency_sum += answer.latency_s
            self.below[bisect_left(BOUNDS_S, answer.latency_s)] += 1


class Series:
    """Counts of a variant over time, by period.

    Parameters
    ----------
    origin_s, period_s : float
        Begin of period 0, in seconds since 1970, and length of a period.

    Attributes
    ----------
    periods : dict of int to PeriodCounts
        By number of the period.
    totals : dict of str to Totals
        By the role that the variant had, "source" or "shadow": a promotion does not change what was counted before.
    knows_cores, knows_streams : bool
        Whether the workers of an instance ever were its cores, and whether it ever streamed an answer.
    """

    def __init__(self, origin_s: float = 0.0, period_s: float = MINUTE_S):
        self.origin_s, self.period_s = origin_s, period_s
        self.periods: dict[int, PeriodCounts] = {}
        self.totals: dict[str, Totals] = {}
        self.knows_cores = self.knows_streams = False
        self._newest = -1

    def at(self, time_s: float) -> PeriodCounts:
        """Return the counts of a moment's period, which are made if need be."""
        number = math.floor((time_s - self.origin_s) / self.period_s)
        period = self.periods.get(number)
        if period is None:
            period = self.periods[number] = PeriodCounts()
            if number > self._newest:
                for past in range(max(self._newest - _OPEN_PERIODS, 0), number - _OPEN_PERIODS):
                    if past in self.periods:
                        self.periods[past].pack()
                    if past > self._newest:
                        break  # no period exists between the newest and this one
                self._newest = number
                if len(self.periods) > KEPT_PERIODS:
                    del self.periods[min(self.periods)]
        return period

    def add(self, served: ServedRequest) -> None:
        """Count a request in the period of its arrival, and its work in the periods of its service."""
        _count(self.at(served.arrival_s), served)
        self._totals("shadow" if served.is_copy else "source").add(served)
        answer = served.answer
        self.knows_streams = self.knows_streams or answer.is_streamed
        start = served.arrival_s + answer.wait_s  # NaN for a container
        if not math.isnan(start):
            self._add_work(served, start)
        if (figures := answer.tokens) is not None:
            first_s = figures.first_token_s
            begin = start if math.isnan(first_s) else served.arrival_s + first_s
            if not math.isnan(begin):
                self._add_tokens(figures, begin, served.arrival_s + answer.latency_s)

    def _add_work(self, served: ServedRequest, start: float) -> None:
        answer = served.answer
        # The service of a request that ran out of time in a batch of tokens has no known end.
        lasted_s = answer.latency_s - answer.wait_s if math.isnan(answer.service_s) else answer.service_s
        for period, part in self._spread(start, start + lasted_s):
            period.worked[served.instance] = period.worked.get(served.instance, 0.0) + answer.work_s * part

    def _add_tokens(self, figures: TokenFigures, begin: float, end: float) -> None:
        tokens = self.at(begin).in_tokens()
        tokens.prefill_tokens += figures.prefilled
        tokens.preemptions += figures.preemptions
        counted, upto = 0, 0.0
        for period, part in self._spread(begin, end):
            upto += figures.produced * part
            period.in_tokens().output_tokens += round(upto) - counted
            counted = round(upto)

    def _spread(self, start: float, end: float) -> Iterator[tuple[PeriodCounts, float]]:
        """Yield the counts of the periods that a span touches, and the part of the span in each."""
        begin = start
        for _ in range(_MOST_SPANNED):
            number = math.floor((begin - self.origin_s) / self.period_s)
            boundary = self.origin_s + (number + 1) * self.period_s
            part = (min(end, boundary) - begin) / (end - start) if end > start else 1.0
            yield self.at(begin), part
            if end <= boundary:
                return
            begin = boundary

    def lose(self, time_s: float, cause: str) -> None:
        """Count a copy that was not made."""
        for lost in (self.at(time_s).lost, self._totals("shadow").lost):
            lost[cause] = lost.get(cause, 0) + 1

    def _totals(self, role: str) -> Totals:
        return self.totals.setdefault(role, Totals())

    def sample(
        self,
        time_s: float,
        outstanding: Sequence[int],
        n_cores: int | None,
        batches: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Record each instance's requests, its cores if its workers are these, and its batch of tokens."""
        period = self.at(time_s)
        period.sample(outstanding, n_cores)
        if batches:
            period.in_tokens().sample(batches)
        self.knows_cores = self.knows_cores or n_cores is not None


def _count(period: PeriodCounts, served: ServedRequest) -> None:
    answer = served.answer
    period.n += 1
    period.n_per_instance += 1.0 / served.n_instances
    period.n_instances = served.n_instances
    outcome = answer.outcome
    if outcome != ANSWERED:
        period.model_errors += 1
        period.errors_4xx += outcome == ERROR_4XX
        period.errors_5xx += outcome in (ERROR_5XX, REFUSED)
    if outcome != REFUSED:
        period.latency.add(answer.latency_s)
    period.overhead.add(served.overhead_s, by_bucket=False)
    if not math.isnan(answer.wait_s):
        period.n_wait += 1
        period.wait_sum += answer.wait_s
    if not math.isnan(answer.offered_s):
        period.work_arrived_s += answer.offered_s
    if (figures := answer.tokens) is not None:
        times = period.in_tokens().times
        times[FIRST_TOKEN].add(figures.first_token_s)
        times[PER_TOKEN].add(figures.per_token_s)
    if answer.is_streamed:
        period.streams = streams = period.streams or StreamCounts()
        streams.n += 1
        streams.broken += outcome != ANSWERED
        streams.model.add(answer.first_part_s)
        streams.caller.add(served.first_part_s)
        streams.overhead.add(max(served.first_part_s - answer.first_part_s, 0.0))
    if served.captured_bytes is not None:
        period.captured_records += 1
        period.captured_bytes += served.captured_bytes
