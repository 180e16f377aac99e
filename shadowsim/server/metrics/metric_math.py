"""Parses the expressions of CloudWatch's metric math.

The operators are, from the loosest to the tightest: OR (also ||); AND (&&); == != <= >= < >; + -; * /; the minus of one
operand; and ^, which binds to the right. An operand is a number, the Id of a query, a function of operands, an array
such as [m1, m2], a text in quotation marks (of METRICS), or an expression in parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from shadowsim.errors import ShadowsimError, shown

_MOST_CHARACTERS, _MOST_LEVELS = 2048, 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<text>"[^"]*"|'[^']*')"""
    r"|(?P<sign>\|\||&&|[=!<>]=|[-+*/^()<>,\[\]]))",
    re.ASCII,
)
_TIGHTNESS = {
    **{"OR": 1, "||": 1, "AND": 2, "&&": 2, "==": 3, "!=": 3, "<=": 3, ">=": 3, "<": 3, ">": 3},
    **{"+": 4, "-": 4, "*": 5, "/": 5, "^": 7},
}
_NEGATION = 6
_SAME = {"||": "OR", "&&": "AND"}


class ExpressionError(ShadowsimError, ValueError):
    """An expression that cannot be parsed or evaluated."""

    code = "ValidationError"
    http_status = 400


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, or a text for METRICS."""

    value: float | str


@dataclass(frozen=True, slots=True)
class Reference:
    """The Id of another query, or a keyword such as REPEAT."""

    name: str


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function of operands."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Operands from left to right, and the operator before each but the first."""

    operands: tuple[Node, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """Operands in brackets."""

    items: tuple[Node, ...]


Node: TypeAlias = Constant | Reference | FunctionCall | Operation | Array


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises
    ------
    ExpressionError
        It is none, is longer than 2,048 characters, or has more than 50 levels of parentheses.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ExpressionError(f"The expression must have at most {_MOST_CHARACTERS} characters")
    if re.match(r"\s*SELECT\b", text):
        raise ExpressionError("queries of Metrics Insights are not supported")
    parser = _Parser(text)
    node = parser.expression(0)
    parser.end()
    return node


def references(node: Node) -> Iterator[Reference | FunctionCall]:
    """Yield the references and the function calls of an expression, from left to right."""
    if isinstance(node, Reference):
        yield node
    elif not isinstance(node, Constant):
        if isinstance(node, FunctionCall):
            yield node
        children = node.operands if isinstance(node, Operation) else getattr(node, "arguments", ()) or _items(node)
        for child in children:
            yield from references(child)


def _items(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Array) else ()


class _Parser:
    def __init__(self, text: str):
        self._tokens = list(_tokens(text))
        self._next, self._level = 0, 0

    def expression(self, least: int) -> Node:
        """Parse operands that are joined by operators tighter than `least`."""
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise ExpressionError(f"The expression must not be nested more than {_MOST_LEVELS} levels deep")
        node = self._operand()
        while (tightness := _TIGHTNESS.get(self._peek(), 0)) > least:
            operands, operators = [node], []
            while _TIGHTNESS.get(self._peek(), 0) == tightness:
                sign = self._take()
                operators.append(_SAME.get(sign, sign))
                operands.append(self.expression(tightness - (sign == "^")))
            node = Operation(tuple(operands), tuple(operators))
        self._level -= 1
        return node

    def end(self) -> None:
        if self._peek():
            raise self._error()

    def _operand(self) -> Node:
        kind, text = self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")
        if kind == "number":
            return Constant(float(self._take()))
        if kind == "text":
            return Constant(self._take()[1:-1])
        if kind == "name" and text not in _TIGHTNESS:
            name = self._take()
            return FunctionCall(name, self._list("(", ")")) if self._peek() == "(" else Reference(name)
        if text == "[":
            return Array(self._list("[", "]"))
        if text == "-":
            self._take()
            return Operation((Constant(-1.0), self.expression(_NEGATION)), ("*",))
        if text == "(":
            self._take()
            node = self.expression(0)
            self._expect(")")
            return node
        raise self._error()

    def _list(self, opening: str, closing: str) -> tuple[Node, ...]:
        self._expect(opening)
        items: list[Node] = []
        while self._peek() != closing:
            if items:
                self._expect(",")
            items.append(self.expression(0))
        self._take()
        return tuple(items)

    def _peek(self) -> str:
        kind, text = self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")
        return "" if kind == "text" else text

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][1]

    def _expect(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._error()
        self._take()

    def _error(self) -> ExpressionError:
        if self._next == len(self._tokens):
            return ExpressionError("Invalid syntax: the expression ends too early")
        return ExpressionError(f"Invalid syntax at {shown(self._tokens[self._next][1])}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise ExpressionError(f"Invalid syntax at {shown(text[place:].strip())}")
        assert match.lastgroup is not None
        yield match.lastgroup, match[match.lastgroup]
        place = match.end()
