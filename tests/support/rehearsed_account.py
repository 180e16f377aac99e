"""Provides an account for tests: a store, a clock that the test moves, and requests to it, also through boto3.

boto3 is real, with its serialisers, parsers, paginators and retries; only the socket is replaced: the request that
botocore is about to send goes to `handle`, and the answer comes back as the server's HTTP answer.
"""

from __future__ import annotations

import copy
import json
from functools import cache

import boto3
import pytest
import regex
from botocore.awsrequest import AWSResponse
from botocore.loaders import Loader
from botocore.model import ServiceModel

from shadowsim.aws.contract import AUTO_SCALING, SAGEMAKER
from shadowsim.errors import ShadowsimError
from shadowsim.server.control.actions import SCALING_ACTIONS, handle
from shadowsim.server.state.store import Store

MODELS = {
    name: ServiceModel(Loader().load_service_model(name, "service-2"), name) for name in (SAGEMAKER, AUTO_SCALING)
}
MODEL = MODELS[SAGEMAKER]
T0 = 1_800_000_000.0
DAY = 86_400.0
ROLE = "arn:aws:iam::111122223333:role/SageMaker"
SOURCE, SHADOW = "AllTraffic", "Shadow-01"


def variant(name, model, count=2, instance_type="ml.m5.xlarge"):
    pool = {"InstanceType": instance_type, "InstanceCount": count}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": model, "VariantName": name, "InfrastructureConfig": infrastructure}


def shadow_mode_config(percentage, shadow=SHADOW, source=SOURCE):
    shadows = [{"ShadowModelVariantName": shadow, "SamplingPercentage": percentage}]
    return {"SourceModelVariantName": source, "ShadowModelVariants": shadows}


def experiment(name="bert", endpoint="live", **changes):
    request = {
        "Name": name,
        "Type": "ShadowMode",
        "RoleArn": ROLE,
        "EndpointName": endpoint,
        "ModelVariants": [variant(SOURCE, "old"), variant(SHADOW, "new")],
        "ShadowModeConfig": shadow_mode_config(50),
    }
    return {**request, **changes}


def production(name=SOURCE, model="old", count=2, **more):
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.xlarge",
        "InitialInstanceCount": count,
    } | more


def misfits(shape, value, path="answer"):
    """Yield each way in which a JSON value does not fit its botocore shape; the shape None means an empty answer."""
    types = {
        "structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "integer": int, "long": int,
        "float": (int, float), "double": (int, float), "timestamp": (int, float),
    }  # fmt: skip
    if shape is None:
        if value != {}:
            yield f"{path} is {value!r}, but should be empty"
        return
    kind, rules = shape.type_name, shape.metadata
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{path} is {value!r}, not a {kind}"
        return
    is_number = kind in ("integer", "long", "float", "double")
    size = value if is_number else len(value) if isinstance(value, str | list | dict) and kind != "structure" else None
    if size is not None and not rules.get("min", size) <= size <= rules.get("max", size):
        yield f"{path} is {value!r}, not within {rules}"
    # a range of UTF-16 surrogates is none of Python's
    pattern = rules.get("pattern", "").replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    if pattern and not regex.fullmatch(pattern, value):
        yield f"{path} is {value!r}, which does not match {rules['pattern']}"
    if rules.get("enum") and value not in rules["enum"]:
        yield f"{path} is {value!r}, not one of {rules['enum']}"
    match kind:
        case "structure":
            yield from (f"{path}.{name} is missing" for name in shape.required_members if name not in value)
            for name, item in value.items():
                if name in shape.members:
                    yield from misfits(shape.members[name], item, f"{path}.{name}")
                else:
                    yield f"{path}.{name} is unknown"
        case "list":
            for i, item in enumerate(value):
                yield from misfits(shape.member, item, f"{path}[{i}]")
        case "map":
            for name, item in value.items():
                yield from misfits(shape.key, name, path)
                yield from misfits(shape.value, item, f"{path}.{name}")


class Account:
    """A store, and the moment at which it is asked."""

    def __init__(self, path=":memory:", **options):
        self.now = T0
        self.store = Store(path, wall=lambda: self.now, steady=lambda: self.now, **options)

    def __del__(self):
        if hasattr(self, "store"):
            self.store.close()

    def do(self, action, **body):
        """Return the answer of an action, checked against its shape."""
        service = AUTO_SCALING if action in SCALING_ACTIONS else SAGEMAKER
        answer = handle(action, copy.deepcopy(body), self.now, self.store, service)
        assert list(misfits(MODELS[service].operation_model(action).output_shape, answer)) == []
        return answer

    def refused(self, action, **body):
        """Return the error of an action, checked to be a 4xx one and to have changed nothing."""
        before = self.snapshot()
        with pytest.raises(ShadowsimError) as caught:
            self.do(action, **body)
        assert 400 <= caught.value.http_status < 500
        assert self.snapshot() == before
        return caught.value

    def wait(self, seconds):
        self.now += seconds
        return self

    def snapshot(self):
        """Return the number of events and the whole world as text."""
        return f"{self.store.n_events()} {self.store.world_at(self.now)!r}"

    def status(self, name="bert"):
        return self.do("DescribeInferenceExperiment", Name=name)["Status"]

    def endpoint(self, name="live"):
        return self.do("DescribeEndpoint", EndpointName=name)


def new_account(endpoint=True, **options):
    """Return an account with models "old" and "new", and an endpoint "live" in service."""
    account = Account(**options)
    for name in ("old", "new"):
        account.do("CreateModel", ModelName=name, PrimaryContainer={"Image": f"image/{name}"}, ExecutionRoleArn=ROLE)
    if endpoint:
        account.do("CreateEndpointConfig", EndpointConfigName="first", ProductionVariants=[production()])
        account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
        account.wait(2)
    return account


VARIANT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/live/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


def tracking(metric="SageMakerVariantInvocationsPerInstance", target=10.0, **more):
    """Return the configuration of a target tracking policy."""
    return {"TargetValue": target, "PredefinedMetricSpecification": {"PredefinedMetricType": metric}, **more}


def scaled_account(least=1, most=5, configuration=None, **options):
    """Return an account whose variant scales by a policy called "p"."""
    account = new_account(**options)
    account.do("RegisterScalableTarget", **VARIANT, MinCapacity=least, MaxCapacity=most)
    policy = {"TargetTrackingScalingPolicyConfiguration": configuration or tracking()}
    account.do("PutScalingPolicy", **VARIANT, PolicyName="p", PolicyType="TargetTrackingScaling", **policy)
    return account


def client(account):
    """Return a boto3 client whose requests the account answers, until `client` is called for another account."""
    sagemaker, accounts = _client()
    accounts[:] = [account]
    return sagemaker


@cache
def _client():
    accounts = []  # the client is cached: creating one takes a third of a second
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
            (account,) = accounts
            status, body = 200, handle(action, request.body, account.now, account.store)
        except ShadowsimError as error:
            status, body = error.http_status, {"__type": error.code, "message": str(error)}
        raw = type("Raw", (), {"stream": lambda self: iter([json.dumps(body).encode()])})()
        return AWSResponse(request.url, status, {"Content-Type": "application/x-amz-json-1.1"}, raw)

    sagemaker.meta.events.register("before-send.sagemaker", answer)
    return sagemaker, accounts
