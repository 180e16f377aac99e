"""A log_format, however it is pasted, becomes a pattern."""

import pytest

from shadowsim.errors import InputError
from shadowsim.measuring.logs.nginx_formats import format_text, pattern_of

FORMAT = '$remote_addr [$time_local] "$request" $status $request_time'


@pytest.mark.parametrize(
    "pasted",
    [
        FORMAT,
        f"  {FORMAT}\n",
        f"'{FORMAT}'",
        f"log_format main '{FORMAT}';",
        "log_format main escape=json '$remote_addr [$time_local] '\n    '\"$request\" $status '\n  '$request_time';",
        f"log_format timed '{FORMAT}'",
    ],
)
def test_directives_and_bare_formats_are_one(pasted):
    assert format_text(pasted) == FORMAT
    match = pattern_of(pasted).fullmatch('10.0.0.1 [29/Nov/2026:01:10:39 +0000] "GET / HTTP/1.1" 200 0.012')
    assert match.groupdict() == {"time_local": "29/Nov/2026:01:10:39 +0000", "status": "200", "request_time": "0.012"}


def test_braces_and_repeated_variables():
    pattern = pattern_of("${msec}s $status/$status ${request_time}")
    assert pattern.fullmatch("1795914641.347s 200/200 0.1").groupdict()["msec"] == "1795914641.347"


@pytest.mark.parametrize(
    ("log_format", "why"),
    [
        ("$status $request_time", "must have one of $msec, $time_iso8601, $time_local"),
        ("", "must have one of"),
        ("$msec$status", "must have a sign between $status and the variable before it"),
    ],
)
def test_what_cannot_be_read_is_refused(log_format, why):
    with pytest.raises(InputError) as caught:
        pattern_of(log_format)
    assert why in str(caught.value)
    assert caught.value.path == "log_format"


def test_free_text_before_a_value_may_hold_the_sign_between_them():
    pattern = pattern_of("$msec $http_user_agent $status $upstream_response_time $request_time")
    match = pattern.fullmatch("1795914641.347 Mozilla/5.0 (X11; Linux) 2 200 0.010, 0.020 : - 0.031")
    values = {"msec": "1795914641.347", "status": "200", "upstream_response_time": "0.010, 0.020 : -"}
    assert match.groupdict() == values | {"request_time": "0.031"}
    assert pattern.fullmatch("1795914641.347 Mozilla 2OO 0.010 0.031") is None
