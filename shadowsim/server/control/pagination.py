"""Pages the answers of List actions: filters, sorts, and signs the tokens for the next page.

A token holds the (sort value, name) after which the next page begins, not a position in the list. So resources may
come and go between two pages and no other is repeated or left out; only one whose own sort value changes can be. The
token is signed with the store's key, together with the action, the filters and the order: it is valid for the same
question only.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest, nsmallest
from itertools import repeat
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from shadowsim.aws.contract import sentence
from shadowsim.errors import ValidationError
from shadowsim.server.state.fleet import Body

_MAC_BYTES = 16
_PER_PAGE = 10
_NAME = attrgetter("name")
_PAGE_MEMBERS = ("NextToken", "MaxResults")


class Record(Protocol):
    """A resource in a list: its name is unique."""

    @property
    def name(self) -> str:
        """Name."""
        ...

    @property
    def created_s(self) -> float:
        """Creation time."""
        ...


_Listed = TypeVar("_Listed", bound=Record)


def page(
    action: str,
    body: Body,
    records: Iterable[_Listed],
    key: bytes,
    summary: Callable[[_Listed], Body],
    *,
    modified: str = "created_s",
    status: str = "",
    per_page: int = _PER_PAGE,
) -> dict[str, Any]:
    """Return one page of summaries, under "Items", and "NextToken" when there are more.

    Summaries are made for the page alone, and all else is one pass a filter, so that a page of many thousand resources
    takes some ms.

    Parameters
    ----------
    action : str
    body : mapping
        The List request.
    records : iterable of Record
    key : bytes
        Signs the tokens.
    summary : callable
        Returns a record's item in the answer.
    modified, status : str
        The records' attributes for LastModifiedTime and Status; "" for resources without a status.
    per_page : int
        The page size if the request has no MaxResults.

    Raises
    ------
    ValidationError
        The token was not issued by this action for the same filters and order.
    """
    order = body.get("SortBy", "CreationTime")
    descending = body.get("SortOrder", "Descending") == "Descending"
    attribute = {"CreationTime": "created_s", "Status": status}.get(order, "")
    question = [action, {name: value for name, value in sorted(body.items()) if name not in _PAGE_MEMBERS}]
    matching = _matching(list(records), body, modified, status)
    if descending:
        matching.reverse()  # the page of a list by time is found at once then, and all others are only compared with it
    names = map(_NAME, matching)
    values = map(attrgetter(attribute), matching) if attribute else repeat("")
    # names are unique, so records are not compared
    places: Iterator[tuple[Any, str, _Listed]] = zip(values, names, matching, strict=False)
    if body.get("NextToken"):
        after = _open_token(body["NextToken"], question, key)
        places = (place for place in places if (place[:2] < after if descending else place[:2] > after))
    size = body.get("MaxResults", per_page)
    first = (nlargest if descending else nsmallest)(size + 1, places)
    answer: dict[str, Any] = {"Items": [summary(record) for _, _, record in first[:size]]}
    if len(first) > size:
        answer["NextToken"] = _seal_token(first[size - 1][:2], question, key)
    return answer


def _matching(records: list[_Listed], body: Body, modified: str, status: str) -> list[_Listed]:
    """Return the records that a request's filters leave; only the filters that it has cost time."""
    if "NameContains" in body:
        part = body["NameContains"]
        records = [record for record in records if part in record.name]
    if "StatusEquals" in body and status:
        wanted, status_of = body["StatusEquals"], attrgetter(status)
        records = [record for record in records if status_of(record) == wanted]
    for bound, attribute, sign in (
        ("CreationTimeAfter", "created_s", 1),
        ("CreationTimeBefore", "created_s", -1),
        ("LastModifiedTimeAfter", modified, 1),
        ("LastModifiedTimeBefore", modified, -1),
    ):
        if bound in body:
            limit, value_of = body[bound] * sign, attrgetter(attribute)
            records = [record for record in records if value_of(record) * sign > limit]
    return records


def _seal_token(place: tuple[Any, str], question: list[Any], key: bytes) -> str:
    payload = json.dumps(place).encode()
    return urlsafe_b64encode(_mac(payload, question, key) + payload).decode()


def _open_token(token: str, question: list[Any], key: bytes) -> tuple[Any, str]:
    try:
        raw = urlsafe_b64decode(token.encode("ascii"))
    except ValueError:  # not base 64, or not ASCII
        raw = b""
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    is_canonical = urlsafe_b64encode(raw).decode() == token  # decoding skips characters outside base 64
    if not payload or not is_canonical or not hmac.compare_digest(mac, _mac(payload, question, key)):
        constraint = f"Member must be a token that {question[0]} returned for the same filters and order"
        raise ValidationError([sentence(token, "nextToken", constraint)])
    value, name = json.loads(payload)
    return value, name


def _mac(payload: bytes, question: list[Any], key: bytes) -> bytes:
    return hmac.digest(key, json.dumps(question).encode() + b"\0" + payload, "sha256")[:_MAC_BYTES]
