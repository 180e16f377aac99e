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
    """A resource as an item of a list.

    Attributes
    ----------
    summary : mapping
        The item in the answer.
    status : str
        "" for resources without a status.
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
        Signs the tokens.
    per_page : int
        The page size if the request has no MaxResults.

    Raises
    ------
    ValidationError
        The token was not issued by this action for the same filters and order.
    """
    order = body.get("SortBy", "CreationTime")
    descending = body.get("SortOrder", "Descending") == "Descending"

    def place(row: Row) -> tuple[Any, str]:
        sort_values = {"Name": "", "CreationTime": row.created_s, "Status": row.status}
        return sort_values[order], row.name

    question = [action, {name: value for name, value in sorted(body.items()) if name not in _PAGE_MEMBERS}]
    matching = sorted((row for row in rows if _matches(row, body)), key=place, reverse=descending)
    if body.get("NextToken"):
        last = _open_token(body["NextToken"], question, key)
        matching = [row for row in matching if (place(row) < last if descending else place(row) > last)]
    size = body.get("MaxResults", per_page)
    answer: dict[str, Any] = {"Items": [row.summary for row in matching[:size]]}
    if len(matching) > size:
        answer["NextToken"] = _seal_token(place(matching[size - 1]), question, key)
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
