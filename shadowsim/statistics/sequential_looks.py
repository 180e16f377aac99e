"""Computes the bounds of group-sequential tests, which are looked at several times while they run.

A test at 5 % every day of a week that stops at the first success is wrong in far more than 5 % of the weeks in which
there is no effect. A group-sequential test plans its looks: a spending function gives the part of the level that may be
used up to each look, and the bound of a look is chosen such that exactly this part is spent (Lan and DeMets, 1983). An
interval with a look's bound in place of 1.96 covers at all looks together (repeated confidence intervals, Jennison and
Turnbull, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.errors import InputError, did_you_mean

SPENDING = ("obrien-fleming", "pocock")
MOST_LOOKS = 100
_FAR = 38.0  # beyond it the normal tail is 0 in double precision
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)  # per standard deviation of a step: an error of 1e-10


def spent(spending: str, fraction: float, alpha: float) -> float:
    """Return the part of the level that may be spent up to a fraction of the information.

    O'Brien and Fleming's type spends 4 (1 - Phi(z(1 - alpha/4) / sqrt(t))): little early, so that the last bound is
    close to that of a single test. Pocock's spends alpha ln(1 + (e - 1) t), nearly evenly (Lan and DeMets, 1983,
    section 3).

    Raises
    ------
    InputError
        When `spending` is neither "obrien-fleming" nor "pocock", or `alpha` is not between 0 and 1.
    """
    if spending not in SPENDING:
        raise InputError(
            "spending", f"must be one of {', '.join(SPENDING)}", spending, hint=did_you_mean(spending, SPENDING)
        )
    if not 0.0 < alpha < 1.0:
        raise InputError("alpha", "must be > 0 and < 1", alpha)
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1.0) * fraction)
    return 4.0 * float(ndtr(ndtri(alpha / 4.0) / math.sqrt(fraction)))


def bounds(looks: int, alpha: float = 0.05, spending: str = "obrien-fleming") -> Floats:
    """Return the two-sided bounds of |z| at equally spaced looks.

    Parameters
    ----------
    looks : int
        Number of planned looks, 1 to 100.
    alpha : float
        Level of all looks together.
    spending : str
        "obrien-fleming" or "pocock".

    Returns
    -------
    ndarray of float64, shape (looks,)
        Infinite where the level to spend is below double precision.

    Notes
    -----
    Numerical integration carries the density of the score process between the bounds from look to look (Armitage,
    McPherson and Rowe, 1969; Jennison and Turnbull, 2000, chapter 19).
    """
    from scipy.optimize import brentq  # type: ignore[import-untyped]  # takes half a second: only when needed

    if not isinstance(looks, int) or not 1 <= looks <= MOST_LOOKS:
        raise InputError("looks", f"must be an integer from 1 to {MOST_LOOKS}", looks)
    goal = np.diff([0.0, *(spent(spending, k / looks, alpha) for k in range(1, looks + 1))])
    walk, z_bounds = _StoppedWalk(), []
    for k in range(looks):
        scale = math.sqrt((k + 1) / looks)

        def excess(z: float, scale: float = scale, goal: float = goal[k]) -> float:
            return walk.leaving(z * scale, 1.0 / looks) - goal

        z = float(brentq(excess, 0.0, _FAR, xtol=1e-10)) if excess(_FAR) < 0.0 < goal[k] else math.inf
        z_bounds.append(z)
        walk.step(min(z, _FAR) * scale, 1.0 / looks)
    return np.array(z_bounds)


def exit_probabilities(bounds: Sequence[float] | Floats) -> Floats:
    """Return the probability to pass the |z| bounds for the first time at each of equally spaced looks, without effect.

    Parameters
    ----------
    bounds : sequence of float, shape (looks,)

    Returns
    -------
    ndarray of float64, shape (looks,)
    """
    z = np.asarray(bounds, np.float64)
    walk, probabilities = _StoppedWalk(), []
    for k in range(z.size):
        bound = min(float(z[k]), _FAR) * math.sqrt((k + 1) / z.size)
        probabilities.append(walk.leaving(bound, 1.0 / z.size))
        walk.step(bound, 1.0 / z.size)
    return np.array(probabilities)


class _StoppedWalk:
    """Brownian motion that stops at bounds: the distribution of the position where it has not stopped."""

    def __init__(self) -> None:
        self.at: Floats = np.zeros(1)
        self.mass: Floats = np.ones(1)

    def leaving(self, bound: float, time: float) -> float:
        """Return the probability to be outside the bounds after a time."""
        sd = math.sqrt(time)
        return float(self.mass @ (ndtr((-bound - self.at) / sd) + ndtr((self.at - bound) / sd)))

    def step(self, bound: float, time: float) -> None:
        """Move on by a time, and stop what is then outside the bounds."""
        sd = math.sqrt(time)
        edge = min(bound, float(np.abs(self.at).max()) + 9.0 * sd)
        panels = math.ceil(2.0 * edge / sd)
        half = edge / panels
        to = (np.linspace(half - edge, edge - half, panels)[:, None] + half * _NODES).ravel()
        density = np.exp(-0.5 * ((to[:, None] - self.at) / sd) ** 2) / (sd * math.sqrt(2.0 * math.pi))
        self.mass, self.at = half * np.tile(_WEIGHTS, panels) * (density @ self.mass), to
