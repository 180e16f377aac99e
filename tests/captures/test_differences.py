"""Differences of numbers: tolerance, bias, quantiles, and memory that does not grow with the pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.captures.answers import MISSING, Field
from shadowsim.captures.differences import MAX_FIELDS, OTHERS, QUANTILES, Differences

# Half the width of a bucket of 128 to a factor of two, relative to its lower edge.
HALF_BUCKET = 0.5 / 128


def one(source, shadow, rtol=0.0, atol=0.0):
    """What is said of a single pair, and the row of its only field."""
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
    ],
    ids=lambda value: str(value)[:20],
)
def test_equal_or_not(source, shadow, agree):
    why, row = one(source, shadow)
    assert (why == "") == agree
    assert (row["n_values"], row["n_unequal"], row["n_pairs_unequal"]) == (1, not agree, not agree)
    if not agree:
        assert why.startswith("$.x: source ")
        assert ", shadow " in why
    if isinstance(source, float | int) and isinstance(shadow, float | int):
        arrays = [np.array([x]) for x in (source, shadow)]
        if all(a.dtype.kind in "iuf" for a in arrays):  # an array of numbers says the same
            why, row = one(*arrays)
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
        why, _ = one(*pair, rtol, atol)
        assert (why == "") == wanted


def test_a_tolerance_never_covers_what_is_not_finite():
    for source, shadow in ((math.inf, 1.0), (1.0, math.inf), (math.nan, 1.0), (math.inf, -math.inf), (10**400, 1)):
        assert one(source, shadow, rtol=0.5, atol=1e300)[0]
    assert one(np.array([np.inf, 1.0]), np.array([1.0, np.inf]), 0.5, 1e300)[1]["n_unequal"] == 2


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
    (known,) = differences._fields.values()
    assert len(known.waiting) < 4096
    # From the greatest difference down to a millionth of the scale there are some 22 factors of two.
    assert len(known.absolute.buckets) < 22 * 128


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
    assert one(np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]]))[0] == "$.x: source 2.0, shadow 2.5"


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
