"""Signatures of requests: verifies AWS Signature Version 4.

The steps and names are those of AWS's "Create a signed AWS API request": a canonical request is hashed, the hash is put
into a string with date and scope, and that string is signed with a key derived from the secret. Signatures are compared
in constant time. What needs no body is checked before the body is read.

With `refuse_replays` the server refuses a repeated request as a replay, which AWS does not. A signature alone does not
identify one: its date is in whole seconds, so two invocations with the same body in the same second have the same
signature. boto3 and the AWS CLI add an id of the invocation and the number of the attempt, and these are remembered
with the signature; a client without them cannot send equal requests within a second. The ids are not signed, so an
attacker who can read and alter requests is stopped by the date alone, after `skew_s`, as on AWS.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from shadowsim.errors import InputError, ShadowsimError, shown
from shadowsim.option_defaults import SKEW_S

ALGORITHM = "AWS4-HMAC-SHA256"
# The signing names of SageMaker with its runtime, of CloudWatch, and of Application Auto Scaling.
SERVICES = ("sagemaker", "monitoring", "application-autoscaling")
_ATTEMPT = ("amz-sdk-invocation-id", "amz-sdk-request")
_STAMP = "%Y%m%dT%H%M%SZ"
_MOST_REMEMBERED = 2_000_000
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class MissingTokenError(ShadowsimError):
    """A request without a signature."""

    code = "MissingAuthenticationTokenException"
    http_status = 403


class IncompleteSignatureError(ShadowsimError):
    """A signature that cannot be parsed."""

    code = "IncompleteSignatureException"
    http_status = 403


class UnknownKeyError(ShadowsimError):
    """A request that is signed with an unknown key."""

    code = "UnrecognizedClientException"
    http_status = 403


class InvalidSignatureError(ShadowsimError):
    """A request that differs from the signed one, comes at the wrong time, or has come before if that is refused."""

    code = "InvalidSignatureException"
    http_status = 403


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request with the parts that its signature covers.

    Attributes
    ----------
    method : str
    target : str
        Path and query as in the request line.
    headers : mapping of str to list of str
        Values by lower-case name.
    body : bytes
    """

    method: str
    target: str
    headers: Mapping[str, list[str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Claim:
    """A request's claim: names of its signed headers, date, scope, the key's secret, and the signature."""

    names: list[str]
    stamp: str
    scope: list[str]
    secret: str
    signature: str


class ReplayMemory(Protocol):
    """What remembers requests to refuse their replays."""

    def add(self, digest: bytes, now: float, kept_s: float) -> bool:
        """Remember a request for some seconds, and return whether it is new."""
        ...


class _Remembered:
    """The requests of one process."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._order: deque[tuple[float, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, digest: bytes, now: float, kept_s: float) -> bool:
        while self._order and (self._order[0][0] < now - kept_s or len(self._order) > _MOST_REMEMBERED):
            self._seen.discard(self._order.popleft()[1])
        if digest in self._seen:
            return False
        self._seen.add(digest)
        self._order.append((now, digest))
        return True


class Verifier:
    """Verifies the signatures of requests.

    Parameters
    ----------
    secrets : mapping of str to str
        Secret access keys by access key id.
    skew_s : float
        Greatest difference between a request's date and the server's clock.
    refuse_replays : bool
        Whether a request that has come before is refused.
    memory : ReplayMemory, optional
        What remembers requests; one of its own by default.
    """

    def __init__(
        self,
        secrets: Mapping[str, str],
        skew_s: float = SKEW_S,
        refuse_replays: bool = False,
        memory: ReplayMemory | None = None,
    ):
        self._secrets, self._skew_s, self._refuses_replays = dict(secrets), skew_s, refuse_replays
        self._memory = memory or _Remembered()

    def replace_secrets(self, secrets: Mapping[str, str]) -> None:
        """Verify with other keys from now on."""
        self._secrets = dict(secrets)

    @property
    def secrets(self) -> Mapping[str, str]:
        """Secret access keys by access key id."""
        return self._secrets

    def check_head(self, request: SignedRequest, now: float) -> _Claim:
        """Check all that can be checked without the body, and return what the request claims.

        Parameters
        ----------
        request : SignedRequest
            Its body is not used.
        now : float
            Seconds since 1970.

        Raises
        ------
        MissingTokenError, IncompleteSignatureError, UnknownKeyError, InvalidSignatureError
            The request is refused, with AWS's codes.
        """
        authorization = _single(request, "authorization")
        if authorization is None:
            raise MissingTokenError("Missing Authentication Token")
        algorithm, _, rest = authorization.partition(" ")
        parts = (part.strip().partition("=") for part in rest.split(","))
        fields = {name: value for name, _, value in parts}
        scope = fields.get("Credential", "").split("/")
        names = fields.get("SignedHeaders", "").split(";")
        stamp = _single(request, "x-amz-date")
        complete = algorithm == ALGORITHM and len(scope) == 5 and scope[4] == "aws4_request" and fields.get("Signature")
        if not complete or stamp is None or "host" not in names:
            raise IncompleteSignatureError(
                "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders' parameters, "
                "and the request a 'X-Amz-Date' and a signed 'Host' header."
            )
        self._check_date(stamp, scope[1], now)
        if scope[3] not in SERVICES:  # any region is accepted
            services = " or ".join(f"'{service}'" for service in SERVICES)
            raise InvalidSignatureError(f"Credential should be scoped to correct service: {services}.")
        secret = self._secrets.get(scope[0])
        if secret is None:
            raise UnknownKeyError("The security token included in the request is invalid.")
        # AWS requires these headers to be signed, since they name the action.
        if any(name.startswith("x-amz-") and name not in names for name in request.headers):
            raise InvalidSignatureError(_MISMATCH)
        return _Claim(names, stamp, scope, secret, fields["Signature"])

    def check(self, request: SignedRequest, now: float) -> str:
        """Return the id of the access key that signed a request.

        Parameters
        ----------
        request : SignedRequest
        now : float
            Seconds since 1970.

        Raises
        ------
        MissingTokenError, IncompleteSignatureError, UnknownKeyError, InvalidSignatureError
            The request is refused, with AWS's codes.
        """
        claim = self.check_head(request, now)
        expected = signature(request, claim.names, claim.stamp, claim.scope, claim.secret)
        if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
            raise InvalidSignatureError(_MISMATCH)
        if not self._refuses_replays:
            return claim.scope[0]
        attempt = [value for name in _ATTEMPT for value in request.headers.get(name, ["-"])]
        digest = hashlib.sha256("\n".join([expected, *attempt]).encode("utf-8", "replace")).digest()
        if not self._memory.add(digest, now, 2 * self._skew_s):
            raise InvalidSignatureError("The request has come before: its signature cannot be used again.")
        return claim.scope[0]

    def _check_date(self, stamp: str, day: str, now: float) -> None:
        try:
            signed_s = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise IncompleteSignatureError(f"Date must be in ISO-8601 'basic format'. Got '{shown(stamp)}'.") from None
        now_stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
        minutes = f"{self._skew_s / 60.0:g} min."
        if signed_s < now - self._skew_s:
            edge = datetime.fromtimestamp(now - self._skew_s, UTC).strftime(_STAMP)
            raise InvalidSignatureError(
                f"Signature expired: {stamp} is now earlier than {edge} ({now_stamp} - {minutes})"
            )
        if signed_s > now + self._skew_s:
            edge = datetime.fromtimestamp(now + self._skew_s, UTC).strftime(_STAMP)
            why = f"Signature not yet current: {stamp} is still later than {edge} ({now_stamp} + {minutes})"
            raise InvalidSignatureError(why)
        if day != stamp[:8]:
            raise InvalidSignatureError(
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{shown(day)}' != '{stamp[:8]}', from '{stamp}'."
            )


def signature(request: SignedRequest, names: list[str], stamp: str, scope: list[str], secret: str) -> str:
    """Return the signature of a request, in hexadecimal.

    Parameters
    ----------
    request : SignedRequest
    names : list of str
        Signed headers.
    stamp : str
        X-Amz-Date.
    scope : list of str
        Access key id, day, region, service, "aws4_request".
    secret : str
    """
    path, _, query = request.target.partition("?")
    parts = [part.partition("=") for part in query.split("&") if part]
    pairs = sorted((_quoted(key), _quoted(value)) for key, _, value in parts)
    values = [",".join(" ".join(v.split()) for v in request.headers.get(name, [""])) for name in names]
    canonical = "\n".join(
        (
            request.method,
            # every service but S3 quotes the path a second time
            quote(path, safe="/-_.~") or "/",
            "&".join(f"{key}={value}" for key, value in pairs),
            *(f"{name}:{value}" for name, value in zip(names, values, strict=True)),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    hashed = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    to_sign = "\n".join((ALGORITHM, stamp, "/".join(scope[1:]), hashed))
    key = f"AWS4{secret}".encode()
    for part in scope[1:]:
        key = _hmac(key, part)
    return _hmac(key, to_sign).hex()


def read_credentials(file: Path) -> dict[str, str]:
    """Return the secret keys of all profiles of an AWS credentials file, by access key id.

    Raises
    ------
    InputError
        The file cannot be read, or a profile lacks one of its two keys.
    """
    parser = ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(file), f"cannot be read: {error.strerror}") from None
    except (ConfigError, UnicodeDecodeError):
        raise InputError(str(file), "must be a credentials file in the format of the AWS CLI") from None
    secrets = {}
    for name in parser.sections():
        key, secret = (parser[name].get(member) for member in ("aws_access_key_id", "aws_secret_access_key"))
        if not key or not secret:
            raise InputError(f"{file} [{name}]", "must have aws_access_key_id and aws_secret_access_key")
        secrets[key] = secret
    if not secrets:
        raise InputError(str(file), "must have a profile: [default], aws_access_key_id, aws_secret_access_key")
    return secrets


def _single(request: SignedRequest, name: str) -> str | None:
    values = request.headers.get(name, [])
    return values[0] if len(values) == 1 else None


def _quoted(text: str) -> str:
    return quote(unquote(text), safe="-_.~")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
