"""Laws of non-negative quantities: how long a request holds a worker, how many bytes it carries.

A law is written in a scenario as a JSON object whose keys carry the unit (`_s` or `_bytes`):

==============  ==========================================================================================
deterministic   `mean_s`; or the bare number
exponential     `mean_s`
lognormal       `mean_s` and `scv`, or `p50_s` and `p99_s`
gamma           `mean_s` and `scv`, or `shape` and `scale_s`
weibull         `mean_s` and `scv` (from 1e-6), or `shape` (up to 1000) and `scale_s`
pareto          `mean_s` and `scv` (up to 0.5), or `shape` (from 1.5) and `minimum_s`: type I
uniform         `mean_s` and `scv` (up to 1/3), or `low_s` and `high_s`
empirical       `quantiles_s` {"0.5": 0.02, "0.99": 0.1, ...}: at least two points of the quantile function, straight
                lines between them and flat outside; or `path` (and `column`) of a CSV or Parquet file with at
                least two values, whose quantile function joins the order statistics x_(i) at (i-1)/(n-1)
linear          `base_s` (default 0) and `<trace column>`: units for each unit of the column; for bytes the bare
                name of a column takes it as it is
==============  ==========================================================================================

`scv` is the squared coefficient of variation, variance / mean². It is at most 100: a law with a heavier tail hangs its
moments on draws that no run of a sensible length sees. Too few parameters are an error, and so are too many: which of
them should give way is not for the program to guess.

The one exception is a Pareto by its `shape`: who writes that down means the heavy tail. Its scv is infinite up to shape
2; a run sees of it what lies below the quantile of 1 - 2^-54, where a simulation's tables end (families.py says how
much of the second moment that is; from shape 2.73 on it is all, which is why an scv is taken up to 0.5 only).

A law knows its quantiles from both ends (`Law.tails`), because 1 - v is exactly 1 in float64 for the v of a far tail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from shadowsim.errors import InputError
from shadowsim.scenario import families
from shadowsim.scenario.empirical import moments, quantiles, sample
from shadowsim.scenario.fields import Block, number

Floats = NDArray[np.float64]

LAWS = ("deterministic", "exponential", "lognormal", "gamma", "weibull", "pareto", "uniform", "empirical", "linear")
MAX_SCV = 100.0
Z99 = 2.3263478740408408  # the standard normal's 0.99 quantile

# Each law's ways to be given; {u} is the unit.
WAYS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "deterministic": (("mean_{u}",),),
        "exponential": (("mean_{u}",),),
        "lognormal": (("mean_{u}", "scv"), ("p50_{u}", "p99_{u}")),
        "gamma": (("mean_{u}", "scv"), ("shape", "scale_{u}")),
        "weibull": (("mean_{u}", "scv"), ("shape", "scale_{u}")),
        "pareto": (("mean_{u}", "scv"), ("shape", "minimum_{u}")),
        "uniform": (("mean_{u}", "scv"), ("low_{u}", "high_{u}")),
        "empirical": (("quantiles_{u}",), ("path",)),
    }
)
FORMED = MappingProxyType(
    {"weibull": families.weibull_tails, "pareto": families.pareto_tails, "uniform": families.uniform_tails}
)
FORMS = MappingProxyType(
    {"weibull": families.weibull_shape, "pareto": families.pareto_shape, "uniform": families.uniform_spread}
)


@dataclass(frozen=True, slots=True)
class Law:
    """A law of a non-negative quantity, made by `parse_law`.

    Attributes
    ----------
    kind : str
        One of `LAWS`.
    mean : float
        In the law's unit; NaN for linear, whose mean is that of the data.
    scv : float
        Variance / mean²; 0 for a mean of 0, infinite for a Pareto of shape <= 2, NaN for linear.
    form : float
        Weibull and Pareto: the shape. Uniform: half the width over the mean.
    base : float
        Linear: the part that does not depend on the trace.
    columns : mapping of str to float
        Linear: units for each unit of a trace column.
    block : object
        The JSON value that the law was made of.
    points : (ndarray of float64, ndarray of float64), each of shape (n,)
        Empirical: probabilities, and the quantiles there.
    """

    kind: str
    # The block says which law it is; a NaN would make a linear law differ from its own copy.
    mean: float = field(compare=False)
    scv: float = field(compare=False)
    form: float = field(default=0.0, compare=False)
    base: float = 0.0
    columns: Mapping[str, float] = field(default_factory=dict)
    block: object = None
    points: tuple[Floats, Floats] | None = field(default=None, compare=False, repr=False)

    def tails(self, v: Floats) -> tuple[Floats, Floats]:
        """Return quantiles counted from either end.

        Parameters
        ----------
        v : ndarray of float64, shape (n,)
            Probabilities in (0, 0.5].

        Returns
        -------
        lower : ndarray of float64, shape (n,)
            What the quantity is below with probability v.
        upper : ndarray of float64, shape (n,)
            What the quantity is above with probability v, to full precision for any v.

        Raises
        ------
        ValueError
            For linear, which is no law until it meets a trace.
        """
        if self.kind == "deterministic":
            return np.full(len(v), self.mean), np.full(len(v), self.mean)
        if self.kind == "exponential":
            return families.exponential_tails(self.mean, v)
        if self.kind == "lognormal":
            return families.lognormal_tails(self.mean, self.scv, v)
        if self.kind == "gamma":
            return families.gamma_tails(self.mean, self.scv, v)
        if self.kind in FORMED:
            return FORMED[self.kind](self.mean, self.form, v)
        if self.points is None:
            raise ValueError("a linear law has no quantiles of its own")
        p, x = self.points
        # Flipped, the upper tail is a lower tail; 1 - p is exact for p >= 0.5, and no worse than p itself below.
        return np.interp(v, p, x), np.interp(v, (1.0 - p)[::-1], x[::-1])

    def values(self, columns: Mapping[str, Floats]) -> Floats:
        """Return base + sum of coefficient x column of a linear law, added in the order of the law's columns."""
        total = np.full(len(columns[next(iter(self.columns))]), self.base)
        for name, coefficient in self.columns.items():
            total += coefficient * columns[name]
        return total


def parse_law(value: object, path: str, unit: str, base_dir: Path | None = None) -> Law:
    """Make a law of its JSON value.

    Parameters
    ----------
    value : dict, number or str
        A block as in the module's table; a number is deterministic; a text, for bytes, is a trace column.
    path : str
        Where it stands, for errors.
    unit : {"s", "bytes"}
        The suffix of its keys. A time must have a mean > 0; a size may always be 0.
    base_dir : Path, optional
        What the `path` of an empirical law is relative to; by default the working directory.

    Raises
    ------
    InputError
        When anything about it is wrong.
    """
    if unit == "bytes" and isinstance(value, str) and value:
        return Law("linear", math.nan, math.nan, columns={value: 1.0}, block=value)
    if isinstance(value, int | float):
        mean = number(value, path, **_bound(unit))
        return Law("deterministic", mean, 0.0, block=value)
    if not isinstance(value, Mapping):
        what = "a number of seconds" if unit == "s" else "a number of bytes, a trace column"
        raise InputError(path, f'must be {what} or an object {{"law": ...}}', value)
    block = Block.of(value, path)
    kind = block.choice("law", None, LAWS)
    if kind == "linear":
        return _linear(block, unit)
    way = _way(block, kind, unit)
    if kind == "empirical":
        points = sample(block, base_dir or Path()) if way[0] == "path" else quantiles(block, unit)
        mean, scv = moments(*points)
        if unit == "s" and mean <= 0.0:
            raise InputError(block.path, "must have a mean > 0", mean)
        return Law(kind, mean, scv, block=block.values, points=points)
    return Law(kind, *_moments(block, kind, way, unit), block=block.values)


def _bound(unit: str) -> dict[str, float]:
    return {"above": 0.0} if unit == "s" else {"least": 0.0}


def _way(block: Block, kind: str, unit: str) -> tuple[str, ...]:
    """Return the one set of parameters that is given, in full and alone."""
    ways = [tuple(key.format(u=unit) for key in way) for way in WAYS[kind]]
    extra = ["column"] if kind == "empirical" else []
    # scv is known to all, so that one too many is told from one misspelt.
    block.only(["law", "scv", *extra, *(key for way in ways for key in way)])
    given = {key for key in block.values if block.has(key) and key not in ("law", *extra)}
    for way in ways:
        if given == set(way):
            return way
    taken = ", or ".join(" with ".join(way) for way in ways)
    fault = "over-determined" if any(given > set(way) for way in ways) else "not determined"
    raise InputError(block.path, f"is {fault}: {kind} takes {taken}", sorted(given))


def _moments(block: Block, kind: str, way: tuple[str, ...], unit: str) -> tuple[float, float, float]:
    """Return the mean, the scv and the form that the given parameters mean."""
    if kind == "deterministic":
        return block.number(way[0], **_bound(unit)), 0.0, 0.0
    if kind == "exponential":
        return block.number(way[0], above=0.0), 1.0, 0.0
    if way[1] == "scv":
        mean, scv = block.number(way[0], above=0.0), _scv(block, kind)
        return mean, scv, FORMS[kind](scv) if kind in FORMS else 0.0
    if kind == "uniform":
        low = block.number(way[0], least=0.0)
        high = block.number(way[1], above=low)
        spread = (high / 2 - low / 2) / (high / 2 + low / 2)  # halves: a sum may be past all numbers
        return high / 2 + low / 2, spread**2 / 3.0, spread
    bounds = {"weibull": {"most": families.WEIBULL_SHAPE}, "pareto": {"least": families.PARETO_SHAPE}}
    first = block.number(way[0], above=0.0, **bounds.get(kind, {}))
    second = block.number(way[1], above=first if kind == "lognormal" else 0.0)
    mean, scv = _of_own(kind, first, second)
    if not 0.0 < mean < math.inf:
        raise InputError(block.path, f"must have a finite mean > 0 with its {way[0]} and {way[1]}", mean)
    if scv > MAX_SCV and kind != "pareto":
        raise InputError(block.path, f"must have an scv <= {MAX_SCV:g} with its {way[0]} and {way[1]}", scv)
    return mean, scv, first if kind in FORMED else 0.0


def _of_own(kind: str, first: float, second: float) -> tuple[float, float]:
    """Return the mean and the scv of a law by its own two parameters."""
    if kind == "gamma":
        return first * second, 1.0 / first
    if kind == "weibull":
        scv = families.weibull_scv(first)
        return second * math.gamma(1.0 + 1.0 / first) if scv <= MAX_SCV else second, scv
    if kind == "pareto":
        return second * (first / (first - 1.0)), families.pareto_scv(first)
    # Quantile z of a lognormal is median exp(sigma z); its mean is median exp(sigma^2/2), its scv exp(sigma^2) - 1.
    sigma = math.log(second / first) / Z99
    return first * math.exp(min(sigma**2 / 2, 700.0)), math.expm1(min(sigma**2, 700.0))


def _scv(block: Block, kind: str) -> float:
    if kind == "weibull":
        return block.number("scv", least=families.WEIBULL_SCV, most=MAX_SCV)
    return block.number(
        "scv", above=0.0, most={"uniform": families.UNIFORM_SCV, "pareto": families.PARETO_SCV}.get(kind, MAX_SCV)
    )


def _linear(block: Block, unit: str) -> Law:
    base_key = f"base_{unit}"
    names = [key for key in block.values if key not in ("law", base_key)]
    if not names:
        raise InputError(block.path, f"must name a trace column beside {base_key}")
    base = block.number(base_key, 0.0, least=0.0)
    columns = {name: block.number(name, least=0.0) for name in names}
    if unit == "s" and base == 0.0 and not any(columns.values()):
        raise InputError(block.path, "must have a number > 0 among its terms")
    return Law("linear", math.nan, math.nan, base=base, columns=columns, block=block.values)
