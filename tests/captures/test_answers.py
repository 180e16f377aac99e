"""Checks the parsing of bodies, the fields of two answers, fields to ignore, and differences."""

import io
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from captured import json_payload
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import InputError
from shadowsim.captures.answers import (
    MAX_FIELDS,
    MISSING,
    OTHERS,
    QUANTILES,
    Differences,
    Field,
    IgnoredFields,
    fields_of,
    value_text,
    values_of,
)
from shadowsim.captures.record import CapturedPayload


def npy(array, allow_pickle=False):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return CapturedPayload(stream.getvalue(), "application/x-npy")


def value_of(payload, form="auto"):
    """Return the value of a body beside itself."""
    value, other = values_of(payload, payload, form)
    assert type(value) is type(other)
    return value


def body_of(text, content_type=None, encoding="BASE64"):
    return CapturedPayload(text.encode(), content_type, encoding)


def fields(source, shadow, *ignore):
    return list(fields_of(source, shadow, IgnoredFields(ignore)))


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (CapturedPayload(b'{"a": [1, 2.5]}', "application/json", "JSON"), {"a": [1, 2.5]}),
        (CapturedPayload(b'{"a": 1}', "application/json; charset=utf-8"), {"a": 1}),  # no list: in base64
        (CapturedPayload(b"1", "application/vnd.model+json"), 1),
        (CapturedPayload(b"1", None, "JSON"), 1),
        (CapturedPayload(b'{"a": 1}\n\n{"a": 2}\n', "application/jsonlines", "JSON"), [{"a": 1}, {"a": 2}]),
        (CapturedPayload(b'{"a": 1}', "application/x-ndjson"), [{"a": 1}]),
        (
            CapturedPayload(b'0.5,"a,b",7\r\n-1e3,,1_0\n', "text/csv"),
            [{0: 0.5, 1: "a,b", 2: 7}, {0: -1e3, 1: "", 2: "1_0"}],
        ),
        (CapturedPayload(b"3", None, "CSV"), [{0: 3}]),
        (CapturedPayload(b'{"a": 1}', "application/octet-stream"), {"a": 1}),
        (CapturedPayload(b'{"a": 1}', "text/html; charset=utf-8"), {"a": 1}),
        (CapturedPayload(b'{"a": 1}\n{"a": 2}', "text/plain"), [{"a": 1}, {"a": 2}]),
        (CapturedPayload(b"[0.5, 1]\n", "text/csv", "CSV"), [0.5, 1]),
        (CapturedPayload(b"0.5\n", None), 0.5),
        (CapturedPayload(b"\xef\xbb\xbf[1]", None), [1]),
        (CapturedPayload(b"1,0.5,a\n2,.5,b\n", None), [{0: 1, 1: 0.5, 2: "a"}, {0: 2, 1: 0.5, 2: "b"}]),
        (CapturedPayload(b"1,2", "application/json", "JSON"), [{0: 1, 1: 2}]),
        (CapturedPayload(b"Hello, world", "text/plain"), b"Hello, world"),
        (CapturedPayload(b"one\n2\n", "text/plain"), b"one\n2\n"),
        (CapturedPayload(b"1,2\n3\n", "text/plain"), b"1,2\n3\n"),
        (CapturedPayload(b"nan", "text/plain"), b"nan"),
        (CapturedPayload(b"", "text/plain"), b""),
        (CapturedPayload(b" \n", "application/jsonlines"), b" \n"),
        (CapturedPayload(b'{"a": ', "application/json", "JSON"), b'{"a": '),
        (CapturedPayload(b"\xff", "text/csv"), b"\xff"),
        (CapturedPayload(b"[" * 100_000, "application/json"), b"[" * 100_000),
        (CapturedPayload(b"\x93NUMPY\x01\x00", "application/x-npy"), b"\x93NUMPY\x01\x00"),
    ],
)
def test_a_body_is_what_its_contents_and_its_type_say(payload, value):
    assert value_of(payload) == value


LABELS = ("application/json", "text/html; charset=utf-8", "text/plain", "application/octet-stream", "text/csv", None)


@pytest.mark.parametrize("labels", [(a, b) for a in LABELS for b in LABELS], ids=str)
def test_labels_do_not_hide_values(labels):
    for texts, values in (
        (('{"v": [0.5]}', '{"v":[0.50]}'), ({"v": [0.5]}, {"v": [0.5]})),
        (("0.5,a\n", "0.50,b"), ([{0: 0.5, 1: "a"}], [{0: 0.5, 1: "b"}])),
    ):
        assert values_of(*map(body_of, texts, labels)) == values


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (('{"v": 1}', "Internal error"), "auto"),  # one side parses
        (("1,2", "1,2,3"), "auto"),
        (("1,2", "1,b"), "auto"),
        (("1,2", "1,2\n3,4"), "auto"),
        (("1,2", "1,2"), "json"),
        (("[1]", "[1]"), "bytes"),
        (("[" + "1" * 5000 + "]", "[1]"), "auto"),  # more digits than Python converts
    ],
)
def test_bodies_without_a_common_format_are_bytes(texts, form):
    assert values_of(*map(body_of, texts), form) == tuple(text.encode() for text in texts)


def test_a_format_can_be_forced():
    assert values_of(body_of("1"), body_of("2,b"), "csv") == ([{0: 1}], [{0: 2, 1: "b"}])
    assert value_of(body_of("3", "text/csv", "CSV"), "json") == 3
    assert value_of(body_of("1\n2", "text/csv", "CSV"), "json") == [1, 2]
    assert value_of(body_of("[1", "application/json", "JSON"), "csv") == [{0: "[1"}]
    assert value_of(npy(np.arange(3)), "bytes") == npy(np.arange(3)).body
    labelled = body_of("1,2", "text/csv"), body_of("1,2,3", "text/csv")
    assert values_of(*labelled) == ([{0: 1, 1: 2}], [{0: 1, 1: 2, 2: 3}])


def test_huge_bodies_are_not_parsed(monkeypatch):
    monkeypatch.setattr("shadowsim.captures.answers.MAX_PARSED_BYTES", 5)
    assert value_of(body_of("[1,2]")) == [1, 2]
    assert value_of(body_of("[1, 2]")) == b"[1, 2]"


def test_cells_beyond_floats_are_texts():
    digits = "9" * 5000
    assert value_of(body_of(f"1e400,inf,{digits}", "text/csv")) == [{0: "1e400", 1: math.inf, 2: digits}]


def test_arrays_are_read_and_pickles_are_not():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(value_of(npy(array)), array)
    pickled = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert value_of(pickled) == pickled.body
    cut = CapturedPayload(npy(array).body[:-1], "application/x-npy")
    assert value_of(cut) == cut.body
    unlabelled = CapturedPayload(npy(array).body)
    np.testing.assert_array_equal(value_of(unlabelled), array)


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
    for odd in (True, "1", None, 10**400, 2**64, 2**53 + 1):
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
    used = IgnoredFields([text])
    list(fields_of(value, value, used))
    assert (text in used.used) == (pruned(value, steps) != value)


@given(values, values, paths())
def test_what_is_not_ignored_decides(source, shadow, path):
    steps, text = path
    if not any(isinstance(s, int) or s is None for s in steps):  # a hole has no like in a shorter list
        wanted = json.dumps(pruned(source, steps), sort_keys=True) == json.dumps(pruned(shadow, steps), sort_keys=True)
        assert alike(source, shadow, text) == wanted


def test_columns_of_csv_are_ignored_by_number():
    one, other = (value_of(CapturedPayload(body, "text/csv")) for body in (b"1,2,3\n4,5,6\n", b"1,9,3\n4,8,6\n"))
    assert not alike(one, other)
    assert alike(one, other, "$[*][1]")
    assert not alike(one, other, "$[0][1]")


@pytest.mark.parametrize(
    "path", ["", "$", "a..b", "$..a", "$.a[", "$a", "a[1:2]", "a[-1]", "$.1a", "a b", "$.a[?(@.b)]"]
)
def test_other_paths_are_refused(path):
    with pytest.raises(InputError, match=r"ignore: must .* got '"):
        IgnoredFields([path])


def test_values_are_shown_short():
    assert value_text(MISSING) == "nothing"
    assert value_text("a\nb") == r"'a\nb'"
    assert value_text(json_payload({"a": 1}).body) == """'{"a": 1}'"""
    assert value_text(b"\xff" * 20) == f"20 bytes, {'ff' * 16}..."
    assert value_text(np.arange(9.0)) == "float64 array of shape (9,): 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, ..."
    assert value_text([1, None]) == "[1, null]"
    assert Field("$", 1, 2)._fields == ("path", "source", "shadow")


# Half the width of a bucket of 128 to a factor of two, relative to its lower edge.
HALF_BUCKET = 0.5 / 128


def difference(source, shadow, rtol=0.0, atol=0.0):
    """The sentence on a single pair, and the row of its only field."""
    differences = Differences(rtol, atol)
    why = differences.add([Field("$.x", source, shadow)])
    return why, differences.frame().iloc[0]


@pytest.mark.parametrize(
    ("source", "shadow", "agree"),
    [
        (1, 1.0, True),
        (0.0, -0.0, True),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (2**53, 2**53 + 1, False),
        (2**53 + 1, 2.0**53, False),
        (2.0**53, 2**53, True),
        (2**60, 2.0**60, True),
        (10**400, 10**400 + 1, False),
        (10**400, math.inf, False),
        (10**400, 10**400, True),
        (10**400, -(10**400), False),
        (10**400, 1.0, False),
        (math.inf, -math.inf, False),
        (math.nan, 1.0, False),
        (1e308, -1e308, False),
        ("a", "a", True),
        ("1", 1, False),
        (True, 1, False),
        (True, True, True),
        (None, None, True),
        (None, MISSING, False),
        ({"a": 1}, MISSING, False),
        ({}, [], False),
        (b"a", b"a", True),
        (b"a", b"b", False),
        (np.arange(3.0), [0.0, 1.0, 2.0], False),
        (np.arange(3.0), np.arange(4.0), False),
        (np.array(["a"]), np.array(["b"]), False),
        (np.array([2**53]), np.array([2**53 + 1]), False),
        (np.array([2**53 + 1]), np.array([2.0**53]), False),
        (np.array([2**63 - 1]), np.array([2**63], dtype=np.uint64), False),
        (np.array([-(2**63)]), np.array([-(2.0**63)]), True),
        (np.array([2**63], dtype=np.uint64), np.array([math.inf]), False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_equal_or_not(source, shadow, agree):
    why, row = difference(source, shadow)
    assert (why == "") == agree
    assert (row["n_values"], row["n_unequal"], row["n_pairs_unequal"]) == (1, not agree, not agree)
    if not agree:
        assert why.startswith("$.x: source ")
        assert ", shadow " in why
    if isinstance(source, float | int) and isinstance(shadow, float | int):
        arrays = [np.array([x]) for x in (source, shadow)]
        if all(a.dtype.kind in "iuf" for a in arrays):  # an array of numbers says the same
            why, row = difference(*arrays)
            assert ((why == ""), row["n_unequal"]) == (agree, not agree)


# Far enough from the bound that rounding of source + distance cannot decide.
@given(
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, 1e-6, 0.1]),
    st.sampled_from([0.0, 1e-3, 2.0]),
    st.sampled_from([0.5, 2.0]),
    st.booleans(),
)
def test_the_tolerance_is_numpys_with_the_source_for_reference(source, rtol, atol, times, below):
    limit = atol + rtol * abs(source)
    shadow = source + (-1 if below else 1) * times * limit
    wanted = bool(np.isclose(shadow, source, rtol=rtol, atol=atol))
    for pair in ((source, shadow), (np.array([source]), np.array([shadow]))):
        why, _ = difference(*pair, rtol, atol)
        assert (why == "") == wanted


def test_a_tolerance_never_covers_what_is_not_finite():
    for source, shadow in ((math.inf, 1.0), (1.0, math.inf), (math.nan, 1.0), (math.inf, -math.inf), (10**400, 1)):
        assert difference(source, shadow, rtol=0.5, atol=1e300)[0]
    assert difference(np.array([np.inf, 1.0]), np.array([1.0, np.inf]), 0.5, 1e300)[1]["n_unequal"] == 2


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize(
    ("source", "shadow", "difference"),
    [
        (12345678901234567890, 12345678901234567990, 100),
        (9007199254740993, 9007199254740992.0, -1),
        (2.0**60, 2**60 + 3, 3),
        (2**63, 2**53 + 1, 2**53 + 1 - 2**63),
        (-(2**63), 2**63 - 1, 2**64 - 1),
    ],
)
def test_integers_are_subtracted_exactly(source, shadow, difference, as_array):
    pair = (source, shadow)
    if as_array:
        pair = tuple(np.array([x, 1], dtype=np.uint64 if x >= 2**63 else None) for x in pair)
    differences = Differences(0.0, 0.0)
    assert differences.add([Field("$.x", *pair)]) == f"$.x: source {source}, shadow {shadow}"
    row = differences.frame().iloc[0]
    n = 1 + as_array
    assert (row["n_values"], row["n_unequal"], row["n_numbers"]) == (n, 1, n)
    assert (row["bias"] * n, row["abs_max"]) == (float(difference), float(abs(difference)))
    assert row["relative_max"] == abs(difference) / abs(int(source))


huge = st.integers(-(10**40), 10**40) | st.integers(2**53 - 3, 2**53 + 3) | st.floats(-1e20, 1e20)


@given(huge, huge | st.none(), st.sampled_from([0.0, 1e-17, 0.5]), st.sampled_from([0.0, 3.0]))
def test_huge_numbers_are_compared_as_fractions(source, shadow, rtol, atol):
    shadow = source + 1 if shadow is None else shadow
    a, b = Fraction(source), Fraction(shadow)
    why, row = difference(source, shadow, rtol, atol)
    assert row["abs_max"] == pytest.approx(float(abs(b - a)), rel=1e-15)
    if isinstance(source, int) or isinstance(shadow, int):
        assert (why == "") == (abs(b - a) <= Fraction(atol) + Fraction(rtol) * abs(a)) or max(abs(a), abs(b)) <= 2**53


def test_far_beyond_floats_differences_are_still_numbers():
    for shadow, absolute, relative in ((10**400 + 100, 100.0, 0.0), (3 * 10**400, math.inf, 2.0), (7, math.inf, 1.0)):
        row = difference(10**400, shadow)[1]
        assert (row["n_numbers"], row["abs_max"], row["relative_max"]) == (1, absolute, relative)
    assert difference(10**400, 10**400 + 100, rtol=1e-300)[0] == ""


numbers = st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]) | st.integers(-5, 5)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=60), st.booleans())
def test_figures_are_those_of_all_differences(pairs, as_array):
    differences = Differences(0.0, 0.0)
    source, shadow = np.array(pairs, dtype=np.float64).T
    if as_array:
        differences.add([Field("$.x", source, shadow)])
    else:
        for a, b in pairs:
            differences.add([Field("$.x", a, b)])
    row = differences.frame().iloc[0]
    same = (source == shadow) | (np.isnan(source) & np.isnan(shadow))
    assert row["n_values"] == len(pairs)
    assert row["n_unequal"] == (~same).sum()
    assert row["n_pairs_unequal"] == (int(not same.all()) if as_array else (~same).sum())
    finite = np.isfinite(source) & np.isfinite(shadow)
    assert row["n_numbers"] == finite.sum()
    if not finite.any():
        assert row[["bias", "abs_mean", "abs_p50", "abs_max", "relative_p99"]].isna().all()
        return
    signed = shadow[finite] - source[finite]
    apart = np.abs(signed)
    # Sums of 60 numbers below 2e9, each rounded to 53 bits.
    assert row["bias"] == pytest.approx(signed.mean(), rel=1e-12, abs=60 * 2e9 * 2**-52)
    with np.errstate(all="ignore"):
        relative = np.where(apart == 0.0, 0.0, apart / np.abs(source[finite]))
    for name, exact in (("abs", apart), ("relative", relative)):
        assert row[f"{name}_max"] == exact.max()
        assert row[f"{name}_mean"] == pytest.approx(exact.mean(), rel=1e-12)
        for p, q in QUANTILES.items():
            wanted = np.quantile(exact, q, method="inverted_cdf")
            # A number below 2^-1022 is not normal: the first buckets are wider.
            assert row[f"{name}_{p}"] == pytest.approx(wanted, rel=HALF_BUCKET, abs=2**-1022)


def test_many_numbers_are_counted_as_they_come():
    """More numbers than wait to be counted together, and what is held does not grow with them."""
    rng = np.random.default_rng(5)
    n = 20_000
    source, noise = rng.uniform(1, 2, n), rng.normal(0, 1e-3, n)
    differences = Differences(0.0, 1e-3)
    pairs = zip(source.tolist(), (source + noise).tolist(), strict=True)
    n_unequal = sum(differences.add([Field("$.x", a, b)]) != "" for a, b in pairs)
    row = differences.frame().iloc[0]
    apart = np.abs(source + noise - source)
    assert row["n_unequal"] == n_unequal == (apart > 1e-3).sum()
    assert row["abs_p99"] == pytest.approx(np.quantile(apart, 0.99, method="inverted_cdf"), rel=HALF_BUCKET)
    (field,) = differences._fields.values()
    assert len(field.waiting) < 4096
    # From the greatest difference down to a millionth of the scale there are some 22 factors of two.
    assert len(field.absolute.buckets) < 22 * 128


def test_a_pair_counts_once_however_many_places_disagree():
    differences = Differences(0.0, 0.0)
    why = differences.add([Field("$[*]", 1, 2), Field("$[*]", 3, 4), Field("$.b", "x", "x")])
    assert why == "$[*]: source 1, shadow 2"
    assert differences.add([Field("$[*]", 1, 1)]) == ""
    frame = differences.frame()
    assert frame["path"].tolist() == ["$[*]", "$.b"]
    assert frame["n_values"].tolist() == [3, 1]
    assert frame["n_unequal"].tolist() == [2, 0]
    assert frame["n_pairs_unequal"].tolist() == [1, 0]
    assert frame["n_numbers"].tolist() == [3, 0]
    assert math.isnan(frame["bias"][1])


def test_the_first_unequal_numbers_of_an_array_are_shown():
    assert difference(np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]]))[0] == "$.x: source 2.0, shadow 2.5"


def test_fields_beyond_a_number_are_one():
    differences = Differences(0.0, 0.0)
    n = 3 * MAX_FIELDS
    for _ in range(2):
        differences.add([Field(f"$.k{i}", i, i + 1) for i in range(n)])
    frame = differences.frame()
    assert len(frame) == MAX_FIELDS + 1
    last = frame.iloc[-1]
    assert last["path"] == OTHERS
    assert (last["n_values"], last["n_unequal"], last["n_pairs_unequal"]) == (2 * (n - MAX_FIELDS),) * 2 + (2,)


def test_no_pairs_no_rows():
    frame = Differences(0.0, 0.0).frame()
    assert frame.empty
    assert list(frame)[:4] == ["path", "n_values", "n_unequal", "n_pairs_unequal"]
    assert (frame["n_values"].dtype, frame["bias"].dtype) == ("int64", "float64")
