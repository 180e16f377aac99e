"""Verifies bearer tokens of OpenAI's clients, which are requests that were signed ahead.

In the form of SageMaker's SDK, such a token is `sagemaker-api-key-` and a URL in base64, that of
`POST sagemaker.amazonaws.com/?Action=CallWithBearerToken`. The URL is signed in its query, and `Version` is added after
that. A token is valid for the time in X-Amz-Expires, at most 12 hours, for every endpoint and every body: AWS checks
permissions then, of which there are none here. The SDK makes one by `sagemaker.core.token_generator.generate_token`.

A signature in the head is accepted on the same paths, too. Whether AWS accepts one there is not documented.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs

from shadowsim.server.http.signatures import (
    ALGORITHM,
    IncompleteSignatureError,
    InvalidSignatureError,
    SignedRequest,
    UnknownKeyError,
    signature,
)

_PREFIX = "sagemaker-api-key-"
_HOST, _ACTION = "sagemaker.amazonaws.com", "CallWithBearerToken"
_LONGEST_S = 43_200.0
_STAMP = "%Y%m%dT%H%M%SZ"


def is_bearer(authorization: str) -> bool:
    """Return whether an Authorization header is a bearer token."""
    return authorization.partition(" ")[0].lower() == "bearer"


def check_token(authorization: str, secrets: Mapping[str, str], skew_s: float, now: float) -> str:
    """Return the id of the access key that signed the token of an Authorization header.

    Parameters
    ----------
    authorization : str
    secrets : mapping of str to str
        Secret access keys by id.
    skew_s : float
        Greatest time by which a token's date may be ahead of the server's clock.
    now : float
        Seconds since 1970.

    Raises
    ------
    IncompleteSignatureError, UnknownKeyError, InvalidSignatureError
    """
    token = authorization.partition(" ")[2].strip()
    incomplete = IncompleteSignatureError(
        f"The bearer token must be {_PREFIX} and a signed request of {_ACTION} in base64, as SageMaker's SDK makes it."
    )
    if not token.startswith(_PREFIX):
        raise incomplete
    try:
        url = b64decode(token.removeprefix(_PREFIX), validate=True).decode("ascii")
        host, _, query = url.partition("/?")
        fields = {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}
        scope = fields["X-Amz-Credential"].split("/")
        began_s = datetime.strptime(fields["X-Amz-Date"], _STAMP).replace(tzinfo=UTC).timestamp()
        lasts_s = float(fields["X-Amz-Expires"])
        signed = fields["X-Amz-Signature"]
    except (ValueError, KeyError):
        raise incomplete from None
    is_ours = host == _HOST and fields.get("Action") == _ACTION and fields.get("X-Amz-SignedHeaders") == "host"
    is_scoped = len(scope) == 5 and scope[3:] == ["sagemaker", "aws4_request"] and scope[1] == fields["X-Amz-Date"][:8]
    if not (is_ours and is_scoped and fields.get("X-Amz-Algorithm") == ALGORITHM):
        raise incomplete
    if not 0.0 < lasts_s <= _LONGEST_S:
        raise InvalidSignatureError(f"The bearer token must be valid for at most {_LONGEST_S:g} s.")
    if not began_s - skew_s <= now < began_s + lasts_s:
        raise InvalidSignatureError("The bearer token has expired, or is not yet valid.")
    secret = secrets.get(scope[0])
    if secret is None:
        raise UnknownKeyError("The security token included in the request is invalid.")
    covered = "&".join(p for p in query.split("&") if p.partition("=")[0] not in ("X-Amz-Signature", "Version"))
    request = SignedRequest("POST", f"/?{covered}", {"host": [_HOST]}, b"")
    expected = signature(request, ["host"], fields["X-Amz-Date"], scope, secret)
    if not hmac.compare_digest(expected.encode(), signed.encode()):
        raise InvalidSignatureError("The signature of the bearer token is not that of its key.")
    return scope[0]
