"""Predicts real servers under loads that they were not calibrated on, and prints what they then did beside it.

Servers (real_servers.py, llama_server.py) have one core, the generator another. Each is calibrated once; then loads at
several utilisations run in turn, each twice with the same schedule, and all of that in rounds. A row has the medians
over the rounds: the errors of predicted quantiles, and how far the same load differs from itself when it runs again.
The goal is that an error is at most the greater of 15 % and that difference. A server that takes 1.1 times as long must
be told from the one that was calibrated.

The long form has five rounds and loads long enough for 20 independent answers beyond p99; SHADOWSIM_FIDELITY_ROUNDS and
SHADOWSIM_FIDELITY_SECONDS change that. The short form tells no more than that the parts work together.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import pytest

import shadowsim as ss
from shadowsim.measuring.generator.sender import Ladder

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("SHADOWSIM_FIDELITY_ROUNDS", "5"))
SECONDS = float(os.environ.get("SHADOWSIM_FIDELITY_SECONDS", "60"))
SHORT_S = 15.0
UTILISATIONS = (0.3, 0.5, 0.7, 0.85)
GOAL = 0.15
SHORT_GOAL = 0.5  # of a median of some seconds, on any machine
QUANTILES = ("p50", "p95", "p99")
SLEEP_S, WORKERS = 0.02, 4  # of the sleeping server
SLOTS = 8  # of the language model's
CORES = os.sched_getaffinity(0)

Table = Callable[[str, str, str], None]


@pytest.fixture(autouse=True)
def _cores() -> Iterator[None]:
    """Keep this process, the generator, on the first core; servers have the last."""
    if len(CORES) < 2:
        pytest.skip("needs two cores: one for the server, one for the generator")
    os.sched_setaffinity(0, {min(CORES)})
    yield
    os.sched_setaffinity(0, CORES)


@contextmanager
def server(*command: object) -> Iterator[str]:
    """Run a server on the last core, and give its address; it ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        os.sched_setaffinity(process.pid, {max(CORES)})
        address = process.stdout.readline().strip()
        assert address, "the server has not started"
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def mean_s_of(calibration: ss.Calibration) -> float:
    """Return the calibrated mean of the service's time, in seconds."""
    (mean_s,) = (p.value for p in calibration.parameters if p.name == "time.mean_s")
    assert mean_s is not None
    return mean_s


@dataclass(frozen=True)
class Compared:
    """A load's predicted and measured quantiles, and those of the same load again."""

    errors: dict[str, float]
    again: dict[str, float]
    verdict: str


def loaded(url: str, rate_per_s: float, seconds: float, seed: int, **more: object) -> ss.LoadRun:
    """Run a load; it tells nothing where the generator did not keep up, as on a machine that others use, too."""
    run = ss.load(url, rate_per_s=rate_per_s, duration_s=seconds, seed=seed, **more)  # type: ignore[arg-type]
    if not run.verdict.is_valid:
        pytest.skip(" ".join(run.verdict.why))
    return run


def compared(
    calibration: object, first: ss.LoadRun, again: ss.LoadRun, measures: tuple[str, ...], **changes: int
) -> Compared:
    """Compare a load with its prediction, and with the same load run again."""
    prediction = ss.predict(calibration, first.measurement(), **changes)  # type: ignore[arg-type]
    rows = prediction.table[prediction.table["measure"].isin(measures) & prediction.table["quantile"].isin(QUANTILES)]
    errors, differences = {}, {}
    for row in rows.to_dict("records"):
        name = f"{row['measure']} {row['quantile']}"
        errors[name] = row["predicted_s"] / row["measured_s"] - 1.0
        q = float(row["quantile"][1:]) / 100.0
        second = again.quantile(q, "latency" if row["measure"] == "latency" else "first_token")
        differences[name] = second / row["measured_s"] - 1.0
    return Compared(errors, differences, prediction.verdict)


def show(table: Table, name: str, rounds: list[Compared]) -> list[str]:
    """Add a load's rows to the table, and return the quantiles that miss the goal."""
    missed = []
    for quantile in rounds[0].errors:
        errors = [r.errors[quantile] for r in rounds]
        again = median(abs(r.again[quantile]) for r in rounds)
        error = median(errors)
        limit = max(GOAL, again)
        met = abs(error) <= limit
        if not met:
            missed.append(f"{name}, {quantile}: {error:+.1%}, limit {limit:.0%}")
        spread = f"{min(errors):+.0%} to {max(errors):+.0%}, the same load again {again:.0%}"
        table(f"{name}, {quantile}", f"predicted {error:+.1%} ({spread})", "met" if met else "missed")
    verdicts = [r.verdict for r in rounds]
    table(f"{name}, verdicts", ", ".join(f"{v}: {verdicts.count(v)}" for v in dict.fromkeys(verdicts)), "")
    return missed


def sleeping(workers: int, factor: float = 1.0) -> tuple[object, ...]:
    """The command of a server that sleeps."""
    return HERE / "real_servers.py", "sleep", workers, SLEEP_S, 0.5, factor


def test_a_sleeping_server_short(table: Table) -> None:
    """Calibrate at a utilisation of 0.4, predict at 0.7."""
    with server(*sleeping(WORKERS)) as url:
        calibration = ss.calibrate(loaded(url, 0.4 * WORKERS / SLEEP_S, SHORT_S, 1).measurement())
        runs = [loaded(url, 0.7 * WORKERS / SLEEP_S, SHORT_S, 2) for _ in range(2)]
    got = compared(calibration, *runs, ("latency",), workers=WORKERS)
    show(table, "sleeping server, utilisation 0.7, short", [got])
    assert abs(got.errors["latency p50"]) < SHORT_GOAL


@pytest.mark.long
def test_a_sleeping_server(table: Table) -> None:
    """A server of limited concurrency, calibrated at a utilisation of 0.3, also with twice the workers."""
    rate = WORKERS / SLEEP_S
    with server(*sleeping(WORKERS)) as url:
        calibration = ss.calibrate(loaded(url, 0.3 * rate, 2.0 * SECONDS, 1).measurement())
    rounds: dict[tuple[int, float], list[Compared]] = {}
    slower = []
    for n in range(ROUNDS):
        for workers in (WORKERS, 2 * WORKERS):
            with server(*sleeping(workers)) as url:
                for utilisation in UTILISATIONS:
                    asked = utilisation * workers / SLEEP_S
                    runs = [loaded(url, asked, SECONDS, 10 + n) for _ in range(2)]
                    got = compared(calibration, *runs, ("latency",), workers=workers)
                    rounds.setdefault((workers, utilisation), []).append(got)
        with server(*sleeping(WORKERS, 1.1)) as url:
            run = loaded(url, 0.7 * rate, SECONDS, 30 + n)
            slower.append(ss.predict(calibration, run.measurement(), workers=WORKERS).verdict)
    missed = []
    for (workers, utilisation), results in rounds.items():
        missed += show(table, f"sleeping server, {workers} workers, utilisation {utilisation}", results)
    table("sleeping server, 1.1 times as slow", ", ".join(slower), "must be: not right")
    assert set(slower) == {"not right"}
    assert not missed


def test_a_forest_short(table: Table) -> None:
    """Calibrate at a low load, predict at a utilisation of about 0.6."""
    with server(HERE / "real_servers.py", "forest", 50) as url:
        calibration = ss.calibrate(loaded(url, 20.0, SHORT_S, 1).measurement())
        rate = 0.6 / mean_s_of(calibration)
        runs = [loaded(url, rate, SHORT_S, 2) for _ in range(2)]
    got = compared(calibration, *runs, ("latency",), workers=1)
    show(table, "forest, utilisation 0.6, short", [got])
    assert abs(got.errors["latency p50"]) < SHORT_GOAL


@pytest.mark.long
def test_a_forest(table: Table) -> None:
    """A forest of scikit-learn's behind one process, calibrated at a utilisation of about 0.2."""
    with server(HERE / "real_servers.py", "forest", 50) as url:
        calibration = ss.calibrate(loaded(url, 15.0, 2.0 * SECONDS, 1).measurement())
    mean_s = mean_s_of(calibration)
    rounds: dict[float, list[Compared]] = {}
    slower = []
    for n in range(ROUNDS):
        with server(HERE / "real_servers.py", "forest", 50) as url:
            for utilisation in UTILISATIONS:
                runs = [loaded(url, utilisation / mean_s, 2.0 * SECONDS, 10 + n) for _ in range(2)]
                rounds.setdefault(utilisation, []).append(compared(calibration, *runs, ("latency",), workers=1))
        with server(HERE / "real_servers.py", "forest", 50, 1.1) as url:
            run = loaded(url, 0.7 / mean_s, 2.0 * SECONDS, 30 + n)
            slower.append(ss.predict(calibration, run.measurement(), workers=1).verdict)
    missed = []
    for utilisation, results in rounds.items():
        missed += show(table, f"forest, utilisation {utilisation}", results)
    table("forest, 1.1 times as slow", ", ".join(slower), "must be: not right")
    assert set(slower) == {"not right"}
    assert not missed


@pytest.mark.long
def test_a_language_model(table: Table, tmp_path: Path) -> None:
    """llama.cpp's server, calibrated on a ladder of concurrency and mixed load, then predicted."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    asks = {"protocol": "openai", "stream": True, "body": completions(tmp_path / "bodies.jsonl")}
    measures = ("latency", "first token")
    rounds: dict[float, list[Compared]] = {}
    with server(HERE / "llama_server.py", tmp_path, free_port(), SLOTS) as address:
        url = f"{address}/v1/completions"
        ladder = Ladder(stage_s=SECONDS / 4.0, greatest=2 * SLOTS, mixed_s=SECONDS)
        run = ss.load(url, characterise=ladder, **asks)  # type: ignore[arg-type]
        assert run.verdict.is_valid, run.verdict
        calibration = ss.calibrate(run.measurement())
        best = run.about["stages"][-1]["rate_per_s"] / ladder.mixed[-1]
        for n in range(ROUNDS):
            for utilisation in UTILISATIONS:
                runs = [loaded(url, utilisation * best, 2.0 * SECONDS, 10 + n, **asks) for _ in range(2)]
                rounds.setdefault(utilisation, []).append(compared(calibration, *runs, measures))
    missed = []
    for utilisation, results in rounds.items():
        missed += show(table, f"language model, {utilisation} of its best rate", results)
    assert not missed


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def completions(file: Path, n: int = 2000, seed: int = 5) -> Path:
    """Write bodies of completions: prompts of 32 to 128 tokens (letters), answers of 16 to 64."""
    random = Random(seed)
    lines = (
        {
            "prompt": "".join(random.choices("abcdefghij", k=random.randint(32, 128))),
            "max_tokens": random.randint(16, 64),
            **{"ignore_eos": True, "cache_prompt": False, "stream": True, "stream_options": {"include_usage": True}},
        }
        for _ in range(n)
    )
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return file
