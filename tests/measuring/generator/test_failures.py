"""Failures of requests, by status and cause."""

import socket

import numpy as np
import pytest
from loading import answering, causes, job, sent, service

from shadowsim.measuring.generator.failures import model_failure
from shadowsim.measuring.generator.load_records import (
    BROKEN,
    ERROR_4XX,
    ERROR_5XX,
    FAILED,
    STATUSES,
    TIMED_OUT,
    UNAVAILABLE,
)


async def _closes(writer, request):
    writer.close()


async def _resets(writer, request):
    linger = b"\1\0\0\0\0\0\0\0"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _garbage(writer, request):
    writer.write(b"\0\1\2 this is no HTTP\r\n\r\n")


async def _short(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("behave", "status", "cause"),
    [
        (answering(404), ERROR_4XX, "HTTP 404"),
        (answering(301, Location="http://127.0.0.1:1/"), ERROR_4XX, "HTTP 301"),
        (answering(503), ERROR_5XX, "HTTP 503"),
        (answering(424), ERROR_4XX, "HTTP 424"),
        (answering(after_s=5.0), TIMED_OUT, "no answer within 0.2 s"),
        (_closes, FAILED, "connection closed without an answer"),
        (_resets, FAILED, "connection reset"),
        (_garbage, BROKEN, "no HTTP answer"),
        (_short, BROKEN, "answer cut short"),
    ],
)
def test_failures_are_counted_by_cause(behave, status, cause):
    with service(behave) as target:
        limit = {"timeout_s": 0.2} if status == TIMED_OUT else {}
        table = sent(job(target.url, [0.0, 0.02], **limit)).table
    assert causes(table) == {(STATUSES[status], cause): 2}
    assert np.isfinite(table["done"]).all()


def test_a_service_that_is_not_there_is_counted():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    table = sent(job(f"http://127.0.0.1:{port}", np.linspace(0.0, 0.1, 20))).table
    assert causes(table) == {(STATUSES[UNAVAILABLE], "connection refused"): 20}


def test_a_models_own_status_is_in_the_model_error():
    assert model_failure(b'{"OriginalStatusCode": 404}') == (ERROR_4XX, "model answered 404 (ModelError)")
    assert model_failure(b'{"OriginalStatusCode": 500}') == (ERROR_5XX, "model answered 500 (ModelError)")
    assert model_failure(b'{"OriginalStatusCode": 0}')[0] == TIMED_OUT
    assert model_failure(b"[]") == model_failure(b"\xff") == (ERROR_5XX, "HTTP 424")
