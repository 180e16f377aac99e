"""Tests the options for behaviour that AWS does not document."""

from dataclasses import fields

import pytest

from shadowsim.aws.lifecycle import EXPERIMENT
from shadowsim.errors import InputError
from shadowsim.server.state.undocumented import CHOICES, Undocumented


def test_choices_leave_transitions_out_and_are_checked():
    table = Undocumented(stop_before_start=False, delete_before_start=False).table
    assert {"Stop", "Delete"}.isdisjoint(table["Created"])
    assert table["Running"] == EXPERIMENT["Running"]
    assert Undocumented().table == EXPERIMENT
    with pytest.raises(InputError, match="deploy_in: must be one of Starting, Creating, got 'Created'"):
        Undocumented(deploy_in="Created")
    with pytest.raises(InputError, match="captured_percentage: must be a whole number from 0 to 100, got 101"):
        Undocumented(captured_percentage=101)
    for name, values in CHOICES.items():
        assert all(getattr(Undocumented(**{name: value}), name) == value for value in values)
    assert set(CHOICES) == {field.name for field in fields(Undocumented)}
