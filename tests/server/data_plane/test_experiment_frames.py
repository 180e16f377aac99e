"""server/logbook.py behind a server: whose requests an experiment's frames hold, and what can be done with them."""

import json
from urllib.error import HTTPError

import pandas as pd
import pytest
from serving import SHADOW_ACTIONS, serving, until

from shadowsim import compare
from shadowsim.frames import SCHEMAS


def test_an_experiment_that_is_created_again_begins_a_new_logbook(tmp_path):
    """Also when nobody has looked at the endpoint between the end of the first and the start of the second."""
    with serving(tmp_path, store={"transition_s": 0.0}) as server:
        sagemaker = server.experiment()
        for _ in range(3):
            server.invoke(Body=b"x")
        server.answered(3)
        request = sagemaker.describe_inference_experiment(Name="test")
        sagemaker.stop_inference_experiment(Name="test", ModelVariantActions=SHADOW_ACTIONS)
        sagemaker.delete_inference_experiment(Name="test")
        sagemaker.create_inference_experiment(
            Name="test",
            EndpointName="endpoint",
            ModelVariants=[{k: v for k, v in one.items() if k != "Status"} for one in request["ModelVariants"]],
            **{key: request[key] for key in ("Type", "RoleArn", "ShadowModeConfig")},
        )
        server.invoke(Body=b"x")
        server.answered(4)
        assert [row["request"] for row in server.frame("test", "requests")] == [0, 0]


def test_a_folder_of_downloaded_frames_can_be_compared(tmp_path):
    """Before the test's end and after it, whatever became of the endpoint."""
    folder = tmp_path / "frames"
    folder.mkdir()
    with serving(tmp_path) as server:
        sagemaker = server.experiment()
        for i in range(20):
            server.invoke(Body=b"x", InferenceId=f"id-{i}")
        server.answered(20)
        compared = []
        for after in (False, True):
            if after:
                sagemaker.stop_inference_experiment(Name="test", ModelVariantActions=SHADOW_ACTIONS)
                until(lambda: sagemaker.describe_inference_experiment(Name="test")["Status"] == "Cancelled")
                sagemaker.delete_endpoint(EndpointName="endpoint")
                until(lambda: not sagemaker.list_endpoints()["Endpoints"])
            for name in SCHEMAS:
                (folder / f"{name}.parquet").write_bytes(server.get(f"/shadowsim/experiments/test/{name}.parquet"))
            compared.append(compare(folder))
    assert list(compared[0]["n_source"].iloc[:6]) == [20] * 6
    pd.testing.assert_frame_equal(*compared)


@pytest.mark.parametrize("name", ["none", "scheduled", "%2e%2e%2fx", "%ff", "te%00st", "x" * 500, "tes%74%20"])
def test_an_experiment_that_has_not_served_has_no_frames(tmp_path, name):
    with serving(tmp_path) as server, pytest.raises(HTTPError) as caught:
        server.get(f"/shadowsim/experiments/{name}/windows.json")
    assert caught.value.code == 404
    assert json.loads(caught.value.read())["__type"] == "ResourceNotFound"


def test_an_experiment_without_requests_has_empty_frames(tmp_path):
    with serving(tmp_path) as server:
        server.experiment()
        until(lambda: server.app.endpoints.logbook("test"))
        assert server.frame("test", "requests") == server.frame("te%73t", "latency") == []
        assert all(row["Invocations"] == 0 for row in server.frame("test", "windows"))
