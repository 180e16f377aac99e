"""Keeps the log of accepted events in SQLite, and folds it into the account again at every start.

An event is written and synced to the disk before its action is answered (WAL with synchronous=FULL), so a process that
is killed at any moment loses nothing that it answered. Only one process can use the file: it holds an exclusive lock
while the store is open. After a kill the newest events are in the -wal file beside the database: copy both.

Every so many events, one transaction writes the records of the account that have changed since the last snapshot to the
table `records`, and deletes the events before it. So the file always holds one whole account, as it was after an event,
and the events since. It grows with the account, not with its history, and neither a start nor a snapshot takes longer
for a longer history. Requests are kept as accepted, and events are never updated.

The table `facts` holds the server's own values by name: region and account for ARNs, the key that signs page tokens,
the origin of the clock, the checksum of the log, the snapshot (its event's number, the checksum of the log up to it,
and the sum of the checksums of its records), the latest time told, and a checksum of these facts. The checksum of the
log chains its events. So a start detects any damage to what it reads. A file of version 1 has no snapshot; it is read
as it is, and gets one. The time told is kept after each event, and whenever a status has changed by itself, before the
status is told, so that no restart takes it back, even if the wall clock was set back. It is not synced, so that it
survives a kill but not a loss of power.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from time import monotonic, time
from types import TracebackType
from typing import Any

from shadowsim.errors import InputError, StoreError
from shadowsim.option_defaults import TIME_SCALE, TRANSITION_S
from shadowsim.server.state import events, snapshot, transitions
from shadowsim.server.state.account import World
from shadowsim.server.state.clock import Clock, Origin
from shadowsim.server.state.database import IN_MEMORY, VERSION, damaged, open_database, unusable, upgrade
from shadowsim.server.state.quotas import Quotas, Throttle
from shadowsim.server.state.undocumented import Undocumented

KEEP_S = 1.0  # wall time after which the time told is kept again
SNAPSHOT_EVENTS = 100  # a snapshot of their changes holds the event loop for some ms
_CHECKSUM_BYTES = 16
_SUMS = 1 << 8 * _CHECKSUM_BYTES  # sums of checksums are modulo this
_FACTS = "facts"  # the fact that is the checksum of all others
_LOG = logging.getLogger(__name__)


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
    snapshot_events : int
        Events after which they are replaced by a snapshot.
    wall, steady : callable
        The wall clock, and one that is never set.

    Attributes
    ----------
    tell : callable or None
        Gets the number, moment, kind and JSON text of each event that is accepted from now on.

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
        snapshot_events: int = SNAPSHOT_EVENTS,
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
        self.tell: Callable[[int, float, str, str], None] | None = None
        self._snapshot_events = snapshot_events
        self._number, self._checksum = 0, ""  # of the last event
        self._next_snapshot, self._place, self._total = 0, 0, 0
        self._kept_s = math.inf  # the time told that is in the file
        self._connection, self._version = open_database(self.path)
        try:
            self._facts = self._read_facts()
            with self._transaction():
                defaults = {"region": region, "account": account, "key": token_bytes(32).hex()}
                self._write_facts({**defaults, **self._facts})
            self.region, self.account = self._facts["region"], self._facts["account"]
            self.key, origin, told_s = self._parse_facts()
            self.world = self._fold()
            self.clock = Clock.resumed(origin, time_scale, wall, steady, max(told_s, self.world.now_s))
            with self._transaction():
                self._write_facts({"origin": json.dumps(self.clock.origin)})
            self._configure(transition_s, choices or Undocumented(), probed)
            if self._number >= self._next_snapshot or self._version < VERSION:
                self._snapshot()
            self._kept_s = self.world.now_s if self.is_kept else math.inf
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.close()
            raise unusable(self.path, error) from None
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
        before, number, checksum = self._checksum, self._number + 1, chained(self._checksum, at_s, kind, text)
        try:
            with self._transaction():
                self._connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (number, at_s, kind, text))
                self._write_facts({"checksum": f"{number} {checksum}"})
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be written: {error}") from None
        try:
            events.apply(self.world, kind, body, at_s)
        except BaseException:  # a defect: the event must not stay in the log
            with self._transaction():
                self._connection.execute("DELETE FROM events WHERE number = ?", (number,))
                self._write_facts({"checksum": f"{number - 1} {before}"})
            self.world = self._fold()
            raise
        self._number, self._checksum = number, checksum
        if self.tell is not None:
            self.tell(number, at_s, kind, text)
        if self.is_kept:  # also so that damage to this event in the -wal file does not look like its end
            self._keep_time()
        if number >= self._next_snapshot:
            self._snapshot()

    def replace_quotas(self, quotas: Quotas) -> None:
        """Enforce other quotas from now on."""
        self.quotas, self.throttle = quotas, Throttle(quotas)

    def events(self) -> Iterator[tuple[int, float, str, str]]:
        """Yield (number, at_s, kind, JSON text of the body) of each event since the snapshot, in order."""
        yield from self._connection.execute("SELECT number, at_s, kind, body FROM events ORDER BY number")

    def n_events(self) -> int:
        """Return the number of events ever accepted."""
        return self._number

    @property
    def checksum(self) -> str:
        """Checksum of all events ever accepted, each chained to those before it."""
        return self._checksum

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
        """Return the account of the snapshot with the events after it applied."""
        gc_was_enabled = gc.isenabled()
        gc.disable()  # a fold makes many objects, and hardly any cycles
        try:
            return self._folded(self._restored())
        finally:
            if gc_was_enabled:
                gc.enable()

    def _restored(self) -> World:
        number, _, rest = self._facts.get("snapshot", "0  0").partition(" ")
        self._checksum, _, total = rest.partition(" ")
        self._number, self._next_snapshot = int(number), int(number) + self._snapshot_events
        world = World(region=self.region, account=self.account)
        if self._version < VERSION:
            return world
        self._place = self._total = 0
        try:
            snapshot.restore(world, self._records())
        except (ValueError, LookupError, TypeError) as error:  # of another version
            if isinstance(error, InputError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise damaged(self.path, f"its snapshot cannot be read: {reason}") from None
        if f"{self._total:x}" != total:
            raise damaged(self.path, "records of its snapshot are missing, or older than others")
        return world

    def _records(self) -> Iterator[tuple[str, str, str]]:
        """Yield the kind, name and JSON text of the snapshot's records, and sum up their checksums."""
        total = 0
        statement = "SELECT place, kind, name, body, checksum FROM records ORDER BY place"
        for place, kind, name, body, checksum in self._connection.execute(statement):
            if checksum != _record_checksum(kind, name, place, body):
                raise damaged(self.path, f"the checksum of its record {kind} {name} is wrong")
            total += int.from_bytes(checksum)
            yield kind, name, body
            self._place = place
        self._total = total % _SUMS

    def _folded(self, world: World) -> World:
        checked, _, kept = self._facts.get("checksum", "").partition(" ")
        for number, at_s, kind, body in self.events():
            if number != self._number + 1:  # numbers have no gaps
                raise damaged(self.path, f"event {self._number + 1} is missing")
            self._number, self._checksum = number, chained(self._checksum, at_s, kind, body)
            try:
                events.apply(world, kind, json.loads(body), at_s)
            except Exception as error:  # an event of another version, or damage that SQLite did not detect
                reason = f"{type(error).__name__}: {error}"
                raise damaged(self.path, f"event {number}, {kind}, cannot be applied: {reason}") from None
            if str(number) == checked and self._checksum != kept:
                raise damaged(self.path, f"the checksum of events 1 to {number} is wrong")
        if checked and int(checked) > self._number:
            raise damaged(self.path, f"event {checked} is missing")
        if (
            checked and int(checked) < self._number and self._version == VERSION
        ):  # version 1 may lack the latest checksum
            raise damaged(self.path, f"event {self._number} was not written by a server")
        return world

    def _snapshot(self) -> None:
        """Write the records that have changed, and delete the events; a file that cannot be written keeps both."""
        self._next_snapshot = self._number + self._snapshot_events
        place, total, rows, version = self._place, self._total, [], self._version
        try:
            with self._transaction():
                if version < VERSION:
                    upgrade(self._connection)
                    self._version = VERSION
                for kind, name in snapshot.removed_rows(self.world):
                    total = _sum(total, self._record_sum(kind, name), -1)
                    self._connection.execute("DELETE FROM records WHERE kind = ? AND name = ?", (kind, name))
                for kind, name, body in snapshot.changed_rows(self.world):
                    found = self._connection.execute(
                        "SELECT place, checksum FROM records WHERE kind = ? AND name = ?", (kind, name)
                    ).fetchone()
                    if found is None:
                        place += 1
                    else:
                        total = _sum(total, found[1], -1)
                    row_place = place if found is None else found[0]
                    checksum = _record_checksum(kind, name, row_place, body)
                    total = _sum(total, checksum)
                    rows.append((row_place, kind, name, body, checksum))
                self._connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", rows)
                self._connection.execute("DELETE FROM events")
                self._write_facts({"snapshot": f"{self._number} {self._checksum} {total:x}"})
        except sqlite3.Error as error:
            self._version = version
            _LOG.warning("%s: no snapshot could be written, the log goes on: %s", self.path, error)
            return
        self._place, self._total = place, total
        snapshot.forget_changes(self.world)

    def _record_sum(self, kind: str, name: str) -> bytes:
        statement = "SELECT checksum FROM records WHERE kind = ? AND name = ?"
        found = self._connection.execute(statement, (kind, name)).fetchone()
        return found[0] if found else b""

    def _keep_time(self) -> None:
        """Keep the world's moment as the latest time told; a file that cannot be written is told by the next event."""
        self._kept_s = self.world.now_s
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._transaction():
                    self._write_facts({"told": f"{json.dumps(self._kept_s)} {self._number}"})
            finally:
                self._connection.execute("PRAGMA synchronous = FULL")

    def _read_facts(self) -> dict[str, str]:
        facts = dict(self._connection.execute("SELECT name, value FROM facts"))
        checksum = facts.pop(_FACTS, None)
        (is_used,) = self._connection.execute("SELECT EXISTS (SELECT 1 FROM events)").fetchone()
        is_new = not (facts or checksum or is_used)
        if not is_new and checksum != (_facts_checksum(facts) if self._version == VERSION else None):
            raise damaged(self.path, "its facts cannot be read: their checksum is wrong")
        return facts

    def _parse_facts(self) -> tuple[bytes, Origin | None, float]:
        """Return the key, the clock's origin, None for a new store, and the time told."""
        key, origin = self._facts["key"], self._facts.get("origin")
        try:
            wall_s, scaled_s, scale = json.loads(origin) if origin else (0.0, 0.0, 1.0)
            checked = Clock(float(wall_s), float(scaled_s), float(scale)).origin
            told_s = float(json.loads(self._facts.get("told", "-Infinity").partition(" ")[0]))
            int(self._facts.get("checksum", "0").partition(" ")[0])
            return bytes.fromhex(key), checked if origin else None, told_s
        except (ValueError, TypeError) as error:  # a file of version 1 has no checksum of them
            raise damaged(self.path, f"its facts cannot be read: {error}") from None

    def _configure(self, transition_s: float, choices: Undocumented, probed: frozenset[str]) -> None:
        # The fold depends on these options, so they are events too: the first one, and one for each change.
        world = self.world
        if self.n_events() == 0 or (world.transition_s, world.choices, world.probed) != (transition_s, choices, probed):
            body = {"transition_s": transition_s, "choices": asdict(choices), "probed": sorted(probed)}
            self.accept("Configure", body, self.clock.now())

    def _write_facts(self, facts: Mapping[str, str]) -> None:
        """Write facts that have changed, and their checksum; to be called within a transaction."""
        changed = {name: value for name, value in facts.items() if self._facts.get(name) != value}
        if not changed:
            return
        self._facts |= changed
        if self._version == VERSION:
            changed[_FACTS] = _facts_checksum(self._facts)
        self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", changed.items())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what is written within, or, after an exception, nothing of it."""
        facts = dict(self._facts)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._facts = facts
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise


def _facts_checksum(facts: Mapping[str, str]) -> str:
    text = json.dumps(sorted(facts.items()))
    return blake2b(text.encode(), digest_size=_CHECKSUM_BYTES).hexdigest()


def _record_checksum(kind: str, name: str, place: int, body: str) -> bytes:
    text = f"{kind} {name} {place} {body}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_CHECKSUM_BYTES).digest()


def _sum(total: int, checksum: bytes, sign: int = 1) -> int:
    """Return the sum of records' checksums with one added or taken away."""
    return (total + sign * int.from_bytes(checksum)) % _SUMS


def chained(checksum: str, at_s: float, kind: str, body: str) -> str:
    """Return the checksum of a log that ends with an event, from that of the log before it."""
    text = f"{checksum} {at_s!r} {kind} {body}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_CHECKSUM_BYTES).hexdigest()


def _rounded_to_us(now: float) -> float:
    # Clients send times in whole microseconds; rounded alike, a schedule of exactly 30 days is not longer than that.
    return round(now, 6)
