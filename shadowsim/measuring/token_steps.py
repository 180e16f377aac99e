"""Counts what the steps of each sequence worked on, from the times of single tokens.

A step gives one token to each sequence that runs, so the time between two tokens of a sequence is one step. What the
step worked on is told by the others' tokens. They come with the same step, and yet a little earlier or later, as they
are sent one after the other. So who ran is asked in the middle between the two tokens: those that have had their first
token and not yet their last. Whose first token comes between this middle and the next had its prompt computed in this
step. The last of a sequence's steps has no next middle, and is left out.

A token that is sent late makes one step longer and the next shorter, so the steps of a sequence are added up.
"""

from __future__ import annotations

import numpy as np

from shadowsim.arrays import Flags, Floats, Ints
from shadowsim.measuring.token_log import DECODE, StepCells, TokenLog


def seen_steps(log: TokenLog) -> StepCells:
    """Return the steps of each sequence whose tokens were seen, but for its last, in order of arrival."""
    parts = [_steps_of_instance(log, log.instance == i) for i in np.unique(log.instance)]
    order = np.argsort(np.concatenate([which for which, _ in parts]), kind="stable")
    return StepCells.joined([cells for _, cells in parts]).rows(order)


def _steps_of_instance(log: TokenLog, mine: Flags) -> tuple[Ints, StepCells]:
    """Return which sequences of an instance have steps that were seen, and their cells."""
    at = mine[log.token_request]
    owner, time = log.token_request[at], log.token_s[at]
    middle = 0.5 * (time[1:] + time[:-1])
    begins = np.flatnonzero(owner[2:] == owner[:-2])  # a step with another after it
    ask, next_ask = middle[begins], middle[begins + 1]
    first, last, prompt, output = log.first_s[mine], log.last_s[mine], log.prompt[mine], log.output[mine]
    by_first, by_last = np.argsort(first), np.argsort(last)

    def until(when: Floats, times: Floats, order: Ints, values: Floats) -> Floats:
        sums = np.concatenate(([0.0], np.cumsum(values[order])))
        return np.asarray(sums[np.searchsorted(times[order], when, side="right")])

    ones = np.ones(len(first))
    begun, ended = until(ask, first, by_first, ones), until(ask, last, by_last, ones)
    joining = until(next_ask, first, by_first, ones) - begun
    tokens = np.sort(_tokens(log, mine))
    held = until(ask, first, by_first, prompt) - until(ask, last, by_last, prompt + output)
    held += np.searchsorted(tokens, ask, side="right")
    columns = {
        "base_s": np.ones(len(begins)),
        "per_prefill_token_s": until(next_ask, first, by_first, prompt) - until(ask, first, by_first, prompt),
        "per_sequence_s": begun - ended + joining,
        "per_kv_token_s": held,
        "per_prefill_pair_s": until(next_ask, first, by_first, prompt**2) - until(ask, first, by_first, prompt**2),
        "per_prompt_s": joining,
        "before_s": np.zeros(len(begins)),
    }
    which, starts = np.unique(owner[begins], return_index=True)

    def summed(values: Floats) -> Floats:
        return np.add.reduceat(values, starts) if len(starts) else np.empty(0)

    took_s = summed((time[1:] - time[:-1])[begins])
    sums = {name: summed(column) for name, column in columns.items()}
    cells = StepCells(took_s, sums, np.full(len(which), DECODE, np.int64), took_s)
    apart = np.flatnonzero(took_s > 0.0)  # a few tokens may have come at once
    return which[apart], cells.rows(apart)


def _tokens(log: TokenLog, mine: Flags) -> Floats:
    """Return the times of all tokens of an instance; those that were not seen lie evenly between first and last."""
    seen = np.zeros(len(log.first_s), np.bool_)
    seen[log.token_request] = True
    rest = np.flatnonzero(mine & ~seen)
    n = log.output[rest].astype(np.int64)
    which = np.repeat(rest, n)
    number = np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n)
    share = number / np.maximum(log.output[which] - 1.0, 1.0)
    evenly = log.first_s[which] + share * (log.last_s[which] - log.first_s[which])
    return np.concatenate([log.token_s[mine[log.token_request]], evenly])
