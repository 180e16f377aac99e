"""Replications: their seeds, the same bits on every executor, and their summary."""

import io
import json
import math
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from cases import dask_executor, scenario, service
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from shadowsim import InputError, Result, Scenario, default_scenario, replicate, replication, simulate, summarise
from shadowsim.engine import replicate as replications

G, WORD = 0x9E3779B97F4A7C15, 2**64


def mix(z):
    """splitmix64's finaliser in Python's own integers (Steele, Lea and Flood, 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def same_to_the_bit(a, b):
    assert a.scenario == b.scenario
    for name in ("windows", "latency", "requests"):
        assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True, obj=name)


def small(**run):
    return scenario({"process": "poisson", "rate_per_s": 5.0}, service(mean_s=0.1), horizon_s=600.0, **run)


@given(st.integers(0, WORD - 1), st.integers(0, 10**5 - 1))
def test_seeds_are_as_published(seed, r):
    one = replication(SMALL.replace({"seed": seed, "run.replications": 4}), r)
    assert one.seed == mix((mix(seed) + G * (r + 1)) % WORD)
    assert one.replications == 1


SMALL = small()


def test_a_vector_of_seeds():
    """A published vector, for comparison with other programs."""
    assert [replication(default_scenario(), r).seed for r in range(3)] == [
        mix((mix(7) + G * n) % WORD) for n in (1, 2, 3)
    ]
    assert mix(G) == 0xE220A8397B1DCDAF  # splitmix64's published first number for seed 0


def test_a_replication_is_what_its_file_says(tmp_path):
    (tmp_path / "t.csv").write_text("time\n0\n1\n5\n")
    for s in (small(replications=3), scenario({"process": "trace", "path": "t.csv"}, base_dir=tmp_path)):
        one = replication(s, 2)
        assert Scenario.from_dict(one.to_dict(), s.base_dir) == one
        assert one == s.replace({"seed": one.seed, "run.replications": 1})


def test_each_is_a_run_of_its_own_and_simulate_is_one_run():
    s = small(replications=3)
    results = replicate(s)
    assert len(results) == 3
    for r, result in enumerate(results):
        same_to_the_bit(result, simulate(replication(s, r)))
    arrivals = [set(x.requests["arrival_s"]) for x in (*results, simulate(s))]
    assert all(not a & b for i, a in enumerate(arrivals) for b in arrivals[:i])
    assert simulate(s).scenario == s


@pytest.mark.slow
def test_the_same_bits_on_every_executor():
    s = small(replications=3)
    results = replicate(s, workers=1)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(2, mp_context=context) as processes, ThreadPoolExecutor(3) as threads:
        others = [replicate(s, workers=3), replicate(s, executor=threads), replicate(s, executor=processes)]
    for other in others:
        for a, b in zip(results, other, strict=True):
            same_to_the_bit(a, b)
    assert [x.scenario.seed for x in replicate(s, 2)] == [x.scenario.seed for x in results[:2]]


@pytest.mark.slow
def test_the_same_bits_from_a_dask_cluster():
    with dask_executor() as executor:
        far = replicate(SMALL, 2, executor=executor)
    for a, b in zip(replicate(SMALL, 2), far, strict=True):
        same_to_the_bit(a, b)


@pytest.mark.slow
def test_replications_are_as_good_as_independent():
    """The number of Poisson arrivals in windows of different replications: uncorrelated, and its variance its mean.

    1,000 windows of 300 requests each and 10 replications: a correlation of two has the standard error 1/sqrt(1000),
    the variance over the mean sqrt(2/9) a window, so sqrt(2/9000) in the mean.
    """
    s = scenario({"process": "poisson", "rate_per_s": 5.0}, service(mean_s=0.01), horizon_s=60_000.0, sample_requests=0)
    windows = [x.windows for x in replicate(s, 10)]
    counts = np.array([w.loc[w["role"] == "source", "Invocations"] for w in windows], float)
    assert counts.shape == (10, 1000)
    off = np.corrcoef(counts)[np.triu_indices(10, 1)]
    assert np.abs(off).max() < 4.5 / math.sqrt(1000)  # of 45: a chance of 3 in 10,000
    assert abs((counts.var(axis=0, ddof=1) / 300).mean() - 1) < 4 * math.sqrt(2 / 9000)


def test_the_interval_is_students():
    """The table's t(0.975; 2) is 4.303 (Student, 1908, as printed since)."""
    results = replicate(small(), 3)
    table = summarise(results).set_index(["variant", "figure"])
    assert table.index.get_level_values("variant").unique().tolist() == ["Source", "Shadow"]
    for variant in ("Source", "Shadow"):
        for figure in ("p99_s", "wait_mean_s", "requests"):
            values = [float(x.summary().loc[variant, figure]) for x in results]
            row = table.loc[(variant, figure)]
            assert row["mean"] == pytest.approx(statistics.fmean(values))
            assert row["half_width"] == pytest.approx(4.303 * statistics.stdev(values) / math.sqrt(3), rel=2e-4)
            assert row["n"] == 3
    nothing = summarise(replicate(small(), 2)[:1] + replicate(small().replace({"sampling_percentage": 0}), 1))
    row = nothing.set_index(["variant", "figure"]).loc[("Shadow", "p99_s")]
    assert (row["n"], math.isnan(row["half_width"])) == (1, True)  # a run without copies has no p99
    assert summarise(results[:1])["half_width"].isna().all()
    assert set(table.index.get_level_values("figure")) == set(results[0].summary(standard_errors=False)) - {
        "role", "verdict", "instance_type", "instance_count", "billed_instances",
    }  # fmt: skip


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    """M/M/1 at load 0.5 waits 1 service time in the mean: 100 intervals of 5 short runs each cover it 95 times in 100.

    Four standard errors of a share of 100 at 0.95 are 0.087. Runs of 20,000 services begin empty, which biases their
    mean by less than 10 / 20,000, a thirtieth of the half-width.
    """
    s = scenario(
        {"process": "poisson", "rate_per_s": 0.5}, service(mean_s=1.0), share=0, horizon_s=40_000.0, sample_requests=0,
        period_s=40_000.0,
    )  # fmt: skip
    results = replicate(s, 500)
    covered = 0
    for i in range(0, 500, 5):
        table = summarise(results[i : i + 5]).set_index(["role", "figure"]).loc[("source", "wait_mean_s")]
        covered += abs(table["mean"] - 1.0) <= table["half_width"]
    assert abs(covered / 100 - 0.95) < 0.087


def test_the_worst_verdict_counts():
    good, bad = small(), small().replace({"rate_per_s": 20.0})
    few = small().replace({"rate_per_s": 0.1})
    results = [simulate(s) for s in (small().replace({"rate_per_s": 5.0, "horizon_s": 6000.0}), few, bad)]
    assert [x.verdict.status for x in results] == ["STABLE", "TOO SHORT", "OVERLOADED"]
    assert replications.worst(results).status == "OVERLOADED"
    assert replications.worst(results[:2]).status == "TOO SHORT"
    assert replications.worst([results[0], simulate(good)]).status in ("STABLE", "TOO SHORT")


def test_an_interrupt_ends_all_runs(monkeypatch):
    """A progress bar that raises stands for Ctrl-C after the first of many runs."""
    seen = []

    def advance(n_windows):
        seen.append(n_windows)
        raise KeyboardInterrupt

    monkeypatch.setattr(replications, "progress_bar", lambda total, wanted: nullcontext(advance))
    with pytest.raises(KeyboardInterrupt):
        replicate(SMALL, 10_000, workers=2)
    assert 1 <= len(seen) <= 4  # what was ready at once is passed on


def test_a_failure_reaches_the_caller():
    class Refusing(ThreadPoolExecutor):
        def submit(self, work, r):
            return super().submit(len if r == 1 else work, r)

    with Refusing(1) as threads, pytest.raises(TypeError):
        replicate(SMALL, 3, executor=threads)


SHORT = ("simulate", "--set", "horizon_s=600", "--set", "run.replications=3")


def cli(*args):
    return run(*SHORT, *args)


def test_the_command_line_shows_means_and_half_widths(tmp_path):
    done = cli("-o", tmp_path)
    assert done.exit_code == 0
    assert done.stderr.endswith("3 replications\n")
    lines = done.stdout.splitlines()
    rows = {line[:13].strip(): line[13:] for line in lines}
    assert rows["worst verdict"].split() == ["STABLE", "STABLE"]
    assert rows["p99"].count(" +- ") == 2
    assert rows["errors"].split() == ["none", "none"]
    assert "\nworst of 3 replications: STABLE: " in done.stdout
    assert lines[-1].startswith(f"wrote {tmp_path / 'replication-0'} to replication-2 (")
    assert max(map(len, lines[:-1])) <= 80
    assert done.stdout.isascii()
    results = replicate(default_scenario().replace({"horizon_s": 600}), 3)
    for r, result in enumerate(results):
        same_to_the_bit(result, Result.load(tmp_path / f"replication-{r}"))


@pytest.mark.slow
def test_the_command_line_for_machines():
    table = summarise(replicate(default_scenario().replace({"horizon_s": 600}), 3))
    printed = json.loads(cli("--json").stdout)
    assert (printed["replications"], printed["verdict"], len(set(printed["seed"]))) == (3, "STABLE", 3)
    for variant in printed["variants"]:
        rows = table[table["variant"] == variant["variant"]]
        assert {key for key, value in variant.items() if isinstance(value, dict)} == set(rows["figure"])
        for row in rows.itertuples():
            assert variant[row.figure] == {
                "mean": row.mean, "half_width": row.half_width, "standard_error": row.standard_error
            }  # fmt: skip
    csv = pd.read_csv(io.StringIO(cli("--csv").stdout))
    assert_frame_equal(csv, table, check_exact=False, rtol=1e-12)


@pytest.mark.slow
def test_the_command_line_fails_for_the_worst():
    done = cli("--strict", "--set", "shadow.time.mean_s=0.2")
    assert done.exit_code == 1
    assert "worst of 3 replications: OVERLOADED: " in done.stdout
    assert "* the pool is OVERLOADED" in done.stdout
    assert next(line for line in done.stdout.splitlines() if "p99 " in line).endswith("s *")
    assert max(map(len, done.stdout.splitlines())) <= 80
    empty = cli("--set", "sampling_percentage=0")
    assert next(line for line in empty.stdout.splitlines() if "p99 " in line).endswith("  -")
    shadow = json.loads(cli("--set", "sampling_percentage=0", "--json").stdout)["variants"][1]
    assert shadow["p99_s"] == {"mean": None, "half_width": None, "standard_error": None}


def test_the_command_line_makes_no_page_of_several_runs():
    done = cli("--report")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --report: makes a page of one run; use -o DIR")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n": 0}, "n: must be an integer from 1 to 100000, got 0"),
        ({"workers": 0}, "workers: must be a whole number >= 1"),
        ({"workers": 2, "executor": "any"}, "workers: must not be given together with an executor"),
    ],
)
def test_slips(more, words):
    with pytest.raises(InputError, match=words):
        replicate(SMALL, **more)
    with pytest.raises(InputError, match="results: must hold at least one"):
        summarise([])
    with pytest.raises(InputError, match="confidence: must be > 0 and < 1, got 95"):
        summarise([None], confidence=95)
    with pytest.raises(InputError, match="r: must be an integer from 0"):
        replication(SMALL, -1)


def test_a_wanted_precision_decides_how_many_runs_there_are():
    wanted = {"metric": "source.mean", "relative": 0.05, "max_replications": 200}
    made = small().replace({"run.precision": wanted})
    results = replicate(made)
    reached = replications.precision_reached(results)
    table = summarise(results).set_index(["role", "figure"]).loc[("source", "mean_s")]
    assert reached.reached
    assert reached.n == len(results) >= 10
    assert reached.relative["source"] <= 0.05
    assert table["half_width"] / table["mean"] == pytest.approx(reached.relative["source"])
    assert f"reached after {len(results)} replications" in str(reached)
    # neither the workers nor the precision change a run, and none is longer
    again = replicate(made, workers=1)
    assert [r.scenario.seed for r in again] == [replication(made, i).seed for i in range(len(results))]
    assert all(made.horizon_s == r.scenario.horizon_s for r in results)
    assert len(replicate(made, 3)) == 3


def test_the_most_runs_are_stated_when_they_do_not_reach_it():
    wanted = {"metric": "p99", "relative": 1e-4, "max_replications": 12}
    reached = replications.precision_reached(replicate(small().replace({"run.precision": wanted})))
    assert (reached.n, reached.reached) == (12, False)
    assert "not reached with 12 replications" in str(reached)
    assert "12 are the most" in str(reached)
    assert set(reached.relative) == {"source", "shadow"}


@pytest.mark.parametrize(
    ("changes", "metric", "why"),
    [({}, "error_rate", "is 0"), ({"sampling_percentage": 0}, "shadow.mean", "no such figure")],
)
def test_a_figure_that_is_zero_or_missing_ends_it_after_ten_runs(changes, metric, why):
    results = replicate(small().replace({**changes, "run.precision": {"metric": metric, "relative": 0.1}}))
    assert len(results) == 10
    assert why in str(replications.precision_reached(results))


def test_no_precision_is_asked_for_by_default():
    assert replications.precision_reached(replicate(small(), 2)) is None


PRECISE = [
    *("simulate", "--set", 'traffic={"process":"poisson","rate_per_s":300}', "--set", "horizon_s=100"),
    *("--set", "run.period_s=1", "--set", "run.warmup_s=9.5", "--set", "run.precision=0.05", "-q"),
]


@pytest.mark.slow
def test_the_command_shows_precision_warm_up_and_theory():
    text = " ".join(run(*PRECISE).stdout.split())
    assert "Warm-up: figures leave out the first 10.0 s, in whole sections." in text
    assert "mean of source and shadow to within 5 % reached after 10 replications (source" in text
    assert "says that AllTraffic's wait mean is" in text


@pytest.mark.slow
def test_the_command_gives_machines_the_precision_and_the_warm_up():
    said = json.loads(run(*PRECISE, "--json").stdout)
    assert said["precision"]["reached"]
    assert said["precision"]["replications"] == said["replications"] == 10
    assert said["warmup_s"] == [10.0] * 10
    assert set(said["variants"][0]["mean_s"]) == {"mean", "half_width", "standard_error"}
