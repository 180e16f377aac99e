"""Builds scenarios, by hand and by hypothesis, for several test modules."""

from contextlib import contextmanager

from hypothesis import reject
from hypothesis import strategies as st

from shadowsim import InputError, Scenario

REQUEST = {
    "Name": "case",
    "Type": "ShadowMode",
    "RoleArn": "arn:aws:iam::111122223333:role/SageMaker",
    "EndpointName": "case",
    "ModelVariants": [
        {
            "ModelName": f"model-{name}",
            "VariantName": name,
            "InfrastructureConfig": {
                "InfrastructureType": "RealTimeInference",
                "RealTimeInferenceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
            },
        }
        for name in ("Source", "Shadow")
    ],
    "ShadowModeConfig": {
        "SourceModelVariantName": "Source",
        "ShadowModelVariants": [{"ShadowModelVariantName": "Shadow", "SamplingPercentage": 50}],
    },
}
STORAGE = {"Destination": "s3://bucket/captures"}


def scenario(
    traffic,
    source=None,
    shadow=None,
    *,
    source_instances=1,
    shadow_instances=1,
    share=50,
    endpoint=None,
    mirror=None,
    capture=False,
    base_dir=None,
    **run,
):
    """A scenario from its blocks; `run` are keys of its run block."""
    request = REQUEST | ({"DataStorageConfig": STORAGE} if capture else {})
    document = {
        "experiment": request,
        "traffic": traffic,
        "services": {"Source": source or service(), "Shadow": shadow or source or service()},
        "endpoint": endpoint or {},
        "mirror": mirror or {},
        "run": {"horizon_s": 60.0, "sample_requests": 10**6} | run,
    }
    return Scenario.from_dict(document, base_dir).replace(
        {
            "source.instance_count": source_instances,
            "shadow.instance_count": shadow_instances,
            "sampling_percentage": share,
        }
    )


def service(law="exponential", mean_s=1.0, workers=1, **more):
    time = {"law": law, "mean_s": mean_s}
    if law in ("lognormal", "gamma"):
        time["scv"] = more.pop("scv", 0.5)
    return {"time": time, "workers": workers} | more


@contextmanager
def dask_executor():
    """An executor of a Dask cluster of two processes."""
    from dask.distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        yield client.get_executor()


LAWS = st.sampled_from(
    [
        {"law": "deterministic", "mean_s": 0.5},
        {"law": "deterministic", "mean_s": 2.5},
        {"law": "exponential", "mean_s": 0.7},
        {"law": "lognormal", "mean_s": 0.4, "scv": 2.0},
        {"law": "lognormal", "p50_s": 0.2, "p99_s": 3.0},
        {"law": "gamma", "mean_s": 1.0, "scv": 0.3},
        {"law": "empirical", "quantiles_s": {"0.1": 0.1, "0.5": 0.4, "1": 4.0}},
    ]
)
TIME_OUTS = st.sampled_from([0.5, 1.0, 2.5, 60.0])


@st.composite
def services(draw):
    """Small pools, often overloaded, some of which refuse, fail and slow down."""
    workers = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 9]))
    slowdown = draw(st.sampled_from([None, None, [1.0, 1.5], [2.0], [1.0, 0.5, 3.0]]))
    return {
        "time": draw(LAWS),
        "workers": workers,
        "queue_limit": draw(st.sampled_from([None, None, 0, 1, 3])),
        "slowdown": slowdown and slowdown[:workers],
        "wake": draw(st.sampled_from([None, None, {"most_s": 0.5, "half_s": 1.5}])),
        "error_4xx": draw(st.sampled_from([0.0, 0.2])),
        "error_5xx": draw(st.sampled_from([0.0, 0.3])),
    }


@st.composite
def mirrors(draw):
    """Every copy rule, instant and cap, most often none of the caps."""
    return {
        "rule": draw(st.sampled_from(["coin", "counter", "hash"])),
        "instant": draw(st.sampled_from(["arrival", "response"])),
        "max_in_flight": draw(st.sampled_from([None, None, 0, 1, 4])),
        "max_body_bytes": draw(st.sampled_from([None, None, 0, 60])),
        "max_per_s": draw(st.sampled_from([None, None, 0, 1, 3])),
    }


RATES = st.sampled_from([0.0, 0.1, 1.0, 2.0, 7.0])
PROFILES = st.one_of(
    st.builds(
        lambda a, b, c: {
            "kind": "steps",
            "steps": [
                {"from_s": 0, "rate_per_s": a},
                {"from_s": 13.0, "rate_per_s": b},
                {"from_s": 30.0, "rate_per_s": c},
            ],
        },
        RATES,
        RATES,
        RATES,
    ),
    st.builds(
        lambda a, b: {"kind": "linear", "from_per_s": a, "to_per_s": b, "from_s": 5.0, "to_s": 50.0}, RATES, RATES
    ),
    st.builds(
        lambda a, b: {"kind": "spikes", "base_per_s": a, "spikes": [{"at_s": 10.0, "for_s": 5.5, "rate_per_s": b}]},
        RATES,
        RATES,
    ),
)


@st.composite
def blocks(draw):
    """One kind of arrivals, with or without a profile."""
    process = draw(st.sampled_from(["poisson", "constant", "gamma", "mmpp"]))
    if process == "mmpp":
        sojourn = draw(st.sampled_from([0.3, 5.0, [2.0, 30.0]]))
        return {
            "process": process,
            "rates_per_s": draw(st.sampled_from([[0.0, 9.0], [1.0, 3.0]])),
            "mean_sojourn_s": sojourn,
        }
    block = {"process": process} | ({"scv": draw(st.sampled_from([0.1, 1.0, 9.0]))} if process == "gamma" else {})
    if draw(st.booleans()):
        return block | {"rate_per_s": draw(st.sampled_from([0.3, 1.0, 2.0, 6.4]))}
    return block | {"profile": draw(PROFILES)}


@st.composite
def traffics(draw):
    """All arrival processes, alone and superposed, with bodies and sessions."""
    more = {"sessions": draw(st.sampled_from([1, 3, 50])), "request_bytes": {"law": "exponential", "mean_bytes": 50.0}}
    if draw(st.integers(0, 3)):
        return draw(blocks()) | more
    return [b | more for b in draw(st.lists(blocks(), min_size=2, max_size=3))]


@st.composite
def scenarios(draw):
    """Small, nasty scenarios."""
    parts = (draw(traffics()), draw(services()), draw(services()))
    rest = draw(runs())
    try:
        return scenario(*parts, **rest)
    except InputError as error:
        if "must have a rate > 0" in str(error):  # no request before a short horizon
            reject()
        raise


def scenarios_for_events():
    """Those without `wake`, which no simulation by events has."""
    return scenarios().filter(lambda s: all(service.wake is None for service in s.services.values()))


@st.composite
def runs(draw):
    return {
        "source_instances": draw(st.integers(1, 3)),
        "shadow_instances": draw(st.integers(1, 3)),
        "share": draw(st.sampled_from([0, 1, 30, 50, 99, 100])),
        "endpoint": {
            "timeout_s": draw(TIME_OUTS),
            "routing": {
                v: draw(st.sampled_from(["RANDOM", "LEAST_OUTSTANDING_REQUESTS"])) for v in ("Source", "Shadow")
            },
        },
        "mirror": draw(mirrors()),
        "horizon_s": draw(st.sampled_from([1.0, 19.5, 60.0, 70.0])),
        "period_s": draw(st.sampled_from([0.7, 10.0, 20.0, 60.0])),
        "seed": draw(st.sampled_from([0, 7, 2**64 - 1])),
    }
