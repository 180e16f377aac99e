"""Simulator and server agree on one scenario, run live and simulated with the same arrivals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from serve_process import process_of
from serving import ROLE, create_models, serving, until

import shadowsim as ss
from shadowsim import default_scenario, simulate

RATE_PER_S = 210.0  # of 20 ms on 7 workers: rho 0.6
WIRE = Path(__file__).parents[1] / "support" / "wire.py"


@pytest.mark.parametrize(
    ("length_s", "tolerance"),
    [
        # The p99 of n requests of a queue at load 0.6 has a standard error of about 2 % for 63,000, 4 % for 12,600.
        pytest.param(60.0, 0.2, marks=pytest.mark.slow),
        pytest.param(300.0, 0.1, marks=pytest.mark.long),
    ],
)
def test_a_live_run_is_as_it_was_simulated(tmp_path, length_s, tolerance):
    service = {"time": {"law": "lognormal", "mean_s": 0.02, "scv": 0.25}, "workers": 7}
    scenario = default_scenario().replace(
        {
            **{f"services.{name}": service for name in ("AllTraffic", "Shadow-01")},
            **{f"{role}.instance_count": 1 for role in ("source", "shadow")},
            **{"sampling_percentage": 100, "horizon_s": length_s},
            "traffic": {"process": "poisson", "rate_per_s": RATE_PER_S},
        }
    )
    # a long silent_s, since a silent connection that closes while it is used again is an error of the generator
    with serving(tmp_path, services=scenario.services, mirroring=scenario.mirroring, silent_s=3600.0) as server:
        server.experiment()
        url = f"{server.url}/endpoints/endpoint/invocations"
        command = [sys.executable, str(WIRE), "race", str(length_s), str(RATE_PER_S), url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=length_s + 60)
        load = json.loads(done.stdout)
        assert not load["bad"]
        server.answered(len(load["took_s"][url]))
        requests = pd.DataFrame(server.frame("test", "requests"))
    simulated = simulate(with_arrivals(scenario, requests, tmp_path))
    for q in (0.5, 0.95, 0.99):
        live = requests.groupby("variant")["latency_s"].quantile(q)
        expected = simulated.quantile(q)
        print(q, live.to_dict(), expected.to_dict())
        for variant in ("AllTraffic", "Shadow-01"):
            assert abs(live[variant] - expected[variant]) < tolerance * expected[variant] + 0.001


def with_arrivals(scenario, requests, folder):
    """The scenario with the arrivals of a live run's requests."""
    # When other programs delay the generator or the server, requests come in bursts and wait for each other. The
    # simulation gets the real arrivals, so that this does not count against the service model.
    arrivals = requests.loc[requests["role"] == "source", "arrival_s"].sort_values(ignore_index=True)
    arrivals.to_frame("arrival_s").to_csv(folder / "arrivals.csv", index=False)
    traffic = {"process": "trace", "path": str(folder / "arrivals.csv"), "time_column": "arrival_s"}
    return scenario.replace({"traffic": traffic})


OVERHEAD_S, MEASURED_S, TRUTH_S, RUNS = 0.003, 20.0, 100.0, 30
TAIL = 4.5  # standard errors; Student's t with 29 degrees of freedom is beyond in 1 of 10,000
MACHINE = 0.02  # share of a quantile: what a timer delays, it delays for a whole batch, not for each request alone
FIFO = {"time": {"law": "lognormal", "mean_s": 0.02, "scv": 0.5}, "workers": 3}
BATCHER = {"time": 0.01, "workers": 1, "batching": {"max_size": 8, "max_delay_s": 0.005, "marginal": 0.1}}


@pytest.mark.slow
@pytest.mark.parametrize(("service", "rate_per_s"), [(FIFO, 90.0), (BATCHER, 200.0)], ids=["workers", "batcher"])
def test_what_a_client_measures_at_a_calibrated_service_is_what_is_simulated(
    tmp_path, monkeypatch, service, rate_per_s
):
    """A service is calibrated, served by `serve --scenario`, loaded over HTTP, and simulated.

    The client's latency is the model's and what the path over HTTP adds, which the server's records tell request by
    request. Simulations with the arrivals that the server saw, and other draws of the service, each with these
    additions in random order, show how far quantiles scatter by chance. A service that takes 1.2 times as long is out
    of that.
    """
    scenario = default_scenario().replace(
        {
            **{f"{role}.instance_count": 1 for role in ("source", "shadow")},
            **{"services.AllTraffic": service, "sampling_percentage": 0, "run.sample_requests": 1_000_000},
            **{"horizon_s": TRUTH_S, "endpoint.overhead_s": 0.0},
            "traffic": {"process": "poisson", "rate_per_s": rate_per_s},
        }
    )
    calibrated = ss.calibrate(simulate(scenario).save(tmp_path / "truth")).service
    scenario = scenario.replace(
        {"services.AllTraffic": calibrated, "endpoint.overhead_s": OVERHEAD_S, "horizon_s": MEASURED_S}
    )
    file, request = tmp_path / "scenario.json", scenario.to_dict()["experiment"]
    scenario.save(file)
    options = ("--scenario", str(file), "--transition-s", "0.01")
    with process_of(tmp_path, monkeypatch, *options) as (_, sagemaker, _, lines):
        create_models(sagemaker, *{variant["ModelName"] for variant in request["ModelVariants"]})
        name = request["Name"]
        sagemaker.create_inference_experiment(**request | {"RoleArn": ROLE})
        until(lambda: sagemaker.describe_inference_experiment(Name=name)["Status"] == "Running")
        for _ in range(3):  # a run that the machine has disturbed tells nothing
            load = ss.load(endpoint=request["EndpointName"], scenario=file, body=b"x" * 100)
            if load.verdict.is_valid:
                break
        else:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(" ".join(load.verdict.why))
        url = next(line.split()[-1] for line in lines if line.startswith("shadowsim serves"))
        live = pd.read_parquet(f"{url}/shadowsim/experiments/{quote(name)}/requests.parquet")
    live = live[live["role"] == "source"].set_index("inference_id").loc[load.requests["inference_id"]]
    assert set(live["status"]) == set(load.requests["status"]) == {"answered"}, load.about["causes"]
    latency_s = load.requests["latency_s"].to_numpy()
    added_s = latency_s - live["latency_s"].to_numpy()
    assert added_s.min() > OVERHEAD_S
    levels = (0.5, 0.95, 0.99)
    measured = np.log(np.quantile(latency_s, levels))

    def deviations(changes):
        """Return by how many times what is allowed the measured quantiles differ from simulated ones."""
        played = with_arrivals(scenario.replace(changes), live, tmp_path).replace({"horizon_s": 2.0 * MEASURED_S})
        random, logs = np.random.default_rng(1), []
        for seed in range(RUNS):
            run = simulate(played.replace({"seed": seed}), workers=1).requests
            times = run.loc[run["role"] == "source", "latency_s"].to_numpy()
            assert len(times) == len(latency_s)
            logs.append(np.log(np.quantile(times + random.permutation(added_s), levels)))
        error = np.std(logs, axis=0, ddof=1) * np.sqrt(1.0 + 1.0 / RUNS)
        return np.abs(measured - np.mean(logs, axis=0)) / (TAIL * error + MACHINE)

    assert deviations({}).max() < 1.0
    assert deviations({"source.time.mean_s": 1.2 * scenario.services["AllTraffic"].time.mean}).max() > 1.0


STEP_S = 0.02
TOKENS = {
    **{"prompt": 50, "output": 25, "max_sequences": 10, "max_step_tokens": 60, "kv_tokens": 1000},
    "step": {"base_s": STEP_S},
}


@pytest.mark.slow
def test_a_live_service_in_tokens_is_as_it_was_simulated(tmp_path):
    """All requests are alike, so that nothing but the times of arrival can differ.

    The server's batcher takes a request some tenths of a millisecond after the arrival that it notes. So a request may
    miss the step that it catches in the simulation, or be behind another one's prompt, and those that wait for its
    place, too: by one step each. A batch of 10 requests of 26 steps is at load 0.62 with 12 requests per second.
    """
    scenario = default_scenario().replace(
        {
            **{f"services.{name}": {"tokens": TOKENS} for name in ("AllTraffic", "Shadow-01")},
            **{f"{role}.instance_count": 1 for role in ("source", "shadow")},
            **{"sampling_percentage": 100, "horizon_s": 30.0},
            "traffic": {"process": "poisson", "rate_per_s": 12.0},
        }
    )
    with serving(tmp_path, services=scenario.services, mirroring=scenario.mirroring, silent_s=3600.0) as server:
        server.experiment()
        url = f"{server.url}/endpoints/endpoint/invocations"
        command = [sys.executable, str(WIRE), "race", "30", "12", url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=90)
        load = json.loads(done.stdout)
        assert not load["bad"]
        server.answered(len(load["took_s"][url]))
        requests = pd.DataFrame(server.frame("test", "requests"))
    source = requests[requests["role"] == "source"]
    simulated = simulate(with_arrivals(scenario, requests, tmp_path)).requests
    simulated = simulated[simulated["role"] == "source"]
    assert len(simulated) == len(source)
    for column in ("latency_s", "first_token_s"):
        differences = (source[column].to_numpy() - simulated[column].to_numpy()) / STEP_S
        print(column, pd.Series(differences).describe())
        assert abs(pd.Series(differences).median()) < 0.5
        for q in (0.5, 0.95):
            assert abs(source[column].quantile(q) - simulated[column].quantile(q)) < 2 * STEP_S
