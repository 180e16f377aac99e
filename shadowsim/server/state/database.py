"""Opens a store's SQLite file for one process, and finds damage that SQLite does not report.

SQLite notices damage to the structure of its pages, but not to what they hold: store.py has checksums of that. Nor does
it notice damage to the -wal file, which holds the newest changes after a kill: it takes the first frame that it cannot
read as the end, as if all after it had never been answered. Here that end is compared with the end of the file. A kill
leaves at most one torn frame, the last. A loss of power can leave more, none of them answered; how to go on without
them is part of the message.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from struct import Struct

from shadowsim.errors import InputError

IN_MEMORY = ":memory:"
VERSION = 2  # 1 had no snapshots
REMEDY = "restore it from a copy, or name another file to begin anew"
RECORDS = """CREATE TABLE records (
    place INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, checksum BLOB NOT NULL,
    UNIQUE (kind, name)
) STRICT"""
_TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE events "
    "(number INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT",
)
_APPLICATION_ID = 0x53484457  # in the file's header: marks the file as a store
_WAL_HEADER, _FRAME_HEADER = Struct(">8I"), Struct(">6I")
_WAL_MAGIC = 0x377F0682  # its last bit tells the byte order of the checksums


def damaged(path: str, what: str) -> InputError:
    """Return the error for a damaged file: what is damaged, and what can be done."""
    return InputError("--db", f"{path} is damaged: {what}; {REMEDY}")


def unusable(path: str, error: sqlite3.Error | UnicodeDecodeError) -> InputError:
    """Return the error for a file that SQLite refuses, or that has text which is none."""
    reason, _, text = str(error).partition(" with text ")
    is_damage = bool(text) or not isinstance(error, sqlite3.OperationalError)
    return InputError("--db", f"{path} cannot be used: {reason}{f'; {REMEDY}' if is_damage else ''}")


def open_database(path: str) -> tuple[sqlite3.Connection, int]:
    """Return a connection that holds the file's lock, and the file's version; a new file gets the tables.

    Raises
    ------
    InputError
        The file is not a store, is damaged, is in use by another process, or cannot be written.
    """
    file = Path(path)
    for place in () if path == IN_MEMORY else (file, file.parent):
        if place.exists() and not os.access(place, os.W_OK):  # SQLite would report an I/O error
            raise InputError("--db", f"must be a writable file, and {place} is not writable")
    if path != IN_MEMORY:
        _check_wal(path)
    connection = None
    try:
        # Only one thread uses the connection at a time, but the finaliser may run on another.
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        # The lock is held from the first statement on, so that two servers never fold the same log.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        version = _checked_version(connection, path)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")  # changes the file, so only after the checks
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a message that quotes what is no text
        if connection is not None:
            connection.close()
        if "locked" in str(error):
            raise InputError("--db", f"{path} is in use by another process") from None
        raise unusable(path, error) from None
    except BaseException:
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            connection.close()
        raise
    return connection, version


def upgrade(connection: sqlite3.Connection) -> None:
    """Give a file of version 1 the table of snapshots; to be called within a transaction."""
    connection.execute(RECORDS)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _checked_version(connection: sqlite3.Connection, path: str) -> int:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
    if not tables and application_id == 0:
        for statement in (*_TABLES, RECORDS):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        return VERSION
    if application_id != _APPLICATION_ID:
        raise InputError("--db", f"must be a file created by shadowsim, or a new one, and {path} is neither")
    if version not in (1, VERSION):
        raise InputError("--db", f"{path} must be of version 1 or {VERSION}", version)
    (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if state != "ok":
        raise damaged(path, " ".join(state.split()))
    for statement in (*_TABLES, RECORDS)[: 3 if version == VERSION else 2]:
        if statement not in tables:
            name = statement.split()[2]
            raise damaged(path, f"no such table: {name}, as this version has it")
    return int(version)


def _check_wal(path: str) -> None:
    """Refuse a -wal file that has readable changes after unreadable ones, or that the main file does not name."""
    wal = Path(f"{path}-wal")
    if not wal.exists():
        return
    with open(path, "rb") if Path(path).exists() else open(os.devnull, "rb") as stream:
        header = stream.read(20)
    raw = wal.read_bytes()
    if len(raw) <= _WAL_HEADER.size:
        return
    if header[:16] == b"SQLite format 3\0" and header[18:20] != b"\2\2":
        raise damaged(path, f"its header leaves out the changes in {wal}")
    magic, _, page_bytes, _, *salts, sum_1, sum_2 = _WAL_HEADER.unpack_from(raw)
    order = ">" if magic & 1 else "<"
    is_header = magic | 1 == _WAL_MAGIC | 1 and page_bytes.bit_count() == 1 and page_bytes >= 512
    if not is_header or _checksum(raw[:24], order, (0, 0)) != (sum_1, sum_2):
        raise damaged(path, f"the header of {wal} cannot be read, and so none of the newest changes")
    sums, at, frame_bytes = (sum_1, sum_2), _WAL_HEADER.size, _FRAME_HEADER.size + page_bytes
    while at + frame_bytes <= len(raw):
        _, _, *frame_salts, sum_1, sum_2 = _FRAME_HEADER.unpack_from(raw, at)
        if frame_salts != salts:
            break
        sums = _checksum(raw[at + 24 : at + frame_bytes], order, _checksum(raw[at : at + 8], order, sums))
        if sums != (sum_1, sum_2):
            break
        at += frame_bytes
    # Frames behind the end are left over from before the file was last begun anew, and have other salts.
    for later in range(at + frame_bytes, len(raw) - _FRAME_HEADER.size + 1, frame_bytes):
        if list(_FRAME_HEADER.unpack_from(raw, later)[2:4]) == salts:
            what = f"{wal} cannot be read from byte {at} on, and has newer changes after it"
            raise damaged(path, f"{what} (`truncate -s {at} {wal}` gives them up)")


def _checksum(raw: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    """Return the checksum of SQLite's write-ahead log (https://www.sqlite.org/fileformat2.html, section 4.2)."""
    sum_1, sum_2 = sums
    words = Struct(f"{order}{len(raw) // 4}I").unpack(raw)
    for i in range(0, len(words), 2):
        sum_1 = (sum_1 + words[i] + sum_2) & 0xFFFFFFFF
        sum_2 = (sum_2 + words[i + 1] + sum_1) & 0xFFFFFFFF
    return sum_1, sum_2
