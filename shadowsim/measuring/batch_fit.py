"""Finds dynamic batchers in a run: their size, delay, workers, and the time of a batch by its size.

The requests of a batch are answered together, and are neighbours in the order of arrival: so batches show in the log. A
batch starts when a worker is free and it is full, or its oldest request has waited for `max_delay_s`. A batch that is
not full and found a worker free ends between the arrival of its last request and that of the next one; so all of these
bound the delay. Given the delay, batches are like requests that wait for a worker (fifo_starts.py), and workers,
overhead and factors by size are found as fifo_fit.py finds them, the size taking the place of the busy workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.measuring.fifo_fit import CLEAR, FifoFit, fit_shapes, likeliest_overhead
from shadowsim.measuring.fifo_starts import Answered, Starts, blocked_until

TOGETHER = 0.002  # of the median latency: answers that are no further apart came together
LEAST_SHARE = 0.25  # of requests that were answered with a neighbour; busy event loops alone reach a tenth
_MOST_WORKERS = 16
_USUAL = 5.0
_RARE = 0.003  # share of batches
_OUTLIERS = 0.002  # share of batches that may contradict a delay


@dataclass(frozen=True, slots=True, eq=False)
class RequestBatches:
    """The batches of a run, in the order in which they began.

    Attributes
    ----------
    answered : Answered
        Each batch as one request: the oldest's arrival, its latency and its instance.
    last_s, next_s : ndarray of float64, shape (n,)
        When its last request arrived, and the first one after it at its instance; infinite for the last batch.
    size : ndarray of int64, shape (n,)
    """

    answered: Answered
    last_s: Floats
    next_s: Floats
    size: Ints

    @property
    def max_size(self) -> int:
        """Requests in the largest batch."""
        return int(self.size.max())


@dataclass(frozen=True, slots=True)
class Delay:
    """`max_delay_s` of a batcher: the middle of the interval that the batches leave, and its ends."""

    value_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True, eq=False)
class BatchFit:
    """A batcher, as far as a run tells it.

    Attributes
    ----------
    batches : RequestBatches
    delay : Delay
    fit : FifoFit
        Its factors are by the size of a batch, from 1 to `RequestBatches.max_size`.
    n_full : int
        RequestBatches of the largest size that left requests behind.
    """

    batches: RequestBatches
    delay: Delay
    fit: FifoFit
    n_full: int


def batches_of(answered: Answered, least_s: float = 0.0) -> RequestBatches | None:
    """Return the batches of a run; None where requests are answered one by one.

    Parameters
    ----------
    answered : Answered
    least_s : float
        Answers that are no further apart came together, whatever the latencies, such as the resolution of clocks.
    """
    finish = answered.finish_s
    # Latencies of a saturated run are waits; there the time between answers is the measure of what is near.
    between_s = float(np.ptp(finish)) * answered.n_instances / len(answered)
    most_s = min(TOGETHER * float(np.median(answered.latency_s)), 10.0 * TOGETHER * between_s)
    near_s = _near_s(answered, max(most_s, least_s), least_s)
    head = np.ones(len(answered), np.bool_)
    following = np.full(len(answered), np.inf)  # the next arrival at the same instance
    order = []
    for rows in answered.by_instance():
        head[rows[1:]] = np.abs(np.diff(finish[rows])) > near_s
        following[rows[:-1]] = answered.arrival_s[rows[1:]]
        order.append(rows)
    rows = np.concatenate(order)
    first = np.flatnonzero(head[rows])
    size = np.diff(np.append(first, len(rows)))
    # RequestBatches of several workers end at about one time by chance: rare sizes above the others are two of them.
    counts = np.bincount(size)
    most = int(np.flatnonzero(counts >= max(_RARE * len(size), 1.0))[-1])
    for i in np.flatnonzero(size > most):
        head[rows[first[i] : first[i] + size[i] : most]] = True
    first = np.flatnonzero(head[rows])
    size = np.diff(np.append(first, len(rows)))
    if float(size[size > 1].sum()) < LEAST_SHARE * len(rows):
        return None
    oldest, last = rows[first], rows[first + size - 1]
    end = np.maximum.reduceat(finish[rows], first)
    by_arrival = np.argsort(answered.arrival_s[oldest], kind="stable")
    oldest, last, end, size = oldest[by_arrival], last[by_arrival], end[by_arrival], size[by_arrival]
    arrival = answered.arrival_s[oldest]
    return RequestBatches(
        Answered(arrival, end - arrival, answered.instance[oldest]),
        answered.arrival_s[last],
        following[last],
        size.astype(np.int64),
    )


def _near_s(answered: Answered, most_s: float, least_s: float) -> float:
    """Return how far apart answers of one batch are at most: a few times as far as those that are close usually are."""
    finish = answered.finish_s
    gaps = np.concatenate([np.abs(np.diff(finish[rows])) for rows in answered.by_instance()])
    close = gaps[gaps <= most_s]
    usual = float(np.median(close)) if close.size else most_s
    return min(max(_USUAL * usual, 1e-9 * float(finish[-1]), least_s), most_s)


def fit_batches(batches: RequestBatches, width: float) -> BatchFit:
    """Fit a batcher to batches.

    Parameters
    ----------
    batches : RequestBatches
    width : float
        The relative width below which times are not told apart.
    """
    units = batches.answered
    most = min(_most_running(batches), _MOST_WORKERS)
    fits = {}
    delays = {}
    for workers in range(1, most + 1):
        delays[workers] = delay_of(batches, workers)
        levels = batches.max_size

        def begin(overhead_s: float, workers: int = workers) -> Starts:
            return batch_starts(batches, delays[workers].value_s, workers, overhead_s)

        fits[workers] = fit_shapes(
            units, begin, workers, levels, width, lambda score: likeliest_overhead(units.latency_s, score)
        )
    best = max(fits.values(), key=lambda fit: fit.score)
    alternatives = tuple(fit for _, fit in sorted(fits.items()) if fit.score > best.score - CLEAR)
    delay = delays[best.workers]
    start_s = units.arrival_s + units.latency_s - best.starts.service_s - best.overhead.value_s
    full = (batches.size == batches.max_size) & (batches.next_s < start_s)
    return BatchFit(batches, delay, FifoFit(best, alternatives, most + 1), int(full.sum()))


def delay_of(batches: RequestBatches, workers: int) -> Delay:
    """Return the delay that batches which found a worker free allow."""
    units = batches.answered
    free = (blocked_until(units, workers) < units.arrival_s) & (batches.size < batches.max_size)
    if not free.any():
        return Delay(0.0, 0.0, math.inf)
    held = np.sort((batches.last_s - units.arrival_s)[free])[::-1]
    after = np.sort((batches.next_s - units.arrival_s)[free])
    if not (held > 0.0).any():
        return Delay(0.0, 0.0, float(after[0]))
    odd = int(_OUTLIERS * len(held))
    low, high = float(held[0]), float(after[0])
    if low > high:  # clocks are not exact: a few batches may contradict it
        low, high = sorted((float(held[odd]), float(after[min(odd, len(after) - 1)])))
    return Delay(0.5 * (low + high), low, high)


def batch_starts(batches: RequestBatches, delay_s: float, workers: int, overhead_s: float) -> Starts:
    """Return waits for a worker, and the time of each batch; its size takes the place of the busy workers."""
    units = batches.answered
    due = units.arrival_s + delay_s
    full = batches.size == batches.max_size
    ready = np.maximum(np.where(full, np.minimum(due, batches.last_s), due), batches.last_s)
    wait_s = np.maximum(blocked_until(units, workers) - overhead_s - ready, 0.0)
    service_s = units.finish_s - overhead_s - ready - wait_s
    return Starts(service_s, wait_s, wait_s > 0.0, batches.size)


def _most_running(batches: RequestBatches) -> int:
    """Return how many batches of an instance may have run at a time, at most."""
    units = batches.answered
    most = 1
    for rows in units.by_instance():
        finish = np.sort(units.finish_s[rows])
        started = batches.last_s[rows]
        running = np.arange(len(rows)) - np.searchsorted(finish, started, side="right")
        most = max(most, int(running.max()) + 1)
    return most
