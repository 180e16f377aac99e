"""Describes how a trace is resampled: the length of the blocks of a stationary bootstrap.

The longer blocks are, the more of the trace's memory is kept, and the fewer independent blocks there are. By default,
their mean length follows the automatic rule of Politis and White (2004), corrected by Patton, Politis and White (2009),
for the mean of the gaps. engine/resampling.py draws the traces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Alternatives, Keys, Number, Schema, optional
from shadowsim.scenario.traces import Trace

_NOT_CORRELATED = 2.0  # limit of an autocorrelation, in units of sqrt(log10(n) / n)
_MOST_OF_TRACE = 1.0 / 10.0  # so that there are at least ten blocks


class ResamplingKeys(Keys):
    """Keys of `resample`."""

    title = "A stationary block bootstrap; without a length of its blocks, a rule chooses it."
    mean_block = optional(Number("Mean number of successive requests in a block.", least=1.0))
    mean_block_s = optional(Number("Mean length of a block in the trace as it is played.", above=0.0))
    rules = (Alternatives(("mean_block", "mean_block_s"), 0, 1, "must give mean_block or mean_block_s, not both"),)
    examples = ({"mean_block_s": "10min"},)


def resampling_form() -> Schema:
    """Return the schema of `resample`."""
    return {"anyOf": [{"enum": [True, False, "auto"]}, ResamplingKeys.schema()]}


@dataclass(frozen=True, slots=True)
class Resampling:
    """A stationary block bootstrap of a trace.

    Attributes
    ----------
    mean_block : float or None
        Mean number of successive requests in a block, >= 1.
    mean_block_s : float or None
        Or its mean length in seconds of the trace as it is played; without either, the rule chooses.
    """

    mean_block: float | None = None
    mean_block_s: float | None = None

    @property
    def by_rule(self) -> bool:
        """Whether the mean length follows the rule."""
        return self.mean_block is None and self.mean_block_s is None

    def length(self, trace: Trace) -> float:
        """Return the mean number of requests in a block of a trace."""
        if self.mean_block is not None:
            return self.mean_block
        if self.mean_block_s is not None:
            return max(self.mean_block_s * trace.arrival_s.size / (trace.pass_s or 1.0), 1.0)
        return block_by_rule(gaps(trace))


def parse_resampling(block: Block) -> Resampling | None:
    """Return what the `resample` of a trace's block says: true or "auto", false, or an object with one of the keys.

    Raises
    ------
    InputError
        When it is something else, or a mean length is out of range.
    """
    value = block.values.get("resample")
    if value is None or value is False:
        return None
    if value is True or value == "auto":
        return Resampling()
    if not isinstance(value, dict):
        raise InputError(
            block.at("resample"), 'must be true, false, "auto" or an object with mean_block or mean_block_s', value
        )
    keys = ResamplingKeys.read(block.block("resample"))
    return Resampling(keys.mean_block, keys.mean_block_s)


def resampling_note(resampling: Resampling, trace: Trace, path: str) -> str:
    """Return a sentence that says what is drawn from a trace, with the length of its blocks."""
    n, length = trace.arrival_s.size, resampling.length(trace)
    rule = ", by the rule of Politis and White" if resampling.by_rule else ""
    return (
        f"{path}.resample: the requests are drawn from the trace in blocks of {length:,.3g} on average{rule}, some "
        f"{n / length:,.3g} independent blocks per pass; what lasts longer than a block is not kept."
    )


def gaps(trace: Trace) -> Floats:
    """Return the time before each request; before the first, that from the last of a pass to the first of the next."""
    gap_s: Floats = np.diff(trace.arrival_s, prepend=trace.arrival_s[-1] - trace.pass_s)
    return gap_s


def block_by_rule(x: Floats) -> float:
    """Return the mean length of blocks by the rule of Politis and White (2004), for the mean of a stationary series.

    It is (2 G^2 / D)^(1/3) n^(1/3) with G = sum |k| R(k), D = 2 (sum R(k))^2 over autocovariances R, which are tapered
    by a flat-top window twice as wide as they are visible. It lies between 1 and a tenth of the series.

    Parameters
    ----------
    x : ndarray of float64, shape (n,)
    """
    n, d = x.size, x - x.mean()
    most = max(n * _MOST_OF_TRACE, 1.0)
    if n < 10 or not d.any():
        return 1.0
    wanted = max(5, math.ceil(math.sqrt(math.log10(n))))  # so many neighbouring lags must be invisible
    lags = min(math.ceil(math.sqrt(n)) + wanted, n - 1)
    size = 1 << (2 * n - 1).bit_length()  # padding keeps the end from wrapping round to the start
    covariance = np.fft.irfft(np.abs(np.fft.rfft(d, size)) ** 2)[: lags + 1] / n
    visible = np.abs(covariance[1:] / covariance[0]) >= _NOT_CORRELATED * math.sqrt(math.log10(n) / n)
    run = np.convolve(visible, np.ones(wanted, int), "valid") if visible.size >= wanted else np.ones(1)
    calm = np.flatnonzero(run == 0)
    last = int(calm[0]) if calm.size else lags
    width = min(2 * max(last, 1), lags)
    lag = np.arange(1, width + 1)
    taper = np.minimum(1.0, 2.0 * (1.0 - lag / width))
    g = 2.0 * float((taper * lag) @ covariance[1 : width + 1])
    total = float(covariance[0] + 2.0 * taper @ covariance[1 : width + 1])
    if total <= 0.0:
        return 1.0
    return float(min(max((g * g / (total * total) * n) ** (1.0 / 3.0), 1.0), most))
