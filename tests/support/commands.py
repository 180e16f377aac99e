"""Runs command lines for the tests of all commands, and checks how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from shadowsim.cli.main import app

# The program makes its tree of commands once. The runner would for each command line, in a fifth of its time.
typer.testing._get_command = cache(typer.main.get_command)  # type: ignore[attr-defined]


def run(*args: object, stdin: str | bytes | None = None) -> Result:
    done = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
    # Any other exception would be a traceback for the user.
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def good(*args: object, stdin: str | bytes | None = None) -> str:
    done = run(*args, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*args: object, stdin: str | bytes | None = None) -> str:
    """Return the one line of a refusal."""
    done = run(*args, stdin=stdin)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    return done.stderr[len("error: ") : -1]


def process(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shadowsim", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)  # type: ignore[call-overload]


def written(file: Path, value: object) -> Path:
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return file
