"""Predicts real vLLM at a rate that the fit has not seen, and prints the errors beside what was measured.

Step times are fitted to all stages of a model without failures but the one of the highest rate; that one is predicted
twice. A simulation of the fitted step model has the stage's rate, its lengths and the server's limits; its figures are
means over twenty runs of ten minutes. A computation takes the mean from the fixed point of Little's law, and scales p90
and p99: the quantile of the highest fitted stage times the ratio of the predicted mean to that stage's mean. The goal
for the mean is 7 %.

Arrivals are simulated as a Poisson process, though the stages are called constant: the load generator, inference-perf,
draws exponential gaps for a constant rate (its load_timer.py, read in November 2026). Truly constant arrivals would
make p99 of Llama-2-7b 22 % too low, and with these it is within some per cent at each rate.

First tokens are too early under load, since what the fit takes for a constant is partly a step. Times of the stages of
Llama-2-7b and CodeLlama are explained by 2.5 steps and 7 to 9 ms better than by 1.5 steps and 14 to 24 ms: computed so,
the misses are 8 and 7 %. vLLM can schedule a step ahead of the one that runs (its pull request 19970), and does so by
default in 2026; the simulated scheduler does not.

The stages are those of shared/data/vllm_h100_2026.csv beside the project.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import shadowsim as ss
from shadowsim.measuring.step_columns import Measurements, measurements_of
from shadowsim.measuring.step_stages import StageFit, fit_stages, predict_highest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "vllm_h100_2026.csv"
GOAL = 0.07
RUNS, STAGE_S = 20, 600.0
# The steps of these two grow by more us per sequence from 22 to 38 sequences than from there on (see the table). So a
# line through the three stages of at most 48 sequences is too steep for 103 and 112: with it, more sequences run than
# did, and of Llama-2-70b's some wait for one of 128 places, which multiplies its time to the first token.
BENT = ("Llama-2-70b-hf", "Mixtral-8x7B-v0.1")

Table = Callable[[str, str, str], None]


def slopes_us(part: Measurements) -> list[float]:
    """Return how much a step grows per sequence from each stage to the next, in us."""
    c = part.columns
    concurrency = c["rate_per_s"] * c["e2e_s"]
    steps = (c["e2e_s"] - c["ttft_s"]) / (c["output_tokens"] - 1.0)
    order = np.argsort(concurrency)
    slopes: list[float] = (1e6 * np.diff(steps[order]) / np.diff(concurrency[order])).tolist()
    return slopes


def lengths(stage: pd.Series, of: str) -> dict[str, object]:
    """Return the law of a stage's lengths, from its quantiles; outputs below the median look like miscounts."""
    least = stage[f"{of}_median"] if of == "output_tokens" else stage[f"{of}_min"]
    points = {"0": least, "1": stage[f"{of}_max"]}
    points |= {p: stage[f"{of}_{name}"] for p, name in (("0.5", "median"), ("0.9", "p90"), ("0.99", "p99"))}
    return {"law": "empirical", "quantiles_tokens": {p: float(points[p]) for p in sorted(points, key=float)}}


def simulated(stage: pd.Series, fitted: StageFit) -> pd.Series:
    """Return the figures of a stage with a fitted step model: means over runs."""
    values = fitted.coefficients.values
    served = {
        "prompt": lengths(stage, "prompt_tokens"),
        "output": lengths(stage, "output_tokens"),
        "max_sequences": int(stage["max_num_seqs"]),
        "max_step_tokens": int(stage["max_num_batched_tokens"]),
        "kv_tokens": 2**20,  # more than 128 of these sequences need
        "step": {key: values[key] for key in ("base_s", "per_sequence_s")},
        "before_s": fitted.before_s,
    }
    document = dict(ss.default_scenario().document)
    document |= {
        "traffic": {"process": "poisson", "rate_per_s": float(stage["rate_per_s"])},
        "services": {name: {"tokens": served} for name in ("AllTraffic", "Shadow-01")},
        "run": {"horizon_s": STAGE_S, "period_s": 6.0, "sample_requests": 0},
    }
    changes = {"source.instance_count": 1, "shadow.instance_count": 1, "sampling_percentage": 1}
    runs = ss.replicate(ss.Scenario.of(document).replace(changes), RUNS)
    sources = [run.summary(standard_errors=False).set_index("role").loc["source"] for run in runs]
    columns = {"e2e_s": "mean_s", "e2e_s_p90": "p90_s", "e2e_s_p99": "p99_s"}
    columns |= {"ttft_s": "ttft_mean_s", "ttft_s_p99": "ttft_p99_s"}
    return pd.Series({column: np.mean([source[name] for source in sources]) for column, name in columns.items()})


def test_the_highest_rate_of_vllm_is_predicted(table: Table) -> None:
    if not DATA.exists():
        pytest.skip(f"the measurements are not at {DATA}")
    stages = pd.read_csv(DATA)
    read = measurements_of(stages, DATA.name, {}, None, str)
    table(
        "held-out vLLM; us per sequence by stage",
        "simulated: mean, p90, p99; first token, its p99",
        "computed, quantiles scaled: mean, p90, p99; first token",
    )
    assert len(read.by_configuration) == 4
    for part in read.by_configuration:
        name = part.configuration["model"]
        model, rate = name.rpartition("/")[2], part.columns["rate_per_s"]
        prediction = predict_highest(part.columns, model)
        assert prediction is not None
        lower = {column: values[rate < rate.max()] for column, values in part.columns.items()}
        stage = stages[(stages["model"] == name) & (stages["rate_per_s"] == rate.max())].iloc[0]
        measured = stage.rename({"e2e_s_mean": "e2e_s", "ttft_s_mean": "ttft_s"})
        predicted = simulated(stage, fit_stages(lower, model))
        misses = predicted / measured[predicted.index].astype(float) - 1.0
        scaled = {column: prediction.error(column) for column in ("e2e_s", "e2e_s_p90", "e2e_s_p99", "ttft_s")}
        slopes = slopes_us(part)
        table(
            f"{model} at {prediction.rate_per_s:g}/s; {', '.join(f'{slope:.0f}' for slope in slopes)}",
            "{:+.1%}, {:+.1%}, {:+.1%}; {:+.1%}, {:+.1%}".format(*misses),
            "{:+.1%}, {:+.1%}, {:+.1%}; {:+.1%}".format(*scaled.values()),
        )
        if model in BENT:
            assert scaled["e2e_s"] > GOAL
            assert misses["e2e_s"] > GOAL
            assert slopes[0] > 1.5 * slopes[2]
        else:
            assert abs(scaled["e2e_s"]) <= GOAL
            assert abs(misses["e2e_s"]) <= GOAL
            for column in ("e2e_s_p90", "e2e_s_p99"):
                assert abs(misses[column]) < abs(scaled[column])
                assert abs(misses[column]) <= GOAL
