"""Who may reach the server, and under which names: the address it binds, the Host header, the token of its pages.

By default only this machine can. A page in a browser on this machine can, too, so a request must name the server by an
address or a name that it is bound under (a rebound DNS name is neither), and no answer allows another origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qs

from shadowsim.errors import InputError, ShadowsimError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")


class ForbiddenError(ShadowsimError):
    """A request for another host, or without the token."""

    code = "AccessDeniedException"
    http_status = 403


def check_bind(host: str, verified: bool, insecure: bool) -> None:
    """Refuse to be reachable from elsewhere without signatures, unless told.

    Raises
    ------
    InputError
        For an address that is not this machine's own.
    """
    if not (is_loopback(host) or verified or insecure):
        what = "is reachable from other machines: give --credentials FILE, or --insecure to let anybody in"
        raise InputError("--host", what, host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int) -> str:
    """Return where a server that is bound to an address can be asked; all addresses are none that can be."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Hosts:
    """The names under which a server may be asked.

    Parameters
    ----------
    host : str
        What it is bound to.
    names : iterable of str
        More names, as a proxy or a container network gives.
    """

    def __init__(self, host: str, names: Iterable[str] = ()):
        self._names = {host.lower(), *(name.lower() for name in names)}
        # Bound to all addresses, it may be asked by any of them: only names can be rebound.
        self._any_address = host in ("0.0.0.0", "::", "")
        if is_loopback(host) or self._any_address:
            self._names.update(LOOPBACK_NAMES)
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    def check(self, headers: Sequence[str]) -> None:
        """Refuse a Host header that names another server, and any number of them but one. Ports may be forwarded.

        Raises
        ------
        ForbiddenError
        """
        if len(headers) != 1 or not self._allows(headers[0].lower()):
            raise ForbiddenError("The Host header does not name this server.")

    def _allows(self, header: str) -> bool:
        found = _HOST.fullmatch(header)
        if found is None:
            return False
        name = found[1] or found[2]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address


class Token:
    """What pages, metrics and frames ask for where signatures are verified."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(24)

    def check(self, headers: Mapping[str, str], query: str) -> None:
        """Refuse a request without the token, as `Authorization: Bearer TOKEN` or as `?token=TOKEN`.

        Raises
        ------
        ForbiddenError
        """
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""  # of other schemes, nothing is taken
        given = given or parse_qs(query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.text.encode()):
            raise ForbiddenError("This needs the token that the server printed when it started.")
