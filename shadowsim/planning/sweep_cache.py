"""Stores the rows of finished runs in a directory, so that sweeps need not repeat them.

There is one file per run, named by a key of everything that its rows depend on: the scenario with its seed, the content
of the data files that it names, and the code of this package. So nothing has to be invalidated; files of another
version are simply not found. A file is written under a temporary name and then renamed, so that several processes may
share a directory, and a killed one leaves no partial file. Files that are corrupt or foreign nevertheless are detected
by a digest, and ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from uuid import uuid4

from shadowsim import __version__
from shadowsim.errors import InputError
from shadowsim.scenario.table_files import BUILTIN, resolve

Row = dict[str, str | int | float | None]

_PACKAGE = Path(__file__).parents[1]
_RESULT_FILES = (
    *("errors", "option_defaults", "quantities", "json_files", "documents", "arrays", "histogram", "frames"),
    *("verdict", "result"),
    "planning/sweep*",
)
_RESULT_FOLDERS = ("aws", "statistics", "scenario", "engine")
_SUFFIXES = (".py", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of rows by key; made by `open`."""

    directory: Path

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Cache:
        """Return the cache in a directory, which is created if it is missing.

        Raises
        ------
        InputError
            When the directory cannot be created, or nothing can be written to it.
        """
        folder = Path(directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            what = f"cannot be a directory ({getattr(error, 'strerror', None) or error})"
            raise InputError("cache", what, folder) from None
        if not os.access(folder, os.W_OK):
            raise InputError("cache", "must be a directory that can be written to", folder)
        return cls(folder)

    def get(self, key: str) -> list[Row] | None:
        """Return the rows of a key, None when there are none; warn of a file that is corrupt or foreign."""
        file = self.directory / f"{key}.json"
        try:
            body = json.loads(file.read_bytes())
            if body["key"] == key and body["digest"] == _digest(body["rows"]):
                rows: list[Row] = body["rows"]
                return rows
            why = "is not what shadowsim wrote there"
        except FileNotFoundError:
            return None
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
        except (ValueError, LookupError, TypeError, RecursionError):
            why = "is incomplete, or not a file of shadowsim's"
        warnings.warn(f"{file} {why}: its cell is run again", stacklevel=2)
        return None

    def put(self, key: str, rows: list[Row]) -> None:
        """Store the rows of a key.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        file = self.directory / f"{key}.json"
        draft = self.directory / f".{key}-{uuid4().hex}.draft"
        body = {"key": key, "shadowsim": __version__, "digest": _digest(rows), "rows": rows}
        try:
            draft.write_text(json.dumps(body, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(draft, file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise InputError("cache", f"{file} cannot be written ({error.strerror})") from None


def key_of(document: str, base_dir: Path, replication: int | None) -> str:
    """Return the key of a run.

    Parameters
    ----------
    document : str
        The scenario as JSON text.
    base_dir : Path
        Directory that the scenario's file paths are relative to.
    replication : int or None
        Number of the replication; None for the scenario under its own seed.

    Returns
    -------
    str
        64 hexadecimal digits, the same on two machines that have the same data files and the same code.
    """
    files = [_content_digest(resolve(path, base_dir)) for path in _paths(json.loads(document))]
    return _digest([code_digest(), document, replication, files])


@cache
def code_digest(package: Path = _PACKAGE) -> str:
    """Return a digest of the version and of the code and data that a sweep's figures may depend on.

    It covers more than the kernel, because other code turns the kernel's counts into rows; and whole folders, so that
    no new module can be forgotten. Code that only shows figures (`report/`, `plots/`, `cli/`, `server/`) is left out.
    """
    files = [file for name in _RESULT_FILES for file in package.glob(f"{name}.py")]
    files += [file for folder in _RESULT_FOLDERS for file in (package / folder).rglob("*")]
    names = sorted(file.relative_to(package).as_posix() for file in files if file.suffix in _SUFFIXES)
    contents = [[name, hashlib.sha256((package / name).read_bytes()).hexdigest()] for name in names]
    return _digest([__version__, contents])


def _paths(document: Mapping[str, object]) -> Iterator[str]:
    """Yield the data files that a scenario names, except the package's own, which belong to its code."""
    nodes: list[object] = [document.get("traffic"), document.get("services")]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            path = node.get("path")
            if isinstance(path, str) and not path.startswith(BUILTIN):
                yield path
        nodes.extend(node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else [])


def _content_digest(file: Path) -> str:
    """Return a digest of a file's content; "" where it is missing: reading the scenario gives the better error."""
    try:
        status = os.stat(file)
        return _content(file, status.st_mtime_ns, status.st_size)
    except OSError:
        return ""


@lru_cache(maxsize=256)
def _content(file: Path, mtime_ns: int, size: int) -> str:
    """Digest a file, and again only when its time or size has changed: traces may be large, and cells many."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
