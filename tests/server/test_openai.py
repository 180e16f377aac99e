"""The paths of OpenAI's API, as its own client and curl see them."""

import json
import logging
import shutil
import subprocess

import pytest
from bearer import token
from serving import KEYS, Container, answer, serving

openai = pytest.importorskip("openai")


def client(server, api_key="none"):
    base = f"{server.url}/endpoints/endpoint/openai/v1"
    return openai.OpenAI(base_url=base, api_key=api_key, max_retries=0, timeout=20.0)


def model_server(breaks=False):
    """Return the behaviour of a container that answers as a server of language models does."""

    async def behave(writer, request):
        asked = json.loads(request.body)
        if not asked.get("stream"):
            said = {"role": "assistant", "content": "one two"}
            choices = [{"index": 0, "message": said, "text": "one two", "finish_reason": "stop"}]
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            whole = {"id": "c", "object": "o", "created": 1, "model": "m", "choices": choices, "usage": usage}
            writer.write(answer(200, json.dumps(whole).encode(), Content_Type="application/json"))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
        for text in ("", "one", " two"):
            choice = {"index": 0, "delta": {"content": text}, "text": text, "finish_reason": None}
            event = {"id": "c", "object": "o", "created": 1, "model": "m", "choices": [choice]}
            data = b"data: " + json.dumps(event).encode() + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        if breaks:
            writer.close()
            return
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    return behave


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    containers = {"source": Container(model_server()), "shadow": Container(model_server())}
    with serving(tmp_path_factory.mktemp("serving"), containers) as server:
        server.experiment()
        yield server


@pytest.fixture
def rehearsal(server):
    server.renew()
    for container in server.containers.values():
        container.behave = model_server()
    return server


MESSAGES = [{"role": "user", "content": "say one two"}]


def test_the_client_s_chat_and_completions_reach_the_container(rehearsal):
    with client(rehearsal) as api:
        chat = api.chat.completions.create(model="m", messages=MESSAGES)
        assert (chat.choices[0].message.content, chat.usage.completion_tokens) == ("one two", 2)
        plain = api.completions.create(model="m", prompt="say")
        assert plain.choices[0].text == "one two"
        with api.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
            assert [event.choices[0].delta.content for event in stream] == ["", "one", " two"]
        with api.completions.create(model="m", prompt="say", stream=True) as stream:
            assert [event.choices[0].text for event in stream] == ["", "one", " two"]
    rehearsal.answered(4)
    chat, plain = "/v1/chat/completions", "/v1/completions"
    for container in rehearsal.containers.values():
        assert [request.path for request in container.requests] == [chat, plain, chat, plain]


def test_tokens_of_a_container_s_events_are_counted(rehearsal):
    with client(rehearsal) as api, api.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        list(stream)
    rehearsal.answered(1, "AllTraffic")
    rehearsal.answered(1)
    for row in rehearsal.frame("test", "requests")[-2:]:
        assert row["output_tokens"] == 2  # not the event without text
        assert 0.0 < row["first_token_s"] <= row["latency_s"]


def test_a_stream_that_breaks_off_is_an_error_of_the_client(rehearsal, caplog):
    rehearsal.containers["source"].behave = model_server(breaks=True)
    with client(rehearsal) as api, api.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        got = []
        with pytest.raises(openai.APIConnectionError):
            got += [event.choices[0].delta.content for event in stream]
    rehearsal.answered(1)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_errors_are_those_of_the_runtime(rehearsal):
    async def fail(writer, request):
        writer.write(answer(500, b"went wrong"))

    rehearsal.containers["source"].behave = fail
    with client(rehearsal) as api:
        for is_streamed in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                api.chat.completions.create(model="m", messages=MESSAGES, stream=is_streamed)
            assert caught.value.status_code == 424
            assert caught.value.response.json()["OriginalMessage"] == "went wrong"
    done = curl(rehearsal, "not json")
    assert json.loads(done)["message"] == "The body is not JSON."
    base = f"{rehearsal.url}/endpoints/none/openai/v1"
    with (
        openai.OpenAI(base_url=base, api_key="x", max_retries=0) as api,
        pytest.raises(openai.BadRequestError, match="Endpoint none of account 111122223333 not found"),
    ):
        api.chat.completions.create(model="m", messages=MESSAGES)


def curl(server, body, *more):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url = f"{server.url}/endpoints/endpoint/openai/v1/chat/completions"
    run = ["curl", "-sSN", "--data-binary", body, "-H", "Content-Type: application/json", *more, url]
    return subprocess.run(run, capture_output=True, check=True, timeout=20, text=True).stdout


def test_curl_gets_the_container_s_own_events(rehearsal):
    lines = curl(rehearsal, json.dumps({"messages": MESSAGES, "stream": True})).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert len(lines) == 5


def test_a_bearer_token_or_a_signature_is_needed_where_keys_are_known(tmp_path):
    key, secret = KEYS.values()
    containers = {"source": Container(model_server()), "shadow": Container(model_server())}
    with serving(tmp_path, containers, secrets={key: secret}) as server:
        server.experiment(percentage=0)
        with client(server, token().removeprefix("Bearer ")) as api:
            assert api.chat.completions.create(model="m", messages=MESSAGES).usage.total_tokens == 5
        other = token(secret="other").removeprefix("Bearer ")
        with client(server, other) as api, pytest.raises(openai.PermissionDeniedError, match="of the bearer token"):
            api.chat.completions.create(model="m", messages=MESSAGES)
        with client(server, "abc") as api, pytest.raises(openai.PermissionDeniedError, match="sagemaker-api-key-"):
            api.chat.completions.create(model="m", messages=MESSAGES)
        body = json.dumps({"messages": MESSAGES})
        signed = curl(server, body, "--aws-sigv4", "aws:amz:us-east-1:sagemaker", "--user", f"{key}:{secret}")
        assert json.loads(signed)["usage"]["total_tokens"] == 5
        # a bearer token is for these paths alone
        url = f"{server.url}/endpoints/endpoint/invocations"
        run = ["curl", "-sS", "-d", "x", "-H", f"Authorization: {token()}", url]
        refused = subprocess.run(run, capture_output=True, check=True, timeout=20, text=True).stdout
        assert "Authorization header requires" in refused
