"""Parsers of option values: the texts that each accepts and refuses."""

from __future__ import annotations

import math
from functools import partial

import pytest

from shadowsim.cli.option_parsers import (
    BadOptionError,
    number,
    option_parser,
    positive_s,
    seconds,
    share,
    split_commas,
    whole,
)
from shadowsim.errors import InputError


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        *((number, "5", 5), (number, "-0.5", -0.5), (number, "1e3", 1000.0), (number, "inf", math.inf)),
        *((whole, "1", 1), (partial(whole, least=0, most=3), "3", 3), (partial(positive_s, most=90.0), "1m", 60.0)),
        *((share, "99%", 0.99), (share, "0.5", 0.5), (share, "0%", 0.0)),
        *((seconds, "200ms", 0.2), (seconds, "0.2", 0.2), (seconds, "1w", 604_800.0)),
    ],
)
def test_a_value(parse, text, value):
    parsed = parse(text, "--x")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (number, "5%", "--x: must be a number, got '5%'; it takes no sign %"),
        (number, "1,000", "--x: must be a number, got '1,000'"),
        (whole, "0", "--x: must be a whole number >= 1, got 0"),
        (whole, "2.0", "--x: must be a whole number >= 1, got 2.0"),
        (partial(whole, least=0, most=3), "4", "--x: must be a whole number >= 0 and <= 3, got 4"),
        (partial(positive_s, most=2.0), "0", "--x: must be > 0 and <= 2, got 0"),
        (partial(positive_s, most=2.0), "nan", "--x: must be > 0 and <= 2, got nan"),
        (share, "99", "--x: must be a share such as 99% or 0.99, got '99'"),
        (share, "nan", "--x: must be a share such as 99% or 0.99, got 'nan'"),
        (seconds, "1 day", "--x: must be seconds, or have a unit (us, ms, s, m or min, h, d, w), as in 30ms or 1.5h"),
    ],
)
def test_a_wrong_value(parse, text, says):
    with pytest.raises(InputError) as caught:
        parse(text, "--x")
    assert str(caught.value).startswith(says)


def test_typer_is_given_an_error_of_its_own():
    assert option_parser(whole, least=2)(2) == 2  # a default, which is no text
    with pytest.raises(BadOptionError) as caught:
        option_parser(whole, least=2)("1")
    assert str(caught.value.named()) == "option: must be a whole number >= 2, got 1"  # Typer has not named it yet


def test_items_are_split_at_commas():
    assert split_commas(["a, b", "c"]) == ["a", "b", "c"]
    assert split_commas([]) is split_commas(None) is None
