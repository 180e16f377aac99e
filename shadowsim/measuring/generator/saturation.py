"""Judges whether a load generator kept up with its plan: else it measured itself, not the service.

A generator that is late, out of sockets or out of CPU books its own delay as the service's. Such a run is refused:
`invalid: generator saturated`, with the limits that it passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shadowsim.measuring.generator.load_records import CAP, DROPPED, RecordTable
from shadowsim.text import count, percent, time_text

if TYPE_CHECKING:  # who reads a saved run needs no HTTP client
    from shadowsim.measuring.generator.sender import Sent

VALID, INVALID = "valid", "invalid: generator saturated"


@dataclass(frozen=True, slots=True)
class GeneratorLimits:
    """What a generator may be late, drop and use.

    Attributes
    ----------
    lag_s : float
        Greatest p99 of how late it sends.
    lag_share : float
        Of the median latency: a greater lag than `lag_s` is still good if it is a smaller share.
    dropped : float
        Greatest share of requests that are not sent, for whatever cause.
    cpu : float
        Greatest share of a core that a process of it uses while it sends.
    """

    lag_s: float = 0.010
    lag_share: float = 0.05
    dropped: float = 0.001
    cpu: float = 0.8


@dataclass(frozen=True, slots=True)
class GeneratorVerdict:
    """Whether a run is valid, and why not.

    Attributes
    ----------
    status : str
        `VALID` or `INVALID`.
    why : tuple of str
        A sentence for each limit that was passed.
    """

    status: str
    why: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether the run is of use."""
        return self.status == VALID


def judge(
    table: RecordTable, sent: Sequence[Sent], n_planned: int, limits: GeneratorLimits | None = None
) -> GeneratorVerdict:
    """Judge a run.

    Parameters
    ----------
    table : RecordTable
        The rows of all processes.
    sent : sequence of Sent
        What the processes did.
    n_planned : int
        Requests whose planned time has come.
    limits : GeneratorLimits, optional
    """
    limits = limits or GeneratorLimits()
    why = []
    lag = table["lag"][~np.isnan(table["lag"])]
    latency = table["done"] - table["planned"]
    median_s = float(np.nanmedian(latency)) if np.isfinite(latency).any() else 0.0
    lag_p99_s = float(np.quantile(lag, 0.99)) if lag.size else 0.0
    # of latency without the lag itself, or a generator that is late enough would excuse itself
    most_s = max(limits.lag_s, limits.lag_share * max(median_s - (float(np.median(lag)) if lag.size else 0.0), 0.0))
    if lag_p99_s > most_s:
        why.append(f"Requests left late: p99 of the lag is {time_text(lag_p99_s)}, the limit {time_text(most_s)}.")
    dropped = table["status"] == DROPPED
    n_dropped = int(dropped.sum())
    if n_planned and n_dropped > limits.dropped * n_planned:
        causes = [table.causes[i] for i in np.unique(table["cause"][dropped])]
        share = percent(n_dropped / n_planned)
        limit = percent(limits.dropped)
        why.append(f"{count(n_dropped)} requests ({share}) were not sent ({', '.join(causes)}); the limit is {limit}.")
    cpu = max((part.cpu_share for part in sent), default=0.0)
    if cpu > limits.cpu:
        why.append(f"It used {percent(cpu)} of a core, the limit is {percent(limits.cpu)}: use more --processes.")
    starved = max((part.starved_share for part in sent if not math.isnan(part.starved_share)), default=0.0)
    if why and starved > 0.1 and cpu <= limits.cpu:
        why.append(f"Other programs had its core for {percent(starved)} of the time: use a quieter machine.")
    return GeneratorVerdict(INVALID if why else VALID, tuple(why))


def held_open(table: RecordTable, is_ladder: bool) -> bool:
    """Return whether all requests came at their own times, whatever the answers."""
    capped = CAP in table.causes
    return not (is_ladder or capped or bool(np.asarray(table["held"]).any()))
