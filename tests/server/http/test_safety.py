"""Who may reach the server, under which names, with which token."""

import pytest

from shadowsim.errors import InputError
from shadowsim.server.http.safety import ForbiddenError, Hosts, Token, check_bind, url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_leave(host):
    check_bind(host, verified=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_machines_do(host):
    with pytest.raises(InputError, match="reachable from other machines"):
        check_bind(host, verified=False, insecure=False)
    check_bind(host, verified=True, insecure=False)
    check_bind(host, verified=False, insecure=True)


@pytest.mark.parametrize(
    ("bound", "header", "allowed"),
    [
        *[("127.0.0.1", h, True) for h in ("127.0.0.1:4599", "localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:4599")],
        *[
            ("127.0.0.1", h, False)
            for h in ("evil.org", "evil.org:4599", "10.0.0.1", "", "localhost.evil.org", "a:b:c")
        ],
        *[
            ("127.0.0.1", h, False)
            for h in ("localhost:", "localhost:x", "[localhost]", "127.0.0.1:4599:1", "localhost/")
        ],
        ("10.0.0.1", "10.0.0.1:4599", True),
        ("10.0.0.1", "localhost", False),
        *[("0.0.0.0", h, True) for h in ("10.0.0.1", "192.168.1.1:80", "localhost", "[fe80::1]")],
        ("0.0.0.0", "evil.org", False),
        ("127.0.0.1", "proxy.internal:80", True),
    ],
)
def test_names_of_the_server(bound, header, allowed):
    hosts = Hosts(bound, ["proxy.internal"])
    if allowed:
        hosts.check([header])
    else:
        with pytest.raises(ForbiddenError):
            hosts.check([header])
    for wrong in ([], [header, header]):
        with pytest.raises(ForbiddenError):
            hosts.check(wrong)


def test_a_token_is_asked_for():
    token = Token()
    for scheme in ("Bearer", "bearer", "BEARER "):
        token.check({"Authorization": f"{scheme} {token.text}"}, "")
    token.check({}, f"a=b&token={token.text}")
    for headers, query in (
        ({}, ""),
        ({"Authorization": "Bearer x"}, ""),
        ({"Authorization": f"Basic {token.text}"}, ""),
        ({}, "token=é"),
        ({}, "token="),
    ):
        with pytest.raises(ForbiddenError):
            token.check(headers, query)
    assert Token().text != token.text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::1", "http://[::1]:1"),
        ("::", "http://[::1]:1"),
    ],
)
def test_where_a_server_can_be_asked(host, url):
    assert url_of(host, 1) == url
