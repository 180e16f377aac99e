"""Keeps a row per request of a load run, and counts for the line that shows a run while it lasts.

A row takes some hundred bytes, in plain arrays, and 16 for each token of a streamed answer. Times are seconds on the
run's clock: 0 is its start.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.histogram import bucket_of

# in `LoadRecords.status`; the words are those of the `requests` frame, see `frames.REQUESTS` and `frames.LOAD_REQUESTS`
STATUSES = (
    "answered", "error_4xx", "error_5xx", "timed_out", "refused", "unavailable", "failed", "broken", "dropped", "cut",
)  # fmt: skip
ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, REFUSED, UNAVAILABLE, FAILED, BROKEN, DROPPED, CUT = range(len(STATUSES))
CAP, LATE, NO_SOCKET = "cap of requests in flight", "generator too late", "no free socket"  # causes of drops
UNFINISHED, UNSENT = "unanswered when the run was ended", "held back when the run was ended"
_COLUMNS = {  # type codes of arrays
    "number": "q", "planned": "d", "sent": "d", "first_byte": "d", "done": "d", "first_token": "d", "status": "b",
    "cause": "h", "request_bytes": "q", "response_bytes": "q", "prompt_tokens": "i", "output_tokens": "i",
    "stage": "i", "limit": "i", "held": "b", "lag": "d",
}  # fmt: skip
MOST_TOKENS = 4_000_000  # whose times are kept: 64 MB
_MOST_CAUSES = 2_000  # of texts: HTTP statuses, and words for what went wrong with a connection
_OTHER = "other"


class LoadRecords:
    """The rows of a run, in the order in which their planned times came.

    Attributes
    ----------
    number : array of int
        The request's number in the run.
    planned, sent, first_byte, done, first_token : array of float
        Seconds; NaN for what has not happened.
    status, cause : array of int
        Indices in `STATUSES` and in `causes`; -1 without one.
    request_bytes, response_bytes, prompt_tokens, output_tokens : array of int
        -1 if unknown.
    stage, limit : array of int
        The number of the stage, and its limit of requests in flight; -1 without one.
    held : array of int
        Whether the ceiling of the rate held it back.
    lag : array of float
        How late the generator sent it, or came to it if it did not send it or had to hold it back; NaN in a closed
        loop, which has no plan.
    token_number, token_time : array of int, array of float
        The request and the moment of each token of a streamed answer, in order of their ends; of the answers after
        `MOST_TOKENS` there are none.
    causes : list of str
        What kept requests from a good answer, in words.
    """

    def __init__(self) -> None:
        self.token_number, self.token_time = array("q"), array("d")
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in _COLUMNS.items()}
        self.causes: list[str] = []
        self.number, self.planned, self.sent = (self._columns[n] for n in ("number", "planned", "sent"))
        self.first_byte, self.done = self._columns["first_byte"], self._columns["done"]
        self.first_token = self._columns["first_token"]
        self.status, self.cause, self.held = (self._columns[n] for n in ("status", "cause", "held"))
        self.lag = self._columns["lag"]
        self.request_bytes, self.response_bytes = self._columns["request_bytes"], self._columns["response_bytes"]
        self.prompt_tokens, self.output_tokens = self._columns["prompt_tokens"], self._columns["output_tokens"]
        self.stage, self.limit = self._columns["stage"], self._columns["limit"]
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.status)

    def begin(self, number: int, planned_s: float, stage: int = -1, limit: int = -1, lag_s: float = math.nan) -> int:
        """Add a request that is due, and return its row."""
        nan = math.nan
        self.number.append(number)
        self.planned.append(planned_s)
        for column in (self.sent, self.first_byte, self.done, self.first_token):
            column.append(nan)
        for column in (self.cause, self.request_bytes, self.response_bytes, self.prompt_tokens, self.output_tokens):
            column.append(-1)
        self.status.append(CUT)
        self.stage.append(stage)
        self.limit.append(limit)
        self.held.append(0)
        self.lag.append(lag_s)
        return len(self.status) - 1

    def keep_tokens(self, row: int, times: array[float]) -> None:
        """Keep when the tokens of an answer came."""
        if len(self.token_time) + len(times) <= MOST_TOKENS:
            self.token_number.extend([self.number[row]] * len(times))
            self.token_time.extend(times)

    def fail(self, row: int, status: int, cause: str) -> None:
        """Say how a request ended, and why."""
        self.status[row] = status
        if cause not in self._index:
            cause = cause if len(self.causes) < _MOST_CAUSES else _OTHER
            if cause not in self._index:
                self._index[cause] = len(self.causes)
                self.causes.append(cause)
        self.cause[row] = self._index[cause]

    def table(self) -> RecordTable:
        """Return the rows as arrays."""
        return RecordTable(
            {name: np.array(column) for name, column in self._columns.items()},
            tuple(self.causes),
            np.array(self.token_number, np.int64),
            np.array(self.token_time, np.float64),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RecordTable:
    """Rows of `LoadRecords` as arrays by name, the causes that `cause` indexes, and the times of tokens."""

    columns: dict[str, Floats | Ints]
    causes: tuple[str, ...]
    token_number: Ints
    token_time: Floats

    def __len__(self) -> int:
        return int(self.columns["number"].size)

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]


def merged(tables: list[RecordTable]) -> RecordTable:
    """Return the rows of several processes as one table, in order of the requests' numbers."""
    causes = list(dict.fromkeys(cause for table in tables for cause in table.causes))
    parts = []
    for table in tables:
        to = np.array([causes.index(cause) for cause in table.causes] + [-1], np.int64)
        parts.append(table.columns | {"cause": to[table["cause"]]})  # -1 indexes the last: none stays none
    joined = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}
    order = np.argsort(joined["number"], kind="stable")
    return RecordTable(
        {name: values[order] for name, values in joined.items()},
        tuple(causes),
        np.concatenate([table.token_number for table in tables]),
        np.concatenate([table.token_time for table in tables]),
    )


@dataclass(slots=True)
class LiveCounts:
    """Counts since the start of a run, which add up over processes.

    Attributes
    ----------
    due, sent, answered, failed, dropped, in_flight : int
        Requests whose planned time has come, and what became of them.
    unreachable : int
        Of those that failed the ones for which no connection could be opened.
    latency, lag : dict of int to int
        Numbers of latencies and of delays of the generator, by bucket of `histogram`.
    """

    due: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    in_flight: int = 0
    unreachable: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    lag: dict[int, int] = field(default_factory=dict)

    def note_lag(self, seconds: float) -> None:
        """Count how late the generator was."""
        bucket = bucket_of(seconds)
        self.lag[bucket] = self.lag.get(bucket, 0) + 1

    def note_latency(self, seconds: float) -> None:
        """Count a latency."""
        bucket = bucket_of(seconds)
        self.latency[bucket] = self.latency.get(bucket, 0) + 1

    def plus(self, other: LiveCounts) -> LiveCounts:
        """Return the counts of both."""
        total = LiveCounts(*(getattr(self, name) + getattr(other, name) for name in _NUMBERS))
        for name in ("latency", "lag"):
            ours, theirs = getattr(self, name), getattr(other, name)
            setattr(total, name, {b: ours.get(b, 0) + theirs.get(b, 0) for b in ours.keys() | theirs.keys()})
        return total


_NUMBERS = ("due", "sent", "answered", "failed", "dropped", "in_flight", "unreachable")
