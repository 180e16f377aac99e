"""Sweeps: each cell is what `simulate` gives for it, whoever runs it, and nothing finished is run twice."""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product

import pandas as pd
import pytest
from cases import scenario, service
from pandas.testing import assert_frame_equal

from shadowsim import ExecutorError, InputError, Scenario, replication, simulate, sweep
from shadowsim.planning import sweep as sweeps
from shadowsim.verdict import uncertain_quantiles

BASE = scenario({"process": "poisson", "rate_per_s": 20.0}, service(mean_s=0.05, workers=2))
GRID = {
    "sampling_percentage": [0, 25, 100],
    "shadow.time": [0.04, {"law": "exponential", "mean_s": 0.08}],
}


def same_to_the_bit(a, b):
    assert_frame_equal(a, b, check_exact=True)


def many(n):
    """As many small cells, no two alike."""
    means_s = [0.05 + 0.001 * i for i in range(n // 10)]
    return {"shadow.time.mean_s": means_s, "sampling_percentage": range(10, 101, 10)}


def counting(monkeypatch):
    """Return a list of the runs that this process makes from now on."""
    names = []

    def counted(task, *args, **more):
        names.append(task.name)
        return run_task(task, *args, **more)

    run_task = sweeps.run_task
    monkeypatch.setattr(sweeps, "run_task", counted)
    return names


@pytest.fixture
def count(monkeypatch):
    return counting(monkeypatch)


@pytest.mark.parametrize("replications", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_each_row_is_what_simulate_says(replications):
    frame = sweep(BASE, GRID, replications=replications)
    expected = []
    for share, law in product(*GRID.values()):
        cell = BASE.replace({"sampling_percentage": share, "shadow.time": law})
        for r in range(replications):
            result = simulate(replication(cell, r) if replications > 1 else cell)
            text = law if isinstance(law, float) else "law=exponential mean_s=0.08"
            for variant, row in result.summary(standard_errors=False).iterrows():
                settings = {"sampling_percentage": share, "shadow.time": str(text)}
                expected.append(settings | {"replication": r, "variant": variant} | dict(row))
                expected[-1]["run_verdict"] = result.verdict.status
                uncertain = uncertain_quantiles(result.windows, result.scenario)[variant]
                expected[-1]["uncertain"] = ", ".join(
                    name for name in result.summary(standard_errors=False) if name in uncertain
                )
    expected = pd.DataFrame(expected).astype({"captured_bytes": "Int64"})
    same_to_the_bit(frame, expected)
    assert (frame["p99_s"].isna() == ((frame["role"] == "shadow") & (frame["sampling_percentage"] == 0))).all()


def test_all_cells_see_the_same_source():
    """Common random numbers."""
    frame = sweep(BASE, GRID, replications=2)
    source = frame[frame["role"] == "source"].drop(columns=[*GRID, "run_verdict"])
    for _, rows in source.groupby("replication"):
        assert len(rows.drop_duplicates()) == 1
    assert source["mean_s"].nunique() == 2


def test_a_rate_that_is_set_and_one_that_is_achieved():
    frame = sweep(BASE, {"rate_per_s": [10, 40]})
    assert frame["rate_per_s"].tolist() == [10, 10, 40, 40]
    source = frame[frame["role"] == "source"]
    assert (source["achieved_rate_per_s"] == source["requests"] / BASE.horizon_s).all()


def test_replications_are_the_scenarios_own_unless_said():
    several = BASE.replace({"run.replications": 3})
    frame = sweep(several, {"seed": [1, 2]})
    assert frame["replication"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    same_to_the_bit(frame, sweep(BASE, {"seed": [1, 2]}, replications=3))
    assert sweep(several, {"seed": [1]}, replications=1)["replication"].tolist() == [0, 0]


def test_same_bits_on_one_thread_on_several_and_on_any_executor():
    expected = sweep(BASE, GRID, workers=1)
    same_to_the_bit(expected, sweep(BASE, GRID, workers=3))
    with ThreadPoolExecutor(2) as threads:
        same_to_the_bit(expected, sweep(BASE, GRID, threads, workers=5))


@contextmanager
def killing(pids, when):
    """Kill one of some processes as soon as it is time."""
    over = threading.Event()

    def wait():
        while not over.wait(0.005):
            if when():
                os.kill(pids()[0], signal.SIGKILL)
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_processes_and_the_death_of_one(tmp_path, monkeypatch):
    """A pool is of no use once a process of it has died: what was finished is kept, and the next sweep goes on."""
    grid, n = many(60), 60
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang

    def kept():
        return len(list(tmp_path.glob("*.json")))

    def children():
        return [child.pid for child in multiprocessing.active_children()]

    with ProcessPoolExecutor(2, mp_context=context) as processes:
        same_to_the_bit(sweep(BASE, GRID, processes), sweep(BASE, GRID))
        with killing(children, lambda: kept() >= 5), pytest.raises(ExecutorError) as caught:
            sweep(BASE, grid, processes, cache=tmp_path, workers=4)
        with pytest.raises(ExecutorError, match="0 of 6 runs were finished and are lost, since"):
            sweep(BASE, GRID, processes)
    finished = kept()
    assert 5 <= finished < n
    assert str(caught.value).startswith("executor: ")
    assert str(caught.value).endswith(
        f"; {finished} of {n} runs were finished and are kept in {tmp_path}: the same sweep with that cache continues "
        "from there"
    )
    count = counting(monkeypatch)
    resumed = sweep(BASE, grid, cache=tmp_path)
    assert len(count) == n - finished
    count.clear()
    same_to_the_bit(resumed, sweep(BASE, grid, cache=tmp_path))
    assert count == []


def test_what_is_finished_is_not_run_again(tmp_path, count):
    first = sweep(BASE, GRID, cache=tmp_path)
    assert len(count) == 6
    wider = GRID | {"sampling_percentage": [25, 50]}
    # The path and the order of a grid do not matter to a cache, nor what changes no figure.
    sweep(BASE.replace({"run.sample_requests": 5}), wider, cache=str(tmp_path))
    assert len(count) == 6 + 2
    same_to_the_bit(first, sweep(BASE, GRID, cache=tmp_path))
    assert len(count) == 8
    same_to_the_bit(first, sweep(BASE, GRID))


def test_more_replications_later_run_only_those(tmp_path, count):
    sweep(BASE, {"seed": [1, 2]}, replications=2, cache=tmp_path)
    sweep(BASE, {"seed": [1, 2]}, replications=5, cache=tmp_path)
    assert len(count) == 10
    assert len(set(count)) == 10


def test_a_spoilt_file_is_run_again(tmp_path, count):
    first = sweep(BASE, GRID, cache=tmp_path)
    torn, foreign = sorted(tmp_path.iterdir())[:2]
    torn.write_bytes(torn.read_bytes()[:100])
    foreign.write_text("{}")
    (tmp_path / "notes.txt").write_text("not ours, and left alone")
    count.clear()
    with pytest.warns(UserWarning, match="its cell is run again") as warned:
        same_to_the_bit(first, sweep(BASE, GRID, cache=tmp_path))
    assert len(count) == len(warned) == 2
    assert (tmp_path / "notes.txt").exists()


def test_sweeps_that_share_a_directory(tmp_path):
    """Two at once, in opposite order: each is complete, and together they leave one file per run."""
    turned = GRID | {"sampling_percentage": GRID["sampling_percentage"][::-1]}
    with ThreadPoolExecutor(2) as both:
        one, other = both.map(lambda grid: sweep(BASE, grid, cache=tmp_path, workers=1), [GRID, turned])
    same_to_the_bit(one, sweep(BASE, GRID))
    same_to_the_bit(other, sweep(BASE, turned))
    assert len(list(tmp_path.iterdir())) == 6


def test_an_interrupt_keeps_what_is_finished(tmp_path, monkeypatch):
    run_task = sweeps.run_task

    def interrupted(task, advance):
        rows = run_task(task)
        if task.number == 5:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            for _ in range(60_000):  # ends when it is given up
                time.sleep(0.001)
                advance(1)
        return rows

    monkeypatch.setattr(sweeps, "run_task", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        sweep(BASE, GRID, cache=tmp_path, workers=1)
    assert len(list(tmp_path.iterdir())) == 5
    (note,) = caught.value.__notes__
    assert note.startswith("5 of 6 runs were finished and are kept in")


def test_a_data_file_that_changes(tmp_path, count):
    def times(values):
        (tmp_path / "times.csv").write_text("s\n" + "\n".join(map(str, values)))

    times([0.1, 0.2, 0.3])
    law = {"law": "empirical", "path": "times.csv"}
    s = scenario({"process": "poisson", "rate_per_s": 20.0}, {"time": law, "workers": 4}, base_dir=tmp_path)
    first = sweep(s, {"seed": [1, 2]}, cache=tmp_path / "cache")
    same_to_the_bit(first, sweep(s, {"seed": [1, 2]}, cache=tmp_path / "cache"))
    assert len(count) == 2
    times([0.1, 0.2, 0.3, 0.4])
    other = sweep(s, {"seed": [1, 2]}, cache=tmp_path / "cache")
    assert len(count) == 4
    assert (other["mean_s"] > first["mean_s"]).all()


def test_a_worker_that_sees_other_files_or_code(monkeypatch):
    """As it would be on another machine: its key of the run is not the sweep's."""
    keys = iter(range(10))
    monkeypatch.setattr(sweeps, "key_of", lambda *_: str(next(keys)))
    with pytest.raises(InputError, match=r"grid: cell 0 \(seed=1\): executor: its worker has another version of"):
        sweep(BASE, {"seed": [1]})


def test_a_run_that_fails_is_named(monkeypatch, tmp_path):
    run = sweeps.run

    def failing(s, **more):
        if s.seed == 3:
            raise MemoryError("too much")
        return run(s, **more)

    monkeypatch.setattr(sweeps, "run", failing)
    with pytest.raises(MemoryError, match="too much") as caught:
        sweep(BASE, {"seed": [1, 2, 3, 4]}, cache=tmp_path, workers=1)
    assert caught.value.__notes__[0] == "in cell 2 (seed=3)"
    assert caught.value.__notes__[1].startswith("2 of 4 runs were finished and are kept in")


def test_nothing_is_run_and_nothing_written_for_bad_input(tmp_path, count):
    for arguments, message in (
        ({"grid": {"sampling_percentage": [10, 101]}}, r"grid: cell 1 \(sampling_percentage=101\)"),
        ({"replications": 0}, "replications: must be an integer from 1"),
        ({"replications": True}, "replications: must be an integer from 1"),
        ({"workers": 0}, "workers: must be a whole number >= 1"),
        ({"scenario": tmp_path / "none.json"}, "there is no such file"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(**({"scenario": BASE, "grid": GRID, "cache": tmp_path / "cache"} | arguments))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache: cannot be a directory"):
        sweep(BASE, GRID, cache=tmp_path / "file")
    assert count == []
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_plain_request_and_progress(capsys):
    request = BASE.document["experiment"]
    frame = sweep(request, {"horizon_s": [60.0, 120.0]}, rate_per_s=30.0, progress=True)
    assert frame["horizon_s"].tolist() == [60.0, 60.0, 120.0, 120.0]
    assert "/2 [" in capsys.readouterr().err
    again = Scenario.of(request, 30.0).replace({"horizon_s": 120.0})
    assert simulate(again).summary()["p99_s"].tolist() == frame["p99_s"].tolist()[2:]


@contextmanager
def cluster():
    from dask.distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, **options) as local, Client(local) as client:
        yield client


@pytest.mark.slow
def test_a_dask_cluster():
    expected = sweep(BASE, GRID)
    with cluster() as client:
        same_to_the_bit(expected, sweep(BASE, GRID, client.get_executor()))


@pytest.mark.long
def test_a_thousand_cells_on_a_cluster_and_a_worker_killed_in_the_middle(tmp_path):
    expected = sweep(BASE, many(1000))
    assert len(expected) == 2000
    assert len(expected.loc[expected["role"] == "shadow"].drop_duplicates("mean_s")) > 990
    with cluster() as client:
        same_to_the_bit(expected, sweep(BASE, many(1000), client.get_executor()))
        before = set(client.run(os.getpid).values())
        with killing(lambda: sorted(before), lambda: len(list(tmp_path.glob("*.json"))) >= 100):
            with_a_death = sweep(BASE, many(300), client.get_executor(), cache=tmp_path)
        client.wait_for_workers(2)
        assert len(before & set(client.run(os.getpid).values())) == 1
    same_to_the_bit(expected[:600], with_a_death)
    assert len(list(tmp_path.glob("*.json"))) == 300
