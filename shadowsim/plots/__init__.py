"""All figures: functions that take a frame and return a Plotly figure to go on with.

Of a run (timelines.py): `latency_over_time`, `requests_over_time`, `utilisation`, `copies`, `latency_distribution`.
Of a comparison (intervals.py): `differences`, `noise_floor`.
Of designs to choose from (frontiers.py): `latency_against_instances`, `cost_frontier`.
Over settings (maps.py): `power`, of a plan, and `sweep`.
"""

from shadowsim.plots.comparison import differences, noise_floor
from shadowsim.plots.heatmap import power, sweep
from shadowsim.plots.run import copies, latency_distribution, latency_over_time, requests_over_time, utilisation
from shadowsim.plots.size import cost_frontier, latency_against_instances

__all__ = [
    "copies",
    "cost_frontier",
    "differences",
    "latency_against_instances",
    "latency_distribution",
    "latency_over_time",
    "noise_floor",
    "power",
    "requests_over_time",
    "sweep",
    "utilisation",
]
