"""Fits a language model's step times to requests with the times of their first and last token.

Between its first and its last token a request of o tokens takes part in o - 1 steps, each of which gives one token to
every sequence that runs. So how long it takes is base_s (o - 1) + per_sequence_s N + per_prefill_token_s P +
per_prompt_s M + per_kv_token_s K, where N is the tokens that all sequences got meanwhile, P the tokens of the M prompts
whose first token came meanwhile, and K the contexts that these tokens read.

A first fit takes the tokens of a sequence to lie evenly between its first and last. With its coefficients the steps
between one first or last token of any sequence and the next are counted, as whole numbers; the second fit takes the
requests whose steps then add up to o - 1, as they must. That is done again while more requests add up.

A request that found nobody in flight adds before_s: its first token comes after before_s and one step with its own
prompt. Where the times of all tokens are known, neither is needed: each time between two tokens of a sequence is one
step (token_steps.py).

Intervals come from a bootstrap of blocks of neighbouring requests, and allow for a machine that drifts (drift.py): for
that, measured times are taken over the modelled ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shadowsim.arrays import Flags, Floats, Ints
from shadowsim.errors import InputError
from shadowsim.measuring.calibration import Draw, FittedParameter, FittedService, Z, resampled_rows
from shadowsim.measuring.drift import drift_notes, drift_of
from shadowsim.measuring.law_fit import quantile_table, rounded
from shadowsim.measuring.token_log import DECODE, FIRST, MAY_BE_NONE, StepCells, TokenLog, token_log
from shadowsim.measuring.token_steps import seen_steps
from shadowsim.measuring.weighted_fit import Coefficients
from shadowsim.scenario.step_models import STEP_KEYS
from shadowsim.text import count, percent

if TYPE_CHECKING:
    import pandas as pd

FEW = 30
_AT_ONCE = 0.25  # of a step: tokens that are no further apart came with one step
_DRAWS, _BLOCKS = 60, 100
_MOMENT = 0.001  # of the time in which anything ran: a last token that came late makes as many more for as short
_COUNTED = 0.25  # share of requests whose steps add up
_RECOUNTS = 3
_SEEN = 0.5  # share of the answers of which all tokens were seen
_STEP_TOKENS = 2048  # vLLM's default on small accelerators, and llama.cpp's n_batch
_BLOCK = 16


def fit_tokens(requests: pd.DataFrame, seed: int = 0, token_times: pd.DataFrame | None = None) -> FittedService:
    """Return the service in tokens that requests show.

    Parameters
    ----------
    requests : DataFrame
        Answered requests with `arrival_s`, `latency_s` and `COLUMNS`, and `instance` where there are several.
    seed : int
        Of the bootstrap.
    token_times : DataFrame, optional
        When each token came, as `Measurement.token_times`; rows are labels of `requests`.

    Raises
    ------
    InputError
        When there are too few requests with two tokens or more.
    """
    log = token_log(requests, token_times)
    cells = step_cells(log)
    if int((cells.group == DECODE).sum()) < FEW:
        raise InputError("measurements", f"must have at least {FEW} requests with two output tokens or more")
    n_seen = int((log.output[np.unique(log.token_request)] > 2.0).sum())  # with a step beside the last
    n_decoding = int((cells.group == DECODE).sum())
    if n_seen >= max(FEW, _SEEN * n_decoding):
        firsts = cells.rows(np.flatnonzero(cells.group == FIRST))
        cells, fit = StepCells.joined([seen_steps(log), firsts]).settled()
        how = f"Each step between two tokens was seen, of {percent(n_seen / n_decoding, 0)} of the answers."
    else:
        cells, fit, how = _counted_steps(log, cells)
    has_first = bool((cells.group == FIRST).any())
    drift = drift_of(1.0 / (1.0 + fit.misses[cells.group == DECODE]))
    samples = _bootstrap(cells, drift, np.random.default_rng(seed))
    step_s = float(np.median((log.last_s - log.first_s)[log.output > 1] / (log.output - 1.0)[log.output > 1]))
    most, n_waited = most_sequences(log, step_s)
    most_flying = _most_at_once(log.arrival_s, log.last_s, log.instance)
    known = n_waited >= FEW
    max_sequences = most if known else most_flying
    room = {
        "max_sequences": max_sequences,
        "max_step_tokens": max(_STEP_TOKENS, max_sequences, int(log.prompt.max())),
        "kv_tokens": min(max_sequences * (int((log.prompt + log.output).max()) + _BLOCK), 2**26),
    }
    lengths = {"prompt": _length_law(log.prompt), "output": _length_law(log.output)}
    parameters = [
        *(_parameter(f"tokens.step.{key}", key, fit, samples) for key in STEP_KEYS),
        _before_parameter(fit, samples, has_first),
        _sequences_parameter(room["max_sequences"], known, most_flying),
        FittedParameter(
            "tokens.max_step_tokens", None, why_not="a log does not show what limits a step; taken as enough"
        ),
        FittedParameter("tokens.kv_tokens", None, why_not="a log does not show the cache; taken as enough for all"),
    ]
    off = np.abs(1.0 / (1.0 + fit.misses) - 1.0)  # of measured times from modelled ones
    apart = {name: off[cells.group == group] for name, group in (("decoding", DECODE), ("first tokens", FIRST))}
    notes = [
        "Requests have first and last tokens: the service is a continuous batcher. "
        + "; ".join(
            f"times of {name} are {percent(float(x.mean()))} off in the mean" for name, x in apart.items() if len(x)
        )
        + ".",
        how,
        *drift_notes(drift),
        *(
            [f"All tokens of {count(n_at_once)} answers came at once: when they were made is a guess."]
            if (n_at_once := int(log.at_once.sum()))
            else []
        ),
        *(f"{key} is left out: it would be negative." for key in fit.negative),
        *(f"{key} cannot be told from {', '.join(others)}: it is 0." for key, others in fit.dependent.items()),
        "after_s is 0: when a server sent its last token is not known apart from when it arrived.",
    ]

    def service(values: Mapping[str, float]) -> dict[str, Any]:
        step = {key: rounded(values[key]) for key in STEP_KEYS if values.get(key, 0.0) > 0.0 or key == "base_s"}
        return {"tokens": {**lengths, **room, "step": step, "before_s": rounded(values.get("before_s", 0.0))}}

    draws = tuple(Draw(service(values), 0.0) for values in samples)
    return FittedService(service(fit.values), 0.0, tuple(parameters), tuple(notes), draws)


def _counted_steps(log: TokenLog, even: StepCells) -> tuple[StepCells, Coefficients, str]:
    """Return the fit where only first and last tokens are known: cells, coefficients, and how steps were counted."""
    (cells, fit), share = even.settled(), 0.0
    for _ in range(_RECOUNTS):
        counted = counted_cells(log, fit)
        counted_share = float((counted.group == DECODE).sum() / (even.group == DECODE).sum())
        if counted_share < max(_COUNTED, share):
            break
        (cells, fit), share = counted.settled(), counted_share
    rests = "on which the fit rests" if share >= _COUNTED else "too few: the fit takes tokens as evenly spaced"
    return cells, fit, f"Steps could be counted for {percent(share, 0)} of the requests, {rests}."


def step_cells(log: TokenLog) -> StepCells:
    """Return the decoding of each request, and the first tokens of those that found nobody in flight."""
    parts: list[StepCells] = []
    for i in np.unique(log.instance):
        mine = log.instance == i
        parts += _cells_of_instance(*_own(log, mine))
    return StepCells.joined(parts)


def _own(log: TokenLog, mine: Flags) -> tuple[Any, ...]:
    times = log.arrival_s[mine], log.first_s[mine], log.last_s[mine]
    return *times, log.prompt[mine], log.output[mine], log.at_once[mine]


def _cells_of_instance(
    arrival: Floats, first: Floats, last: Floats, prompt: Floats, output: Floats, at_once: Flags
) -> list[StepCells]:
    several = (output > 1.0) & ~at_once
    steps = output[several] - 1.0
    near_s = _AT_ONCE * float(np.median((last - first)[several] / steps)) if several.any() else 0.0
    rate = np.where(output > 1.0, (output - 1.0) / np.maximum(last - first, 1e-12), 0.0)
    begin = float(arrival[0])
    t1, t2, zero = first - begin, last - begin, np.zeros(len(first))
    ones = np.ones(len(first))
    # What a sequence has had by the time t, m = rate (t - t1) being its tokens after the first: polynomials in t.
    tokens = (1.0 - rate * t1, rate, zero)
    linear = prompt + 0.5
    context = (-linear * rate * t1 + 0.5 * (rate * t1) ** 2, linear * rate - rate**2 * t1, 0.5 * rate**2)
    n_after = output - 1.0
    ended = {
        "n": output,
        "k": linear * n_after + 0.5 * n_after**2,
        "p": prompt,
        "q": prompt**2,
        "m": ones,
    }
    flat = {name: (ended[name], zero, zero) for name in ("p", "q", "m")}
    begun = {"n": tokens, "k": context, **flat}
    between = {
        name: _progress(t1, t2, begun[name], ended[name], t2[several], near_s)
        - _progress(t1, t2, begun[name], ended[name], t1[several], near_s)
        for name in begun
    }
    none = zero[several]
    decoding = StepCells(
        (last - first)[several],
        {
            "base_s": steps,
            "per_prefill_token_s": np.maximum(between["p"], 0.0),
            "per_sequence_s": between["n"],
            "per_kv_token_s": np.maximum(between["k"], 0.0),
            "per_prefill_pair_s": np.maximum(between["q"], 0.0),
            "per_prompt_s": np.maximum(between["m"], 0.0),
            "before_s": none,
        },
        np.full(len(none), DECODE, np.int64),
        (last - first)[several],
    )
    busy_until = np.concatenate(([-np.inf], np.maximum.accumulate(last)[:-1]))
    next_arrival = np.concatenate((arrival[1:], [np.inf]))
    alone = (busy_until < arrival) & (next_arrival > first) & ~at_once
    p = prompt[alone]
    firsts = StepCells(
        (first - arrival)[alone],
        {
            "base_s": ones[alone],
            "per_prefill_token_s": p,
            "per_sequence_s": ones[alone],
            "per_kv_token_s": zero[alone],
            "per_prefill_pair_s": p**2,
            "per_prompt_s": ones[alone],
            "before_s": ones[alone],
        },
        np.full(int(alone.sum()), FIRST, np.int64),
        (first - arrival)[alone],
    )
    return [decoding, firsts]


def counted_cells(log: TokenLog, fit: Coefficients) -> StepCells:
    """Return the cells of the requests whose steps, counted with the coefficients of a fit, add up."""
    parts: list[StepCells] = []
    for i in np.unique(log.instance):
        mine = log.instance == i
        arrival, *after = _own(log, mine)
        parts += [_counted(fit.values, *after), _cells_of_instance(arrival, *after)[1]]
    return StepCells.joined(parts)


def _counted(
    values: Mapping[str, float], first: Floats, last: Floats, prompt: Floats, output: Floats, at_once: Flags
) -> StepCells:
    n = len(first)
    base, each, p, c, r = (
        values.get(key, 0.0)
        for key in ("base_s", "per_sequence_s", "per_prefill_token_s", "per_kv_token_s", "per_prompt_s")
    )
    near_s = _AT_ONCE * (base + each)
    times = np.concatenate([first, last])
    order = np.argsort(times, kind="stable")
    ends = np.empty(2 * n, np.int64)  # at which end of a step each first and last token came
    ends[order] = np.cumsum(np.diff(times[order], prepend=-np.inf) > near_s) - 1
    at_first, at_last = ends[:n], ends[n:]
    n_ends = int(ends.max()) + 1
    end_s = np.zeros(n_ends)
    end_s[ends[order][::-1]] = times[order][::-1]

    def at(where: Ints, what: Floats) -> Floats:
        return np.bincount(where, what, n_ends).astype(np.float64)

    ones = np.ones(n)
    begun, prompts, squares = (at(at_first, what) for what in (ones, prompt, prompt**2))
    running = np.cumsum(begun - at(at_last, ones))
    joined, left = at(at_first, prompt + 1.0), at(at_last, prompt + output)
    steps, context = np.zeros(n_ends), np.zeros(n_ends)  # of the interval that ends there
    held = joined[0] - left[0]
    for j in range(1, n_ends):
        if running[j - 1] > 0.0:
            spent = end_s[j] - end_s[j - 1] - p * prompts[j] - (each + r) * begun[j]
            one = base + each * running[j - 1] + c * held
            steps[j] = k = max(round(spent / one), 1)
            context[j] = k * held + running[j - 1] * k * (k - 1.0) / 2.0
            held += running[j - 1] * k + joined[j] - left[j]
        else:
            held = joined[j] - left[j]
    before = np.concatenate(([0.0], running[:-1]))
    sums = {
        "base_s": np.cumsum(steps),
        "per_prefill_token_s": np.cumsum(prompts),
        "per_sequence_s": np.cumsum(steps * before + begun),
        "per_kv_token_s": np.cumsum(context),
        "per_prefill_pair_s": np.cumsum(squares),
        "per_prompt_s": np.cumsum(begun),
    }
    whole = (output > 1.0) & ~at_once & (sums["base_s"][at_last] - sums["base_s"][at_first] == output - 1.0)
    columns = {key: (total[at_last] - total[at_first])[whole] for key, total in sums.items()}
    columns["before_s"] = np.zeros(int(whole.sum()))
    took_s = (last - first)[whole]
    return StepCells(took_s, columns, np.full(len(took_s), DECODE, np.int64), took_s)


def _progress(
    first: Floats, last: Floats, begun: tuple[Floats, Floats, Floats], ended: Floats, at: Floats, near_s: float
) -> Floats:
    """Return the sum over sequences of what each has had by some times: polynomials while it runs, then a constant."""
    by_first, by_last = np.argsort(first), np.argsort(last)
    n_first = np.searchsorted(first[by_first], at + near_s, side="right")
    n_last = np.searchsorted(last[by_last], at + near_s, side="right")

    def upto(values: Floats, order: Ints, n: Ints) -> Floats:
        return np.concatenate(([0.0], np.cumsum(values[order])))[n]

    total = upto(ended, by_last, n_last)
    power = np.ones(len(at))
    for coefficient in begun:
        total += power * (upto(coefficient, by_first, n_first) - upto(coefficient, by_last, n_last))
        power = power * at
    return np.asarray(total, np.float64)


def most_sequences(log: TokenLog, step_s: float) -> tuple[int, int]:
    """Return the most sequences that decoded at a time, and how many requests waited for a place meanwhile."""
    most = _most_at_once(log.first_s, log.last_s, log.instance, _MOMENT)
    n_waited = 0
    for i in np.unique(log.instance):
        mine = log.instance == i
        first, last = np.sort(log.first_s[mine]), np.sort(log.last_s[mine])
        # half way from its arrival to its first token, which came too late for a step or two
        middle = 0.5 * (log.arrival_s[mine] + log.first_s[mine])
        running = np.searchsorted(first, middle, side="right") - np.searchsorted(last, middle, side="right")
        late = log.first_s[mine] - log.arrival_s[mine] > 10.0 * step_s
        n_waited += int((late & (running >= most - 1)).sum())
    return most, n_waited if most > 1 else 0


def _most_at_once(begin: Floats, end: Floats, instance: Ints, moment: float = 0.0) -> int:
    """Return the most at an instance at once, for more than a share of the time in which there was any."""
    most = 1
    for i in np.unique(instance):
        mine = instance == i
        times = np.concatenate([begin[mine], end[mine]])
        change = np.concatenate([np.ones(int(mine.sum())), -np.ones(int(mine.sum()))])
        order = np.lexsort((change, times))
        level, times = np.cumsum(change[order]).astype(np.int64), times[order]
        spent_s = np.bincount(level, np.diff(times, append=times[-1]))
        beyond_s = spent_s[:0:-1].cumsum()[::-1]  # at a level of one or more, or above
        most = max(most, int((beyond_s > moment * beyond_s[0]).sum()))
    return most


def _bootstrap(cells: StepCells, drift: float, rng: np.random.Generator) -> list[dict[str, float]]:
    """Return coefficients of blocks of neighbouring cells, drawn again, each at a speed that another run may have."""
    n, samples = len(cells.measured_s), []
    for _ in range(_DRAWS):
        values = cells.rows(resampled_rows(n, _BLOCKS, rng)).fit().values
        slower = math.exp(drift * rng.standard_normal())
        samples.append({name: slower * value for name, value in values.items()})
    return samples


def _parameter(name: str, key: str, fit: Coefficients, samples: Sequence[Mapping[str, float]]) -> FittedParameter:
    value = fit.values.get(key, 0.0)
    if key in fit.dependent:
        return FittedParameter(name, None, why_not=f"it cannot be told from {', '.join(fit.dependent[key])}")
    if key not in fit.values and key in MAY_BE_NONE:
        return FittedParameter(name, 0.0)
    if key not in fit.values:
        return FittedParameter(name, None, why_not="nothing that it multiplies was measured")
    error = float(np.std([one.get(key, 0.0) for one in samples]))
    return FittedParameter(name, value, max(value - Z * error, 0.0), value + Z * error)


def _before_parameter(fit: Coefficients, samples: Sequence[Mapping[str, float]], has_first: bool) -> FittedParameter:
    if not has_first:
        why = "no request found the server idle, and only such a one shows what comes before its first step"
        return FittedParameter("tokens.before_s", None, why_not=why)
    return _parameter("tokens.before_s", "before_s", fit, samples)


def _sequences_parameter(value: int, known: bool, most_flying: int) -> FittedParameter:
    if known:
        return FittedParameter("tokens.max_sequences", value, value, value)
    why = (
        f"hardly any request waited for a place, with up to {count(most_flying)} in flight at an instance: "
        "there are as many places or more"
    )
    return FittedParameter("tokens.max_sequences", value, value, math.inf, why)


def _length_law(lengths: Floats) -> object:
    """Return the law of lengths, as in a scenario: one number, or a table of quantiles."""
    x = np.sort(lengths)
    if x[0] == x[-1]:
        return {"law": "deterministic", "mean_tokens": float(x[0])}
    return {"law": "empirical", "quantiles_tokens": quantile_table(x)["quantiles_s"]}
