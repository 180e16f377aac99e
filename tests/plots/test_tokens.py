"""Figures of pools that serve tokens: which numbers their lines show, and which runs have none."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import InputError, plots, simulate
from shadowsim.plots.style import COLOURS

SERVED = {
    "prompt": 50, "output": {"law": "gamma", "mean_tokens": 40, "scv": 1}, "max_sequences": 8, "max_step_tokens": 512,
    "kv_tokens": 4000, "step": {"base_s": 0.02, "per_prefill_token_s": 0.0005},
}  # fmt: skip
POISSON = {"process": "poisson", "rate_per_s": 3.0}


@pytest.fixture(scope="module")
def run():
    run = {"horizon_s": 600.0, "period_s": 30.0}
    return simulate(scenario(POISSON, {"tokens": SERVED}, service(mean_s=0.1), share=100, **run))


@pytest.mark.parametrize(
    ("name", "columns", "factors"),
    [
        ("first_token_over_time", ["FirstChunkModelLatency_p99", "FirstChunkModelLatency_p50"], [1e-3, 1e-3]),
        ("sequences_over_time", ["running_sequences_mean", "cache_use_mean"], [1.0, 100.0]),
    ],
)
def test_each_panel_shows_its_column(run, name, columns, factors):
    figure = getattr(plots, name)(run.windows, run.verdict, 600.0)
    source = run.windows[run.windows["role"] == "source"]
    lines = [t for t in figure.data if t.legendgroup == "source"]
    assert [t.yaxis for t in lines] == ["y", "y2"]
    for line, column, factor in zip(lines, columns, factors, strict=True):
        assert line.y[::2] == pytest.approx(source[column].to_numpy() * factor)
        assert line.line.color == COLOURS["source"]
    # a variant that is not in tokens has no values
    assert all(np.isnan(t.y).all() for t in figure.data if t.legendgroup == "shadow")


def test_prefix_caches_have_a_panel(run):
    """The columns are made here: the kernel of prefix caches takes most of a minute to compile."""
    is_source = run.windows["role"] == "source"
    hit = pd.Series(np.arange(len(run.windows)), run.windows.index, dtype="Int64").where(is_source)
    queried = pd.Series(50, run.windows.index, dtype="Int64").where(is_source)
    figure = plots.sequences_over_time(
        run.windows.assign(prefix_queried_tokens=queried, prefix_hit_tokens=hit), run.verdict, 600.0
    )
    hits = [t for t in figure.data if t.yaxis == "y3"]
    assert hits[0].y[::2] == pytest.approx(100.0 * hit[is_source].to_numpy(float) / 50)
    assert np.isnan(hits[1].y).all()


def test_many_windows_are_grouped_in_bands():
    run = {"horizon_s": 9600.0, "period_s": 10.0}
    result = simulate(scenario(POISSON, {"tokens": SERVED}, share=50, **run))
    figure = plots.sequences_over_time(result.windows, result.verdict, 9600.0)
    assert any(t.fill == "toself" for t in figure.data)


def test_runs_without_tokens_have_no_such_figures():
    plain = simulate(scenario(POISSON, service(mean_s=0.1)))
    for name in ("first_token_over_time", "sequences_over_time"):
        with pytest.raises(InputError, match="windows: must be of a run with services in tokens"):
            getattr(plots, name)(plain.windows)
