"""Least squares of relative errors, whose coefficients are never negative, with standard errors.

The time y_i of cell i is modelled as sum_j x_ij b_j, b >= 0. Cells belong to groups (prefill and decode steps) that a
model may fit differently well. So the cells of a group have the weight 1 / (sigma_g y_i)², or that of what errors shall
be relative to in place of y_i; sigma_g² is the group's own residual variance RSS_g / (n_g - h_g), h_g being the sum
of its leverages; weights and coefficients are computed in turn (feasible generalised least squares). Where a group is
left with less than one degree of freedom, all groups have one spread.

The constrained minimum is that of Lawson and Hanson (1974, Solving Least Squares Problems, chapter 23). Standard errors
are those of the columns that remain, (X'WX)^-1 s².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints

ALIKE = 0.99  # estimates that are correlated more than this are known together only
_ROUNDS = 100
_SETTLED = 1e-10  # relative change of the groups' spreads
_LEAST_SPREAD = 1e-9  # relative: data without noise would have infinite weights
_DEPENDENT = 1e-6  # a column of which less than this share is its own


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Fitted coefficients, and what could not be fitted.

    Attributes
    ----------
    values : mapping of str to float
        One per column; 0 for those left out.
    errors : mapping of str to float
        Standard errors; NaN for those left out, and for all without a degree of freedom.
    dependent : mapping of str to tuple of str
        Columns left out because they are sums of the named ones.
    negative : mapping of str to tuple of float
        Columns left out because their coefficient would be negative: that coefficient and its standard error.
    correlations : mapping of (str, str) to float
        The pairs of estimates that are correlated by more than `ALIKE`.
    misses : ndarray of float
        Modelled time / measured time - 1, per cell.
    n_free : int
        Cells less coefficients.
    """

    values: Mapping[str, float]
    errors: Mapping[str, float]
    dependent: Mapping[str, tuple[str, ...]]
    negative: Mapping[str, tuple[float, float]]
    correlations: Mapping[tuple[str, str], float]
    misses: Floats
    n_free: int


def fit_nonnegative(
    columns: Mapping[str, Floats], measured: Floats, group: Ints, per: Floats | None = None
) -> Coefficients:
    """Fit times by sums of columns.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (n,)
        In the order in which they are preferred where they are linearly dependent. None is 0 throughout.
    measured : ndarray, shape (n,)
        Positive times.
    group : ndarray of int, shape (n,)
        The group of each cell.
    per : ndarray, shape (n,), optional
        What errors are relative to, instead of the measured times: positive. Their unit plays no part.
    """
    per = measured if per is None else per
    y = measured / per
    relative = {name: column / per for name, column in columns.items()}
    scales = {name: float(np.linalg.norm(column)) for name, column in relative.items()}
    unit = {name: column / scales[name] for name, column in relative.items()}
    dependent = _dependent(unit)
    names = [name for name in unit if name not in dependent]
    x = np.column_stack([unit[name] for name in names])
    b, kept, spread = _settle(x, y, group)
    errors, correlations = _errors(x[:, kept], y, b[kept], spread)
    scale = np.array([scales[name] for name in names])
    negative = {}
    if not kept.all():
        free = _solve(x / spread[:, None], y / spread)
        free_errors, _ = _errors(x, y, free, spread)
        for i in np.flatnonzero(~kept):
            negative[names[i]] = (float(free[i] / scale[i]), float(free_errors[i] / scale[i]))
    values = dict.fromkeys(columns, 0.0) | dict(zip(names, (b / scale).tolist(), strict=True))
    remaining = [name for name, k in zip(names, kept, strict=True) if k]
    by_name = dict(zip(remaining, (errors / scale[kept]).tolist(), strict=True))
    pairs = {
        (remaining[i], remaining[j]): float(correlations[i, j])
        for i in range(len(remaining))
        for j in range(i)
        if abs(correlations[i, j]) > ALIKE
    }
    return Coefficients(
        values=values,
        errors=dict.fromkeys(columns, float("nan")) | by_name,
        dependent=dependent,
        negative=negative,
        correlations=pairs,
        misses=(x @ b - y) / y,
        n_free=len(measured) - len(remaining),
    )


def _dependent(unit: Mapping[str, Floats]) -> dict[str, tuple[str, ...]]:
    """Return the columns that are sums of columns before them, and of which."""
    independent: list[str] = []
    dependent = {}
    for name, column in unit.items():
        if independent:
            before = np.column_stack([unit[one] for one in independent])
            shares = _solve(before, column)
            if np.linalg.norm(column - before @ shares) < _DEPENDENT:
                dependent[name] = tuple(
                    one for one, share in zip(independent, shares, strict=True) if abs(share) > _DEPENDENT
                )
                continue
        independent.append(name)
    return dependent


def _settle(x: Floats, y: Floats, group: Ints) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Return coefficients, which of them are kept, and the relative spread of each cell's group."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    spread = np.ones(len(x))
    for _ in range(_ROUNDS):
        b, _norm = nnls(x / spread[:, None], y / spread)
        kept = b > 0.0
        new = _spreads(x, y, b, kept, group, spread)
        if new is None:
            spread = np.ones(len(x))
            b, _norm = nnls(x, y)
            kept = b > 0.0
            break
        settled = np.allclose(new, spread, rtol=_SETTLED, atol=0.0)
        spread = new
        if settled:
            break
    # The minimum over the kept columns, to the last digits.
    b = np.zeros(x.shape[1])
    b[kept] = _solve(x[:, kept] / spread[:, None], y / spread)
    return b, kept, spread


def _spreads(x: Floats, y: Floats, b: Floats, kept: NDArray[np.bool_], group: Ints, spread: Floats) -> Floats | None:
    """Return the relative spread of each cell's group; None where a group has too few cells to have one."""
    q, _ = np.linalg.qr(x[:, kept] / spread[:, None])
    leverage = (q**2).sum(axis=1)
    squares = (x @ b - y) ** 2
    new = np.empty(len(x))
    for g in np.unique(group):
        mine = group == g
        free = mine.sum() - leverage[mine].sum()
        if free < 1.0:
            return None
        new[mine] = max(float(np.sqrt(squares[mine].sum() / free)), _LEAST_SPREAD)
    return new


def _errors(x: Floats, y: Floats, b: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Return the standard errors of all coefficients, and the estimates' correlations."""
    n, k = x.shape
    weighted = x / spread[:, None]
    _, scale, axes = np.linalg.svd(weighted, full_matrices=False)
    inverse = axes.T / scale  # whose square has no negative diagonal, however nearly columns depend on each other
    covariance = inverse @ inverse.T
    correlations = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    if n <= k:
        return np.full(k, np.nan), correlations
    variance = float((((x @ b - y) / spread) ** 2).sum()) / (n - k)
    return np.sqrt(variance * np.diag(covariance)), correlations


def _solve(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0], np.float64)
