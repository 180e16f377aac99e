"""Computes the work of requests in tokens, and the least time that each takes on an instance alone.

It works on typical requests: those of a trace, or 40,000 pairs of quantiles of the laws of prompts and answers. Each
law's quantiles are in equal steps of probability; those of the second law are in the order of the fractions of the
multiples of the golden ratio, so that the two are as good as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.scenario.laws import Law
from shadowsim.scenario.tokens import Tokens, full_batch

_N_PAIRS = 40_000
_GOLDEN_RATIO = (1.0 + math.sqrt(5.0)) / 2.0


class Requests(NamedTuple):
    """Tokens of prompts and answers of typical requests, all equally likely, shape (requests,) each.

    Of a prompt at most `cached` can be in a prefix cache.
    """

    prompt: Floats
    output: Floats
    cached: Floats


class TimesAlone(NamedTuple):
    """Seconds of typical requests that find an instance idle and stay alone, shape (requests,) each.

    `first_token_s` and `latency_s` count from a request's arrival. `per_token_s` is NaN for requests of one token.
    """

    first_token_s: Floats
    per_token_s: Floats
    latency_s: Floats


def typical_requests(tokens: Tokens, columns: Mapping[str, Floats]) -> Requests:
    """Return typical requests of a service; `columns` are those of the trace, if there is one."""
    laws = tokens.prompt, tokens.output
    traced = [law.values(columns) if law.kind == "linear" else None for law in laws]
    n = next((values.size for values in traced if values is not None), _N_PAIRS)
    order = np.argsort(np.arange(n) * _GOLDEN_RATIO % 1.0, kind="stable")
    prompt, output = (
        _quantiles(law, n) if values is None else values for law, values in zip(laws, traced, strict=True)
    )
    if traced[1] is None:
        output = output[order]
    elif traced[0] is None:
        prompt = prompt[order]
    prompt, output = (np.maximum(np.floor(values + 0.5), 1.0) for values in (prompt, output))
    return Requests(prompt, output, _most_cached(tokens, prompt))


def _most_cached(tokens: Tokens, prompt: Floats) -> Floats:
    """Return how much of each prompt can be in a prefix cache; all, where hashes may stand in lists of any length."""
    prefix = tokens.prefix
    if prefix is None:
        return np.zeros(prompt.size)
    most = np.inf if len(prefix.hashes) == 1 else float(prefix.length or len(prefix.hashes) * prefix.hash_tokens)
    whole: Floats = np.minimum(prompt, most) // tokens.block_tokens * tokens.block_tokens
    return np.minimum(whole, prompt - 1.0)


def work_s(tokens: Tokens, requests: Requests, columns: Mapping[str, Floats]) -> Floats:
    """Return how long each request keeps an instance busy that runs its full batch: `tokens.mean_work_s` of each."""
    step, (p, o, _) = tokens.step, requests
    prefill_s = step.per_prefill_token_s * p + step.per_prefill_pair_s * (p * p) + step.per_prompt_s
    each_s = step.base_s / full_batch(tokens, columns) + step.per_sequence_s
    seconds: Floats = prefill_s + (o * each_s + step.per_kv_token_s * (o * p + o * (o - 1.0) * 0.5))
    return seconds


def least_work_share(tokens: Tokens, requests: Requests, columns: Mapping[str, Floats]) -> float:
    """Return the share of the requests' work that is left while prefix caches have all that they can have."""
    step, cached = tokens.step, requests.cached
    saved_s = step.per_prefill_token_s * cached + step.per_prefill_pair_s * (cached * cached)
    return 1.0 - float(saved_s.sum() / work_s(tokens, requests, columns).sum())


def times_alone(tokens: Tokens, requests: Requests) -> TimesAlone:
    """Return the times of each request alone: the least that it takes, whatever the number of instances.

    Prefix caches have all that they can have.
    """
    step, (p, o, cached) = tokens.step, requests
    each_s = step.base_s + step.per_sequence_s
    n_chunks = np.ceil((p - cached) / tokens.max_step_tokens)
    prefill_s = n_chunks * (each_s + step.per_prompt_s) + step.per_prefill_token_s * (p - cached)
    prefill_s = prefill_s + step.per_prefill_pair_s * (p * p - cached * cached)
    more = o - 1.0
    decode_s = more * each_s + step.per_kv_token_s * (more * p + more * o * 0.5)
    first_token_s = tokens.before_s + prefill_s + tokens.after_s
    per_token_s = np.divide(decode_s, more, out=np.full(more.size, np.nan), where=more > 0.0)
    return TimesAlone(first_token_s, per_token_s, first_token_s + decode_s)


def _quantiles(law: Law, n: int) -> Floats:
    """Return n quantiles of a law in equal steps of probability, the least first."""
    half = (np.arange(-(-n // 2)) + 0.5) / n
    lower, upper = law.tails(half)
    return np.concatenate([lower, upper[: n // 2][::-1]])
