"""Quantiles of the laws that have a formula, from both ends, and their moments.

Each is given by its mean and one number for its form: `scv` is the squared coefficient of variation; a Weibull's and a
Pareto's `shape` is the usual exponent; a uniform law's `spread` is half its width over its mean, so that its ends are
mean (1 - spread) and mean (1 + spread).

`v` are probabilities in (0, 0.5], shape (n,); `..._tails` returns what the quantity is below, and above, with
probability v. Formulas are those of Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, 1994-95.

A table of quantiles that begins at v = 2^-54, as a simulation has it, lacks 2^(-54 (1 - 2/shape)) of a Pareto's second
moment: 1e-4 at shape 2.65, 17 % at 2.1. It lacks 2^(-54 (1 - 1/shape)) of its mean, which scaling the table to the
mean spreads over all quantiles: 4e-6 at shape 1.5. Hence the bounds `PARETO_SCV` (shape 2.73), within which the second
moment is the law's to 1e-4, and `PARETO_SHAPE`, from which on the mean and the quantiles are the law's all the same.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
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
