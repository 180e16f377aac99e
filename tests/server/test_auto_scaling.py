"""Auto scaling as boto3 sees it: a simulated variant grows and shrinks with its requests."""

import threading
from time import sleep

import pytest
from serving import Container, create_models, serving, until

from shadowsim.scenario.service import parse_service

RESOURCE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/endpoint/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
TIME = {"law": "deterministic", "mean_s": 0.001}
SERVICES = {
    "AllTraffic": parse_service(
        {
            "time": TIME,
            "scaling": {
                **{"metric": "InvocationsPerInstance", "target": 1, "min": 1, "max": 9, "out_points": 2},
                "in_points": 10,
            },
            "cold_start_s": 60.0,
        },
        "services.AllTraffic",
    )
}
SCALE = 600.0  # a minute in 0.1 s


def endpoint_of(server, model):
    sagemaker = server.client("sagemaker")
    create_models(sagemaker, model)
    variant = {
        **{"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.m5.xlarge"},
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="first", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="first")
    until(lambda: sagemaker.describe_endpoint(EndpointName="endpoint")["EndpointStatus"] == "InService")
    return sagemaker


def policy(scaling, target, **more):
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    configuration = {"TargetValue": target, "PredefinedMetricSpecification": metric, **more}
    scaling.register_scalable_target(**RESOURCE, MinCapacity=1, MaxCapacity=4)
    scaling.put_scaling_policy(
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=configuration,
        **RESOURCE,
    )


def test_a_simulated_variant_follows_its_requests(tmp_path):
    with serving(tmp_path, services=SERVICES, store={"time_scale": SCALE}) as server:
        sagemaker, scaling = endpoint_of(server, "m"), server.client("application-autoscaling")

        def counts():
            (variant,) = sagemaker.describe_endpoint(EndpointName="endpoint")["ProductionVariants"]
            return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

        # however slow this machine is, some requests a second are far above one a minute, and none are below
        policy(scaling, 1.0, ScaleOutCooldown=60, ScaleInCooldown=60)
        stop = threading.Event()

        def call():
            while not stop.is_set():
                server.invoke(Body=b"x")
                sleep(0.005)

        caller = threading.Thread(target=call)
        caller.start()
        try:
            until(lambda: counts() == (4, 4))
            pool = server.app.endpoints.by_name["endpoint"].pools["AllTraffic"]
            until(lambda: len(pool.outstanding) == 4)
        finally:
            stop.set()
            caller.join()
        until(lambda: counts() == (1, 1))
        until(lambda: len(pool.outstanding) == 1)
        activities = scaling.describe_scaling_activities(ServiceNamespace="sagemaker")["ScalingActivities"]
        assert activities[-1]["Description"] == "Setting desired instance count to 4."
        assert activities[0]["Description"] == "Setting desired instance count to 1."
        assert {a["StatusCode"] for a in activities} == {"Successful"}
        took_s = (activities[-1]["EndTime"] - activities[-1]["StartTime"]).total_seconds()
        assert took_s == pytest.approx(60.0, abs=0.001)  # the cold start, in scaled time


def test_containers_are_not_scaled(tmp_path):
    with serving(tmp_path, {"m": Container()}, store={"time_scale": SCALE}) as server:
        endpoint_of(server, "m")
        scaling = server.client("application-autoscaling")
        policy(scaling, 1.0)
        (activity,) = scaling.describe_scaling_activities(ServiceNamespace="sagemaker")["ScalingActivities"]
        assert (activity["StatusCode"], activity["StatusMessage"][:18]) == ("Unfulfilled", "Nothing is scaled:")


def test_a_changed_number_of_instances_keeps_those_that_serve(tmp_path):
    """UpdateEndpointWeightsAndCapacities adds instances to a pool, whose requests go on."""
    slow = parse_service({"time": {"law": "deterministic", "mean_s": 0.5}}, "services.AllTraffic")
    with serving(tmp_path, services={"AllTraffic": slow}) as server:
        sagemaker = endpoint_of(server, "m")
        pool = server.app.endpoints.endpoint("endpoint").pools["AllTraffic"]
        for n in (3, 1):
            change = {"VariantName": "AllTraffic", "DesiredInstanceCount": n}
            caller = threading.Thread(target=lambda: server.invoke(Body=b"x"))
            caller.start()
            until(lambda: sum(pool.outstanding) == 1)
            sagemaker.update_endpoint_weights_and_capacities(
                EndpointName="endpoint", DesiredWeightsAndCapacities=[change]
            )
            until(lambda n=n: len(pool.outstanding) == n)
            assert server.app.endpoints.by_name["endpoint"].pools["AllTraffic"] is pool
            caller.join()
        until(lambda: pool.in_flight() == [0])
