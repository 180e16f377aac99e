"""All figures: functions that take a frame and return a Plotly figure to go on with.

Of a run (timelines.py): `latency_over_time`, `requests_over_time`, `utilisation`, `copies`, `latency_distribution`.
Of a comparison (intervals.py): `differences`, `noise_floor`.
Of designs to choose from (designs.py): `latency_against_instances`, `cost_frontier`, `power`, `sweep`.
"""

from shadowsim.timelines import copies, latency_distribution, latency_over_time, requests_over_time, utilisation

__all__ = [
    "copies",
    "latency_distribution",
    "latency_over_time",
    "requests_over_time",
    "utilisation",
]
