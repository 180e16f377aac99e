"""Axes have readable labels for any values, and a canvas has its rows and titles."""

import numpy as np
import pytest

from shadowsim import plots
from shadowsim.plots import style


def test_values_far_apart_stand_on_a_logarithmic_axis_that_says_so():
    axis = style.value_axis(np.array([0.0, np.nan, 3.0, 61.0]), "p99", "ms")
    assert axis["type"] == "log"
    assert axis["title_text"] == "p99 (ms, logarithmic)"
    assert axis["ticktext"] == ["1", "2", "5", "10", "20", "50", "100", "200", "500"]
    assert style.value_axis(np.array([3.0, 59.0]), "p99", "ms")["title_text"] == "p99 (ms)"


@pytest.mark.parametrize("values", [[], [np.nan], [0.0]])
def test_values_without_a_logarithm_keep_the_axis_linear(values):
    assert style.value_axis(np.array(values, float), "x", "s")["rangemode"] == "tozero"
    assert style.log_axis(np.empty(0)) == {"type": "log"}


@pytest.mark.parametrize(
    ("values", "ends"), [([804.0, 909.0], (500, 1000)), ([800.0], (500, 1000)), ([100.0], (100, 200))]
)
def test_values_between_two_labels_of_a_logarithmic_axis_have_both_in_view(values, ends):
    axis = style.log_axis(np.array(values))
    low, high = 10.0 ** np.array(axis["range"])
    seen = [int(text.replace(",", "")) for text in axis["ticktext"] if low <= float(text.replace(",", "")) <= high]
    assert (seen[0], seen[-1]) == ends
    assert low < values[0]
    assert high > values[-1]


def test_a_canvas_grows_with_its_rows_and_keeps_height_and_titles():
    figure = style.canvas("a", "b", 3)
    assert len(list(figure.select_yaxes())) == 3
    assert figure.layout.height > style.canvas("a", "b").layout.height
    assert style.canvas("a", "b", height=123).layout.height == 123
    assert (figure.layout.title.text, figure.layout.title.subtitle.text) == ("a", "b")


def test_the_face_of_plots_resolves_and_introduces_every_figure():
    assert sorted(plots.__all__) == sorted(plots._HOME)
    for name, module in plots._HOME.items():
        assert getattr(plots, name).__module__ == f"shadowsim.plots.{module}"
        assert f"`{name}`" in plots.__doc__
    with pytest.raises(AttributeError, match="no attribute 'powers'"):
        _ = plots.powers
