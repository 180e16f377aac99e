"""Calibrates a service model to a measured run: `calibrate`, which says what the run leaves open.

Requests one by one tell most: waits and services follow from arrivals and finishes (fifo_starts.py), and so do the
workers (fifo_fit.py) or the batcher (batch_fit.py). Requests in tokens give the steps of a continuous batcher
(token_fit.py), and windows with percentiles a rougher estimate (window_fit.py).
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from shadowsim.errors import InputError
from shadowsim.measuring.batch_fit import batches_of, fit_batches
from shadowsim.measuring.calibration import Calibration, FittedParameter, FittedService, Reserve, Z
from shadowsim.measuring.fifo_calibration import describe_alone, describe_batcher, describe_fifo
from shadowsim.measuring.fifo_fit import MOST_REQUESTS, fit_fifo
from shadowsim.measuring.fifo_starts import Answered, in_flight
from shadowsim.measuring.logs.reading import measurement_of
from shadowsim.measuring.measurement import Measurement, answered, sending_s
from shadowsim.measuring.token_fit import fit_tokens
from shadowsim.measuring.token_log import COLUMNS
from shadowsim.measuring.window_fit import describe_quantiles, fit_windows
from shadowsim.quantities import integer
from shadowsim.text import count, percent, time_text

if TYPE_CHECKING:
    import pandas as pd

LEAST_REQUESTS = 200
_UNANSWERED = 0.001  # a share that is said


def calibrate(
    measurements: Measurement | str | os.PathLike[str],
    *,
    reserve: float | None = None,
    instances: int = 1,
    variant: str | None = None,
    seed: int = 0,
) -> Calibration:
    """Calibrate a service model to a measured run.

    Parameters
    ----------
    measurements : Measurement or path
        A run's folder, or a table with a row per request and the columns `arrival_s` and `latency_s`; also `sent_s`,
        `status`, `instance`, ... as in `Measurement`. With `first_token_s`, `prompt_tokens` and `output_tokens` the
        service is in tokens; best are runs of `load`, which have the times of all tokens. A measurement may have
        windows or quantiles alone.
    reserve : float, optional
        The share of the run's time, at its end, that is left to `predict`.
    instances : int
        Instances that served the requests, where no column `instance` tells.
    variant : str, optional
        Of a run with several variants the one to take; by default the source.
    seed : int
        Of the bootstrap that gives the intervals.

    Returns
    -------
    Calibration
        `service` is a block for a scenario's `services.VARIANT`.

    Raises
    ------
    InputError
        When there are too few requests, or a parameter breaks its constraint.

    Examples
    --------
    >>> import numpy as np, pandas as pd, shadowsim as ss
    >>> arrival_s = np.arange(400) * 0.1  # one request at a time, so that latencies are service times
    >>> latency_s = np.random.default_rng(1).gamma(4.0, 0.005, 400)
    >>> pd.DataFrame({"arrival_s": arrival_s, "latency_s": latency_s}).to_csv("measured.csv", index=False)
    >>> model = ss.calibrate("measured.csv")
    >>> sorted(model.service)
    ['time', 'workers']
    """
    if reserve is not None and not 0.0 < reserve < 1.0:
        raise InputError("reserve", "must be a share above 0 and below 1", reserve)
    integer(instances, "instances", least=1)
    measurement = measurement_of(measurements, variant)
    if measurement.requests is None:
        try:
            return _without_requests(measurement, reserve, instances, seed)
        except InputError as error:
            hint = "".join(f"; {lack[0].lower()}{lack[1:].rstrip('.')}" for lack in measurement.lacks)
            raise InputError(error.path, error.constraint, *error.value, hint=hint) from None
    requests = measurement.requests
    arrival = requests["arrival_s"].to_numpy(np.float64)
    span = Reserve(math.inf, len(requests), float(arrival[-1]))
    if reserve is not None:
        span = replace(span, from_s=float(arrival[-1]) * (1.0 - reserve))
        requests = requests[arrival < span.from_s]
    served, notes = answered_requests(requests, instances)
    if len(served) < LEAST_REQUESTS:
        raise InputError("measurements", f"must have at least {LEAST_REQUESTS} answered requests", len(served))
    used = served.rows(slice(0, MOST_REQUESTS))
    if len(used) < len(served):
        notes.append(f"The first {count(len(used))} of {count(len(served))} answered requests were used.")
    if all(column in requests.columns and requests[column].notna().any() for column in COLUMNS):
        model: FittedService = fit_tokens(requests[answered(requests)], seed, measurement.token_times)
    else:
        model = _model(used, measurement, seed)
    service = dict(model.service)
    errors = error_parameters(requests)
    service |= {one.name: one.value for one in errors if one.value}
    return Calibration(
        form=measurement.form,
        service=service,
        endpoint={"overhead_s": model.overhead_s},
        n_instances=served.n_instances,
        parameters=(*model.parameters, *errors),
        notes=(*notes, *model.notes, *measurement.lacks),
        draws=tuple(replace(one, service={**one.service, **_shares(service)}) for one in model.draws),
        n_requests=len(used),
        most_in_flight=int(in_flight(used).max()) + 1,
        reserve=span,
    )


def _without_requests(measurement: Measurement, reserve: float | None, instances: int, seed: int) -> Calibration:
    if reserve is not None:
        raise InputError("reserve", f"must be left out for a {measurement.form}, which has no single requests", reserve)
    if measurement.windows is not None:
        model = fit_windows(measurement.windows, instances, seed)
    else:
        model = describe_quantiles(measurement.quantiles)
    return Calibration(
        form=measurement.form,
        service=model.service,
        endpoint={},
        n_instances=instances,
        parameters=model.parameters,
        notes=(*model.notes, *measurement.lacks),
        draws=model.draws,
        n_requests=model.n_requests,
    )


def answered_requests(requests: pd.DataFrame, instances: int) -> tuple[Answered, list[str]]:
    """Return the requests with an answer in the order in which they were sent, and sentences on the others.

    Raises
    ------
    InputError
        When there are several instances, and no column tells which served a request.
    """
    notes = []
    has_answer = answered(requests) & requests["latency_s"].notna().to_numpy()
    share = 1.0 - float(has_answer.mean()) if len(has_answer) else 0.0
    if share > _UNANSWERED:
        notes.append(
            f"{percent(share)} of the requests had no answer and were left out; if they held workers, the others "
            "waited for them, and services look longer than they are."
        )
    table = requests[has_answer]
    arrival = table["arrival_s"].to_numpy(np.float64)
    latency = table["latency_s"].to_numpy(np.float64)
    sent = sending_s(table)
    late = float((sent - arrival).mean())
    if late > 0.0:
        notes.append(f"Times count from when a request was sent, in the mean {time_text(late)} after its time.")
    arrival, latency = sent, np.maximum(arrival + latency - sent, 0.0)
    if "instance" in table.columns and table["instance"].notna().all():
        _, instance = np.unique(table["instance"].to_numpy(), return_inverse=True)
    elif instances == 1:
        instance = np.zeros(len(table), np.int64)
    else:
        raise InputError(
            "instances",
            "must be 1 where no column `instance` tells which instance served a request: with several, who waited for "
            "whom cannot be told",
            instances,
        )
    order = np.argsort(arrival, kind="stable")
    return Answered(arrival[order], latency[order], instance.astype(np.int64)[order]), notes


def error_parameters(requests: pd.DataFrame) -> list[FittedParameter]:
    """Return the shares of answers 4XX and 5XX, with Wilson's intervals (1927)."""
    n = int(answered(requests).sum())
    parameters = []
    for name in ("error_4xx", "error_5xx"):
        value = int((requests["status"] == name).sum()) / n
        c = Z**2 / n
        middle, half = value + 0.5 * c, math.sqrt(value * (1.0 - value) * c + 0.25 * c * c)
        low, high = max((middle - half) / (1.0 + c), 0.0), (middle + half) / (1.0 + c)
        parameters.append(FittedParameter(name, value, low if value else 0.0, high))
    return parameters


def _shares(service: dict[str, object]) -> dict[str, object]:
    return {name: service[name] for name in ("error_4xx", "error_5xx") if name in service}


def _model(served: Answered, measurement: Measurement, seed: int) -> FittedService:
    """Return the service of a run: a batcher where requests are answered together, else workers if times are fine."""
    middle = float(np.median(served.latency_s))
    if not middle > 0.0:
        raise InputError("measurements", "must have a median latency > 0 s", middle)
    if measurement.resolution_s > middle:
        return describe_alone(served, measurement.resolution_s, seed)
    resolution_s = max(measurement.resolution_s, measurement.latency_resolution_s)
    batches = batches_of(served, resolution_s)
    if batches is not None:
        return describe_batcher(fit_batches(batches, resolution_s / middle), seed)
    return describe_fifo(*fit_fifo(served, resolution_s / middle), seed)
