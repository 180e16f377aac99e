"""Shared fixtures: the C program that marks the limit, a bench of servers, and a table of ratios after the run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_bench import Bench

LIMIT_C = Path(__file__).with_name("limit.c")
ROWS: list[tuple[str, str, str]] = []


@pytest.fixture
def table() -> Callable[[str, str, str], None]:
    """Return a function that adds a row to the table after the run: name, figure, reference."""
    return lambda *row: ROWS.append(row)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return what starts servers with their backends and callers, all of which end after the test."""
    processes = Bench(tmp_path)
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def limit(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], float]:
    """Return a function that runs the C program on a number of requests and returns its source requests per second."""
    compiler = shutil.which("cc")
    if compiler is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs a C compiler")
    program = tmp_path_factory.mktemp("limit") / "limit"
    subprocess.run([compiler, "-O3", "-march=native", "-o", program, LIMIT_C, "-lm"], check=True)

    def run(n_requests: int) -> float:
        out = subprocess.run([program, str(n_requests)], check=True, capture_output=True, text=True, timeout=300)
        return float(out.stdout.split()[0])

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of ratios."""
    if ROWS:
        widths = [max(len(row[i]) for row in ROWS) for i in range(3)]
        terminalreporter.section("ratios within this run")
        for row in ROWS:
            terminalreporter.write_line("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
