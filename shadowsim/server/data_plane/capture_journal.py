"""Keeps captured lines in files until their destination has them, so that they survive kill -9.

Each object that is being captured has a file of its own: a line of JSON that tells where the object goes, and the
lines captured so far. It is appended to several times a second, completed before the object is written, and removed
after. The object's key is in the file: a server that is killed between writing and removing writes the same object
again when it is started, not a second one. Files are not synced; a loss of power may take what the system has not yet
written.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shadowsim.errors import InputError

JOURNAL_S = 0.25  # time between two appends: what a kill takes
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CapturedObject:
    """An object of captures, and where it goes.

    Attributes
    ----------
    destination : str
        S3 URI that was configured.
    bucket, key : str
    endpoint, variant, hour : str
        Its lines are of one variant and one UTC hour.
    """

    destination: str
    bucket: str
    key: str
    endpoint: str
    variant: str
    hour: str

    @property
    def name(self) -> str:
        """Name of its file in a journal: the unique last part of the key."""
        return self.key.rpartition("/")[2]


class CaptureJournal:
    """The files of a server's captures that are not yet written.

    Parameters
    ----------
    folder : Path
        Created if there is none; no other server may use it.

    Raises
    ------
    InputError
        The folder cannot be created.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("--db", f"needs the folder {folder} beside it, which cannot be made: {error}") from None

    def append(self, file: CapturedObject, at_bytes: int, lines: Sequence[bytes]) -> int:
        """Write lines behind the first `at_bytes` of a file, 0 for a new one; return its new length.

        What an earlier attempt left half written behind them is overwritten.

        Raises
        ------
        OSError
        """
        head = b"" if at_bytes else json.dumps(asdict(file)).encode() + b"\n"
        data = head + b"".join(lines)
        handle = os.open(self.folder / file.name, os.O_WRONLY | os.O_CREAT, 0o600)
        with open(handle, "wb") as stream:
            stream.seek(at_bytes)
            stream.write(data)
            stream.truncate()
        return at_bytes + len(data)

    def remove(self, file: CapturedObject) -> None:
        """Remove a file whose object is written.

        Raises
        ------
        OSError
        """
        (self.folder / file.name).unlink(missing_ok=True)

    def read(self) -> Iterator[tuple[CapturedObject, list[bytes], int]]:
        """Yield each file's object, whole lines, and length in bytes; a torn last line is left out.

        A file that cannot be read is kept and told in the log.
        """
        for path in sorted(self.folder.iterdir()):
            try:
                head, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
                file = CapturedObject(**json.loads(head))
            except (OSError, ValueError, TypeError) as error:
                _LOG.warning("%s holds no captures that can be read, and is left as it is: %s", path, error)
                continue
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
            yield file, lines, len(head) + sum(map(len, lines))
