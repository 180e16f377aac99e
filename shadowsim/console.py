"""How a command ends: its exit status, and errors as single lines.

Exit status: 0; 1 for a failed goal (`--strict`); 2 for bad input, with a line on standard error that names the field;
130 when interrupted; 141 when whoever reads the output has gone, as for any program in a pipe. Anything else that is
raised is a defect and keeps its traceback.

Standard output holds answers, the same ones for the same input; progress, timing and errors go to standard error.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from errno import ENOSPC, EPIPE
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from shadowsim.errors import InputError, ShadowsimError, SimulationError, ValidationError

T = TypeVar("T")

FAILED_GOAL, BAD_INPUT, INTERRUPTED, READER_GONE = 1, 2, 130, 141


class Commands(TyperGroup):
    """The group of all commands: it makes lines and exit statuses of errors."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line and exit with its status."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name in another alphabet must not stop a run on a terminal that lacks it.
                stream.reconfigure(errors="backslashreplace")
        try:
            status = super().main(*args, **{**extra, "standalone_mode": False}) or 0
        except SimulationError:  # a defect, not bad input
            raise
        except ShadowsimError as error:
            status = _refused(error.violations if isinstance(error, ValidationError) else [str(error)])
        except typer.Abort:
            status = INTERRUPTED
        except Exception as error:
            # typer's usage errors; some versions bring click and some have it inside, so it cannot be named here.
            if not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            see = f" (see {context.command_path} --help)" if context else ""
            status = _refused([error.format_message().rstrip(".") + see])
        sys.exit(status)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and end in order when it is stopped from outside."""
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in (EPIPE, ENOSPC) or error.filename is not None:
                raise
            # Python would try once more to write what is left, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno == EPIPE:
                raise typer.Exit(READER_GONE) from None
            raise InputError("standard output", f"cannot be written: {error.strerror}") from None
        return found


def print_json(value: object) -> None:
    """Write a value as JSON, in characters that standard output can show."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(value, indent=2, ensure_ascii=not unicode, allow_nan=False))


def one_line(text: str) -> str:
    """Return a text as one line, with nothing in it that a terminal takes for a command."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


def number_of(option: str, text: str | None) -> float | None:
    """Return the number that an option gives, None when it is left out; typer's message would not show what it got."""
    if text is None:
        return None
    try:
        return int(text) if text.strip("+-").isdecimal() else float(text)
    except ValueError:
        raise InputError(option, "must be a number", text) from None


def writing(path: Path, write: Callable[[], T]) -> T:
    """Return what `write` does; that a file cannot be written (a full disk, no permission) is bad input."""
    try:
        return write()
    except OSError as error:
        raise InputError(str(path), f"cannot be written: {error.strerror or error}") from None


def _refused(lines: Iterable[str]) -> int:
    for line in lines:
        typer.echo(f"error: {one_line(line)}", err=True)
    return BAD_INPUT
