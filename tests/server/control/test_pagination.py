"""Compares pages with a plain list, and checks that tokens survive changes and cannot be forged."""

import base64
from collections import namedtuple
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsed_account import T0, client, experiment, new_account

from shadowsim.errors import ValidationError
from shadowsim.server.control import pagination

KEY = b"k" * 32
Row = namedtuple("Row", ["name", "created_s", "modified_s", "summary", "status"], defaults=[""])


def page(action, body, rows, key):
    summary = lambda row: row.summary  # noqa: E731
    return pagination.page(action, body, rows, key, summary, modified="modified_s", status="status")


NAMES = st.text("abC-1", min_size=1, max_size=4)
ROWS = st.dictionaries(NAMES, st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from("XYZ")), max_size=12).map(
    lambda rows: [
        Row(name, float(created), float(modified), {"N": name}, status)
        for name, (created, modified, status) in rows.items()
    ]
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "NameContains": st.sampled_from(["a", "C", "b-"]),
        "StatusEquals": st.sampled_from("XYZ"),
        "CreationTimeAfter": st.integers(0, 5),
        "CreationTimeBefore": st.integers(0, 5),
        "LastModifiedTimeAfter": st.integers(0, 5),
        "LastModifiedTimeBefore": st.integers(0, 5),
        "SortBy": st.sampled_from(["Name", "CreationTime", "Status"]),
        "SortOrder": st.sampled_from(["Ascending", "Descending"]),
    },
)


def walked(rows, body, size=2):
    """Return all names, page by page, and the number of pages."""
    names, token, n_pages = [], {}, 0
    while n_pages < 100:
        answer = page("ListX", {**body, **token, "MaxResults": size}, rows, KEY)
        names += [item["N"] for item in answer["Items"]]
        n_pages += 1
        if "NextToken" not in answer:
            return names, n_pages
        token = {"NextToken": answer["NextToken"]}
    raise AssertionError("the pages do not end")


def expected(rows, body):
    def kept(row):
        return (
            body.get("NameContains", "") in row.name
            and body.get("StatusEquals", row.status) == row.status
            and body.get("CreationTimeAfter", -1) < row.created_s < body.get("CreationTimeBefore", 99)
            and body.get("LastModifiedTimeAfter", -1) < row.modified_s < body.get("LastModifiedTimeBefore", 99)
        )

    matching = sorted((row for row in rows if kept(row)), key=lambda row: row.name)
    if body.get("SortBy") == "Status":
        matching.sort(key=lambda row: row.status)
    elif body.get("SortBy", "CreationTime") == "CreationTime":
        matching.sort(key=lambda row: row.created_s)
    names = [row.name for row in matching]
    return names if body.get("SortOrder") == "Ascending" else names[::-1]


@given(ROWS, FILTERS, st.integers(1, 5))
def test_pages_are_the_whole_list_in_order(rows, body, size):
    names, n_pages = walked(rows, body, size)
    assert names == expected(rows, body)
    assert n_pages == max(1, -(-len(names) // size))


@pytest.mark.parametrize("order", ["Ascending", "Descending"])
@pytest.mark.parametrize("by", ["Name", "CreationTime"])
def test_a_page_of_a_long_list_compares_each_name_about_once(by, order):
    """To sort all 4,000 would take some 4,000 log2(4,000) = 48,000 comparisons, too many for the event loop.

    Names in no order enter the page of ten 10 ln(4,000 / 10) = 60 times on average, with some four comparisons each.
    """
    n_compared = 0

    class Name(str):
        __slots__ = ()

        def __lt__(self, other):
            nonlocal n_compared
            n_compared += 1
            return str.__lt__(self, other)

    n = 4000
    names = [Name(f"{i:04}") for i in Random(1).sample(range(n), n)]
    rows = [Row(name, i / n, 0.0, {"N": name}) for i, name in enumerate(names)]
    question = {"SortBy": by, "SortOrder": order}
    first = page("ListX", question, rows, KEY)
    assert n_compared < 2 * n
    assert [item["N"] for item in first["Items"]] == expected(rows, question)[:10]


@given(ROWS, ROWS, FILTERS)
def test_what_comes_and_goes_between_two_pages_changes_nothing_else(rows, others, body):
    """A row that is there before and after is shown exactly once, in order."""
    first = page("ListX", {**body, "MaxResults": 3}, rows, KEY)
    seen = [item["N"] for item in first["Items"]]
    if "NextToken" not in first:
        return
    names = {row.name for row in rows}
    kept = [row for row in rows if len(row.name) != 2]
    after = [*kept, *(row for row in others if row.name not in names)]
    token = {"NextToken": first["NextToken"], "MaxResults": 100}
    rest = [item["N"] for item in page("ListX", {**body, **token}, after, KEY)["Items"]]
    assert not set(seen) & set(rest)
    stayed = {row.name for row in kept}
    assert [n for n in seen + rest if n in stayed] == [n for n in expected(rows, body) if n in stayed]


TOKEN = page("ListX", {"MaxResults": 1, "SortBy": "Name"}, [Row(n, 0, 0, {"N": n}) for n in "abc"], KEY)["NextToken"]


def opened(token, action="ListX", key=KEY, **body):
    return page(action, {"SortBy": "Name", "NextToken": token, **body}, [], key)


def test_a_token_is_for_its_own_question():
    assert opened(TOKEN) == {"Items": []}
    assert opened(TOKEN, MaxResults=77) == {"Items": []}
    for wrong in (
        {"action": "ListY"},
        {"key": b"other"},
        {"SortBy": "CreationTime"},
        {"SortOrder": "Ascending"},
        {"NameContains": "a"},
    ):
        with pytest.raises(
            ValidationError, match="at 'nextToken' failed to satisfy constraint: Member must be a token"
        ):
            opened(TOKEN, **wrong)


@settings(max_examples=300)
@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_random_tokens_are_refused(token):
    if token:
        with pytest.raises(ValidationError):
            opened(token)


@pytest.mark.parametrize("bit", range(len(base64.urlsafe_b64decode(TOKEN)) * 8))
def test_no_bit_of_a_token_can_be_changed(bit):
    raw = bytearray(base64.urlsafe_b64decode(TOKEN))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValidationError):
        opened(base64.urlsafe_b64encode(bytes(raw)).decode())


@pytest.mark.parametrize("token", [f"{TOKEN}!", f" {TOKEN}", f"{TOKEN[:9]}\n{TOKEN[9:]}", TOKEN.rstrip("=") + "===="])
def test_a_token_is_taken_as_it_was_given_or_not_at_all(token):
    """The decoder skips characters outside base 64."""
    with pytest.raises(ValidationError):
        opened(token)


def test_boto3_paginates_while_experiments_come_and_go():
    account = new_account(endpoint=False)
    for i in range(12):
        account.do("CreateInferenceExperiment", **experiment(f"e{i:02}", f"live{i}"))
    pages = client(account).get_paginator("list_inference_experiments")
    walk = iter(pages.paginate(SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 5}))
    names = [e["Name"] for e in next(walk)["InferenceExperiments"]]
    account.wait(5)
    for i in (3, 7):
        account.do(
            "StopInferenceExperiment",
            Name=f"e{i:02}",
            ModelVariantActions={"AllTraffic": "Retain", "Shadow-01": "Remove"},
        )
    account.wait(1)
    for i in (3, 7):
        account.do("DeleteInferenceExperiment", Name=f"e{i:02}")
    account.do("CreateInferenceExperiment", **experiment("e04b", "more"))
    account.do("CreateInferenceExperiment", **experiment("e08b", "more2"))
    names += [e["Name"] for part in walk for e in part["InferenceExperiments"]]
    assert names == ["e00", "e01", "e02", "e03", "e04", "e04b", "e05", "e06", "e08", "e08b", "e09", "e10", "e11"]


def test_lists_find_by_name_status_and_time():
    account = new_account()
    account.do("CreateInferenceExperiment", **experiment("one", "live"))
    account.wait(10)
    account.do("CreateInferenceExperiment", **experiment("two", "other"))
    sagemaker = client(account)

    def listed(**question):
        return [e["Name"] for e in sagemaker.list_inference_experiments(**question)["InferenceExperiments"]]

    assert listed() == ["two", "one"]  # the newest first
    assert listed(SortOrder="Ascending", SortBy="Status") == ["two", "one"]  # Creating, Running
    assert listed(StatusEquals="Running") == listed(NameContains="ne") == listed(CreationTimeBefore=T0 + 5) == ["one"]
    assert listed(LastModifiedTimeAfter=T0 + 5) == ["two"]
