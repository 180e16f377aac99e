"""Declares the options that commands share, and builds the scenario of a command line."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from shadowsim.cli.completions import setting_paths
from shadowsim.cli.option_parsers import number, option_parser, time_s, whole
from shadowsim.errors import InputError

if TYPE_CHECKING:
    from shadowsim.scenario.scenario import Scenario


@dataclass(frozen=True)
class Origin:
    """Where a command's request or scenario comes from.

    Attributes
    ----------
    file : str
        A file; - is standard input.
    from_aws : str or None
        Or an experiment that exists.
    resource, parameters : str or None, and mapping
        Which resource of a template or plan is meant, and values for what it does not know.
    """

    file: str
    from_aws: str | None = None
    resource: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.from_aws or ("stdin" if self.file == "-" else self.file)

    @property
    def folder(self) -> Path | None:
        """The folder that file paths are relative to."""
        return None if self.from_aws or self.file == "-" else Path(self.file).parent

    def document(self) -> dict[str, Any]:
        """Return the object in it."""
        from shadowsim.documents import read_document

        if self.from_aws is not None:
            from shadowsim.aws.existing import described_experiment

            return described_experiment(self.from_aws, "--from-aws")
        return read_document(sys.stdin.buffer.read(), "stdin") if self.file == "-" else read_document(Path(self.file))

    def source(self) -> object:
        """Return what `Scenario.of` reads: a path, or the object."""
        return self.document() if self.from_aws or self.file == "-" else Path(self.file)


_FILE_HELP = (
    "A request or a scenario (JSON, YAML or TOML), a template or plan with a request, or an endpoint configuration; - "
    "reads standard input."
)


def in_existing_folder(option: str) -> Callable[[Path | None], Path | None]:
    """Return a callback that refuses a file in a directory that does not exist, before the work that would be lost."""

    def check(file: Path | None) -> Path | None:
        if file is not None and not os.path.isdir(file.parent):
            raise InputError(option, "must be a file in a directory that exists", str(file))
        return file

    return check


File = Annotated[
    Origin | None,
    typer.Argument(metavar="FILE", help=_FILE_HELP, show_default="the built-in scenario"),
]
RequiredFile = Annotated[Origin | None, typer.Argument(metavar="FILE", help=_FILE_HELP, show_default=False)]
_FromAws = Annotated[
    str | None,
    typer.Option("--from-aws", metavar="NAME", help="Take the experiment that exists in AWS (boto3), and no file."),
]
_Resource = Annotated[
    str | None,
    typer.Option("--resource", metavar="NAME", help="The resource of a template or plan, where there are several."),
]
_Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        metavar="NAME=VALUE",
        help="A value that a template or plan does not know, as in Role.Arn=...; repeatable.",
    ),
]
_ORIGIN_OPTIONS = {"from_aws": _FromAws, "resource": _Resource, "parameter": _Parameters}


def from_anywhere(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a `file` the options that say where it comes from; the command sees one `Origin`."""

    @wraps(command)
    def with_origin(
        *args: Any,
        file: str | None = None,
        from_aws: str | None = None,
        resource: str | None = None,
        parameter: list[str] | None = None,
        **options: Any,
    ) -> None:
        if from_aws is not None and file is not None:
            raise InputError("--from-aws", "must not be given together with a file")
        if file is None and from_aws is None and (resource or parameter):
            raise InputError("--resource" if resource else "--parameter", "needs a file")
        origin = None
        if from_aws is not None or file is not None:
            origin = Origin(file or "", from_aws, resource, dict(map(_parameter, parameter or [])))
        command(*args, file=origin, **options)

    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    new = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in _ORIGIN_OPTIONS.items()]
    own = [parameter.replace(kind=keyword) for parameter in signature.parameters.values()]
    place = [parameter.name for parameter in own].index("file")
    own[place] = own[place].replace(annotation=Annotated[str | None, *get_args(own[place].annotation)[1:]])
    with_origin.__signature__ = signature.replace(parameters=[*own, *new])  # type: ignore[attr-defined]
    with_origin.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *new)}
    return with_origin


def _parameter(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError("--parameter", "must be NAME=VALUE", text)
    return name.strip(), value


Rate = Annotated[
    float | None,
    typer.Option(
        parser=option_parser(number),
        metavar="R",
        help="Mean rate of the traffic in requests per second; a plain request needs it.",
    ),
]
Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        autocompletion=setting_paths,
        help="Change a value, as in shadow.instance_count=4 or horizon_s=1d; repeatable.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(parser=option_parser(whole, least=0), metavar="N", help="Seed of all random draws."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        parser=option_parser(whole),
        metavar="N",
        help="Number of threads; it does not change the result.",
        show_default="one per core",
    ),
]
PriceFile = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="Your own prices (CSV or JSON: instance type, USD per hour).",
        show_default="dated examples",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print machine-readable CSV.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", "--no-progress", help="Show neither progress nor timing.")]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        dir_okay=False,
        callback=in_existing_folder("--report"),
        help="Also write an HTML page with figures.",
    ),
]

# Options of comparisons.
MarginPct = Annotated[
    float,
    typer.Option(
        parser=option_parser(number), metavar="PCT", help="Largest latency difference that does not matter, in %."
    ),
]
MarginPoints = Annotated[
    float,
    typer.Option(
        parser=option_parser(number),
        metavar="P",
        help="Largest difference of error rates that does not matter, in percentage points.",
    ),
]
Confidence = Annotated[
    float, typer.Option(parser=option_parser(number), metavar="C", help="Confidence level of the intervals.")
]
SloS = Annotated[
    float | None,
    typer.Option(
        "--slo-s",
        parser=option_parser(time_s),
        metavar="T",
        help="Also compare the share of requests slower than this, as in 200ms.",
    ),
]
TtftSloS = Annotated[
    float | None,
    typer.Option(
        "--ttft-slo-s",
        parser=option_parser(time_s),
        metavar="T",
        help="Also compare the share of first tokens that come later than this, of services in tokens.",
    ),
]
TpotSloS = Annotated[
    float | None,
    typer.Option(
        "--tpot-slo-s",
        parser=option_parser(time_s),
        metavar="T",
        help="Also compare the share of answers that take longer than this per token after the first.",
    ),
]


def scenario_of(
    file: Origin | None, rate: float | None = None, edits: Sequence[str] | None = None, seed: int | None = None
) -> Scenario:
    """Return the scenario of a command line with all its edits made."""
    from shadowsim.scenario.paths import parse_set
    from shadowsim.scenario.scenario import Scenario, default_scenario

    changes: dict[str, object] = {} if seed is None else {"seed": seed}
    changes |= map(parse_set, edits or [])
    if file is None:
        return Scenario.of(default_scenario(), rate, changes)
    return Scenario.of(file.source(), rate, changes, resource=file.resource, parameters=file.parameters)


def assumption_lines(scenario: Scenario) -> list[str]:
    """Return what was assumed for a scenario, and how its traces were read, in wrapped lines."""
    return wrapped_assumptions(scenario.assumptions)


def wrapped_assumptions(sentences: Iterable[str]) -> list[str]:
    """Return sentences on what was assumed, in wrapped lines."""
    from shadowsim.text import wrapped

    return [wrapped(sentence, "assumed  ", " " * 9) for sentence in sentences]


def print_assumptions(scenario: Scenario, file: Origin | None, more: Iterable[str] = ()) -> None:
    """Print above an answer what it is about, and what was assumed; not before the work, which may be refused.

    Parameters
    ----------
    scenario : Scenario
    file : Origin or None
        Where it comes from; without one, a line says that it is the built-in scenario.
    more : iterable of str
        Further sentences.
    """
    built_in = ["scenario built-in, since no FILE was given (`shadowsim init` prints it)"] if file is None else []
    lines = [*built_in, *wrapped_assumptions((*scenario.assumptions, *more))]
    typer.echo("\n".join([*lines, "", ""]) if lines else "", nl=False)


def refuse_both_formats(as_json: bool, as_csv: bool) -> None:
    """Raise `InputError` when JSON and CSV are both asked for."""
    if as_json and as_csv:
        raise InputError("--csv", "must not be given together with --json")


def shows_progress(as_json: bool, as_csv: bool, quiet: bool) -> bool:
    """Return whether to show a progress bar: only on a terminal, and only beside text for people."""
    return not (as_json or as_csv or quiet) and sys.stderr.isatty()
