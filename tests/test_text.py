"""Numbers have units and digits to read, and tables fit the screen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shadowsim.text import (
    bytes_text,
    compact,
    count,
    csv_text,
    grid,
    percent,
    rate,
    significant,
    speed,
    time_text,
    wrapped,
)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0 s"),
        (4.6e-7, "0.460 us"),
        (3e-15, "0 s"),  # what a sum is off by
        (0.00087, "870 us"),
        (0.000_999_6, "1.00 ms"),  # rounding carries into the next unit
        (0.004, "4.00 ms"),
        (0.070_92, "70.9 ms"),
        (0.1018, "102 ms"),
        (0.999_6, "1.00 s"),
        (1.02, "1.02 s"),
        (9.996, "10.0 s"),
        (60.0, "60.0 s"),
        (6790.4, "6,790 s"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_time_text(x: float, text: str):
    assert time_text(x) == text


@pytest.mark.parametrize(
    ("x", "n", "text"),
    [
        (0.0, 3, "0"),
        (0.001234, 3, "0.00123"),
        (9.996, 3, "10.0"),
        (99.96, 3, "100"),
        (12345.6, 3, "12,346"),  # never fewer digits than before the point
        (400.009514, 4, "400.0"),
        (-1.5, 2, "-1.5"),
    ],
)
def test_significant(x: float, n: int, text: str):
    assert significant(x, n) == text


def test_significant_never_has_an_exponent():
    for e in range(-12, 16):
        for x in (1.0, 1.5, 9.999, 9.9995):
            text = significant(x * 10.0**e)
            assert "e" not in text
            assert float(text.replace(",", "")) == pytest.approx(x * 10.0**e, rel=5.1e-3)


def test_counts_rates_shares_and_bytes():
    assert count(np.int64(34_560_822)) == "34,560,822"
    assert rate(400.0) == "400 requests/s"
    assert rate(0.0123) == "0.0123 requests/s"
    assert percent(0.500034, 3) == "50.003 %"
    assert percent(math.nan) == "-"
    assert [bytes_text(n) for n in (0, 999, 1000, 1.02e9, 3e12)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "1.02 GB",
        "3.00 TB",
    ]


def test_compact():
    texts = [compact(x) for x in (0, 0.25, 7, 950.4, 999.5, 20_818, 999_500, 34_560_822, 2.5e9)]
    assert texts == ["0", "0.250", "7", "950", "1.00k", "20.8k", "1.00M", "34.6M", "2.50G"]


def test_speed_is_given_for_long_runs_only():
    assert speed(34_560_822, 1.5) == "34,560,822 requests in 1.50 s, 23 million requests/s"
    assert speed(120_085, 0.508) == "120,085 requests in 508 ms"
    assert speed(0, 2.0) == "0 requests in 2.00 s"


def test_wrapped_breaks_between_words_only():
    text = wrapped(" ".join(["ml.m5.xlarge", "Shadow-01"] * 20), "source  ", " " * 8)
    assert max(map(len, text.splitlines())) <= 80
    assert "Shadow-\n" not in text
    assert all(line.startswith(" " * 8) for line in text.splitlines()[1:])
    assert wrapped("x" * 200) == "x" * 200


def test_grid_sets_numbers_flush_right():
    assert grid([("name", "n"), ("a", "1"), ("bb", "100")]) == "name    n\na       1\nbb    100"
    assert grid([("a", "1", "x"), ("bb", "22", "")], left=(0, 2)) == "a    1  x\nbb  22"


def test_none_is_an_empty_field_of_csv():
    assert csv_text([{"a": 1, "b": None}, {"a": "x, y", "b": 0.5}]) == 'a,b\n1,\n"x, y",0.5\n'
