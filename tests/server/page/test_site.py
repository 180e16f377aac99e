"""What the server answers to browsers: files, policy, sessions, and the stream of events."""

import http.client
import json
import re
import socket
from contextlib import contextmanager, suppress
from importlib.resources import files
from itertools import pairwise
from time import monotonic
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest
from serving import ROLE, SHADOW_ACTIONS, create_experiment, create_models, serving, until, variant

from shadowsim.server.page import site as module
from shadowsim.server.page.states import MOST_LISTED

EVIL = "</script><img src=x onerror=alert(1)>"
FILES = ("page.css", "page.js", "charts.js", "words.js")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("site")) as running:
        running.experiment("first", Description=EVIL)
        for i in range(20):
            running.invoke(Body=b"{}", InferenceId=f"{i}")
        running.answered(20)
        yield running


class NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def ask(server, path, method="GET", body=None, **headers):
    """Return the status, headers and body of an answer; redirects are not followed."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(server.url + path, method=method, headers=fields, data=body)
    try:
        with build_opener(NoRedirects).open(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@contextmanager
def events_of(server, experiment="", **headers):
    """Return an iterator of the states that the stream brings."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.request("GET", f"/shadowsim/events?experiment={experiment}", headers=headers)
    held, response = connection.sock, connection.getresponse()
    assert response.status == 200, response.read()
    assert response.headers["Content-Type"] == "text/event-stream"

    def states():
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    try:
        yield states()
    finally:
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)
        response.close()
        connection.close()


def test_the_page_and_its_files_are_small_and_name_no_other_host(server):
    status, headers, body = ask(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body == (files("shadowsim.server.page") / "page.html").read_bytes()
    total = len(body)
    for name in FILES:
        status, headers, text = ask(server, f"/shadowsim/page/{name}")
        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
        total += len(text)
        body += text
    assert total < 60_000
    assert re.findall(rb"https?://(?!www\.w3\.org/2000/svg)[^\s\"')]+", body) == []
    assert ask(server, "/shadowsim/page/site.py")[0] == 404


def test_the_policy_allows_the_pages_own_files_alone(server):
    policy = dict(part.strip().split(" ", 1) for part in ask(server, "/")[1]["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.search(rb"<script(?! type=\"module\" src=)|style=|\son\w+=", ask(server, "/")[2])


def test_a_stream_brings_the_state_at_once_and_then_every_second(server):
    with events_of(server, "first") as states:
        began = monotonic()
        first, second = next(states), next(states)
        assert 0.5 < monotonic() - began < 5.0
    assert first["n_experiments"] == 1
    (row,) = first["experiments"]
    assert (row["name"], row["status"], row["percentage"]) == ("first", "Running", 100)
    one = second["experiment"]
    assert one["description"] == EVIL
    assert one["actions"] == ["Update", "Stop"]
    assert one["sides"]["shadow"] == {
        "variant": "Shadow-01",
        "model": "shadow",
        "instances": "1 x ml.m5.xlarge",
        "in_flight": 0,
    }
    assert one["counts"]["requests"] == {"source": 20, "shadow": 20}
    assert (one["counts"]["share"], one["counts"]["lost"]) == (1.0, {})
    assert one["looks"]["look"] == 0
    assert one["looks"]["next_in_s"] > 0.0
    assert sum(x for x in one["timeline"]["source"]["rate"] if x) == pytest.approx(20, rel=0.01)
    assert one["timeline"]["whole"]["shadow"]["p99"] > 0.0


def test_the_first_of_the_list_is_shown_and_unknown_names_are_said(server):
    with events_of(server) as states:
        assert next(states)["experiment"]["name"] == "first"
    with events_of(server, "x%22%3E") as states:
        state = next(states)
    assert state["experiment"] is None
    assert 'x">' in state["missing"]


def test_the_state_is_made_once_for_all_viewers_and_not_without_any(server, monkeypatch):
    until(lambda: server.app._site._n_viewers == 0)  # those of other tests have left
    made, make = [], module.Site._make

    async def counted(self, experiment):
        made.append(monotonic())
        return await make(self, experiment)

    monkeypatch.setattr(module.Site, "_make", counted)
    with events_of(server, "first") as a, events_of(server, "first") as b, events_of(server, "first") as c:
        for _ in range(3):
            for states in (a, b, c):
                next(states)
    assert len(made) <= 6  # and not nine
    assert all(later - sooner > 0.5 for sooner, later in pairwise(made))
    until(lambda: server.app._site._n_viewers == 0)


def test_viewers_are_limited(server, monkeypatch):
    monkeypatch.setattr(module, "MOST_VIEWERS", 1)
    until(lambda: server.app._site._n_viewers == 0)  # those of other tests have left
    with events_of(server) as states:
        next(states)
        status, _, body = ask(server, "/shadowsim/events")
        assert (status, json.loads(body)["message"]) == (503, "The page is open 1 times already.")


def test_a_link_from_elsewhere_may_be_followed_but_nothing_else(server):
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(server, "/", **followed)[0] == 200
    assert ask(server, "/shadowsim/events", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
    assert ask(server, "/shadowsim/events", Origin="http://127.0.0.1:1")[0] == 403


def test_with_credentials_a_link_lets_one_browser_in(tmp_path):
    action = {"X_Amz_Target": "SageMaker.ListModels", "Content_Type": "application/x-amz-json-1.1"}
    with serving(tmp_path, secrets={"AKIDEXAMPLE": "secret/of+the=test"}) as server:
        link = server.app.page_link
        assert ask(server, "/")[0] == 403
        assert b"Open the link that the server printed" in ask(server, "/")[2]
        assert ask(server, "/shadowsim/page/page.css")[0] == 200
        assert ask(server, "/shadowsim/events")[0] == 403
        status, headers, _ = ask(server, link.removeprefix(server.url))
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"].split(";")[0]
        status, _, body = ask(server, link.removeprefix(server.url))
        assert (status, b"Once it is used" in body) == (403, True)
        assert ask(server, link.removeprefix(server.url), Cookie=cookie)[0] == 303  # opened again in the same browser
        assert server.app.page_link != link

        assert ask(server, "/", Cookie=cookie)[0] == 200
        assert ask(server, "/metrics", Cookie=cookie)[0] == 200
        with events_of(server, Cookie=cookie) as states:
            assert next(states)["experiments"] == []
        assert ask(server, "/", "POST", b"{}", Cookie=cookie, Origin=server.url, **action)[0] == 200
        for lacking in (
            {"Origin": server.url},  # a session
            {"Cookie": cookie},  # an origin
            {"Cookie": cookie, "Origin": "http://127.0.0.1:1"},  # the page of another port
            {"Cookie": cookie, "Origin": server.url, "Sec_Fetch_Site": "same-site"},
        ):
            assert ask(server, "/", "POST", b"{}", **lacking, **action)[0] == 403
        path = "/endpoints/endpoint/invocations"
        assert ask(server, path, "POST", b"{}", Cookie=cookie, Origin=server.url, **action)[0] == 403


def test_streams_end_with_the_server_and_a_name_that_is_used_again_begins_anew(tmp_path):
    with serving(tmp_path) as server:
        sagemaker = server.experiment("again")
        server.invoke(Body=b"{}")
        server.answered(1)
        with events_of(server, "again") as states:
            assert next(states)["experiment"]["counts"]["requests"]["source"] == 1
            sagemaker.stop_inference_experiment(
                Name="again", ModelVariantActions=SHADOW_ACTIONS, DesiredState="Cancelled"
            )
            until(lambda: next(states)["experiment"]["status"] == "Cancelled")
            ended = next(states)["experiment"]
            assert ended["counts"]["requests"]["source"] == 1
            assert ended["age_s"] == next(states)["experiment"]["age_s"]
            sagemaker.delete_inference_experiment(Name="again")
            assert next(s for s in states if s["experiment"] is None)["n_experiments"] == 0
            create_experiment(sagemaker, "again", "other", models=("source", "shadow"))
            state = next(s for s in states if s["experiment"] and "counts" in s["experiment"])
            assert state["experiment"]["counts"]["requests"]["source"] == 0
            began = monotonic()
            server.loop(server.app._site.close())
            assert all(True for _ in states)
            assert monotonic() - began < 3.0


def test_long_lists_are_cut(tmp_path):
    with serving(tmp_path, store={"transition_s": 9e5}) as server:
        sagemaker = server.client("sagemaker")
        create_models(sagemaker, "a")
        for i in range(MOST_LISTED + 5):
            sagemaker.create_inference_experiment(
                Name=f"e{i}", Type="ShadowMode", RoleArn=ROLE, EndpointName=f"p{i}",
                ModelVariants=[variant("x", "a"), variant("y", "a")],
                ShadowModeConfig={
                    "SourceModelVariantName": "x",
                    "ShadowModelVariants": [{"ShadowModelVariantName": "y", "SamplingPercentage": 1}],
                },
            )  # fmt: skip
        with events_of(server) as states:
            state = next(states)
    assert state["n_experiments"] == MOST_LISTED + 5
    assert [row["name"] for row in state["experiments"]] == [f"e{i}" for i in range(MOST_LISTED + 4, 4, -1)]
    assert "counts" not in state["experiment"]
