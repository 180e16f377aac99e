"""Columns of measurements: names that are recognised, configurations, and tables that cannot be used."""

from __future__ import annotations

import pandas as pd
import pytest

from shadowsim import InputError, step_model

ROWS = pd.DataFrame(
    [
        (model, prompt, batch, 64, 20.0 + 0.1 * batch * prompt + batch, 20.0 + batch)
        for model in ("small", "large")
        for prompt in (128, 512)
        for batch in (1, 4, 16)
    ],
    columns=["model", "prompt_tokens", "batch", "output_tokens", "prefill_ms", "token_ms"],
)
STAGES = pd.DataFrame(
    [(r, 100.0, 0.1 * (20.0 + 0.1 * r), 0.05, n) for r, n in ((1, 0), (5, 0), (9, 0), (40, 7))],
    columns=["rate_per_s", "output_tokens", "e2e_s", "ttft_s", "failures"],
)
SPLITWISE = {
    "prompt_tokens": "prompt_size",
    "batch": "batch_size",
    "output_tokens": "token_size",
    "prefill_ms": "prompt_time",
    "token_ms": "token_time",
}


def test_each_configuration_has_its_fit():
    fits = step_model(ROWS)
    assert [fit.name for fit in fits.fits] == ["small", "large"]
    assert "There is one fit for each model." in fits.notes
    assert [fit.name for fit in step_model(ROWS, by=["model", "batch"]).fits][:2] == [
        "small, batch 1",
        "small, batch 4",
    ]
    assert [fit.name for fit in step_model(ROWS, by=[]).fits] == ["all rows"]


def test_where_chooses_rows_by_text_or_number():
    assert [fit.name for fit in step_model(ROWS, where={"model": "large"}).fits] == ["large"]
    assert step_model(ROWS, where={"batch": "4.0"}).fits[0].n_cells == 4


def test_other_names_and_unused_columns_are_said():
    named = step_model(ROWS.rename(columns=SPLITWISE).assign(peak_power=1.0))
    assert named.fits[0].step == step_model(ROWS).fits[0].step
    assert "prompt_size as prompt_tokens" in named.notes[0]
    assert "Not used: peak_power." in named.notes


def test_stages_with_failures_are_left_out_and_said():
    fits = step_model(STAGES)
    assert fits.is_stages
    assert fits.fits[0].n_cells == 3
    assert "1 stage with failures was left out: row 4." in fits.notes
    # even where such a stage has no usable times
    broken = STAGES.astype(object)
    broken.loc[3, "e2e_s"] = None
    assert step_model(broken.infer_objects()).fits[0].step == fits.fits[0].step


@pytest.mark.parametrize(
    ("table", "words", "sentence"),
    [
        (ROWS.drop(columns="batch"), {}, "must have the column batch, or rate_per_s for stages of a load test; it has"),
        (ROWS.drop(columns=["batch", "token_ms"]), {}, "must have the columns batch and token_ms, or"),
        (STAGES.drop(columns="ttft_s"), {}, "must have the column ttft_s; it has rate_per_s, output_tokens"),
        (ROWS.rename(columns={"batch": "batches"}), {}, "did you mean batches?"),
        (ROWS.assign(batch=0), {}, "row 1: batch must be a number > 0, got 0.0"),
        (ROWS.assign(token_ms=[*[1.0] * 11, -3.0]), {}, "row 12: token_ms must be a number > 0, got -3.0"),
        (
            ROWS.assign(token_ms=[*["1.0"] * 3, "fast", *["1.0"] * 8]),
            {},
            "row 4: token_ms must be a number > 0, got 'fast'",
        ),
        (ROWS.assign(prompt_tokens=[None, *[9.0] * 11]), {}, "row 1: prompt_tokens must be a number > 0, got nan"),
        (STAGES.assign(failures=-1), {}, "row 1: failures must be a number >= 0, got -1.0"),
        (STAGES.assign(failures=1), {}, "has failures in every stage"),
        (
            ROWS,
            {"where": {"model": "smal"}},
            "no row whose model is smal; it has small, large; did you mean small?",
        ),
        (ROWS, {"where": {"modell": "small"}}, "has no column modell; it has model, prompt_tokens"),
        (ROWS, {"by": ["modle"]}, "did you mean model?"),
        (
            ROWS,
            {"by": ["model", "batch", "prompt_tokens"]},
            "(small, batch 1, prompt_tokens 128): must have at least",
        ),
        (ROWS.head(1), {}, "(small): must have at least two measurements that differ"),
        (STAGES.head(1), {}, "must have at least two stages without failures"),
    ],
)
def test_tables_that_cannot_be_used(table, words, sentence):
    with pytest.raises(InputError) as caught:
        step_model(table, **words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "rows.csv"
    ROWS.assign(batch=[1, 1, 0, *[1] * 9]).to_csv(file, index=False)
    with pytest.raises(InputError, match=r"rows.csv: line 4: batch must be a number > 0, got 0.0"):
        step_model(file)
    with pytest.raises(InputError, match="there is no file"):
        step_model(tmp_path / "none.csv")
