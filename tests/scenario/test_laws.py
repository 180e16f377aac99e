import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from shadowsim.engine._kernel import table_tails
from shadowsim.engine.law_tables import law_table, table_moment
from shadowsim.errors import InputError
from shadowsim.scenario.laws import WEIBULL_SCV, Law, parse_law, weibull_scv, weibull_shape

PATH = "services.S.time"


def moments(law: Law) -> tuple[float, float]:
    """Mean and second moment as integrals of the tails over v = exp(-t)/2, by Gauss-Legendre on stretches of t."""
    node, weight = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(0.0, 300.0, 601)
    half = np.diff(edges)[:, np.newaxis] / 2
    t = (edges[:-1, np.newaxis] + half * (1 + node)).ravel()
    v = 0.5 * np.exp(-t)
    dv = (half * weight).ravel() * v
    lower, upper = law.tails(v)
    return math.fsum(dv * (lower + upper)), math.fsum(dv * (lower**2 + upper**2))


def greatest_error(law: Law) -> float:
    """Greatest error of the table between its knots, relative to the quantile or to the mean, whichever is greater."""
    v = np.exp(np.random.default_rng(3).uniform(math.log(1e-9), math.log(0.5), 100_000))
    quantiles = [np.interp(v, table_tails(), half[:-1]) for half in np.split(law_table(law), 2)]
    exact = [half / law.mean for half in law.tails(v)]
    return max((abs(q - e) / np.maximum(e, 1.0)).max() for q, e in zip(quantiles, exact, strict=True))


CLOSED_FORMS = [
    (0.02, 0.02, 0.0),
    ({"law": "deterministic", "mean_s": 3.0}, 3.0, 0.0),
    ({"law": "exponential", "mean_s": 0.5}, 0.5, 1.0),
    ({"law": "lognormal", "mean_s": 0.02, "scv": 0.25}, 0.02, 0.25),
    ({"law": "lognormal", "mean_s": 7.0, "scv": 20.0}, 7.0, 20.0),
    ({"law": "lognormal", "mean_s": 1.0, "scv": 1e-6}, 1.0, 1e-6),
    ({"law": "gamma", "mean_s": 0.02, "scv": 0.25}, 0.02, 0.25),
    ({"law": "gamma", "mean_s": 2.0, "scv": 5.0}, 2.0, 5.0),
    ({"law": "gamma", "shape": 2.0, "scale_s": 0.5}, 1.0, 0.5),
    ({"law": "gamma", "mean_s": 3.0, "scv": 1.0}, 3.0, 1.0),
    ({"law": "weibull", "mean_s": 2.0, "scv": 4.0}, 2.0, 4.0),
    ({"law": "weibull", "mean_s": 0.02, "scv": 1e-6}, 0.02, 1e-6),
    ({"law": "weibull", "mean_s": 1.0, "scv": 100.0}, 1.0, 100.0),
    ({"law": "weibull", "shape": 2.0, "scale_s": 3.0}, 3.0 * math.sqrt(math.pi) / 2, 4 / math.pi - 1),  # Rayleigh
    ({"law": "weibull", "shape": 0.5, "scale_s": 3.0}, 6.0, 5.0),
    ({"law": "pareto", "mean_s": 0.02, "scv": 0.25}, 0.02, 0.25),
    ({"law": "pareto", "mean_s": 2.0, "scv": 1e-6}, 2.0, 1e-6),
    ({"law": "pareto", "shape": 3.0, "minimum_s": 2.0}, 3.0, 1 / 3),
    ({"law": "uniform", "mean_s": 5.0, "scv": 0.01}, 5.0, 0.01),
    ({"law": "uniform", "mean_s": 5.0, "scv": 1 / 3}, 5.0, 1 / 3),
    ({"law": "uniform", "low_s": 1.0, "high_s": 3.0}, 2.0, 1 / 12),
    ({"law": "uniform", "low_s": 0, "high_s": 3.0}, 1.5, 1 / 3),
]


@pytest.mark.parametrize(("block", "mean", "scv"), CLOSED_FORMS)
def test_moments_of_the_tails_are_the_laws(block, mean, scv):
    law = parse_law(block, PATH, "s")
    assert law.mean == pytest.approx(mean, rel=1e-15)
    assert law.scv == pytest.approx(scv, rel=1e-14)
    first, second = moments(law)
    assert first == pytest.approx(mean, rel=1e-9)
    assert second == pytest.approx(mean**2 * (1 + scv), rel=1e-8)


@pytest.mark.parametrize(
    "block",
    [
        {"law": "weibull", "mean_s": 1.0, "scv": 1e-6},
        {"law": "weibull", "mean_s": 0.02, "scv": 0.25},
        {"law": "weibull", "mean_s": 3.0, "scv": 7.0},
        {"law": "weibull", "mean_s": 1.0, "scv": 100.0},
        {"law": "weibull", "shape": 0.7, "scale_s": 2.0},
        {"law": "weibull", "shape": 1000, "scale_s": 2.0},
        {"law": "pareto", "mean_s": 1.0, "scv": 1e-4},
        {"law": "pareto", "mean_s": 1.0, "scv": 0.5},
        {"law": "pareto", "shape": 3.0, "minimum_s": 0.01},
        {"law": "uniform", "mean_s": 0.02, "scv": 1e-4},
        {"law": "uniform", "mean_s": 0.02, "scv": 1 / 3},
        {"law": "uniform", "low_s": 0.0, "high_s": 1.0},
        {"law": "uniform", "low_s": 0.5, "high_s": 1.0},
    ],
)
def test_a_table_of_quantiles_keeps_both_moments(block):
    law = parse_law(block, PATH, "s")
    lower, upper = (half[:-1] for half in np.split(law_table(law), 2))
    assert table_moment(lower, 1) + table_moment(upper, 1) == pytest.approx(1.0, abs=1e-9)
    assert table_moment(lower, 2) + table_moment(upper, 2) == pytest.approx(1.0 + law.scv, rel=1e-4)
    assert greatest_error(law) < 3e-5


@pytest.mark.parametrize("shape", [1.5, 2.0, 2.1, 2.5, 2.65])
def test_a_heavy_pareto_keeps_its_mean_and_lacks_the_documented_part_of_its_second_moment(shape):
    law = parse_law({"law": "pareto", "shape": shape, "minimum_s": 2.0}, PATH, "s")
    assert law.mean == pytest.approx(2.0 * shape / (shape - 1.0), rel=1e-15)
    lower, upper = (half[:-1] for half in np.split(law_table(law), 2))
    assert table_moment(lower, 1) + table_moment(upper, 1) == pytest.approx(1.0, abs=1e-9)
    assert greatest_error(law) < 3e-5
    if shape <= 2.0:
        assert law.scv == math.inf
    else:
        lacks = 1.0 - (table_moment(lower, 2) + table_moment(upper, 2)) / (1.0 + law.scv)
        assert lacks == pytest.approx(2.0 ** (-54 * (1 - 2 / shape)), rel=0.05)


@settings(deadline=None)
@given(st.floats(math.log(WEIBULL_SCV), math.log(100.0)))
def test_weibull_shape_and_scv_undo_each_other(logarithm):
    scv = math.exp(logarithm)
    shape = weibull_shape(min(max(scv, WEIBULL_SCV), 100.0))
    assert weibull_scv(shape) == pytest.approx(scv, rel=1e-8)
    assert shape == float(f"{shape:.10g}")


def test_weibull_of_scv_one_is_the_exponential():
    v = 0.5 * 2.0 ** -np.arange(54.0)
    weibull = parse_law({"law": "weibull", "mean_s": 3.0, "scv": 1.0}, PATH, "s")
    assert weibull.form == 1.0
    exponential = parse_law({"law": "exponential", "mean_s": 3.0}, PATH, "s")
    np.testing.assert_allclose(weibull.tails(v), exponential.tails(v), rtol=1e-14)


@pytest.mark.parametrize(
    ("block", "survival"),
    [
        ({"law": "weibull", "shape": 0.5, "scale_s": 2.0}, lambda x: math.exp(-math.sqrt(x / 2.0))),
        ({"law": "pareto", "shape": 3.0, "minimum_s": 2.0}, lambda x: (2.0 / x) ** 3),
        ({"law": "uniform", "low_s": 1.0, "high_s": 5.0}, lambda x: (5.0 - x) / 4.0),
    ],
)
def test_quantiles_are_those_of_the_textbook_from_either_end(block, survival):
    v = np.array([0.5, 0.25, 0.01, 1e-6, 2.0**-40, 2.0**-54])
    lower, upper = parse_law(block, PATH, "s").tails(v)
    far = v > 1e-9 if block["law"] == "uniform" else v > 0.0  # its ends, of the order of 1, swallow a far tail
    assert [survival(x) for x in upper[far]] == pytest.approx(v[far], rel=1e-9)
    near = v > 1e-3
    assert [1.0 - survival(x) for x in lower[near]] == pytest.approx(v[near], rel=1e-12)
    assert (np.diff(lower) <= 0).all()
    assert (np.diff(upper) >= 0).all()


def test_lognormal_quantiles_are_the_normals():
    """Against scipy's. Each is within 7e-16 of z, which is at most 8.3; the roundings around it are four ulps."""
    v = 0.5 * 2.0 ** -np.linspace(0.0, 53.0, 10_001)
    lower, upper = parse_law({"law": "lognormal", "mean_s": 1.0, "scv": math.expm1(1.0)}, PATH, "s").tails(v)
    for tail, z in ((lower, ndtri(v)), (upper, -ndtri(v))):
        np.testing.assert_allclose(np.log(tail) + 0.5, z, rtol=0, atol=8.3 * (2 * 7e-16 + 4 * 2.0**-52))


def test_gamma_of_scv_one_is_the_exponential():
    v = 0.5 * 2.0 ** -np.arange(42.0)
    gamma = parse_law({"law": "gamma", "mean_s": 3.0, "scv": 1.0}, PATH, "s").tails(v)
    exponential = parse_law({"law": "exponential", "mean_s": 3.0}, PATH, "s").tails(v)
    np.testing.assert_allclose(gamma, exponential, rtol=1e-13)


def test_far_upper_tail_is_counted_from_its_own_end():
    v = np.array([2.0**-42])
    for block in ({"law": "exponential", "mean_s": 1.0}, {"law": "gamma", "shape": 1.0, "scale_s": 1.0}):
        # 1 - v rounded to float64 would be off in the fourth digit of v, the sixth of the quantile.
        assert parse_law(block, PATH, "s").tails(v)[1][0] == pytest.approx(42 * math.log(2), rel=1e-14)
    lognormal = parse_law({"law": "lognormal", "mean_s": 1.0, "scv": math.expm1(1.0)}, PATH, "s")
    lower, upper = lognormal.tails(v)
    assert lower[0] * upper[0] == pytest.approx(
        math.exp(-1.0), rel=1e-13
    )  # symmetric about the median in the logarithm
    tail = 0.5 * math.erfc((math.log(upper[0]) + 0.5) / math.sqrt(2))
    assert tail == pytest.approx(v[0], rel=1e-9)


@settings(deadline=None)
@given(st.floats(1e-3, 10), st.floats(1.01, 50))
def test_lognormal_from_two_quantiles_has_them(p50, ratio):
    law = parse_law({"law": "lognormal", "p50_s": p50, "p99_s": p50 * ratio}, PATH, "s")
    assert law.tails(np.array([0.5]))[0][0] == pytest.approx(p50, rel=1e-12)
    assert law.tails(np.array([0.01]))[1][0] == pytest.approx(p50 * ratio, rel=1e-9)


@settings(deadline=None)
@given(
    st.sampled_from(["exponential", "lognormal", "gamma", "weibull", "pareto", "uniform"]),
    st.floats(1e-3, 100),
    st.floats(0.01, 10),
)
def test_tails_are_monotone_and_meet_at_the_median(kind, mean, scv):
    scv = min(scv, {"pareto": 0.5, "uniform": 1 / 3}.get(kind, scv))
    block = {"law": kind, "mean_s": mean} | ({"scv": scv} if kind != "exponential" else {})
    lower, upper = parse_law(block, PATH, "s").tails(0.5 * 2.0 ** -np.arange(54.0))
    assert lower[0] == pytest.approx(upper[0], rel=1e-9)
    assert (np.diff(lower) <= 0).all()
    assert (np.diff(upper) >= 0).all()
    assert (lower >= 0).all()
    assert np.isfinite(upper).all()


def test_empirical_joins_its_points_and_is_flat_outside():
    law = parse_law({"law": "empirical", "quantiles_s": {"0.2": 1.0, "0.5": 2.0, "0.9": 10.0}}, PATH, "s")
    lower, upper = law.tails(np.array([0.5, 0.35, 0.2, 0.1, 1e-9]))
    np.testing.assert_allclose(lower, [2.0, 1.5, 1.0, 1.0, 1.0], rtol=1e-14)
    np.testing.assert_allclose(upper, [2.0, 5.0, 8.0, 10.0, 10.0], rtol=1e-14)
    assert law.mean == pytest.approx(0.2 * 1 + 0.3 * 1.5 + 0.4 * 6 + 0.1 * 10, rel=1e-15)
    second = 0.2 * 1 + 0.3 * (1 + 2 + 4) / 3 + 0.4 * (4 + 20 + 100) / 3 + 0.1 * 100
    assert law.scv == pytest.approx(second / law.mean**2 - 1, rel=1e-12)
    assert parse_law(law.block, PATH, "s") == law


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.001, 100), min_size=2, max_size=40))
def test_sample_quantiles_are_those_of_numpy(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("law") / "sample.csv"
    file.write_text("seconds\n" + "\n".join(map(repr, values)))
    law = parse_law({"law": "empirical", "path": file.name}, PATH, "s", file.parent)
    v = np.array([0.5, 0.25, 0.1, 0.01, 1e-6])
    lower, upper = law.tails(v)
    np.testing.assert_allclose(lower, np.quantile(values, v), rtol=1e-9)
    np.testing.assert_allclose(upper, np.quantile(values, 1 - v), rtol=1e-9)
    fine = np.quantile(values, (np.arange(200_000) + 0.5) / 200_000)
    assert law.mean == pytest.approx(fine.mean(), rel=1e-6)
    assert law.scv == pytest.approx(fine.var() / fine.mean() ** 2, rel=1e-4, abs=1e-9)


def test_sample_with_several_columns_needs_a_name(tmp_path):
    (tmp_path / "s.csv").write_text("name,a,b\nx,1,2\ny,3,5\n")
    block = {"law": "empirical", "path": "s.csv"}
    with pytest.raises(InputError, match=r"services\.S\.time: needs the column .* it has name, a, b"):
        parse_law(block, PATH, "s", tmp_path)
    assert parse_law({**block, "column": "b"}, PATH, "s", tmp_path).mean == 3.5
    with pytest.raises(InputError, match=r"column name, which fails in row 1, got 'x'"):
        parse_law({**block, "column": "name"}, PATH, "s", tmp_path)


def test_linear_adds_its_columns():
    law = parse_law({"law": "linear", "base_s": 0.5, "tokens": 0.25, "bytes": 2.0}, PATH, "s")
    columns = {"tokens": np.array([0.0, 4.0]), "bytes": np.array([1.0, 0.0]), "other": np.zeros(2)}
    assert law.values(columns).tolist() == [2.5, 1.5]
    assert (law.base, dict(law.columns)) == (0.5, {"tokens": 0.25, "bytes": 2.0})
    with pytest.raises(ValueError, match="no quantiles"):
        law.tails(np.array([0.5]))


def test_bytes_by_number_and_by_column():
    assert parse_law(0, "traffic.request_bytes", "bytes").mean == 0.0
    by_column = parse_law("ContextTokens", "traffic.request_bytes", "bytes")
    assert (by_column.kind, by_column.base, dict(by_column.columns)) == ("linear", 0.0, {"ContextTokens": 1.0})
    assert by_column.block == "ContextTokens"
    assert parse_law({"law": "gamma", "mean_bytes": 1000, "scv": 2}, "traffic.request_bytes", "bytes").scv == 2.0
    assert parse_law({"law": "lognormal", "p50_tokens": 90, "p99_tokens": 900}, PATH, "tokens").mean > 90.0
    assert parse_law("ContextTokens", PATH, "tokens").columns == {"ContextTokens": 1.0}


@pytest.mark.parametrize("block", [block for block, _, _ in CLOSED_FORMS])
def test_round_trip_through_json_and_pickle(block):
    law = parse_law(block, PATH, "s")
    assert law.block == block
    assert parse_law(json.loads(json.dumps(law.block)), PATH, "s") == law
    assert pickle.loads(pickle.dumps(law)) == law


@pytest.mark.parametrize(
    ("block", "path", "why"),
    [
        (True, PATH, "finite number > 0"),
        (0, PATH, "> 0"),
        (-1.0, PATH, "> 0"),
        (math.nan, PATH, "finite"),
        (10**400, PATH, "finite"),
        ("0.02", PATH, "object"),
        (None, PATH, "object"),
        ([], PATH, "object"),
        ({}, f"{PATH}.law", "is required"),
        ({"law": 3}, f"{PATH}.law", "one of deterministic"),
        ({"law": "lognornal", "mean_s": 1, "scv": 1}, f"{PATH}.law", "did you mean lognormal"),
        ({"law": "weibull", "mean_s": 1, "scv": 1e-7}, f"{PATH}.scv", ">= 1e-06 and <= 100"),
        ({"law": "weibull", "mean_s": 1, "scv": 101}, f"{PATH}.scv", "<= 100"),
        ({"law": "weibull", "shape": 0.2, "scale_s": 1}, PATH, "scv <= 100 with its shape and scale_s, got 250.99"),
        ({"law": "weibull", "shape": 1e-300, "scale_s": 1}, PATH, "scv <= 100"),
        ({"law": "weibull", "shape": 1001, "scale_s": 1}, f"{PATH}.shape", "> 0 and <= 1000"),
        ({"law": "weibull", "shape": 0.3, "scale_s": 1e308}, PATH, "finite mean"),
        ({"law": "weibull", "shape": 2, "scale_s": 0}, f"{PATH}.scale_s", "> 0"),
        ({"law": "weibull", "shape": 2, "mean_s": 1}, PATH, "takes mean_s with scv, or shape with scale_s"),
        ({"law": "pareto"}, PATH, "not determined: pareto takes mean_s with scv, or shape with minimum_s"),
        ({"law": "pareto", "mean_s": 1, "scv": 0.51}, f"{PATH}.scv", "<= 0.5"),
        ({"law": "pareto", "shape": 1.49, "minimum_s": 1}, f"{PATH}.shape", ">= 1.5"),
        ({"law": "pareto", "shape": 2, "minimum_s": 0}, f"{PATH}.minimum_s", "> 0"),
        ({"law": "pareto", "shape": 2, "minimum_s": 1e308}, PATH, "finite mean > 0 with its shape and minimum_s"),
        ({"law": "pareto", "shape": 2, "minimum_ms": 1}, f"{PATH}.minimum_ms", "did you mean minimum_s"),
        ({"law": "uniform", "mean_s": 1, "scv": 0.34}, f"{PATH}.scv", "<= 0.333333"),
        ({"law": "uniform", "low_s": 1, "high_s": 1}, f"{PATH}.high_s", "> 1"),
        ({"law": "uniform", "low_s": -1, "high_s": 1}, f"{PATH}.low_s", ">= 0"),
        ({"law": "uniform", "low_s": 1, "mean_s": 2}, PATH, "low_s with high_s"),
        ({"law": "exponential", "mean_ms": 20}, f"{PATH}.mean_ms", "did you mean mean_s"),
        ({"law": "exponential", "mean": 20}, f"{PATH}.mean", "did you mean mean_s"),
        ({"law": "exponential", "mean_s": 1, "scv": 1}, PATH, "over-determined"),
        ({"law": "exponential"}, PATH, "not determined"),
        (
            {"law": "lognormal", "mean_s": 1},
            PATH,
            "not determined: lognormal takes mean_s with scv, or p50_s with p99_s",
        ),
        ({"law": "lognormal", "mean_s": 1, "p99_s": 2}, PATH, "not determined"),
        ({"law": "lognormal", "p50_s": 1, "p99_s": 2, "mean_s": 1}, PATH, "over-determined"),
        ({"law": "lognormal", "p50_s": 1, "p99_s": 1}, f"{PATH}.p99_s", "> 1"),
        ({"law": "lognormal", "p50_s": 1, "p99_s": 1e300}, PATH, "scv <= 100"),
        ({"law": "lognormal", "mean_s": 1, "scv": 0}, f"{PATH}.scv", "> 0"),
        ({"law": "gamma", "mean_s": "0.02", "scv": 1}, f"{PATH}.mean_s", "must be seconds"),
        ({"law": "gamma", "mean_s": 1, "scv": 101}, f"{PATH}.scv", "<= 100"),
        ({"law": "gamma", "shape": 1e-9, "scale_s": 1}, PATH, "scv <= 100"),
        ({"law": "gamma", "mean_s": math.inf, "scv": 1}, f"{PATH}.mean_s", "finite"),
        ({"law": "empirical", "quantiles_s": {"0.5": 1}}, f"{PATH}.quantiles_s", "at least two"),
        ({"law": "empirical", "quantiles_s": {"0.5": 1, "p99": 2}}, f"{PATH}.quantiles_s.p99", "probability"),
        ({"law": "empirical", "quantiles_s": {"0.5": 1, "1.5": 2}}, f"{PATH}.quantiles_s.1.5", "probability"),
        ({"law": "empirical", "quantiles_s": {"0.5": 1, "0.9": 0.5}}, f"{PATH}.quantiles_s", "must rise"),
        ({"law": "empirical", "quantiles_s": {"0.5": 1, "0.50": 1}}, f"{PATH}.quantiles_s", "must rise"),
        ({"law": "empirical", "quantiles_s": {"0": 0, "1": 0}}, PATH, "mean > 0"),
        ({"law": "empirical", "quantiles_s": {"0": -1, "1": 0}}, f"{PATH}.quantiles_s.0", ">= 0"),
        ({"law": "empirical", "path": "none.csv"}, f"{PATH}.path", "no file none.csv"),
        ({"law": "empirical", "path": "x", "quantiles_s": {}}, PATH, "over-determined"),
        ({"law": "linear", "base_s": 1}, PATH, "trace column"),
        ({"law": "linear", "tokens": 0}, PATH, "> 0"),
        ({"law": "linear", "tokens": -1}, f"{PATH}.tokens", ">= 0"),
        ({"law": "linear", "base_s": "1", "tokens": 1}, f"{PATH}.base_s", "must be seconds"),
    ],
)
def test_bad_input_names_path_and_constraint(block, path, why):
    with pytest.raises(InputError) as caught:
        parse_law(block, PATH, "s")
    assert caught.value.path == path
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
