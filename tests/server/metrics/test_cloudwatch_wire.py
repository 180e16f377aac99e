"""CloudWatch's query protocol: forms parsed as JSON, and answers in well-formed XML."""

import asyncio
import json
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.server.metrics.cloudwatch import handle
from shadowsim.server.metrics.cloudwatch_wire import NAMESPACE, answer_form, json_pieces, parse_form


def answered(body, handle):
    status, parts = asyncio.run(answer_form(body, handle))
    return status, b"".join(parts)


@given(st.text(max_size=20))
def test_answers_are_xml_that_quotes_any_text_as_far_as_xml_can(text):
    fields = {
        "Action": "GetMetricStatistics", "Namespace": "AWS/SageMaker", "MetricName": text, "Period": "60",
        "StartTime": "2026-01-01T00:00:00Z", "EndTime": "2026-01-01T00:01:00Z", "Statistics.member.1": "Sum",
    }  # fmt: skip
    body = urlencode(fields, errors="surrogatepass").encode()
    status, answer = answered(body, lambda action, request: handle(action, request, {}))
    root = ElementTree.fromstring(answer)
    if status == 200:
        label = root.findtext(f"{{{NAMESPACE}}}GetMetricStatisticsResult/{{{NAMESPACE}}}Label")
        plain = text.isprintable() and all(ord(c) < 0xFFFE or ord(c) > 0xFFFF for c in text)
        assert (label or "") == text or not plain


@given(st.text(max_size=20))
def test_refusals_are_xml_whatever_they_quote(text):
    async def refuse(action, request):
        raise InputError("x", "is none", text)

    status, answer = answered(b"Action=A", refuse)
    assert (status, ElementTree.fromstring(answer).tag) == (400, f"{{{NAMESPACE}}}ErrorResponse")


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ("A.member.1.B=x&A.member.2.B=y", {"A": [{"B": "x"}, {"B": "y"}]}),
        ("A.member.10=b&A.member.2=a", {"A": ["a", "b"]}),
        ("Period=60&ReturnData=true&MaxDatapoints=5", {"Period": 60, "ReturnData": True, "MaxDatapoints": 5}),
        ("A=&B=%20", {"A": "", "B": " "}),
    ],
)
def test_forms_are_parsed_as_json_would_be(fields, request_):
    assert parse_form(fields.encode()) == request_


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": [], "b": {}, "c": [{}], "d": None},
        {"a": [{"é": list(range(2500)), "y": [0.1] * 1001}, {"x": "\ud800"}], "b": [[1], [2]]},
    ],
)
def test_json_in_pieces_is_the_same_json(document):
    pieces = list(json_pieces(document))
    assert b"".join(pieces) == json.dumps(document).encode()


def test_long_answers_come_in_short_pieces():
    document = {"Values": [0.1] * 100_000}
    assert max(map(len, json_pieces(document))) < 40_000
    _, parts = asyncio.run(answer_form(b"Action=A", lambda action, request: asyncio.sleep(0, document)))
    assert max(map(len, parts)) < 40_000
