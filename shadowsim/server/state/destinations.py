"""Where captures go: an S3 URI as bucket and key, and the two places that stand for S3.

A destination comes out of a request and is never handed to a file system or a library as it came: it is taken apart,
and whatever could leave its bucket (`..`, `::`, a null character, a link) is refused.
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
_MOST_PREFIX = 829  # bytes: of the 1,024 of an S3 key, a file's own folders and name take up to 195
# fsspec takes what follows `::` for another file system, and s3fs what follows `?versionId=` for no part of the key.
_NOT_IN_KEYS = ("::", "\\", "?versionId=")
WRITE_S = 30.0  # that an object may take; what fails is written again with the next flush
_MOST_SEGMENT = 255  # bytes of a file name


def parse_destination(uri: str, path: str = "destination") -> tuple[str, str]:
    """Return bucket and key prefix (without slashes at its ends) of a destination.

    Parameters
    ----------
    uri : str
        `s3://bucket/prefix`, or the same bucket under https in either of S3's styles.
    path : str
        Where it stands in the request, for the error.

    Raises
    ------
    ValidationError
        It names no S3 bucket, or a prefix that could lie elsewhere.
    """
    found = _S3.fullmatch(uri) or _PATHED.fullmatch(uri) or _HOSTED.fullmatch(uri)
    bucket, key = found.groups() if found else ("", "")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise _invalid(uri, path, "Member must name an S3 bucket, as in s3://bucket/prefix")
    segments = [segment for segment in (key or "").split("/") if segment]
    for segment in segments:
        if segment in (".", "..") or any(sign in segment for sign in _NOT_IN_KEYS) or not segment.isprintable():
            listed = ", ".join(f"'{sign}'" for sign in (".", "..", *_NOT_IN_KEYS))
            raise _invalid(uri, path, f"Member must not have {listed} or a control sign in its key")
        if len(segment.encode("utf-8", "surrogatepass")) > _MOST_SEGMENT or not _encodable(segment):
            raise _invalid(uri, path, f"Member must have parts of at most {_MOST_SEGMENT} bytes of UTF-8 in its key")
    prefix = "/".join(segments)
    if len(prefix.encode()) > _MOST_PREFIX:
        raise _invalid(uri, path, f"Member must have a key of at most {_MOST_PREFIX} bytes of UTF-8")
    return bucket, prefix


class Sink(Protocol):
    """What stands for S3. It is called from a thread."""

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object, whole or not at all; raise OSError when it cannot be."""
        ...


class Folders:
    """Buckets as folders below a root.

    Parameters
    ----------
    root : Path
        Made when it is needed.
    """

    def __init__(self, root: Path):
        self._root = root

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Write a file beside its place and move it there, so that no reader and no crash sees half of it.

        Raises
        ------
        OSError
            It cannot be written, or a link leads out of the root.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        root = self._root.resolve()
        folder = root.joinpath(bucket, *key.split("/")[:-1])
        # Before the first folder is made and again after: a link on the way would make them elsewhere.
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
    """An S3 behind its own endpoint, through s3fs; credentials are those of the environment.

    Parameters
    ----------
    endpoint_url : str
    most_s : float
        How long an object may take.

    Raises
    ------
    InputError
        s3fs is not installed.
    """

    def __init__(self, endpoint_url: str, most_s: float = WRITE_S):
        self._most_s = most_s
        try:
            import s3fs
        except ImportError:
            what = "is set, but writing to S3 needs s3fs: pip install 'shadowsim[s3]'"
            raise InputError("AWS_ENDPOINT_URL_S3", what) from None
        self._files: Any = s3fs.S3FileSystem(
            endpoint_url=endpoint_url,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Put an object: S3 shows it whole or not at all.

        Raises
        ------
        Exception
            Whatever s3fs raises, or that it took too long: s3fs waits without end for an S3 that never says "Continue".
        """
        from fsspec.asyn import sync

        sync(self._files.loop, self._files._pipe_file, f"{bucket}/{key}", data, timeout=self._most_s)


def sink_of(root: Path, environment: dict[str, str]) -> Sink:
    """Return the S3 of the environment's AWS_ENDPOINT_URL_S3, or folders below a root without one."""
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
