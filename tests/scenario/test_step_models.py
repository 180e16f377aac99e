"""Presets of step times: names, and that they are what the public tables give."""

from __future__ import annotations

import pytest
from step_presets import DATA, PRESETS, TABLES, preset_rows

from shadowsim import InputError
from shadowsim.scenario.step_models import STEP_KEYS, preset, presets


def test_a_name_gives_a_block_of_a_scenario():
    found = preset("Llama2-70b-h100-80gb-TP8")
    assert list(found.step) == list(STEP_KEYS)
    assert 0.029 < found.step["base_s"] < 0.031
    assert found.before_s is None
    assert "prefills by 21 %" in found.assumption
    staged = preset("llama-2-7b-hf-h100-tp1")
    assert staged.before_s is not None
    assert "Other lengths of prompts and outputs take as long" in staged.assumption


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("llama-2-70b", "llama-2-70b-hf-h100-tp4"),
        ("mixtral", "mixtral-8x7b-v0.1-h100-tp2"),
        ("llama2-70b-h100-80gb-tp16", "llama2-70b-h100-80gb-tp"),
        ("llama70b", "llama"),
    ],
)
def test_an_unknown_name_has_the_nearest(name, near):
    with pytest.raises(InputError) as caught:
        preset(name, "services.A.tokens.step")
    assert str(caught.value).startswith("services.A.tokens.step: must be a preset that")
    assert f"; did you mean {near}" in str(caught.value)


def test_each_preset_has_its_source_and_its_misses():
    assert len(presets()) == 16
    for name, one in presets().items():
        assert one.name == name == name.lower()
        assert one.source
        assert 0.0 < one.per_token_miss <= one.per_token_worst < 0.1
        assert 0.0 < one.first_token_miss <= one.first_token_worst < 0.6
        assert all(value >= 0.0 for value in one.step.values())


def test_presets_are_what_the_tables_give():
    """Coefficients have five digits: one unit of the last is at most 1e-4 of them. Misses have four decimals."""
    if not all((DATA / file).exists() for file in TABLES):
        pytest.skip(f"the measurements are not in {DATA}")
    for row in preset_rows():
        one = preset(str(row["name"]))
        assert one.step == pytest.approx({key: float(str(row.get(key, 0.0))) for key in STEP_KEYS}, rel=1e-4)
        assert one.before_s == (pytest.approx(float(str(row["before_s"])), rel=1e-4) if row["before_s"] else None)
        assert one.n_cells == row["n_cells"]
        for column in ("first_token_miss", "first_token_worst", "per_token_miss", "per_token_worst"):
            assert getattr(one, column) == pytest.approx(float(str(row[column])), abs=1.01e-4)
        assert (one.source, one.measured) == (row["source"], row["measured"])
    assert [row["name"] for row in preset_rows()] == list(presets())
    assert PRESETS.stat().st_size < 10_000
