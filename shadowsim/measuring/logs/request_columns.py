"""Collects requests column by column while a log is read, and makes a measurement of them.

A column is an array of numbers, so that a log of a gigabyte takes some hundred megabytes of memory and not ten
gigabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from shadowsim import frames
from shadowsim.arrays import Floats, Ints
from shadowsim.measuring.logs.log_lines import LogLines
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario.trace_times import uniform_by_row

NAN = float("nan")
STATUSES = ("answered", "error_4xx", "error_5xx", "timed_out", "failed", "broken")
ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, FAILED, BROKEN = range(6)

_MOMENTS = ("sent_s", "first_byte_s", "done_s")  # collected as seconds after the arrival
_WHOLE = ("prompt_tokens", "output_tokens", "request_bytes", "response_bytes")
_COARSE_S = 1.0


def status_of(code: int) -> int:
    """Return the status of an HTTP code, as its place in `STATUSES`; 0 is no answer."""
    if 200 <= code < 400:
        return ANSWERED
    if 400 <= code < 500:
        return ERROR_4XX
    return ERROR_5XX if 500 <= code < 600 else FAILED


class RequestColumns:
    """Requests in columns, in the order of the log.

    Parameters
    ----------
    *more : str
        Columns of `Measurement.requests` beside arrival, latency and status. Those of moments (`first_byte_s`) are
        added as seconds after the arrival.
    """

    def __init__(self, *more: str):
        self._time_ns, self._before_s, self._latency_s, self._status = array("q"), array("d"), array("d"), array("b")
        self._more = {name: array("d") for name in more}
        self._appends = [column.append for column in self._more.values()]
        self._token_row, self._token_s = array("q"), array("d")

    def __len__(self) -> int:
        return len(self._time_ns)

    def add(self, time_ns: int, before_s: float, latency_s: float, status: int, *more: float) -> None:
        """Add a request.

        Parameters
        ----------
        time_ns : int
            The time in the log.
        before_s : float
            How long before it the request arrived: 0 where the log has the arrival.
        latency_s : float
            NaN where it is not known. That of a request without an answer is left out.
        status : int
            Its place in `STATUSES`.
        *more : float
            The values of the further columns; NaN where they are not known.
        """
        self._time_ns.append(time_ns)
        self._before_s.append(before_s)
        self._latency_s.append(latency_s)
        self._status.append(status)
        for append, value in zip(self._appends, more):  # noqa: B905  this runs for every line
            append(value)

    def add_tokens(self, times_s: Sequence[float]) -> None:
        """Add when the tokens of the last request's answer came, in seconds from its time in the log."""
        self._token_row.extend([len(self) - 1] * len(times_s))
        self._token_s.extend(times_s)

    def measurement(
        self,
        form: str,
        lines: LogLines,
        *,
        resolution_s: float,
        latency_resolution_s: float,
        lacks: list[str],
        open_loop: bool | None = None,
        since_1970: bool = True,
    ) -> Measurement:
        """Return what was collected as a measurement; raise `InputError` where that is nothing, or mostly damaged.

        Times in whole seconds, of which several are the same, are spread at random within their second before the
        arrivals are computed, by a hash of the row: as Poisson arrivals lie in a second whose number of them is known.
        """
        lines.refuse_unless_read(len(self), form)
        logged: Ints = np.frombuffer(self._time_ns, np.int64)
        if resolution_s >= _COARSE_S and np.unique(logged).size < len(logged):
            width_ns = resolution_s * 1e9
            row = np.arange(len(logged))
            logged = logged + (uniform_by_row(row, np.zeros_like(row)) * width_ns).astype(np.int64)
            lacks = [*lacks, _coarse(resolution_s)]
        before_s: Floats = np.frombuffer(self._before_s, np.float64)
        arrival_ns = logged - np.rint(before_s * 1e9).astype(np.int64)
        order = np.argsort(arrival_ns, kind="stable")
        first_ns = int(arrival_ns[order[0]])
        arrival_s = (arrival_ns[order] - first_ns) / 1e9
        status = np.frombuffer(self._status, np.int8)[order].astype(np.intp)
        latency_s = np.frombuffer(self._latency_s, np.float64)[order]
        latency_s = np.where((status == TIMED_OUT) | (status == FAILED), np.nan, latency_s)
        requests: dict[str, object] = {
            "arrival_s": arrival_s,
            "latency_s": latency_s,
            "status": frames.repeated(STATUSES, status),
        }
        for name, values in self._more.items():
            column = np.frombuffer(values, np.float64)[order]
            if np.isnan(column).all():
                continue
            if name in _MOMENTS:
                column = arrival_s + column
            requests[name] = pd.Series(column).astype("Int64") if name in _WHOLE else column
        started = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=first_ns // 1000) if since_1970 else None
        return Measurement(
            form,
            requests=pd.DataFrame(requests),
            token_times=self._token_times(order, before_s) if self._token_row else None,
            started=started,
            resolution_s=resolution_s,
            latency_resolution_s=latency_resolution_s,
            open_loop=open_loop,
            lacks=tuple(lacks),
            n_lines=lines.n_lines,
            n_damaged=lines.n_damaged,
            first_damaged=lines.first_damaged,
        )

    def _token_times(self, order: Ints, before_s: Floats) -> pd.DataFrame:
        row, place = np.frombuffer(self._token_row, np.int64), np.empty_like(order)
        place[order] = np.arange(len(order))
        since_s = np.frombuffer(self._token_s, np.float64) + before_s[row]
        table = pd.DataFrame({"row": place[row], "token_s": since_s})
        return table.sort_values(["row", "token_s"], kind="stable", ignore_index=True)


def _coarse(resolution_s: float) -> str:
    return (
        f"Times are in steps of {resolution_s:g} s: they were spread at random within them, so that neither the gaps "
        "nor the order of requests of one step are measured."
    )
