"""Parses capture destinations (S3 URIs) into buckets and key prefixes.

A destination comes from a request and never reaches a file system or a library unchecked: it is split into bucket and
key, and anything that could leave the bucket (`..`, `::`, a null character) is refused.
"""

from __future__ import annotations

import re

from shadowsim.aws.contract import sentence
from shadowsim.errors import ValidationError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_S3 = re.compile(r"s3://([^/]*)/?(.*)", re.DOTALL)
# Virtual-hosted (bucket in the host) and path style, with or without a region, FIPS and dual-stack.
_HOST = r"s3(?:-fips)?(?:\.dualstack)?(?:[.-][a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
_HOSTED = re.compile(rf"https://([a-z0-9.-]+?)\.{_HOST}(?:/(.*))?", re.DOTALL)
_PATHED = re.compile(rf"https://{_HOST}/([^/]*)(?:/(.*))?", re.DOTALL)
_MAX_PREFIX_BYTES = 829  # an S3 key has at most 1,024 bytes; a capture file's own folders and name take up to 195
# fsspec reads the part after `::` as another file system, and s3fs the part after `?versionId=` as a version.
_NOT_IN_KEYS = ("::", "\\", "?versionId=")
_MAX_SEGMENT_BYTES = 255  # of a file name


def parse_destination(uri: str, path: str = "destination") -> tuple[str, str]:
    """Return the bucket and the key prefix of a destination, the prefix without slashes at its ends.

    Parameters
    ----------
    uri : str
        `s3://bucket/prefix`, or the same bucket under https in either of S3's styles.
    path : str
        The member's path in the request, for the error.

    Raises
    ------
    ValidationError
        It names no S3 bucket, or its prefix could lead out of the bucket or cannot be a path.
    """
    match = _S3.fullmatch(uri) or _PATHED.fullmatch(uri) or _HOSTED.fullmatch(uri)
    bucket, key = match.groups() if match else ("", "")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise _invalid(uri, path, "Member must name an S3 bucket, as in s3://bucket/prefix")
    segments = [segment for segment in (key or "").split("/") if segment]
    for segment in segments:
        if segment in (".", "..") or any(sign in segment for sign in _NOT_IN_KEYS) or not segment.isprintable():
            listed = ", ".join(f"'{sign}'" for sign in (".", "..", *_NOT_IN_KEYS))
            raise _invalid(uri, path, f"Member must not have {listed} or a control character in its key")
        if len(segment.encode("utf-8", "surrogatepass")) > _MAX_SEGMENT_BYTES or not _encodable(segment):
            raise _invalid(
                uri, path, f"Member must have parts of at most {_MAX_SEGMENT_BYTES} bytes of UTF-8 in its key"
            )
    prefix = "/".join(segments)
    if len(prefix.encode()) > _MAX_PREFIX_BYTES:
        raise _invalid(uri, path, f"Member must have a key of at most {_MAX_PREFIX_BYTES} bytes of UTF-8")
    return bucket, prefix


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(uri: str, path: str, constraint: str) -> ValidationError:
    return ValidationError([sentence(uri, path, constraint)])
