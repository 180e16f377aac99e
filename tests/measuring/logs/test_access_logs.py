"""Access logs: what follows the combined format, several upstreams, whole seconds, and a live nginx."""

import shutil
import socket
import subprocess
import time
import urllib.request

import log_samples as samples
import numpy as np
import pytest
from log_samples import Sent

from shadowsim import read_measurement
from shadowsim.errors import InputError

MANY = [Sent(37 * i, 20 + i % 7, 200, 0, 100) for i in range(300)]
NGINX_ITSELF = [  # written by nginx 1.22
    '127.0.0.1 - - [29/Nov/2026:01:10:39 +0000] "GET /invocations HTTP/1.1" 500 2 "-" "-" rt=0.014 uct="0.001" '
    'uht="0.015" urt="0.015"',
    '127.0.0.1 - - [29/Nov/2026:01:10:41 +0000] "GET /x?a=%22 HTTP/1.1" 200 20 "-" "a \\x22quoted\\x22 \\x5C \\xC3" '
    'rt=0.009 uct="0.000" uht="0.010" urt="0.010"',
]


def read(tmp_path, text, **options):
    file = tmp_path / "access.log"
    file.write_text(text)
    return read_measurement(file, **options)


def lines(rest="", requests=MANY):
    return "".join(samples.combined(r, rest(r) if callable(rest) else rest) for r in requests)


def test_the_combined_format_has_neither_latencies_nor_arrivals(tmp_path):
    measured = read(tmp_path, lines())
    assert not measured.has_latencies
    assert measured.quantile(0.5) is None
    assert any("arrivals are the ends of requests" in sentence for sentence in measured.lacks)
    assert any("There are no latencies" in sentence for sentence in measured.lacks)
    assert measured.resolution_s == 1.0
    assert measured.requests["response_bytes"].eq(100).all()
    assert "request_bytes" not in measured.requests


def test_a_number_with_three_decimals_is_request_time_and_said(tmp_path):
    """Whole seconds: ends are spread within them, and arrivals lie the request's time before."""
    measured = read(tmp_path, lines(lambda r: f" 0.{r.latency_ms:03d}"))
    assert measured.lacks[0].startswith("The number after the combined format was taken for $request_time")
    assert sorted(measured.requests["latency_s"]) == pytest.approx(sorted(r.latency_ms / 1e3 for r in MANY))
    # The first and the last lie within a second of their places in 11 s.
    assert measured.rate_per_s == pytest.approx(1 / 0.037, rel=0.1)
    quoted = read(tmp_path, lines(lambda r: f' "10.1.1.1, 10.2.2.2" 0.{r.latency_ms:03d}'))
    assert quoted.requests.equals(measured.requests)


@pytest.mark.parametrize("rest", [" 0.020 0.018", " 20123", " 0.020 -", ' "x" up=a b', " 0.02"])
def test_what_only_a_log_format_explains_is_refused(tmp_path, rest):
    with pytest.raises(InputError, match="give its log_format"):
        read(tmp_path, lines(rest))


def test_lines_of_nginx_itself(tmp_path):
    measured = read(tmp_path, "\n".join(NGINX_ITSELF))
    assert measured.requests["latency_s"].tolist() == [0.015, 0.010]
    assert measured.requests["status"].tolist() == ["error_5xx", "answered"]
    assert measured.n_damaged == 0


def test_several_upstreams_and_requests_that_were_not_passed_on(tmp_path):
    log_format = "$time_iso8601 $status $request_time [$upstream_response_time]"
    tried = ["0.010, 0.020", "0.010 : 0.005", "-", "0.007", "-, 0.004"]
    text = "".join(f"2026-11-29T01:10:{i:02d}+01:00 200 0.100 [{up}]\n" for i, up in enumerate(tried))
    measured = read(tmp_path, text, log_format=log_format)
    np.testing.assert_allclose(measured.requests["latency_s"], [0.03, 0.015, np.nan, 0.007, 0.004])
    assert measured.started.isoformat() == "2026-11-29T00:09:59.900000+00:00"


def test_an_escaped_body_and_mixed_lengths(tmp_path):
    """A last variable takes the rest of the line, and quotes within quoted values are escaped."""
    log_format = '$msec "$request_body" $status $http_x'
    text = '1795914641.347 "a \\x22 b \\" c" 200 x "y" z\n1795914642.000 "" 503 -\n'
    measured = read(tmp_path, text, log_format=log_format)
    assert measured.requests["status"].tolist() == ["answered", "error_5xx"]


def test_some_requests_without_a_time(tmp_path):
    measured = read(tmp_path, lines(" 0.020", MANY[:200]) + lines("", MANY[200:]))
    assert any("100 requests have no $request_time" in sentence for sentence in measured.lacks)


def test_a_log_of_another_server_is_damage_and_not_guessed(tmp_path):
    with pytest.raises(InputError, match="holds no requests; the first that cannot be read is line 1"):
        read(tmp_path, lines(), log_format="$msec $status")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_what_nginx_writes_in_five_formats_is_read(tmp_path):
    """Five logs of the same requests; only those with $msec tell the gaps."""
    front, back = free_port(), free_port()
    directive = "log_format own '$msec $request_length $bytes_sent '\n '$status $request_time $upstream_response_time';"
    logs = {"combined": "combined", "timed": "timed", "rt": "rt", "own": "own", "js": "js"}
    config = tmp_path / "nginx.conf"
    combined = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    combined += '"$http_referer" "$http_user_agent"'
    config.write_text(
        f"""daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}
        http {{ log_format timed '{combined} $request_time';
        log_format rt '{combined} rt=$request_time urt="$upstream_response_time"';
        {directive}
        log_format js escape=json '{{"msec":"$msec","status":"$status","request_time":"$request_time"}}';
        server {{ listen 127.0.0.1:{front}; {" ".join(f"access_log {tmp_path}/{n}.log {f};" for n, f in logs.items())}
        location / {{ proxy_pass http://127.0.0.1:{back}; }} }}
        server {{ listen 127.0.0.1:{back}; access_log off;
        location /gone {{ return 404; }} location / {{ return 200 "x"; }} }} }}"""
    )
    # nginx opens its compiled-in error log first, and says so on standard error when it may not.
    server = subprocess.Popen(["nginx", "-p", tmp_path, "-c", config], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20.0
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{front}/a", timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for i in range(20):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{front}/{'gone' if i == 7 else 'a'}", timeout=5).read()
            except urllib.error.HTTPError as error:
                error.close()
    finally:
        server.terminate()
        server.wait(20)
    for name in logs:
        options = {"log_format": directive} if name == "own" else {}
        measured = read_measurement(tmp_path / f"{name}.log", **options)
        assert measured.n_damaged == 0
        assert measured.n_requests == 21
        assert measured.requests["status"].value_counts().to_dict() == {"answered": 20, "error_4xx": 1}
        assert measured.has_latencies == (name != "combined")
        assert (measured.gap_scv is not None) == (name in ("own", "js"))
