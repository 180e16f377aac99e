"""Looks up presets of step times, which were fitted to public measurements of language models.

The presets are data/step_models.csv in this folder, made by `shadowsim step-model` from the tables that `source` names.
They hold our coefficients and how far they miss, not the measurements. `shadowsim step-model --presets` lists them. In
a scenario, a preset's name may stand for `tokens.step`, and its `before_s` where the scenario has none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from shadowsim.errors import InputError, did_you_mean

_NEAR = 0.3  # names are long, and most of one may be left out
STEP_KEYS = (
    *("base_s", "per_prefill_token_s", "per_sequence_s", "per_kv_token_s", "per_prefill_pair_s", "per_prompt_s"),
)


@dataclass(frozen=True, slots=True)
class StepPreset:
    """Step times of one model on one kind of hardware.

    Attributes
    ----------
    name : str
        Model, hardware and tensor parallelism, such as "llama2-70b-h100-80gb-tp8".
    step : mapping of str to float
        A scenario's `tokens.step`.
    before_s : float or None
        From a request's arrival to its entry; None where the measurements do not tell.
    measured : str
        "prefill and token times", or "load stages".
    n_cells : int
        Different measurements that were fitted.
    first_token_miss, first_token_worst : float
        The mean and the greatest relative miss of prefill times; for load stages, of the times to the first token.
    per_token_miss, per_token_worst : float
        The same for the times per token after the first.
    source : str
        Who measured it, where and when.
    """

    name: str
    step: Mapping[str, float]
    before_s: float | None
    measured: str
    n_cells: int
    first_token_miss: float
    first_token_worst: float
    per_token_miss: float
    per_token_worst: float
    source: str

    @property
    def assumption(self) -> str:
        """A sentence on what a scenario assumes that names it."""
        whole = f"{100.0 * self.per_token_miss:.1f} %", f"{100.0 * self.first_token_miss:.0f} %"
        if self.before_s is None:
            return (
                f"Step times are those of {self.name}, fitted to prefill and token times; it misses times per token by "
                f"{whole[0]} in the mean, and prefills by {whole[1]} ({self.source})."
            )
        return (
            f"Step times are those of {self.name}, fitted to stages of a load test; it misses times per token by "
            f"{whole[0]} in the mean, and times to the first token by {whole[1]}. Other lengths of prompts and outputs "
            f"take as long as these ({self.source})."
        )


@cache
def presets() -> Mapping[str, StepPreset]:
    """Return all presets by name, in the order of their file."""
    lines = files("shadowsim.scenario").joinpath("data", "step_models.csv").read_text("utf-8").splitlines()
    return MappingProxyType({row["name"]: _preset(row) for row in csv.DictReader(lines)})


def preset(name: str, path: str = "step") -> StepPreset:
    """Return the preset of a name; upper and lower case are the same.

    Parameters
    ----------
    name : str
    path : str
        Where the scenario names it, for errors.

    Raises
    ------
    InputError
        There is none; the message names the nearest.
    """
    known = presets()
    found = known.get(name.lower())
    if found is None:
        beginning = next((f"; did you mean {k}?" for k in known if name and k.startswith(name.lower())), "")
        near = beginning or did_you_mean(name.lower(), known, _NEAR)
        raise InputError(path, "must be a preset that `shadowsim step-model --presets` lists", name, hint=near)
    return found


def _preset(row: Mapping[str, str]) -> StepPreset:
    return StepPreset(
        name=row["name"],
        step={key: float(row.get(key, 0.0)) for key in STEP_KEYS},
        before_s=float(row["before_s"]) if row["before_s"] else None,
        measured=row["measured"],
        n_cells=int(row["n_cells"]),
        first_token_miss=float(row["first_token_miss"]),
        first_token_worst=float(row["first_token_worst"]),
        per_token_miss=float(row["per_token_miss"]),
        per_token_worst=float(row["per_token_worst"]),
        source=row["source"],
    )
