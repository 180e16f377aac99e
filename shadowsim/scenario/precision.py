"""Reads the warm-up that figures leave out, and the precision that replications are to reach.

`run.warmup_s` is the beginning of a run that its figures leave out: seconds, or "auto" (statistics/warm_up.py).
`run.precision` is a relative half-width of 95 % intervals, as a number (of the mean latency of both variants) or as an
object {"metric": "shadow.p99", "relative": 0.01, "max_replications": 1000}. A metric without a variant's role is that
of both. engine/replicate.py adds replications until it is reached, and never a longer horizon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from shadowsim.errors import InputError, did_you_mean
from shadowsim.option_defaults import AUTO
from shadowsim.scenario.fields import Block

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
_LEAST_RELATIVE, _MOST_RELATIVE = 1e-4, 0.5


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
    from shadowsim.frames import ROLES  # imported late, since pandas loads slowly

    if not isinstance(run.values["precision"], dict):
        relative = run.number("precision", least=_LEAST_RELATIVE, most=_MOST_RELATIVE)
        return Precision("mean", ROLES, relative)
    block = run.block("precision")
    block.only(("metric", "relative", "max_replications"))
    relative = block.number("relative", least=_LEAST_RELATIVE, most=_MOST_RELATIVE)
    written = block.text("metric") if block.has("metric") else "mean"
    role, dot, metric = written.partition(".")
    roles = (role,) if dot and role in ROLES else ROLES
    metric = metric if dot and role in ROLES else written
    if metric not in METRICS:
        known = [*METRICS, *(f"{role}.{name}" for role in ROLES for name in METRICS)]
        hint = did_you_mean(written, known) or f"; known are {', '.join(METRICS)}"
        raise InputError(block.at("metric"), "is not a metric", written, hint=hint)
    most = block.integer("max_replications", MAX_REPLICATIONS, least=LEAST_REPLICATIONS, most=MOST_REPLICATIONS)
    return Precision(metric, roles, relative, most)
