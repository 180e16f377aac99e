"""Scenarios with an equal or a slower shadow, both in tokens."""

from cases import scenario

SERVED = {
    "prompt": {"law": "lognormal", "mean_tokens": 200, "scv": 0.5},
    "output": {"law": "gamma", "mean_tokens": 30, "scv": 0.7},
    "max_sequences": 16,
    "max_step_tokens": 512,
    "kv_tokens": 20_000,
    "step": {"base_s": 0.02, "per_prefill_token_s": 0.0002, "per_sequence_s": 0.001},
}
PAIR = {"ttft_s": 0.15, "tpot_s": 0.05}
MISSED = "goodput_miss(ttft <= 0.15 s, tpot <= 0.05 s)"


def token_pair(n, slower=1.0, **run):
    """Return a scenario of about n requests, all copied, to two instances; the shadow's steps may last longer."""
    rate = 6.0
    shadow = SERVED | {"step": {key: seconds * slower for key, seconds in SERVED["step"].items()}}
    run = {"horizon_s": n / rate, "period_s": n / rate / 200, "sample_requests": 0, "goodput": [PAIR]} | run
    traffic = {"process": "poisson", "rate_per_s": rate}
    return scenario(traffic, {"tokens": SERVED}, {"tokens": shadow}, share=100, **run)
