"""One declaration reads a key and describes it."""

import pytest
from jsonschema import Draft202012Validator

from shadowsim import InputError
from shadowsim.errors import CombinedInputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import (
    Alternatives,
    Flag,
    Integer,
    Keys,
    Number,
    Numbers,
    Parsed,
    Reserved,
    Text,
    Word,
    WordList,
    nullable,
    object_form,
    optional,
)


class InsideKeys(Keys):
    title = "What is inside."
    depth_s = Number("How deep.", above=0.0)


class ExampleKeys(Keys):
    title = "All kinds of keys."
    length_s = Number("A length.", default=2.0, least=0.0)
    share = Number("A share.", least=0.0, most=1.0)
    count = Integer("A count.", default=3, least=1, most=9)
    factors = optional(Numbers("Factors.", fewest=0, above=0.0), "none")
    name = optional(Text("A name."), "nobody's")
    sure = Flag("Whether.", True)
    rule = Word("A rule.", {"coin": "by chance", "hash": "by key"}, default="coin", later="dice")
    on = WordList("Causes.", {"a": "", "b": ""}, default=("a",))
    inside = optional(
        Parsed("Inside.", lambda block, key, base_dir: InsideKeys.read(block.block(key)), object_form(InsideKeys))
    )
    later = Reserved()
    one = optional(Integer("One way.", least=0, most=5))
    other = optional(Integer("The other.", least=0, most=5))
    rules = (Alternatives(("one", "other"), 0, 1, "must not both be given"),)


def read(**values):
    return ExampleKeys.read(Block("x", values))


def valid(**values):
    return Draft202012Validator(ExampleKeys.schema()).is_valid(values)


def test_what_is_left_out_has_its_default_and_null_counts_as_left_out():
    for values in (
        {},
        dict.fromkeys(["length_s", "count", "factors", "name", "sure", "rule", "on", "inside", "later"]),
    ):
        keys = read(share=0.5, **values)
        assert (keys.length_s, keys.share, keys.count, keys.factors, keys.name) == (2.0, 0.5, 3, None, None)
        assert (keys.sure, keys.rule, keys.on, keys.inside, keys.later) == (True, "coin", ("a",), None, None)
        assert valid(share=0.5, **values)


def test_what_is_given_is_read():
    keys = read(
        share=1, length_s="30ms", count=9, factors=[1, "2"][:1], name="n", sure=False, rule="hash", on=["b", "a", "b"],
        inside={"depth_s": "1min"}, one=4,
    )  # fmt: skip
    assert (keys.share, keys.length_s, keys.count, keys.factors, keys.name) == (1.0, 0.03, 9, (1.0,), "n")
    assert (keys.sure, keys.rule, keys.on, keys.inside.depth_s, keys.one) == (False, "hash", ("a", "b"), 60.0, 4)
    assert read(share=0, factors=[]).factors == ()


WRONG = [
    ({}, "x.share: is required"),
    ({"share": None}, "x.share: is required"),
    ({"share": 2}, "x.share: must be a finite number >= 0 and <= 1, got 2"),
    ({"share": "1s"}, "x.share: must be a finite number"),
    ({"share": 1, "shar": 1}, "x.shar: is not a known key; did you mean share?"),
    ({"share": 1, "count": 0}, "x.count: must be an integer from 1 to 9, got 0"),
    ({"share": 1, "count": True}, "x.count: must be an integer"),
    ({"share": 1, "factors": [0]}, "x.factors.0: must be a finite number > 0"),
    ({"share": 1, "factors": 1}, "x.factors: must be a list"),
    ({"share": 1, "name": ""}, "x.name: must be a text"),
    ({"share": 1, "sure": 1}, "x.sure: must be true or false"),
    ({"share": 1, "rule": "Hash"}, "x.rule: must be one of coin, hash, got 'Hash'; did you mean hash?"),
    ({"share": 1, "rule": "dice"}, "x.rule: `dice` is not built yet"),
    ({"share": 1, "on": []}, "x.on: must be a list [...] of at least one of a, b"),
    ({"share": 1, "on": ["c"]}, "x.on.0: must be one of a, b"),
    ({"share": 1, "inside": {"depth_s": 0}}, "x.inside.depth_s: must be a finite number > 0"),
    ({"share": 1, "inside": []}, "x.inside: must be an object"),
    ({"share": 1, "later": 1}, "x.later: `later` is not built yet"),
    ({"share": 1, "one": 1, "other": 2}, "x: must not both be given"),
]


@pytest.mark.parametrize(("values", "says"), WRONG, ids=[says for _, says in WRONG])
def test_both_refuse_what_is_wrong(values, says):
    with pytest.raises(InputError) as caught:
        read(**values)
    assert str(caught.value).startswith(says)
    assert not valid(**values)


def test_all_that_is_wrong_is_reported_at_once():
    with pytest.raises(CombinedInputError) as caught:
        read(count=0, sure=1, more=1)
    assert [error.path for error in caught.value.each] == ["x.more", "x.share", "x.count", "x.sure"]


def test_the_schema_says_what_the_declaration_says():
    schema = ExampleKeys.schema()
    assert schema["required"] == ["share"]
    assert schema["properties"]["length_s"] | {"anyOf": None} == {
        "description": "A length.", "default": 2.0, "unit": "seconds", "anyOf": None,
    }  # fmt: skip
    assert schema["properties"]["name"]["otherwise"] == "nobody's"
    assert schema["properties"]["inside"]["description"] == "Inside. What is inside."
    assert schema["properties"]["rule"]["anyOf"][0]["enumDescriptions"] == ["by chance", "by key"]


@pytest.mark.parametrize("schema", [{"type": "integer"}, {"enum": [1]}, {"anyOf": [{"const": 2}]}, {"const": 1}])
def test_nullable(schema):
    assert Draft202012Validator(nullable(schema)).is_valid(None)
    assert not Draft202012Validator(nullable(schema)).is_valid("x")
    assert Draft202012Validator(nullable(nullable(schema))).is_valid(None)
