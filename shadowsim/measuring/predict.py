"""Predicts a measured run with a calibrated service, and judges whether the model is right.

The run's own arrivals are simulated with the calibrated service, many times: each time with another draw of the
service from its uncertainty, and with another seed. A request arrives when it was sent; what it was late is added to
its simulated latency, as it is part of the measured one. So the scatter of the simulated quantiles is what the measured
one may show although the model is right: it holds the uncertainty of the parameters, and the chance in a run of this
very length with these very arrivals. The band of all judged quantiles together holds 95 % of such runs: it reaches as
many deviations (of logarithms) to either side as 95 % of the simulated runs stay within at all of them. Deviations
above and below the median are their own, since rare long queues make tails skewed.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shadowsim.arrays import Flags, Floats
from shadowsim.errors import InputError
from shadowsim.frames import MOST_SECTIONS
from shadowsim.measuring.calibration import CONFIDENCE, Calibration, Draw, Z
from shadowsim.measuring.fifo_starts import Answered, in_flight
from shadowsim.measuring.logs.reading import measurement_of
from shadowsim.measuring.measurement import Measurement, answered, sending_s
from shadowsim.option_defaults import PREDICTION_DRAWS, PREDICTION_MARGIN_PCT, PREDICTION_TOLERANCE_PCT
from shadowsim.quantities import integer
from shadowsim.scenario.defaults import builtin_document
from shadowsim.statistics.batch_means import uncorrelated_batches
from shadowsim.statistics.estimates import beyond, quantile
from shadowsim.statistics.samples import Values
from shadowsim.statistics.sections import arrivals_cut
from shadowsim.text import count, grid, percent, time_text, wrapped

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go  # type: ignore[import-untyped]

RIGHT, NOT_RIGHT, CANNOT_TELL = "right", "not right", "cannot tell"
JUDGED = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
NEEDED = ("p50", "p90", "p95")  # quantiles whose bands must be narrow for a verdict
LATENCY, FIRST_TOKEN = "latency", "first token"
SIZES = "prompt_tokens", "output_tokens"
_CURVE = (*(i / 50.0 for i in range(1, 48)), 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999)
_TIMES_PCT = 1_000.0  # a band that is wider is said in multiples
_LEAST_BEYOND = 5  # measured requests beyond the last point of a curve


@dataclass(frozen=True, slots=True, eq=False)
class ServicePrediction:
    """A measured run beside its prediction; `str()` gives a report.

    Attributes
    ----------
    verdict : str
        "right", "not right" or "cannot tell".
    reason : str
        A sentence that says why.
    table : DataFrame
        A row per measure (latency, and for services in tokens the first token) and judged quantile: `measure`,
        `quantile`, `measured_s`, `measured_low_s` and `measured_high_s` (the interval of a queue's quantile; NaN where
        the run is too short for one), `predicted_s`, `low_s` and `high_s` (the band), `error_pct` (measured over
        predicted, less 1), `inside`.
    curve : DataFrame
        The same quantile curves at many depths, with bands that each hold 95 % of runs alone: `measure`, `depth`,
        `measured_s`, `predicted_s`, `low_s`, `high_s`.
    n_requests : int
        Answered requests that were compared.
    notes : tuple of str
    """

    verdict: str
    reason: str
    table: pd.DataFrame
    curve: pd.DataFrame
    n_requests: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as an object for JSON."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "n_requests": self.n_requests,
            "quantiles": self.table.to_dict("records"),
            "curve": self.curve.to_dict("records"),
            "notes": list(self.notes),
        }

    def plot(self) -> go.Figure:
        """Return the Plotly figure of both curves."""
        from importlib import import_module

        return import_module("shadowsim.plots.prediction").measured_and_predicted(self.curve)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the prediction as an HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def __repr__(self) -> str:
        return f"<ServicePrediction of {count(self.n_requests)} requests: {self.verdict}>"

    def __str__(self) -> str:
        head = f"{self.verdict}: {self.reason}" if self.verdict != RIGHT else self.reason
        lines = [wrapped(head, hanging="  "), "", grid(self.quantile_rows()), ""]
        return "\n".join([*lines, *(wrapped(note, hanging="  ") for note in self.notes)])

    def quantile_rows(self) -> list[tuple[str, ...]]:
        """Return a head and a row of cells per quantile: measured, predicted, both ends of the band, the error."""
        rows: list[tuple[str, ...]] = [("", "measured", "predicted", "band", "", "measured over predicted")]
        several = self.table["measure"].nunique() > 1
        for row in self.table.to_dict("records"):
            name = f"{row['measure']} {row['quantile']}" if several else str(row["quantile"])
            measured, predicted, low, high = (
                time_text(row[column]) for column in ("measured_s", "predicted_s", "low_s", "high_s")
            )
            error = f"{row['error_pct']:+.1f} %{'' if row['inside'] else ' (outside)'}"
            rows.append((name, measured, predicted, low, f"to {high}", error))
        return rows


def predict(
    service: Calibration | Mapping[str, Any] | str | os.PathLike[str],
    load_run: Measurement | str | os.PathLike[str],
    *,
    workers: int | None = None,
    instances: int | None = None,
    routing: str = "RANDOM",
    variant: str | None = None,
    margin_pct: float = PREDICTION_MARGIN_PCT,
    tolerance_pct: float = PREDICTION_TOLERANCE_PCT,
    draws: int = PREDICTION_DRAWS,
    seed: int = 0,
    advance: Callable[[int], object] = lambda _: None,
) -> ServicePrediction:
    """Predict a measured run's latencies, and say whether the calibrated model is right about them.

    Parameters
    ----------
    service : Calibration, mapping or path
        What `calibrate` returned or wrote; a service block alone has no uncertainty.
    load_run : Measurement or path
        A run that was not used for calibrating, as `calibrate` takes it. Of the run that was calibrated on with a
        reserve, only the reserve is compared.
    workers, instances : int, optional
        Where they differ from those that were calibrated.
    routing : str
        "RANDOM" or "LEAST_OUTSTANDING_REQUESTS".
    variant : str, optional
        Of a run with several variants the one to take; by default the source.
    margin_pct : float
        By how much the band is widened to either side: no model is exact.
    tolerance_pct : float
        The verdict is "cannot tell" while the band of p50, p90 or p95 is wider than this to a side.
    draws : int
        Runs that are simulated.
    seed : int
    advance : callable
        Called with 1 after each simulated run.

    Raises
    ------
    InputError
        When a file cannot be used, or a parameter breaks its constraint.

    Examples
    --------
    >>> import numpy as np, pandas as pd, shadowsim as ss
    >>> arrival_s = np.arange(400) * 0.1
    >>> latency_s = np.random.default_rng(1).gamma(4.0, 0.005, 400)
    >>> pd.DataFrame({"arrival_s": arrival_s, "latency_s": latency_s}).to_csv("measured.csv", index=False)
    >>> model = {"time": {"law": "gamma", "mean_s": 0.02, "scv": 0.25}, "workers": 1}
    >>> ss.predict(model, "measured.csv", draws=20).verdict
    'right'
    """
    integer(draws, "draws", least=20)
    for name, value in (("margin_pct", margin_pct), ("tolerance_pct", tolerance_pct)):
        if not 0.0 <= value < 1000.0:
            raise InputError(name, "must be a percentage >= 0", value)
    calibrated = service if isinstance(service, Calibration) else Calibration.load(service)
    measurement = measurement_of(load_run, variant)
    if measurement.requests is None:
        why = "".join(f"; {lack[0].lower()}{lack[1:].rstrip('.')}" for lack in measurement.lacks)
        raise InputError("load_run", f"must have single requests, which a {measurement.form} has not{why}")
    requests = measurement.requests
    if len(requests) < 2:
        raise InputError("load_run", "must have at least two requests", len(requests))
    compared, notes = _compared(requests, calibrated)
    if "tokens" in calibrated.service:
        known, left_out = _of_known_sizes(requests)
        requests, compared = requests[known].reset_index(drop=True), compared[known]
        notes += left_out
    measured = _measured(requests, compared)
    changes: dict[str, Any] = {} if workers is None else {"workers": integer(workers, "workers", least=1)}
    n_instances = calibrated.n_instances if instances is None else integer(instances, "instances", least=1)
    rng = np.random.default_rng(seed)
    pool = calibrated.draws or (Draw(calibrated.service, calibrated.overhead_s),)
    if len(pool) == 1:
        notes.append("The service has no uncertainty of its own: the band holds the chance of one run only.")
    picks = rng.permutation(len(pool))
    simulated: dict[str, list[Floats]] = {measure: [] for measure in measured}
    depths = {measure: _depths(len(values)) for measure, values in measured.items()}
    with tempfile.TemporaryDirectory() as folder:
        document = _document(requests, Path(folder), n_instances, routing)
        for i in range(draws):
            draw = pool[int(picks[i % len(pool)])]
            service_block = {**draw.service, **changes}
            if workers is not None and "slowdown" in service_block:
                service_block["slowdown"] = service_block["slowdown"][:workers]  # fewer workers are never more busy
            run = _simulated(document, service_block, requests, int(rng.integers(2**31)))
            for measure, curves in simulated.items():
                times = run[measure][compared] + draw.overhead_s
                curves.append(np.quantile(times[np.isfinite(times)], depths[measure]))
            advance(1)
    parts = [
        _judged(measure, values, np.log(np.array(simulated[measure])), depths[measure], requests, compared, margin_pct)
        for measure, values in measured.items()
    ]
    import pandas as pd

    table = pd.concat([table for table, _ in parts], ignore_index=True)
    curve = pd.concat([curve for _, curve in parts], ignore_index=True)
    beyond_seen = _beyond_seen(calibrated, requests, n_instances)
    verdict, reason = _verdict(table, beyond_seen, tolerance_pct)
    notes += [
        f"The band holds {percent(CONFIDENCE, 0)} of {count(draws)} simulated runs with these arrivals at all of "
        f"these quantiles, and {margin_pct:g} % more to either side.",
        *([beyond_seen] if beyond_seen else []),
        *measurement.lacks,
    ]
    return ServicePrediction(verdict, reason, table, curve, len(measured[LATENCY]), tuple(notes))


def _compared(requests: pd.DataFrame, calibrated: Calibration) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return which requests are compared, and sentences on it."""
    arrival = requests["arrival_s"].to_numpy(np.float64)
    reserve = calibrated.reserve
    everything = np.ones(len(arrival), np.bool_)
    if reserve is None or len(arrival) != reserve.n_requests or float(arrival[-1]) != reserve.last_arrival_s:
        return everything, []
    if math.isinf(reserve.from_s):
        return everything, ["The model was calibrated on these very requests: that they agree is no test of it."]
    share = 1.0 - reserve.from_s / reserve.last_arrival_s
    return arrival >= reserve.from_s, [f"Compared is the reserve, the last {percent(share, 0)} of the run."]


def _of_known_sizes(requests: pd.DataFrame) -> tuple[Flags, list[str]]:
    """Return which requests can be simulated in tokens, and a sentence on the others: most have no answer to count."""
    sizes = [requests[column] for column in SIZES if column in requests.columns]
    known: Flags = np.all([size.notna() for size in sizes], axis=0) if sizes else np.ones(len(requests), np.bool_)
    if known.all():
        return known, []
    if int(known.sum()) < 2:
        raise InputError("load_run", "must have at least two requests whose tokens are known", int(known.sum()))
    share = percent(1.0 - float(known.mean()), 1)
    return known, [
        f"{share} of the requests, of which {' or '.join(SIZES)} is not known, were left out; if the service worked on "
        "them, the others waited longer than is simulated."
    ]


def _measured(requests: pd.DataFrame, compared: np.ndarray[Any, Any]) -> dict[str, Floats]:
    """Return the times of the answered requests that are compared, by measure."""
    used = answered(requests) & compared
    measures = {LATENCY: "latency_s"}
    if "first_token_s" in requests.columns and requests["first_token_s"].notna().any():
        measures[FIRST_TOKEN] = "first_token_s"
    measured = {}
    for measure, column in measures.items():
        times = requests[column].to_numpy(np.float64)[used]
        measured[measure] = times[np.isfinite(times)]
        if len(measured[measure]) < 2:
            raise InputError("load_run", "must have at least two answered requests to compare", len(measured[measure]))
    return measured


def _document(requests: pd.DataFrame, folder: Path, n_instances: int, routing: str) -> dict[str, Any]:
    """Return a scenario of the run's arrivals, with a service still to be set."""
    columns = [c for c in SIZES if c in requests.columns]
    sent_s = sending_s(requests)
    file = folder / "arrivals.parquet"
    requests[columns].assign(arrival_s=sent_s).sort_values("arrival_s", kind="stable").to_parquet(file)
    document: dict[str, Any] = builtin_document()
    for variant in document["experiment"]["ModelVariants"]:
        variant["InfrastructureConfig"]["RealTimeInferenceConfig"]["InstanceCount"] = n_instances
    document["experiment"]["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = 0
    document["traffic"] = {"process": "trace", "path": str(file), "time_column": "arrival_s", "time_unit": "s"}
    document["endpoint"] = {"routing": routing, "timeout_s": 1e6}
    document["services"]["Shadow-01"] = {"time": 1.0, "workers": 1}
    horizon_s = float(sent_s.max()) * (1.0 + 1e-9) + 1e-6
    document["run"] = {"horizon_s": horizon_s, "period_s": 60.0, "sample_requests": len(requests)}
    return document


def _simulated(
    document: dict[str, Any], service: Mapping[str, Any], requests: pd.DataFrame, seed: int
) -> dict[str, Floats]:
    """Return the times of each request in one simulated run, from its arrival; NaN for those that were refused."""
    from shadowsim.engine.simulate import simulate

    if "tokens" in service:
        own = {key: f"{key}_tokens" for key in ("prompt", "output") if f"{key}_tokens" in requests.columns}
        service = {**service, "tokens": {**service["tokens"], **own}}
    services = {**document["services"], "AllTraffic": dict(service)}
    result = simulate({**document, "services": services, "run": {**document["run"], "seed": seed}}, workers=1)
    rows = result.requests
    rows = rows[rows["role"] == "source"]
    if len(rows) != len(requests):
        raise RuntimeError(f"simulated {len(rows)} of {len(requests)} requests")
    sent_s = sending_s(requests)
    place = np.argsort(np.argsort(sent_s, kind="stable"), kind="stable")  # in the simulated run, by sending
    late_s = sent_s - requests["arrival_s"].to_numpy(np.float64)
    columns = {LATENCY: "latency_s", FIRST_TOKEN: "first_token_s"}
    return {
        measure: rows[column].to_numpy(np.float64)[place] + late_s
        for measure, column in columns.items()
        if column in rows.columns
    }


def _depths(n: int) -> Floats:
    return np.array([p for p in (*JUDGED.values(), *_CURVE) if (1.0 - p) * n >= _LEAST_BEYOND or p in JUDGED.values()])


def _judged(
    measure: str,
    values: Floats,
    logs: Floats,
    depths: Floats,
    requests: pd.DataFrame,
    compared: np.ndarray[Any, Any],
    margin_pct: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a measure: judged quantiles, and its curve."""
    import pandas as pd

    middle = np.median(logs, axis=0)
    off = logs - middle
    below, above = (
        np.sqrt((side**2).sum(axis=0) / (0.5 * len(logs))) for side in (np.minimum(off, 0.0), np.maximum(off, 0.0))
    )
    below, above = np.maximum(below, 1e-12), np.maximum(above, 1e-12)
    n = len(JUDGED)
    farthest = np.maximum(off[:, :n] / above[:n], -off[:, :n] / below[:n]).max(axis=1)
    reach = max(float(np.quantile(farthest, CONFIDENCE)), Z)
    margin = 1.0 + margin_pct / 100.0
    measured = np.quantile(values, depths)
    low, high = np.exp(middle - reach * below) / margin, np.exp(middle + reach * above) * margin
    intervals = _intervals(values, requests, compared, measure)
    rows = []
    for i, name in enumerate(JUDGED):
        rows.append(
            {
                "measure": measure,
                "quantile": name,
                "measured_s": measured[i],
                "measured_low_s": intervals[name][0],
                "measured_high_s": intervals[name][1],
                "predicted_s": math.exp(middle[i]),
                "low_s": low[i],
                "high_s": high[i],
                "error_pct": 100.0 * (measured[i] / math.exp(middle[i]) - 1.0),
                "inside": bool(low[i] <= measured[i] <= high[i]),
            }
        )
    order = np.argsort(depths, kind="stable")
    order = order[np.diff(depths[order], prepend=-1.0) > 0.0]
    curve = pd.DataFrame(
        {
            "measure": measure,
            "depth": depths[order],
            "measured_s": measured[order],
            "predicted_s": np.exp(middle)[order],
            "low_s": (np.exp(middle - Z * below) / margin)[order],
            "high_s": (np.exp(middle + Z * above) * margin)[order],
        }
    )
    return pd.DataFrame(rows), curve


def _intervals(
    values: Floats, requests: pd.DataFrame, compared: np.ndarray[Any, Any], measure: str
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the measured quantiles, which allow for the correlation of neighbours."""
    column = "latency_s" if measure == LATENCY else "first_token_s"
    used = answered(requests) & compared & np.isfinite(requests[column].to_numpy(np.float64))
    arrival = requests["arrival_s"].to_numpy(np.float64)[used]
    begin = float(arrival[0])
    sample = Values(values, arrivals_cut(arrival - begin, float(arrival[-1]) - begin or 1.0), MOST_SECTIONS)
    intervals = {}
    for name, p in JUDGED.items():
        batches = uncorrelated_batches(beyond(sample, p))
        found = quantile(sample, p, batches, 1.0 - CONFIDENCE) if batches else None
        intervals[name] = (math.nan, math.nan) if found is None else (found.low, found.high)
    return intervals


def _beyond_seen(calibrated: Calibration, requests: pd.DataFrame, n_instances: int) -> str:
    """Return a sentence where unknown workers decide a run, since more requests were in flight than ever before."""
    workers = next((one for one in calibrated.parameters if one.name in ("workers", "tokens.max_sequences")), None)
    if workers is None or workers.is_identified:
        return ""
    if not calibrated.most_in_flight:
        return f"The calibration left {workers.name} open, and does not tell how many requests were in flight."
    done = requests["latency_s"].notna().to_numpy()
    arrival = requests["arrival_s"].to_numpy(np.float64)[done]
    found = in_flight(
        Answered(arrival, requests["latency_s"].to_numpy(np.float64)[done], np.zeros(len(arrival), np.int64))
    )
    most = (int(found.max()) + 1) / n_instances
    if most <= calibrated.most_in_flight:
        return ""
    return (
        f"Up to {most:g} requests were in flight at an instance, and {calibrated.most_in_flight} when it was "
        f"calibrated, which left {workers.name} open."
    )


def _verdict(table: pd.DataFrame, beyond_seen: str, tolerance_pct: float) -> tuple[str, str]:
    if beyond_seen:
        return CANNOT_TELL, f"{beyond_seen[0].lower()}{beyond_seen[1:]}"
    rows = table.to_dict("records")
    several = table["measure"].nunique() > 1

    def name(row: Mapping[Any, Any]) -> str:
        return f"{row['quantile']} of the {row['measure']}" if several else str(row["quantile"])

    def excess(row: Mapping[Any, Any]) -> float:
        return float(max(row["measured_s"] / row["high_s"], row["low_s"] / row["measured_s"]))

    def width_pct(row: Mapping[Any, Any]) -> float:
        return 100.0 * float(max(row["high_s"] / row["predicted_s"] - 1.0, 1.0 - row["low_s"] / row["predicted_s"]))

    outside = [row for row in rows if not row["inside"]]
    if outside:
        worst = max(outside, key=excess)
        error = worst["error_pct"]
        where = f"{abs(error):.1f} % {'above' if error > 0.0 else 'below'}"
        return NOT_RIGHT, f"measured {name(worst)} is {where}, outside the band."
    wide = [row for row in rows if width_pct(row) > tolerance_pct]
    needed = [row for row in wide if row["quantile"] in NEEDED]
    if needed:
        worst = max(needed, key=width_pct)
        width = width_pct(worst)
        far = f"{width:.0f} % far" if width < _TIMES_PCT else f"to {count(round(width / 100.0 + 1.0))} times as much"
        return CANNOT_TELL, (
            f"the band of {name(worst)} reaches {far}, more than {tolerance_pct:g} %: "
            "calibrate on more requests, or measure for longer."
        )
    rest = ", ".join(map(name, wide))
    but = f" The band of {rest} is wider than {tolerance_pct:g} %, so that little is known of it." if rest else ""
    return RIGHT, f"The model is right: all measured quantiles are inside the band.{but}"
