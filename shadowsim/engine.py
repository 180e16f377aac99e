"""simulate(scenario) -> Result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shadowsim import tallies as tal
from shadowsim.columns import columns
from shadowsim.errors import InputError
from shadowsim.feeds import feed_of
from shadowsim.machine import Machine, new_machine, new_sample
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
    feed = feed_of(whole)
    c = columns(whole, feed)
    wanted = whole.sample_requests
    for widen in range(3):
        samples = new_sample(wanted, feed.expected_requests, widen), new_sample(wanted, feed.expected_requests, widen)
        machine = new_machine(c, feed, chunk, samples)
        _run(machine, progress)
        if all(int(s.n[0]) <= s.rows.shape[0] for s in samples) and samples[0].n[0] >= min(wanted, machine.arrived):
            break
    tal.conserved(machine.tallies, machine.arrived)
    return Result(
        scenario=whole,
        windows=tal.windows_frame(whole, c, machine.tallies),
        latency=tal.latency_frame(whole, machine.tallies),
        requests=tal.requests_frame(whole, c, wanted, samples, machine.tallies[0]),
    )


def _run(machine: Machine, progress: bool) -> None:
    """All windows, a few at a time."""
    c = machine.c
    step = max(1, int(_REQUESTS_A_CALL / max(machine.feed.expected_requests / c.n_windows, 1.0)))
    with _bar(c.n_windows, progress) as advance:
        for first in range(0, c.n_windows, step):
            last = min(first + step, c.n_windows)
            machine.advance(last)
            advance(last - first)


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int], object]]:
    """Yield what advances a progress bar over windows, or does nothing."""
    if not wanted:
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # only now: in a notebook without widgets the import alone prints a warning

    with tqdm(total=total, unit=" windows", leave=False) as bar:
        yield bar.update
