"""Prints JSON and CSV for machines, and turns errors into single lines and exit statuses.

Exit status: 0; 1 for a goal that is not met (an SLO, something worse, with `--strict` anything but certain); 2 for bad
input, with one line on standard error that names the field; 130 when interrupted; 141 when the reader of the output has
closed it, as for any program in a pipe. Any other exception is a defect and keeps its traceback.

Standard output holds answers only, the same for the same input; progress, timing and errors go to standard error.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from errno import ENOSPC, EPIPE
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar

import typer
from typer.core import TyperGroup

from shadowsim.cli.option_parsers import BadOptionError
from shadowsim.errors import InputError, ShadowsimError, SimulationError, ValidationError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

# Verdicts and outcomes in texts: a status is a word in capitals, an outcome ends a line or opens one.
_STYLES = {
    r"\b(STABLE|VALID)\b": "bold green",
    r"\b(OVERLOADED|INVALID|MISSED)\b": "bold red",
    r"\b(TOO SHORT|NOT ENOUGH)\b": "bold yellow",
    r"(?m)\b(met|better|faster)$|^(valid|right|met)\b": "green",
    r"(?m)\b(missed|worse|slower|unknown, so not met)$|^(missed|not right)\b|^(Worse)\b": "red",
    r"(?m)\b(not enough data|too close to be certain)\b|^(cannot tell|not certain)\b|^(Not enough data)\b": "yellow",
    r"^error:": "bold red",
}
_OTHER_WORDS = {  # options that there are not, and what to type instead
    **dict.fromkeys(("--duration", "--horizon", "--length"), "--set horizon_s=1d sets the length of a run"),
    **dict.fromkeys(("--instances", "--instance-count"), "--set shadow.instance_count=3 sets the number of instances"),
    **dict.fromkeys(("--share", "--sampling-percentage"), "--set sampling_percentage=50 sets the share"),
}
_ARGUMENTS = ("url", "measurements", "load_run")
_LIBRARY_NAMES = {  # of parameters that have other names than the options
    **{"rate_per_s": "rate", "duration_s": "duration", "timeout_s": "timeout", "max_rate_per_s": "max_rate"},
    **{"headers": "header", "instance_type": "types", "instance_types": "types", "roles": "variants", "grid": "set"},
    "metrics": "metric",
}
FAILED_GOAL, BAD_INPUT, INTERRUPTED, READER_GONE = 1, 2, 130, 141


class Commands(TyperGroup):
    """The group of all commands; it turns errors into lines and exit statuses."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line and exit with its status."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name in an alphabet that the terminal lacks must not stop a run.
                stream.reconfigure(errors="backslashreplace")
        try:
            status = super().main(*args, **{**extra, "standalone_mode": False}) or 0
        except SimulationError:  # a defect, not bad input
            raise
        except ShadowsimError as error:
            status = _refused(error_lines(error))
        except BadOptionError as error:
            status = _refused([str(error.named())])
        except typer.Abort:
            status = INTERRUPTED
        except Exception as error:
            # Typer's usage errors: their class has no public name, since some versions of Typer hold click inside.
            if not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            see = f" (see {context.command_path} --help)" if context else ""
            status = _refused([_usage(error) + see])
        sys.exit(status)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; end in good order when it is interrupted or its output cannot be written."""
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
        except InputError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            raise error if command is None else _named_by_options(error, command.params) from None
        except KeyboardInterrupt as stop:
            for note in getattr(stop, "__notes__", []):  # which finished work is kept, and how to continue
                typer.echo(one_line(note), err=True)
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in (EPIPE, ENOSPC) or error.filename is not None:
                raise
            # At exit Python would try to write the rest once more, and print a warning.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno == EPIPE:
                raise typer.Exit(READER_GONE) from None
            raise InputError("standard output", f"cannot be written: {error.strerror}") from None
        return value


def _usage(error: Any) -> str:
    """Return what is wrong with a command line, and what other words newcomers have for what they want."""
    option = getattr(error, "option_name", "")
    options = {name for param in error.ctx.command.params for name in param.opts} if error.ctx else set()
    if option in _OTHER_WORDS and "--set" in options:
        return f"No such option: {option}; {_OTHER_WORDS[option]}"
    message: str = error.format_message().rstrip(".")
    is_page = re.search(r"unexpected extra argument.*\.html\)$", message)
    return f"{message}: --report takes no file here; with -o DIR it writes DIR/report.html" if is_page else message


def _named_by_options(error: InputError, params: Iterable[Any]) -> InputError:
    """Return an error of a library function under the names of the command's options, also between backticks.

    Functions have parameters such as `headroom_pct`; whoever typed --headroom-pct must find that in the error. Of
    arguments only those are named that cannot be mistaken for a key of a scenario.
    """
    if len(error.each) > 1:  # a scenario's
        return error
    options: dict[str, str] = {}
    for param in params:
        if param.param_type_name == "option":
            option = max(param.opts, key=len)
            options |= dict.fromkeys((param.name, option.lstrip("-").replace("-", "_")), option)
        elif param.name in _ARGUMENTS:
            options[param.name] = param.metavar
    options |= {name: options[other] for name, other in _LIBRARY_NAMES.items() if other in options}

    def named(text: str) -> str:
        return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), text)

    path = options.get(error.path, error.path)
    return InputError(path, named(error.constraint), *error.value, hint=named(error.hint))


def show(text: str, for_machines: bool = False) -> None:
    """Print a text for people, its verdicts and outcomes in colour where it goes to a terminal.

    Elsewhere, and where NO_COLOR is set or the terminal is dumb, it is printed as it is. `for_machines` sends it to
    standard error, since standard output holds an answer for machines.
    """
    stream = sys.stderr if for_machines else sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb"):
        typer.echo(text, err=for_machines)
        return
    from rich.console import Console  # a terminal waits for it, a pipe need not
    from rich.text import Text

    shown = Text(text)
    for pattern, style in _STYLES.items():
        shown.highlight_regex(pattern, style)
    Console(file=stream, soft_wrap=True, highlight=False).print(shown)


def print_json(value: object) -> None:
    """Print a value as JSON, in characters that standard output can show; NaN and infinity become null."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=not unicode, allow_nan=False))


def print_frame(frame: pd.DataFrame, as_json: bool, index: bool = False) -> None:
    """Print a frame for machines: as a JSON list of rows, or as CSV."""
    if as_json:
        print_json((frame.reset_index() if index else frame).to_dict("records"))
    else:
        typer.echo(frame.to_csv(index=index, lineterminator="\n"), nl=False)


def plain(value: Any) -> object:
    """Return a value with JSON's types only: no NaN, no infinity, none of the types of pandas and numpy."""
    kind = type(value).__name__  # so that pandas and numpy need not be loaded
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


def error_lines(error: ShadowsimError) -> list[str]:
    """Return one line per thing that is wrong."""
    match error:
        case ValidationError():
            return list(error.violations)
        case InputError():
            return list(map(str, error.each))
    return [str(error)]


def one_line(text: str) -> str:
    """Return a text as one line, without characters that would control a terminal."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


def writing(path: Path, write: Callable[[], T]) -> T:
    """Call `write` and return its value; raise `InputError` when the file cannot be written (full disk, permission)."""
    try:
        return write()
    except OSError as error:
        raise InputError(str(path), f"cannot be written: {error.strerror or error}") from None


def _refused(lines: Iterable[str]) -> int:
    """Print one line per error, and return the exit status."""
    for line in lines:
        show(f"error: {one_line(line)}", for_machines=True)
    return BAD_INPUT
