"""Shows how far a run is, how long all of it takes, and that code is compiled before it.

A line is printed, and a bar drawn, on standard error, and only where progress was asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter

from shadowsim.engine import parallel
from shadowsim.engine.parallel import Job
from shadowsim.text import compact, duration

LONG_S = 10.0  # a run that takes longer says how long it takes
STRETCH_S = 2.0  # from which that is estimated
_PARTS = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Forecast:
    """Tells, once, how long all of `total` steps take, if that is long, from the first of them.

    Threads may call it; `clock` returns seconds.
    """

    def __init__(self, total: int, say: Callable[[str], object], clock: Callable[[], float] = perf_counter) -> None:
        self._total, self._say, self._clock = total, say, clock
        self._began_s, self._n_done, self._lock = clock(), 0.0, Lock()
        self._awaited = True

    def __call__(self, n: float) -> None:
        """Count n steps, or a part of one, that are done."""
        with self._lock:
            self._n_done += n
            took_s = self._clock() - self._began_s
            if not self._awaited or self._n_done <= 0.0 or took_s < STRETCH_S:
                return
            self._awaited = False
        whole_s = took_s * self._total / self._n_done
        if whole_s > LONG_S:
            self._say(f"takes about {duration(whole_s)} in all")


def compile_kernel(job: Job, announce: Callable[[str], object]) -> None:
    """Compile what a run needs, unless this process or numba's cache has it, and announce that before."""
    seconds = parallel.seconds_to_compile(job)
    if seconds:
        announce(f"compiling for this kind of scenario, once on this machine (some {seconds} s)")
        parallel.compile_kernel(job)


def print_notice(text: str) -> None:
    """Print a line beside the bar."""
    print(text, file=sys.stderr, flush=True)


def announce(requests: float, took_s: float, n_runs: int, guessed: bool = False) -> None:
    """Print how many requests will be simulated and how long that takes, roughly, if that is long."""
    if took_s > LONG_S:
        about = "perhaps" if guessed else "about"
        print_notice(f"{about} {compact(requests)} requests in {n_runs:,} runs: roughly {duration(took_s)}")


@contextmanager
def progress_bar(
    total: int, wanted: bool, unit: str = "windows", in_parts: bool = False
) -> Iterator[Callable[[float], object]]:
    """Yield a function that advances a progress bar, or does nothing if none is wanted or it could not move.

    A bar that moves `in_parts` of a unit shows per cent in place of counts.
    """
    if not wanted or (total <= 1 and not in_parts):
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # here: in a notebook without widgets the import alone prints a warning

    with tqdm(total=total, unit=f" {unit}", leave=False, bar_format=_PARTS if in_parts else None) as bar:
        forecast = Forecast(total, lambda text: bar.write(text, file=sys.stderr))

        def advance(n: float) -> None:
            bar.update(n)
            forecast(n)

        yield advance
