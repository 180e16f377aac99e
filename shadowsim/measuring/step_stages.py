"""Computes step times from stages of a load test, and predicts the latency at another rate.

A stage is a rate of requests with the means of the end-to-end time and of the time to the first token. Of a request
with o tokens, o - 1 come after the first, so a step takes (E2E - TTFT) / (o - 1). By Little's law (1961, Operations
Research 9, 383-387), C = rate E2E sequences run in the mean. Steps are fitted as base + s C.

At a rate, a step reads rate step p tokens of prompts, which is C p / o while nearly all of E2E is decoding. So what a
token of a prompt, a token of context and a sequence cost cannot be told apart where prompts are alike: s holds it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.measuring.step_columns import QUANTILES
from shadowsim.measuring.weighted_fit import Coefficients, fit_nonnegative
from shadowsim.text import significant, time_text

_STEPS_BEFORE = 1.5  # from a request's entry to its first token: half of the step in progress, and its own
_ALIKE = 1.2  # ratio of the greatest and the least prompt per output token


@dataclass(frozen=True, slots=True, eq=False)
class StageFit:
    """Step times fitted to stages.

    Attributes
    ----------
    coefficients : Coefficients
        Of `base_s` and `per_sequence_s`.
    step_s : ndarray
        The measured steps.
    before_s : float
        The median over stages of TTFT less 1.5 modelled steps, at least 0.
    notes : tuple of str
        Sentences about what was assumed.
    """

    coefficients: Coefficients
    step_s: Floats
    before_s: float
    notes: tuple[str, ...]

    def first_token_s(self, concurrency: Floats) -> Floats:
        """Return the mean time to the first token while so many sequences run, and none waits for a place."""
        values = self.coefficients.values
        return self.before_s + _STEPS_BEFORE * (values["base_s"] + values["per_sequence_s"] * concurrency)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A stage as the stages of lower rates predict it, beside what was measured.

    Attributes
    ----------
    rate_per_s : float
    e2e_s, ttft_s : float
        The predicted means; infinite where the server would not keep up.
    scaled_s : mapping of str to float
        Quantiles of the highest fitted stage, scaled by the predicted mean over that stage's mean.
    measured : mapping of str to float
        The stage's canonical columns.
    """

    rate_per_s: float
    e2e_s: float
    ttft_s: float
    scaled_s: Mapping[str, float]
    measured: Mapping[str, float]

    def error(self, column: str) -> float:
        """Return predicted / measured - 1 of `e2e_s`, `ttft_s` or a quantile."""
        predicted = {"e2e_s": self.e2e_s, "ttft_s": self.ttft_s, **self.scaled_s}[column]
        return predicted / self.measured[column] - 1.0


def fit_stages(columns: Mapping[str, Floats], name: str) -> StageFit:
    """Fit step times to the stages of one configuration.

    Parameters
    ----------
    columns : mapping of str to ndarray
        The canonical columns of load stages.
    name : str
        The configuration, in errors.

    Raises
    ------
    InputError
        When there are not two stages, or a time to the first token is not below the end-to-end time.
    """
    rate, output, e2e, ttft = (columns[c] for c in ("rate_per_s", "output_tokens", "e2e_s", "ttft_s"))
    if len(rate) < 2:
        raise InputError(name, "must have at least two stages without failures, of different rates")
    if not (e2e > ttft).all():
        raise InputError(name, "must have ttft_s below e2e_s in each stage", float(ttft[e2e <= ttft][0]))
    if not (output > 1.0).all():
        raise InputError(name, "must have output_tokens above 1 in each stage", float(output.min()))
    step = (e2e - ttft) / (output - 1.0)
    concurrency = rate * e2e
    regressors = {"base_s": np.ones(len(rate)), "per_sequence_s": concurrency}
    fit = fit_nonnegative(regressors, step, np.zeros(len(rate), np.int64))
    modelled = step * (1.0 + fit.misses)
    before = ttft - _STEPS_BEFORE * modelled
    before_s = max(float(np.median(before)), 0.0)
    notes = [
        "per_prefill_token_s, per_kv_token_s and per_prefill_pair_s are taken as 0: at a steady rate their shares of a "
        "step grow with the sequences that run, so per_sequence_s holds them for prompts and outputs like these.",
        f"Concurrency is rate x end-to-end time (Little's law), here {significant(concurrency.min())} to "
        f"{significant(concurrency.max())}.",
    ]
    least, most = (time_text(max(float(x), 0.0)) for x in (before.min(), before.max()))
    if before_s == 0.0:
        notes.append("before_s is 0: the first token comes within 1.5 steps, of which half a step is waiting.")
    else:
        notes.append(
            f"before_s is the median of TTFT less 1.5 steps ({least} to {most}); it holds the prompt's prefill, too."
        )
    if "prompt_tokens" in columns:
        ratio = columns["prompt_tokens"] / output
        if ratio.max() > _ALIKE * ratio.min():
            notes.append(
                f"Prompts per output token differ, {significant(ratio.min())} to {significant(ratio.max())}, and so "
                "does per_sequence_s: fit stages with like prompts apart."
            )
    return StageFit(fit, step, before_s, tuple(notes))


def predict_highest(columns: Mapping[str, Floats], name: str) -> Prediction | None:
    """Predict the stage with the highest rate from the others; None where fewer than two are left.

    Parameters
    ----------
    columns : mapping of str to ndarray
        The canonical columns of load stages; with `QUANTILES` for those of the prediction.
    name : str
        The configuration, in errors.
    """
    rate = columns["rate_per_s"]
    lower = rate < rate.max()
    if lower.sum() < 2:
        return None
    fitted = fit_stages({c: v[lower] for c, v in columns.items()}, name)
    i = int(np.argmax(rate))
    e2e_s = mean_value_e2e_s(fitted, float(rate[i]), float(columns["output_tokens"][i]))
    last = np.flatnonzero(lower)[np.argmax(rate[lower])]
    return Prediction(
        rate_per_s=float(rate[i]),
        e2e_s=e2e_s,
        ttft_s=float(fitted.first_token_s(rate[i] * e2e_s)),
        scaled_s={q: float(columns[q][last] / columns["e2e_s"][last]) * e2e_s for q in QUANTILES if q in columns},
        measured={c: float(v[i]) for c, v in columns.items()},
    )


def mean_value_e2e_s(fitted: StageFit, rate_per_s: float, output_tokens: float) -> float:
    """Return the mean end-to-end time at a rate, by the fixed point of Little's law.

    C = rate E2E, and E2E = before + (1.5 + o - 1)(base + s C). This is linear in E2E, so that
    E2E = (before + (o + 0.5) base) / (1 - (o + 0.5) s rate).

    Returns
    -------
    float
        Seconds; infinite where the server cannot keep up with the rate at any concurrency.
    """
    values = fitted.coefficients.values
    steps = output_tokens - 1.0 + _STEPS_BEFORE
    share = steps * values["per_sequence_s"] * rate_per_s
    return (fitted.before_s + steps * values["base_s"]) / (1.0 - share) if share < 1.0 else math.inf
