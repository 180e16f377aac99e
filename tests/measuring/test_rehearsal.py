"""Rehearsals: live, simulated and callers' figures side by side, and verdicts that follow from the comparisons."""

import numpy as np
import pandas as pd
import pytest
from commands import good, refused
from loading import answering, service

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.frames import SERVER_LAG
from shadowsim.measuring.generator.saturation import GeneratorLimits
from shadowsim.report.rehearsal_page import html

LENIENT = GeneratorLimits(lag_s=20.0, dropped=0.0, cpu=100.0)
MODEL = {"time": {"law": "lognormal", "mean_s": 0.02, "scv": 0.25}, "workers": 4}


@pytest.fixture(scope="module")
def scenario():
    return ss.default_scenario().replace(
        {
            **{f"{role}.instance_count": 1 for role in ("source", "shadow")},
            **{"services.AllTraffic": MODEL, "services.Shadow-01": MODEL, "sampling_percentage": 50},
            "traffic": {"process": "poisson", "rate_per_s": 80.0},
            **{"horizon_s": 1000.0, "run.period_s": 10.0, "run.sample_requests": 1_000_000},
        }
    )


@pytest.fixture(scope="module")
def simulated(scenario):
    return ss.simulate(scenario)


def live(scenario, lost=0, **changes):
    """Frames as a server gives them: of a simulation with another seed, and with copies lost to the server's lag."""
    run = ss.simulate(scenario.replace({"seed": 8} | changes))
    windows = run.windows.assign(**{f"copies_lost_{SERVER_LAG}": pd.array([pd.NA] * len(run.windows), "Int64")})
    shadow = windows["role"] == "shadow"
    windows.loc[shadow, f"copies_lost_{SERVER_LAG}"] = 0
    windows.loc[shadow.idxmax(), f"copies_lost_{SERVER_LAG}"] = lost
    return {"windows": windows, "latency": run.latency, "requests": run.requests}


@pytest.fixture(scope="module")
def equal(scenario, simulated):
    return ss.rehearsal(live(scenario, lost=3), simulated)


@pytest.fixture(scope="module")
def slower(scenario, simulated):
    return ss.rehearsal(live(scenario, **{"shadow.time.mean_s": 0.03}), simulated)


def test_figures_are_those_of_the_runs(equal, simulated):
    figures = equal.figures
    assert list(figures.columns) == ["live_source", "simulated_source", "live_shadow", "simulated_shadow"]
    for name, run in (("live", equal.live), ("simulated", simulated)):
        summary = run.summary(standard_errors=False)
        for role, variant in (("source", "AllTraffic"), ("shadow", "Shadow-01")):
            column = figures[f"{name}_{role}"]
            assert column["requests"] == summary.loc[variant, "requests"]
            assert column["p99"] == pytest.approx(run.quantile(0.99)[variant], rel=0.008)
            assert column["mean"] == pytest.approx(summary.loc[variant, "mean_s"], rel=0.001)
            assert column["error_rate"] == 0.0
    assert equal.lost == {SERVER_LAG: 3}


def test_curves_are_of_each_side_and_end_where_requests_become_few(equal, simulated):
    curves = equal.curves
    assert set(curves["of"]) == {"live_source", "simulated_source", "live_shadow", "simulated_shadow"}
    one = curves[curves["of"] == "simulated_shadow"]
    n = (simulated.requests["role"] == "shadow").sum()
    assert (1.0 - one["depth"].max()) * n >= 5
    assert one["latency_s"].is_monotonic_increasing
    np.testing.assert_allclose(one.set_index("depth").loc[0.5, "latency_s"], simulated.quantile(0.5)["Shadow-01"])


def test_the_same_model_is_as_simulated_and_another_one_is_not(equal, slower):
    assert equal.verdicts == {"source": "as simulated", "shadow": "as simulated"}
    assert slower.verdicts == {"source": "as simulated", "shadow": "not as simulated"}
    assert set(slower.comparison.set_index("metric").loc[["mean", "p50"], "outcome"]) == {"worse"}


def test_short_tests_are_compared_request_by_request(scenario):
    minute = scenario.replace({"horizon_s": 60.0, "run.period_s": 60.0})
    run = ss.rehearsal(live(minute), ss.simulate(minute.replace({"run.period_s": 1.0})))
    assert run.against_simulation["method"].str.startswith("requests").all()
    sampled = ss.rehearsal(live(minute), ss.simulate(minute.replace({"run.sample_requests": 100})))
    assert not sampled.against_simulation["method"].str.startswith("requests").any()


def test_a_short_test_tells_nothing(scenario):
    short = scenario.replace({"horizon_s": 3.0, "run.period_s": 1.0})
    run = ss.rehearsal(live(short), ss.simulate(short))
    assert run.verdicts == {"source": "cannot tell", "shadow": "cannot tell"}
    assert "undecided: mean" in str(run)


def test_the_text_names_what_differs(equal, slower):
    assert max(map(len, str(slower).splitlines())) <= 80
    text = " ".join(str(slower).split())
    assert "Shadow: not as simulated; higher than simulated: mean +5" in text
    assert "Copies lost: none." in text
    assert "3 by server_lag" in " ".join(str(equal).split())
    assert repr(equal) == "<LiveRehearsal of built-in: source as simulated, shadow as simulated>"


def test_callers_stand_beside_and_share_the_arrivals_of_the_simulation(scenario):
    sent = scenario.replace({"horizon_s": 2.0, "traffic.rate_per_s": 60.0})
    with service(answering(after_s=0.01)) as target:
        load = ss.load(target.url, scenario=sent, limits=LENIENT)
    played = ss.simulate(sent)
    run = ss.rehearsal(live(sent), played, load)
    assert next(iter(run.figures.columns)) == "callers"
    assert run.figures.loc["requests", "callers"] == len(load.requests)
    assert run.figures.loc["p50", "callers"] == load.quantile(0.5)
    assert run.live.scenario.seed == sent.seed
    other = ss.rehearsal(live(sent), ss.simulate(sent.replace({"seed": 3})), load)
    assert other.live.scenario.seed != 3
    assert "requests planned" in str(run)
    page = html(run)
    for words in ("Callers count from the planned time", "The live shadow against its simulation", "What ran"):
        assert words in page


def test_what_cannot_be_compared_is_said(scenario, simulated):
    frames = live(scenario)
    with pytest.raises(InputError, match=r"live: must have requests in all three frames; without any: latency"):
        ss.rehearsal({name: frames[name] for name in ("windows", "requests")}, simulated)
    renamed = {name: frame.replace({"Shadow-01": "Other"}) for name, frame in frames.items()}
    with pytest.raises(InputError, match=r"live: must have the simulation's shadow, Shadow-01.*Other"):
        ss.rehearsal(renamed, simulated)


def test_the_command_writes_the_page_and_says_what_is_missing(scenario, simulated, tmp_path):
    simulated.save(tmp_path / "run")
    folder = tmp_path / "live"
    folder.mkdir()
    for name, frame in live(scenario, lost=2).items():
        frame.to_parquet(folder / f"{name}.parquet")
    text = good("report", folder, "--simulated", tmp_path / "run")
    assert "2 by server_lag" in " ".join(text.split())
    assert text.endswith(f"wrote {folder / 'report.html'}\n")
    assert "Rehearsal" in (folder / "report.html").read_text()
    assert "--load: needs --simulated" in refused("report", folder, "--load", folder)
    (folder / "latency.parquet").unlink()
    assert "without any: latency" in refused("report", folder, "--simulated", tmp_path / "run")
