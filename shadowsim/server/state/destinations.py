"""Writes objects to capture destinations, in local folders or in S3.

Buckets and keys come from `aws.destinations.parse_destination`, which refuses what could leave the bucket; a folder
refuses links out of it, too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from shadowsim.errors import InputError

WRITE_S = 30.0  # the time limit for an object; a failed one is written again at the next flush


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
        self._endpoint_url, self._timeout_s = endpoint_url, timeout_s
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

    def __reduce__(self) -> tuple[type[S3], tuple[str, float]]:
        return type(self), (self._endpoint_url, self._timeout_s)

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
