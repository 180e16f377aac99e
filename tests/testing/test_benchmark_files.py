"""Checks the reading of pytest-benchmark's files: with rounds and without, one and several."""

import json

import numpy as np
import pytest
from timing_files import document

from shadowsim import InputError, SerializationError
from shadowsim.testing.benchmark_files import read_timings


def test_rounds_are_read_and_quartiles_where_there_are_none():
    timing = read_timings(document([3.0, 1.0, 2.0, 5.0, 4.0], rounds=5)).by_name["a.py::test_a"]
    assert (timing.n, timing.median_s, timing.range_s) == (5, 3.0, 2.0)
    assert timing.observed_s.tolist() == [3.0, 1.0, 2.0, 5.0, 4.0]
    timing = read_timings(document(rounds=7, median=0.5, iqr=0.1, mean=0.6)).by_name["a.py::test_a"]
    assert (timing.n, timing.median_s, timing.range_s, timing.observed_s) == (7, 0.5, 0.1, None)


def test_several_files_are_an_observation_each(tmp_path):
    for i, rounds in enumerate(([1.0, 2.0, 30.0], [4.0], [3.0, 3.0])):
        (tmp_path / f"000{i}.json").write_text(json.dumps(document(rounds, machine=f"m{i % 2}")))
    for timings in (read_timings(tmp_path), read_timings(str(tmp_path)), read_timings(sorted(tmp_path.glob("*.json")))):
        assert timings.n_files == 3
        assert timings.by_name["a.py::test_a"].observed_s.tolist() == [2.0, 4.0, 3.0]
        assert timings.machines == ("m0, CPU, Python 3.11.9", "m1, CPU, Python 3.11.9")


def test_what_pythons_json_writes_is_read():
    """pytest-benchmark writes NaN and Infinity as Python does, such as the operations a second of no time."""
    text = json.dumps(document([0.0, 0.0], ops=float("inf"), stddev=float("nan")))
    assert "Infinity" in text
    assert read_timings(text).by_name["a.py::test_a"].median_s == 0.0


def test_simulated_figures_are_kept_and_other_notes_left():
    one = document([1.0])
    one["benchmarks"][0]["extra_info"] = {"verdict": "STABLE", "requests_per_s": 1.0, "mine": 2}
    assert read_timings(one).by_name["a.py::test_a"].simulated == {"verdict": "STABLE"}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({}, r"^old: must be a file of pytest-benchmark"),
        ({"benchmarks": {}}, r"^old: must be a file of pytest-benchmark"),
        ({"benchmarks": [1]}, r"^old: benchmarks\.0\.fullname: must be a string"),
        ({"benchmarks": [{"fullname": "a"}]}, r"^old: benchmarks\.0\.stats: must be an object"),
        ({"benchmarks": [{"fullname": "a", "stats": {}}]}, r"^old: benchmarks\.0\.stats\.rounds: must be a finite"),
        ({"benchmarks": [{"fullname": "a", "stats": {"rounds": 3}}]}, r"stats\.median: must be a finite number"),
        ({"benchmarks": [{"fullname": "a", "stats": {"data": [1.0, "2"]}}]}, r"stats\.data: must be a finite number"),
        ({"benchmarks": [{"fullname": "a", "stats": {"data": [-1.0]}}]}, r"stats\.data: .*>= 0, got -1"),
        ({"benchmarks": [{"fullname": "a", "stats": {"data": [np.inf]}}]}, r"stats\.data: must be a finite number"),
        ({"benchmarks": [document([1.0])["benchmarks"][0]] * 2}, r"benchmarks\.1\.fullname: occurs twice"),
    ],
)
def test_what_is_none_of_pytest_benchmarks_is_refused(broken, message):
    with pytest.raises(InputError, match=message):
        read_timings(broken, "old")


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: there is no such file"):
        read_timings(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"holds no file \*\.json"):
        read_timings(tmp_path)
    with pytest.raises(InputError, match=r"^new: must hold at least one file"):
        read_timings([], "new")
    (tmp_path / "torn.json").write_text('{"benchmarks": [')
    with pytest.raises(SerializationError, match=r"torn\.json: broken JSON"):
        read_timings(tmp_path)
