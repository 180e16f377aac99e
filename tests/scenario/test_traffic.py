import json
import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.scenario.rates import HALF_HOURS
from shadowsim.scenario.traffic import parse_traffic

DAY = 86_400.0
DIURNAL = {"kind": "diurnal", "base_per_s": 160.0, "peak_per_s": 640.0}
SPIKES = {
    "kind": "spikes",
    "base_per_s": 2.0,
    "spikes": [{"at_s": 10, "for_s": 5, "factor": 3}, {"at_s": 15, "for_s": 1, "rate_per_s": 0}],
}


def rated(profile, **keys):
    return parse_traffic({"process": "poisson", "profile": profile, **keys})


def integral(time, rate):
    return float(np.sum(np.diff(time) * (rate[1:] + rate[:-1]) / 2))


def at(knots, t):
    """The rate at a time without a knot."""
    return float(np.interp(t, *knots))


def test_flat_rate():
    traffic = parse_traffic({"process": "constant", "rate_per_s": 5})
    time, rate = traffic.knots(100.0)
    assert (time.tolist(), rate.tolist()) == ([0.0, 100.0], [5.0, 5.0])
    assert traffic.mean_rate(100.0) == 5.0


def test_steps_jump_with_two_knots_and_end_within_any_horizon():
    traffic = rated({"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 1}, {"from_s": 10, "rate_per_s": 3}]})
    for horizon, time, rate in [
        (20.0, [0, 10, 10, 20], [1, 1, 3, 3]),
        (10.0, [0, 10], [1, 1]),
        (4.0, [0, 4], [1, 1]),
    ]:
        knots = traffic.knots(horizon)
        assert (knots[0].tolist(), knots[1].tolist()) == (time, rate)


def test_linear_ramp_holds_before_and_after():
    knots = rated({"kind": "linear", "from_per_s": 1, "to_per_s": 5, "from_s": 10, "to_s": 30}).knots(40.0)
    assert [at(knots, t) for t in (5, 10, 20, 25, 30, 39)] == [1, 1, 3, 4, 5, 5]
    assert integral(*knots) == pytest.approx(10 + 60 + 50, rel=1e-15)
    cut = rated({"kind": "linear", "from_per_s": 0, "to_per_s": 4, "to_s": 40}).knots(10.0)
    assert (cut[0].tolist(), cut[1].tolist()) == ([0, 10], [0, 1])


def test_spikes_that_touch_share_one_jump():
    time, rate = rated(SPIKES).knots(20.0)
    assert time.tolist() == [0, 10, 10, 15, 15, 16, 16, 20]
    assert rate.tolist() == [2, 2, 6, 6, 0, 0, 2, 2]
    first = rated({**SPIKES, "spikes": [{"at_s": 0, "for_s": 5, "factor": 3}]}).knots(5.0)
    assert (first[0].tolist(), first[1].tolist()) == ([0, 5], [6, 6])


def test_diurnal_has_its_peak_base_and_mean():
    time, rate = rated(DIURNAL).knots(DAY)
    assert len(time) == 49
    assert rate[30] == 640.0  # 15:00
    assert rate[6] == 160.0  # 03:00
    assert rate[0] == rate[48]
    assert rate.max() == 640.0
    assert rate.min() == 160.0
    assert integral(time, rate) / DAY == pytest.approx(400.0, rel=1e-15)
    assert rate[24] == pytest.approx(160 + 480 * (1 + math.cos(math.pi / 4)) / 2, abs=480e-9)  # 12:00


def test_diurnal_values_cannot_show_the_last_bit_of_libm():
    for i, value in enumerate(HALF_HOURS):
        cosine = Fraction(math.cos(math.pi * i / 24)) * 10**9
        # Distance from the nearest half-integer, where rounding to nine decimals would turn.
        assert abs((cosine - Fraction(1, 2)) % 1 - Fraction(1, 2)) < Fraction(1, 2) - Fraction(1, 1000)
        assert abs(2 * value - 1 - float(cosine) * 1e-9) < 0.51e-9
    assert np.array_equal(HALF_HOURS[:24] + HALF_HOURS[24:], np.ones(24))


def test_diurnal_begins_at_any_clock_time():
    two_days = rated(DIURNAL).knots(2 * DAY)
    for start in (datetime(2026, 3, 2, 9, 0, tzinfo=UTC), datetime(2026, 3, 2, 23, 59, 59, 250_000)):
        offset = (start.replace(tzinfo=None) - datetime(2026, 3, 2)).total_seconds()
        time, rate = rated(DIURNAL).knots(DAY, start)
        assert (time[0], time[-1]) == (0.0, DAY)
        np.testing.assert_allclose(rate, np.interp(time + offset, *two_days), rtol=1e-12)
    berlin = datetime(2026, 3, 2, 10, 0, tzinfo=timezone(timedelta(hours=1)))
    same = rated(DIURNAL).knots(DAY, datetime(2026, 3, 2, 9, 0, tzinfo=UTC))
    assert np.array_equal(rated(DIURNAL).knots(DAY, berlin), same)


def test_weekend_is_that_of_the_start_or_of_a_monday():
    profile = {"kind": "diurnal", "base_per_s": 100.0, "peak_per_s": 100.0, "weekend_factor": 0.5}
    week = rated(profile).knots(7 * DAY)
    assert [at(week, (day + 0.5) * DAY) for day in range(7)] == [100] * 5 + [50] * 2
    jumps = week[0][1:][np.diff(week[0]) == 0]
    assert jumps.tolist() == [5 * DAY]  # the other one is at the end of the horizon, and so none
    saturday = datetime(2026, 3, 7, 12, 0, tzinfo=UTC)
    time, rate = rated(profile).knots(3 * DAY, saturday)
    assert [at((time, rate), d * DAY) for d in (0.25, 1.25, 1.75, 2.75)] == [50, 50, 100, 100]
    assert time[1:][np.diff(time) == 0].tolist() == [1.5 * DAY]
    assert rated(profile).mean_rate(7 * DAY) == pytest.approx((5 * 100 + 2 * 50) / 7, rel=1e-15)


PROFILES = st.one_of(
    st.just(SPIKES),
    st.just({"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 1}, {"from_s": 1000.5, "rate_per_s": 3}]}),
    st.just({"kind": "linear", "from_per_s": 1, "to_per_s": 0, "from_s": 5, "to_s": 7777}),
    st.builds(
        lambda hour, factor: {**DIURNAL, "peak_hour": hour / 2, "weekend_factor": factor},
        st.integers(0, 47),
        st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    ),
)


@settings(deadline=None)
@given(PROFILES, st.floats(0.01, 20 * DAY), st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_knots_cover_exactly_the_horizon(profile, horizon, start):
    time, rate = rated(profile).knots(horizon, start)
    assert (time[0], time[-1]) == (0.0, horizon)
    assert (np.diff(time) >= 0).all()
    assert (rate >= 0).all()
    assert np.isfinite(rate).all()
    assert time[1] > 0.0
    assert time[-2] < horizon
    assert not ((np.diff(time[:-1]) == 0) & (np.diff(time[1:]) == 0)).any()  # at most two at one time


@settings(deadline=None)
@given(PROFILES, st.floats(1.0, 1e6), st.floats(DAY, 10 * DAY))
def test_a_rate_beside_a_profile_is_the_mean_over_the_horizon(profile, rate, horizon):
    scaled = rated(profile, rate_per_s=rate)
    assert scaled.mean_rate(horizon) == pytest.approx(rate, rel=1e-12)
    plain = rated(profile).knots(horizon)
    ratio = scaled.knots(horizon)[1] / np.where(plain[1] > 0, plain[1], 1)
    np.testing.assert_allclose(ratio[plain[1] > 0], ratio.max(), rtol=1e-12)


def test_round_trip_through_json_and_pickle():
    block = {"process": "poisson", "profile": DIURNAL, "rate_per_s": None, "request_bytes": 1024}
    traffic = parse_traffic(block)
    assert traffic.block == block
    assert parse_traffic(json.loads(json.dumps(traffic.block))) == traffic
    assert pickle.loads(pickle.dumps(traffic)) == traffic
    assert traffic.request_bytes.mean == 1024.0
    assert traffic.response_bytes is None


def flat(**keys):
    return {"process": "poisson", "rate_per_s": 1, **keys}


def gamma(**keys):
    return {"process": "gamma", "rate_per_s": 10, **keys}


def mmpp(**keys):
    return {"process": "mmpp", "rates_per_s": [4, 60], "mean_sojourn_s": [9, 3], **keys}


def profiled(kind, **keys):
    return {"process": "poisson", "profile": {"kind": kind, **keys}}


@pytest.mark.parametrize(
    ("block", "path", "why"),
    [
        ([], "traffic", "list of 1 to 100"),
        ([flat()] * 101, "traffic", "list of 1 to 100"),
        ([flat(), 5], "traffic.1", "object"),
        ([[flat()]], "traffic.0", "object"),
        ([flat(), flat(rate=3)], "traffic.1.rate", "did you mean rate_per_s"),
        ([flat(), flat(request_bytes=3)], "traffic.1.request_bytes", "must be the same in every block"),
        ([flat(sessions=3), flat()], "traffic.1.sessions", "must be the same in every block"),
        ([flat(request_bytes=-3)], "traffic.0.request_bytes", ">= 0"),
        (
            [{"process": "trace", "path": "x", "sessions": "who"}],
            "traffic.0.sessions",
            "needs trace traffic, and no list,",
        ),
        ([{"process": "trace", "path": "x", "request_bytes": "b"}], "traffic.0.request_bytes", "trace traffic, and no"),
        ("poisson", "traffic", "object"),
        ({}, "traffic.process", "is required"),
        ({"process": "poison", "rate_per_s": 1}, "traffic.process", "did you mean poisson"),
        (gamma(), "traffic.scv", "is required"),
        (gamma(scv=0), "traffic.scv", "process constant"),
        (gamma(scv=-1), "traffic.scv", "> 0 and <= 100"),
        (gamma(scv=101), "traffic.scv", "<= 100"),
        (gamma(scv=math.nan), "traffic.scv", "finite"),
        (gamma(scv=True), "traffic.scv", "got true"),
        ({"process": "gamma", "scv": 2}, "traffic.rate_per_s", "is required"),
        (flat(scv=2), "traffic.scv", "belongs to gamma traffic, not to process poisson, got 2"),
        ({"process": "mmpp"}, "traffic.rates_per_s", "is required"),
        (mmpp(rates_per_s=5), "traffic.rates_per_s", "list"),
        (mmpp(rates_per_s=[5]), "traffic.rates_per_s", "must have 2 to 100 rates"),
        (mmpp(rates_per_s=[5] * 101), "traffic.rates_per_s", "must have 2 to 100 rates"),
        (mmpp(rates_per_s=[0, 0]), "traffic.rates_per_s", "one of them > 0"),
        (mmpp(rates_per_s=[1, -1]), "traffic.rates_per_s.1", ">= 0"),
        (mmpp(rates_per_s=[1, None]), "traffic.rates_per_s.1", "number"),
        (mmpp(mean_sojourn_s=None), "traffic.mean_sojourn_s", "is required"),
        (mmpp(mean_sojourn_s=0), "traffic.mean_sojourn_s", "> 0"),
        (mmpp(mean_sojourn_s=[1, 0]), "traffic.mean_sojourn_s.1", "> 0"),
        (mmpp(mean_sojourn_s=[1, 2, 3]), "traffic.mean_sojourn_s", "one for each of 2 rates"),
        (mmpp(rate_per_s=0), "traffic.rate_per_s", "> 0"),
        (mmpp(rate_per_s=1e308, rates_per_s=[0, 1]), "traffic.rate_per_s", "can be brought to"),
        (
            mmpp(profile=DIURNAL),
            "traffic.profile",
            "belongs to poisson, gamma and constant traffic, not to process mmpp",
        ),
        (mmpp(scv=2), "traffic.scv", "belongs to gamma traffic"),
        ({"process": "poisson"}, "traffic.rate_per_s", "is required"),
        (flat(rate=3), "traffic.rate", "did you mean rate_per_s"),
        (flat(rate_per_m=3), "traffic.rate_per_m", "did you mean rate_per_s"),
        (flat(rate_per_s=0), "traffic.rate_per_s", "> 0"),
        (flat(rate_per_s=-1), "traffic.rate_per_s", "got -1"),
        (flat(rate_per_s=math.nan), "traffic.rate_per_s", "finite"),
        (flat(rate_per_s=math.inf), "traffic.rate_per_s", "finite"),
        (flat(rate_per_s="400"), "traffic.rate_per_s", "got '400'"),
        (flat(rate_per_s=True), "traffic.rate_per_s", "got true"),
        (flat(sessions=0), "traffic.sessions", "integer from 1"),
        (flat(sessions=1.5), "traffic.sessions", "integer from 1"),
        (flat(sessions="who"), "traffic.sessions", "needs trace traffic"),
        ({"process": "trace", "path": "x", "sessions": ""}, "traffic.sessions", "must be a text"),
        (flat(retries={}), "traffic.retries.mode", "is required"),
        (flat(retries="lagacy"), "traffic.retries", "did you mean legacy?"),
        (flat(path="x.csv"), "traffic.path", "belongs to trace traffic"),
        (flat(speed=2), "traffic.speed", "belongs to trace traffic"),
        (flat(request_bytes="ContextTokens"), "traffic.request_bytes", "needs trace traffic"),
        (flat(request_bytes=-1), "traffic.request_bytes", ">= 0"),
        (flat(response_bytes={"law": "gamma", "mean_s": 1, "scv": 1}), "traffic.response_bytes.mean_s", "mean_bytes"),
        (flat(profile="diurnal"), "traffic.profile", "object"),
        (profiled("weekly"), "traffic.profile.kind", "one of steps"),
        (profiled("steps"), "traffic.profile.steps", "is required"),
        (profiled("steps", steps=[]), "traffic.profile.steps", "at least one"),
        (profiled("steps", steps=[3]), "traffic.profile.steps.0", "object"),
        (profiled("steps", steps=[{"from_s": 1, "rate_per_s": 1}]), "traffic.profile.steps.0.from_s", "must be 0"),
        (
            profiled("steps", steps=[{"from_s": 0, "rate": 1}]),
            "traffic.profile.steps.0.rate",
            "did you mean rate_per_s",
        ),
        (
            profiled("steps", steps=[{"from_s": 0, "rate_per_s": 1}, {"from_s": 0, "rate_per_s": 2}]),
            "traffic.profile.steps.1.from_s",
            "> 0",
        ),
        (profiled("linear", from_per_s=1, to_per_s=2), "traffic.profile.to_s", "is required"),
        (profiled("linear", from_per_s=1, to_per_s=2, from_s=5, to_s=5), "traffic.profile.to_s", "> 5"),
        (profiled("diurnal", base_per_s=2, peak_per_s=1), "traffic.profile.peak_per_s", ">= 2"),
        (profiled("diurnal", base_per_s=1, peak_per_s=2, peak_hour=24), "traffic.profile.peak_hour", "<= 23.5"),
        (
            profiled("diurnal", base_per_s=1, peak_per_s=2, peak_hour=14.2),
            "traffic.profile.peak_hour",
            "multiple of 0.5",
        ),
        (profiled("diurnal", base_per_s=1, peak_per_s=2, weekend_factor=-1), "traffic.profile.weekend_factor", ">= 0"),
        (profiled("diurnal", base=1, peak_per_s=2), "traffic.profile.base", "did you mean base_per_s"),
        (profiled("spikes", base_per_s=1, spikes=[{"at_s": 1, "for_s": 1}]), "traffic.profile.spikes.0", "either"),
        (
            profiled("spikes", base_per_s=1, spikes=[{"at_s": 1, "for_s": 1, "factor": 1, "rate_per_s": 1}]),
            "traffic.profile.spikes.0",
            "either",
        ),
        (
            profiled(
                "spikes",
                base_per_s=1,
                spikes=[{"at_s": 1, "for_s": 5, "factor": 2}, {"at_s": 4, "for_s": 1, "factor": 2}],
            ),
            "traffic.profile.spikes.1.at_s",
            ">= 6",
        ),
        ({"process": "trace"}, "traffic.path", "is required"),
        ({"process": "trace", "path": "x", "rate_per_s": 1}, "traffic.rate_per_s", "belongs to poisson, gamma, mm"),
        ({"process": "trace", "path": "x", "profile": DIURNAL}, "traffic.profile", "belongs to poisson, gamma and"),
        ({"process": "trace", "path": "x", "speed": 0}, "traffic.speed", "> 0"),
        ({"process": "trace", "path": "x", "repeat": 0}, "traffic.repeat", "integer from 1"),
        ({"process": "trace", "path": "x", "repeat": 1.5}, "traffic.repeat", "integer"),
        ({"process": "trace", "path": "x", "resample": 3}, "traffic.resample", 'true, false, "auto" or an object'),
        ({"process": "trace", "path": "x", "resample": {"mean_block": 0.5}}, "traffic.resample.mean_block", ">= 1"),
        ({"process": "trace", "path": "x", "resample": {"mean_block_s": 0}}, "traffic.resample.mean_block_s", "> 0"),
        ({"process": "trace", "path": "x", "resample": {"block": 5}}, "traffic.resample.block", "not a known key"),
        (
            {"process": "trace", "path": "x", "resample": {"mean_block": 5, "mean_block_s": 5}},
            "traffic.resample",
            "not both",
        ),
        ({"process": "poisson", "rate_per_s": 1, "resample": True}, "traffic.resample", "belongs to trace"),
    ],
)
def test_bad_input_names_path_and_constraint(block, path, why):
    with pytest.raises(InputError) as caught:
        parse_traffic(block)
    assert caught.value.path == path
    assert why in str(caught.value)


def test_a_profile_without_rate_cannot_be_brought_to_a_mean():
    traffic = rated({"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 0}]}, rate_per_s=5)
    with pytest.raises(InputError, match=r"traffic\.profile: must have a rate > 0"):
        traffic.knots(10.0)


# ---- Gamma gaps, modulation, superposition ----


def test_gamma_gaps_have_mean_one_and_the_scv():
    traffic = parse_traffic(gamma(scv=4))
    assert (traffic.gap_law.kind, traffic.gap_law.mean, traffic.gap_law.scv) == ("gamma", 1.0, 4.0)
    assert (traffic.scv, traffic.dispersion, traffic.mean_rate(60.0)) == (4.0, 4.0, 10.0)
    shaped = parse_traffic(gamma(scv=4, profile=DIURNAL))
    assert (shaped.scv, shaped.dispersion) == (None, None)
    assert shaped.mean_rate(DAY) == pytest.approx(10.0, rel=1e-12)
    assert parse_traffic(flat()).gap_law is None


def test_scv_and_dispersion_where_they_are_known():
    constant = {"process": "constant", "rate_per_s": 30}
    for block, expected in [
        (flat(), (1.0, 1.0)),
        (constant, (0.0, 0.0)),
        (rated(DIURNAL).block, (None, None)),
        ([flat(), flat()], (1.0, 1.0)),
        ([flat(), rated(DIURNAL).block], (None, None)),
        ([flat(), gamma(scv=4)], (None, (1 * 1 + 10 * 4) / 11)),
        ([gamma(scv=1)], (None, 1.0)),  # whose gaps are exponential; but Poisson is what is called so
        ([constant, gamma(scv=4)], (None, 1.0)),
        ([flat(), {"process": "trace", "path": "builtin:trace_small"}], (None, None)),
    ]:
        traffic = parse_traffic(block)
        assert (traffic.scv, traffic.dispersion) == pytest.approx(expected)


def test_mmpp_is_brought_to_a_mean_rate():
    traffic = parse_traffic(mmpp())
    assert (traffic.rates_per_s, traffic.mean_sojourn_s) == ((4.0, 60.0), (9.0, 3.0))
    assert traffic.mean_rate(1.0) == (4 * 9 + 60 * 3) / 12 == 18.0
    scaled = parse_traffic(mmpp(rate_per_s=36))
    assert scaled.rates_per_s == (8.0, 120.0)
    assert scaled.mean_rate(1.0) == scaled.rate_per_s == 36.0
    assert parse_traffic(mmpp(mean_sojourn_s=7)).mean_sojourn_s == (7.0, 7.0)
    for traffic in (scaled, parse_traffic([flat(), flat()])):
        assert not traffic.has_knots
        with pytest.raises(ValueError, match="no rate that is known"):
            traffic.knots(10.0)
        with pytest.raises(ValueError, match="has no trace"):
            traffic.trace()


def test_a_superposition_has_its_parts_and_one_set_of_sizes():
    shared = {"request_bytes": 100, "sessions": 8, "response_bytes": None}
    blocks = [{**flat(), **shared}, {**gamma(scv=2), **shared}, {**mmpp(), **shared}]
    traffic = parse_traffic(json.loads(json.dumps(blocks)))
    assert (traffic.process, [part.process for part in traffic.superposed]) == (
        "superposition",
        ["poisson", "gamma", "mmpp"],
    )
    assert (traffic.request_bytes.mean, traffic.response_bytes, traffic.sessions) == (100.0, None, 8)
    assert {(part.request_bytes, part.sessions) for part in traffic.superposed} == {(None, None)}
    assert [part.path for part in traffic.superposed] == ["traffic.0", "traffic.1", "traffic.2"]
    assert traffic.mean_rate(5.0) == pytest.approx(1 + 10 + 18, rel=1e-15)
    assert traffic.to_dict() == blocks
    assert pickle.loads(pickle.dumps(traffic)) == traffic
    assert (traffic.traces, traffic.only_traces, traffic.has_knots) == ((), False, False)


def test_scv_of_a_trace_is_that_of_its_gaps(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("time_s\n0\n1\n2\n6\n")
    once = parse_traffic({"process": "trace", "path": str(file)})
    assert once.scv == pytest.approx(np.var([1, 1, 4]) / 4)
    again = parse_traffic({"process": "trace", "path": str(file), "repeat": 3, "speed": 5})
    trace = again.trace()
    times = np.concatenate([trace.arrival_s + i * trace.pass_s for i in range(3)])
    assert again.scv == pytest.approx(np.var(np.diff(times)) / np.mean(np.diff(times)) ** 2)
    assert again.only_traces
    assert again.dispersion is None
    for text in ("time_s\n5\n", "time_s\n5\n7\n", "time_s\n5\n5\n5\n"):
        file.write_text(text)
        assert once.scv is None
