"""A rehearsal of two scikit-learn models: containers, a thousand requests, captures in S3, Stop with Promote."""

import json
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Lock, Thread

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from serving import create_experiment, create_models, serving, until
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from shadowsim import agreement
from shadowsim.server.state.destinations import S3

N, NPY = 1000, "application/x-npy"
PARSING = Lock()


def npy(array):
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array(body):
    # The header is parsed as Python, which in several threads at once fails now and then in 3.11 (gh-106905).
    with PARSING:
        return np.load(BytesIO(body), allow_pickle=False)


class Model:
    """A fitted model behind the container contract: GET /ping, POST /invocations with npy in and out."""

    def __init__(self, fitted):
        self.fitted = fitted
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(200 if self.path == "/ping" else 404, b"")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(200, npy(model.fitted.predict(array(body))))

            def reply(self, status, body):
                self.send_response(status)
                self.send_header("Content-Type", NPY)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        # headers and body leave together, or each waits for the other's acknowledgement
        Handler.wbufsize = 65_536
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def s3(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="captures")
    yield client
    server.stop()


@pytest.mark.slow
def test_a_whole_rehearsal(tmp_path, s3):
    x, y = load_iris(return_X_y=True)
    fitted = {"current": LogisticRegression(max_iter=1000).fit(x, y), "candidate": DecisionTreeClassifier(max_depth=2)}
    fitted["candidate"].fit(x, y)
    models = {name: Model(model) for name, model in fitted.items()}
    rows = x[np.random.default_rng(1).integers(0, len(x), N)] + np.random.default_rng(2).normal(0.0, 0.3, (N, 4))

    with serving(
        tmp_path, urls={name: m.url for name, m in models.items()}, sink=S3(f"{s3.meta.endpoint_url}")
    ) as server:
        sagemaker, invoke = server.client("sagemaker"), server.invoke
        create_models(sagemaker, *models)
        pool = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(
            EndpointConfigName="plain",
            ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": "current", **pool}],
            DataCaptureConfig={
                "InitialSamplingPercentage": 100,
                "DestinationS3Uri": "s3://captures/endpoint",
                "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            },
        )
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="plain")
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="endpoint", WaiterConfig={"Delay": 1})
        storage = {"Destination": "s3://captures/experiment"}
        create_experiment(sagemaker, models=("current", "candidate"), DataStorageConfig=storage)

        def ask(i):
            reply = invoke(Body=npy(rows[i : i + 1]), ContentType=NPY, Accept=NPY, InferenceId=f"request-{i}")
            assert reply["InvokedProductionVariant"] == "AllTraffic"
            return array(reply["Body"].read())[0]

        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(ask, range(N)))
        assert answers == fitted["current"].predict(rows).tolist()
        server.answered(N)

        actions = {"AllTraffic": "Remove", "Shadow-01": "Promote"}
        sagemaker.stop_inference_experiment(Name="test", ModelVariantActions=actions, DesiredState="Completed")
        until(lambda: sagemaker.describe_inference_experiment(Name="test")["Status"] == "Completed")
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="endpoint", WaiterConfig={"Delay": 1})
        reply = invoke(Body=npy(rows), ContentType=NPY)
        assert reply["InvokedProductionVariant"] == "Shadow-01"
        served = array(reply["Body"].read())
        assert served.tolist() == fitted["candidate"].predict(rows).tolist()
        sagemaker.delete_inference_experiment(Name="test")
    for model in models.values():
        model.stop()

    # read back from S3 by boto3
    ids: dict[str, list[str]] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="captures", Prefix="experiment/"):
        for item in page["Contents"]:
            body = s3.get_object(Bucket="captures", Key=item["Key"])["Body"].read()
            file = tmp_path / item["Key"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
            in_file = [json.loads(line)["eventMetadata"]["inferenceId"] for line in body.splitlines()]
            ids.setdefault(item["Key"].split("/")[2], []).extend(in_file)
    every = sorted(f"request-{i}" for i in range(N))
    assert {name: sorted(values) for name, values in ids.items()} == {"AllTraffic": every, "Shadow-01": every}

    result = agreement(tmp_path / "experiment/endpoint/AllTraffic", tmp_path / "experiment/endpoint/Shadow-01")
    n_equal = (fitted["current"].predict(rows) == fitted["candidate"].predict(rows)).sum()
    assert (result.n_pairs, result.within.n, result.within.of) == (N, n_equal, N)
