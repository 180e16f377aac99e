"""Parses the values of options: numbers, shares, durations and times; an error names the option.

Typer's own messages for a wrong number do not show it. So each parser here takes the text and a name for it and raises
`InputError`; `option_parser` makes one into what Typer calls, which adds the option's name to the error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import typer

from shadowsim.errors import InputError
from shadowsim.quantities import parse_duration

T = TypeVar("T")


class BadOptionError(typer.BadParameter):
    """The value of an option cannot be used; Typer sets `param`, which says which option it is."""

    def __init__(self, error: InputError):
        super().__init__(str(error))
        self.error = error

    def named(self) -> InputError:
        """Return the error under the option's name."""
        option = max(self.param.opts, key=len) if self.param else self.error.path
        return InputError(option, self.error.constraint, *self.error.value, hint=self.error.hint)


def option_parser(parse: Callable[..., T], **bounds: Any) -> Callable[[str], T]:
    """Return the `parser` of a Typer option.

    Parameters
    ----------
    parse : callable
        Takes a text, a name for errors and the bounds, and returns a value or raises `InputError`.
    **bounds
        Passed on to `parse`.
    """

    def parser(text: str) -> T:
        try:
            return parse(str(text), "option", **bounds)  # Typer also passes the default, which may be a number
        except InputError as error:  # Typer would replace the text of a ValueError by its own
            raise BadOptionError(error) from None

    return parser


def number(text: str, name: str) -> float:
    """Return a number: an int when it is written as one, so that messages and JSON show it as it was written."""
    try:
        return int(text) if text.strip("+-").isdecimal() else float(text)
    except ValueError:
        unit = re.match(r"[\d.]+\s*(%|[a-zA-Z/]+)", text.strip())
        hint = f"; it takes no {'sign' if unit[1] == '%' else 'unit such as'} {unit[1]}" if unit else ""
        raise InputError(name, "must be a number", text, hint=hint) from None


def whole(text: str, name: str, least: int = 1, most: int | None = None) -> int:
    """Return a whole number within bounds."""
    value = number(text, name)
    if isinstance(value, int) and least <= value and (most is None or value <= most):
        return value
    upper = "" if most is None else f" and <= {most}"
    raise InputError(name, f"must be a whole number >= {least}{upper}", value)


def share(text: str, name: str) -> float:
    """Return a share from 0 to 1, written as 99% or 0.99."""
    value = number(text.strip().removesuffix("%"), name)
    value = value / 100.0 if text.strip().endswith("%") else value
    if not 0.0 <= value <= 1.0:
        raise InputError(name, "must be a share such as 99% or 0.99", text)
    return value


def seconds(text: str, name: str) -> float:
    """Return a duration in seconds: a plain number is in seconds, others have a unit, such as 200ms or 1d."""
    try:
        return number(text, name)
    except InputError:
        return parse_duration(text, name)


def time_s(text: str, name: str) -> float:
    """Return a time in seconds; it needs a unit, such as 200ms or 2s."""
    try:
        value = number(text, name)
    except InputError:
        return parse_duration(text, name)
    raise InputError(name, "needs a unit", value, hint=f"; {text}ms or {text}s?")


def positive_s(text: str, name: str, most: float) -> float:
    """Return a duration above 0 s and at most `most`, in seconds."""
    value = seconds(text, name)
    if 0.0 < value <= most:
        return value
    raise InputError(name, f"must be > 0 and <= {most:g}", value)


def moment(text: str, name: str) -> datetime:
    """Return a time in UTC, written in any way that boto3 takes."""
    from shadowsim.aws.contract import as_time

    time = as_time(text)
    if time is None:
        raise InputError(name, "must be a time such as 2026-12-01T00:00:00Z", text)
    return time


def split_commas(texts: list[str] | None) -> list[str] | None:
    """Return the items of an option that lists them by commas, by being repeated, or both."""
    return [item.strip() for text in texts for item in text.split(",")] if texts else None
