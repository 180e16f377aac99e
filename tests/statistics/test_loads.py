"""Unequal loads are noted, and after which verdicts."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import compare, simulate
from shadowsim.statistics.loads import Loads, loads_of, loads_of_table

POISSON = {"process": "poisson", "rate_per_s": 20.0}


def windows(source, shadow, n_shadow=100, **more):
    n = {"source": 100, "shadow": n_shadow}
    rows = [
        {"time_s": 60.0 * i, "role": role, "utilisation": busy, "Invocations": n[role], "instance_count": 1}
        for i in range(3)
        for role, busy in (("source", source), ("shadow", shadow))
    ]
    return pd.DataFrame(rows).assign(**more)


@pytest.mark.parametrize(("shadow", "noted"), [(0.5, False), (0.549, False), (0.56, True), (0.44, True)])
def test_loads_differ_by_more_than_five_points(shadow, noted):
    assert (loads_of([{"windows": windows(0.5, shadow)}]) is not None) == noted


def test_without_a_utilisation_there_is_nothing_to_note():
    assert loads_of([{"windows": windows(0.5, 0.9).drop(columns="utilisation")}]) is None
    assert loads_of([{"windows": windows(0.5, np.nan)}]) is None
    assert loads_of([{"latency": pd.DataFrame()}]) is None


def test_a_shadow_with_fewer_requests_is_not_loaded_alike():
    loads = loads_of([{"windows": windows(0.83, 0.42, 50)}])
    assert loads == Loads(0.83, 0.42)
    assert loads.note == (
        "The sides do not carry the same load: the source's workers are 83 % busy, the shadow's 42 %."
    )
    assert loads.qualifier == "at 42 % load against 83 %"


def test_a_slower_shadow_with_the_same_requests_is_slower_by_itself():
    loads = loads_of([{"windows": windows(0.5, 0.7, 102)}])
    assert loads.same_requests
    assert loads.qualifier == ""
    assert "that difference is the shadow's own" in loads.note
    assert not loads_of([{"windows": windows(0.5, 0.7).drop(columns="instance_count")}]).same_requests


def test_runs_are_taken_together():
    runs = [{"windows": windows(0.4, 0.2, 50)}, {"windows": windows(0.6, 0.4, 50)}]
    assert loads_of(runs) == Loads(pytest.approx(0.5), pytest.approx(0.3))


def test_compare_notes_them_and_says_so_after_each_verdict():
    run = simulate(scenario(POISSON, service(mean_s=0.04), horizon_s=7200.0, sample_requests=1000))
    table = compare(run, slo_s=0.5)
    noted = table.attrs["load"]
    assert noted["source"] == pytest.approx(0.8, abs=0.02)
    assert noted["shadow"] == pytest.approx(0.4, abs=0.02)
    assert loads_of_table(table).note == noted["note"]
    assert table.attrs == run.compare().attrs
    rows = table.set_index("metric")
    qualifier = f", {loads_of_table(table).qualifier}"
    assert rows.loc["mean", "verdict"] == f"better{qualifier}"
    assert rows.loc["mean", "outcome"] == "better"
    assert rows.loc["error_rate", "verdict"].endswith(qualifier)
    assert set(rows.loc[rows["outcome"].isin(["not_enough", ""]), "verdict"]) <= {"not enough data", ""}


def test_compare_says_nothing_of_equal_loads():
    table = compare(simulate(scenario(POISSON, service(mean_s=0.02), share=100, horizon_s=600.0)))
    assert table.attrs == {}
    assert loads_of_table(table) is None
    assert not table["verdict"].str.contains("load").any()
