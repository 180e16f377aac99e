"""Reads the warm-up that figures leave out, and the precision that replications are to reach.

`run.warmup_s` is the beginning of a run that its figures leave out: seconds, or "auto" (statistics/warm_up.py).
`run.precision` is a relative half-width of 95 % intervals, as a number (of the mean latency of both variants) or as an
object {"metric": "shadow.p99", "relative": 0.01, "max_replications": 1000}. A metric without a variant's role is that
of both. engine/replicate.py adds replications until it is reached, and never a longer horizon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shadowsim.errors import InputError, did_you_mean
from shadowsim.option_defaults import AUTO
from shadowsim.quantities import DURATION
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Integer, Keys, Number, Parsed, Schema

Auto = Literal["auto"]
# By metric: the column of `Result.summary`.
METRICS = {
    "mean": "mean_s",
    "p50": "p50_s",
    "p90": "p90_s",
    "p95": "p95_s",
    "p99": "p99_s",
    "p99.9": "p99_9_s",
    "wait_mean": "wait_mean_s",
    "utilisation": "utilisation",
    "error_rate": "error_rate",
}
LEAST_REPLICATIONS, MOST_REPLICATIONS = 10, 100_000
MAX_REPLICATIONS = 1000  # if nothing else is said
_RELATIVE = {"least": 1e-4, "most": 0.5}
_ROLES = ("source", "shadow")


def _metric(block: Block, key: str, base_dir: Path) -> str:
    written, known = block.text(key), _metrics()
    if written not in known:
        hint = did_you_mean(written, known) or f"; known are {', '.join(METRICS)}"
        raise InputError(block.at(key), "is not a metric", written, hint=hint)
    return written


def _metrics() -> list[str]:
    return [*METRICS, *(f"{role}.{name}" for role in _ROLES for name in METRICS)]


class PrecisionKeys(Keys):
    """Keys of `precision`."""

    title = "A figure that replications are to make precise."
    metric = Parsed(
        "The figure, that of both variants without `source.` or `shadow.` before it.",
        _metric,
        lambda: {"enum": _metrics()},
        "mean",
    )
    relative = Number("Half-width of its 95 % interval over the figure.", **_RELATIVE)
    max_replications = Integer(
        "Most runs, whether they reach it or not.",
        default=MAX_REPLICATIONS,
        least=LEAST_REPLICATIONS,
        most=MOST_REPLICATIONS,
    )
    examples = ({"metric": "shadow.p99", "relative": 0.01},)


def precision_form() -> Schema:
    """Return the schema of `precision`."""
    number = {"type": "number", "minimum": _RELATIVE["least"], "maximum": _RELATIVE["most"]}
    return {"anyOf": [number, PrecisionKeys.schema()]}


def warmup_form() -> Schema:
    """Return the schema of `warmup_s`."""
    text = {"type": "string", "pattern": DURATION}
    return {"anyOf": [{"const": AUTO}, {"type": "number", "minimum": 0.0}, text]}


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision of a figure that replications are to reach.

    Attributes
    ----------
    metric : str
        A key of `METRICS`.
    roles : tuple of str
        The variants whose figure is meant.
    relative : float
        Half-width of the 95 % interval over the figure.
    max_replications : int
        Most runs, whether they reach it or not.
    """

    metric: str
    roles: tuple[str, ...]
    relative: float
    max_replications: int = MAX_REPLICATIONS

    @property
    def figure(self) -> str:
        """The column of `Result.summary`."""
        return METRICS[self.metric]

    def __str__(self) -> str:
        return f"{self.metric} of {' and '.join(self.roles)} to within {100.0 * self.relative:g} %"


def parse_warmup(run: Block) -> float | Auto:
    """Return the `warmup_s` of a run, 0 if it is left out, or raise `InputError`."""
    value = run.values.get("warmup_s")
    if value == AUTO:
        return AUTO
    if isinstance(value, str) and not re.match(r"\s*[\d.]", value):
        raise InputError(run.at("warmup_s"), 'must be seconds, a text such as "10min", or "auto"', value)
    return run.number("warmup_s", 0.0, least=0.0)


def parse_precision(run: Block) -> Precision | None:
    """Return the `precision` of a run, or raise `InputError`."""
    if not run.has("precision"):
        return None
    if not isinstance(run.values["precision"], Mapping):
        return Precision("mean", _ROLES, run.number("precision", **_RELATIVE))
    keys = PrecisionKeys.read(run.block("precision"))
    role, dot, metric = keys.metric.partition(".")
    of_one = bool(dot) and role in _ROLES
    roles = (role,) if of_one else _ROLES
    return Precision(metric if of_one else keys.metric, roles, keys.relative, keys.max_replications)
