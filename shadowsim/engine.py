"""simulate(scenario) -> Result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from shadowsim import _kernel as k
from shadowsim import columns as cols
from shadowsim import tallies as tal
from shadowsim.errors import InputError
from shadowsim.result import Result
from shadowsim.scenario import Scenario

CHUNK = 4096
_REQUESTS_A_CALL = 2e6  # about a twentieth of a second: progress moves, Ctrl-C works


def simulate(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    *,
    rate_per_s: float | None = None,
    progress: bool = False,
    chunk: int = CHUNK,
) -> Result:
    """Simulate a shadow test.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests a second.
    progress : bool
        Show a progress bar over windows.
    chunk : int
        Requests handled at a time. The result does not depend on it.

    Returns
    -------
    Result
        Three frames, the same bits for the same scenario on every machine.

    Raises
    ------
    InputError, ValidationError
        When the scenario or its request cannot be used.
    """
    if chunk < 1:
        raise InputError("chunk", "must be at least 1", chunk)
    whole = Scenario.of(scenario, rate_per_s=rate_per_s)
    c = cols.columns(whole)
    wanted = whole.sample_requests
    for widen in range(3):
        sample = cols.new_sample(wanted, c.expected_requests, widen)
        tallies, arrived = _run(c, sample, chunk, progress)
        n = int(sample.n[0])
        if n <= sample.rows.shape[0] and (n >= min(wanted, arrived)):
            break
    tal.conserved(tallies, arrived)
    return Result(
        scenario=whole,
        windows=tal.windows_frame(whole, c, tallies),
        latency=tal.latency_frame(whole, tallies),
        requests=tal.requests_frame(whole, c, wanted, sample, tallies[0]),
    )


def _run(c: cols.Columns, sample: k.Sample, chunk: int, progress: bool) -> tuple[tuple[k.Tally, k.Tally], int]:
    """All windows, a few at a time."""
    states = cols.new_state(c.source, c.horizon_s), cols.new_state(c.shadow, c.horizon_s)
    tallies = cols.new_tally(c), cols.new_tally(c)
    ticks = np.zeros(2, np.int64)
    scratch = cols.new_scratch(chunk)
    stretch = np.empty((max(c.arrivals.knot_s.size, 1), 6))
    step = max(1, int(_REQUESTS_A_CALL / max(c.expected_requests / c.n_windows, 1.0)))
    arrived = 0
    with (
        _bar(c.n_windows, progress) as advance,
        np.errstate(over="ignore"),  # hash arithmetic wraps, uncompiled too
    ):
        for first in range(0, c.n_windows, step):
            last = min(first + step, c.n_windows)
            arrived += k.run(
                first, last, c.n_windows, c.n_sections, c.period_s, c.horizon_s, c.seed, c.coin, c.arrivals,
                c.source, c.shadow, c.request, c.source_answer, c.shadow_answer,
                *states, ticks, *tallies, sample, scratch, stretch,
            )  # fmt: skip
            advance(last - first)
    return tallies, arrived


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int], object]]:
    """Yield what advances a progress bar over windows, or does nothing."""
    if not wanted:
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # only now: in a notebook without widgets the import alone prints a warning

    with tqdm(total=total, unit=" windows", leave=False) as bar:
        yield bar.update
