"""Links that work once, and the sessions of browsers."""

import pytest

from shadowsim.server.http.access import ForbiddenError, Token
from shadowsim.server.http.browser_sessions import (
    COOKIE,
    LASTS_S,
    MOST_SESSIONS,
    BrowserSessions,
    first_link,
    set_cookie,
)

ACTION = {"X-Amz-Target": "SageMaker.ListModels", "Origin": "http://127.0.0.1:1"}


def holding(session, **headers):
    return {"Cookie": f"theme=dark; {COOKIE}={session}", **headers}


def test_a_link_admits_one_browser():
    sessions = BrowserSessions(Token())
    key = sessions.key
    session = sessions.admit(key)
    assert sessions.holds(holding(session))
    assert sessions.key != key
    for used in (key, "", "\udcff", session):
        with pytest.raises(ForbiddenError, match="it prints one that works once"):
            sessions.admit(used)
    assert sessions.holds(holding(sessions.admit(sessions.key)))
    assert sessions.holds(holding(session))


@pytest.mark.parametrize("cookie", ["", f"{COOKIE}=", f"{COOKIE}=x", "=", ";;", f"{COOKIE}x={{}}", "\udcff"])
def test_other_cookies_hold_no_session(cookie):
    sessions = BrowserSessions(Token())
    session = sessions.admit(sessions.key)
    assert not sessions.holds({"Cookie": cookie.format(session)})
    assert not sessions.holds({})


def test_sessions_end_and_are_limited():
    now = [0.0]
    sessions = BrowserSessions(Token(), clock=lambda: now[0])
    first, *others = [sessions.admit(sessions.key) for _ in range(MOST_SESSIONS + 1)]
    assert not sessions.holds(holding(first))
    assert sessions.holds(holding(others[0]))
    now[0] = LASTS_S
    assert not sessions.holds(holding(others[0]))


def test_only_actions_of_the_page_need_no_signature():
    sessions = BrowserSessions(Token())
    headers = holding(sessions.admit(sessions.key), **ACTION)
    assert sessions.may_act("POST", "/", headers)
    assert not sessions.may_act("POST", "/endpoints/x/invocations", headers)
    assert not sessions.may_act("PUT", "/", headers)
    for missing in ("X-Amz-Target", "Origin", "Cookie"):
        assert not sessions.may_act("POST", "/", {k: v for k, v in headers.items() if k != missing})


def test_the_cookie_is_kept_from_scripts_and_other_sites():
    assert set_cookie("abc", secure=False).endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
    assert set_cookie("abc", secure=True).endswith("; SameSite=Strict; Secure")


def test_the_first_link_follows_from_the_token_and_does_not_tell_it():
    token = Token()
    link = first_link("http://127.0.0.1:1", token)
    sessions = BrowserSessions(token)
    assert link == f"http://127.0.0.1:1/?key={sessions.key}"
    assert token.text not in link
    sessions.admit(sessions.key)
    assert link != f"http://127.0.0.1:1/?key={sessions.key}"
    assert first_link("http://127.0.0.1:1", None) == "http://127.0.0.1:1/"
    assert first_link("", Token()) != first_link("", token)
