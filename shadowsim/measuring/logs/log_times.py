"""Reads the times in logs as whole nanoseconds since 1970, by the form in which they are written.

Digits alone are seconds, milliseconds, microseconds or nanoseconds by their number: 10, 13, 16 or 19, as for every time
from 2001 to 2286. A date has its own zone; one without a zone is read as UTC, and whoever reads it says so.
"""

from __future__ import annotations

import calendar
import re
from functools import lru_cache

NS_PER_S = 1_000_000_000

_UNITS_NS = {10: NS_PER_S, 13: 1_000_000, 16: 1_000, 19: 1}
_DATE = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)")
_REST = re.compile(r"(?:[.,](\d+))? ?(Z|UTC|[+-]\d\d:?\d\d)?")
_COMMON_LOG = re.compile(r"(\d{1,2})/([A-Za-z]{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})")
_MONTHS = {name: i for i, name in enumerate(calendar.month_abbr) if name}
_FIRST_NS, _LAST_NS = 300_000_000 * NS_PER_S, 4_100_000_000 * NS_PER_S  # days of 1979 and 2099


def time_ns(text: str) -> int:
    """Return a time in digits, digits with a fraction of a second, or a date; ValueError for anything else."""
    text = text.strip()
    if text.isdigit():
        if len(text) not in _UNITS_NS:
            raise ValueError(f"a time of {len(text)} digits has no unit: {text[:40]}")
        return _possible(int(text) * _UNITS_NS[len(text)], text)
    seconds, point, fraction = text.partition(".")
    if point and len(seconds) == 10 and seconds.isdigit() and fraction.isdigit():
        return _possible(int(seconds) * NS_PER_S + _fraction_ns(fraction), text)
    return date_ns(text)


def resolution_s(text: str) -> float:
    """Return to which part of a second a time is written: 1.0 for whole seconds, 0.001 for three digits of a second."""
    text = text.strip()
    if text.isdigit():
        return _UNITS_NS.get(len(text), NS_PER_S) / NS_PER_S
    fraction = re.search(r"\d[.,](\d+)", text)
    return 10.0 ** -len(fraction[1]) if fraction else 1.0


def date_ns(text: str) -> int:
    """Return a date of ISO 8601 (also with blank and slashes) or of the common log format; ValueError for others."""
    seconds = _seconds(text[:19])
    if seconds is None:
        return common_log_ns(text)
    rest = _REST.fullmatch(text, 19)
    if rest is None:
        raise ValueError(f"no time: {text[:40]}")
    fraction, zone = rest.groups()
    ns = seconds * NS_PER_S + (_fraction_ns(fraction) if fraction else 0)
    if zone and zone[0] in "+-":
        ns -= _offset_s(zone) * NS_PER_S
    return _possible(ns, text)


def has_zone(text: str) -> bool:
    """Tell whether a date names its zone; digits alone are always UTC."""
    return text.strip().replace(".", "", 1).isdigit() or bool(re.search(r"(Z|UTC|[+-]\d\d:?\d\d)$", text.strip()))


@lru_cache(maxsize=4096)
def common_log_ns(text: str) -> int:
    """Return a time such as 10/May/2024:00:00:00 +0000; ValueError for anything else."""
    match = _COMMON_LOG.fullmatch(text)
    month = _MONTHS.get(match[2].title()) if match else None
    if match is None or month is None:
        raise ValueError(f"no time: {text[:40]}")
    day, _, year, hour, minute, second, zone = match.groups()
    seconds = _calendar_s(int(year), month, int(day), int(hour), int(minute), int(second))
    return _possible((seconds - _offset_s(zone)) * NS_PER_S, text)


@lru_cache(maxsize=4096)
def _seconds(text: str) -> int | None:
    match = _DATE.fullmatch(text)
    return None if match is None else _calendar_s(*map(int, match.groups()))


def _calendar_s(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"no time of the calendar: {year}-{month}-{day} {hour}:{minute}:{second}")
    return calendar.timegm((year, month, day, hour, minute, second))


@lru_cache(maxsize=256)
def _offset_s(zone: str) -> int:
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


def _fraction_ns(digits: str) -> int:
    return int(digits[:9].ljust(9, "0"))


def _possible(ns: int, text: str) -> int:
    if not _FIRST_NS <= ns <= _LAST_NS:
        raise ValueError(f"a time before 1979 or after 2099: {text[:40]}")
    return ns
