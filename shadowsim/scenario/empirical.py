"""Empirical laws: a quantile function through given points, or through a sample's order statistics.

It is a straight line between its points and flat outside. The points are probabilities p, strictly rising, and the
quantiles x there, never falling, each of shape (n,) with n >= 2.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shadowsim.errors import InputError
from shadowsim.scenario.datafiles import listing, read_table, resolve, sizes
from shadowsim.scenario.fields import Block

Floats = NDArray[np.float64]
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
