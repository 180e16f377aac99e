"""Signatures: requests that botocore signs are accepted once, and no others."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from serving import KEYS, serving

from shadowsim.errors import InputError, ShadowsimError
from shadowsim.server.http.signatures import SignedRequest, Verifier, read_credentials

KEY, SECRET = KEYS.values()


def signed(
    method="POST", path="/endpoints/e/invocations", query="", body=b"body", headers=None, secret=SECRET, key=KEY,
    token=None, service="sagemaker", region="us-east-1",
):  # fmt: skip
    """Return a request as botocore signs it, and its date in seconds since 1970."""
    url = f"http://127.0.0.1:4599{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, data=body, headers={"Content-Type": "a/b", **(headers or {})})
    SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    prepared = request.prepare()
    sent = {name.lower(): [str(value)] for name, value in prepared.headers.items()}
    sent["host"] = ["127.0.0.1:4599"]
    date = datetime.strptime(sent["x-amz-date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return SignedRequest(method, path + (f"?{query}" if query else ""), sent, body), date.timestamp()


def code_of(request, now, **options):
    with pytest.raises(ShadowsimError) as caught:
        Verifier({KEY: SECRET}, **options).check(request, now)
    return caught.value.code


@given(
    body=st.binary(max_size=50),
    path=st.sampled_from(["/", "/endpoints/e/invocations", "/endpoints/a%20b/invocations", "/a~b-c_d.e"]),
    query=st.sampled_from(["", "b=2&a=1", "a=&b", "x=%2Fy", "a=2&a=1"]),
    attributes=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
)
def test_requests_signed_by_botocore_are_accepted(body, path, query, attributes):
    headers = {"X-Amzn-SageMaker-Custom-Attributes": f"a  {attributes}   b"}
    request, now = signed(path=path, query=query, body=body, headers=headers)
    assert Verifier({KEY: SECRET}).check(request, now) == KEY


def test_a_tampered_request_is_refused():
    request, now = signed(headers={"X-Amz-Target": "SageMaker.ListModels"})
    other = {**request.headers, "x-amz-target": ["SageMaker.DeleteModel"]}
    added = {**request.headers, "x-amz-security-token": ["unsigned"]}
    for tampered in (
        SignedRequest(request.method, request.target, request.headers, b"bodY"),
        SignedRequest("PUT", request.target, request.headers, request.body),
        SignedRequest(request.method, "/endpoints/f/invocations", request.headers, request.body),
        SignedRequest(request.method, request.target + "?a=1", request.headers, request.body),
        SignedRequest(request.method, request.target, other, request.body),
        SignedRequest(request.method, request.target, added, request.body),
        SignedRequest(request.method, request.target, {**request.headers, "host": ["evil"]}, request.body),
    ):
        assert code_of(tampered, now) == "InvalidSignatureException"


def test_wrong_secrets_and_unknown_keys_are_refused():
    assert code_of(*signed(secret="other")) == "InvalidSignatureException"
    assert code_of(*signed(key="AKIDOTHER")) == "UnrecognizedClientException"


@pytest.mark.parametrize(("off_s", "accepted"), [(-301, False), (-299, True), (299, True), (301, False)])
def test_the_clock_may_be_skewed_by_five_minutes(off_s, accepted):
    request, now = signed()
    if accepted:
        Verifier({KEY: SECRET}).check(request, now + off_s)
    else:
        assert code_of(request, now + off_s) == "InvalidSignatureException"
    assert code_of(request, now + 11, skew_s=10.0) == "InvalidSignatureException"


def test_equal_requests_within_a_second_are_accepted_as_on_aws():
    """curl --aws-sigv4 and other clients without amz-sdk-* headers sign equal requests alike."""
    request, now = signed()
    verifier = Verifier({KEY: SECRET})
    assert [verifier.check(request, now) for _ in range(4)] == [KEY] * 4
    assert len(verifier._memory) == 0


def test_a_request_is_good_once_if_replays_are_refused():
    request, now = signed()
    verifier = Verifier({KEY: SECRET}, refuse_replays=True)
    verifier.check(request, now)
    with pytest.raises(ShadowsimError, match="has come before"):
        verifier.check(request, now + 1.0)
    # as boto3 signs a second call with the same body in the same second
    again = {**request.headers, "amz-sdk-invocation-id": ["another"]}
    verifier.check(SignedRequest(request.method, request.target, again, request.body), now)


def test_requests_too_old_to_be_accepted_are_forgotten(monkeypatch):
    verifier, start = Verifier({KEY: SECRET}, refuse_replays=True), datetime(2026, 1, 1, tzinfo=UTC)
    for i in range(100):
        date = start + timedelta(seconds=100 * i)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda date=date: date.replace(tzinfo=None))
        verifier.check(*signed())
    assert 300 / 100 <= len(verifier._memory) <= 2 * 300 / 100 + 1


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "MissingAuthenticationTokenException"),
        ("", "IncompleteSignatureException"),
        ("Bearer x", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 " + "Credential=" * 100, "IncompleteSignatureException"),
    ],
)
def test_malformed_signatures_are_refused(authorization, code):
    request, now = signed()
    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    if authorization is not None:
        headers["authorization"] = [authorization]
    assert code_of(SignedRequest(request.method, request.target, headers, request.body), now) == code


def test_a_signature_for_another_service_is_refused():
    request, now = signed(service="s3")
    assert code_of(request, now) == "InvalidSignatureException"
    request, now = signed(service="monitoring", region="eu-central-1")
    assert Verifier({KEY: SECRET}).check(request, now) == KEY


def test_temporary_keys_sign_their_token():
    request, now = signed(token="a/session+token==")
    assert Verifier({KEY: SECRET}).check(request, now) == KEY
    other = {**request.headers, "x-amz-security-token": ["another"]}
    assert (
        code_of(SignedRequest(request.method, request.target, other, request.body), now) == "InvalidSignatureException"
    )


def test_fields_of_the_authorization_come_in_any_order_and_with_or_without_spaces():
    request, now = signed()
    (authorization,) = request.headers["authorization"]
    fields = authorization.removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    again = {**request.headers, "authorization": ["AWS4-HMAC-SHA256 " + ",".join(reversed(fields))]}
    assert Verifier({KEY: SECRET}).check(SignedRequest(request.method, request.target, again, request.body), now) == KEY


# as aiohttp reads a header's bytes
UNDECODED = st.binary(max_size=80).map(lambda value: value.decode("utf-8", "surrogateescape"))


@given(UNDECODED)
def test_no_signature_is_a_defect(signature):
    request, now = signed()
    headers = {**request.headers, "authorization": [request.headers["authorization"][0][:-64] + signature]}
    assert code_of(SignedRequest(request.method, request.target, headers, request.body), now).endswith("Exception")


@given(UNDECODED, st.text(max_size=20))
def test_no_header_is_a_defect(authorization, date):
    headers = {"authorization": [f"AWS4-HMAC-SHA256 {authorization}"], "x-amz-date": [date], "host": ["h"]}
    assert code_of(SignedRequest("POST", "/", headers, b""), 1.8e9).endswith("Exception")


def test_credentials_are_those_of_aws_s_file(tmp_path):
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = s%s\n[two]\n" + two("B", "t"))
    assert read_credentials(file) == {"A": "s%s", "B": "t"}


def two(key, secret):
    return f"aws_access_key_id={key}\naws_secret_access_key={secret}\n"


@pytest.mark.parametrize("text", ["", "[a]\naws_access_key_id=A\n", "no file of that kind", "[a\n", "\xff"])
def test_other_files_are_refused(tmp_path, text):
    file = tmp_path / "credentials"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        read_credentials(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_credentials(tmp_path)


def test_a_server_with_credentials_verifies_all_requests(tmp_path):
    with serving(tmp_path, secrets={KEY: SECRET}) as server:
        server.experiment()
        for _ in range(20):  # the same request, within a second
            assert server.invoke(Body=b"x")["Body"].read() == b"x"
        for wrong, code in (
            ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
            ({"aws_access_key_id": "AKIDOTHER"}, "UnrecognizedClientException"),
        ):
            for service, call in (("sagemaker", "list_models"), ("sagemaker-runtime", "invoke_endpoint")):
                request = {"EndpointName": "endpoint", "Body": b"x"} if call == "invoke_endpoint" else {}
                with pytest.raises(ClientError) as caught:
                    getattr(server.client(service, **wrong), call)(**request)
                assert caught.value.response["Error"]["Code"] == code
