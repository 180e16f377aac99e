"""Checks the destinations that are parsed and those that are refused."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import ValidationError
from shadowsim.aws.destinations import parse_destination


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://my.bucket/a//b/", ("my.bucket", "a/b")),
        ("https://bucket.s3.eu-west-1.amazonaws.com/a/b", ("bucket", "a/b")),
        ("https://s3.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://s3-eu-west-1.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://bucket.s3.amazonaws.com", ("bucket", "")),
        ("https://my.bucket.s3.dualstack.us-east-1.amazonaws.com/a", ("my.bucket", "a")),
        ("https://s3.dualstack.us-east-1.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://bucket.s3-fips.us-gov-west-1.amazonaws.com/a", ("bucket", "a")),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket", ("bucket", "")),
        ("s3://bucket/%2e%2e/a b/ü", ("bucket", "%2e%2e/a b/ü")),
    ],
)
def test_destinations(uri, place):
    assert parse_destination(uri) == place


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "s3://",
            "s3:///etc",
            "s3://../etc",
            "s3://bucket/../other",
            "s3://bucket/a/..",
            "s3://bucket/./a",
            "s3://Bucket",
        ),
        *("s3://bucket/a\0b", "s3://bucket/file::http://x", "s3://bucket/a\\..\\b", "s3://bucket/a\nb", "s3://b..c/a"),
        *(
            "https://example.com/bucket",
            "https://s3.amazonaws.com.evil.org/bucket",
            "file:///etc",
            "/etc",
            "",
            "s3://a",
        ),
        *(
            "https://bucket.s3.amazonaws.com.evil.org/a",
            "https://bucket.s3.amazonaws.comevil/a",
            "https://bucket.s3.amazonaws.com:443/a",
            "https://user@bucket.s3.amazonaws.com/a",
            "https://s3.dualstack.evil.us-east-1.amazonaws.com/bucket",
            "s3://bucket/a?versionId=b",
            "s3://bucket/" + "/".join(["ü" * 100] * 5),
        ),
        *("https://bucket.s3.evil.org/", "s3://bucket/" + "x" * 256, "s3://bucket/\ud800"),
    ],
)
def test_other_destinations_are_refused(uri):
    with pytest.raises(ValidationError, match="at 'destination' failed to satisfy constraint"):
        parse_destination(uri)


@given(st.text(max_size=40))
def test_no_destination_leads_out_of_its_bucket(text):
    try:
        bucket, key = parse_destination(f"s3://bucket/{text}")
    except ValidationError:
        return
    parts = os.path.normpath(f"/root/{bucket}/{key}/x").split("/")
    assert parts[:3] == ["", "root", "bucket"]
    assert os.path.normpath(f"/root/{bucket}/{key}/x") == f"/root/{bucket}/{key}/x".replace("//", "/")
