"""How a command answers machines and how it ends: its exit status, and errors as single lines.

Exit status: 0; 1 for a goal that is not met (an SLO, something worse, with `--strict` anything but certain); 2 for bad
input, with a line on standard error that names the field; 130 when interrupted; 141 when whoever reads the output has
gone, as for any program in a pipe. Anything else that is raised is a defect and keeps its traceback.

Standard output holds answers, the same ones for the same input; progress, timing and errors go to standard error.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from errno import ENOSPC, EPIPE
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar

import typer
from typer.core import TyperGroup

from shadowsim.errors import InputError, ShadowsimError, SimulationError, ValidationError

if TYPE_CHECKING:
    import pandas as pd

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
        except KeyboardInterrupt as stop:
            for note in getattr(stop, "__notes__", []):  # what is kept of the work, and how to go on
                typer.echo(one_line(note), err=True)
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
    """Write a value as JSON, in characters that standard output can show; what is no finite number is null."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=not unicode, allow_nan=False))


def print_frame(frame: pd.DataFrame, as_json: bool, index: bool = False) -> None:
    """Write a frame for machines: as JSON a list of rows, else as CSV."""
    if as_json:
        print_json((frame.reset_index() if index else frame).to_dict("records"))
    else:
        typer.echo(frame.to_csv(index=index, lineterminator="\n"), nl=False)


def plain(value: Any) -> object:
    """Return a value as JSON has it: no NaN, no infinity, none of pandas' and numpy's own kinds."""
    kind = type(value).__name__  # pandas and numpy need not be loaded
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case Integral() if kind != "bool":
            return int(value)
        case SupportsFloat() if kind != "bool":
            return float(value) if math.isfinite(value) else None
    return bool(value) if kind == "bool" else None if kind == "NAType" else value


def one_line(text: str) -> str:
    """Return a text as one line, with nothing in it that a terminal takes for a command."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


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
