"""Runs the command line for `python -m shadowsim`."""

from __future__ import annotations

from shadowsim.cli.main import app

if __name__ == "__main__":
    app(prog_name="shadowsim")
