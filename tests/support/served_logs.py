"""Logs of servers with known workers, laws, overheads and slowdowns, made by a plain loop that shares no code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from shadowsim.measuring.fifo_starts import Answered
from shadowsim.measuring.measurement import Measurement

LAWS = ("exponential", "lognormal", "gamma", "deterministic", "weibull", "uniform", "pareto")


def services(law, n, rng, mean_s=0.02):
    """Draw services of a law with a mean, and an scv of 0 to 1."""
    match law:
        case "exponential":
            return rng.exponential(mean_s, n)
        case "deterministic":
            return np.full(n, mean_s)
        case "lognormal":
            sigma = math.sqrt(math.log(1.5))
            return mean_s * np.exp(sigma * rng.standard_normal(n) - sigma**2 / 2)
        case "gamma":
            return rng.gamma(4.0, mean_s / 4.0, n)
        case "weibull":
            return mean_s / math.gamma(1.0 + 1.0 / 1.5) * rng.weibull(1.5, n)
        case "uniform":
            return rng.uniform(0.5 * mean_s, 1.5 * mean_s, n)
        case "pareto":
            return mean_s * 2.0 / 3.0 * (1.0 + rng.pareto(3.0, n))
    raise ValueError(law)


def fifo_latencies(arrival_s, service_s, workers, slowdown=(1.0,), overhead_s=0.0):
    """Serve first in, first out, and return latencies."""
    free = [-1.0] * workers
    latency = np.empty(len(arrival_s))
    for i, t in enumerate(arrival_s.tolist()):
        worker = free.index(min(free))
        start = max(t, free[worker])
        busy = sum(end > start for end in free)
        free[worker] = start + service_s[i] * slowdown[min(busy, len(slowdown) - 1)]
        latency[i] = free[worker] - t + overhead_s
    return latency


def fifo_log(law="lognormal", workers=4, load=0.7, n=8_000, seed=0, slowdown=(1.0,), overhead_s=0.0, mean_s=0.02):
    """Arrivals and latencies of Poisson traffic."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(mean_s * slowdown[-1] / (workers * load), n))
    return arrival_s, fifo_latencies(arrival_s, services(law, n, rng, mean_s), workers, slowdown, overhead_s)


def answered(arrival_s, latency_s, instance=None):
    """As `fit_fifo` takes them."""
    return Answered(arrival_s, latency_s, np.zeros(len(arrival_s), np.int64) if instance is None else instance)


def measured(arrival_s, latency_s, **columns):
    """As `calibrate` and `predict` take them."""
    table = pd.DataFrame({"arrival_s": arrival_s, "latency_s": latency_s, **columns})
    if "status" not in table.columns:
        table["status"] = np.where(np.isnan(table["latency_s"]), "failed", "answered")
    return Measurement("test", requests=table.sort_values("arrival_s", kind="stable", ignore_index=True))


def batch_log(
    max_size=4, max_delay_s=0.004, marginal=0.2, workers=2, rate_per_s=150.0, n=6_000, seed=0, overhead_s=0.0
):
    """Arrivals and latencies of a dynamic batcher with gamma services of 20 ms, by a loop over its events."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1.0 / rate_per_s, n))
    free = [0.0] * workers
    latency, i = np.empty(n), 0
    while i < n:
        worker = free.index(min(free))
        full_s = arrival_s[i + max_size - 1] if i + max_size <= n else math.inf
        start = max(free[worker], min(arrival_s[i] + max_delay_s, full_s))
        size = min(int(np.searchsorted(arrival_s, start, side="right")) - i, max_size)
        size = max(size, 1)
        free[worker] = start + rng.gamma(4.0, 0.005) * (1.0 + marginal * (size - 1))
        latency[i : i + size] = free[worker] - arrival_s[i : i + size] + overhead_s
        i += size
    return arrival_s, latency


STEP = {"base_s": 0.0012, "per_prefill_token_s": 0.00034, "per_sequence_s": 0.00066, "per_kv_token_s": 1e-6}


def token_log(
    rate_per_s=8.0, n=1_500, seed=0, places=8, before_s=0.001, slower=1.0, per_prompt_s=0.0, scv=0.0, sent_s=None
):
    """Requests of a continuous batcher that reads a whole prompt in one step, by a loop over its steps.

    `scv` is that of the factors by which single steps are longer or shorter. With `sent_s` the time of each token is
    seen, when it was sent: up to so much after the end of its step.
    """
    rng = np.random.default_rng(seed)
    chance = np.random.default_rng(seed + 1)
    arrival_s = np.cumsum(rng.exponential(1.0 / rate_per_s, n))
    prompt, output = rng.integers(32, 129, n), rng.integers(16, 65, n)
    first, last = np.empty(n), np.empty(n)
    running, tokens, i, t = {}, [], 0, 0.0
    while i < n or running:
        if not running:
            t = max(t, arrival_s[i] + before_s)
        decoding = list(running)
        read = 0
        while i < n and arrival_s[i] + before_s <= t and len(running) < places:
            running[i] = 0
            read += int(prompt[i])
            i += 1
        context = sum(int(prompt[r]) + running[r] for r in decoding)
        t += (
            slower
            * (chance.gamma(1.0 / scv, scv) if scv else 1.0)
            * (
                STEP["base_s"]
                + STEP["per_prefill_token_s"] * read
                + STEP["per_sequence_s"] * len(running)
                + STEP["per_kv_token_s"] * context
                + per_prompt_s * (len(running) - len(decoding))
            )
        )
        for r in list(running):
            seen = t if sent_s is None else t + chance.uniform(0.0, sent_s)
            tokens.append((r, seen - arrival_s[r]))
            running[r] += 1
            if running[r] == 1:
                first[r] = seen
            if running[r] == output[r]:
                last[r] = seen
                del running[r]
    columns = {"first_token_s": first - arrival_s, "prompt_tokens": prompt, "output_tokens": output}
    log = measured(arrival_s, last - arrival_s, **columns)
    if sent_s is None:
        return log
    times = pd.DataFrame(tokens, columns=["row", "token_s"]).sort_values(["row", "token_s"], ignore_index=True)
    return replace(log, token_times=times)
