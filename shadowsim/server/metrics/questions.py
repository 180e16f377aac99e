"""CloudWatch's requests, read: parameters of the right types, spans of whole minutes, tokens; and how it refuses them.

A token is the place after which its page goes on, with a digest of the question that it was given for: it says nothing
that its owner does not know, and answers no other question.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from shadowsim.aws.contract import as_time
from shadowsim.errors import ShadowsimError, kind, shown
from shadowsim.server.data_plane.counts import MINUTE_S

_MOST_SPAN_MINUTES = 700_000  # 15 months
_STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100(?:\.0{1,10})?)", re.ASCII)


class InvalidParameterError(ShadowsimError, ValueError):
    """A parameter that CloudWatch refuses."""

    code = "InvalidParameterValue"
    http_status = 400


class MissingParameterError(ShadowsimError, ValueError):
    """A parameter that is not there."""

    code = "MissingParameter"
    http_status = 400


class TooManyPointsError(ShadowsimError, ValueError):
    """More data points than one answer holds."""

    code = "InvalidParameterCombination"
    http_status = 400


class MetricDataError(ShadowsimError, ValueError):
    """What GetMetricData refuses, for which it has one code."""

    code = "ValidationError"
    http_status = 400


def span_of(body: Mapping[str, Any], period_s: int) -> tuple[int, int, int]:
    """Return the first minute that is asked for, the one after the last, and a period's length in minutes.

    Parameters
    ----------
    body : mapping
        With StartTime and EndTime.
    period_s : int
    """
    start, end = time_of(body, "StartTime"), time_of(body, "EndTime")
    if period_s < MINUTE_S or period_s % MINUTE_S:
        raise InvalidParameterError("The parameter Period must be a multiple of 60.")
    if start >= end:
        raise InvalidParameterError("The parameter StartTime must be less than the parameter EndTime.")
    first, last = math.floor(start / MINUTE_S), math.ceil(end / MINUTE_S)
    if last - first > _MOST_SPAN_MINUTES:
        raise InvalidParameterError("The parameters StartTime and EndTime must be at most 15 months apart.")
    return first, last, int(period_s // MINUTE_S)


def checked(statistic: str, *, plain: bool = True, percentiles: bool = True) -> str:
    """Return a statistic that is one of those that are allowed."""
    if (plain and statistic in _STATISTICS) or (percentiles and _PERCENTILE.fullmatch(statistic)):
        return statistic
    allowed = [*(_STATISTICS if plain else ()), *(["p0 to p100"] if percentiles else [])]
    raise InvalidParameterError(f"The value {shown(statistic)} is not a statistic of [{', '.join(allowed)}].")


def sealed(place: object, question: list[Any]) -> str:
    """Return the token for the page after a place."""
    return urlsafe_b64encode(json.dumps([_digest(question), place]).encode()).decode()


def opened(token: object, question: list[Any], *types: Any) -> Any:
    """Return the place, of values of these types, that a token says; None without one. Refuse another question's."""
    if token is None:
        return None
    try:
        digest, place = json.loads(urlsafe_b64decode(str(token).encode("ascii")))
        right = isinstance(place, list) and len(place) == len(types) and digest == _digest(question)
        if right and all(isinstance(v, of) and v is not True for v, of in zip(place, types, strict=True)):
            return place
    except (ValueError, TypeError, RecursionError):
        pass
    raise InvalidParameterError("The parameter NextToken is not one that was given for the same question.")


def _digest(question: list[Any]) -> str:
    return sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]


def dimensions_of(owner: Mapping[str, Any]) -> dict[str, str]:
    """Return Dimensions as a dict."""
    return {need(d, "Name", str): need(d, "Value", str) for d in list_of(owner, "Dimensions", dict)}


def time_of(owner: Mapping[str, Any], name: str) -> float:
    """Return a moment in seconds since 1970."""
    if owner.get(name) is None:
        raise MissingParameterError(f"The parameter {name} is required.")
    moment: datetime | None = as_time(owner[name])
    if moment is None:
        raise InvalidParameterError(f"The parameter {name} must be a timestamp.")
    return moment.astimezone(UTC).timestamp()


def need(owner: Mapping[str, Any], name: str, of: type) -> Any:
    """Return a parameter of a type, which must be there."""
    value = owner.get(name)
    if value is None:
        raise MissingParameterError(f"The parameter {name} is required.")
    if not isinstance(value, of) or isinstance(value, bool):
        raise InvalidParameterError(f"The parameter {name} must not be {kind(value)}.")
    return value


def list_of(owner: Mapping[str, Any], name: str, of: type) -> list[Any]:
    """Return a list of a type, empty when it is not there."""
    values = owner.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, of) for value in values):
        raise InvalidParameterError(f"The parameter {name} must be a list.")
    return values
