"""The List actions: filters, order, and pages whose tokens survive changes and cannot be forged.

A token says after which (sort value, name) the next page begins, not where in a list; so nothing is shown twice or
left out when resources come and go between two pages, only what changes its own sort value may be. It is signed with
the store's key, over the action, the filters and the order too: a token for one question does not answer another.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.errors import ValidationError
from shadowsim.server.state.fleet import Body

_MAC_BYTES = 16
_PER_PAGE = 10
_PAGE_MEMBERS = ("NextToken", "MaxResults")


@dataclass(frozen=True, slots=True)
class Row:
    """A resource as a list sees it.

    Attributes
    ----------
    summary : mapping
        What the answer says of it.
    status : str
        "" where resources have none.
    """

    name: str
    created_s: float
    modified_s: float
    summary: Body
    status: str = ""


def page(action: str, body: Body, rows: Iterable[Row], key: bytes, per_page: int = _PER_PAGE) -> dict[str, Any]:
    """Return one page of summaries, under "Items", and "NextToken" when there are more.

    Parameters
    ----------
    action : str
    body : mapping
        The List request.
    rows : iterable of Row
    key : bytes
        That signs tokens.
    per_page : int
        Without MaxResults.

    Raises
    ------
    ValidationError
        The token is not one that this action gave for the same question.
    """
    order = body.get("SortBy", "CreationTime")
    descending = body.get("SortOrder", "Descending") == "Descending"

    def place(row: Row) -> tuple[Any, str]:
        by = {"Name": "", "CreationTime": row.created_s, "Status": row.status}
        return by[order], row.name

    question = [action, {name: value for name, value in sorted(body.items()) if name not in _PAGE_MEMBERS}]
    found = sorted((row for row in rows if _matches(row, body)), key=place, reverse=descending)
    if body.get("NextToken"):
        last = _opened(body["NextToken"], question, key)
        found = [row for row in found if (place(row) < last if descending else place(row) > last)]
    size = body.get("MaxResults", per_page)
    answer: dict[str, Any] = {"Items": [row.summary for row in found[:size]]}
    if len(found) > size:
        answer["NextToken"] = _sealed(place(found[size - 1]), question, key)
    return answer


def _matches(row: Row, body: Body) -> bool:
    bounds = (
        ("CreationTimeAfter", row.created_s, 1),
        ("CreationTimeBefore", row.created_s, -1),
        ("LastModifiedTimeAfter", row.modified_s, 1),
        ("LastModifiedTimeBefore", row.modified_s, -1),
    )
    return (
        body.get("NameContains", "") in row.name
        and body.get("StatusEquals", row.status) == row.status
        and all(name not in body or (value - body[name]) * sign > 0 for name, value, sign in bounds)
    )


def _sealed(place: tuple[Any, str], question: list[Any], key: bytes) -> str:
    payload = json.dumps(place).encode()
    return urlsafe_b64encode(_mac(payload, question, key) + payload).decode()


def _opened(token: str, question: list[Any], key: bytes) -> tuple[Any, str]:
    try:
        raw = urlsafe_b64decode(token.encode("ascii"))
    except ValueError:  # also what is no ASCII
        raw = b""
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    as_given = urlsafe_b64encode(raw).decode() == token  # what is no base 64 was skipped in reading
    if not payload or not as_given or not hmac.compare_digest(mac, _mac(payload, question, key)):
        constraint = f"Member must be a token that {question[0]} gave, with the same filters and order"
        raise ValidationError([sentence(token, "nextToken", constraint)])
    value, name = json.loads(payload)
    return value, name


def _mac(payload: bytes, question: list[Any], key: bytes) -> bytes:
    return hmac.digest(key, json.dumps(question).encode() + b"\0" + payload, "sha256")[:_MAC_BYTES]
