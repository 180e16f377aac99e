"""A rehearsed account for tests: a store, a clock that the test moves, and requests to it, also through boto3.

boto3 is real, with its serialisers, parsers, paginators and retries; only the socket is left out: what botocore is
about to send goes to `handle`, and comes back as the HTTP answer that the server would give.
"""

from __future__ import annotations

import copy
import json
from functools import cache

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from shadowsim.errors import ShadowsimError
from shadowsim.server.control import handle
from shadowsim.server.store import Store

T0 = 1_800_000_000.0
DAY = 86_400.0
ROLE = "arn:aws:iam::111122223333:role/SageMaker"
SOURCE, SHADOW = "AllTraffic", "Shadow-01"


def variant(name, model, count=2, instance_type="ml.m5.xlarge"):
    pool = {"InstanceType": instance_type, "InstanceCount": count}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": model, "VariantName": name, "InfrastructureConfig": infrastructure}


def mirrored(percentage, shadow=SHADOW, source=SOURCE):
    shadows = [{"ShadowModelVariantName": shadow, "SamplingPercentage": percentage}]
    return {"SourceModelVariantName": source, "ShadowModelVariants": shadows}


def experiment(name="bert", endpoint="live", **changes):
    request = {
        "Name": name,
        "Type": "ShadowMode",
        "RoleArn": ROLE,
        "EndpointName": endpoint,
        "ModelVariants": [variant(SOURCE, "old"), variant(SHADOW, "new")],
        "ShadowModeConfig": mirrored(50),
    }
    return {**request, **changes}


def production(name=SOURCE, model="old", count=2, **more):
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.xlarge",
        "InitialInstanceCount": count,
    } | more


class Account:
    """A store and the moment that it is asked at."""

    def __init__(self, path=":memory:", **options):
        self.now = T0
        self.store = Store(path, wall=lambda: self.now, **options)

    def __del__(self):
        if hasattr(self, "store"):
            self.store.close()

    def do(self, action, **body):
        return handle(action, copy.deepcopy(body), self.now, self.store)

    def refused(self, action, **body):
        """The error that an action ends in, having changed nothing."""
        before = self.picture()
        with pytest.raises(ShadowsimError) as caught:
            self.do(action, **body)
        assert 400 <= caught.value.http_status < 500
        assert self.picture() == before
        return caught.value

    def wait(self, seconds):
        self.now += seconds
        return self

    def picture(self):
        """All that there is, as a text."""
        return f"{self.store.n_events()} {self.store.world_at(self.now)!r}"

    def status(self, name="bert"):
        return self.do("DescribeInferenceExperiment", Name=name)["Status"]

    def endpoint(self, name="live"):
        return self.do("DescribeEndpoint", EndpointName=name)


def account(endpoint=True, **options):
    """An account with models old and new, and an endpoint "live" in service."""
    made = Account(**options)
    for name in ("old", "new"):
        made.do("CreateModel", ModelName=name, PrimaryContainer={"Image": f"image/{name}"}, ExecutionRoleArn=ROLE)
    if endpoint:
        made.do("CreateEndpointConfig", EndpointConfigName="first", ProductionVariants=[production()])
        made.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
        made.wait(2)
    return made


def client(made):
    """A boto3 client whose requests the account answers, until the next account's is asked for."""
    sagemaker, answers = _client()
    answers[:] = [made]
    return sagemaker


@cache
def _client():
    answers = []  # to make a client takes a third of a second
    sagemaker = boto3.client(
        "sagemaker",
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        endpoint_url="http://127.0.0.1:1",
    )

    def answer(request, **_):
        action = request.headers["X-Amz-Target"].decode().removeprefix("SageMaker.")
        try:
            (made,) = answers
            status, body = 200, handle(action, request.body, made.now, made.store)
        except ShadowsimError as error:
            status, body = error.http_status, {"__type": error.code, "message": str(error)}
        raw = type("Raw", (), {"stream": lambda self: iter([json.dumps(body).encode()])})()
        return AWSResponse(request.url, status, {"Content-Type": "application/x-amz-json-1.1"}, raw)

    sagemaker.meta.events.register("before-send.sagemaker", answer)
    return sagemaker, answers
