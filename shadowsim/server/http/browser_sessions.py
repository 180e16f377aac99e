"""Admits browsers to the page of a server that verifies signatures, by a link that works once.

A browser cannot sign requests as boto3 does, and a secret in a link stays in histories and logs. So the link that the
server prints is good for one browser, which gets a cookie in exchange; the server then prints the next link. The cookie
is HttpOnly, so that no script can read it, and SameSite=Strict, so that no other site's page can use it. Pages of other
ports of the same host count as the same site for cookies, but not for the checks of access.py: an action by cookie must
have an Origin, which is then the server's own.

A session ends after twelve hours, with the browser, or with the server. The first link follows from the token of pages,
so that whoever prints it need not be the process that answers.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import monotonic

from shadowsim.server.http.access import ForbiddenError, Token

LASTS_S, MOST_SESSIONS = 43_200.0, 64
COOKIE = "shadowsim-session"


class BrowserSessions:
    """The link that is valid now, and the sessions of the browsers that followed one.

    Parameters
    ----------
    token : Token
        Token of pages.
    clock : callable
        Seconds on a steady clock.

    Attributes
    ----------
    key : str
        Key of the link.
    """

    def __init__(self, token: Token, clock: Callable[[], float] = monotonic):
        self.key = first_key(token)
        self._clock = clock
        self._ends_s: dict[str, float] = {}  # by session, the oldest first

    def admit(self, key: str) -> str:
        """Return a new session for a key, which is replaced by another.

        Raises
        ------
        ForbiddenError
            The key is not that of the link which is valid now.
        """
        if not _equal(key, self.key):
            raise ForbiddenError("This link has been used, or is not of this server: it prints one that works once.")
        self.key = secrets.token_urlsafe(24)
        session = secrets.token_urlsafe(24)
        self._ends_s[session] = self._clock() + LASTS_S
        while len(self._ends_s) > MOST_SESSIONS:
            del self._ends_s[next(iter(self._ends_s))]
        return session

    def holds(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request's cookies name a session that has not ended."""
        now = self._clock()
        given = [value for name, value in _cookies(headers) if name == COOKIE]
        return any(_equal(text, session) and now < end for text in given[:4] for session, end in self._ends_s.items())

    def may_act(self, method: str, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request is an action of this server's own page, which needs no signature."""
        is_action = method == "POST" and path == "/" and "X-Amz-Target" in headers and "Origin" in headers
        return is_action and self.holds(headers)


def first_key(token: Token) -> str:
    """Return the key of the first link of a server with this token of pages."""
    return urlsafe_b64encode(sha256(f"first link {token.text}".encode()).digest()[:24]).decode()


def first_link(url: str, token: Token | None) -> str:
    """Return the address of the page when the server starts; it works once if there is a token."""
    return f"{url}/" if token is None else f"{url}/?key={first_key(token)}"


def set_cookie(session: str, secure: bool) -> str:
    """Return the header that gives a browser its session."""
    return f"{COOKIE}={session}; Path=/; Max-Age={LASTS_S:.0f}; HttpOnly; SameSite=Strict" + "; Secure" * secure


def _cookies(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    parts = [part.strip().partition("=") for part in headers.get("Cookie", "").split(";")]
    return [(name, value) for name, _, value in parts]


def _equal(text: str, secret: str) -> bool:
    return hmac.compare_digest(text.encode("utf-8", "surrogateescape"), secret.encode())
