"""plan(scenario, effect): which share, for how long, shows a difference, and what that costs.

(This module is being built: the signature and the columns stand.)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import pandas as pd

from shadowsim.costs import Prices, PriceSource
from shadowsim.scenario import Scenario


def plan(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    effect: str = "p99 +5%",
    power: float = 0.8,
    alpha: float = 0.05,
    shares: Sequence[int] | None = None,
    durations: Sequence[float | str] | None = None,
    *,
    looks: int = 1,
    replications: int = 100,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    prices: PriceSource | Prices = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Rehearse a shadow test at several shares and durations, and say what it would show.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    effect : str
        "METRIC +X%" or "METRIC +Xms": what the shadow is to be worse by than the source.
    power : float
        How often a test should find the effect.
    alpha : float
        Level of the test: how often it may find something where there is nothing.
    shares : sequence of int, optional
        Sampling percentages, by default 10, 25, 50 and 100.
    durations : sequence of float or str, optional
        Seconds, or "6h", "1d"; by default from an hour to the length of the Schedule, or 7 days.
    looks : int
        How often the test is looked at, at equal distances (group-sequential, `compare(look=, looks=)`).
    replications : int
        How many experiments are simulated with the effect, and as many without.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests a second.
    workers, executor, progress
        As for `sweep`.
    prices : mapping of str to float, path or Prices, optional
        US dollars an hour by instance type, in place of the catalogue's (`read_prices`).

    Returns
    -------
    DataFrame
        A row a (share, duration), with the columns

        sampling_percentage : int
        duration_s, duration_h : float
        power, power_error : float
            Share of the experiments with the effect that `compare` calls worse, and its standard error.
        false_alarm, false_alarm_error : float
            Share of those without it that `compare` calls worse or better, and its standard error.
        visible_pct : float
            The smallest difference that is found with the power asked for; like the next two in per cent of the
            source's metric, or in percentage points of a share.
        seen_none_pct, seen_effect_pct : float
            What the shadow truly differs by from the source in this experiment, without the effect and with it.
        n_copies : float
            Expected.
        shadow_instances : int
            What the pool needs to hold the share.
        cost_usd : float
            Instances of both variants for the duration; NaN when a price is not known.
        reaches : bool
            Whether the power is reached.
        how : str
            "simulated", or "extrapolated".
        simulated_h : float
            Hours of each simulated experiment.
        note : str
            What the share cannot tell.

    Raises
    ------
    InputError, ValidationError
        When the scenario, the effect or a number cannot be used.
    """
    raise NotImplementedError


def recommend(frame: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the cheapest row of a plan that reaches the power, None when there is none."""
    raise NotImplementedError
