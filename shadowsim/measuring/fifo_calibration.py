"""Describes fitted workers or batchers as service blocks, with intervals and what is left open.

Given the workers, services are independent of each other and of the queue in the model, but those of a real server
drift. So intervals come from a bootstrap of blocks of neighbouring requests: in each of its samples the overhead is
drawn from its own error, services are computed anew, and factors and law are fitted again. Where a drift shows, a
sample's services are also longer or shorter as those of another run may be (`drift_of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.measuring.batch_fit import BatchFit, batch_starts
from shadowsim.measuring.calibration import LATENCY_ALONE, Draw, FittedParameter, FittedService, Z, resampled_rows
from shadowsim.measuring.drift import drift_notes, drift_of
from shadowsim.measuring.fifo_fit import CONSTANT, FEW, FREE, LINEAR, FifoFit, WorkerFit, busy_factors, most_overhead
from shadowsim.measuring.fifo_starts import Answered, Starts, blocked_until, idle_time, in_flight, starts
from shadowsim.measuring.law_fit import LawFit, fit_law, quantile_table, refit, rounded
from shadowsim.measuring.wake_fit import WakeCurve, WakeFit
from shadowsim.scenario.laws import parse_law
from shadowsim.text import count, percent, significant, time_text

N_DRAWS = 100
_BLOCKS = 200  # of neighbouring requests
_RELATED = 0.05  # a correlation that is said


@dataclass(frozen=True, slots=True, eq=False)
class BootstrapSample:
    """One outcome of the bootstrap."""

    workers: int
    overhead_s: float
    factors: Floats
    law: Mapping[str, Any]
    figures: Mapping[str, float]
    ratio: float  # the factor of all busy workers over that of one, along a straight line
    wake: WakeCurve | None


def describe_fifo(answered: Answered, fit: FifoFit, seed: int = 0) -> FittedService:
    """Return the service that fitted workers stand for.

    Parameters
    ----------
    answered : Answered
        The requests that were fitted.
    fit : FifoFit
    seed : int
        Of the bootstrap.
    """
    blocked: dict[int, Floats] = {}
    best = fit.best
    idle_s = idle_time(answered, best.overhead.value_s)

    def begin(workers: int, overhead_s: float, wake: WakeCurve | None) -> Starts:
        if workers not in blocked:
            blocked[workers] = blocked_until(answered, workers)
        woken = answered if wake is None else replace(answered, wake_s=wake.added_s(idle_s))
        return starts(woken, blocked[workers], in_flight(answered, overhead_s), workers, overhead_s)

    service_s = best.starts.service_s / best.factor_of_each
    possible = service_s > 0.0
    law = fit_law(service_s[possible])
    rng = np.random.default_rng(seed)
    samples = bootstrap(fit, begin, law, rng)
    own = [one for one in samples if one.workers == best.workers]
    parameters = [
        *_law_parameters(law, [one.figures for one in own]),
        _workers_parameter(fit),
        *_slowdown_parameters(best, own),
        _overhead_parameter(best),
        *([] if fit.wake is None else fit.wake.parameters()),
    ]
    block: dict[str, Any] = {"time": dict(law.block), "workers": best.workers}
    if best.shape != CONSTANT:
        block["slowdown"] = [rounded(x) for x in best.factors]
    block |= _wake_block(None if fit.wake is None else fit.wake.curve)
    notes = [law.sentence, _slowdown_sentence(best), *_wake_sentences(fit.wake)]
    if law.best is not None:  # services that are all alike differ by rounding alone, which means nothing
        notes += _checks(best, service_s)
    n_impossible = int((~possible).sum())
    if n_impossible:
        workers = "1 worker" if best.workers == 1 else f"{best.workers} workers"
        notes.append(
            f"{count(n_impossible)} requests ({percent(n_impossible / len(answered))}) were answered before their "
            f"service could begin with {workers}; they are left out of the law."
        )
    return FittedService(block, best.overhead.value_s, tuple(parameters), tuple(notes), _draws(samples))


def describe_batcher(found: BatchFit, seed: int = 0) -> FittedService:
    """Return the service that a fitted batcher stands for."""
    fit, best, batches = found.fit, found.fit.best, found.batches
    service_s = best.starts.service_s / best.factor_of_each
    law = fit_law(service_s[service_s > 0.0])

    def begin(workers: int, overhead_s: float, _wake: WakeCurve | None) -> Starts:
        return batch_starts(batches, found.delay.value_s, workers, overhead_s)

    samples = bootstrap(fit, begin, law, np.random.default_rng(seed))
    own = [one for one in samples if one.workers == best.workers]
    most, delay = batches.max_size, found.delay
    why_size = (
        ""
        if found.n_full >= FEW
        else (
            f"only {count(found.n_full)} batches of that size left requests behind, so that larger ones may be allowed"
        )
    )
    why_delay = "" if math.isfinite(delay.high_s) else "hardly any batch found a free worker"
    parameters = [
        *_law_parameters(law, [one.figures for one in own]),
        _workers_parameter(fit),
        FittedParameter("batching.max_size", most, most, math.inf if why_size else most, why_size),
        FittedParameter("batching.max_delay_s", delay.value_s, delay.low_s, delay.high_s, why_delay),
        *_size_parameters(best, own),
        _overhead_parameter(best),
    ]
    batching = {"max_size": most, "max_delay_s": rounded(delay.value_s)}
    block = {"time": dict(law.block), "workers": best.workers, "batching": batching | _size_factors(best.factors)}
    draws = []
    for one in samples:
        batching_of_one = batching | _size_factors(one.factors)
        draws.append(
            Draw({"time": dict(one.law), "workers": one.workers, "batching": batching_of_one}, rounded(one.overhead_s))
        )
    mean_size = float(batches.size.mean())
    notes = [
        f"Requests are answered in batches, {significant(mean_size)} at a time in the mean and {most} at most: the "
        "service is a dynamic batcher.",
        law.sentence,
        *drift_notes(drift_of(service_s)),
        "That workers of a batcher slow each other down is not looked for.",
    ]
    return FittedService(block, best.overhead.value_s, tuple(parameters), tuple(notes), tuple(draws))


def describe_alone(answered: Answered, resolution_s: float, seed: int = 0) -> FittedService:
    """Return the service that takes as long as the answers took, where arrivals are too coarse to show any wait.

    Parameters
    ----------
    answered : Answered
    resolution_s : float
        Steps of the log's times, longer than its latencies: within them arrivals were spread at random.
    seed : int
        Of the bootstrap.
    """
    latency_s = answered.latency_s[answered.latency_s > 0.0]
    law, rng = fit_law(latency_s), np.random.default_rng(seed)
    blocks = [_refitted(law, latency_s[resampled_rows(len(latency_s), _BLOCKS, rng)]) for _ in range(N_DRAWS)]
    why = (
        f"times in steps of {time_text(resolution_s)} do not show which requests waited, since latencies are shorter; "
        "a log with finer times does"
    )
    parameters = [
        *_law_parameters(law, [law_figures(block) for block in blocks]),
        *(FittedParameter(name, None, why_not=why) for name in ("workers", "slowdown", "endpoint.overhead_s")),
    ]
    draws = tuple(Draw({"time": dict(block)}, 0.0) for block in blocks)
    return FittedService({"time": dict(law.block)}, 0.0, tuple(parameters), (LATENCY_ALONE, law.sentence), draws)


def _size_factors(factors: Floats) -> dict[str, Any]:
    """Return the keys of `batching` that say how long a batch takes by its size."""
    steps = np.diff(factors)
    if np.allclose(steps, steps[0], rtol=1e-9, atol=1e-12) and steps[0] >= 0.0:
        return {"marginal": rounded(float(steps[0]))}
    return {"factors": [rounded(x) for x in factors]}


def _size_parameters(best: WorkerFit, samples: Sequence[BootstrapSample]) -> list[FittedParameter]:
    """Return `marginal`, or the factors of the sizes."""
    if best.shape != FREE:
        n = len(best.factors) - 1
        values = np.array([(one.ratio - 1.0) / n for one in samples])
        value, error = float((best.factors[-1] - 1.0) / n), float(values.std())
        low, high = (min(value, float(values.mean())) - Z * error, max(value, float(values.mean())) + Z * error)
        return [FittedParameter("batching.marginal", value, max(low, 0.0), high)]
    return [
        FittedParameter.by_factor(f"batching.factors[{i + 1}]", float(best.factors[i]), [x.factors[i] for x in samples])
        for i in range(1, len(best.factors))
    ]


def bootstrap(
    fit: FifoFit, begin: Callable[[int, float, WakeCurve | None], Starts], law: LawFit, rng: np.random.Generator
) -> list[BootstrapSample]:
    """Return what the uncertainty of the data leaves possible; rare numbers of workers come as often as they may.

    Parameters
    ----------
    fit : FifoFit
    begin : callable
        Returns the starts for a number of workers, an overhead, and what idleness adds.
    law : LawFit
        Of the best fit.
    rng : Generator
    """
    scores = np.array([one.score for one in fit.alternatives])
    odds = np.exp(scores - scores.max())
    drift = drift_of(fit.best.starts.service_s / fit.best.factor_of_each)
    samples = []
    for i in range(N_DRAWS):
        wake = None if fit.wake is None else fit.wake.samples[i]
        one = fit.alternatives[int(rng.choice(len(odds), p=odds / odds.sum()))]
        error = one.overhead.error_s if one.overhead.is_known else 0.0
        overhead_s = max(one.overhead.value_s + error * rng.standard_normal(), 0.0)
        alone = ~one.starts.waited
        if alone.any():  # where latencies are all alike, hardly anything bounds it
            overhead_s = min(overhead_s, most_overhead(one.starts.service_s[alone] + one.overhead.value_s))
        begun = begin(one.workers, overhead_s, wake)
        n = len(begun.service_s)
        rows = resampled_rows(n, _BLOCKS, rng)
        begun = begun.rows(rows[begun.service_s[rows] > 0.0])
        factors = busy_factors(begun, one.groups, one.shape)
        line = busy_factors(begun, one.groups, LINEAR) if len(factors) > 1 else np.ones(1)
        service_s = begun.service_s / factors[begun.busy - 1] * math.exp(drift * rng.standard_normal())
        samples.append(_sample(service_s, one, overhead_s, factors, law, float(line[-1]), wake))
    return samples


def _sample(
    service_s: Floats,
    fit: WorkerFit,
    overhead_s: float,
    factors: Floats,
    law: LawFit,
    ratio: float,
    wake: WakeCurve | None,
) -> BootstrapSample:
    block = _refitted(law, service_s)
    return BootstrapSample(fit.workers, overhead_s, factors, block, law_figures(block), ratio, wake)


def _refitted(law: LawFit, service_s: Floats) -> Mapping[str, Any]:
    """Return a law of the same kind for another sample of services."""
    if law.best is None:
        return {"law": "deterministic", "mean_s": rounded(float(service_s.mean()))}
    named = refit(law.best.name, service_s) if law.is_named else None
    return quantile_table(np.sort(service_s)) if named is None else dict(named.block)


def law_figures(block: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean, the median and p99 of a law in seconds."""
    law = parse_law(block, "time", "s")
    lower, upper = law.tails(np.array([0.01, 0.5]))
    return {"time.mean_s": law.mean, "time.p50_s": float(lower[1]), "time.p99_s": float(upper[0])}


def _law_parameters(law: LawFit, samples: Sequence[Mapping[str, float]]) -> list[FittedParameter]:
    figures = law_figures(law.block)
    if len(samples) < 2:
        return [FittedParameter(name, value) for name, value in figures.items()]
    return [FittedParameter.by_factor(name, value, [x[name] for x in samples]) for name, value in figures.items()]


def _workers_parameter(fit: FifoFit) -> FittedParameter:
    low, high = min(fit.possible), max(fit.possible)
    best, most = fit.best.workers, fit.most_in_flight
    if not fit.is_bounded:
        if fit.possible == (most,) or low == most:
            why = (
                f"no request had to wait: never more than {most} were in flight at an instance, so that there are "
                f"{most} workers or more"
            )
        else:
            why = f"too few requests waited to exclude that there are more; {low} or more are possible"
        return FittedParameter("workers", best, low, math.inf, why)
    if not fit.is_identified:
        return FittedParameter("workers", best, low, high, f"the data fit {low} to {high} workers about equally well")
    return FittedParameter("workers", best, best, best)


def _slowdown_parameters(best: WorkerFit, samples: Sequence[BootstrapSample]) -> list[FittedParameter]:
    """Return the factor of all busy workers, and with a slowdown each of the others."""
    c = best.workers
    if c == 1:
        return []
    seen = np.flatnonzero(np.bincount(best.starts.busy - 1, minlength=c) >= FEW)
    if len(seen) < 2:
        level = f"{seen[0] + 1} busy workers" if len(seen) else "any number of busy workers"
        why = f"nearly all services were seen with {level}; only their time at that load is known"
        return [FittedParameter(f"slowdown[{c}]", None, why_not=why)]
    if best.shape == CONSTANT:
        error = float(np.log([one.ratio for one in samples]).std())
        mid = float(np.log([one.ratio for one in samples]).mean())
        low, high = math.exp(mid - Z * error), math.exp(mid + Z * error)
        return [FittedParameter(f"slowdown[{c}]", 1.0, min(low, 1.0), max(high, 1.0))]
    return [
        FittedParameter.by_factor(f"slowdown[{b + 1}]", float(best.factors[b]), [x.factors[b] for x in samples])
        for b in (range(1, c) if c <= 8 else [c - 1])
    ]


def _overhead_parameter(best: WorkerFit) -> FittedParameter:
    overhead, name = best.overhead, "endpoint.overhead_s"
    if not overhead.is_known:
        n = int(best.starts.waited.sum())
        seen = "hardly any request waited" if n < FEW else "nearly all requests waited"
        part = "the service time holds it" if n < FEW else "it is taken as 0"
        why = f"{seen}, and only the difference between those that did and those that did not shows it; {part}"
        return FittedParameter(name, None, why_not=why)
    low = max(overhead.value_s - Z * overhead.error_s, 0.0)
    return FittedParameter(name, overhead.value_s, low, overhead.value_s + Z * overhead.error_s)


def _wake_block(wake: WakeCurve | None) -> dict[str, Any]:
    if wake is None or wake.most_s <= 0.0:  # a sample may find that idleness adds nothing
        return {}
    return {"wake": {"most_s": rounded(wake.most_s), "half_s": rounded(wake.half_s)}}


def _wake_sentences(wake: WakeFit | None) -> list[str]:
    if wake is None:
        return []
    return [
        "Services take longer the longer their instance was idle before (by BIC): by up to "
        f"{time_text(wake.curve.most_s)}, and by half of it after {time_text(wake.curve.half_s)}."
    ]


def _slowdown_sentence(best: WorkerFit) -> str:
    if best.workers == 1:
        return "One worker has no other to slow it down."
    return {
        CONSTANT: "Services take as long however many workers are busy (by BIC): there is no slowdown.",
        LINEAR: "Services take longer the more workers are busy, in a straight line (by BIC).",
    }.get(best.shape, "Services take longer or shorter with busy workers, and a straight line does not fit (by BIC).")


def _checks(best: WorkerFit, service_s: Floats) -> list[str]:
    """Return sentences where services depend on what the model says they do not depend on."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    notes = []
    waited = best.starts.waited & (service_s > 0.0)
    if waited.sum() >= 10 * FEW:
        x, y = rankdata(best.starts.wait_s[waited]), rankdata(service_s[waited])
        r = float(np.corrcoef(x, y)[0, 1])
        if abs(r) > max(_RELATED, 4.0 / math.sqrt(len(x))):
            notes.append(
                f"Services {'grow' if r > 0.0 else 'shrink'} with the wait before them (rank correlation {r:.2f}), "
                "which FIFO workers do not explain: predictions at other loads may be off."
            )
    logs = np.log(service_s[service_s > 0.0])
    logs = logs - logs.mean()
    r = float((logs[1:] * logs[:-1]).mean() / max(float((logs**2).mean()), 1e-300))
    if r > max(_RELATED, 4.0 / math.sqrt(len(logs))):
        notes.append(
            f"Services of neighbouring requests are alike (correlation {r:.2f}), as where a server drifts; the model "
            "draws them one by one, and its queues are shorter than the real ones."
        )
    notes += drift_notes(drift_of(service_s))
    return notes


def _draws(samples: Sequence[BootstrapSample]) -> tuple[Draw, ...]:
    draws = []
    for one in samples:
        block: dict[str, Any] = {"time": dict(one.law), "workers": one.workers}
        if not np.all(one.factors == 1.0):
            block["slowdown"] = [rounded(x) for x in one.factors]
        block |= _wake_block(one.wake)
        draws.append(Draw(block, rounded(one.overhead_s)))
    return tuple(draws)
