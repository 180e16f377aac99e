"""Defines the distributions ("laws") of times, sizes and numbers of tokens, and reads them from JSON.

A law is written in a scenario as an object `{"law": NAME, ...}` whose other keys carry the unit: `_s`, `_bytes` or
`_tokens`. `LAWS` lists each law with its parameters and its quantiles; a new one needs a function for its quantiles and
an entry there. Too few parameters are an error, and so are too many.

`scv` is the squared coefficient of variation, variance / mean². It is at most 100: the moments of a law with a heavier
tail depend on draws so rare that no run of a sensible length contains them. A Pareto given by its `shape` is the
exception. Its scv is infinite for shapes up to 2, and a run contains only what lies below the quantile of 1 - 2^-54,
where the simulator's tables end: such a table lacks 2^(-54 (1 - 2/shape)) of the second moment (1e-4 at shape 2.65,
17 % at 2.1) and 2^(-54 (1 - 1/shape)) of the mean, which scaling the table to the mean spreads over all quantiles (4e-6
at shape 1.5). Hence `PARETO_SCV` (shape 2.73), up to which the second moment is the law's to 1e-4, and `PARETO_SHAPE`,
from which on the mean and the quantiles are the law's.

Quantiles are computed from both ends (`Law.tails`), because 1 - v is exactly 1 in float64 for the v of a far tail. The
formulas are those of Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, 1994-95.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.quantities import number, parse_duration
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Schema, absent, chosen_by, given, nullable, quantity
from shadowsim.scenario.table_files import listing, read_table, resolve, sizes

_UNITS = {"s": "seconds", "bytes": "bytes", "tokens": "tokens"}
_PROBABILITY = re.compile(r"^(0(\.[0-9]*)?|1(\.0*)?|\.[0-9]+|[0-9](\.[0-9]*)?[eE]-[1-9][0-9]{0,2})$")
_TIMES = "a number of seconds, a time such as 20ms"
Tails = tuple[Floats, Floats]
Points = tuple[Floats, Floats]
Moments = tuple[float, float, float]  # mean, scv, form

MAX_SCV = 100.0
UNIFORM_SCV = 1.0 / 3.0  # that of a law from 0 on
PARETO_SCV = 0.5
PARETO_SHAPE = 1.5
WEIBULL_SCV = 1e-6  # below, the difference of two log gammas has lost too many digits
WEIBULL_SHAPE = 1000.0  # likewise: scv 1.6e-6
Z99 = 2.3263478740408408  # the standard normal's 0.99 quantile


@dataclass(frozen=True, slots=True)
class Law:
    """A law of a non-negative quantity, made by `parse_law`.

    Attributes
    ----------
    kind : str
        A name in `LAWS`.
    mean : float
        In the law's unit; NaN for linear, whose mean depends on the trace.
    scv : float
        Variance / mean²; 0 for a mean of 0, infinite for a Pareto of shape <= 2, NaN for linear.
    form : float
        Weibull and Pareto: the shape. Uniform: half the width over the mean.
    base : float
        Linear: the part that does not depend on the trace.
    columns : mapping of str to float
        Linear: units per unit of a trace column.
    block : object
        The JSON value that the law was made from.
    points : (ndarray of float64, ndarray of float64), each of shape (n,)
        Empirical: probabilities, strictly rising, and the quantiles there, never falling; n >= 2.
    """

    kind: str
    # The block says which law it is; a NaN would make a linear law differ from its own copy.
    mean: float = field(compare=False)
    scv: float = field(compare=False)
    form: float = field(default=0.0, compare=False)
    base: float = 0.0
    columns: Mapping[str, float] = field(default_factory=dict)
    block: object = None
    points: Points | None = field(default=None, compare=False, repr=False)

    def tails(self, v: Floats) -> Tails:
        """Return quantiles counted from either end.

        Parameters
        ----------
        v : ndarray of float64, shape (n,)
            Probabilities in (0, 0.5].

        Returns
        -------
        lower : ndarray of float64, shape (n,)
            The quantity is below these values with probability v.
        upper : ndarray of float64, shape (n,)
            The quantity is above these values with probability v, to full precision for any v.

        Raises
        ------
        ValueError
            For linear, which has a distribution only together with a trace.
        """
        return LAWS[self.kind].tails(self, v)

    def values(self, columns: Mapping[str, Floats]) -> Floats:
        """Return base + sum of coefficient x column of a linear law, added in the order of the law's columns."""
        total = np.full(len(columns[next(iter(self.columns))]), self.base)
        for name, coefficient in self.columns.items():
            total += coefficient * columns[name]
        return total


@dataclass(frozen=True, slots=True)
class LawFamily:
    """The laws of one name.

    Attributes
    ----------
    says : str
        The law in words.
    parse : callable
        Returns the law of a JSON object, given its unit ("s", "bytes" or "tokens") and the folder that its paths are
        relative to.
    tails : callable
        Returns a law's quantiles as `Law.tails` does.
    form : callable
        Returns the schema of such an object, given its unit.
    """

    says: str
    parse: Callable[[Block, str, Path], Law]
    tails: Callable[[Law, Floats], Tails]
    form: Callable[[str], Schema]


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """Parameters, all > 0 if no bounds are given, that together determine a law.

    Attributes
    ----------
    keys : tuple of str
        One or two keys in a scenario file; `{u}` is the unit.
    moments : callable
        Returns mean, scv and form for the values of the keys.
    bounds : tuple of mapping
        What `Block.number` checks for each key, from the first on.
    rising : bool
        Whether the second value must be greater than the first.
    max_scv : float
        Greatest scv that the values may lead to.
    """

    keys: tuple[str, ...]
    moments: Callable[..., Moments]
    bounds: tuple[Mapping[str, float], ...] = ()
    rising: bool = False
    max_scv: float = MAX_SCV

    def bounds_of(self, i: int) -> Mapping[str, float]:
        """Return what `Block.number` checks for key number `i`."""
        return self.bounds[i] if i < len(self.bounds) else {"above": 0.0}


def law_form(unit: str) -> Callable[[], Schema]:
    """Return the form of a law in seconds ("s"), "bytes" or "tokens", which the whole schema defines once."""

    def form() -> Schema:
        return {"$ref": f"#/$defs/law_{unit}"}

    return form


def law_schema(unit: str) -> Schema:
    """Return the schema of a law in a unit."""
    number = quantity(f"mean_{unit}", **_mean_bound(unit))
    alone = number["anyOf"] if unit == "s" else [number, {"type": "string", "minLength": 1}]
    kinds = {name: (law.says, law.form(unit)) for name, law in LAWS.items()}
    return {
        "description": (
            "A distribution: an object with its `law`, a number for one that does not vary"
            + ("." if unit == "s" else ", or the name of a trace's column.")
        ),
        "anyOf": [*alone, chosen_by("law", "The family of distributions.", kinds)],
        "examples": [
            *([{"law": "lognormal", "p50_s": 0.018, "p99_s": 0.06}, "20ms"] if unit == "s" else []),
            {"law": "gamma", f"mean_{unit}": 0.02 if unit == "s" else 500, "scv": 1.0},
        ],
    }


def parse_law(value: object, path: str, unit: str, base_dir: Path | None = None) -> Law:
    """Return the law that a JSON value describes.

    Parameters
    ----------
    value : dict, number or str
        An object as the module describes it. A number is deterministic, and so is a text such as "20ms"; for bytes
        and tokens, a text is a trace column.
    path : str
        Where it stands, for errors.
    unit : {"s", "bytes", "tokens"}
        The suffix of its keys. A time must have a mean > 0; a size may always be 0.
    base_dir : Path, optional
        What the `path` of an empirical law is relative to; by default the working directory.

    Raises
    ------
    InputError
        When the value does not describe a law.
    """
    if unit != "s" and isinstance(value, str) and value:
        return Law("linear", math.nan, math.nan, columns={value: 1.0}, block=value)
    if isinstance(value, int | float):
        return Law("deterministic", number(value, path, **_mean_bound(unit)), 0.0, block=value)
    if unit == "s" and isinstance(value, str):
        return Law("deterministic", number(_duration_s(value, path), path, above=0.0), 0.0, block=value)
    if not isinstance(value, Mapping):
        allowed = _TIMES if unit == "s" else f"a number of {unit}, a trace column"
        raise InputError(path, f'must be {allowed} or an object {{"law": ...}}', value)
    block = Block.of(value, path)
    return LAWS[block.choice("law", None, tuple(LAWS))].parse(block, unit, base_dir or Path())


def _duration_s(text: str, path: str) -> float:
    try:
        return parse_duration(text, path)
    except InputError:
        raise InputError(path, f'must be {_TIMES} or an object {{"law": ...}}', text) from None


def _mean_bound(unit: str) -> dict[str, float]:
    return {"above": 0.0} if unit == "s" else {"least": 0.0}


def _given_keys(block: Block, ways: Sequence[tuple[str, ...]], unit: str, also: tuple[str, ...] = ()) -> int:
    """Return the number of the one set of keys that is given, in full and alone; `also` may be given beside it."""
    ways = [tuple(key.format(u=unit) for key in way) for way in ways]
    # scv is known to all, so that one too many is told from one misspelt.
    block.only(["law", "scv", *also, *(key for way in ways for key in way)])
    given = {key for key in block.values if block.has(key) and key not in ("law", *also)}
    for i, way in enumerate(ways):
        if given == set(way):
            return i
    taken = ", or ".join(" with ".join(way) for way in ways)
    fault = "over-determined" if any(given > set(way) for way in ways) else "not determined"
    raise InputError(block.path, f"is {fault}: {block.text('law')} takes {taken}", sorted(given))


def _by_parameters(says: str, tails: Callable[[Law, Floats], Tails], *sets: ParameterSet) -> LawFamily:
    """Return the family of laws that one of several sets of parameters determines."""

    def parse(block: Block, unit: str, base_dir: Path) -> Law:
        chosen = sets[_given_keys(block, [each.keys for each in sets], unit)]
        keys = [key.format(u=unit) for key in chosen.keys]
        values: list[float] = []
        for i, key in enumerate(keys):
            rising = {"above": values[0]} if i and chosen.rising else {}
            values.append(block.number(key, **(rising or chosen.bounds_of(i))))
        mean, scv, form = chosen.moments(*values)
        named = " and ".join(keys)
        if not 0.0 < mean < math.inf:
            raise InputError(block.path, f"must have a finite mean > 0 with its {named}", mean)
        if scv > chosen.max_scv:
            raise InputError(block.path, f"must have an scv <= {chosen.max_scv:g} with its {named}", scv)
        return Law(block.text("law"), mean, scv, form, block=block.values)

    def form_of(unit: str) -> Schema:
        ways = [
            {key.format(u=unit): quantity(key.format(u=unit), **each.bounds_of(i)) for i, key in enumerate(each.keys)}
            for each in sets
        ]
        return _ways(unit, ways)

    return LawFamily(says, parse, tails, form_of)


_PARAMETERS = {
    "mean": "The mean.",
    "scv": "Variance / mean².",
    "p50": "The median.",
    "p99": "The value below which 99 % lie; greater than the median.",
    "shape": "The shape.",
    "scale": "The scale.",
    "minimum": "The least value.",
    "low": "The least value.",
    "high": "The greatest value, above the least.",
}


def _ways(unit: str, ways: Sequence[Mapping[str, Schema]], also: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of a law that one of several sets of keys determines; `also` may stand beside each."""
    every = {key: schema for way in ways for key, schema in way.items()} | dict(also or {})
    said = {
        key: {"description": _PARAMETERS[stem]} if (stem := key.removesuffix(f"_{unit}")) in _PARAMETERS else {}
        for key in [*every, "scv"]
    }
    properties = {key: {**said[key], **nullable(schema)} for key, schema in every.items()}
    properties.setdefault("scv", {"type": "null"})
    return {
        "properties": {"law": {"type": "string"}, **properties},
        "additionalProperties": False,
        "anyOf": [_alone(way, [key for other in ways for key in other if key not in way]) for way in ways],
    }


def _alone(way: Mapping[str, Schema], others: Sequence[str]) -> Schema:
    both = given(*way)
    return {**both, "properties": {**absent(*others)["properties"], **dict(way)}}


def _mean_and_scv(form: Callable[[float], float] = lambda scv: 0.0, **scv_bounds: float) -> ParameterSet:
    bounds = {"most": MAX_SCV, **({} if "least" in scv_bounds else {"above": 0.0}), **scv_bounds}
    return ParameterSet(("mean_{u}", "scv"), lambda mean, scv: (mean, scv, form(scv)), ({"above": 0.0}, bounds))


# ---- deterministic, exponential ----


def _deterministic(block: Block, unit: str, base_dir: Path) -> Law:
    _given_keys(block, [("mean_{u}",)], unit)
    return Law("deterministic", block.number(f"mean_{unit}", **_mean_bound(unit)), 0.0, block=block.values)


def _deterministic_tails(law: Law, v: Floats) -> Tails:
    return np.full(len(v), law.mean), np.full(len(v), law.mean)


def _exponential_tails(law: Law, v: Floats) -> Tails:
    return -law.mean * np.log1p(-v), -law.mean * np.log(v)


# ---- lognormal ----


def _lognormal_tails(law: Law, v: Floats) -> Tails:
    """Return both tails, from normal quantiles (Wichura, 1988, algorithm AS 241): off by 7e-16 of z at most.

    The standard library's quantiles are as exact as scipy.special's `ndtri`, and importing scipy takes longer than
    computing all of them, which would delay a first result.
    """
    z = _normal_quantiles(v.tobytes())
    variance = math.log1p(law.scv)
    median = law.mean * math.exp(-variance / 2)
    factor = np.exp(math.sqrt(variance) * -z)
    return median / factor, median * factor


@lru_cache(maxsize=4)  # tables of all laws are of the same probabilities, and made for every run
def _normal_quantiles(v: bytes) -> Floats:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(p) for p in np.frombuffer(v).tolist()])


def _lognormal_moments(p50: float, p99: float) -> Moments:
    # Quantile z of a lognormal is median exp(sigma z); its mean is median exp(sigma^2/2), its scv exp(sigma^2) - 1.
    sigma = math.log(p99 / p50) / Z99
    return p50 * math.exp(min(sigma**2 / 2, 700.0)), math.expm1(min(sigma**2, 700.0)), 0.0


# ---- gamma ----


def _gamma_tails(law: Law, v: Floats) -> Tails:
    from scipy.special import gammainccinv, gammaincinv  # type: ignore[import-untyped]

    scale = law.mean * law.scv
    return scale * gammaincinv(1.0 / law.scv, v), scale * gammainccinv(1.0 / law.scv, v)


def _gamma_moments(shape: float, scale: float) -> Moments:
    return shape * scale, 1.0 / shape, 0.0


# ---- weibull: a power of an exponential ----


def _weibull_tails(law: Law, v: Floats) -> Tails:
    shape = law.form
    scale = law.mean / math.gamma(1.0 + 1.0 / shape)
    return scale * (-np.log1p(-v)) ** (1.0 / shape), scale * (-np.log(v)) ** (1.0 / shape)


def _weibull_moments(shape: float, scale: float) -> Moments:
    scv = weibull_scv(shape)
    return scale * math.gamma(1.0 + 1.0 / shape) if scv <= MAX_SCV else scale, scv, shape


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


# ---- pareto, of type I: from its minimum on, P(X > x) = (minimum / x)^shape ----


def _pareto_tails(law: Law, v: Floats) -> Tails:
    shape = law.form
    minimum = law.mean * ((shape - 1.0) / shape)
    return minimum * np.exp(-np.log1p(-v) / shape), minimum * np.exp(-np.log(v) / shape)


def _pareto_moments(shape: float, minimum: float) -> Moments:
    scv = 1.0 / (shape * (shape - 2.0)) if shape > 2.0 else math.inf
    return minimum * (shape / (shape - 1.0)), scv, shape


def _pareto_shape(scv: float) -> float:
    return 1.0 + math.sqrt(1.0 + 1.0 / scv)  # > 2


# ---- uniform: from mean (1 - spread) to mean (1 + spread) ----


def _uniform_tails(law: Law, v: Floats) -> Tails:
    mean, spread = law.mean, law.form
    width = 2.0 * spread * mean
    return mean * (1.0 - spread) + width * v, mean * (1.0 + spread) - width * v


def _uniform_moments(low: float, high: float) -> Moments:
    spread = (high / 2 - low / 2) / (high / 2 + low / 2)  # halves: a sum may be past all numbers
    return high / 2 + low / 2, spread**2 / 3.0, spread


def _uniform_spread(scv: float) -> float:
    return min(math.sqrt(3.0 * scv), 1.0)


# ---- empirical: straight lines between points of the quantile function, flat outside ----


def _empirical(block: Block, unit: str, base_dir: Path) -> Law:
    """Return the law of `quantiles_s`, a quantile per probability, or of a sample in the file `path`.

    The quantile function of a sample joins its order statistics x_(i) at (i-1)/(n-1).
    """
    in_file = _given_keys(block, [("quantiles_{u}",), ("path",)], unit, also=("column",)) == 1
    points = _sample_points(block, base_dir) if in_file else _quantile_points(block, unit)
    mean, scv = _moments_of_points(*points)
    if unit == "s" and mean <= 0.0:
        raise InputError(block.path, "must have a mean > 0", mean)
    return Law("empirical", mean, scv, block=block.values, points=points)


def _quantile_points(block: Block, unit: str) -> Points:
    """Return the points of `quantiles_s` (or `_bytes`)."""
    if block.has("column"):
        raise InputError(block.at("column"), "belongs to a path", block.values["column"])
    quantiles = block.block(f"quantiles_{unit}")
    points = []
    for text in quantiles.values:
        if not _PROBABILITY.match(text):
            raise InputError(quantiles.at(text), "must have a probability from 0 to 1 as its key", text)
        points.append((float(text), quantiles.number(text, least=0.0)))
    for (p, x), (q, y) in pairwise(points):
        if not (p < q and x <= y):
            rule = "must rise: probabilities strictly, values never falling"
            raise InputError(quantiles.path, rule, dict(quantiles.values))
    if len(points) < 2:
        raise InputError(quantiles.path, "must have at least two points", dict(quantiles.values))
    return np.array([p for p, _ in points]), np.array([x for _, x in points])


def _sample_points(block: Block, base_dir: Path) -> Points:
    """Return the order statistics of a file's column."""
    file = resolve(block.text("path"), base_dir)
    table = read_table(file, block.at("path"))
    columns = {name: sizes(table[name]) for name in table.columns}
    numeric = [name for name, (values, _) in columns.items() if values is not None]
    name = block.text("column") if block.has("column") else numeric[0] if len(numeric) == 1 else None
    if name not in columns:
        raise InputError(block.path, f"needs the column to use of {file}; it has {listing(table.columns)}", name)
    values, flaw = columns[name]
    if values is None or flaw is not None:
        row, value = flaw or (1, None)
        raise InputError(
            block.path, f"needs finite numbers >= 0 in {file} column {name}, which fails in row {row}", value
        )
    if len(values) < 2:
        raise InputError(block.at("path"), f"needs at least two rows in {file}", len(values))
    return np.arange(len(values)) / (len(values) - 1), np.sort(values)


def _moments_of_points(p: Floats, x: Floats) -> tuple[float, float]:
    """Return the exact mean and variance / mean² (0 for a mean of 0)."""
    # The flat ends become points.
    p_all, x_all = np.concatenate(([0.0], p, [1.0])), np.concatenate((x[:1], x, x[-1:]))
    width = np.diff(p_all)
    mean = math.fsum(width * (x_all[:-1] + x_all[1:]) / 2)
    # Deviations first: the difference of two large moments would lose a small variance.
    low, high = x_all[:-1] - mean, x_all[1:] - mean
    variance = math.fsum(width * (low * low + low * high + high * high) / 3)
    return mean, variance / mean**2 if mean > 0.0 else 0.0


def _empirical_tails(law: Law, v: Floats) -> Tails:
    assert law.points is not None
    p, x = law.points
    # Flipped, the upper tail is a lower tail; 1 - p is exact for p >= 0.5, and no worse than p itself below.
    return np.interp(v, p, x), np.interp(v, (1.0 - p)[::-1], x[::-1])


def _empirical_form(unit: str) -> Schema:
    quantiles = {
        "description": "A quantile per probability, as text; both rise, and the law is a straight line between them.",
        "type": "object",
        "propertyNames": {"pattern": _PROBABILITY.pattern},
        "additionalProperties": {"type": "number", "minimum": 0.0},
        "minProperties": 2,
    }
    text = {"type": "string", "minLength": 1}
    path = {"description": "A file with a sample: a table, relative to the scenario.", **text}
    column = {"description": "The column of that table; needed where it has several.", **text}
    own = _ways(unit, [{f"quantiles_{unit}": quantiles}, {"path": path}], {"column": column})
    own["anyOf"][0]["properties"]["column"] = {"type": "null"}
    return own


# ---- linear ----


def _linear(block: Block, unit: str, base_dir: Path) -> Law:
    """Return the law with `base_s` (default 0) and, for each trace column that is named, units per unit of it."""
    base_key = f"base_{unit}"
    names = [key for key in block.values if key not in ("law", base_key)]
    if not names:
        raise InputError(block.path, f"must name a trace column beside {base_key}")
    base = block.number(base_key, 0.0, least=0.0)
    columns = {name: block.number(name, least=0.0) for name in names}
    if unit == "s" and base == 0.0 and not any(columns.values()):
        raise InputError(block.path, "must have a number > 0 among its terms")
    return Law("linear", math.nan, math.nan, base=base, columns=columns, block=block.values)


def _linear_form(unit: str) -> Schema:
    base, column = f"base_{unit}", quantity("", least=0.0)
    return {
        "properties": {
            "law": {"type": "string"},
            base: {"description": "What does not depend on the trace.", "default": 0.0}
            | nullable(quantity(base, least=0.0)),
        },
        "patternProperties": {f"^(?!{base}$)(?!.*per_s$).*_s$": quantity("a_s", least=0.0)},
        "additionalProperties": {"description": f"A trace's column: {_UNITS[unit]} per unit of it.", **column},
        "minProperties": 2,
        "if": {"required": [base]},
        "then": {"minProperties": 3},
    }


def _linear_tails(law: Law, v: Floats) -> Tails:
    raise ValueError("a linear law has no quantiles without a trace")


LAWS: Mapping[str, LawFamily] = MappingProxyType(
    {
        "deterministic": LawFamily(
            "always the mean",
            _deterministic,
            _deterministic_tails,
            lambda unit: _ways(unit, [{f"mean_{unit}": quantity(f"mean_{unit}", **_mean_bound(unit))}]),
        ),
        "exponential": _by_parameters(
            "without memory; scv 1", _exponential_tails, ParameterSet(("mean_{u}",), lambda mean: (mean, 1.0, 0.0))
        ),
        "lognormal": _by_parameters(
            "a lognormal, as many service times are",
            _lognormal_tails,
            _mean_and_scv(),
            ParameterSet(("p50_{u}", "p99_{u}"), _lognormal_moments, rising=True),
        ),
        "gamma": _by_parameters(
            "a gamma distribution",
            _gamma_tails,
            _mean_and_scv(),
            ParameterSet(("shape", "scale_{u}"), _gamma_moments),
        ),
        "weibull": _by_parameters(
            "a power of an exponential",
            _weibull_tails,
            _mean_and_scv(weibull_shape, least=WEIBULL_SCV),
            ParameterSet(("shape", "scale_{u}"), _weibull_moments, ({"above": 0.0, "most": WEIBULL_SHAPE},)),
        ),
        "pareto": _by_parameters(
            "a heavy tail from the minimum on",
            _pareto_tails,
            _mean_and_scv(_pareto_shape, most=PARETO_SCV),
            ParameterSet(("shape", "minimum_{u}"), _pareto_moments, ({"least": PARETO_SHAPE},), max_scv=math.inf),
        ),
        "uniform": _by_parameters(
            "evenly between two values",
            _uniform_tails,
            _mean_and_scv(_uniform_spread, most=UNIFORM_SCV),
            ParameterSet(("low_{u}", "high_{u}"), _uniform_moments, ({"least": 0.0},), rising=True),
        ),
        "empirical": LawFamily(
            "measured: straight lines between quantiles, or a sample in a file",
            _empirical,
            _empirical_tails,
            _empirical_form,
        ),
        "linear": LawFamily(
            "a base, and so much for each unit of columns of the trace", _linear, _linear_tails, _linear_form
        ),
    }
)
