"""Tabulates the quantiles of a law for the kernel to draw from."""

from __future__ import annotations

import math

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.engine import _kernel as k
from shadowsim.scenario.laws import Law


def law_table(law: Law) -> Floats:
    """Return the law's quantiles at the kernel's tail probabilities, divided by its mean.

    Parameters
    ----------
    law : Law
        Any law but a linear one; its mean must be positive.

    Returns
    -------
    ndarray of float64, shape (2 TABLE_HALF,)
        The lower half, then the upper one. Its mean is 1 to within 1e-9, its second moment the law's to within 1e-4 of
        it, and the error of a quantile is at most 2e-5 of itself or of the mean, whichever is greater. The only error
        is that of linear interpolation between knots; that of the mean is scaled out. The kinks of an empirical law
        are rounded off within a cell, 0.8 % of the tail probability.

    Notes
    -----
    Quantiles are rounded to 24 bits first: the last bits of exp and of inverse distribution functions differ between
    machines, and a table that differed would make every result differ.
    """
    halves = [(half / law.mean).astype(np.float32).astype(np.float64) for half in law.tails(k.table_tails())]
    mean = math.fsum(table_moment(half, 1) for half in halves)
    return np.concatenate([np.append(half, half[-1]) / mean for half in halves])


def table_moment(half: Floats, power: int) -> float:
    """Return the contribution of one half of a table (its knots, without the padding) to the 1st or 2nd moment."""
    u = 2.0 * k.table_tails()
    width, a, b = np.diff(u), half[:-1], half[1:]
    value = (a + b) / 2.0 if power == 1 else (a * a + a * b + b * b) / 3.0
    return 0.5 * math.fsum(width * value)
