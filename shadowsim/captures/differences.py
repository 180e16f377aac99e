"""How far answers lie apart, field by field, over any number of pairs in bounded memory.

Numbers agree when |shadow - source| <= atol + rtol |source|, numpy.isclose's rule with the source for the reference;
NaN agrees with NaN, an infinity with itself. Everything else agrees when it is equal. An integer and a float of one
value are equal, true and 1 are not.

Quantiles of |difference| come from log-linear buckets, 128 to a factor of two, so they are within 0.4 % of the exact
ones; means and the greatest difference are exact. A field holds the few thousand buckets that its differences fill, and
there are at most `MAX_FIELDS` fields.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shadowsim.captures.answers import Field, described

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MAX_FIELDS = 200  # answers keyed by names that never come twice would make a field of each
OTHERS = "(other fields)"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_AT_ONCE = 4096  # numbers that wait to be counted together
_SHIFT = np.uint64(45)  # leaves the exponent and 7 bits of the mantissa


class Differences:
    """Differences of pairs of answers, added pair by pair.

    Parameters
    ----------
    rtol, atol : float
        Tolerances of numbers, relative to the source's and absolute.
    """

    def __init__(self, rtol: float, atol: float):
        self.rtol, self.atol = rtol, atol
        self._fields: dict[str, _Field] = {}

    def add(self, fields: Iterable[Field]) -> str:
        """Take the fields of a pair; return the first disagreement in a sentence, "" when the answers agree."""
        why = ""
        unequal: set[_Field] = set()
        for path, source, shadow in fields:
            known = self._field(path)
            n_values, n_unequal, values = known.take(source, shadow, self.rtol, self.atol)
            known.n_values += n_values
            if n_unequal:
                known.n_unequal += n_unequal
                # A field comes several times in a pair, once for each place of a list.
                known.n_pairs_unequal += known not in unequal
                unequal.add(known)
                why = why or f"{path}: source {described(values[0])}, shadow {described(values[1])}"
        return why

    def frame(self) -> pd.DataFrame:
        """Return a row a field, in the order in which they were met.

        Columns: `path`; `n_values` compared and `n_unequal` of them beyond tolerance; `n_pairs_unequal`, the pairs with
        such a value; `n_numbers`, those of the values that are finite numbers on both sides; over these `bias` (mean of
        shadow minus source), `abs_mean`, `abs_p50`, `abs_p90`, `abs_p99`, `abs_max` of |shadow - source|, and
        `relative_...` likewise of |shadow - source| / |source| (infinite where the source is 0 and the shadow is not).
        Missing without numbers.
        """
        import pandas as pd

        rows = [{"path": path, **field.row()} for path, field in self._fields.items()]
        names = ["path", *_Field().row()]
        return pd.DataFrame(rows, columns=names).astype(
            {name: "str" if name == "path" else "int64" if name.startswith("n_") else "float64" for name in names}
        )

    def _field(self, path: str) -> _Field:
        if path not in self._fields:
            path = path if len(self._fields) < MAX_FIELDS else OTHERS
            if path not in self._fields:
                self._fields[path] = _Field()
        return self._fields[path]


class _Spread:
    """Mean, greatest and quantiles of non-negative numbers."""

    __slots__ = ("buckets", "greatest", "n", "total")

    def __init__(self) -> None:
        self.n, self.total, self.greatest = 0, 0.0, 0.0
        self.buckets: Counter[int] = Counter()

    def add(self, values: Floats) -> None:
        self.n += values.size
        self.total += float(values.sum())
        self.greatest = max(self.greatest, float(values.max()))
        # The bits of positive floats are in the order of the floats.
        found, counts = np.unique(values.view(np.uint64) >> _SHIFT, return_counts=True)
        self.buckets.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def row(self, name: str) -> dict[str, float]:
        row = {f"{name}_mean": self.total / self.n if self.n else math.nan}
        row |= {f"{name}_{p}": self._quantile(q) for p, q in QUANTILES.items()}
        return row | {f"{name}_max": self.greatest if self.n else math.nan}

    def _quantile(self, q: float) -> float:
        """Return the least number with at least a share `q` of all at or below it, to within its bucket."""
        if not self.n:
            return math.nan
        keys = np.array(sorted(self.buckets), dtype=np.uint64)
        below = np.cumsum([self.buckets[int(key)] for key in keys])
        key = keys[np.searchsorted(below, math.ceil(q * self.n))]
        low, high = (np.array([key, key + np.uint64(1)]) << _SHIFT).view(np.float64)
        # The lowest bucket holds 0, the highest infinity, which nothing lies above.
        middle = low if low == 0.0 or not math.isfinite(high) else (low + high) / 2.0
        return min(float(middle), self.greatest)


class _Field:
    """What is known of one field."""

    __slots__ = ("absolute", "bias", "n_pairs_unequal", "n_unequal", "n_values", "relative", "waiting")

    def __init__(self) -> None:
        self.n_values = self.n_unequal = self.n_pairs_unequal = 0
        self.bias = 0.0
        self.absolute, self.relative = _Spread(), _Spread()
        self.waiting: list[tuple[float, float]] = []

    def take(self, source: Any, shadow: Any, rtol: float, atol: float) -> tuple[int, int, tuple[Any, Any]]:
        """Return how many values there were, how many of them disagree, and the first two that do."""
        kinds = type(source), type(shadow)
        if kinds[0] in (float, int) and kinds[1] in (float, int):
            agree = _close(source, shadow, rtol, atol)
            self.waiting.append((_float(source), _float(shadow)))
            if len(self.waiting) >= _AT_ONCE:
                self._count()
            return 1, not agree, (source, shadow)
        if source is shadow:
            return 1, 0, (source, shadow)
        if np.ndarray not in kinds:
            return 1, kinds[0] is not kinds[1] or source != shadow, (source, shadow)
        if kinds[0] is not kinds[1] or {source.dtype.kind, shadow.dtype.kind} - set("biuf"):
            return 1, 1, (source, shadow)
        if source.shape != shadow.shape:
            return 1, 1, (source, shadow)
        one, other = source.astype(np.float64), shadow.astype(np.float64)
        with np.errstate(all="ignore"):
            equal = (source == shadow) | ((one != one) & (other != other))
            limit = atol + rtol * np.abs(one)
            near = (np.abs(other - one) <= limit) & (limit > 0.0)  # without tolerance 2**53 + 1 is not 2**53
        unequal = np.flatnonzero(~(equal | (near & np.isfinite(one) & np.isfinite(other))))
        self._measure(one, other)
        first = (source.flat[unequal[0]].item(), shadow.flat[unequal[0]].item()) if unequal.size else (source, shadow)
        return source.size, unequal.size, first

    def row(self) -> dict[str, float]:
        self._count()
        counts = {"n_values": self.n_values, "n_unequal": self.n_unequal, "n_pairs_unequal": self.n_pairs_unequal}
        n = self.absolute.n
        figures = {"n_numbers": n, "bias": self.bias / n if n else math.nan}
        return counts | figures | self.absolute.row("abs") | self.relative.row("relative")

    def _count(self) -> None:
        if self.waiting:
            pairs = np.array(self.waiting, dtype=np.float64)
            self.waiting.clear()
            self._measure(pairs[:, 0], pairs[:, 1])

    def _measure(self, source: Floats, shadow: Floats) -> None:
        finite = np.isfinite(source) & np.isfinite(shadow)
        one, other = source[finite], shadow[finite]
        if not one.size:
            return
        with np.errstate(all="ignore"):  # the difference of two huge numbers is infinite
            difference = other - one
            absolute = np.abs(difference)
            relative = np.where(absolute == 0.0, 0.0, absolute / np.abs(one))
            self.bias += float(difference.sum())
            self.absolute.add(absolute)
            self.relative.add(relative)


def _close(source: float, shadow: float, rtol: float, atol: float) -> bool:
    if source == shadow or (source != source and shadow != shadow):
        return True
    try:
        distance, size = abs(float(shadow - source)), abs(float(source))
    except OverflowError:  # an integer beyond the floats
        return False
    return math.isfinite(size) and math.isfinite(distance) and distance <= atol + rtol * size


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
