"""Reads a JSON object from a mapping, text, bytes or a file.

The text must be standard JSON in UTF-8 (a byte order mark may precede it), without NaN and Infinity. A repeated key in
one object is an error, because one of its values would be lost silently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from shadowsim.errors import InputError, SerializationError, json_kind, shown

_SUFFIXES = (".json", ".yaml", ".yml", ".toml")
_YAML = re.compile(r"(?:\s*#[^\n]*\n)*(?:---\s|\s*[A-Za-z_][\w-]*:(?:\s|$))")


def read_json(source: object, what: str = "request", *, non_finite: bool = False) -> dict[str, Any]:
    """Return the JSON object that a source is or holds.

    Parameters
    ----------
    source : mapping, str, bytes or path
        The object itself, its JSON text (a str that begins with `{`, or any bytes), or the path of a file.
    what : str
        The name in messages of a source that is not a file.
    non_finite : bool
        Whether NaN and Infinity, which Python's json module writes, are accepted.

    Raises
    ------
    InputError
        The file cannot be read.
    SerializationError
        The text is not UTF-8, not JSON or not an object, or repeats a key.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, bytes | bytearray):
        return _parsed(decoded(source, what), what, non_finite)
    file = file_of(source)
    if file is not None:
        name = shown(file)
        return _parsed(decoded(content_of(file, isinstance(source, str)), name), name, non_finite)
    if isinstance(source, str):
        return _parsed(source.lstrip("\ufeff"), what, non_finite)
    raise SerializationError(f"{what}: must be an object, JSON text or a path, not {json_kind(source)}")


def file_of(source: object) -> Path | None:
    """Return the file that `read_json` would read for a source; None when the source is not a path."""
    is_text = isinstance(source, str) and source.lstrip("\ufeff \t\r\n").startswith("{")
    return Path(source) if isinstance(source, str | os.PathLike) and not is_text else None


def path_of(source: object, name: str) -> Path:
    """Return `source` as a path, or raise `InputError` with the name of the parameter."""
    if not isinstance(source, str | os.PathLike):
        raise InputError(name, f"must be a path, not {json_kind(source)}")
    return Path(source)


def content_of(file: Path, was_text: bool = False) -> bytes:
    """Return the bytes of a file; raise `InputError` when it cannot be read. `was_text`: its name was given as text."""
    name = shown(file)
    try:
        return file.read_bytes()
    except FileNotFoundError:
        hint = _nearest_file(file) or (", and JSON text would begin with {" if was_text else "")
        raise InputError(name, f"there is no such file{hint}") from None
    except IsADirectoryError:
        raise InputError(name, "must be a file, not a directory") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _nearest_file(file: Path) -> str:
    try:
        names = [path.name for path in file.parent.iterdir() if path.suffix in _SUFFIXES]
        near = get_close_matches(file.name, names, n=1, cutoff=0.8)
        return f"; did you mean {near[0]}?" if near else ""
    except OSError:
        return ""


def decoded(body: bytes | bytearray, what: str) -> str:
    """Return bytes as text; raise `SerializationError` when they are not UTF-8."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SerializationError(f"{what}: must be UTF-8 text, but byte {error.start} is not") from None


def _parsed(text: str, what: str, non_finite: bool) -> dict[str, Any]:
    def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                raise SerializationError(f"{what}: the key '{shown(key)}' occurs twice in one object")
            members[key] = value
        return members

    def constant(literal: str) -> object:
        if non_finite:
            return float(literal)
        raise SerializationError(f"{what}: {literal} is not JSON")

    try:
        document = json.loads(text, object_pairs_hook=unique_members, parse_constant=constant)
    except SerializationError:  # raised by the hooks; it is a ValueError too
        raise
    except json.JSONDecodeError as error:
        if not text.strip():
            raise SerializationError(f"{what}: broken JSON at line 1, column 1: there is nothing in it") from None
        if _YAML.match(text):
            raise SerializationError(f"{what}: must be JSON, and looks like YAML (`yq -o json` converts it)") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise SerializationError(f"{what}: broken JSON at {where}: {_cause(error)}") from None
    except RecursionError:
        raise SerializationError(f"{what}: JSON nested too deeply") from None
    except ValueError:  # Python reads integers of up to 4,300 digits
        raise SerializationError(f"{what}: a number has too many digits") from None
    if not isinstance(document, dict):
        raise SerializationError(f"{what}: must be a JSON object, not {json_kind(document)}")
    return document


def _cause(error: json.JSONDecodeError) -> str:
    """Return the cause of an error; Python's own message for a trailing comma is unclear, and varies by version."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip(", \t\r\n")
    comma = before.endswith(",") or error.doc[error.pos : error.pos + 1] == ","
    return f"a comma must not stand before {after[0]}" if comma and after[:1] in ("}", "]") else error.msg
