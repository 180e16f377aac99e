"""Keeps the log of accepted events in SQLite, and folds it into the world again at every start.

An event is written and synced to the disk before its action is answered (WAL with synchronous=FULL), so a process that
is killed at any moment loses nothing that it answered. Only one process can use the file: it holds an exclusive lock
while the store is open. Requests are kept as accepted, rows are never updated, and the log is never shortened: it grows
by less than a kilobyte per action, and a start reads some ten thousand events per second. After a kill the newest
events are in the -wal file beside the database: copy both.

The table `facts` holds the server's own values by name: region and account for ARNs, the key that signs page tokens,
the origin of the clock, the log's checksum and the latest time told. The checksum chains the events, so that a start
detects any damage to them; a log without one is from an earlier version and gets it. The time told is kept whenever a
status has changed by itself, before the status is told, so that no restart takes it back, even if the wall clock was
set back. It is not synced, so that it survives a kill but not a loss of power.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from time import monotonic, time
from types import TracebackType
from typing import Any

from shadowsim.errors import InputError, StoreError
from shadowsim.option_defaults import TIME_SCALE, TRANSITION_S
from shadowsim.server.state import events, transitions
from shadowsim.server.state.account import World
from shadowsim.server.state.clock import Clock, Origin
from shadowsim.server.state.quotas import Quotas, Throttle
from shadowsim.server.state.undocumented import Undocumented

IN_MEMORY = ":memory:"
KEEP_S = 1.0  # wall time after which the time told is kept again
_APPLICATION_ID = 0x53484457  # in the file's header: marks the file as a store
_VERSION = 1
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE events (number INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT;
"""


class Store:
    """The event log, the world folded from it, and the clock.

    Parameters
    ----------
    path : str or Path
        A file, created if there is none, or ":memory:" to keep nothing.
    transition_s : float
        How long Creating, Starting, Updating and Stopping last, in scaled seconds.
    time_scale : float
        Scaled seconds per wall second.
    choices : Undocumented, optional
        Behaviour that AWS does not document.
    probed : frozenset of str
        Models with real backends, which must answer /ping; "*" stands for all.
    quotas : Quotas, optional
        Generous ones by default.
    region, account : str
        Used in ARNs. An existing file keeps its own.
    wall, steady : callable
        The wall clock, and one that is never set.

    Raises
    ------
    InputError
        The file is not a store, is in use by another process, or cannot be read or written; or an option is invalid.
    """

    def __init__(
        self,
        path: str | Path = IN_MEMORY,
        *,
        transition_s: float = TRANSITION_S,
        time_scale: float = TIME_SCALE,
        choices: Undocumented | None = None,
        probed: frozenset[str] = frozenset(),
        quotas: Quotas | None = None,
        region: str = "us-east-1",
        account: str = "111122223333",
        wall: Callable[[], float] = time,
        steady: Callable[[], float] = monotonic,
    ):
        if not 0 <= transition_s < 1e6:
            raise InputError("--transition-s", "must be >= 0 and < 1000000", transition_s)
        for name, value, pattern, description in (
            ("--region", region, r"[a-z0-9-]+", "lower-case letters, digits and hyphens"),
            ("--account", account, r"[0-9]{12}", "12 digits"),
        ):
            if not re.fullmatch(pattern, value):
                raise InputError(name, f"must be {description}", value)
        Clock(0.0, 0.0, time_scale)  # checks the scale before a file is created
        self.path = str(path)
        if not self.path or "\0" in self.path:  # SQLite reads "" as a temporary file
            raise InputError("--db", "must name a file, or be :memory:", self.path)
        self.quotas = quotas or Quotas.read()
        self.throttle = Throttle(self.quotas)
        self._checksum = ""
        self._kept_s = math.inf  # the time told that is in the file
        self._connection = _open_database(self.path)
        try:
            self._facts = dict(self._connection.execute("SELECT name, value FROM facts"))
            self.region, self.account = self._fact("region", region), self._fact("account", account)
            self.key, origin, told_s = self._read_facts()
            self.world = self._fold()
            self.clock = Clock.resumed(origin, time_scale, wall, steady, max(told_s, self.world.now_s))
            self._write_fact("origin", json.dumps(self.clock.origin))
            self._configure(transition_s, choices or Undocumented(), probed)
            self._kept_s = self.world.now_s if self.is_kept else math.inf
        except sqlite3.Error as error:
            self.close()
            raise InputError("--db", f"{self.path} cannot be used: {error}") from None
        except BaseException:
            self.close()
            raise

    @property
    def is_kept(self) -> bool:
        """Whether the events outlive the process."""
        return self.path != IN_MEMORY

    def world_at(self, now: float) -> World:
        """Return the world advanced to a moment, unchanged if it is already later; callers must not modify it."""
        now = _rounded_to_us(now)
        has_changed = self.world.due_s <= now
        transitions.advance(self.world, now)
        if now > self._kept_s and (has_changed or now > self._kept_s + KEEP_S * self.clock.scale):
            self._keep_time()
        return self.world

    def accept(self, kind: str, body: Mapping[str, Any], now: float) -> None:
        """Append an event and apply it to the world; it is on the disk when this returns.

        Parameters
        ----------
        kind : str
            An action, "Configure" or "Ping".
        body : mapping
            Plain JSON.
        now : float
            Scaled seconds since 1970; a moment before the world's is replaced by the world's.

        Raises
        ------
        StoreError
            The event cannot be written; it is not applied either.
        """
        at_s, text = max(_rounded_to_us(now), self.world.now_s), json.dumps(body)
        before, checksum = self._checksum, _chained(self._checksum, at_s, kind, text)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            statement = "INSERT INTO events (at_s, kind, body) VALUES (?, ?, ?)"
            number = self._connection.execute(statement, (at_s, kind, text)).lastrowid
            self._write_fact("checksum", f"{number} {checksum}")
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._facts.pop("checksum", None)
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise StoreError(f"{self.path}: cannot be written: {error}") from None
        try:
            events.apply(self.world, kind, body, at_s)
        except BaseException:  # a defect: the event must not stay in the log
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("DELETE FROM events WHERE number = ?", (number,))
                self._write_fact("checksum", f"{(number or 1) - 1} {before}")
            self.world = self._fold()
            raise
        self._checksum = checksum

    def events(self) -> Iterator[tuple[int, float, str, str]]:
        """Yield (number, at_s, kind, JSON text of the body) of each event, in order."""
        yield from self._connection.execute("SELECT number, at_s, kind, body FROM events ORDER BY number")

    def n_events(self) -> int:
        """Return the number of accepted events."""
        (count,) = self._connection.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._kept_s < math.inf:
            self._keep_time()
            self._kept_s = math.inf
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fold(self) -> World:
        world, expected, checksum = World(region=self.region, account=self.account), 1, ""
        checked, _, kept = self._facts.get("checksum", "").partition(" ")
        for number, at_s, kind, body in self.events():
            if number != expected:  # numbers have no gaps
                raise InputError("--db", f"{self.path} is damaged: event {expected} is missing")
            checksum = _chained(checksum, at_s, kind, body)
            try:
                events.apply(world, kind, json.loads(body), at_s)
            except Exception as error:  # an event of another version, or damage that SQLite did not detect
                reason = f"{type(error).__name__}: {error}"
                raise InputError("--db", f"{self.path}: event {number}, {kind}, cannot be applied: {reason}") from None
            expected += 1
            if str(number) == checked and checksum != kept:
                raise InputError("--db", f"{self.path} is damaged: the checksum of events 1 to {number} is wrong")
        if checked and not checked.isdecimal():
            raise InputError("--db", f"{self.path} is damaged: its facts cannot be read: the checksum's number")
        if checked and int(checked) >= expected:
            raise InputError("--db", f"{self.path} is damaged: event {checked} is missing")
        self._checksum = checksum
        return world

    def _keep_time(self) -> None:
        """Keep the world's moment as the latest time told; a file that cannot be written is told by the next event."""
        self._kept_s = self.world.now_s
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                self._write_fact("told", json.dumps(self._kept_s))
            finally:
                self._connection.execute("PRAGMA synchronous = FULL")

    def _read_facts(self) -> tuple[bytes, Origin | None, float]:
        """Return the key, created if there is none, the clock's origin, None for a new store, and the time told."""
        key, origin = self._fact("key", token_bytes(32).hex()), self._facts.get("origin")
        try:
            wall_s, scaled_s, scale = json.loads(origin) if origin else (0.0, 0.0, 1.0)
            checked = Clock(float(wall_s), float(scaled_s), float(scale)).origin
            told_s = float(json.loads(self._facts.get("told", "-Infinity")))
            return bytes.fromhex(key), checked if origin else None, told_s
        except (ValueError, TypeError) as error:
            raise InputError("--db", f"{self.path} is damaged: its facts cannot be read: {error}") from None

    def _configure(self, transition_s: float, choices: Undocumented, probed: frozenset[str]) -> None:
        # The fold depends on these options, so they are events too: the first one, and one for each change.
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


def _chained(checksum: str, at_s: float, kind: str, body: str) -> str:
    """Return the checksum of a log that ends with an event, from that of the log before it."""
    text = f"{checksum} {at_s!r} {kind} {body}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _rounded_to_us(now: float) -> float:
    # Clients send times in whole microseconds; rounded alike, a schedule of exactly 30 days is not longer than that.
    return round(now, 6)


def _open_database(path: str) -> sqlite3.Connection:
    """Return a connection that holds the file's lock; a new file gets the tables."""
    file = Path(path)
    for place in () if path == IN_MEMORY else (file, file.parent):
        if place.exists() and not os.access(place, os.W_OK):  # SQLite would report an I/O error
            raise InputError("--db", f"must be a writable file, and {place} is not writable")
    connection = None
    try:
        # Only one thread uses the connection at a time, but the finaliser may run on another.
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        # The lock is held from the first statement on, so that two servers never fold the same log.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if n_tables == 0 and application_id == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif application_id != _APPLICATION_ID:
            raise InputError("--db", f"must be a file created by shadowsim, or a new one, and {path} is neither")
        elif version != _VERSION:
            raise InputError("--db", f"{path} must be of version {_VERSION}", version)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")  # changes the file, so only after the checks
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        reason = "is in use by another process" if "locked" in str(error) else f"cannot be used: {error}"
        raise InputError("--db", f"{path} {reason}") from None
    except BaseException:
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            connection.close()
        raise
    return connection
