"""Defines the commands schema and explain: the reference of a scenario."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from shadowsim.cli.console import print_json
from shadowsim.errors import InputError

app = typer.Typer()

_EDITOR = """\b
Example: shadowsim schema > scenario.schema.json
An editor completes and checks a scenario by it. VS Code, for JSON and for YAML (with the extension of Red Hat):
  "json.schemas": [{"fileMatch": ["*scenario*.json"], "url": "./scenario.schema.json"}]
  "yaml.schemas": {"./scenario.schema.json": "*scenario*.yaml"}
"""


@app.command(epilog=_EDITOR)
def schema() -> None:
    """Print the JSON Schema of a scenario.

    It has a sentence, unit, default and range for each key, and is made from the code that reads scenarios. Rules
    across keys, which a schema cannot say, are listed in its `$comment`.
    """
    from shadowsim.reference.schema import scenario_schema

    print_json(scenario_schema())


@app.command(epilog="Example: shadowsim explain services.*.tokens.step")
def explain(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A path in a scenario (traffic.profile, services.*.time) or an alias (shadow.instance_count).",
            show_default="the whole scenario",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print its entries with their JSON Schema as JSON.")] = False,
) -> None:
    """Explain a key of a scenario.

    Prints what it means, its unit, default and range, the keys inside it and examples.
    """
    from shadowsim.reference.explain import entries
    from shadowsim.reference.explain import explain as text_of

    try:
        found = entries(path)
    except InputError:
        _check_goal(path)
        raise
    if as_json:
        print_json([asdict(entry) for entry in found])
    else:
        typer.echo(text_of(path))


def _check_goal(path: str) -> None:
    """Refuse the figure of a goal in words of its own: it is no key, and none is near in meaning."""
    from shadowsim.planning.slo import parse_slo

    for limit in ("200ms", "1%"):  # of a time, and of a share
        try:
            parse_slo(f"{path} <= {limit}")
        except InputError:
            continue
        where = f'is a figure of goals, as in --slo "{path} <= {limit}", and no key; `shadowsim size --help` lists them'
        raise InputError(path, where)
