"""Draws frames as Plotly figures, which the caller may change; loads each function at its first use.

benchmarks  draws a comparison of benchmarks: `benchmark_changes`
capacity    draws figures against the rate of the traffic: `latency_against_rate`
comparison  draws comparisons and their noise floor: `differences`, `noise_floor`
goal_axis   scales axes to goals, and draws their lines
heatmap     draws figures over settings: `power` of a plan, `sweep`
load        draws a load run: `load_latency_over_time`, `load_quantiles`, `load_over_time`
pools       draws pools that change: `instances_over_time`, `failures_over_time`, `batch_size_over_time`, and their
            callers: `callers_over_time`
prediction  draws measured latencies beside predicted ones: `measured_and_predicted`, `live_and_simulated`
run         draws a run: `latency_over_time`, `requests_over_time`, `utilisation`, `copies`, `latency_distribution`,
            `waits_over_time`
size        draws designs and their costs: `latency_against_instances`, `cost_frontier`
style       defines the colours, the frame and the axes that all figures share
time_axis   groups the windows of a run, and draws their steps, bands, time axis and overload
tokens      draws pools that serve tokens: `first_token_over_time`, `sequences_over_time`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadowsim.plots.benchmarks import benchmark_changes
    from shadowsim.plots.capacity import latency_against_rate
    from shadowsim.plots.comparison import differences, noise_floor
    from shadowsim.plots.heatmap import power, sweep
    from shadowsim.plots.load import load_latency_over_time, load_over_time, load_quantiles
    from shadowsim.plots.pools import (
        batch_size_over_time,
        callers_over_time,
        failures_over_time,
        instances_over_time,
    )
    from shadowsim.plots.prediction import live_and_simulated, measured_and_predicted
    from shadowsim.plots.run import (
        copies,
        latency_distribution,
        latency_over_time,
        requests_over_time,
        utilisation,
        waits_over_time,
    )
    from shadowsim.plots.size import cost_frontier, latency_against_instances
    from shadowsim.plots.tokens import first_token_over_time, sequences_over_time

_HOME = {
    "batch_size_over_time": "pools",
    "benchmark_changes": "benchmarks",
    "callers_over_time": "pools",
    "copies": "run",
    "cost_frontier": "size",
    "differences": "comparison",
    "failures_over_time": "pools",
    "first_token_over_time": "tokens",
    "instances_over_time": "pools",
    "latency_against_instances": "size",
    "latency_against_rate": "capacity",
    "latency_distribution": "run",
    "latency_over_time": "run",
    "live_and_simulated": "prediction",
    "load_latency_over_time": "load",
    "load_over_time": "load",
    "load_quantiles": "load",
    "measured_and_predicted": "prediction",
    "noise_floor": "comparison",
    "power": "heatmap",
    "requests_over_time": "run",
    "sequences_over_time": "tokens",
    "sweep": "heatmap",
    "utilisation": "run",
    "waits_over_time": "run",
}

__all__ = [
    "batch_size_over_time",
    "benchmark_changes",
    "callers_over_time",
    "copies",
    "cost_frontier",
    "differences",
    "failures_over_time",
    "first_token_over_time",
    "instances_over_time",
    "latency_against_instances",
    "latency_against_rate",
    "latency_distribution",
    "latency_over_time",
    "live_and_simulated",
    "load_latency_over_time",
    "load_over_time",
    "load_quantiles",
    "measured_and_predicted",
    "noise_floor",
    "power",
    "requests_over_time",
    "sequences_over_time",
    "sweep",
    "utilisation",
    "waits_over_time",
]


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Load a figure's function (PEP 562)."""
        if name not in _HOME:
            raise AttributeError(f"module 'shadowsim.plots' has no attribute {name!r}")
        value = getattr(import_module(f"shadowsim.plots.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
