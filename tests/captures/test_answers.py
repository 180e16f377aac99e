"""Bodies as values, fields side by side, and fields to ignore."""

import io
import json

import numpy as np
import pytest
from captured import json_payload
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import InputError
from shadowsim.captures.answers import MISSING, Field, Ignored, described, fields_of, value_of
from shadowsim.captures.record import Payload


def npy(array, allow_pickle=False):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return Payload(stream.getvalue(), "application/x-npy")


def fields(source, shadow, *ignore):
    return list(fields_of(source, shadow, Ignored(ignore)))


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (Payload(b'{"a": [1, 2.5]}', "application/json", "JSON"), {"a": [1, 2.5]}),
        (Payload(b'{"a": 1}', "application/json; charset=utf-8"), {"a": 1}),  # no list: in base64
        (Payload(b"1", "application/vnd.model+json"), 1),
        (Payload(b"1", None, "JSON"), 1),
        (Payload(b'{"a": 1}\n\n{"a": 2}\n', "application/jsonlines", "JSON"), [{"a": 1}, {"a": 2}]),
        (Payload(b'{"a": 1}', "application/x-ndjson"), [{"a": 1}]),
        (Payload(b'0.5,"a,b",7\r\n-1e3,,1_0\n', "text/csv"), [{0: 0.5, 1: "a,b", 2: 7}, {0: -1e3, 1: "", 2: "1_0"}]),
        (Payload(b"3", None, "CSV"), [{0: 3}]),
        (Payload(b"{}", "application/octet-stream"), b"{}"),
        (Payload(b"{}", None), b"{}"),
        (Payload(b'{"a": ', "application/json", "JSON"), b'{"a": '),
        (Payload(b"\xff", "text/csv"), b"\xff"),
        (Payload(b"[" * 100_000, "application/json"), b"[" * 100_000),
        (Payload(b"\x93NUMPY\x01\x00", "application/x-npy"), b"\x93NUMPY\x01\x00"),
    ],
)
def test_a_body_is_what_its_type_says(payload, value):
    assert value_of(payload) == value


def test_arrays_are_read_and_pickles_are_not():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(value_of(npy(array)), array)
    pickled = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert value_of(pickled) == pickled.body
    cut = Payload(npy(array).body[:-1], "application/x-npy")
    assert value_of(cut) == cut.body


def test_fields_have_paths_and_places_are_one_field():
    source = {"p": [{"score": 0.5, "x y": None}, {"score": 1}], "only": {"here": 1}}
    shadow = {"p": [{"score": 0.25, "x y": None}], "new": True}
    assert fields(source, shadow) == [
        ("$.p[*].score", 0.5, 0.25),
        ("$.p[*]['x y']", None, None),
        ("$.p[*]", {"score": 1}, MISSING),
        ("$.only", {"here": 1}, MISSING),
        ("$.new", MISSING, True),
    ]
    assert fields([{0: 1, 1: "a"}], [{0: 2, 1: "a"}]) == [("$[*][0]", 1, 2), ("$[*][1]", "a", "a")]
    assert fields({}, []) == [("$", {}, [])]
    assert fields({}, {}) == []
    assert fields(b"a", b"b") == [("$", b"a", b"b")]


def test_long_lists_of_numbers_are_arrays():
    a, b = list(range(20)), [*range(19), 19.5]
    ((path, one, other),) = fields({"p": a}, {"p": b})
    assert path == "$.p[*]"
    np.testing.assert_array_equal(one, a)
    np.testing.assert_array_equal(other, b)
    for odd in (True, "1", None, 10**400, 2**64):
        for one, other in ((odd, odd), (0, odd), (odd, 0)):
            assert fields([*a, one], [*a, other]) == [*(("$[*]", x, x) for x in a), ("$[*]", one, other)]
    assert fields(a, a[:-1])[-2:] == [("$[*]", 18, 18), ("$[*]", 19, MISSING)]


def test_arrays_side_by_side():
    a = np.array([[1, 2], [3, 4]])
    ((path, one, other),) = fields(a, a + 0.5)
    assert path == "$[*][*]"
    np.testing.assert_array_equal(one.ravel(), [1, 2, 3, 4])
    np.testing.assert_array_equal(other.ravel(), [1.5, 2.5, 3.5, 4.5])
    ((_, one, other),) = fields(a, a, "$[*][1]")
    assert (one.tolist(), other.tolist()) == ([1, 3], [1, 3])
    ((_, one, _),) = fields(a, a, "$[0]", "$[7]", "$[*][*][0]", "a")
    assert one.tolist() == [3, 4]
    # What cannot be compared number by number is one thing or two.
    for other in (a[:1], a.astype(str)):
        ((path, one, two),) = fields(a, other)
        assert (path, one is a, two is other) == ("$", True, True)
    for alike in (np.array(["a"], dtype="U1"), np.array([1 + 2j])):
        ((_, one, two),) = fields(alike, alike.copy())
        assert one is two
    ((_, one, two),) = fields(np.array(["a", "b"]), np.array(["a", "bcd"]))
    assert one is not two
    ((_, one, two),) = fields(np.array(["a"], dtype="U1"), np.array(["a"], dtype="U9"))
    assert one is two


leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "y"])
values = st.recursive(
    leaves,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c d", "0"]), v, max_size=3),
    max_leaves=12,
)
STEPS = {"a": ("a", ".a", "['a']"), "c d": ('["c d"]', "['c d']"), "0": ("['0']",), 0: ("[0]",), None: (".*", "[*]")}


@st.composite
def paths(draw):
    """A path's steps and one of its spellings."""
    steps = draw(st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=3))
    text = ""
    for step in steps:
        spelling = draw(st.sampled_from(STEPS[step]))
        text += f".{spelling}" if spelling == "a" and text else spelling
    return tuple(steps), text if text[0] == "a" else f"${text}"


def pruned(value, steps):
    """The oracle: a copy of a value without what a path selects; a place leaves a hole."""
    if not steps or not isinstance(value, list | dict):
        return value
    step, *rest = steps
    children = value.items() if isinstance(value, dict) else enumerate(value)
    kept = {}
    for name, child in children:
        hit = step is None or (step == name and type(step) is type(name))
        if not hit or rest:
            kept[name] = pruned(child, rest) if hit else child
    return kept if isinstance(value, dict) else [kept.get(i, "hole") for i in range(len(value))]


def alike(source, shadow, *ignore):
    return all(type(a) is type(b) and a == b for _, a, b in fields(source, shadow, *ignore))


@given(values, values)
def test_answers_agree_in_all_fields_exactly_when_they_are_one_json(source, shadow):
    assert alike(source, source)
    assert alike(source, shadow) == (json.dumps(source, sort_keys=True) == json.dumps(shadow, sort_keys=True))


@given(values, paths())
def test_an_ignored_field_never_decides(value, path):
    """A value agrees with itself without the field, and with any other value in the field's place."""
    steps, text = path
    assert alike(value, pruned(value, steps), text)
    used = Ignored([text])
    list(fields_of(value, value, used))
    assert (text in used.used) == (pruned(value, steps) != value)


@given(values, values, paths())
def test_what_is_not_ignored_decides(source, shadow, path):
    steps, text = path
    if not any(isinstance(s, int) or s is None for s in steps):  # a hole has no like in a shorter list
        wanted = json.dumps(pruned(source, steps), sort_keys=True) == json.dumps(pruned(shadow, steps), sort_keys=True)
        assert alike(source, shadow, text) == wanted


def test_columns_of_csv_are_ignored_by_number():
    one, other = (value_of(Payload(body, "text/csv")) for body in (b"1,2,3\n4,5,6\n", b"1,9,3\n4,8,6\n"))
    assert not alike(one, other)
    assert alike(one, other, "$[*][1]")
    assert not alike(one, other, "$[0][1]")


@pytest.mark.parametrize(
    "path", ["", "$", "a..b", "$..a", "$.a[", "$a", "a[1:2]", "a[-1]", "$.1a", "a b", "$.a[?(@.b)]"]
)
def test_other_paths_are_refused(path):
    with pytest.raises(InputError, match=r"ignore: must .* got '"):
        Ignored([path])


def test_values_are_shown_short():
    assert described(MISSING) == "nothing"
    assert described("a\nb") == r"'a\nb'"
    assert described(json_payload({"a": 1}).body) == """'{"a": 1}'"""
    assert described(b"\xff" * 20) == f"20 bytes, {'ff' * 16}..."
    assert described(np.arange(9.0)) == "float64 array of shape (9,): 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, ..."
    assert described([1, None]) == "[1, null]"
    assert Field("$", 1, 2)._fields == ("path", "source", "shadow")
