"""Bearer tokens: which are valid, and for how long."""

import base64
from datetime import UTC, datetime

import pytest
from bearer import KEY, SECRET, token

from shadowsim.server.http.bearer_tokens import check_token
from shadowsim.server.http.signatures import IncompleteSignatureError, InvalidSignatureError, UnknownKeyError


def check(authorization, after_s=0.0, secrets=None):
    now = datetime.now(UTC).timestamp() + after_s
    return check_token(authorization, secrets or {KEY: SECRET}, 300.0, now)


def test_a_token_is_valid_for_its_time():
    assert check(token()) == KEY
    assert check(token(expires=43_200), after_s=43_000) == KEY
    with pytest.raises(InvalidSignatureError, match="expired"):
        check(token(), after_s=901)
    with pytest.raises(InvalidSignatureError, match="not yet valid"):
        check(token(), after_s=-400)
    with pytest.raises(InvalidSignatureError, match="at most 43200 s"):
        check(token(expires=43_201))


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (token(secret="other"), InvalidSignatureError),
        (token(key="AKIDOTHER"), UnknownKeyError),
        (token(action="Other"), IncompleteSignatureError),
        (token(change=lambda url: url.replace("Expires=900", "Expires=9000")), InvalidSignatureError),
        (token(change=lambda url: url.replace("sagemaker.amazonaws", "bedrock.amazonaws")), IncompleteSignatureError),
        (token(change=lambda url: url.replace("eu-west-1", "eu-west-2")), InvalidSignatureError),
        ("Bearer abc", IncompleteSignatureError),
        ("Bearer sagemaker-api-key-", IncompleteSignatureError),
        ("Bearer sagemaker-api-key-%%%", IncompleteSignatureError),
        ("Bearer sagemaker-api-key-" + base64.b64encode(b"\xff\xfe").decode(), IncompleteSignatureError),
        ("Bearer", IncompleteSignatureError),
    ],
    ids=[  # a token holds the time at which it was made: processes that share the tests must give it one name
        "secret",
        "key",
        "action",
        "expiry",
        "service",
        "region",
        "short",
        "empty",
        "not base64",
        "not text",
        "scheme alone",
    ],
)
def test_other_tokens_are_refused(authorization, error):
    with pytest.raises(error):
        check(authorization)
