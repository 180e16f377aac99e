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


def fractions_of(looks: int | Sequence[float]) -> Floats:
    """Return the part of the information that each planned look has, shape (looks,); equal steps for a number of looks.

    Raises
    ------
    InputError
        When there are not 1 to 100 looks, or fractions do not increase from above 0 to 1.
    """
    if isinstance(looks, int):
        if not 1 <= looks <= MOST_LOOKS:
            raise InputError("looks", f"must be an integer from 1 to {MOST_LOOKS}", looks)
        return np.arange(1, looks + 1) / looks
    try:
        fractions = np.asarray(looks, np.float64)
    except (TypeError, ValueError):
        raise InputError("looks", f"must be an integer from 1 to {MOST_LOOKS}, or so many fractions", looks) from None
    if fractions.ndim != 1 or not 1 <= fractions.size <= MOST_LOOKS:
        raise InputError("looks", f"must be an integer from 1 to {MOST_LOOKS}, or so many fractions", looks)
    if not (np.diff(fractions, prepend=0.0) > 0.0).all() or fractions[-1] != 1.0:
        raise InputError("looks", "must be fractions of the whole test that increase from above 0 to 1", looks)
    return fractions


def bounds(looks: int | Sequence[float], alpha: float = 0.05, spending: str = "obrien-fleming") -> Floats:
    """Return the two-sided bounds of |z| at planned looks.

    Parameters
    ----------
    looks : int or sequence of float
        Number of looks at equal distances, 1 to 100; or the part of the whole test that each has seen, up to 1.
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

    fractions = fractions_of(looks)
    goals = np.diff([spent(spending, t, alpha) for t in fractions.tolist()], prepend=0.0)
    walk, z_bounds = _StoppedWalk(fractions), []
    for fraction, goal in zip(fractions, goals, strict=True):
        scale = math.sqrt(fraction)

        def excess(z: float, scale: float = scale, goal: float = goal) -> float:
            return walk.leaving(z * scale) - goal

        z = float(brentq(excess, 0.0, _FAR, xtol=1e-10)) if excess(_FAR) < 0.0 < goal else math.inf
        z_bounds.append(z)
        walk.stop(min(z, _FAR) * scale)
    return np.array(z_bounds)


def exit_probabilities(bounds: Sequence[float] | Floats, looks: Sequence[float] | None = None) -> Floats:
    """Return the probability to pass the |z| bounds for the first time at each of the looks, without effect.

    Parameters
    ----------
    bounds : sequence of float, shape (looks,)
    looks : sequence of float, shape (looks,), optional
        The part of the whole test that each has seen; by default equal steps.

    Returns
    -------
    ndarray of float64, shape (looks,)
    """
    fractions = fractions_of(len(bounds) if looks is None else looks)
    walk, probabilities = _StoppedWalk(fractions), []
    for z, fraction in zip(bounds, fractions, strict=True):
        bound = min(float(z), _FAR) * math.sqrt(fraction)
        probabilities.append(walk.leaving(bound))
        walk.stop(bound)
    return np.array(probabilities)


class _StoppedWalk:
    """Brownian motion that stops at bounds: the distribution of the position where it has not stopped.

    Parameters
    ----------
    moments : ndarray of float64, shape (looks,)
        When it is looked at, ascending.
    """

    def __init__(self, moments: Floats) -> None:
        self._sds = np.sqrt(np.diff(moments, prepend=0.0)).tolist()
        self._at: Floats = np.zeros(1)
        self._mass: Floats = np.ones(1)

    def leaving(self, bound: float) -> float:
        """Return the probability to be outside the bounds at the next look."""
        sd = self._sds[0]
        return float(self._mass @ (ndtr((-bound - self._at) / sd) + ndtr((self._at - bound) / sd)))

    def stop(self, bound: float) -> None:
        """Move on to the next look, and stop what is then outside the bounds."""
        sd, *later = self._sds
        edge = min(bound, float(np.abs(self._at).max()) + 9.0 * sd)
        panels = math.ceil(2.0 * edge / min([sd, *later[:1]]))  # fine enough for the step that follows, too
        half = edge / panels
        to = (np.linspace(half - edge, edge - half, panels)[:, None] + half * _NODES).ravel()
        density = np.exp(-0.5 * ((to[:, None] - self._at) / sd) ** 2) / (sd * math.sqrt(2.0 * math.pi))
        self._mass, self._at = half * np.tile(_WEIGHTS, panels) * (density @ self._mass), to
        self._sds = later
