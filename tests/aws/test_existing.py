"""An experiment that exists is asked for by boto3, here from our own server."""

import json

import pytest
from commands import good, refused
from rehearsed_account import experiment
from serving import KEYS, create_models, serving

from shadowsim.aws.existing import described_experiment


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server")) as server:
        sagemaker = server.client("sagemaker")
        create_models(sagemaker, "old", "new")
        sagemaker.create_inference_experiment(**experiment())
        yield server


@pytest.fixture
def at_the_server(rehearsal, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", rehearsal.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.usefixtures("at_the_server")
class TestOfTheServer:
    def test_commands_take_it(self):
        name = experiment()["Name"]
        assert described_experiment(name)["Name"] == name
        shown = good("validate", "--from-aws", name)
        assert f"experiment      {name} (ShadowMode)" in shown
        assert "assumed  experiment: as described, in status" in shown
        document = json.loads(good("init", "--from-aws", name))
        assert document["experiment"]["ModelVariants"] == experiment()["ModelVariants"]
        out = good("simulate", "--from-aws", name, "--rate", 5, "--set", "horizon_s=60", "-q")
        assert "assumed  experiment: as described" in out

    def test_one_that_is_not_there(self):
        assert refused("validate", "--from-aws", "missing").startswith(
            "--from-aws: there is no inference experiment missing ("
        )


def test_without_an_answer(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    assert refused("simulate", "--from-aws", "x", "--rate", 5).startswith("--from-aws: cannot ask AWS for x: Could not")
    assert refused("validate", "file.json", "--from-aws", "x") == "--from-aws: must not be given together with a file"
    assert refused("simulate", "--resource", "x") == "--resource: needs a file"


def test_without_boto3(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    assert refused("validate", "--from-aws", "x") == "--from-aws: needs boto3: pip install 'shadowsim[aws]'"
