"""The case of benchmarks/limit.c as a scenario: 8 x 4 workers at 1,000 requests/s, half of them copied to 4 x 4."""

from shadowsim import Scenario, default_scenario


def plain_case(n_requests: int, routing: str = "RANDOM", instances: int = 8, period_s: float = 60.0) -> Scenario:
    """Return a scenario of Poisson arrivals and lognormal service times of 20 ms with SCV 0.284.

    Parameters
    ----------
    n_requests : int
        Expected number of source requests; sets the horizon.
    routing : str
    instances : int
        Instances of the source; the shadow has half as many. limit.c has 8, and RANDOM routing.
    period_s : float
        Length of a window.
    """
    law = {"law": "lognormal", "mean_s": 0.02, "scv": 0.284}
    return default_scenario().replace(
        {
            "traffic": {"process": "poisson", "rate_per_s": 1000.0},
            "source.time": law,
            "shadow.time": law,
            "source.instance_count": instances,
            "shadow.instance_count": instances // 2,
            "endpoint.routing": routing,
            "horizon_s": n_requests / 1000.0,
            "run.period_s": period_s,
        }
    )
