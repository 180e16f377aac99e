"""YAML and TOML give the values of the same document in JSON, or an error that names line and key."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import InputError, Scenario, SerializationError, default_scenario
from shadowsim.documents import Doubtful, read_document, refuse_doubtful

YAML = """\
# a comment
experiment: &request
  Name: 'on'
  Start: 2026-12-01T00:00:00Z
  Day: 2026-12-01
numbers: [1e3, 1.5, -2, .5, 0.5e-3, 10]
truth: [true, False, null, ~, ]
on: [timeout, "off", "0x1F"]
0.5: x
copy: {<<: *request, Name: other}
text: !!str 12
"""
JSON = {
    "experiment": {"Name": "on", "Start": "2026-12-01T00:00:00Z", "Day": "2026-12-01"},
    "numbers": [1e3, 1.5, -2, 0.5, 0.5e-3, 10],
    "truth": [True, False, None, None],
    "on": ["timeout", "off", "0x1F"],
    "0.5": "x",
    "copy": {"Name": "other", "Start": "2026-12-01T00:00:00Z", "Day": "2026-12-01"},
    "text": "12",
}
TOML = """\
# a comment
horizon_s = 1_000
at = 2026-12-01T00:00:00Z
day = 2026-12-01
clock = 07:30:00
[run]
seed = 7
list = [1.5, "a"]
[[traffic]]
rate_per_s = 1e3
"""
FROM_TOML = {
    "horizon_s": 1000,
    "at": "2026-12-01T00:00:00+00:00",
    "day": "2026-12-01",
    "clock": "07:30:00",
    "run": {"seed": 7, "list": [1.5, "a"]},
    "traffic": [{"rate_per_s": 1000.0}],
}


def same(a, b):
    """Whether two documents are equal in their types, too."""
    return json.dumps(a) == json.dumps(b)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML", "", ".template"])
def test_yaml_has_the_values_of_json(tmp_path, suffix):
    file = tmp_path / f"document{suffix}"
    file.write_text(YAML)
    assert same(read_document(file), JSON)
    assert same(read_document(str(file)), JSON)
    assert same(read_document(YAML.encode(), "stdin"), JSON)
    refuse_doubtful(read_document(file))


@pytest.mark.parametrize("suffix", [".toml", ""])
def test_toml_has_the_values_of_json(tmp_path, suffix):
    file = tmp_path / f"document{suffix}"
    file.write_text(TOML)
    assert same(read_document(file), FROM_TOML)
    assert same(read_document(TOML.encode(), "stdin"), FROM_TOML)


@pytest.mark.parametrize("text", ['{"a": 1}', '\\n {"a": 1}', "a = 1", "a: 1", "[b]\na = 1\n"])
def test_standard_input_is_known_by_its_content(text):
    assert "1" in json.dumps(read_document(text.replace("\\n", "\n").encode(), "stdin"))


DOUBTFUL = ["yes", "No", "on", "OFF", "y", "0x1F", "0o17", "017", "1_000", "+5", "1:30", ".inf", "-.INF", ".nan"]


@pytest.mark.parametrize("text", DOUBTFUL)
def test_what_versions_of_yaml_read_differently_is_refused_where_it_is_used(text):
    document = read_document(f"run:\n  seed: {text}\n".encode(), "stdin")
    assert isinstance(document["run"]["seed"], Doubtful)
    with pytest.raises(SerializationError) as caught:
        refuse_doubtful(document, "stdin")
    assert str(caught.value).startswith(f"stdin: line 2, column 9: run.seed: {text} is a number or true or false in")
    quoted = read_document(f"run:\n  seed: '{text}'\n".encode(), "stdin")
    refuse_doubtful(quoted)
    assert quoted == {"run": {"seed": text}}


BROKEN = {
    "repeated key": (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' occurs twice; it is at line 1, column 1"),
    "open list": (b"a: [1", "broken YAML at line 2, column 1"),
    "tab": (b"a:\n\tb: 1", "broken YAML at line 2, column 1"),
    "two documents": (b"a: 1\n---\nb: 2", "broken YAML at line 2, column 1"),
    "list": (b"---\n- 1\n- 2", "must be an object, not a list"),
    "round": (b"a: &x [*x]", "line 1, column 4: a.0: contains itself by its aliases"),
    "code": (b"a: !!python/object:os.system x", "line 1, column 4: a: the tag !!python/object:os.system is not known"),
    "binary": (b"a: \x01", "broken YAML at line 1: a character that YAML does not allow"),
    "a key that is a list": (b"a: 1\n? [1]\n: 2", "line 2, column 3: a key must be a text"),
    "merge of a text": (b"<<: x", "line 1, column 5: <<: merges objects only"),
    "laughs": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("i"))
        ),
        "has more than 200,000 values",
    ),
    "deep": (b"a: " + b"[" * 20_000, "nest"),  # libyaml has a limit of its own, newer than the oldest that is admitted
    "rather deep": (b"a: " + b"[" * 300 + b"]" * 300, "line 1, column 203: nests more than 200 levels deep"),
    "TOML twice": (b"[a]\nb = 1\nb = 2\n", "broken TOML at line 3, column 6: Cannot overwrite a value"),
    "TOML inf": (b"a = 1\nb = inf\n", "line 2: inf is not a number in JSON"),
    "TOML": (b"a = 1\nb = \n", "broken TOML at line 2, column 5"),
    "UTF-16": ("a: 1".encode("utf-16"), "must be UTF-8 text"),
    "long number": (b"a: " + b"1" * 5000, "line 1, column 4: a: a number has too many digits"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_errors_name_line_and_column(name):
    body, text = BROKEN[name]
    with pytest.raises(SerializationError) as caught:
        read_document(body, "stdin")
    assert str(caught.value).startswith("stdin: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), VALUES))
def test_json_is_read_alike_as_yaml(document):
    """JSON is YAML: what json.dumps writes has the same values."""
    text = json.dumps(document)
    with contextlib.suppress(SerializationError):  # characters that YAML refuses, even escaped by nobody
        read = read_document(b"# yaml\n" + text.encode(), "stdin")
        refuse_doubtful(read)
        assert json.dumps(read) == text


def test_short_forms_become_long_ones():
    text = "a: !Ref X\nb: !GetAtt A.B.C\nc: !Sub 'x-${Y}'\nd: !If [C, 1, !Ref 'AWS::NoValue']\ne: !Condition Is\n"
    assert read_document(text.encode(), "stdin") == {
        "a": {"Ref": "X"},
        "b": {"Fn::GetAtt": ["A", "B.C"]},
        "c": {"Fn::Sub": "x-${Y}"},
        "d": {"Fn::If": ["C", 1, {"Ref": "AWS::NoValue"}]},
        "e": {"Condition": "Is"},
    }


def test_scenarios_in_yaml_and_toml_are_those_in_json(tmp_path):
    import yaml

    scenario = default_scenario().replace({"horizon_s": "1h"})
    document = scenario.to_dict()
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    toml = tmp_path / "s.toml"
    toml.write_text(as_toml(without_nulls(document)))
    for read in (Scenario.load, Scenario.of):
        assert read(tmp_path / "s.yaml") == scenario
        assert read(toml) == Scenario.from_dict(without_nulls(document))
    assert Scenario.of(tmp_path / "s.yaml", 5.0).traffic.rate_per_s == 5.0


def test_a_doubtful_value_in_a_scenario_names_its_place(tmp_path):
    (tmp_path / "s.yaml").write_text("experiment: {}\nendpoint:\n  routing: off\n")
    for read in (Scenario.load, Scenario.of):
        with pytest.raises(SerializationError, match=r"line 3, column 12: endpoint\.routing: off is "):
            read(tmp_path / "s.yaml")


def test_the_nearest_file_is_suggested(tmp_path):
    (tmp_path / "scenario.yaml").write_text("{}")
    with pytest.raises(InputError, match=r"scenaro\.yaml: there is no such file; did you mean scenario\.yaml\?"):
        read_document(tmp_path / "scenaro.yaml")


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def as_toml(document):
    """Return TOML with an inline table for each key."""

    def inline(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f'"{key}" = {inline(item)}' for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(inline, value)) + "]"
        return json.dumps(value)

    return "\n".join(f"{key} = {inline(value)}" for key, value in document.items())
