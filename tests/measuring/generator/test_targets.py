"""Requests of a load run: signatures that are botocore's and the server's, ids, addresses, and what counts as AWS."""

import time

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from serving import KEYS

from shadowsim.errors import InputError
from shadowsim.measuring.generator.bodies import Bodies
from shadowsim.measuring.generator.targets import HTTP, INFERENCE_ID, RequestMaker, Target, checked_url, endpoint_target
from shadowsim.server.http.signatures import SignedRequest, Verifier

KEY, SECRET = KEYS.values()
BODIES = Bodies((b'{"x": 1}', b"other"), ("application/json",))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """No settings of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_DEFAULT_REGION",
                 "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def test_signatures_are_accepted_and_equal_to_botocores(keys):
    target = endpoint_target("my-endpoint", endpoint_url="http://127.0.0.1:4599", id_prefix="load-", region="eu-west-1")
    prepared = RequestMaker(target, BODIES).prepared(1)
    assert prepared.body == b"other"
    assert prepared.headers[INFERENCE_ID] == "load-1"
    signed = {name: value for name, value in prepared.headers.items() if name != "Authorization"}
    request = AWSRequest("POST", target.url, data=prepared.body, headers=signed)
    request.context["timestamp"] = signed["X-Amz-Date"]
    signer = SigV4Auth(Credentials(KEY, SECRET), "sagemaker", "eu-west-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert prepared.headers["Authorization"].endswith(f"Signature={signature}")
    headers = {name.lower(): [value] for name, value in prepared.headers.items()} | {"host": ["127.0.0.1:4599"]}
    received = SignedRequest("POST", "/endpoints/my-endpoint/invocations", headers, prepared.body)
    assert Verifier({KEY: SECRET}).check(received, time.time()) == KEY


def test_plain_requests_have_the_callers_headers_before_their_own():
    target = Target(HTTP, "http://h/x", headers={"content-type": "a/b", "X-Key": "v"}, id_prefix="i-")
    prepared = RequestMaker(target, BODIES).prepared(4)
    assert prepared.headers == {"content-type": "a/b", "X-Key": "v", INFERENCE_ID: "i-4"}
    assert RequestMaker(Target(HTTP, "http://h/x"), BODIES).prepared(0).headers == {"Content-Type": "application/json"}
    assert RequestMaker(Target(HTTP, "http://h/x", "GET"), BODIES).prepared(0) == ({}, b"")


def test_an_endpoints_address_is_that_of_boto3(monkeypatch):
    assert endpoint_target("a b", endpoint_url="http://h:1/").url == "http://h:1/endpoints/a%20b/invocations"
    stream = endpoint_target("e", endpoint_url="http://h:1", stream=True)
    assert stream.url.endswith("/endpoints/e/invocations-response-stream")
    real = endpoint_target("e", region="eu-central-1")
    assert real.url == "https://runtime.sagemaker.eu-central-1.amazonaws.com/endpoints/e/invocations"
    assert real.region == "eu-central-1"
    with pytest.raises(InputError, match="region: must be given"):
        endpoint_target("e")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "http://127.0.0.1:4599")
    assert endpoint_target("e").url == "http://127.0.0.1:4599/endpoints/e/invocations"


@pytest.mark.parametrize(
    ("host", "is_aws"),
    [
        ("runtime.sagemaker.us-east-1.amazonaws.com", True),
        ("runtime.sagemaker.cn-north-1.amazonaws.com.cn", True),
        ("RUNTIME.sagemaker.us-east-1.amazonaws.com.", True),
        ("vpce-1.runtime.sagemaker.us-east-1.vpce.amazonaws.com", True),
        ("runtime.sagemaker.us-east-1.api.aws", True),
        ("127.0.0.1", False),
        ("amazonaws.com.example.org", False),
        ("myamazonaws.com", False),
    ],
)
def test_what_counts_as_aws(host, is_aws):
    assert Target(HTTP, f"https://{host}/x").is_aws is is_aws


def test_aws_needs_credentials_and_a_local_server_does_not():
    local = RequestMaker(endpoint_target("e", endpoint_url="http://127.0.0.1:1"), BODIES).prepared(0)
    assert "Credential=shadowsim/" in local.headers["Authorization"]
    with pytest.raises(InputError, match="needs AWS credentials"):
        RequestMaker(endpoint_target("e", region="us-east-1"), BODIES)


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://h/x", "http://", "http://h:x/", "http://h:99999/"])
def test_other_urls_are_refused(url):
    with pytest.raises(InputError, match="url: must be a URL such as"):
        checked_url(url)
