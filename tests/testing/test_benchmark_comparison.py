"""Checks that a change of a benchmark is reported with its interval, and that noise is not called a change."""

import json
import math
from io import StringIO
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu
from timing_files import document
from typer.testing import CliRunner

from shadowsim import InputError, compare_benchmarks
from shadowsim.cli.main import app
from shadowsim.testing import benchmark_comparison
from shadowsim.testing.benchmark_comparison import COLUMNS, benchmarks_object, benchmarks_text, geometric_mean
from shadowsim.testing.benchmark_files import read_timings


def rounds(seed, n=12, factor=1.0):
    return (factor * np.random.default_rng(seed).lognormal(-3.0, 0.05, n)).tolist()


def several(**timings):
    """A file of several benchmarks."""
    return document([]) | {"benchmarks": [document(data, name)["benchmarks"][0] for name, data in timings.items()]}


def only(table):
    assert len(table) == 1
    return table.iloc[0]


def test_a_slower_version_is_found_with_its_factor():
    row = only(compare_benchmarks(document(rounds(1)), document(rounds(2, factor=1.2))))
    assert row["verdict"] == "slower"
    assert row["low_pct"] < 20.0 < row["high_pct"]
    assert row["low_pct"] < row["change_pct"] < row["high_pct"]
    assert row["p"] < 0.001
    assert row["old_low_s"] < row["old_s"] < row["old_high_s"]
    assert (row["n_old"], row["n_new"], row["method"]) == (12, 12, "rounds")
    back = only(compare_benchmarks(document(rounds(2, factor=1.2)), document(rounds(1))))
    assert back["verdict"] == "faster"
    # a factor and its inverse
    assert (1 + back["change_pct"] / 100) * (1 + row["change_pct"] / 100) == pytest.approx(1.0)


@pytest.mark.slow
def test_intervals_cover_and_alarms_are_rare_where_rounds_are_independent():
    """Nominal 95 %: chance is allowed one in a thousand on either side."""
    n, hits, alarms = 100, 0, 0
    for seed in range(n):
        row = only(compare_benchmarks(document(rounds(seed)), document(rounds(seed + n)), margin_pct=1e-9))
        hits += row["low_pct"] <= 0.0 <= row["high_pct"]
        alarms += row["verdict"] != "~"
        assert (row["verdict"] == "slower") == (row["p"] < 0.05 and row["change_pct"] > 0.0)
    assert hits >= binom.ppf(0.001, n, 0.95)
    assert alarms <= binom.ppf(0.999, n, 0.05)


def test_a_significant_change_within_the_margin_is_none_to_fail_for():
    old, new = document(rounds(1, 200)), document(rounds(2, 200, factor=1.03))
    assert only(compare_benchmarks(old, new))["verdict"] == "within the margin"
    assert only(compare_benchmarks(old, new, margin_pct=1.0))["verdict"] == "slower"


def test_without_rounds_quartiles_say_nearly_the_same():
    """McGill's error of a median is within 20 % of the order statistics' for 200 rounds that are nearly normal."""
    files = []
    for seed, factor in ((1, 1.0), (2, 1.2)):
        data = np.array(rounds(seed, 200, factor))
        low, middle, high = np.quantile(data, [0.25, 0.5, 0.75])
        files.append((document(data.tolist()), document(rounds=200, median=middle, iqr=high - low)))
    rounds_row, short = (only(compare_benchmarks(files[0][i], files[1][i])) for i in (0, 1))
    assert (rounds_row["method"], short["method"]) == ("rounds", "quartiles")
    assert short["verdict"] == rounds_row["verdict"] == "slower"
    assert short["low_pct"] < 20.0 < short["high_pct"]
    assert short["high_pct"] - short["low_pct"] == pytest.approx(
        rounds_row["high_pct"] - rounds_row["low_pct"], rel=0.5
    )
    mixed = only(compare_benchmarks(files[0][0], files[1][1]))
    assert mixed["method"] == "quartiles"
    assert mixed["change_pct"] == pytest.approx(short["change_pct"])


def test_few_rounds_or_no_spread_say_nothing():
    row = only(compare_benchmarks(document([1.0]), document([9.0])))
    assert (row["verdict"], row["p"]) == ("~", 1.0)
    assert math.isnan(row["low_pct"])
    assert math.isnan(row["old_low_s"])
    for n, iqr in ((4, 0.1), (100, 0.0), (1, 0.0)):
        old, new = (document(rounds=n, median=m, iqr=iqr) for m in (1.0, 9.0))
        row = only(compare_benchmarks(old, new))
        assert row["verdict"] == "~"
        assert math.isnan(row["p"])
        assert row["change_pct"] == pytest.approx(800.0)
    zero = only(compare_benchmarks(document([0.0] * 12), document(rounds(1))))
    assert (zero["verdict"], math.isnan(zero["change_pct"])) == ("~", True)


def test_files_of_runs_are_observations_and_rounds_within_them_are_not():
    """Each file is off by a few per cent of its own: rounds call that a change, runs do not."""
    sides = []
    for seed in (0, 50):
        drift = np.random.default_rng(seed).lognormal(0.0, 0.05, 6)
        sides.append([document(rounds(seed + i, 500, drift[i])) for i in range(6)])
    pairs = [only(compare_benchmarks(a, b, margin_pct=0.5)) for a, b in zip(*sides, strict=True)]
    assert sum(row["verdict"] != "~" for row in pairs) >= 4
    together = only(compare_benchmarks(*sides, margin_pct=0.5))
    assert (together["method"], together["n_old"], together["verdict"]) == ("runs", 6, "~")
    slow = [[document(rounds(i, 5, 1.5)) for i in range(6)], [document(rounds(i, 5)) for i in range(6)]]
    assert only(compare_benchmarks(*slow))["verdict"] == "faster"
    with pytest.raises(InputError, match=r"^new: must be several files, .*got 1"):
        compare_benchmarks(sides[0], sides[1][0])


def test_benchmarks_of_one_file_only_are_not_lost():
    old = several(gone=rounds(1), both=rounds(2))
    new = several(both=rounds(3), added=rounds(4))
    table = compare_benchmarks(old, new)
    assert tuple(table.columns) == COLUMNS
    assert table["name"].tolist() == ["both", "added", "gone"]
    assert table["verdict"].tolist() == ["~", "only in new", "only in old"]
    assert table["n_old"].tolist() == [12, 0, 12]
    with pytest.raises(InputError, match=r"^new: must have a benchmark in common"):
        compare_benchmarks(several(a=rounds(1)), several(b=rounds(1)))
    with pytest.raises(InputError, match=r"^margin_pct: must be a finite number > 0"):
        compare_benchmarks(old, new, margin_pct=0.0)
    with pytest.raises(InputError, match=r"^confidence: must be"):
        compare_benchmarks(old, new, confidence=1.0)


def test_the_geometric_mean_is_of_what_both_have():
    table = compare_benchmarks(several(a=[1.0], b=[4.0], gone=[9.0]), several(a=[2.0], b=[4.5]))
    assert geometric_mean(table) == pytest.approx((2.0, 3.0, 50.0))
    assert math.isnan(geometric_mean(table[table["name"] == "gone"])[2])


def test_simulated_figures_that_changed_are_said():
    old, new = document([1.0]), document([1.0])
    old["benchmarks"][0]["extra_info"] = {"verdict": "STABLE", "shadow_p99_s": 0.0709, "requests": 10}
    new["benchmarks"][0]["extra_info"] = {"verdict": "OVERLOADED", "shadow_p99_s": 4.25, "requests": 10}
    changes = "verdict STABLE -> OVERLOADED, shadow_p99_s 0.0709 -> 4.25"
    table = compare_benchmarks(old, new)
    assert only(table)["simulated"] == changes
    assert f"test_a: {changes}" in benchmarks_text(table, read_timings(old), read_timings(new))


def test_the_table_for_people():
    old = several(**{"x.py::test_a": rounds(1), "x.py::test_b": rounds(2), "x.py::test_gone": rounds(3, 4)})
    new = several(**{"x.py::test_a": rounds(4, factor=1.2), "x.py::test_b": rounds(5)})
    new["machine_info"] = {}
    text = benchmarks_text(compare_benchmarks(old, new), read_timings(old), read_timings(new))
    lines = text.splitlines()
    assert lines[0].split() == ["old", "new", "change", "interval", "p", "n"]
    assert lines[1].startswith("test_a ")
    assert lines[1].endswith("slower")
    assert "+-" in lines[1]
    assert lines[2].endswith("12+12")
    assert " ~ " in lines[2]
    assert lines[3].endswith("only in old")
    assert lines[4].startswith("geometric mean")
    assert "1 of 3 slower by more than 5 %." in text
    assert "Rounds of one process" in text
    assert "different machines: m, CPU, Python 3.11.9 and unknown" in " ".join(text.split())
    assert max(map(len, lines)) <= 100
    calm = benchmarks_text(compare_benchmarks(old, old), read_timings(old), read_timings(old))
    assert "Nothing is slower by more than 5 %." in calm
    assert "Fewer than 10" in calm
    assert "Rounds of one process" not in calm
    short = document(rounds=20, median=1.0, iqr=0.1)
    assert "quartiles" in benchmarks_text(compare_benchmarks(short, short), read_timings(short), read_timings(short))


def test_names_keep_their_files_where_they_would_be_alike():
    two = several(**{"x.py::test_a": rounds(1), "y.py::test_a": rounds(2)})
    text = benchmarks_text(compare_benchmarks(two, two), read_timings(two), read_timings(two))
    assert [line.split()[0] for line in text.splitlines()[1:3]] == ["x.py::test_a", "y.py::test_a"]


def test_the_object_for_machines():
    table = compare_benchmarks(several(a=[1.0], b=rounds(1)), several(a=[2.0], b=rounds(2, factor=2.0)))
    summary = benchmarks_object(table)
    assert summary["slower"] == ["b"]
    assert [row["name"] for row in summary["benchmarks"]] == ["a", "b"]
    assert summary["geometric_mean"]["change_pct"] == geometric_mean(table)[2]


def save(path, document):
    path.write_text(json.dumps(document))
    return str(path)


def invoke(*args):
    done = CliRunner().invoke(app, ["benchmark-compare", *args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_the_command_fails_for_what_is_slower(tmp_path):
    old, new = (save(tmp_path / f"{f}.json", document(rounds(i, factor=f))) for i, f in enumerate((1.0, 1.2)))
    done = invoke(old, new)
    assert (done.exit_code, done.stderr) == (1, "")
    assert done.stdout.splitlines()[1].endswith("slower")
    assert "slower by more than 5 %" in done.stdout
    for args in ((new, old), (old, old), (old, new, "--margin", "50%")):
        assert invoke(*args).exit_code == 0
    assert invoke(old, new, "--confidence", "0.9999999").exit_code == 0
    summary = json.loads(invoke(old, new, "--json").stdout)
    assert summary["slower"] == ["a.py::test_a"]
    few = save(tmp_path / "few.json", document([1.0]))
    assert json.loads(invoke(old, few, "--json").stdout)["benchmarks"][0]["low_pct"] is None
    table = pd.read_csv(StringIO(invoke(old, new, "--csv").stdout))
    assert tuple(table.columns) == COLUMNS
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        for i in range(5):
            save(tmp_path / side / f"{i}.json", document(rounds(i, factor=1.0 + 0.5 * (side == "b"))))
    done = invoke(str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.exit_code == 1
    assert " 5+5 " in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.json", "none.json"), "none.json: there is no such file"),
        (("{old}", "{old}", "--margin", "5"), "--margin: must be a percentage such as 5%, or a share such as 0.05"),
        (("{old}", "{old}", "--confidence", "95"), "confidence: must be > 0 and < 1, got 95"),
        (("{old}", "{old}", "--json", "--csv"), "--csv: must not be given together with --json"),
        (("{old}",), "Missing argument 'NEW'"),
    ],
)
def test_slips_are_said_in_a_line(tmp_path, args, message):
    old = save(tmp_path / "old.json", document(rounds(1)))
    done = invoke(*(arg.format(old=old) for arg in args))
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


VALUES = st.lists(st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(-100.0, 100.0)), min_size=1, max_size=12)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_a_medians_interval_is_the_narrowest_that_covers_often_enough(confidence):
    """Number of values below the median: binomial. The interval from the k-th fails with 2 P(B <= k - 1)."""
    for n in range(1, 60):
        interval = benchmark_comparison.median_interval(np.arange(1.0, n + 1.0), confidence)
        k = 0
        while 2 * sum(binom.pmf(range(k + 1), n, 0.5)) <= 1 - confidence + 1e-12:
            k += 1
        assert (k, n + 1 - k) == (interval.low, interval.high) if k else np.isnan(interval.low)
        assert interval.value == (n + 1) / 2
    assert np.isnan(benchmark_comparison.median_interval(np.arange(5.0), 0.95).low)
    assert benchmark_comparison.median_interval(np.arange(6.0), 0.95).low == 0.0


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_shifts_interval_covers_as_often_as_it_says(confidence):
    """All orders of n and m values without a shift are alike: in how many of them does the interval hold 0?"""
    n_with_intervals = 0
    for n in range(1, 5):
        for m in range(n, 6):
            holds = []
            for places in combinations(range(n + m), n):
                x = np.array(places, float)
                y = np.array(sorted(set(range(n + m)) - set(places)), float)
                interval = benchmark_comparison.shift_interval(x, y, confidence)
                # without an interval everything is possible
                holds.append(bool(np.isnan(interval.low)) or interval.low <= 0.0 <= interval.high)
            assert np.mean(holds) >= confidence
            n_with_intervals += np.mean(holds) < 1.0
    assert n_with_intervals


@given(VALUES, VALUES)
def test_the_shift_is_the_median_of_all_differences(x, y):
    x, y = np.array(x), np.array(y)
    differences = np.sort(np.subtract.outer(y, x).ravel())
    assert benchmark_comparison.shift_interval(x, y, 0.9).value == pytest.approx(np.median(differences), abs=1e-12)
    for k in {1, differences.size // 3 + 1, differences.size}:
        difference = benchmark_comparison._difference(np.sort(x), np.sort(y), k)
        assert difference == pytest.approx(differences[k - 1], abs=1e-12)


def test_thousands_of_rounds_take_no_memory_of_their_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.exponential(size=50_000), rng.exponential(size=60_000) + 0.1
    interval = benchmark_comparison.shift_interval(x, y, 0.95)
    assert interval.low < 0.1 < interval.high  # one interval of 95 %, of a fixed seed
    assert interval.high - interval.low < 0.05


def test_p_is_mann_and_whitneys_and_of_equal_constants_one():
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 7.0, 8.0])
    assert benchmark_comparison.p_value(x, y) == pytest.approx(2 / 70)  # 2 of the 70 orders
    assert benchmark_comparison.p_value(x, y) == mannwhitneyu(x, y, method="exact").pvalue
    assert benchmark_comparison.p_value(np.ones(5), np.ones(7)) == 1.0
    assert benchmark_comparison.p_value(np.ones(5), np.full(7, 2.0)) == pytest.approx(1 / 792)  # of C(12, 5) ways
    assert benchmark_comparison.p_value(np.ones(400), np.ones(400)) == 1.0


@pytest.mark.parametrize(("n", "p"), [(3, 2 / 20), (4, 2 / 70), (5, 2 / 252), (8, 2 / 12870)])
def test_few_equal_values_have_the_exact_p_of_distinct_ones(n, p):
    """The normal approximation gives 3 + 3 values of two sizes 0.047, and such samples can never reach 0.05."""
    old, new = np.full(n, 1e-3), np.full(n, 2e-3)
    assert benchmark_comparison.p_value(old, new) == pytest.approx(p, rel=1e-14)
    assert benchmark_comparison.p_value(old + np.arange(n) * 1e-6, new) == pytest.approx(p, rel=1e-14)
    row = only(compare_benchmarks(document(old.tolist()), document(new.tolist())))
    assert row["verdict"] == ("slower" if p < 0.05 else "~")


SMALL = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@given(SMALL, SMALL)
def test_p_is_the_share_of_all_divisions_that_are_as_extreme(x, y):
    """Brute force: U counts pairs; equal ones are halves."""
    values = [*x, *y]

    def distance(places):
        first, rest = [values[i] for i in places], [values[i] for i in range(len(values)) if i not in places]
        u = sum((b > a) + 0.5 * (b == a) for a in first for b in rest)
        return abs(u - len(first) * len(rest) / 2)

    observed = distance(range(len(x)))
    as_extreme = [distance(places) >= observed for places in combinations(range(len(values)), len(x))]
    p = benchmark_comparison.p_value(np.array(x, float), np.array(y, float))
    assert p == pytest.approx(np.mean(as_extreme), rel=1e-12)
    assert benchmark_comparison.p_value(np.array(y, float), np.array(x, float)) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (33, 33), (3, 500), (40, 40), (500, 3)])
def test_p_without_equal_values_is_scipys(n, m):
    """Exact as long as that is cheap, and close to exact beyond."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.normal(0.3, size=m)
    p = benchmark_comparison.p_value(x, y)
    exact = mannwhitneyu(x, y, method="exact").pvalue
    assert p == pytest.approx(exact, rel=1e-10 if benchmark_comparison._is_cheap(n, m) else 0.01)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1), st.sampled_from([0.8, 0.9, 0.95]))
def test_a_shifts_interval_leaves_out_what_the_test_rejects(n, m, seed, confidence):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(1.5, size=m)
    interval = benchmark_comparison.shift_interval(x, y, confidence)
    for shift in rng.normal(1.5, 2.0, size=10):
        inside = bool(np.isnan(interval.low)) or interval.low <= shift <= interval.high
        assert inside == (not benchmark_comparison.p_value(x, y - shift) < 1.0 - confidence)
