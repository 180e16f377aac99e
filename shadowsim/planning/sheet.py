"""Frames that `size` and `plan` return, and the choice of a plan's best row.

This module needs no simulator, so that figures and reports can import it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from shadowsim.errors import InputError

T = TypeVar("T", float, "pd.Series[float]")

NOT_MEASURED = "not measured: by_instance_type has no service for it"
NO_REQUEST = "no request reaches it: nothing to size"
NO_REQUEST_IN_RUN = "no request reaches it in the run: nothing to size"
FIXED, POLICY, RULE_OF_THUMB = "fixed", "policy", "rule of thumb"  # pools that `size` compares
POOL_COLUMNS = ("pool", "target", "min", "max", "billed_instances", "met")  # of `size` for a variant that scales
_RANKED_BY = {"reaches", "cost_usd", "shadow_instances", "duration_s"}


def comparable_usd(cost: T) -> T:
    """Return a cost, or a column of costs, for ranking: rounded, so that sums of equal amounts tie exactly."""
    return round(cost, 6)


class Sheet(pd.DataFrame):
    """A DataFrame that a notebook shows as a card (report/card.py); frames derived from it are ordinary DataFrames."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        from shadowsim import card

        return card(self)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the frame as an HTML page with figures, and return its path; `write_report` has more options."""
        from shadowsim import write_report

        return write_report(self, path)


def answers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `size` that meet the goals: all with a count, but for a rule of thumb that misses them."""
    answered = frame[frame["instance_count"].notna()]
    return answered[answered["met"]] if "met" in frame else answered


def recommend(frame: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the cheapest row of a plan that reaches the power, None when none does.

    Among rows of equal or unknown cost it is the one with the least shadow instance time, then the shortest.

    Raises
    ------
    InputError
        When the frame is not one of `plan`.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 20}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": 600})
    >>> plan = ss.plan(scenario, "p99 +300%", shares=[100], durations=["20min", "1h"], replications=10)
    >>> best = ss.recommend(plan)
    >>> float(best["duration_s"])
    1200.0
    """
    if not isinstance(frame, pd.DataFrame) or not _RANKED_BY.issubset(frame.columns):
        raise InputError("frame", "must be what plan returned")
    able = frame[frame["reaches"]]
    if able.empty:
        return None
    instance_s = able["shadow_instances"] * able["duration_s"]
    costs = able.assign(instance_s=instance_s, cost_usd=comparable_usd(able["cost_usd"]))
    ranked = costs.sort_values(["cost_usd", "instance_s", "duration_s"], kind="stable")
    row: pd.Series[Any] = able.loc[ranked.index[0]]
    return row
