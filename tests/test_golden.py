"""The golden set: what an earlier version wrote is read as before, and its scenarios give the same bits."""

import json
import shutil

import pytest
from golden_set import GOLDEN, SWEPT, command_keys, described, digests
from rehearsed_account import T0

from shadowsim import Result, Scenario, simulate, sweep
from shadowsim.server.state.store import Store

NAMES = sorted(file.stem for file in (GOLDEN / "scenarios").glob("*.json"))


def expected(name):
    return json.loads((GOLDEN / name).read_text())


def same_rows(frame, rows):
    """Compare every bit of the columns that there were; later versions may add some."""
    assert len(frame) == len(rows)
    for name in rows[0]:
        values = [None if value is None or value != value else value for value in frame[name].tolist()]
        assert values == [row[name] for row in rows], name


def test_there_are_thirteen():
    assert len(NAMES) == 13
    assert set(expected("frames.json")) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_the_same_to_the_bit(name):
    result = simulate(Scenario.load(GOLDEN / "scenarios" / f"{name}.json"))
    assert digests(result) == expected("frames.json")[name]


def test_a_saved_run_is_read_and_compared_as_before():
    result = Result.load(GOLDEN / "run")
    before = expected("run/expected.json")
    assert digests(result) == before["frames"]
    same_rows(result.compare(), before["compare"])


def test_a_sweep_gives_the_same_rows_and_does_not_believe_the_cache_of_other_code(tmp_path):
    cache = shutil.copytree(GOLDEN / "sweep_cache", tmp_path / "cache")
    files = set(cache.iterdir())
    base = Scenario.load(GOLDEN / "scenarios" / "random_poisson.json").replace({"horizon_s": 120})
    same_rows(sweep(base, SWEPT, cache=cache), expected("sweep.json"))
    assert len(files) == 4
    assert len(set(cache.iterdir()) - files) == 4  # all four cells were run again


def test_a_servers_database_is_read_as_before(tmp_path):
    path = shutil.copy(GOLDEN / "server.db", tmp_path / "server.db")
    store = Store(path, wall=lambda: T0, steady=lambda: T0)
    try:
        assert json.loads(json.dumps(described(store))) == expected("server.json")
    finally:
        store.close()


@pytest.mark.slow
def test_every_command_prints_the_keys_of_before():
    keys, before = command_keys(GOLDEN), expected("json_keys.json")
    assert set(keys) == set(before)
    for name in before:
        assert _contains(keys[name], before[name]), name


def _contains(keys, before):
    """Tell whether a shape has all keys of an earlier one, at the same places."""
    if isinstance(before, dict):
        return isinstance(keys, dict) and all(k in keys and _contains(keys[k], v) for k, v in before.items())
    if isinstance(before, list):
        return isinstance(keys, list) and bool(keys) and _contains(keys[0], before[0])
    return before == keys
