"""`shadowsim serve`: its options as boto3 sees their effects, and the lines that it prints."""

import asyncio
import json
import os
import signal

import pytest
from botocore.exceptions import ClientError
from serving import serving, variant

from shadowsim import InputError, default_scenario
from shadowsim.cli import serve
from shadowsim.cli.serve import ONE_SIGNAL_S, VARIABLES, parse_backend, parse_choices, scenario_settings, startup_lines
from shadowsim.scenario.reading import Mirroring


def code_and_status(caught):
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def event_ids(folder):
    lines = [json.loads(line) for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
    return [line["eventMetadata"]["eventId"] for line in lines]


@pytest.mark.parametrize(
    ("choices", "n_lines", "n_ids"),
    [([], 6, 6), (["event_id=shared"], 6, 3), (["captured_percentage=0"], 0, 0)],
)
def test_captures_of_an_experiment(tmp_path, choices, n_lines, n_ids):
    with serving(tmp_path, store={"choices": parse_choices(choices)}) as server:
        server.experiment(DataStorageConfig={"Destination": "s3://bucket/captures"})
        for _ in range(3):
            server.invoke(Body=b"{}")
        server.answered(3)
    ids = event_ids(tmp_path / "s3")
    assert (len(ids), len(set(ids))) == (n_lines, n_ids)


@pytest.mark.parametrize(
    ("choices", "code"),
    [([], "ValidationException"), (["running_update=conflictexception"], "ConflictException")],
)
def test_updates_of_fixed_fields_are_refused(tmp_path, choices, code):
    with serving(tmp_path, store={"choices": parse_choices(choices)}) as server:
        sagemaker = server.experiment()
        with pytest.raises(ClientError, match=r"modelVariants.*Member must not change") as caught:
            sagemaker.update_inference_experiment(Name="test", ModelVariants=[variant("Shadow-01", "shadow", 2)])
        assert code_and_status(caught) == (code, 400)
        with pytest.raises(ClientError, match=r"schedule\.endTime") as caught:  # any value would be refused
            sagemaker.update_inference_experiment(Name="test", Schedule={"EndTime": 1.0})
        assert code_and_status(caught) == ("ValidationException", 400)


@pytest.mark.parametrize(("choices", "status"), [([], 400), (["unknown_operation=404"], 404)])
def test_an_unknown_operation(tmp_path, choices, status):
    with serving(tmp_path, store={"choices": parse_choices(choices)}) as server:
        with pytest.raises(ClientError) as caught:
            server.client("sagemaker").list_clusters()
        assert code_and_status(caught) == ("UnknownOperationException", status)


@pytest.mark.parametrize("scale", [1.0, 3600.0])
def test_lines_printed_at_the_start(tmp_path, scale):
    store = {"time_scale": scale, "path": str(tmp_path / "state.db")}
    with serving(tmp_path, store=store, secrets={"AKID": "secret"}) as server:
        lines = list(startup_lines(server.app, server.store))
        state, *scaled, url, page = lines[: len(lines) - len(VARIABLES) - 2]
        *exports, region, authentication = lines[-len(VARIABLES) - 2 :]
        assert state.endswith("state.db")
        assert [line.split(";")[0] for line in scaled] == ["schedules run 3600 times as fast"] * (scale > 1)
        assert url.endswith(server.url)
        assert page.startswith(f"live page: {server.url}/?key=")
        assert exports == [f"export {name}={server.url}" for name in VARIABLES]
        assert region == "export AWS_DEFAULT_REGION=us-east-1"
        assert server.app.token.text in authentication


def test_a_scenario_s_scaling_waits_for_a_policy(tmp_path):
    policy = {"metric": "InvocationsPerInstance", "target": 900, "min": 1, "max": 3}
    default_scenario().replace({"shadow.scaling": policy}).save(tmp_path / "scenario.json")
    settings = scenario_settings(tmp_path / "scenario.json", None)
    with serving(tmp_path, services=settings.services) as server:
        (line,) = [line for line in startup_lines(server.app, server.store) if line.startswith("Shadow-01: ")]
    assert "nothing scales until RegisterScalableTarget and PutScalingPolicy say so" in line


def test_settings_of_a_scenario(tmp_path):
    changes = {"mirror.rule": "counter", "mirror.instant": "response", "mirror.max_per_s": 5, "endpoint.timeout_s": 2.0}
    scenario = default_scenario().replace(changes)
    scenario.save(tmp_path / "scenario.json")
    settings = scenario_settings(tmp_path / "scenario.json", None)
    assert settings.mirroring == Mirroring(rule="counter", instant="response", max_per_s=5)
    assert (settings.timeout_s, settings.services) == (2.0, scenario.services)
    assert scenario_settings(tmp_path / "scenario.json", 3.0).timeout_s == 3.0
    assert settings.overhead_s == 0.002
    assert scenario_settings(None, None).overhead_s == 0.0
    assert scenario_settings(None, None).timeout_s == 60.0


def test_a_server_refuses_what_it_would_leave_out(tmp_path):
    outages = {"mtbf_s": "1d", "mttr_s": 60}
    default_scenario().replace({"shadow.outages": outages}).save(tmp_path / "scenario.json")
    with pytest.raises(InputError, match=r"services\.Shadow-01\.outages: is not simulated by a server: leave it out"):
        scenario_settings(tmp_path / "scenario.json", None)


def test_backends_and_choices_are_parsed():
    assert parse_backend("m=http://a:1, http://b:2/") == ("m", ("http://a:1", "http://b:2/"))
    for text in ("=http://a", "m=", "m=http://", "m=http://a?b", "m=http://a b", "m=http://a:x"):
        with pytest.raises(InputError):
            parse_backend(text)
    assert parse_choices(["desired_state=Completed", "stop_before_start=false"]).desired_state == "Completed"
    with pytest.raises(InputError, match="--choose desired_state"):
        parse_choices(["desired_state=Other"])


@pytest.mark.parametrize(
    ("second", "after_s", "ends"),
    [(signal.SIGINT, 0.0, False), (signal.SIGINT, 2.0 * ONE_SIGNAL_S, True), (signal.SIGTERM, 0.0, True)],
)
def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch, second, after_s, ends):
    """`timeout -s INT` sends it to the process and to its group."""
    ended, now_s = [], 5.0
    monkeypatch.setattr(serve.os, "_exit", ended.append)

    async def run():
        nonlocal now_s
        stopping = asyncio.Event()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
        serve._handle_signals(stopping, lambda: None, lambda: None)
        os.kill(os.getpid(), signal.SIGINT)
        await stopping.wait()
        now_s += after_s
        os.kill(os.getpid(), second)
        for _ in range(10):  # the signal comes with the next round of the loop
            await asyncio.sleep(0)

    asyncio.run(run())
    assert ended == [128 + second] * ends
