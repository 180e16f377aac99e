"""Checks that JSON objects are read from every source, and that errors are one line."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.errors import InputError, SerializationError
from shadowsim.json_files import file_of, read_json

TEXT = '{"Name": "a"}'
COMMAS = sys.version_info >= (3, 13)  # it names the comma itself, earlier ones what follows it
BROKEN = {
    "truncated": (b'{"Name": "a"', "broken JSON at line 1, column 13"),
    "trailing comma": (b'{\n "Name": "a",\n}', f"broken JSON at line {'2, column 13' if COMMAS else '3, column 1'}"),
    "single quotes": (b"{'Name': 'a'}", "broken JSON at line 1, column 2"),
    "two documents": (b"{} {}", "broken JSON at line 1, column 4"),
    "comment": (b'{ // why\n "Name": "a"}', "broken JSON at line 1, column 3"),
    "bare word": (b'{"Name": bert}', "broken JSON at line 1, column 10"),
    "empty": (b"", "broken JSON at line 1, column 1"),
    "list": (b"[1, 2]", "must be a JSON object, not a list"),
    "number": (b"12", "must be a JSON object, not an integer"),
    "null": (b"null", "must be a JSON object, not null"),
    "binary": (b"\x89PNG\r\n\x1a\n", "must be UTF-8 text"),
    "UTF-16": (TEXT.encode("utf-16"), "must be UTF-8 text"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is not JSON"),
    "duplicate key": (b'{"a": {"b": 1, "b": 1}}', "the key 'b' occurs twice"),
    "endless number": (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
    "deep": (b'{"a":' * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_clear_line_that_names_the_file(tmp_path, name):
    body, text = BROKEN[name]
    path = tmp_path / "request.json"
    path.write_bytes(body)
    for source in (path, str(path)):
        with pytest.raises(SerializationError) as caught:
            read_json(source)
        assert str(caught.value).startswith(f"{path}: ")
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(SerializationError, match=r"^body: "):
        read_json(body, "body")


def test_files_that_cannot_be_read(tmp_path):
    for path, text in [
        (tmp_path / "missing.json", "there is no such file"),
        (tmp_path, "must be a file, not a directory"),
        (tmp_path / ("x" * 500), "cannot be read: "),
        ("nul\0", "cannot be read: "),
        ("[1]", "there is no such file, and JSON text would begin with {"),
    ]:
        with pytest.raises(InputError, match=re.escape(text)) as caught:
            read_json(path)
        assert "\n" not in str(caught.value)
    for source in (None, 3, [], 1.5):
        with pytest.raises(SerializationError, match="request: must be an object, JSON text or a path, not "):
            read_json(source)


def test_the_same_object_from_everywhere(tmp_path):
    path = tmp_path / "request.json"
    for body in (TEXT.encode(), TEXT.encode("utf-8-sig")):
        path.write_bytes(body)
        assert read_json(path) == read_json(str(path)) == read_json(body) == {"Name": "a"}
    for text in (TEXT, "\ufeff" + TEXT, f"\n  {TEXT}\n"):
        assert read_json(text) == {"Name": "a"}
    mapping = {"Name": "a"}
    assert read_json(mapping) == mapping
    assert read_json(mapping) is not mapping


@pytest.mark.parametrize(("source", "is_file"), [("a.json", True), (Path("{"), True), ("{", False), ({}, False)])
def test_what_is_a_file(source, is_file):
    assert file_of(source) == (Path(source) if is_file else None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_no_text_crashes_the_reader(value):
    text = json.dumps({"a": value})
    with contextlib.suppress(SerializationError):  # of NaN, and of keys that are one as text
        assert json.dumps(read_json(text)) == text


YAML = ["Name: ranker\nType: ShadowMode\n", "# a comment\n---\nName: x\n", "traffic:\n  rate: 5\n"]


@pytest.mark.parametrize("text", YAML)
def test_yaml_is_named(tmp_path, text):
    (tmp_path / "request.yaml").write_text(text)
    with pytest.raises(SerializationError, match="must be JSON, and looks like YAML"):
        read_json(tmp_path / "request.yaml")


def test_the_nearest_file_is_suggested(tmp_path):
    (tmp_path / "request.json").write_text("{}")
    with pytest.raises(InputError, match=r"reqest\.json: there is no such file; did you mean request\.json\?"):
        read_json(tmp_path / "reqest.json")
