"""Markov-modulated Poisson arrivals (MMPP): a rate that jumps between states and stays in each for an exponential time.

State i brings requests at `rates_per_s[i]` for a sojourn of mean `mean_sojourn_s[i]`; the next state is any of the
others, alike. The chain of visited states is then doubly stochastic, so that all states are visited equally often, and
the share of time spent in each is its mean sojourn over the sum of them all.

The path is a function of draws that the caller makes: nothing is random here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def time_shares(mean_sojourn_s: Sequence[float]) -> Floats:
    """Return the long-run share of time in each state, shape (n,)."""
    sojourn = np.array(mean_sojourn_s, np.float64) / max(mean_sojourn_s)  # sums of huge ones would overflow
    return np.asarray(sojourn / sojourn.sum())


def mmpp_rate(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> float:
    """Return the long-run mean rate in requests a second."""
    return float(time_shares(mean_sojourn_s) @ np.array(rates_per_s, np.float64))


def mmpp_scv(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> float:
    """Return variance / mean² of the times between arrivals, in the long run.

    Notes
    -----
    Q is the generator, R the diagonal matrix of the rates r, pi the shares of time, e a vector of ones. From an
    arrival on, the next comes after x with density exp((Q - R) x) R e, and the state just after an arrival is
    p = pi R / (pi r) (Fischer and Meier-Hellstern, The Markov-modulated Poisson process (MMPP) cookbook, Performance
    Evaluation 18, 1993, 149-171: the interval-stationary MMPP). Hence E[x^k] = k! p (R - Q)^-k e, since
    (R - Q) e = R e. With pi (R - Q) = pi R this is 1 / (pi r) for k = 1 and 2 pi (R - Q)^-1 e / (pi r) for k = 2.
    """
    pi, rate, generator = _matrices(rates_per_s, mean_sojourn_s)
    return float(2.0 * (pi @ rate) * (pi @ np.linalg.solve(np.diag(rate) - generator, np.ones(len(rate)))) - 1.0)


def mmpp_dispersion(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> float:
    """Return the limit of variance / mean of the number of arrivals within a long time.

    Notes
    -----
    Given the rate's path the count is Poisson, so that its variance is its mean plus the variance of the rate's
    integral, which grows with 2 times the integral of Cov(rate(0), rate(t)) = pi R (exp(Q t) - e pi) r over t > 0. That
    of exp(Q t) - e pi is (c e pi - Q)^-1 - e pi / c for any c > 0.
    """
    pi, rate, generator = _matrices(rates_per_s, mean_sojourn_s)
    mean, c = pi @ rate, -np.diag(generator).mean()
    inverse = np.linalg.solve(c * np.outer(np.ones(len(rate)), pi) - generator, rate - mean)
    return float(1.0 + 2.0 / mean * ((pi * rate) @ inverse))


def mmpp_knots(
    rates_per_s: Sequence[float],
    mean_sojourn_s: Sequence[float],
    horizon_s: float,
    start_uniform: float,
    draws: Iterable[tuple[Floats, Floats]],
) -> tuple[Floats, Floats]:
    """Return the rate along one path, as knots of a piecewise-linear (here constant) function.

    Parameters
    ----------
    rates_per_s, mean_sojourn_s : sequence of float, shape (n,)
        Of the n >= 2 states.
    horizon_s : float
        Where the path ends; > 0.
    start_uniform : float
        In (0, 1]: chooses the first state, each by its share of time, so that the path is stationary from the start.
    draws : iterable of (ndarray of float64, ndarray of float64), both of shape (k,)
        Blocks of any size k of unit exponentials, one a sojourn, and of uniforms in (0, 1], one a jump. How many are
        needed is not known before; blocks are taken until the horizon is reached, and how they are cut does not matter
        to any bit. About horizon_s / mean(mean_sojourn_s) sojourns are to be expected.

    Returns
    -------
    time_s : ndarray of float64, shape (m,)
        Non-decreasing from exactly 0 to exactly `horizon_s`; a jump is two knots at one time, never at either end.
    rate_per_s : ndarray of float64, shape (m,)
        The rate there.

    Raises
    ------
    ValueError
        When the draws end before the path.
    """
    n, sojourn = len(rates_per_s), np.array(mean_sojourn_s, np.float64)
    below = np.cumsum(time_shares(mean_sojourn_s))
    state = min(int(np.searchsorted(below, start_uniform)), n - 1)  # the last sum may be rounded below 1
    ends, states, now_s = [], [], 0.0
    for exponential, uniform in draws:
        # One of the n - 1 others is a step of 1 .. n - 1 round the circle of states; a uniform may be 1.
        steps = 1 + np.minimum((uniform * (n - 1)).astype(np.int64), n - 2)
        visited = (state + np.concatenate([[0], np.cumsum(steps)])) % n
        # Added in order, wherever a block begins: cumsum does not sum pairwise.
        passed = np.cumsum(np.concatenate([[now_s], exponential * sojourn[visited[:-1]]]))
        ends.append(passed[1:])
        states.append(visited[:-1])
        state, now_s = int(visited[-1]), float(passed[-1])
        if now_s >= horizon_s:
            break
    else:
        raise ValueError(f"the draws end at {now_s:g} s of {horizon_s:g} s")
    end = np.concatenate(ends)
    end = np.minimum(end[: int(np.searchsorted(end, horizon_s)) + 1], horizon_s)
    begin = np.concatenate([[0.0], end[:-1]])
    stays = begin < end  # a sojourn may be too short to move the clock
    rate = np.array(rates_per_s, np.float64)[np.concatenate(states)[: len(end)][stays]]
    return np.stack([begin[stays], end[stays]], axis=1).ravel(), np.repeat(rate, 2)


def _matrices(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Return the shares of time (n,), the rates (n,) and the generator (n, n)."""
    n, leave = len(rates_per_s), 1.0 / np.array(mean_sojourn_s, np.float64)
    generator = np.outer(leave, np.full(n, 1.0 / (n - 1)))
    np.fill_diagonal(generator, -leave)
    return time_shares(mean_sojourn_s), np.array(rates_per_s, np.float64), generator
