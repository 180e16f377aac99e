"""Times by their form: digits, fractions, dates with and without zones; each to the nanosecond."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.measuring.logs.log_times import common_log_ns, date_ns, has_zone, resolution_s, time_ns

moments = st.datetimes(datetime(2002, 1, 1), datetime(2098, 1, 1), timezones=st.just(UTC))
zones = st.integers(-14 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))


def ns_of(moment):
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000


@given(moments, zones, st.integers(0, 999))
def test_one_moment_in_every_form(moment, zone, more_ns):
    exact = ns_of(moment) + more_ns
    local = moment.astimezone(zone)
    name = local.strftime("%z")
    assert time_ns(str(exact)) == exact
    assert time_ns(f"{exact // 10**9}.{exact % 10**9:09d}") == exact
    assert time_ns(local.strftime("%Y-%m-%dT%H:%M:%S.%f") + f"{more_ns:03d}{name}") == exact
    assert date_ns(local.strftime("%Y/%m/%d %H:%M:%S,%f") + f"{more_ns:03d} {name[:3]}:{name[3:]}") == exact
    assert date_ns(moment.strftime("%Y-%m-%d %H:%M:%S.%f")) == ns_of(moment)
    whole = exact // 10**9 * 10**9
    assert time_ns(str(whole // 10**9)) == time_ns(str(whole // 10**6)) == time_ns(str(whole // 10**3)) == whole
    assert common_log_ns(local.strftime("%d/%b/%Y:%H:%M:%S %z")) == whole


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "12", "17959146413", "1795914641347000000000", "-1795914641", "0", "0000000000", "9999999999"),
        *(
            "2026-13-01T00:00:00Z",
            "2026-01-32 00:00:00",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00+1",
            "1795914641.",
        ),
        *("29/Foo/2026:01:10:39 +0000", "29/Nov/2026:01:10:39", "1969-01-01T00:00:00Z", "2150-01-01T00:00:00Z"),
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="time"):
        time_ns(text)


def test_resolutions_and_zones():
    steps = {"1795914641": 1.0, "1795914641347": 1e-3, "1795914641.347": 1e-3, "2026-11-29T01:10:39Z": 1.0}
    assert {text: resolution_s(text) for text in steps} == steps
    assert resolution_s("2026-11-29T01:10:39.123456+02:00") == pytest.approx(1e-6)
    zoned = ("1795914641.347", "2026-11-29T01:10:39Z", "2026-11-29T01:10:39-0500", "2026-11-29 01:10:39 +05:30")
    assert all(map(has_zone, zoned))
    assert not has_zone("2026-11-29 01:10:39")
