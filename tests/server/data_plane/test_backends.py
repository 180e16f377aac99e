"""Outcomes of containers' statuses; test_invoke has containers."""

import pytest

from shadowsim.server.data_plane.backends import outcome_of


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "answered"), (204, "answered"), (302, "error_5xx"), (404, "error_4xx"), (503, "error_5xx")],
)
def test_outcomes(status, outcome):
    assert outcome_of(status) == outcome
