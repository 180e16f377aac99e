"""Expressions of metric math are parsed as AWS's operators bind, and refused with what is wrong."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.server.metrics.metric_math import (
    Array,
    Constant,
    ExpressionError,
    FunctionCall,
    Operation,
    Reference,
    parse,
    references,
)


def written(node):
    """Return an expression with all its parentheses."""
    match node:
        case Constant():
            return f'"{node.value}"' if isinstance(node.value, str) else f"{node.value:g}"
        case Reference():
            return node.name
        case Array():
            return f"[{', '.join(map(written, node.items))}]"
        case FunctionCall():
            return f"{node.name}({', '.join(map(written, node.arguments))})"
        case Operation():
            text = written(node.operands[0])
            for operator, operand in zip(node.operators, node.operands[1:], strict=True):
                text = f"({text} {operator} {written(operand)})"
            return text


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("m1", "m1"),
        (" 100 * m2/m1 ", "((100 * m2) / m1)"),
        ("a-b-c", "((a - b) - c)"),
        ("a+b*c^d^e", "(a + (b * (c ^ (d ^ e))))"),
        ("-a^2", "(-1 * (a ^ 2))"),
        ("2^-a", "(2 ^ (-1 * a))"),
        ("--a*b", "((-1 * (-1 * a)) * b)"),
        ("(a+b)*c", "((a + b) * c)"),
        ("a<1 AND b>=2 || c!=3", "(((a < 1) AND (b >= 2)) OR (c != 3))"),
        ("a OR b && c == d+1", "(a OR (b AND (c == (d + 1))))"),
        ("SUM(METRICS('err'))/SUM([m1, m2])", '(SUM(METRICS("err")) / SUM([m1, m2]))'),
        ("IF(m1>.5e1,m1,0)", "IF((m1 > 5), m1, 0)"),
        ("FILL(m1,REPEAT)", "FILL(m1, REPEAT)"),
        ("1.5E+2", "150"),
    ],
)
def test_operators_bind_as_aws_s(text, tree):
    assert written(parse(text)) == tree


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "ends too early"),
        ("a+", "ends too early"),
        ("(a", "ends too early"),
        ("a)", "Invalid syntax at )"),
        ("a b", "Invalid syntax at b"),
        ("a $ b", "Invalid syntax at $ b"),
        ("AND", "Invalid syntax at AND"),
        ("SUM(a,,b)", "Invalid syntax at ,"),
        ("SUM(a b)", "Invalid syntax at b"),
        ("SELECT AVG(x) FROM y", "Metrics Insights"),
        ("(" * 51 + "a" + ")" * 51, "50 levels"),
        ("-" * 100 + "a", "50 levels"),
        ("a" * 2049, "at most 2048"),
        ("__import__('os').system('x')", "Invalid syntax at ."),
    ],
)
def test_what_is_no_expression_is_refused(text, words):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_long_sum_is_no_deep_tree():
    node = parse("+".join(["m1"] * 600))
    assert len(node.operands) == 600


def test_references_are_found_everywhere():
    names = [node.name for node in references(parse("IF(a > 1, [b, FILL(c, 0)], -d ^ METRICS())"))]
    assert names == ["IF", "a", "b", "FILL", "c", "d", "METRICS"]


@given(st.text(alphabet="ab1.()[]+-*/^<>=!&|,'\" SUMORANDeE", max_size=40))
def test_any_text_is_parsed_or_refused(text):
    with contextlib.suppress(ExpressionError):
        parse(text)
