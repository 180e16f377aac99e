"""Reconstructs waits and services of requests from when they arrived and when they were answered.

An instance with c workers that serves first in, first out starts request n when it has arrived and fewer than c of the
earlier ones are unfinished: at max(a_n, F_n), F_n being the c-th latest finish among the requests before it. So
arrivals and finishes alone determine the starts, whatever the law of the services.

A constant overhead d lies outside the service: an answer is seen d after the worker is free. Then a request that
waited has the service f_n - F_n, in which d cancels, and one that did not has the service f_n - a_n - d. The service is
the lesser of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The answered requests of a run, in the order of their arrivals.

    Attributes
    ----------
    arrival_s, latency_s : ndarray of float64, shape (n,)
    instance : ndarray of int64, shape (n,)
        Which instance served them, from 0.
    wake_s : ndarray of float64, shape (n,), or None
        How much longer each was served since its instance had been idle; None where it makes no difference.
    """

    arrival_s: Floats
    latency_s: Floats
    instance: Ints
    wake_s: Floats | None = None

    @property
    def awake_s(self) -> Floats:
        """Their latencies, had their instances never been idle."""
        return self.latency_s if self.wake_s is None else self.latency_s - self.wake_s

    @property
    def finish_s(self) -> Floats:
        """When they were answered."""
        return self.arrival_s + self.latency_s

    @property
    def n_instances(self) -> int:
        """How many instances served requests."""
        return int(self.instance.max()) + 1 if self.instance.size else 0

    def __len__(self) -> int:
        return len(self.arrival_s)

    def rows(self, which: slice | NDArray[np.bool_]) -> Answered:
        """Return some of the requests."""
        wake_s = None if self.wake_s is None else self.wake_s[which]
        return Answered(self.arrival_s[which], self.latency_s[which], self.instance[which], wake_s)

    def by_instance(self) -> list[Ints]:
        """Return the positions of each instance's requests."""
        order = np.argsort(self.instance, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.instance[order])) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Starts:
    """What a number of workers makes of a run.

    Attributes
    ----------
    service_s, wait_s : ndarray of float64, shape (n,)
        `service_s` is not positive where the number of workers is impossible.
    waited : ndarray of bool, shape (n,)
    busy : ndarray of int64, shape (n,)
        Busy workers at the start of each service, itself included.
    """

    service_s: Floats
    wait_s: Floats
    waited: NDArray[np.bool_]
    busy: Ints

    def rows(self, which: Ints) -> Starts:
        """Return some of the requests, which may be repeated."""
        return Starts(self.service_s[which], self.wait_s[which], self.waited[which], self.busy[which])


def blocked_until(answered: Answered, workers: int) -> Floats:
    """Return F_n for each request; minus infinity where fewer than `workers` came before it."""
    finish = answered.finish_s
    blocked = np.full(len(finish), -np.inf)
    for rows in answered.by_instance():
        own = finish[rows].tolist()
        latest = own[:workers]
        if len(latest) < workers:
            continue
        heapify(latest)
        found = []
        for f in own[workers:]:
            found.append(latest[0])
            if f > latest[0]:
                heapreplace(latest, f)
        blocked[rows[workers:]] = found
    return blocked


def in_flight(answered: Answered, overhead_s: float = 0.0) -> Ints:
    """Return how many earlier requests each finds at its instance, waiting or in service."""
    finish, found = answered.finish_s, np.empty(len(answered), np.int64)
    for rows in answered.by_instance():
        left = np.searchsorted(np.sort(finish[rows]), answered.arrival_s[rows] + overhead_s, side="right")
        found[rows] = np.arange(len(rows)) - left
    return np.maximum(found, 0)  # the quickest answers may lie below a fitted overhead


def idle_time(answered: Answered, overhead_s: float) -> Floats:
    """Return how long the instance of each request had been idle when it came; 0 where it was not, or never served."""
    finish, idle = answered.finish_s, np.zeros(len(answered))
    for rows in answered.by_instance():
        latest = np.maximum.accumulate(finish[rows])[:-1]
        idle[rows[1:]] = np.maximum(answered.arrival_s[rows[1:]] + overhead_s - latest, 0.0)
    return idle


def starts(answered: Answered, blocked_s: Floats, found: Ints, workers: int, overhead_s: float) -> Starts:
    """Return waits and services.

    Parameters
    ----------
    answered : Answered
    blocked_s : ndarray of float64, shape (n,)
        From `blocked_until`, for the number of workers.
    found : ndarray of int64, shape (n,)
        From `in_flight`, for the overhead.
    workers : int
    overhead_s : float
    """
    alone_s = answered.awake_s - overhead_s
    wait_s = np.maximum(blocked_s - answered.arrival_s - overhead_s, 0.0)
    waited = wait_s > 0.0
    busy = np.where(waited, workers, np.minimum(found + 1, workers))
    return Starts(alone_s - wait_s, wait_s, waited, busy)
