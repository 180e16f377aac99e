"""Single measurements: the coefficients of steps that were stepped through, and terms that are missing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import t

from shadowsim.errors import InputError
from shadowsim.measuring.step_rows import fit_rows

TRUE = {
    "base_s": 0.02,
    "per_prefill_token_s": 1e-4,
    "per_sequence_s": 3e-4,
    "per_kv_token_s": 2e-7,
    "per_prefill_pair_s": 5e-9,
}
SHAPES = [*product((128, 512, 2048, 8192), (1, 4, 16), (64, 256))]


def prefill_s(n, prompt, true=TRUE, floor_s=0.0):
    pairs = true["per_prefill_pair_s"] * n * prompt**2
    steps = true["base_s"] + true["per_prefill_token_s"] * n * prompt + true["per_sequence_s"] * n + pairs
    return max(steps, floor_s)


def token_s(n, prompt, output, true=TRUE, extra=0):
    """Step through the tokens after the first: the k-th step finds prompt + k tokens in each sequence."""
    contexts = [n * (prompt + k + extra) for k in range(1, output)]
    return true["base_s"] + true["per_sequence_s"] * n + true["per_kv_token_s"] * sum(contexts) / len(contexts)


def columns(shapes=SHAPES, noise=0.0, seed=0, true=TRUE, floor_s=0.0, extra=0):
    random = np.random.default_rng(seed)
    times = [(p, n, o, 1e3 * prefill_s(n, p, true, floor_s), 1e3 * token_s(n, p, o, true, extra)) for p, n, o in shapes]
    table = np.array(times)
    table[:, 3:] *= 1.0 + noise * random.normal(size=(len(times), 2))
    names = ("prompt_tokens", "batch", "output_tokens", "prefill_ms", "token_ms")
    return dict(zip(names, table.T, strict=True))


def test_the_coefficients_of_stepped_tokens_are_recovered():
    fit, _, notes = fit_rows(columns(), "rows")
    assert fit.values == pytest.approx(TRUE, rel=1e-8)
    assert notes == []


def test_a_context_that_is_off_by_a_token_would_be_found():
    """The mean context decides per_sequence_s: half a token more is 0.03 % of it, far above rounding."""
    fit, _, _ = fit_rows(columns(extra=1), "rows")
    assert fit.values["per_sequence_s"] == pytest.approx(TRUE["per_sequence_s"] + TRUE["per_kv_token_s"], rel=1e-6)


def test_noise_leaves_them_within_their_intervals():
    """All of 100 intervals cover with 99 %: 12 prefill cells less 3 coefficients leave 9 degrees of freedom."""
    reach = t.ppf(1.0 - 0.01 / 2.0 / 100.0, 9)
    for seed in range(20):
        fit, _, _ = fit_rows(columns(noise=0.02, seed=seed), "rows")
        for key, true in TRUE.items():
            assert abs(fit.values[key] - true) < reach * fit.errors[key], (seed, key)


@pytest.mark.parametrize("key", ["per_prefill_pair_s", "per_kv_token_s", "per_sequence_s"])
def test_a_term_is_found_where_it_is_and_not_where_it_is_not(key):
    without = TRUE | {key: 0.0}
    for seed in range(20):
        fit, _, _ = fit_rows(columns(noise=0.02, seed=seed), "rows")
        assert fit.values[key] > 4.0 * fit.errors[key]
        fit, _, _ = fit_rows(columns(noise=0.02, seed=seed, true=without), "rows")
        assert key in fit.negative or fit.values[key] < 4.0 * fit.errors[key]


def test_repeats_do_not_make_errors_smaller():
    """Ten copies of each row tell nothing about what the model does not fit."""
    once, _, _ = fit_rows(columns(noise=0.02), "rows")
    tenfold, cells, _ = fit_rows({name: np.tile(v, 10) for name, v in columns(noise=0.02).items()}, "rows")
    assert tenfold.errors == pytest.approx(once.errors, rel=1e-6)
    assert len(cells.measured_s) == 4 * 3 + len(SHAPES)


def test_a_floor_of_prefills_is_said():
    _, _, notes = fit_rows(columns(floor_s=0.12), "rows")
    assert len(notes) == 1
    assert "less than was measured for 128 tokens" in notes[0]
    assert "A floor is missing" in notes[0]


def test_end_to_end_times_correct_the_tokens():
    """Answers that ended early count as long as they were; batches that were served in turns are left out."""
    rows = columns()
    produced = rows["output_tokens"].copy()
    produced[rows["output_tokens"] == 256] = 200.0
    early = {name: v.copy() for name, v in rows.items()}
    stepped = [token_s(n, p, int(o)) for (p, n, _), o in zip(SHAPES, produced, strict=True)]
    early["token_ms"] = 1e3 * np.array(stepped)
    early["e2e_ms"] = early["prefill_ms"] + (produced - 1.0) * early["token_ms"]
    fit, _, notes = fit_rows(early, "rows")
    assert fit.values == pytest.approx(TRUE, rel=1e-8)
    assert [note.split(":")[0] for note in notes] == ["12 of 24 rows ended early"]
    wrong, _, _ = fit_rows({name: v for name, v in early.items() if name != "e2e_ms"}, "rows")
    assert wrong.values["per_kv_token_s"] != pytest.approx(TRUE["per_kv_token_s"], rel=1e-4)

    turns = {name: v.copy() for name, v in rows.items()}
    in_turns = rows["batch"] == 16
    turns["e2e_ms"] = (rows["prefill_ms"] + (rows["output_tokens"] - 1.0) * rows["token_ms"]) * np.where(in_turns, 4, 1)
    turns["prefill_ms"][in_turns] /= 4.0
    fit, _, notes = fit_rows(turns, "rows")
    assert fit.values == pytest.approx(TRUE, rel=1e-8)
    assert "left out" in notes[0]


def test_blank_times_are_not_measured():
    rows = columns()
    rows["prefill_ms"][:] = np.nan
    fit, cells, _ = fit_rows(rows, "rows")
    assert set(fit.values) == {"base_s", "per_sequence_s", "per_kv_token_s"}
    assert len(cells.measured_s) == len(SHAPES)


def test_one_measurement_is_too_few():
    with pytest.raises(InputError, match="two measurements that differ in prompt_tokens, batch or output_tokens"):
        fit_rows(columns([(128, 1, 64)] * 5), "rows")
