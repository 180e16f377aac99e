"""The AWS CLI against a server in one process and in two; it has its own environment, since it pins botocore."""

import json
import os
import subprocess
import sys

import pytest
from serving import KEYS, ROLE, until, variant
from serving_processes import serving_processes


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """The path of the command `aws`."""
    folder = tmp_path_factory.mktemp("awscli")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "awscli"]
    subprocess.run(pip, check=True, timeout=300)
    return folder / "bin" / "aws"


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_a_shadow_test_by_the_aws_cli(tmp_path, aws, n):
    key, secret = KEYS.values()
    (tmp_path / "keys").write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    with serving_processes(tmp_path, n, "--transition-s", "0", "--credentials", str(tmp_path / "keys")) as server:
        names = ("SAGEMAKER", "SAGEMAKER_RUNTIME", "CLOUDWATCH")
        environment = {f"AWS_ENDPOINT_URL_{name}": server.url for name in names}
        environment |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}

        def run(*command, fails=False):
            done = subprocess.run(
                [aws, *command], env={**os.environ, **environment}, capture_output=True, text=True, cwd=tmp_path,
                timeout=60, check=False,
            )  # fmt: skip
            assert (done.returncode != 0) == fails, done.stderr
            return done.stderr if fails else json.loads(done.stdout or "{}")

        for model in ("current", "candidate"):
            container = "Image=111122223333.dkr.ecr.us-east-1.amazonaws.com/model:1"
            named = ("--model-name", model, "--primary-container", container, "--execution-role-arn", ROLE)
            assert run("sagemaker", "create-model", *named)["ModelArn"].endswith(f":model/{model}")
        shadow = {"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": 100}
        request = {
            "Name": "test",
            "Type": "ShadowMode",
            "RoleArn": ROLE,
            "EndpointName": "endpoint",
            "ModelVariants": [variant("AllTraffic", "current"), variant("Shadow-01", "candidate")],
            "ShadowModeConfig": {"SourceModelVariantName": "AllTraffic", "ShadowModelVariants": [shadow]},
        }
        created = run("sagemaker", "create-inference-experiment", "--cli-input-json", json.dumps(request))
        assert created["InferenceExperimentArn"].endswith(":inference-experiment/test")
        describe = ("sagemaker", "describe-inference-experiment", "--name", "test")
        until(lambda: run(*describe)["Status"] == "Running")
        running = run("sagemaker", "list-inference-experiments", "--status-equals", "Running")["InferenceExperiments"]
        assert [experiment["Name"] for experiment in running] == ["test"]

        (tmp_path / "body.json").write_text('{"x": 1}')
        invoked = ("--endpoint-name", "endpoint", "--body", "fileb://body.json", "--content-type", "application/json")

        def both_serve():
            answered = run("sagemaker-runtime", "invoke-endpoint", *invoked, "--inference-id", "one", "answer.json")
            assert answered["InvokedProductionVariant"] == "AllTraffic"
            assert (tmp_path / "answer.json").read_text() == '{"x": 1}'
            return len(run("cloudwatch", "list-metrics", "--metric-name", "ModelLatency")["Metrics"]) == 2

        until(both_serve)  # a busy machine sheds copies

        actions = "AllTraffic=Retain,Shadow-01=Remove"
        run("sagemaker", "stop-inference-experiment", "--name", "test", "--model-variant-actions", actions)
        until(lambda: run(*describe)["Status"] == "Cancelled")
        run("sagemaker", "delete-inference-experiment", "--name", "test")
        assert "ResourceNotFound" in run(*describe, fails=True)
