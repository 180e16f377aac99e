"""Holds what was measured on a real service: requests one by one, or counts and quantiles alone.

A load run, an access log and an export of CloudWatch know different things. A `Measurement` says which of them it has,
and in `lacks`, in sentences, what it has not, so that no analysis takes a gap for a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured on one service, in one run.

    Attributes
    ----------
    form : str
        The format that it was read from, as people call it: "k6 CSV", "nginx access log", "shadowsim load run".
    requests : DataFrame or None
        A row per request in order of `arrival_s` (s from the first one; the planned time where there is one), with
        `latency_s` (s from `arrival_s`; missing without an answer) and `status` (the words of `frames.REQUESTS`), and
        of these what is known: `sent_s`, `first_byte_s`, `done_s` (s on the clock of `arrival_s`), `first_token_s`
        (s from `arrival_s`), `prompt_tokens`, `output_tokens`, `request_bytes`, `response_bytes`, `instance`,
        `inference_id`, `stage` (the number of a stage of constant load).
    windows : DataFrame or None
        A row per period, with `time_s`, `period_s` and those columns of `frames.WINDOWS` that are known.
    quantiles : mapping of float to float
        Probability to latency in seconds over the whole run, where single requests are not known.
    started : datetime or None
        When `arrival_s` is 0, in UTC.
    resolution_s : float
        Seconds to which times of arrival are rounded; 0 where they are not.
    latency_resolution_s : float
        Seconds to which latencies are rounded; 0 where they are not.
    open_loop : bool or None
        Whether arrivals came at their own times, whatever the answers; None where the format does not tell.
    lacks : tuple of str
        Sentences on what the format does not say, and what therefore cannot be had from it.
    """

    form: str
    requests: pd.DataFrame | None = None
    windows: pd.DataFrame | None = None
    quantiles: Mapping[float, float] = field(default_factory=dict)
    started: datetime | None = None
    resolution_s: float = 0.0
    latency_resolution_s: float = 0.0
    open_loop: bool | None = None
    lacks: tuple[str, ...] = ()
