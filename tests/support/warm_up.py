"""Compiles the kernels for all workers of a test session, each kernel in one of them, but that of prefix caches.

Where numba's cache is empty, every worker would compile every kernel, at the same time as the others. Here the first
that is free takes the next kernel, the longest first, and none goes on before all are in the cache.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import numba
from cases import scenario, service

from shadowsim import simulate

MOST_S = 300.0  # a worker that died has left its kernel to be compiled where it is needed

_LAW = {"law": "deterministic"}
_TOKENS = {
    "prompt": _LAW | {"mean_tokens": 1},
    "output": _LAW | {"mean_tokens": 1},
    "max_sequences": 1,
    "max_step_tokens": 16,
    "kv_tokens": 64,
    "step": {"base_s": 0.01},
}
_LEAST = {"routing": "LEAST_OUTSTANDING_REQUESTS"}
_KERNELS = {
    "tokens": ({"tokens": _TOKENS}, {}),
    "events": (service() | {"outages": [{"instance": 0, "at_s": 10.0, "for_s": 5.0}]}, {}),
    "general": (service(queue_limit=9), {}),
    "least": (service(), _LEAST),
    "plain": (service(), {}),
}


def compile_together(folder: Path) -> None:
    """Compile what no other worker compiles, and wait for the others; `folder` is the session's."""
    if numba.config.DISABLE_JIT:
        return
    folder.mkdir(exist_ok=True)
    for name, (block, endpoint) in _KERNELS.items():
        try:
            (folder / name).touch(exist_ok=False)
        except FileExistsError:
            continue
        with suppress(Exception):  # a broken kernel fails the tests of it, not all
            simulate(scenario({"process": "poisson", "rate_per_s": 0.1}, block, endpoint=endpoint, source_instances=2))
        (folder / f"{name}.done").touch()
    stop = time.monotonic() + MOST_S
    while time.monotonic() < stop and not all((folder / f"{name}.done").exists() for name in _KERNELS):
        time.sleep(0.1)
