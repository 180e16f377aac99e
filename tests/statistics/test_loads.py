"""Unequal loads are noted, and after which verdicts."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import compare, compare_runs, simulate
from shadowsim.statistics.loads import Loads, loads_of, loads_of_table, note_of_pools

POISSON = {"process": "poisson", "rate_per_s": 20.0}


def windows(source, shadow, n_shadow=100, **more):
    n = {"source": 100, "shadow": n_shadow}
    rows = [
        {
            "time_s": 60.0 * i,
            "role": role,
            "utilisation": busy,
            "Invocations": n[role],
            "InvocationsPerInstance": n[role],
        }
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
    assert not loads_of([{"windows": windows(0.5, 0.7).drop(columns="InvocationsPerInstance")}]).same_requests


def test_runs_are_taken_together():
    runs = [{"windows": windows(0.4, 0.2, 50)}, {"windows": windows(0.6, 0.4, 50)}]
    assert loads_of(runs) == Loads(pytest.approx(0.5), pytest.approx(0.3))


def test_pools_that_change_are_noted():
    assert note_of_pools([{"windows": windows(0.5, 0.5)}]) == ""
    changing = windows(0.5, 0.5, variant="A").assign(serving_instance_count=[2.0, 1.0, 2.5, 1.0, 11.0, 1.0])
    assert note_of_pools([{"windows": changing}]).startswith("2 to 11 instances of A served, by scaling and outages:")
    assert note_of_pools([{"windows": changing.assign(serving_instance_count=1.0)}]) == ""
    # requests per serving instance are compared: 100 / 2 of the source, as many of the shadow
    loads = loads_of([{"windows": windows(0.5, 0.7, 50).assign(InvocationsPerInstance=50.0)}])
    assert loads.same_requests


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


def test_copying_whole_sessions_is_noted_and_widens_the_shadows_intervals():
    traffic = POISSON | {"rate_per_s": 300.0, "sessions": 200}
    pools = {"source_instances": 10, "shadow_instances": 3, "share": 30, "horizon_s": 600.0, "sample_requests": 0}
    by_coin = scenario(traffic, service(mean_s=0.02), **pools)
    whole = by_coin.replace({"mirror.rule": "hash"})
    tables = [simulate(s).compare() for s in (by_coin, whole)]
    assert tables[0].attrs == {}
    # 30 % of 200 sessions: 60 in the mean, with variance 42
    assert f"with 200 sessions its requests vary by {100 * np.sqrt(42) / 60:.1f} %" in tables[1].attrs["sessions"]
    assert tables[1].attrs["sessions"].endswith("only roughly.")
    coin, sessions = (table.set_index("metric").loc["mean"] for table in tables)
    widths = [row["shadow_high"] - row["shadow_low"] for row in (coin, sessions)]
    # at load 0.6, E[S] / (1 - load) changes by 1.5 times as much as the requests: by 16 %, and twice that each way
    assert widths[1] > max(2.0 * widths[0], 0.2 * sessions["shadow"])
    sources = [row["source_high"] - row["source_low"] for row in (coin, sessions)]
    assert sources[1] == pytest.approx(sources[0])


def test_a_traces_sessions_are_noted_as_unknown(tmp_path):
    time_s = np.sort(np.random.default_rng(1).uniform(0.0, 100.0, 2000))
    pd.DataFrame({"time_s": time_s, "session": np.arange(2000) % 20}).to_csv(tmp_path / "trace.csv", index=False)
    trace = {"process": "trace", "path": "trace.csv", "sessions": "session"}
    mirror = {"rule": "hash"}
    run = simulate(scenario(trace, service(mean_s=0.01), mirror=mirror, base_dir=tmp_path, horizon_s=100.0))
    assert "intervals do not allow for another choice" in run.compare().attrs["sessions"]


def test_runs_of_one_variant_are_noted_where_they_carry_other_loads():
    runs = [
        simulate(scenario(POISSON | {"rate_per_s": r}, service(mean_s=0.02), horizon_s=2000.0)) for r in (20.0, 30.0)
    ]
    table = compare_runs(runs[1], runs[0])
    note = table.attrs["load"]["Source"]["note"]
    assert note.startswith("Source does not carry the same load in both runs: its workers are 40 % busy in the base")
    assert note.endswith("60 % in the result.")
    mean = table[(table["role"] == "source") & (table["metric"] == "mean")].iloc[0]
    assert mean["verdict"] == "worse, at 60 % load against 40 %"
    assert compare_runs(runs[0], runs[0]).attrs == {}
