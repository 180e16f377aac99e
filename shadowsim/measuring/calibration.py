"""Holds a calibrated service model: a scenario's block, intervals, and what the data left open.

The file of a calibration is a JSON object. `service` is a block for `services.VARIANT` and `endpoint` one for
`endpoint`: both can be pasted into a scenario as they are. `calibration` holds how they were found: each parameter with
its interval, sentences, and `draws`: the same blocks, drawn from their uncertainty, all parameters of a draw together,
with which `predict` computes its band.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from shadowsim.arrays import Ints
from shadowsim.errors import InputError
from shadowsim.json_files import path_of, read_json
from shadowsim.scenario.fields import Block
from shadowsim.scenario.service import parse_service
from shadowsim.text import count, grid, percent, significant, time_text, wrapped

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE)  # standard errors to each side of an interval
LATENCY_ALONE = (
    "The service time is the latency of the run, waits and overhead included: predictions hold at its load only."
)


@dataclass(frozen=True, slots=True)
class FittedParameter:
    """A parameter of a service model, as the data show it.

    Attributes
    ----------
    name : str
        Its path in the service, such as "time.mean_s"; "endpoint.overhead_s"; or a figure of the law ("time.p99_s").
    value : float or None
        None where nothing can be said.
    low, high : float
        The interval's ends; NaN where there is none, infinite where the data set no limit.
    why_not : str
        Why the data do not identify it; "" where they do.
    """

    name: str
    value: float | None
    low: float = math.nan
    high: float = math.nan
    why_not: str = ""

    @classmethod
    def by_factor(cls, name: str, value: float, samples: ArrayLike) -> FittedParameter:
        """Return a positive parameter with an interval by the scatter of its logarithms in a bootstrap."""
        spread = math.exp(Z * float(np.log(samples).std()))
        return cls(name, value, value / spread, value * spread)

    @property
    def is_identified(self) -> bool:
        """Whether the data identify it."""
        return not self.why_not


@dataclass(frozen=True, slots=True)
class Reserve:
    """The end of a run, which a calibration did not use.

    Attributes
    ----------
    from_s : float
        Requests that arrived from then on were not used; infinite if all were.
    n_requests : int
        Requests of the whole run.
    last_arrival_s : float
        The last arrival of the whole run: by both, a run is recognised.
    """

    from_s: float
    n_requests: int
    last_arrival_s: float


@dataclass(frozen=True, slots=True)
class Draw:
    """A service and an overhead, drawn from their uncertainty."""

    service: Mapping[str, Any]
    overhead_s: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedService:
    """What one way of fitting finds: the fields of `Calibration` that depend on it.

    Attributes
    ----------
    service : mapping
        A block for a scenario's `services.VARIANT`.
    overhead_s : float
    parameters : tuple of FittedParameter
    notes : tuple of str
    draws : tuple of Draw
    n_requests : int
        Requests that were counted, where they are not known one by one.
    """

    service: Mapping[str, Any]
    overhead_s: float
    parameters: tuple[FittedParameter, ...]
    notes: tuple[str, ...]
    draws: tuple[Draw, ...]
    n_requests: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A service model that was calibrated; `str()` gives a report.

    Attributes
    ----------
    form : str
        What it was calibrated from.
    service : mapping
        A block for a scenario's `services.VARIANT`.
    endpoint : mapping
        What it adds to a scenario's `endpoint`: `overhead_s`.
    n_instances : int
        Instances that served the requests, each with the service's workers.
    parameters : tuple of FittedParameter
    notes : tuple of str
        Sentences on what was assumed, chosen and found.
    draws : tuple of Draw
    n_requests : int
        Answered requests that were used.
    most_in_flight : int
        The most requests at one instance at a time; the model is not tried above that. 0 if unknown.
    reserve : Reserve or None
        None where no single requests are known.
    """

    form: str
    service: Mapping[str, Any]
    endpoint: Mapping[str, Any]
    n_instances: int
    parameters: tuple[FittedParameter, ...]
    notes: tuple[str, ...]
    draws: tuple[Draw, ...]
    n_requests: int
    most_in_flight: int = 0
    reserve: Reserve | None = field(default=None)

    def __getitem__(self, name: str) -> FittedParameter:
        """Return a parameter by its name."""
        found = next((one for one in self.parameters if one.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def overhead_s(self) -> float:
        """Seconds outside the service; 0 where they cannot be told from it."""
        return float(self.endpoint.get("overhead_s", 0.0))

    @property
    def unidentified(self) -> tuple[FittedParameter, ...]:
        """The parameters that the data do not identify."""
        return tuple(one for one in self.parameters if not one.is_identified)

    @property
    def table(self) -> pd.DataFrame:
        """One row per parameter: value, low, high, identified, why_not."""
        import pandas as pd

        rows = [asdict(one) | {"identified": one.is_identified} for one in self.parameters]
        return pd.DataFrame(rows, columns=["name", "value", "low", "high", "identified", "why_not"])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as an object for JSON."""
        return {
            "service": dict(self.service),
            "endpoint": dict(self.endpoint),
            "calibration": {
                "form": self.form,
                "n_instances": self.n_instances,
                "n_requests": self.n_requests,
                "most_in_flight": self.most_in_flight,
                "confidence": CONFIDENCE,
                "parameters": [_plain(asdict(one)) for one in self.parameters],
                "notes": list(self.notes),
                "reserve": None if self.reserve is None else _plain(asdict(self.reserve)),
                "draws": [asdict(draw) for draw in self.draws],
            },
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a JSON file."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> Calibration:
        """Read a file that `save` wrote, or a service block alone, which has no uncertainty.

        Raises
        ------
        InputError
            When it is neither.
        """
        name = "service" if isinstance(source, Mapping) else str(path_of(source, "service"))
        block = Block.of(read_json(source, "service"), name)
        if not block.has("service"):
            parse_service(block.values, name)
            return cls("a service block", block.values, {}, 1, (), (), (), 0)
        block.only(["service", "endpoint", "calibration"])
        about: dict[str, Any] = dict(block.block("calibration").values)
        parse_service(block.values["service"], block.at("service"))
        try:
            reserve = about.get("reserve")
            return cls(
                form=str(about.get("form", "")),
                service=dict(block.block("service").values),
                endpoint=dict(block.block("endpoint").values),
                n_instances=int(about.get("n_instances", 1)),
                parameters=tuple(FittedParameter(**_numbers(one)) for one in about.get("parameters", [])),
                notes=tuple(about.get("notes", [])),
                draws=tuple(Draw(one["service"], one["overhead_s"]) for one in about.get("draws", [])),
                n_requests=int(about.get("n_requests", 0)),
                most_in_flight=int(about.get("most_in_flight", 0)),
                reserve=None if reserve is None else Reserve(**_numbers(reserve)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(block.at("calibration"), f"is not what calibrate writes ({error})") from None

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the calibration as an HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def __repr__(self) -> str:
        n, found = len(self.unidentified), [one.name for one in self.parameters if one.is_identified]
        return f"<Calibration on {count(self.n_requests)} requests: {', '.join(found)}; {n} not identifiable>"

    def __str__(self) -> str:
        lines = [wrapped(self.head), "", grid(self.parameter_rows())]
        lines += [wrapped(note, hanging="  ") for note in self.open_questions()]
        return "\n".join([*lines, "", *(wrapped(note, hanging="  ") for note in self.notes)])

    @property
    def head(self) -> str:
        """What it was calibrated on, in a sentence."""
        on = f"Calibrated on {count(self.n_requests)} requests ({self.form})"
        return f"{on}; intervals hold {percent(CONFIDENCE, 0)}."

    def parameter_rows(self) -> list[tuple[str, ...]]:
        """Return a head and a row of cells per parameter that has a value."""
        rows: list[tuple[str, ...]] = [("parameter", "value", "from", "to")]
        return rows + [
            (one.name, *(figure_text(one.name, x) for x in (one.value, one.low, one.high)))
            for one in self.parameters
            if one.value is not None
        ]

    def open_questions(self) -> list[str]:
        """Return a sentence per parameter that the data leave open, with the reason."""
        return [f"not identifiable: {one.name}: {one.why_not}" for one in self.unidentified]


def resampled_rows(n: int, n_blocks: int, rng: np.random.Generator) -> Ints:
    """Return as many rows as there are, or about so: whole blocks of neighbours, each drawn again and again."""
    edges = np.linspace(0, n, min(n_blocks, n) + 1).astype(np.int64)
    picked = rng.integers(0, len(edges) - 1, len(edges) - 1)
    return np.concatenate([np.arange(edges[i], edges[i + 1]) for i in picked.tolist()])


def figure_text(name: str, x: float | None) -> str:
    """Return a parameter's value as text, in the unit that its name ends in."""
    if x is None or math.isnan(x):
        return "-"
    if math.isinf(x):
        return "no limit"
    if name.endswith("_s"):
        return time_text(x)
    if name.startswith("error_"):
        return percent(x, 2)
    return f"{x:g}" if float(x).is_integer() else significant(x, 4)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return JSON's numbers: no limit and no number are texts."""
    odd = {math.inf: "inf", -math.inf: "-inf"}
    return {
        key: ("nan" if value != value else odd.get(value, value)) if isinstance(value, float) else value
        for key, value in values.items()
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `_plain` was given."""
    return {key: float(value) if value in ("nan", "inf", "-inf") else value for key, value in values.items()}
