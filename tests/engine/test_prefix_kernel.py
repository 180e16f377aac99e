"""Prefix caches through `simulate`: what an infinite cache saves, and how often small ones hit, in exact formulas.

Their kernel takes most of a minute to compile, so whatever needs it compiled is slow, here and elsewhere.
"""

import os
import subprocess
import sys
from collections import OrderedDict
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from cases import scenario

import shadowsim as ss

BLOCK = 16
SERVED = {
    "prompt": 100, "output": 1, "max_sequences": 4, "max_step_tokens": 4096, "kv_tokens": 4096, "block_tokens": BLOCK,
    "step": {"base_s": 0.001, "per_prefill_token_s": 1e-6},
}  # fmt: skip


def run(traffic, prefix, tmp_path=None, n=2000, **more):
    """A run of n requests that are never in the instance together."""
    served = {"tokens": SERVED | {"prefix": prefix} | more}
    return ss.simulate(scenario(traffic, served, share=0, base_dir=tmp_path, horizon_s=float(n), period_s=n / 10))


def cached(result):
    source = result.requests[result.requests["role"] == "source"]
    return source["cached_tokens"].to_numpy(float)


def traced(folder, groups):
    """Traffic of one request a second, with its group."""
    lines = "".join(f"{i},{group}\n" for i, group in enumerate(groups))
    (folder / "t.csv").write_text(f"time,who\n{lines}")
    return {"process": "trace", "path": "t.csv", "time_unit": "s"}


def test_prefix_caches_before_they_are_compiled():
    """The short ones of the slow tests, in a process of its own that compiles nothing."""
    here = Path(__file__)
    files, chosen = (here, here.with_name("test_token_run.py")), "with_prefix_caches or infinite or last_token"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m", "slow", "-k", chosen, *files]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("length", "saved"), [(15, 0), (50, 48), (100, 96), (5000, 96)])
def test_an_infinite_cache_of_one_group_saves_whole_blocks_after_the_first(length, saved):
    prefix = {"length": length, "groups": 1, "cache_tokens": 2**20}
    result = run({"process": "constant", "rate_per_s": 1}, prefix, n=20)
    assert cached(result).tolist() == [0] + [saved] * 19
    source = result.windows[result.windows["role"] == "source"]
    assert source["prefill_tokens"].sum() == 20 * 100 - 19 * saved
    assert source["prefix_queried_tokens"].sum() == 20 * 100
    summary = result.summary(standard_errors=False).iloc[0]
    assert summary["prefix_hit_share"] == 19 * saved / 2000
    # offered load is that of what is computed: full batches share a step's constant time
    work_s = 20 * 0.001 / 4 + 1e-6 * (2000 - 19 * saved)
    assert (source["offered_load"] * 2).sum() == pytest.approx(work_s, rel=1e-9)


@pytest.mark.slow
def test_the_last_token_of_a_prompt_is_always_computed():
    prefix = {"length": 96, "groups": 1, "cache_tokens": 2**20}
    assert cached(run({"process": "constant", "rate_per_s": 1}, prefix, n=5, prompt=96)).tolist() == [0] + [95] * 4


@pytest.mark.slow
def test_equal_groups_hit_as_often_as_there_is_room_for_them():
    """The cache holds C of G groups, any of which comes next with probability 1/G: hits are independent, of C/G."""
    n, groups, room = 20_000, 40, 12
    prefix = {"length": BLOCK, "groups": groups, "cache_tokens": room * BLOCK + BLOCK - 1}
    hits = cached(run({"process": "constant", "rate_per_s": 1}, prefix, n=n))[groups * 20 :] > 0
    p = room / groups
    assert abs(hits.mean() - p) < 4.0 * np.sqrt(p * (1.0 - p) / hits.size)


@pytest.mark.slow
def test_unequal_groups_hit_as_king_says_and_as_a_list_in_order_of_use_does(tmp_path):
    """W. F. King, Analysis of demand paging algorithms, 1971: the stationary law of the cache's order of use.

    The standard error is that of the Markov chain of these orders, by its fundamental matrix.
    """
    p, room, n = np.array([0.4, 0.3, 0.2, 0.1]), 2, 20_000
    groups = np.random.default_rng(3).choice(4, n, p=p)
    prefix = {"length": 40, "session": "who", "cache_tokens": room * 2 * BLOCK}  # two whole blocks a group
    hits = cached(run(traced(tmp_path, groups), prefix, tmp_path, n=n))
    order, expected = OrderedDict(), []
    for group in groups:
        expected.append(2 * BLOCK * (group in order))
        order[group] = True
        order.move_to_end(group)
        if len(order) > room:
            order.popitem(last=False)
    assert hits.tolist() == expected

    states = list(permutations(range(4), room))
    stationary = np.array([p[i] * p[j] / (1.0 - p[i]) for i, j in states])
    move, hit = np.zeros((12, 12)), np.zeros((12, 12))  # probabilities, and whether that request is a hit
    for a, (i, j) in enumerate(states):
        for group in range(4):
            b = a if group == i else states.index((group, i))
            move[a, b] += p[group]
            hit[a, b] = group in (i, j)
    assert stationary @ move == pytest.approx(stationary)
    mean_by_state = (move * hit).sum(axis=1)
    mean = float(stationary @ mean_by_state)
    fundamental = np.linalg.inv(np.eye(12) - move + np.outer(np.ones(12), stationary))
    ahead = fundamental @ mean_by_state - mean  # the sum of all later hits beyond the mean, by state
    variance = mean - mean**2 + 2.0 * float(stationary @ (move * (hit - mean) * ahead).sum(axis=1))
    assert abs((hits[100:] > 0).mean() - mean) < 4.0 * np.sqrt(variance / n)
