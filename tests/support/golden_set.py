"""Makes and reads the golden set: results of an earlier version that every later one must reproduce to the bit.

`python tests/support/golden_set.py NAME...` writes some scenarios and the digests of their frames anew, and the commit
says why results changed. Without a name it writes the whole set, which makes what is read the work of the present
version.

Scenarios cover all routings, copy rules, instants, caps, traffic processes and laws, and pools that change. Frames are
kept as a digest per column, a saved run, a sweep's cache and a server's database as the files that were written,
`--json` as each command's keys.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from captured import record
from captured import write as write_captures
from cases import STORAGE, scenario, service
from commands import run as run_command
from rehearsed_account import DAY, T0, experiment, new_account

from shadowsim import Scenario, simulate, sweep

GOLDEN = Path(__file__).parents[1] / "golden"
SWEPT = {"sampling_percentage": [10, 100], "shadow.instance_count": [1, 2]}
LEAST = "LEAST_OUTSTANDING_REQUESTS"
LATER = 3 * DAY  # after the database's last event: when its descriptions are asked for
DESCRIBED = [
    ("DescribeInferenceExperiment", {"Name": "bert"}),
    ("DescribeInferenceExperiment", {"Name": "scheduled"}),
    ("ListInferenceExperiments", {}),
    ("DescribeEndpoint", {"EndpointName": "live"}),
    ("ListModels", {}),
]


def golden_scenarios() -> dict[str, Scenario]:
    """Return the thirteen scenarios by name."""
    time = {"law": "linear", "base_s": 0.05, "GeneratedTokens": 0.004}
    law = {"law": "exponential", "mean_bytes": 900.0}
    sized = {"request_bytes": law, "response_bytes": law | {"mean_bytes": 90.0}}
    poisson, run = {"process": "poisson", "rate_per_s": 40.0}, {"horizon_s": 900.0, "sample_requests": 2000}
    steps = [{"from_s": 0, "rate_per_s": 20.0}, {"from_s": 300.0, "rate_per_s": 60.0}]
    diurnal = {"kind": "diurnal", "base_per_s": 0.2, "peak_per_s": 1.5, "peak_hour": 14, "weekend_factor": 0.5}
    spikes = {"kind": "spikes", "base_per_s": 10.0, "spikes": [{"at_s": 200.0, "for_s": 50.0, "rate_per_s": 90.0}]}
    policy = {"metric": "InvocationsPerInstance", "target": 900, "min": 1, "max": 6, "in_points": 5, "delay_s": 30}
    scaled = {"scaling": policy, "cold_start_s": 45.0}
    retries = {"mode": "standard-2026", "timeout_s": 1.0, "clients": 10}
    step = {"base_s": 0.012, "per_prefill_token_s": 4e-5, "per_sequence_s": 2e-4, "per_kv_token_s": 1e-7}
    lengths = {law: {"law": law, "scv": 0.8} for law in ("lognormal", "gamma")}
    tokens = {
        "prompt": lengths["lognormal"] | {"mean_tokens": 300}, "output": lengths["gamma"] | {"mean_tokens": 120},
        "max_sequences": 32, "max_step_tokens": 8192, "kv_tokens": 8192, "step": step,
    }  # fmt: skip
    return {
        "random_poisson": scenario(
            poisson | sized, service(mean_s=0.08, workers=2), source_instances=2, capture=True, **run
        ),
        "least_outstanding": scenario(
            poisson,
            service("lognormal", 0.08, 2, scv=2.0),
            service("gamma", 0.09, 2, scv=0.3),
            source_instances=3,
            shadow_instances=2,
            endpoint={"routing": LEAST},
            **run,
        ),
        "mixed_routing_profile": scenario(
            {"process": "poisson", "profile": {"kind": "steps", "steps": steps}},
            {"time": {"law": "weibull", "mean_s": 0.05, "scv": 1.5}, "workers": 1},
            {"time": {"law": "uniform", "low_s": 0.01, "high_s": 0.08}, "workers": 1},
            source_instances=4,
            shadow_instances=2,
            endpoint={"routing": {"Source": "RANDOM", "Shadow": LEAST}},
            **run,
        ),
        "counter_constant": scenario(
            {"process": "constant", "rate_per_s": 30.0},
            service("deterministic", 0.09, 4),
            mirror={"rule": "counter", "instant": "response"},
            share=33,
            **run,
        ),
        "hash_sessions": scenario(
            {"process": "gamma", "rate_per_s": 30.0, "scv": 4.0, "sessions": 200},
            {"time": {"law": "lognormal", "p50_s": 0.08, "p99_s": 0.4}, "workers": 4},
            mirror={"rule": "hash"},
            share=30,
            **run,
        ),
        "capped_copies": scenario(
            {"process": "mmpp", "rates_per_s": [5.0, 60.0], "mean_sojourn_s": [30.0, 10.0]} | sized,
            service(mean_s=0.1, workers=4),
            service(mean_s=0.3, workers=4),
            share=100,
            mirror={"max_in_flight": 8, "max_body_bytes": 2000.0, "max_per_s": 25},
            **run,
        ),
        "failing": scenario(
            {"process": "poisson", "profile": spikes},
            service(mean_s=0.2, workers=4)
            | {"queue_limit": 5, "slowdown": [1.0, 1.1, 1.3, 1.6], "error_4xx": 0.01, "error_5xx": 0.02},
            share=100,
            endpoint={"timeout_s": 0.6, "overhead_s": 0.004},
            **run,
        ),
        "diurnal_week": scenario(
            {"process": "gamma", "profile": diurnal, "scv": 0.5},
            {"time": {"law": "empirical", "quantiles_s": {"0.1": 0.1, "0.5": 0.4, "1": 4.0}}, "workers": 2},
            {"time": {"law": "pareto", "mean_s": 0.5, "scv": 0.4}, "workers": 2},
            **(run | {"horizon_s": 2.0 * DAY, "period_s": 300.0}),
        ),
        "trace": scenario(
            {"process": "trace", "path": "builtin:trace_small", "speed": 4.0}, {"time": time, "workers": 4}, **run
        ),
        "superposed": scenario(
            [
                poisson | {"rate_per_s": 10.0},
                {"process": "constant", "rate_per_s": 5.0},
                {"process": "mmpp", "rates_per_s": [0.0, 20.0], "mean_sojourn_s": 20.0},
            ],
            service(mean_s=0.1, workers=4),
            share=70,
            **(run | {"seed": 2**64 - 1, "period_s": 17.5}),
        ),
        "batching": scenario(
            poisson,
            service("lognormal", 0.1, 2, scv=0.5) | {"batching": {"max_size": 4, "max_delay_s": 0.05, "marginal": 0.2}},
            service("exponential", 0.1, 1) | {"queue_limit": 20, "batching": {"max_size": 8, "factors": [1.0, 1.5]}},
            source_instances=2,
            share=100,
            endpoint={"routing": {"Shadow": LEAST}},
            **run,
        ),
        "scaling_outages_retries": scenario(
            {"process": "poisson", "profile": {"kind": "steps", "steps": steps}, "retries": retries},
            service("gamma", 0.1, 2, scv=0.5) | scaled | {"outages": {"mtbf_s": 400.0, "mttr_s": 30.0}},
            service(mean_s=0.1, workers=2) | scaled | {"outages": [{"instance": 0, "at_s": 500.0, "for_s": 60.0}]},
            source_instances=2,
            shadow_instances=2,
            mirror={"instant": "response"},
            endpoint={"routing": {"Source": LEAST}, "timeout_s": 5.0},
            **run,
        ),
        "tokens": scenario(
            poisson | {"rate_per_s": 8.0, "retries": retries | {"timeout_s": 5.0}},
            {"tokens": tokens | {"chunked": False, "after_s": 0.01}, "queue_limit": 20},
            {"tokens": tokens | {"kv_tokens": 4000, "before_s": 0.005, "on_timeout": "abort"}},
            source_instances=2,
            shadow_instances=2,
            endpoint={"routing": {"Source": LEAST}, "timeout_s": 8.0},
            **(run | {"goodput": [{"ttft_s": 0.5, "tpot_s": 0.03}, {"ttft_s": 1.0, "tpot_s": 0.05}]}),
        ),
    }


def digests(result) -> dict[str, dict[str, str]]:
    """Return a SHA-256 per column of each of a result's frames; missing values and the order of rows count."""
    frames = {"windows": result.windows, "latency": result.latency, "requests": result.requests}
    if len(result.actions):
        frames["actions"] = result.actions
    return {name: {str(column): _digest(frame[column]) for column in frame} for name, frame in frames.items()}


def _digest(column: pd.Series) -> str:
    if column.dtype == "float64":
        content = np.where(column.isna(), np.nan, column.to_numpy()).astype("<f8").tobytes()
    elif column.dtype in ("int64", "Int64"):
        content = column.isna().to_numpy().tobytes() + column.fillna(-1).to_numpy("<i8").tobytes()
    else:
        content = "\0".join(column.astype(str)).encode()
    return hashlib.sha256(content).hexdigest()


def keys_of(value: object) -> object:
    """Return the shape of a JSON value: an object's keys, a list's first element's."""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value else None


def command_lines(golden: Path) -> dict[str, list[object]]:
    """Return a short command line for each command that has `--json`."""
    case, run = golden / "scenarios" / "random_poisson.json", golden / "run"
    captures = golden / "captures" / "endpoint"
    minutes = ["--set", "horizon_s=600"]
    return {
        "validate": ["validate", case],
        "simulate": ["simulate", case, "--slo", "p99 < 10s"],
        "simulate replications": ["simulate", case, *minutes, "--set", "run.replications=2"],
        "instances": ["instances", "ml.m5.xlarge"],
        "compare": ["compare", run],
        "compare two": ["compare", run, run],
        "noise-floor": ["noise-floor", case, *minutes, "--replications", "2"],
        "size": ["size", case, *minutes, "--slo", "p99 < 10s"],
        "plan": ["plan", case, "--shares", "50", "--durations", "1h", "--replications", "10", "--power", "0.01"],
        "sweep": ["sweep", case, *minutes, "--set", "sampling_percentage=10,50"],
        "agreement": ["agreement", captures / "AllTraffic", captures / "Shadow-01"],
        "benchmark-compare": ["benchmark-compare", golden / "benchmark.json", golden / "benchmark.json"],
    }


def command_keys(golden: Path) -> dict[str, object]:
    """Return the keys of each command's JSON."""
    said = {name: run_command(*line, "--json").stdout for name, line in command_lines(golden).items()}
    return {name: keys_of(json.loads(text)) for name, text in said.items()}


def described(store) -> list[object]:
    """Return what a server with the golden database answers."""
    from shadowsim.server.control.actions import handle

    return [handle(action, body, T0 + LATER, store) for action, body in DESCRIBED]


def write_golden_set() -> None:
    """Write the whole set."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    (GOLDEN / "scenarios").mkdir(parents=True)
    scenarios = golden_scenarios()
    for name, case in scenarios.items():
        case.save(GOLDEN / "scenarios" / f"{name}.json")
    _write(GOLDEN / "frames.json", {name: digests(simulate(case)) for name, case in scenarios.items()})

    saved = simulate(scenarios["failing"].replace({"horizon_s": 300, "run.sample_requests": 50}))
    saved.save(GOLDEN / "run")
    compared = _rows(saved.compare())
    _write(GOLDEN / "run" / "expected.json", {"frames": digests(saved), "compare": compared})

    short = scenarios["random_poisson"].replace({"horizon_s": 120})
    rows = sweep(short, SWEPT, cache=GOLDEN / "sweep_cache")
    _write(GOLDEN / "sweep.json", _rows(rows))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.db"
        made = new_account(path=path)
        made.do("CreateInferenceExperiment", **experiment(DataStorageConfig=STORAGE))
        made.wait(5)
        schedule = {"StartTime": T0 + DAY, "EndTime": T0 + 2 * DAY}
        made.do("CreateInferenceExperiment", **experiment("scheduled", "other", Schedule=schedule))
        made.wait(5)
        _write(GOLDEN / "server.json", described(made.store))
        made.store.close()
        shutil.copy(path, GOLDEN / "server.db")

    _write_captures(GOLDEN / "captures")
    stats = {"min": 1.0, "max": 1.2, "mean": 1.1, "stddev": 0.07, "median": 1.1, "rounds": 5, "iterations": 1}
    stats["data"] = [1.0, 1.05, 1.1, 1.15, 1.2]
    named = {"name": "test_x", "fullname": "test_x.py::test_x", "group": None, "params": None, "extra_info": {}}
    _write(GOLDEN / "benchmark.json", {"benchmarks": [named | {"stats": stats}], "version": "5.1.0"})
    _write(GOLDEN / "json_keys.json", command_keys(GOLDEN))


def _write_captures(folder: Path) -> None:
    """Write three pairs of captured answers, one of which differs."""
    for name, last in (("AllTraffic", 0.5), ("Shadow-01", 0.7)):
        scores = enumerate([0.1, 0.2, last])
        write_captures(folder, name, [record(f"id-{i}", {"score": score}, [i]) for i, score in scores])


def _rows(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return a frame's rows as JSON has them, every bit of the numbers kept."""
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def update_digests(names: list[str]) -> None:
    """Write the digests of some scenarios' frames anew."""
    file = GOLDEN / "frames.json"
    scenarios = {name: golden_scenarios()[name] for name in names}
    for name, scenario_of_name in scenarios.items():
        scenario_of_name.save(GOLDEN / "scenarios" / f"{name}.json")
    new = {name: digests(simulate(scenario)) for name, scenario in scenarios.items()}
    _write(file, json.loads(file.read_text()) | new)


if __name__ == "__main__":
    sys.exit(update_digests(sys.argv[1:]) if sys.argv[1:] else write_golden_set())
