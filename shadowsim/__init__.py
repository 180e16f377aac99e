"""Simulate a SageMaker shadow test before you pay for it.

Public names resolve when they are first used (PEP 562): `import shadowsim` loads neither numba, pandas nor plotly, so a
command line that only prints its help does not wait for a compiler.

PYTEST_DONT_REWRITE: since pytest_plugin.py is part of it, pytest would warn where the package was imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadowsim.agreements import Agreement, agreement
    from shadowsim.cards import card
    from shadowsim.comparison import compare
    from shadowsim.costs import cost
    from shadowsim.engine import simulate
    from shadowsim.errors import (
        ExecutorError,
        InputError,
        SerializationError,
        ShadowsimError,
        SimulationError,
        ValidationError,
    )
    from shadowsim.experiment import Experiment
    from shadowsim.noise import noise_floor
    from shadowsim.planning import plan, recommend
    from shadowsim.recordings import captured_arrivals, read_captures
    from shadowsim.regressions import assert_no_regression, compare_runs
    from shadowsim.replications import replicate, replication, summarise
    from shadowsim.result import Result
    from shadowsim.scenario import Scenario, default_scenario
    from shadowsim.sizing import size
    from shadowsim.speedups import compare_benchmarks
    from shadowsim.sweeps import sweep

__version__ = "0.1.0"

_HOME = {
    "Agreement": "agreements",
    "ExecutorError": "errors",
    "Experiment": "experiment",
    "InputError": "errors",
    "Result": "result",
    "Scenario": "scenario",
    "SerializationError": "errors",
    "ShadowsimError": "errors",
    "SimulationError": "errors",
    "ValidationError": "errors",
    "agreement": "agreements",
    "assert_no_regression": "regressions",
    "captured_arrivals": "recordings",
    "card": "cards",
    "compare": "comparison",
    "compare_benchmarks": "speedups",
    "compare_runs": "regressions",
    "cost": "costs",
    "default_scenario": "scenario",
    "noise_floor": "noise",
    "plan": "planning",
    "read_captures": "recordings",
    "recommend": "planning",
    "replicate": "replications",
    "replication": "replications",
    "simulate": "engine",
    "size": "sizing",
    "summarise": "replications",
    "sweep": "sweeps",
}

__all__ = [
    "Agreement",
    "ExecutorError",
    "Experiment",
    "InputError",
    "Result",
    "Scenario",
    "SerializationError",
    "ShadowsimError",
    "SimulationError",
    "ValidationError",
    "agreement",
    "assert_no_regression",
    "captured_arrivals",
    "card",
    "compare",
    "compare_benchmarks",
    "compare_runs",
    "cost",
    "default_scenario",
    "noise_floor",
    "plan",
    "read_captures",
    "recommend",
    "replicate",
    "replication",
    "simulate",
    "size",
    "summarise",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'shadowsim' has no attribute {name!r}")
    value = getattr(import_module(f"shadowsim.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
