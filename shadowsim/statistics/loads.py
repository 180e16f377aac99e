"""Notes unequal loads, and the choice of sessions: by these, sides differ whose models are equal.

A side whose workers are less busy is faster without being better. With one M/M/1 queue per side, latency is E[S] / (1 -
load). Five points of load then change it by 10 % at half load, which is the default margin of `compare`, and by more
above: from there on load alone can decide a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shadowsim.frames import ROLES
from shadowsim.statistics.sections import Frames, RunFrames

MOST_APART = 0.05  # of utilisation, and of requests per instance as a share of the source's
ATTRIBUTE, SESSIONS = "load", "sessions"  # of a frame of `compare`


@dataclass(frozen=True, slots=True)
class Loads:
    """The loads of both sides where they differ by more than `MOST_APART`.

    Attributes
    ----------
    source, shadow : float
        Mean utilisation of the workers, 0..1.
    same_requests : bool
        Whether instances of both sides get the same number of requests, so that the difference is the shadow's own.
    """

    source: float
    shadow: float
    same_requests: bool = False

    @property
    def note(self) -> str:
        """The loads in a sentence."""
        source, shadow = (f"{100 * load:.0f} %" for load in (self.source, self.shadow))
        busy = f"the source's workers are {source} busy, the shadow's {shadow}"
        if self.same_requests:
            return f"Instances of both sides get the same requests, but {busy}: that difference is the shadow's own."
        return f"The sides do not carry the same load: {busy}."

    def note_of_runs(self, variant: str) -> str:
        """Return the loads in a sentence, where the sides are one variant in two runs."""
        busy = (
            f"its workers are {100 * self.source:.0f} % busy in the baseline, {100 * self.shadow:.0f} % in the result"
        )
        if self.same_requests:
            return f"Instances of {variant} get the same requests in both runs, but {busy}: that difference is its own."
        return f"{variant} does not carry the same load in both runs: {busy}."

    @property
    def qualifier(self) -> str:
        """The words that follow a verdict: "at 42 % load against 83 %"; "" if the difference is the shadow's own."""
        if self.same_requests:
            return ""
        return f"at {100 * self.shadow:.0f} % load against {100 * self.source:.0f} %"

    def to_dict(self) -> dict[str, object]:
        """Return the loads as a JSON object."""
        return {"source": self.source, "shadow": self.shadow, "same_requests": self.same_requests, "note": self.note}


def loads_of(runs: Sequence[Frames]) -> Loads | None:
    """Return the loads of runs if they differ; None too where the frames do not tell the utilisation."""
    return _differing(*(_side(runs, role) for role in ROLES))


def loads_of_runs(baseline: Sequence[Frames], result: Sequence[Frames], role: str) -> Loads | None:
    """Return the loads of one role in two runs, the baseline's as the source's, if they differ."""
    return _differing(_side(baseline, role), _side(result, role))


def _side(runs: Sequence[Frames], role: str) -> tuple[float, float]:
    """Return utilisation, and requests per instance and second; NaN where the frames do not tell."""
    frames = [run["windows"] for run in runs if "windows" in run]
    if not frames or not all("utilisation" in frame for frame in frames):
        return math.nan, math.nan
    windows = pd.concat(frames)
    part = windows[windows["role"] == role]
    per_instance = math.nan
    if "InvocationsPerInstance" in part.columns:  # by those that serve
        start = np.unique(part["time_s"].to_numpy(np.float64))
        period_s = float(start[1] - start[0]) if start.size > 1 else 1.0
        per_instance = float(part["InvocationsPerInstance"].mean()) / period_s
    return float(part["utilisation"].mean()), per_instance


def _differing(source: tuple[float, float], shadow: tuple[float, float]) -> Loads | None:
    if math.isnan(source[0] + shadow[0]) or abs(shadow[0] - source[0]) <= MOST_APART:
        return None
    return Loads(source[0], shadow[0], abs(shadow[1] - source[1]) <= MOST_APART * source[1])


def note_of_pools(runs: Sequence[Frames]) -> str:
    """Return which pools had a changing number of serving instances, in a sentence; "" if there is none."""
    windows = runs[0].get("windows")
    if windows is None or "serving_instance_count" not in windows:
        return ""
    served = windows.groupby("role").agg({"variant": "first", "serving_instance_count": ["min", "max"]})
    changed = [
        f"{low:.3g} to {high:.3g} instances of {variant}"
        for variant, low, high in (served.loc[role] for role in ROLES if role in served.index)
        if low != high
    ]
    if not changed:
        return ""
    return f"{' and '.join(changed)} served, by scaling and outages: all figures are means over such times."


def note_of_sessions(runs: Sequence[Frames]) -> str:
    """Return what copying whole sessions does to the intervals, in a sentence; "" where requests are copied singly."""
    run = runs[0]
    if not isinstance(run, RunFrames) or run.sessions is None:
        return ""
    whole = "Sessions are copied whole, so that the shadow's load depends on which ones are"
    if not run.share_cv:
        return f"{whole}: intervals do not allow for another choice, and sides may differ by that alone."
    varies = (
        f"with {run.sessions:,} sessions its requests vary by {100.0 * run.share_cv:.1f} % (one standard deviation)"
    )
    allowed = "" if run.share_cv <= MOST_APART else " only roughly"
    return f"{whole}: {varies}. The shadow's intervals allow for that{allowed}."


def loads_of_table(compared: pd.DataFrame) -> Loads | None:
    """Return the loads that a frame of `compare` notes."""
    noted = compared.attrs.get(ATTRIBUTE)
    return Loads(noted["source"], noted["shadow"], noted["same_requests"]) if noted else None
