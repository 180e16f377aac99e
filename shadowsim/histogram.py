"""Log-linear histograms: the bucket of a number, and quantiles of counts in buckets.

The numbers of a bucket have the exponent and the first 7 bits of the mantissa in common: 128 buckets per factor of two,
each 0.4 to 0.8 % wide. The bits of positive floats, read as integers, are in the order of the floats, so these leading
bits are the bucket's key, and a shift finds it.

Latencies have buckets 0 to `N_BUCKETS` - 1, from 2^-20 s (0.95 us) to 2^12 s (68 min); the first also holds what is
shorter, the last what is longer. engine/_kernel.py has a compiled copy of these, since numba's cache does not notice a
change in another file; tests/test_histogram.py holds both to the same bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints

BUCKETS_LOG2 = 7  # buckets per factor of two, as a power of two
N_BUCKETS, LOWEST_S = 32 << BUCKETS_LOG2, 2.0**-20
_SHIFT = 52 - BUCKETS_LOG2
_DOUBLE, _LONG = struct.Struct("<d"), struct.Struct("<q")  # for single numbers faster than numpy
_LOWEST = _LONG.unpack(_DOUBLE.pack(LOWEST_S))[0]


def bucket_of(latency_s: float) -> int:
    """Return the bucket of a latency."""
    bucket: int = (_LONG.unpack(_DOUBLE.pack(latency_s))[0] - _LOWEST) >> _SHIFT
    return min(max(bucket, 0), N_BUCKETS - 1)


def buckets_of(latencies_s: Floats) -> Ints:
    """Return the bucket of each latency, as `bucket_of` does of one."""
    keys = keys_of(np.ascontiguousarray(np.maximum(latencies_s, 0.0))).astype(np.int64)
    buckets: Ints = np.clip(keys - (_LOWEST >> _SHIFT), 0, N_BUCKETS - 1)
    return buckets


def edge_of(bucket: int) -> float:
    """Return the lower edge of a latency's bucket in seconds."""
    edge: float = _DOUBLE.unpack(_LONG.pack(_LOWEST + (bucket << _SHIFT)))[0]
    return edge


def keys_of(values: Floats) -> NDArray[np.uint64]:
    """Return the keys of the buckets of non-negative numbers of any size."""
    return values.view(np.uint64) >> np.uint64(_SHIFT)


def edges_of(key: int) -> tuple[float, float]:
    """Return both edges of the bucket that has a key; the first key holds 0, the last one infinity."""
    low, high = (np.array([key, key + 1], np.uint64) << np.uint64(_SHIFT)).view(np.float64).tolist()
    return low, high


def place_of(upto: Floats | Ints, rank: float) -> int:
    """Return the place of the bucket that holds a rank, from the cumulative counts; never that of an empty one.

    Parameters
    ----------
    upto : ndarray, shape (buckets,)
        Counts up to and including each bucket; the last is above 0.
    rank : float
        From 0 to the last of `upto`.
    """
    return int(np.searchsorted(upto, rank, side="left" if rank > 0.0 else "right"))


def quantiles(low: Floats, high: Floats, count: Floats, qs: Sequence[float]) -> list[float]:
    """Return quantiles of counts in buckets, linear inside a bucket; NaN when all are empty.

    Parameters
    ----------
    low, high, count : ndarray of float64, shape (buckets,)
        Edges, ascending, and counts.
    qs : sequence of float
        In [0, 1].
    """
    upto = np.cumsum(count)
    if upto[-1] == 0:
        return [math.nan] * len(qs)
    values = []
    for q in qs:
        rank = q * upto[-1]
        at = place_of(upto, rank)
        share = (rank - (upto[at] - count[at])) / count[at]
        values.append(float(low[at] + (high[at] - low[at]) * share))
    return values


def quantile_within(counts: Mapping[int, int], q: float, least_s: float, greatest_s: float) -> float:
    """Return a quantile of latencies from their counts by bucket, no further than the extremes; NaN of none."""
    rank, before = q * sum(counts.values()), 0
    for bucket, count in sorted(counts.items()):
        if before + count >= rank:
            low, high = edge_of(bucket), edge_of(bucket + 1)
            return min(max(low + (high - low) * (rank - before) / count, least_s), greatest_s)
        before += count
    return math.nan
