"""What has been accepted, in SQLite: the log of events from which the world is folded again after every start.

An event is written, and synced to the disk, before its action is answered (WAL with synchronous=FULL); a process that
is killed at any moment has lost nothing that it answered. One process writes: it holds the file's lock for as long as
it is open. Requests are kept as they were accepted, nothing is ever updated in place, and the log is not shortened:
it grows by less than a kilobyte an action, and a start reads some ten thousand a second. After a kill its newest part
stands in the -wal file beside it: who copies one without the other loses that.

Beside the log stand, under their names, what a store remembers of its server: region and account of its ARNs, the key
that signs its page tokens, and where its clock began.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from secrets import token_bytes
from time import time
from types import TracebackType
from typing import Any

from shadowsim.errors import InputError, StoreError
from shadowsim.server.state import events, transitions
from shadowsim.server.state.account import World
from shadowsim.server.state.clock import Clock, Origin
from shadowsim.server.state.quotas import Quotas, Throttle
from shadowsim.server.state.undocumented import Undocumented

IN_MEMORY = ":memory:"
_APPLICATION_ID = 0x53484457  # in the file's header: it is ours
_VERSION = 1
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE events (number INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT;
"""


class Store:
    """The events, the world that they make, and the clock that moves it.

    Parameters
    ----------
    path : str or Path
        A file, made if there is none, or ":memory:": nothing is kept then.
    transition_s : float
        How long Creating, Starting, Updating and Stopping last, in scaled seconds.
    time_scale : float
        Scaled seconds a wall second.
    choices : Undocumented, optional
        What AWS does not document.
    probed : iterable of str
        Models that have real backends, which must answer /ping; "*" is all.
    quotas : Quotas, optional
        Generous ones by default.
    region, account : str
        Of the ARNs. A file keeps those that it was made with.
    wall : callable
        The wall clock.

    Raises
    ------
    InputError
        The file is not a store, is another server's at the moment, or cannot be read or written; or an option is wrong.
    """

    def __init__(
        self,
        path: str | Path = IN_MEMORY,
        *,
        transition_s: float = 1.0,
        time_scale: float = 1.0,
        choices: Undocumented | None = None,
        probed: frozenset[str] = frozenset(),
        quotas: Quotas | None = None,
        region: str = "us-east-1",
        account: str = "111122223333",
        wall: Callable[[], float] = time,
    ):
        if not 0 <= transition_s < 1e6:
            raise InputError("--transition-s", "must be >= 0 and < 1000000", transition_s)
        for name, value, pattern, what in (
            ("--region", region, r"[a-z0-9-]+", "small letters, digits and hyphens"),
            ("--account", account, r"[0-9]{12}", "12 digits"),
        ):
            if not re.fullmatch(pattern, value):
                raise InputError(name, f"must be {what}", value)
        Clock(0.0, 0.0, time_scale)  # refuses a scale before there is a file
        self.path = str(path)
        if not self.path or "\0" in self.path:  # SQLite takes "" for a file that goes with the process
            raise InputError("--db", "must name a file, or be :memory:", self.path)
        self.quotas = quotas or Quotas.read()
        self.throttle = Throttle(self.quotas)
        self._connection = _opened(self.path)
        try:
            self._facts = dict(self._connection.execute("SELECT name, value FROM facts"))
            self.region, self.account = self._fact("region", region), self._fact("account", account)
            self.key, origin = self._remembered()
            self.world = self._folded()
            self.clock = Clock.resumed(origin, time_scale, wall, self.world.now_s)
            self._write_fact("origin", json.dumps(self.clock.origin))
            self._configure(transition_s, choices or Undocumented(), probed)
        except sqlite3.Error as error:
            self.close()
            raise InputError("--db", f"{self.path} cannot be used: {error}") from None
        except BaseException:
            self.close()
            raise

    @property
    def is_kept(self) -> bool:
        """Whether anything outlives the process."""
        return self.path != IN_MEMORY

    def world_at(self, now: float) -> World:
        """Return the world at a moment, or where it is already if that is later; not to be written."""
        transitions.advance(self.world, _moment(now))
        return self.world

    def accept(self, kind: str, body: Mapping[str, Any], now: float) -> None:
        """Let an event happen, and keep it: it is on the disk when this returns.

        Parameters
        ----------
        kind : str
            An action, "Configure" or "Ping".
        body : mapping
            Plain JSON.
        now : float
            Scaled seconds since 1970; a moment that has passed counts as the present one.

        Raises
        ------
        StoreError
            It cannot be written; then it has not happened.
        """
        at_s = max(_moment(now), self.world.now_s)
        try:
            self._write_fact("origin", json.dumps(self.clock.origin))  # another one if the wall clock was set back
            statement = "INSERT INTO events (at_s, kind, body) VALUES (?, ?, ?)"
            number = self._connection.execute(statement, (at_s, kind, json.dumps(body))).lastrowid
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be written: {error}") from None
        try:
            events.apply(self.world, kind, body, at_s)
        except BaseException:  # a defect, which must not be in the log
            self._connection.execute("DELETE FROM events WHERE number = ?", (number,))
            self.world = self._folded()
            raise

    def n_events(self) -> int:
        """Return how many events were accepted."""
        (count,) = self._connection.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _folded(self) -> World:
        world, expected = World(region=self.region, account=self.account), 1
        for number, *row in self._connection.execute("SELECT number, at_s, kind, body FROM events ORDER BY number"):
            if number != expected:  # none was ever taken away, nor a number passed over
                raise InputError("--db", f"{self.path} is damaged: event {expected} is not there")
            at_s, kind, body = row
            try:
                events.apply(world, kind, json.loads(body), at_s)
            except Exception as error:  # whatever it is: another version's event, or a damage that SQLite did not see
                why = f"{type(error).__name__}: {error}"
                raise InputError("--db", f"{self.path}: event {number}, {kind}, cannot be repeated: {why}") from None
            expected += 1
        return world

    def _remembered(self) -> tuple[bytes, Origin | None]:
        """Return the key, made now if there is none, and where the clock began, None if it does now."""
        key, origin = self._fact("key", token_bytes(32).hex()), self._facts.get("origin")
        try:
            wall_s, scaled_s, scale = json.loads(origin) if origin else (0.0, 0.0, 1.0)
            found = Clock(float(wall_s), float(scaled_s), float(scale)).origin
            return bytes.fromhex(key), found if origin else None
        except (ValueError, TypeError) as error:
            raise InputError("--db", f"{self.path} is damaged: its facts cannot be read: {error}") from None

    def _configure(self, transition_s: float, choices: Undocumented, probed: frozenset[str]) -> None:
        # The fold depends on these, so that they are an event like any other: the first one, and one for each change.
        world = self.world
        if self.n_events() == 0 or (world.transition_s, world.choices, world.probed) != (transition_s, choices, probed):
            body = {"transition_s": transition_s, "choices": asdict(choices), "probed": sorted(probed)}
            self.accept("Configure", body, self.clock.now())

    def _fact(self, name: str, value: str) -> str:
        if name not in self._facts:
            self._write_fact(name, value)
        return str(self._facts[name])

    def _write_fact(self, name: str, value: str) -> None:
        if self._facts.get(name) != value:
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
            self._facts[name] = value


def _moment(now: float) -> float:
    # Whole microseconds, which are all that clients can say: a schedule of exactly 30 days stays one.
    return round(now, 6)


def _opened(path: str) -> sqlite3.Connection:
    """Return a connection that holds the file, which is made with our tables if it is new."""
    file = Path(path)
    for place in () if path == IN_MEMORY else (file, file.parent):
        if place.exists() and not os.access(place, os.W_OK):  # SQLite's word for it would be an I/O error
            raise InputError("--db", f"must be a file that can be written, and {place} cannot be")
    connection = None
    try:
        # By one thread at a time, but not always the same one: who forgets a store need not be who made it.
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        # Held from the first statement on, so that two servers never fold the same log.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        (ours,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if n_tables == 0 and ours == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif ours != _APPLICATION_ID:
            raise InputError("--db", f"must be a file that shadowsim made, or a new one, and {path} is neither")
        elif version != _VERSION:
            raise InputError("--db", f"must be of version {_VERSION}, and {path} is not", version)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")  # which is written into the file: not before it is ours
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        busy = "is in use by another process" if "locked" in str(error) else f"cannot be used: {error}"
        raise InputError("--db", f"{path} {busy}") from None
    except BaseException:
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            connection.close()
        raise
    return connection
