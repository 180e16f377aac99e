"""Simulate a SageMaker shadow test before you pay for it.

    import shadowsim as ss

    result = ss.simulate("request.json", rate_per_s=400)    # a CreateInferenceExperiment request, or a scenario
    result.verdict                                          # STABLE, OVERLOADED or TOO SHORT
    result.summary()                                        # one row per variant
    result.compare()                                        # one row per metric, source against shadow
    ss.size(scenario, "shadow.p99 <= 200ms")                # the fewest instances that meet the goals
    ss.capacity(scenario, "shadow.p99 <= 200ms")            # the greatest rate that the pools hold
    ss.scaling_policy(scenario, "shadow.p99 <= 200ms")      # the cheapest policy that does, as AWS takes it
    ss.plan(scenario, "p99 +5%")                            # the share and duration that show an effect
    ss.load("http://127.0.0.1:8080", rate_per_s=200)        # what a real service does at that rate

`default_scenario()` returns a scenario to start from, and `Scenario`, `Experiment` and `Result` are what the functions
take and return. `sweep`, `noise_floor`, `cost`, `compare_runs`, `agreement`, `replicate`, `step_model`, `calibrate`,
`predict`, `rehearsal` and `read_measurement` answer further questions; `explain("traffic.profile")` tells what a key of
a scenario means. `write_report` writes what they return as an HTML page, `shadowsim.plots` draws the frames, and
`shadowsim --help` lists the commands.

Importing the package loads neither numba, pandas nor plotly: each public name loads its module when it is first used.

PYTEST_DONT_REWRITE: pytest would warn about this package, which contains a plugin, if it was imported earlier.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadowsim.aws.experiment import Experiment
    from shadowsim.captures.agreement import Agreement, agreement
    from shadowsim.captures.folders import captured_arrivals, read_captures
    from shadowsim.engine.replicate import replicate, replication, summarise
    from shadowsim.engine.simulate import simulate
    from shadowsim.errors import (
        ExecutorError,
        InputError,
        SerializationError,
        ShadowsimError,
        SimulationError,
        ValidationError,
    )
    from shadowsim.measuring.calibrate import calibrate
    from shadowsim.measuring.generator.load_run import LoadRun
    from shadowsim.measuring.load import load
    from shadowsim.measuring.logs.reading import read_measurement
    from shadowsim.measuring.measurement import Measurement
    from shadowsim.measuring.predict import predict
    from shadowsim.measuring.rehearsal import rehearsal
    from shadowsim.measuring.step_model import step_model
    from shadowsim.measuring.traffic_table import traffic_table
    from shadowsim.planning.capacity import capacity
    from shadowsim.planning.costs import cost
    from shadowsim.planning.noise_floor import noise_floor
    from shadowsim.planning.plan import plan
    from shadowsim.planning.run_comparison import assert_no_regression, compare_runs
    from shadowsim.planning.scaling_documents import scaling_policy
    from shadowsim.planning.sheet import recommend
    from shadowsim.planning.size import size
    from shadowsim.planning.sweep import sweep
    from shadowsim.reference.explain import explain
    from shadowsim.reference.schema import scenario_schema
    from shadowsim.report.card import card
    from shadowsim.report.report_file import write_report
    from shadowsim.result import Result
    from shadowsim.scenario.scenario import Scenario, default_scenario
    from shadowsim.statistics.comparison import compare
    from shadowsim.testing.benchmark_comparison import compare_benchmarks

__version__ = "0.1.0"

_HOME = {
    "Agreement": "captures.agreement",
    "ExecutorError": "errors",
    "Experiment": "aws.experiment",
    "InputError": "errors",
    "LoadRun": "measuring.generator.load_run",
    "Measurement": "measuring.measurement",
    "Result": "result",
    "Scenario": "scenario.scenario",
    "SerializationError": "errors",
    "ShadowsimError": "errors",
    "SimulationError": "errors",
    "ValidationError": "errors",
    "agreement": "captures.agreement",
    "assert_no_regression": "planning.run_comparison",
    "capacity": "planning.capacity",
    "calibrate": "measuring.calibrate",
    "captured_arrivals": "captures.folders",
    "card": "report.card",
    "compare": "statistics.comparison",
    "compare_benchmarks": "testing.benchmark_comparison",
    "compare_runs": "planning.run_comparison",
    "cost": "planning.costs",
    "default_scenario": "scenario.scenario",
    "explain": "reference.explain",
    "load": "measuring.load",
    "noise_floor": "planning.noise_floor",
    "plan": "planning.plan",
    "predict": "measuring.predict",
    "read_captures": "captures.folders",
    "read_measurement": "measuring.logs.reading",
    "recommend": "planning.sheet",
    "rehearsal": "measuring.rehearsal",
    "replicate": "engine.replicate",
    "replication": "engine.replicate",
    "scaling_policy": "planning.scaling_documents",
    "scenario_schema": "reference.schema",
    "simulate": "engine.simulate",
    "size": "planning.size",
    "step_model": "measuring.step_model",
    "summarise": "engine.replicate",
    "sweep": "planning.sweep",
    "traffic_table": "measuring.traffic_table",
    "write_report": "report.report_file",
}

__all__ = [
    "Agreement",
    "ExecutorError",
    "Experiment",
    "InputError",
    "LoadRun",
    "Measurement",
    "Result",
    "Scenario",
    "SerializationError",
    "ShadowsimError",
    "SimulationError",
    "ValidationError",
    "agreement",
    "assert_no_regression",
    "calibrate",
    "capacity",
    "captured_arrivals",
    "card",
    "compare",
    "compare_benchmarks",
    "compare_runs",
    "cost",
    "default_scenario",
    "explain",
    "load",
    "noise_floor",
    "plan",
    "predict",
    "read_captures",
    "read_measurement",
    "recommend",
    "rehearsal",
    "replicate",
    "replication",
    "scaling_policy",
    "scenario_schema",
    "simulate",
    "size",
    "step_model",
    "summarise",
    "sweep",
    "traffic_table",
    "write_report",
]


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Load a public name (PEP 562)."""
        if name not in _HOME:
            raise AttributeError(f"module 'shadowsim' has no attribute {name!r}")
        value = getattr(import_module(f"shadowsim.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    # What a user may call: neither the folders that happen to be loaded nor what this module imports.
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
