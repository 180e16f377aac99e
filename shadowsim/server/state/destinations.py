"""Parses capture destinations (S3 URIs) and writes objects to them, in local folders or in S3.

A destination comes from a request and never reaches a file system or a library unchecked: it is split into bucket and
key, and anything that could leave the bucket (`..`, `::`, a null character, a link) is refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from shadowsim.aws.contract import sentence
from shadowsim.errors import InputError, ValidationError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_S3 = re.compile(r"s3://([^/]*)/?(.*)", re.DOTALL)
# Virtual-hosted (bucket in the host) and path style, with or without a region, FIPS and dual-stack.
_HOST = r"s3(?:-fips)?(?:\.dualstack)?(?:[.-][a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
_HOSTED = re.compile(rf"https://([a-z0-9.-]+?)\.{_HOST}(?:/(.*))?", re.DOTALL)
_PATHED = re.compile(rf"https://{_HOST}/([^/]*)(?:/(.*))?", re.DOTALL)
_MAX_PREFIX_BYTES = 829  # an S3 key has at most 1,024 bytes; a capture file's own folders and name take up to 195
# fsspec reads the part after `::` as another file system, and s3fs the part after `?versionId=` as a version.
_NOT_IN_KEYS = ("::", "\\", "?versionId=")
WRITE_S = 30.0  # the time limit for an object; a failed one is written again at the next flush
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


class Sink(Protocol):
    """A writer of objects, called from a worker thread."""

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object, whole or not at all; raise OSError if that fails."""
        ...


class Folders:
    """A sink that keeps buckets as folders below a root.

    Parameters
    ----------
    root : Path
        Created at the first write.
    """

    def __init__(self, root: Path):
        self._root = root

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Write a file under a temporary name and rename it, so that neither a reader nor a crash sees half of it.

        Raises
        ------
        OSError
            It cannot be written, or a link leads out of its bucket.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        root = self._root.resolve()
        folder = root.joinpath(bucket, *key.split("/")[:-1])
        # Checked before folders are created, which through a link would be elsewhere, and again after.
        for _ in range(2):
            if not folder.resolve().is_relative_to(root / bucket):
                raise OSError(f"{folder} leads out of its bucket by a link")
            folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{uuid4().hex}.partial"
        try:
            with partial.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(folder / key.split("/")[-1])
        except OSError:
            partial.unlink(missing_ok=True)
            raise


class S3:
    """A sink that writes to an S3 endpoint through s3fs, with the environment's credentials.

    Parameters
    ----------
    endpoint_url : str
    timeout_s : float
        The time limit for an object.

    Raises
    ------
    InputError
        s3fs is not installed.
    """

    def __init__(self, endpoint_url: str, timeout_s: float = WRITE_S):
        self._timeout_s = timeout_s
        try:
            import s3fs
        except ImportError:
            text = "is set, but writing to S3 needs s3fs: pip install 'shadowsim[s3]'"
            raise InputError("AWS_ENDPOINT_URL_S3", text) from None
        self._files: Any = s3fs.S3FileSystem(
            endpoint_url=endpoint_url,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Put an object, which S3 does whole or not at all.

        Raises
        ------
        Exception
            Any error of s3fs, or the time-out: s3fs alone would wait for ever if S3 never answers "Continue".
        """
        from fsspec.asyn import sync

        sync(self._files.loop, self._files._pipe_file, f"{bucket}/{key}", data, timeout=self._timeout_s)


def sink_of(root: Path, environment: dict[str, str]) -> Sink:
    """Return a sink for the S3 at AWS_ENDPOINT_URL_S3 in the environment, or folders below a root if it is not set."""
    endpoint_url = environment.get("AWS_ENDPOINT_URL_S3")
    return S3(endpoint_url) if endpoint_url else Folders(root)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(uri: str, path: str, constraint: str) -> ValidationError:
    return ValidationError([sentence(uri, path, constraint)])
