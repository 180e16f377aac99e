"""Reads a document from JSON, YAML or TOML, with the values that the same document has in JSON.

A file is read by its ending (.json, .yaml, .yml, .toml), other files and standard input by their content. Errors name
the line and the column.

YAML has two versions that read some texts differently, and none of its programs says which it follows. Here keys are
texts (`on`, `0.5`), numbers are those of JSON (`1e3`), and dates stay texts. A plain value that only one version takes
for a number or a truth value (`off`, `0x1F`, `012`, `1_000`, `1:30`) is a `Doubtful` text: whoever uses it asks
`refuse_doubtful`, which says what to write. Repeated keys are errors, anchors and merge keys (`<<`) work, and the short
forms of CloudFormation (`!Ref`, `!Sub`, `!GetAtt`) become its long ones (`{"Ref": ...}`).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from functools import cache
from typing import Any

from shadowsim.errors import SerializationError, json_kind, shown
from shadowsim.json_files import content_of, decoded, file_of, read_json

_PLAIN = "plain"  # the tag of what has neither quotes nor a tag of its own
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {**dict.fromkeys(("true", "True", "TRUE"), True), **dict.fromkeys(("false", "False", "FALSE"), False)}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# What YAML 1.1 takes for a boolean or a number, or 1.2 does, and JSON has not.
_DOUBTFUL = re.compile(
    r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|[-+]?0[xXbo][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?"
    r"|[-+]?\.[0-9_]+([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
)
_MOST_NODES = 200_000  # also where aliases repeat them
_DEEPEST = 200  # levels of lists and objects in each other
_TOML = re.compile(r"\s*(#[^\n]*\n\s*)*(\[+\s*[A-Za-z_][\w.\s\"-]*\]+\s*(#|$)|[\w.\"-]+\s*=)", re.MULTILINE)
_TOML_SPECIAL = re.compile(r"=[^\n#\"']*?\b(inf|nan)\b")
_YAML = re.compile(r"(\s*#[^\n]*\n|\s*\n)*\s*(---\s|[\w\"'.<-]+\s*:(\s|$))")  # that it is, where no name tells
_YAML_SUFFIXES, _TOML_SUFFIXES = (".yaml", ".yml"), (".toml",)


class Doubtful(str):
    """A plain text in YAML that is a number or a truth value in one version of YAML, with its place.

    Attributes
    ----------
    place : str
        "line 3, column 9".
    """

    place: str


def read_document(source: object, what: str = "request") -> dict[str, Any]:
    """Return the object that a source is or holds.

    Parameters
    ----------
    source : mapping, str, bytes or path
        The object itself, its text (a str that begins with `{`, or any bytes), or the path of a file.
    what : str
        The name in messages of a source that is not a file.

    Raises
    ------
    InputError
        The file cannot be read.
    SerializationError
        The text is not UTF-8, is broken, is not an object, or repeats a key; the message names line and column.
    """
    if isinstance(source, bytes | bytearray):
        return _read_text(decoded(source, what), what, "")
    file = file_of(source) if isinstance(source, str | os.PathLike) else None
    if file is None or file.suffix.lower() == ".json":
        return read_json(source, what)
    name = shown(file)
    return _read_text(decoded(content_of(file, isinstance(source, str)), name), name, file.suffix.lower())


def refuse_doubtful(document: object, what: str = "", path: str = "") -> None:
    """Raise `SerializationError` for the first `Doubtful` text in a document; `what` names it in the message."""
    if isinstance(document, Doubtful):
        where = f"{what}: " if what else ""
        reads = "a number or true or false in one version of YAML and a text in another"
        fix = "write it as in JSON, or in quotes for a text"
        raise SerializationError(f"{where}{document.place}: {path}: {shown(str(document))} is {reads}; {fix}")
    items = document.items() if isinstance(document, Mapping) else ()
    for key, value in [*items, *(enumerate(document) if isinstance(document, list) else ())]:
        refuse_doubtful(value, what, f"{path}.{key}" if path else str(key))


def _read_text(text: str, what: str, suffix: str) -> dict[str, Any]:
    begins = text.lstrip("\ufeff \t\r\n")[:1]
    if suffix in _TOML_SUFFIXES or (not suffix and begins != "{" and _TOML.match(text)):
        return _read_toml(text, what)
    if suffix in _YAML_SUFFIXES or (begins not in ("{", "[", "") and _YAML.match(text)):
        return _read_yaml(text, what)
    return read_json(text.encode(), what)


# ---- TOML ----


def _read_toml(text: str, what: str) -> dict[str, Any]:
    special = _TOML_SPECIAL.search(text)

    def finite(number: str) -> float:
        if "inf" in number or "nan" in number:
            line = text.count("\n", 0, special.start()) + 1 if special else 1
            raise SerializationError(f"{what}: line {line}: {number} is not a number in JSON")
        return float(number)

    try:
        document = tomllib.loads(text, parse_float=finite)
    except tomllib.TOMLDecodeError as error:
        cause = re.sub(r" \(at (.*)\)$", "", str(error))
        place = re.search(r"at (line \d+, column \d+|end of document)\)$", str(error))
        raise SerializationError(f"{what}: broken TOML at {place[1] if place else 'some line'}: {cause}") from None
    except RecursionError:
        raise SerializationError(f"{what}: TOML nested too deeply") from None
    return {key: _without_dates(value) for key, value in document.items()}


def _without_dates(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_dates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_dates(item) for item in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else value


# ---- YAML ----


def _read_yaml(text: str, what: str) -> dict[str, Any]:
    import yaml

    try:
        _refuse_deep(text, what)
        root = yaml.compose(text, Loader=_loader())
        document = _Nodes(what).value(root, "") if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        cause = " ".join(filter(None, (error.context, error.problem)))
        raise SerializationError(f"{what}: broken YAML{place}: {cause}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SerializationError(f"{what}: broken YAML at line {line}: a character that YAML does not allow") from None
    except RecursionError:  # objects in each other by aliases
        raise SerializationError(f"{what}: YAML nested too deeply") from None
    if not isinstance(document, dict):
        raise SerializationError(f"{what}: must be an object, not {json_kind(document)}")
    return document


def _refuse_deep(text: str, what: str) -> None:
    """Raise for what nests too deeply to be composed: libyaml composes by recursion, some versions without a limit."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise SerializationError(f"{what}: {_place(event)}: nests more than {_DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


@cache
def _loader() -> Any:
    """Return a loader that gives nodes with their own tags, and to plain scalars the tag `_PLAIN`."""
    import yaml

    base = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    return type("_Loader", (base,), {"yaml_implicit_resolvers": {None: [(_PLAIN, re.compile(""))]}})


class _Nodes:
    """Makes values of the nodes of one YAML document."""

    def __init__(self, what: str):
        self.what, self.left, self.open = what, _MOST_NODES, set[int]()

    def value(self, node: Any, path: str) -> Any:
        """Return the value of a node, whose path errors name."""
        self.left -= 1
        if self.left < 0 or id(node) in self.open:
            reason = "contains itself" if self.left >= 0 else f"has more than {_MOST_NODES:,} values"
            raise self.error(node, path, f"{reason} by its aliases")
        self.open.add(id(node))
        try:
            return self._tagged(node, path)
        finally:
            self.open.remove(id(node))

    def error(self, node: Any, path: str, text: str) -> SerializationError:
        """Return the error for a node: its place, its key, and what is wrong."""
        return SerializationError(f"{self.what}: {_place(node)}: {path + ': ' if path else ''}{text}")

    def _tagged(self, node: Any, path: str) -> Any:
        tag = node.tag or ""
        if tag.startswith("!") and len(tag) > 1:
            return self._short_form(node, tag[1:], path)
        if node.id == "mapping":
            return self._mapping(node, path)
        if node.id == "sequence":
            return [self.value(item, f"{path}.{i}") for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: Any, path: str) -> dict[str, Any]:
        members: dict[str, Any] = {}
        places: dict[str, str] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.id != "scalar":
                raise self.error(key_node, path, "a key must be a text")
            key = key_node.value
            inside = f"{path}.{key}" if path else key
            if key == "<<" and key_node.tag == _PLAIN:
                for part in value_node.value if value_node.id == "sequence" else [value_node]:
                    if part.id != "mapping":
                        raise self.error(part, inside, "merges objects only")
                    merged = self.value(part, path) | merged
                continue
            if key in members:
                raise self.error(key_node, path, f"the key '{shown(key)}' occurs twice; it is at {places[key]}, too")
            members[key], places[key] = self.value(value_node, inside), _place(key_node)
        return merged | members

    def _scalar(self, node: Any, path: str) -> object:
        text, tag = node.value, node.tag.removeprefix("tag:yaml.org,2002:")
        if tag in ("str", "!"):
            return text
        if tag not in (_PLAIN, "int", "float", "bool", "null"):
            raise self.error(node, path, f"the tag !!{tag} is not known")
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            return int(text) if len(text) < 4000 else self._too_long(node, path)
        if _FLOAT.fullmatch(text):
            return float(text)
        if not _DOUBTFUL.fullmatch(text):
            return text
        doubtful = Doubtful(text)
        doubtful.place = _place(node)
        return doubtful

    def _too_long(self, node: Any, path: str) -> object:
        raise self.error(node, path, "a number has too many digits")

    def _short_form(self, node: Any, name: str, path: str) -> dict[str, Any]:
        """Return the long form of a short form of CloudFormation."""
        if node.id == "mapping":
            inside: Any = self._mapping(node, path)
        elif node.id == "sequence":
            inside = [self.value(item, f"{path}.{i}") for i, item in enumerate(node.value)]
        else:
            inside = node.value
        if name in ("Ref", "Condition"):
            return {name: inside}
        if name == "GetAtt" and isinstance(inside, str):
            inside = inside.split(".", 1)
        return {f"Fn::{name}": inside}


def _place(node: Any) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
