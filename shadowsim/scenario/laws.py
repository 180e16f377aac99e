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

Quantiles of the laws that have a formula, from both ends, and their moments.

Each is given by its mean and one number for its form: `scv` is the squared coefficient of variation; a Weibull's and a
Pareto's `shape` is the usual exponent; a uniform law's `spread` is half its width over its mean, so that its ends are
mean (1 - spread) and mean (1 + spread).

`v` are probabilities in (0, 0.5], shape (n,); `..._tails` returns what the quantity is below, and above, with
probability v. Formulas are those of Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, 1994-95.

A table of quantiles that begins at v = 2^-54, as a simulation has it, lacks 2^(-54 (1 - 2/shape)) of a Pareto's second
moment: 1e-4 at shape 2.65, 17 % at 2.1. It lacks 2^(-54 (1 - 1/shape)) of its mean, which scaling the table to the
mean spreads over all quantiles: 4e-6 at shape 1.5. Hence the bounds `PARETO_SCV` (shape 2.73), within which the second
moment is the law's to 1e-4, and `PARETO_SHAPE`, from which on the mean and the quantiles are the law's all the same.

Empirical laws: a quantile function through given points, or through a sample's order statistics.

It is a straight line between its points and flat outside. The points are probabilities p, strictly rising, and the
quantiles x there, never falling, each of shape (n,) with n >= 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block, number
from shadowsim.scenario.traces import listing, read_table, resolve, sizes

Tails = tuple[Floats, Floats]

UNIFORM_SCV = 1.0 / 3.0  # from 0 on
PARETO_SCV = 0.5
PARETO_SHAPE = 1.5
WEIBULL_SCV = 1e-6  # below, the difference of two log gammas has lost too many digits
WEIBULL_SHAPE = 1000.0  # likewise: scv 1.6e-6


def exponential_tails(mean: float, v: Floats) -> Tails:
    """Return both tails."""
    return -mean * np.log1p(-v), -mean * np.log(v)


def lognormal_tails(mean: float, scv: float, v: Floats) -> Tails:
    """Return both tails, from normal quantiles (Wichura, 1988, algorithm AS 241): off by 7e-16 of z at most.

    The standard library's are as exact as scipy.special's `ndtri`, which takes longer to import than all of them to
    compute; a first result should not wait for it.
    """
    inverse = NormalDist().inv_cdf
    z = np.array([inverse(p) for p in v.tolist()])
    variance = math.log1p(scv)
    median = mean * math.exp(-variance / 2)
    factor = np.exp(math.sqrt(variance) * -z)
    return median / factor, median * factor


def gamma_tails(mean: float, scv: float, v: Floats) -> Tails:
    """Return both tails."""
    from scipy.special import gammainccinv, gammaincinv  # type: ignore[import-untyped]

    scale = mean * scv
    return scale * gammaincinv(1.0 / scv, v), scale * gammainccinv(1.0 / scv, v)


def weibull_tails(mean: float, shape: float, v: Floats) -> Tails:
    """Return both tails: powers of an exponential's."""
    scale = mean / math.gamma(1.0 + 1.0 / shape)
    lower, upper = exponential_tails(1.0, v)
    return scale * lower ** (1.0 / shape), scale * upper ** (1.0 / shape)


def weibull_scv(shape: float) -> float:
    """Return gamma(1 + 2/shape) / gamma(1 + 1/shape)² - 1; infinite where that is no float64."""
    logarithm = math.lgamma(1.0 + 2.0 / shape) - 2.0 * math.lgamma(1.0 + 1.0 / shape)
    return math.expm1(logarithm) if logarithm < 700.0 else math.inf


def weibull_shape(scv: float) -> float:
    """Return the shape for an scv from `WEIBULL_SCV` to 100, to ten digits.

    The scv falls with the shape (from 2e5 at 0.1 to 4e-7 at 2000); its logarithm is taken for a root, by bracketing.
    Only ten digits are kept: the last ones of log gamma differ between machines, and a table of quantiles must not.
    """
    from scipy.optimize import brentq  # type: ignore[import-untyped]

    wanted = math.log1p(scv)

    def excess(inverse: float) -> float:
        return math.lgamma(1.0 + 2.0 * inverse) - 2.0 * math.lgamma(1.0 + inverse) - wanted

    return float(f"{1.0 / brentq(excess, 1.0 / 2000.0, 10.0, xtol=1e-15, rtol=1e-14):.10g}")


def pareto_tails(mean: float, shape: float, v: Floats) -> Tails:
    """Return both tails of the law of type I: from its minimum on, P(X > x) = (minimum / x)^shape."""
    minimum = mean * ((shape - 1.0) / shape)
    return minimum * np.exp(-np.log1p(-v) / shape), minimum * np.exp(-np.log(v) / shape)


def pareto_scv(shape: float) -> float:
    """Return 1 / (shape (shape - 2)); infinite up to a shape of 2."""
    return 1.0 / (shape * (shape - 2.0)) if shape > 2.0 else math.inf


def pareto_shape(scv: float) -> float:
    """Return the shape for an scv > 0, always > 2."""
    return 1.0 + math.sqrt(1.0 + 1.0 / scv)


def uniform_tails(mean: float, spread: float, v: Floats) -> Tails:
    """Return both tails."""
    width = 2.0 * spread * mean
    return mean * (1.0 - spread) + width * v, mean * (1.0 + spread) - width * v


def uniform_spread(scv: float) -> float:
    """Return half the width over the mean, for an scv up to 1/3."""
    return min(math.sqrt(3.0 * scv), 1.0)


Points = tuple[Floats, Floats]


def quantiles(block: Block, unit: str) -> Points:
    """Return the points of `quantiles_s` (or `_bytes`)."""
    key = f"quantiles_{unit}"
    if block.has("column"):
        raise InputError(block.at("column"), "belongs to a path", block.values["column"])
    given = block.block(key)
    points = []
    for text in given.values:
        try:
            p = float(text)
        except ValueError:
            p = math.nan
        if not 0.0 <= p <= 1.0:
            raise InputError(given.at(text), "must have a probability from 0 to 1 as its key", text)
        points.append((p, given.number(text, least=0.0)))
    for (p, x), (q, y) in pairwise(points):
        if not (p < q and x <= y):
            raise InputError(given.path, "must rise: probabilities strictly, values never falling", dict(given.values))
    if len(points) < 2:
        raise InputError(given.path, "must have at least two points", dict(given.values))
    return np.array([p for p, _ in points]), np.array([x for _, x in points])


def sample(block: Block, base_dir: Path) -> Points:
    """Return the order statistics of a file's column."""
    file = resolve(block.text("path"), base_dir)
    table = read_table(file, block.at("path"))
    found = {name: sizes(table[name]) for name in table.columns}
    numeric = [name for name, (values, _) in found.items() if values is not None]
    name = block.text("column") if block.has("column") else numeric[0] if len(numeric) == 1 else None
    if name not in found:
        raise InputError(block.path, f"needs the column to use of {file}; it has {listing(table.columns)}", name)
    values, flaw = found[name]
    if values is None or flaw is not None:
        row, value = flaw or (1, None)
        raise InputError(
            block.path, f"needs finite numbers >= 0 in {file} column {name}, which fails in row {row}", value
        )
    if len(values) < 2:
        raise InputError(block.at("path"), f"needs at least two rows in {file}", len(values))
    return np.arange(len(values)) / (len(values) - 1), np.sort(values)


def moments(p: Floats, x: Floats) -> tuple[float, float]:
    """Return the exact mean and variance / mean² (0 for a mean of 0)."""
    # Flat ends, written as points of their own.
    p_all, x_all = np.concatenate(([0.0], p, [1.0])), np.concatenate((x[:1], x, x[-1:]))
    width = np.diff(p_all)
    mean = math.fsum(width * (x_all[:-1] + x_all[1:]) / 2)
    # Deviations first: the difference of two large moments would lose a small variance.
    low, high = x_all[:-1] - mean, x_all[1:] - mean
    variance = math.fsum(width * (low * low + low * high + high * high) / 3)
    return mean, variance / mean**2 if mean > 0.0 else 0.0


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
FORMED = MappingProxyType({"weibull": weibull_tails, "pareto": pareto_tails, "uniform": uniform_tails})
FORMS = MappingProxyType({"weibull": weibull_shape, "pareto": pareto_shape, "uniform": uniform_spread})


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
            return exponential_tails(self.mean, v)
        if self.kind == "lognormal":
            return lognormal_tails(self.mean, self.scv, v)
        if self.kind == "gamma":
            return gamma_tails(self.mean, self.scv, v)
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
    bounds = {"weibull": {"most": WEIBULL_SHAPE}, "pareto": {"least": PARETO_SHAPE}}
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
        scv = weibull_scv(first)
        return second * math.gamma(1.0 + 1.0 / first) if scv <= MAX_SCV else second, scv
    if kind == "pareto":
        return second * (first / (first - 1.0)), pareto_scv(first)
    # Quantile z of a lognormal is median exp(sigma z); its mean is median exp(sigma^2/2), its scv exp(sigma^2) - 1.
    sigma = math.log(second / first) / Z99
    return first * math.exp(min(sigma**2 / 2, 700.0)), math.expm1(min(sigma**2, 700.0))


def _scv(block: Block, kind: str) -> float:
    if kind == "weibull":
        return block.number("scv", least=WEIBULL_SCV, most=MAX_SCV)
    return block.number("scv", above=0.0, most={"uniform": UNIFORM_SCV, "pareto": PARETO_SCV}.get(kind, MAX_SCV))


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
