"""Makes the presets of step times from the public tables that they were fitted to.

`python tests/support/step_presets.py` writes shadowsim/scenario/data/step_models.csv anew, from the tables in the
folder `shared/data` beside the project.
"""

from __future__ import annotations

from pathlib import Path

import shadowsim
from shadowsim import step_model
from shadowsim.measuring.step_model import StepFit
from shadowsim.scenario.step_models import STEP_KEYS
from shadowsim.text import csv_text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PRESETS = Path(shadowsim.__file__).parent / "scenario" / "data" / "step_models.csv"
TABLES = {
    "splitwise_perf_model.csv": (
        "prefill and token times",
        "Splitwise (Patel et al., ISCA 2024), splitwise-sim's perf_model.csv, MIT; h100-80gb-pcap has the token times "
        "of h100-80gb",
    ),
    "vllm_h100_2026.csv": (
        "load stages",
        "vLLM on H100, inference-sim/training, February 2026: 5 to 20 requests/s with prompts of 570 to 593 tokens and "
        "outputs of 247 to 250",
    ),
}


def preset_name(fit: StepFit) -> str:
    """Return model, hardware and tensor parallelism, without the maker and in lower case."""
    c = fit.configuration
    model = c["model"].rpartition("/")[2]
    return f"{model}-{c.get('hardware') or c['gpu']}-tp{c['tensor_parallel']}".lower()


def preset_rows(data: Path = DATA) -> list[dict[str, object]]:
    """Return the presets' rows, with five significant digits."""
    rows = []
    for file, (measured, source) in TABLES.items():
        for fit in step_model(data / file).fits:
            row: dict[str, object] = {"name": preset_name(fit)}
            row |= {key: f"{fit.step[key]:.5g}" for key in STEP_KEYS}
            row |= {"before_s": "" if fit.before_s is None else f"{fit.before_s:.5g}"}
            row |= {"measured": measured, "n_cells": fit.n_cells}
            for measure, misses in fit.misses.items():
                row |= {f"{measure}_miss": f"{misses.mean:.4f}", f"{measure}_worst": f"{misses.worst:.4f}"}
            rows.append(row | {"source": source})
    return rows


if __name__ == "__main__":
    PRESETS.write_text(csv_text(preset_rows()), encoding="utf-8")
