"""Times the first use: an import, help, and a first result with the compiler's cache empty and full.

Each figure is a median over fresh processes, in turn with `python -c pass`: on a shared machine the ratio to the start
of the interpreter means more than the time itself. Processor time excludes other programs.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

STARTS = 9
COLD_STARTS = 3  # each takes some eight seconds
IMPORT = "from time import perf_counter as now; t = now(); import shadowsim; print(now() - t)"
FIRST = 'import shadowsim as s; print(s.simulate(s.default_scenario().replace({"run.horizon_s": 60.0})).summary())'


class Starts:
    """Starts of a Python command in a folder; `cache` returns the directory of the compiler's cache for each."""

    def __init__(self, arguments: list[str], folder: Path, cache: Callable[[], str]) -> None:
        self.arguments, self.folder, self.cache = arguments, folder, cache
        self.bare_s: list[float] = []
        self.printed: list[str] = []
        self.processor_s: list[float] = []

    def bare(self) -> None:
        """Time a bare interpreter."""
        began = time.perf_counter()
        self._run(["-c", "pass"])
        self.bare_s.append(time.perf_counter() - began)

    def once(self) -> None:
        """Run the command, and record its output and processor time."""
        began = _processor_s()
        self.printed.append(self._run(self.arguments))
        self.processor_s.append(_processor_s() - began)

    def _run(self, arguments: list[str]) -> str:
        # An installed package has its bytecode, so this run must be able to write it.
        removed = ("NUMBA_", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(removed)}
        out = subprocess.run(
            [sys.executable, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            cwd=self.folder,
            env=environment | {"NUMBA_CACHE_DIR": self.cache()},
        )
        return out.stdout


def _processor_s() -> float:
    """Return the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def first_use(
    benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], tmp_path: Path
) -> Callable[..., None]:
    """Return a function that times a command in turn with bare starts and adds a row to the table."""

    def run(name: str, arguments: list[str], target_s: float, *, cold: bool = False, inside: bool = False) -> None:
        starts = Starts(arguments, tmp_path, lambda: tempfile.mkdtemp(dir=tmp_path) if cold else str(tmp_path))
        if not cold:
            starts.once()  # writes bytecode, and fills the cache
            starts.printed.clear()
            starts.processor_s.clear()
        benchmark.pedantic(starts.once, setup=starts.bare, rounds=COLD_STARTS if cold else STARTS)
        times = [float(text) for text in starts.printed] if inside else list(benchmark.stats.stats.data)
        median, bare = statistics.median(times), statistics.median(starts.bare_s)
        processor = statistics.median(starts.processor_s)
        ratio = statistics.median(t / b for t, b in zip(times, starts.bare_s, strict=True))
        benchmark.extra_info.update(median_s=median, target_s=target_s, processor_s=processor, ratio_to_bare=ratio)
        table(
            name,
            f"{1e3 * median:,.0f} ms",
            f"{ratio:,.1f} x `python -c pass` ({1e3 * bare:.0f} ms), processor {1e3 * processor:,.0f} ms, "
            f"target {1e3 * target_s:,.0f} ms {'met' if median < target_s else 'missed'}, {len(times)} processes",
        )

    return run


def test_import(first_use: Callable[..., None]) -> None:
    """Timed inside the process: a user of the import has started an interpreter already."""
    first_use("import shadowsim", ["-c", IMPORT], 0.06, inside=True)


def test_help(first_use: Callable[..., None]) -> None:
    first_use("shadowsim --help", [str(Path(sysconfig.get_path("scripts")) / "shadowsim"), "--help"], 0.4)


def test_first_result_without_a_cache(first_use: Callable[..., None]) -> None:
    """A minute of the built-in scenario; nearly all of the time is compilation."""
    first_use("first result, nothing compiled", ["-c", FIRST], 8.0, cold=True)


def test_first_result_with_a_cache(first_use: Callable[..., None]) -> None:
    first_use("first result, compiled before", ["-c", FIRST], 1.5)
