"""Forms the requests of a load run: plain HTTP, signed InvokeEndpoint, OpenAI's completions.

A signature takes some 60 us, and its date may be minutes old, so requests are signed ahead of the moment at which they
are due. It covers the hash of the body, which is kept for bodies that come again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from shadowsim.errors import InputError
from shadowsim.measuring.generator.answer_streams import EventLines, EventStreamFrames, StreamReader, WholeAnswer
from shadowsim.measuring.generator.bodies import Bodies

PROTOCOLS = HTTP, INVOKE, INVOKE_STREAM, OPENAI = "http", "invoke", "invoke-stream", "openai"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
_OPERATIONS = {INVOKE: "invocations", INVOKE_STREAM: "invocations-response-stream"}
_LOCAL_REGION = "us-east-1"
_LOCAL_KEYS = ReadOnlyCredentials("shadowsim", "shadowsim", None)  # for a server that checks no signatures
_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".amazonaws.eu", ".aws.dev")


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and what they look like.

    Attributes
    ----------
    protocol : str
        One of `PROTOCOLS`.
    url : str
    method : str
    headers : mapping of str to str
        Sent with each request, instead of those that it would have by itself.
    region : str
        For the signature; "" without one.
    id_prefix : str
        What inference ids begin with; the request's number follows. "" for no ids.
    """

    protocol: str
    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    id_prefix: str = ""

    @property
    def is_aws(self) -> bool:
        """Whether requests go to AWS itself, where they cost money and may hurt a production endpoint."""
        return f".{(urlsplit(self.url).hostname or '').lower().rstrip('.')}".endswith(_AWS_DOMAINS)

    @property
    def is_signed(self) -> bool:
        """Whether requests are signed."""
        return self.protocol in _OPERATIONS

    def inference_id(self, number: int) -> str:
        """Return the inference id of a request; "" for none."""
        return f"{self.id_prefix}{number}" if self.id_prefix else ""


class PreparedRequest(NamedTuple):
    """A request that can be sent at once."""

    headers: Mapping[str, str]
    body: bytes


class RequestMaker:
    """Makes the requests of a target, by number.

    Parameters
    ----------
    target : Target
    bodies : Bodies

    Raises
    ------
    InputError
        The target is at AWS, and there are no credentials.
    """

    def __init__(self, target: Target, bodies: Bodies):
        self._target, self._bodies = target, bodies
        self._keys = credentials(target) if target.is_signed else None
        self._own = {name.lower() for name in target.headers}

    def prepared(self, number: int) -> PreparedRequest:
        """Return a request, signed as of now."""
        target, body = self._target, b"" if self._target.method in ("GET", "HEAD") else self._bodies.body(number)
        headers, kind = dict(target.headers), self._bodies.content_type(number)
        if body and kind and "content-type" not in self._own:
            headers["Content-Type"] = kind
        if target.id_prefix and INFERENCE_ID.lower() not in self._own:
            headers[INFERENCE_ID] = target.inference_id(number)
        if self._keys is None:
            return PreparedRequest(headers, body)
        request = AWSRequest(method=target.method, url=target.url, headers=headers, data=body)
        request.context["body_sha256"] = self._bodies.sha256(number)
        _Signer(self._keys.get_frozen_credentials(), "sagemaker", target.region).add_auth(request)
        return PreparedRequest(dict(request.headers.items()), body)

    def reader(self, content_type: str) -> StreamReader | None:
        """Return what reads the tokens of an answer of this content type; None where there are only bytes to count."""
        protocol = self._target.protocol
        if protocol == INVOKE_STREAM:
            return EventStreamFrames()
        if protocol == OPENAI:
            return EventLines() if content_type == "text/event-stream" else WholeAnswer()
        return None


class _Signer(SigV4Auth):
    """AWS's signature, with a hash of the body that is already known."""

    def payload(self, request: Any) -> str:
        return str(request.context["body_sha256"])


class _FixedKeys:
    """Keys that need no renewal."""

    def __init__(self, keys: ReadOnlyCredentials):
        self._keys = keys

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return self._keys


def credentials(target: Target) -> Credentials | _FixedKeys:
    """Return AWS's credentials as boto3 finds them; for a local server without them, made-up ones."""
    try:
        keys = Session().get_credentials()
    except BotoCoreError as error:
        raise InputError("endpoint", f"AWS's credentials cannot be read: {error}") from None
    if keys is not None:
        return keys
    if target.is_aws:
        raise InputError("endpoint", "needs AWS credentials, which were not found (`aws configure`)")
    return _FixedKeys(_LOCAL_KEYS)


def endpoint_target(
    name: str,
    *,
    endpoint_url: str | None = None,
    stream: bool = False,
    region: str | None = None,
    headers: Mapping[str, str] | None = None,
    id_prefix: str = "",
) -> Target:
    """Return the target of an endpoint's invocations.

    Parameters
    ----------
    name : str
        The endpoint's.
    endpoint_url : str, optional
        The runtime's URL; by default boto3's settings AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME and AWS_ENDPOINT_URL count,
        and then AWS itself.
    stream : bool
        Whether answers are streamed (InvokeEndpointWithResponseStream).
    region : str, optional
        By default boto3's.
    headers, id_prefix
        See `Target`.
    """
    session = Session()
    try:
        region = region or session.get_config_variable("region")
        base = endpoint_url or _configured_url(session)
    except BotoCoreError as error:
        raise InputError("endpoint", f"AWS's settings cannot be read: {error}") from None
    if base is None:
        if not region:
            hint = "; for a local server set the variables that `shadowsim serve` printed, or give `endpoint_url`"
            what = "must be given, since neither AWS_DEFAULT_REGION nor a profile names one"
            raise InputError("region", what, hint=hint)
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        base = f"https://runtime.sagemaker.{region}.{domain}"
    protocol = INVOKE_STREAM if stream else INVOKE
    url = f"{checked_url(base, 'endpoint_url').rstrip('/')}/endpoints/{quote(name, safe='')}/{_OPERATIONS[protocol]}"
    return Target(protocol, url, "POST", dict(headers or {}), region or _LOCAL_REGION, id_prefix)


def checked_url(url: str, name: str = "url") -> str:
    """Return a URL of HTTP with a host, or raise `InputError`."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise InputError(name, "must be a URL such as http://127.0.0.1:8080/invocations", url)
    return url


def _configured_url(session: Session) -> str | None:
    for variable in ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL"):
        if os.environ.get(variable):
            return os.environ[variable]
    configured = session.get_scoped_config().get("endpoint_url")
    return str(configured) if configured else None
