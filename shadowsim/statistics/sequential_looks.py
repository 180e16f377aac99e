"""Looking at a test while it runs, without being fooled by looking often.

Who tests at 5 % every day of a week and stops at the first success is wrong in far more than 5 % of the weeks in which
there is nothing to find. A group-sequential test plans its looks: a spending function says how much of the level may
be used up by each, and the bound of a look is put where just that much is spent (Lan and DeMets, 1983). An interval
made with a look's bound in place of 1.96 covers at all looks together (repeated confidence intervals, Jennison and
Turnbull, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.errors import InputError, nearest

SPENDING = ("obrien-fleming", "pocock")
MOST_LOOKS = 100
_FAR = 38.0  # beyond it the normal tail is 0 in double precision
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)  # in each standard deviation of a step: right to 1e-10


def spent(spending: str, fraction: float, alpha: float) -> float:
    """Return how much of the level may be spent up to a fraction of the information (Lan and DeMets, 1983, section 3).

    O'Brien and Fleming's type spends 4 (1 - Phi(z(1 - alpha/4) / sqrt(t))), little early, so that the last look costs
    next to nothing; Pocock's spends alpha ln(1 + (e - 1) t), nearly evenly.

    Raises
    ------
    InputError
        When `spending` is neither "obrien-fleming" nor "pocock", or `alpha` is not between 0 and 1.
    """
    if spending not in SPENDING:
        raise InputError(
            "spending", f"must be one of {', '.join(SPENDING)}", spending, hint=nearest(spending, SPENDING)
        )
    if not 0.0 < alpha < 1.0:
        raise InputError("alpha", "must be > 0 and < 1", alpha)
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1.0) * fraction)
    return 4.0 * float(ndtr(ndtri(alpha / 4.0) / math.sqrt(fraction)))


def bounds(looks: int, alpha: float = 0.05, spending: str = "obrien-fleming") -> Floats:
    """Return the bound of |z| at each of some equally spaced looks, two-sided.

    Parameters
    ----------
    looks : int
        How many looks are planned, 1 .. 100.
    alpha : float
        Level of all looks together.
    spending : str
        "obrien-fleming" or "pocock".

    Returns
    -------
    ndarray of float64, shape (looks,)
        Infinite where the level to spend is less than double precision holds.

    Notes
    -----
    The density of the score process on its way between the bounds is carried from look to look by numerical
    integration (Armitage, McPherson and Rowe, 1969; Jennison and Turnbull, 2000, chapter 19).
    """
    from scipy.optimize import brentq  # type: ignore[import-untyped]  # half a second, which a single look saves

    if not isinstance(looks, int) or not 1 <= looks <= MOST_LOOKS:
        raise InputError("looks", f"must be an integer from 1 to {MOST_LOOKS}", looks)
    goal = np.diff([0.0, *(spent(spending, k / looks, alpha) for k in range(1, looks + 1))])
    walk, found = _Walk(), []
    for k in range(looks):
        scale = math.sqrt((k + 1) / looks)

        def excess(z: float, scale: float = scale, goal: float = goal[k]) -> float:
            return walk.leaving(z * scale, 1.0 / looks) - goal

        z = float(brentq(excess, 0.0, _FAR, xtol=1e-10)) if excess(_FAR) < 0.0 < goal[k] else math.inf
        found.append(z)
        walk.step(min(z, _FAR) * scale, 1.0 / looks)
    return np.array(found)


def exit_probabilities(bounds: Sequence[float] | Floats) -> Floats:
    """Return how probable it is, without an effect, to pass |z| bounds at equally spaced looks first at each of them.

    Parameters
    ----------
    bounds : sequence of float, shape (looks,)

    Returns
    -------
    ndarray of float64, shape (looks,)
    """
    z = np.asarray(bounds, np.float64)
    walk, found = _Walk(), []
    for k in range(z.size):
        bound = min(float(z[k]), _FAR) * math.sqrt((k + 1) / z.size)
        found.append(walk.leaving(bound, 1.0 / z.size))
        walk.step(bound, 1.0 / z.size)
    return np.array(found)


class _Walk:
    """Brownian motion that is stopped at bounds: where it is, if it still goes on."""

    def __init__(self) -> None:
        self.at: Floats = np.zeros(1)
        self.mass: Floats = np.ones(1)

    def leaving(self, bound: float, time: float) -> float:
        """Return the probability of being outside the bounds after some time."""
        sd = math.sqrt(time)
        return float(self.mass @ (ndtr((-bound - self.at) / sd) + ndtr((self.at - bound) / sd)))

    def step(self, bound: float, time: float) -> None:
        """Go on for some time; what is then outside the bounds is stopped."""
        sd = math.sqrt(time)
        edge = min(bound, float(np.abs(self.at).max()) + 9.0 * sd)
        panels = math.ceil(2.0 * edge / sd)
        half = edge / panels
        to = (np.linspace(half - edge, edge - half, panels)[:, None] + half * _NODES).ravel()
        density = np.exp(-0.5 * ((to[:, None] - self.at) / sd) ** 2) / (sd * math.sqrt(2.0 * math.pi))
        self.mass, self.at = half * np.tile(_WEIGHTS, panels) * (density @ self.mass), to
