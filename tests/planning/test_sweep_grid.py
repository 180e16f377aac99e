"""Grids: which cells there are, in which order, and what is wrong before anything is run."""

import json
from itertools import product

import numpy as np
import pytest
from cases import scenario
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim import InputError
from shadowsim.planning.sweep_grid import MAX_CELLS, cells_of, columns_of, grid_of, label

BASE = scenario({"process": "poisson", "rate_per_s": 5.0})
EXPONENTIAL, LOGNORMAL = {"law": "exponential", "mean_s": 0.3}, {"law": "lognormal", "mean_s": 0.3, "scv": 2.0}


def test_a_product_varies_its_last_path_fastest():
    grid = {"sampling_percentage": [10, 50], "shadow.instance_count": range(1, 4)}
    cells = cells_of(BASE, grid)
    assert [tuple(c.settings.values()) for c in cells] == list(product([10, 50], [1, 2, 3]))
    assert columns_of(BASE, cells) == {
        "sampling_percentage": [10, 10, 10, 50, 50, 50],
        "shadow.instance_count": [1, 2, 3] * 2,
    }


def test_a_cell_is_the_scenario_with_its_settings():
    grid = {"source.workers": np.array([1, 3]), "shadow.time": [EXPONENTIAL], "mirror.rule": ("coin", "counter")}
    for cell in cells_of(BASE, grid):
        assert json.loads(cell.document) == BASE.replace(cell.settings).to_dict()


def test_no_path_at_all_is_the_scenario_itself():
    (cell,) = cells_of(BASE, {})
    assert json.loads(cell.document) == BASE.to_dict()


def test_listed_cells_and_the_scenarios_own_values_in_between():
    cells = cells_of(BASE, [{"seed": 3}, {"shadow.workers": 4, "mirror.rule": "counter"}, {}])
    columns = columns_of(BASE, cells)
    own_seed = BASE.document["run"].get("seed")
    assert columns == {
        "seed": [3, own_seed, own_seed],
        "shadow.workers": [1, 4, 1],
        "mirror.rule": [None, "counter", None],
    }


def test_settings_are_made_in_the_grids_order():
    (cell,) = cells_of(BASE, [{"shadow.time": LOGNORMAL, "shadow.time.mean_s": 0.5}])
    assert json.loads(cell.document)["services"]["Shadow"]["time"] == LOGNORMAL | {"mean_s": 0.5}


def test_objects_and_lists_become_texts():
    cells = cells_of(BASE, {"shadow.time": [0.02, EXPONENTIAL, LOGNORMAL], "seed": [2**64 - 1]})
    columns = columns_of(BASE, cells)
    assert columns["shadow.time"] == ["0.02", "law=exponential mean_s=0.3", "law=lognormal mean_s=0.3 scv=2.0"]
    assert columns["seed"] == [2**64 - 1] * 3
    assert label([1.0, {"a": None, "b": [True]}]) == "[1.0, {a=null b=[true]}]"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sampling_percentage": [10, 200]}, r"grid: cell 1 \(sampling_percentage=200\): .*less than or equal to 100"),
        (
            {"seed": [1], "shadow.worker": [2]},
            r"grid: cell 0 \(seed=1, shadow.worker=2\): .*did you mean shadow.workers",
        ),
        ({"seed": [1, -1]}, r"grid: cell 1 \(seed=-1\): run.seed: must be an integer"),
        (
            [{"seed": 1}, {"rate_per_s": np.nan}],
            r"grid: cell 1 \(rate_per_s=nan\): traffic.rate_per_s: must be a finite",
        ),
        ([{"seed": 1, "run.seed": 2}], "run.seed: must not be given together with seed, which means the same"),
        ({"run.replications": [1, 2]}, "cannot vary in a grid: use the sweep's `replications`"),
        ({"run.sample_requests": [1, 2]}, "cannot vary in a grid: a sweep keeps no requests"),
        ({"seed": 1}, "grid.seed: must be a list of values, got 1"),
        ({"mirror.rule": "coin"}, "grid.mirror.rule: must be a list of values, got 'coin'"),
        ({"shadow.time": EXPONENTIAL}, r"grid.shadow.time: must be a list of values, got \{law=exponential"),
        ({"seed": []}, "grid.seed: must have at least one value"),
        ({3: [1]}, "grid: must have texts for its paths, got 3"),
        ([], "grid: must have 1 to 100,000 cells, got 0"),
        ({"seed": range(1000), "run.period_s": range(1000)}, "must have 1 to 100,000 cells, got 1000000"),
        ([{"seed": 1}] * (MAX_CELLS + 1), "must have 1 to 100,000 cells, got 100001"),
        (["seed"], "grid.0: must be a mapping of paths to values, got 'seed'"),
        ("seed=1", "grid: must be a mapping of paths to lists of values, or a list of mappings, got 'seed=1'"),
        (None, "grid: must be a mapping of paths to lists of values, or a list of mappings, got null"),
    ],
)
def test_what_is_no_grid(grid, message):
    with pytest.raises(InputError, match=message):
        cells_of(BASE, grid)


def test_the_grid_of_a_command_line():
    settings = [
        "sampling_percentage=10,50.5",
        "endpoint.routing = RANDOM, LEAST_OUTSTANDING_REQUESTS",
        'shadow.time={"law": "lognormal", "mean_s": 0.1, "scv": 1},{"law": "exponential", "mean_s": 0.1},0.1',
        "shadow.slowdown=[1,1.2],null",
        'experiment.Name="a,b",c',
    ]
    assert grid_of(settings) == {
        "sampling_percentage": [10, 50.5],
        "endpoint.routing": ["RANDOM", "LEAST_OUTSTANDING_REQUESTS"],
        "shadow.time": [
            {"law": "lognormal", "mean_s": 0.1, "scv": 1},
            {"law": "exponential", "mean_s": 0.1},
            0.1,
        ],
        "shadow.slowdown": [[1, 1.2], None],
        "experiment.Name": ["a,b", "c"],
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=25)
@given(st.lists(json_values, min_size=1))
def test_commas_inside_json_separate_nothing(values):
    """Texts may hold commas, brackets, quotes and backslashes."""
    assert grid_of(["path=" + ",".join(json.dumps(v) for v in values)]) == {"path": values}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["seed"], "--set: must be PATH=VALUE, got 'seed'"),
        (["seed=1,,2"], "--set: must be PATH=VALUE,VALUE,... without an empty value, got 'seed=1,,2'"),
        (["seed="], "without an empty value"),
        (["seed=1", "seed=2"], "--set: must not give seed twice"),
    ],
)
def test_what_is_no_grid_on_a_command_line(settings, message):
    with pytest.raises(InputError, match=message):
        grid_of(settings)
