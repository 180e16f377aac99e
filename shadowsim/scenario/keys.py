"""Declares the keys of a scenario's blocks, so that one declaration reads a key and describes it.

A `Keys` is a JSON object's type: each of its attributes is a `Key` with a sentence, bounds and a default. `Keys.read`
reads a block by them, and `Keys.schema` describes them in JSON Schema (2020-12)::

    class BatchingKeys(Keys):
        max_size = Integer("Most requests in a batch.", least=1, most=4096)
        max_delay_s = Number("How long the oldest request waits.", default=0.0, least=0.0)

    given = BatchingKeys.read(block)        # or one InputError with all that is wrong
    given.max_size, given.max_delay_s       # an int and a float

What a key must be beside another one is checked by the caller, after the reading. Null counts as left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

from shadowsim.errors import Collector, InputError
from shadowsim.quantities import DURATION
from shadowsim.scenario.fields import Block, choice, not_built, takes_duration

T = TypeVar("T")
Schema = dict[str, Any]
_NUMBER = {"above": "exclusiveMinimum", "least": "minimum", "most": "maximum"}
_UNITS = {"_per_s": "per second", "_s": "seconds", "_bytes": "bytes", "_tokens": "tokens"}


class Key(ABC, Generic[T]):
    """A key of a block: how it is read, and what is said of it.

    Parameters
    ----------
    says : str
        What it means, in a sentence or two.
    default : T, optional
        Its value if it is left out; without one, it is required, unless `optional` says otherwise.
    """

    name: str = ""
    otherwise: str = ""

    def __init__(self, says: str, default: T | None = None):
        self.says, self.default, self.required = says, default, default is None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, keys: None, owner: type) -> Self: ...
    @overload
    def __get__(self, keys: Keys, owner: type) -> T: ...
    def __get__(self, keys: Keys | None, owner: type) -> Self | T:
        return self  # of an object that was read, the value stands before its class's attribute

    def read(self, block: Block, base_dir: Path) -> T:
        """Return the key's value in a block, or raise `InputError`; file paths in it are relative to `base_dir`."""
        if not self.required and not block.has(self.name):
            return cast(T, self.default)
        block.need(self.name)
        return self.value(block, base_dir)

    @abstractmethod
    def value(self, block: Block, base_dir: Path) -> T:
        """Return the value of a key that is given."""

    @abstractmethod
    def type(self) -> Schema:
        """Return the schema of a value that is given."""

    def schema(self) -> Schema:
        """Return the schema of its value, null included if it may be left out."""
        schema = self.type()
        unit = next((unit for end, unit in _UNITS.items() if self.name.endswith(end)), None)
        said: Schema = {"description": " ".join(filter(None, (self.says, schema.get("description"))))} | (
            {"unit": unit} if unit and "unit" not in schema else {}
        )
        if not self.required:
            schema = nullable(schema)
            said |= {} if self.default is None else {"default": _plain(self.default)}
            said |= {"otherwise": self.otherwise} if self.otherwise else {}
        return {**said, **{key: value for key, value in schema.items() if key != "description"}}


def optional(key: Key[T], otherwise: str = "") -> Key[T | None]:
    """Return a key that may be left out, and is None then; `otherwise` says what that means."""
    key.required, key.otherwise = False, otherwise
    return cast("Key[T | None]", key)


class Number(Key[float]):
    """A finite number within bounds; where the name ends in `_s`, a text with a unit is one, too."""

    def __init__(
        self,
        says: str,
        *,
        default: float | None = None,
        above: float | None = None,
        least: float | None = None,
        most: float | None = None,
    ):
        super().__init__(says, default)
        self.bounds = {"above": above, "least": least, "most": most}

    def value(self, block: Block, base_dir: Path) -> float:
        """Return the number."""
        return block.number(self.name, **self.bounds)

    def type(self) -> Schema:
        """Return the schema of the number, or of the text of a duration."""
        return quantity(self.name, **self.bounds)


class Numbers(Key[tuple[float, ...]]):
    """A list of numbers within bounds, as for `Number`."""

    def __init__(self, says: str, *, fewest: int = 1, longest: int | None = None, **bounds: float):
        super().__init__(says)
        self.bounds = bounds
        self.size = {"minItems": fewest} | ({} if longest is None else {"maxItems": longest})

    def value(self, block: Block, base_dir: Path) -> tuple[float, ...]:
        """Return the numbers."""
        empty = self.size["minItems"] == 0 and block.values[self.name] == []
        return () if empty else block.numbers(self.name, **self.bounds)

    def type(self) -> Schema:
        """Return the schema of the list."""
        return {"type": "array", "items": quantity(self.name, **self.bounds), **self.size}


class Integer(Key[int]):
    """An integer within bounds."""

    def __init__(self, says: str, *, default: int | None = None, least: int, most: int):
        super().__init__(says, default)
        self.least, self.most = least, most

    def value(self, block: Block, base_dir: Path) -> int:
        """Return the integer."""
        return block.integer(self.name, least=self.least, most=self.most)

    def type(self) -> Schema:
        """Return the schema of the integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Flag(Key[bool]):
    """True or false."""

    def value(self, block: Block, base_dir: Path) -> bool:
        """Return it."""
        return block.flag(self.name, False)

    def type(self) -> Schema:
        """Return the schema of a boolean."""
        return {"type": "boolean"}


class Text(Key[str]):
    """A text that is not empty."""

    def value(self, block: Block, base_dir: Path) -> str:
        """Return the text."""
        return block.text(self.name)

    def type(self) -> Schema:
        """Return the schema of a text."""
        return {"type": "string", "minLength": 1}


class Word(Key[str]):
    """One of several words, each with what it means; those of `later` are refused as not built yet."""

    def __init__(
        self, says: str, words: Mapping[str, str] | Iterable[str], *, default: str | None = None, later: str = ""
    ):
        super().__init__(says, default)
        self.words = words if isinstance(words, Mapping) else dict.fromkeys(words, "")
        self.later = (later,) if later else ()

    def value(self, block: Block, base_dir: Path) -> str:
        """Return the word."""
        return block.choice(self.name, None, tuple(self.words), self.later)

    def type(self) -> Schema:
        """Return the schema of the words."""
        return enumeration(self.words)


class WordList(Key[tuple[str, ...]]):
    """A list of at least one of several words, in the order of the words."""

    def __init__(self, says: str, words: Mapping[str, str], *, default: tuple[str, ...]):
        super().__init__(says, default)
        self.words = words

    def value(self, block: Block, base_dir: Path) -> tuple[str, ...]:
        """Return the words that the list has."""
        values, path = block.values[self.name], block.at(self.name)
        if not isinstance(values, list) or not values:
            raise InputError(path, f"must be a list [...] of at least one of {', '.join(self.words)}", values)
        errors, given = Collector(), set[str]()
        for i, value in enumerate(values):
            with errors:
                given.add(choice(value, f"{path}.{i}", tuple(self.words)))
        errors.check()
        return tuple(word for word in self.words if word in given)

    def type(self) -> Schema:
        """Return the schema of the list."""
        return {"type": "array", "items": enumeration(self.words), "minItems": 1}


class Reserved(Key[None]):
    """A key of a feature that is not built yet: it may be null."""

    def __init__(self) -> None:
        super().__init__("Not built yet.")
        self.required = False

    def value(self, block: Block, base_dir: Path) -> None:
        """Raise `InputError`."""
        raise not_built(block.at(self.name), self.name)

    def type(self) -> Schema:
        """Return the schema of null."""
        return {"type": "null"}


class Parsed(Key[T]):
    """A key whose value a function reads, and a schema describes.

    Parameters
    ----------
    says : str
        What it means.
    parse : callable
        Returns the value for the block, the key and the folder that paths are relative to; None as for a key that is
        left out.
    form : callable
        Returns the schema of a value that is given.
    default : T, optional
        See `Key`.
    """

    def __init__(
        self,
        says: str,
        parse: Callable[[Block, str, Path], T | None],
        form: Callable[[], Schema],
        default: T | None = None,
    ):
        super().__init__(says, default)
        self.parse, self.form = parse, form

    def value(self, block: Block, base_dir: Path) -> T:
        """Return what the function makes of it."""
        return cast(T, self.parse(block, self.name, base_dir))

    def type(self) -> Schema:
        """Return the form's schema."""
        return self.form()


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Keys of which a block has so many, as a rule that is both checked and described.

    Attributes
    ----------
    keys : tuple of str
    least, most : int
        0 or 1; how many of them are given.
    constraint : str
        What an error says.
    at : str
        The key whose path an error names, with its value; the block's own if it is empty.
    """

    keys: tuple[str, ...]
    least: int
    most: int
    constraint: str
    at: str = ""

    def check(self, block: Block) -> None:
        """Raise `InputError` for a block that has too few or too many of them."""
        given = {key: block.values[key] for key in self.keys if block.has(key)}
        if not self.least <= len(given) <= self.most:
            path = block.at(self.at) if self.at else block.path
            raise InputError(path, self.constraint, given[self.at] if self.at else given)

    def schema(self) -> Schema:
        """Return it as alternatives of which one must hold."""
        each = [alone(key, self.keys) for key in self.keys]
        return {"anyOf": [*each, *([] if self.least else [absent(*self.keys)])]}


class Keys:
    """The keys of a JSON object; see the module.

    Attributes
    ----------
    title : str
        The object in a sentence.
    rules : tuple of Alternatives
        Keys that exclude or need each other.
    examples : tuple
        JSON values that show it in use.
    """

    title: ClassVar[str] = ""
    rules: ClassVar[tuple[Alternatives, ...]] = ()
    examples: ClassVar[tuple[object, ...]] = ()

    @classmethod
    @cache
    def declared(cls) -> Mapping[str, Key[Any]]:
        """Return the keys by name, in their order; those of a base class come first."""
        return {name: key for base in reversed(cls.__mro__) for name, key in vars(base).items() if isinstance(key, Key)}

    @classmethod
    def read(cls, block: Block, base_dir: Path | None = None, *, known: Iterable[str] = ()) -> Self:
        """Return the values of a block's keys, or raise `InputError` with all that is wrong.

        `known` are keys beside those declared that the block may have.
        """
        values, errors = cls(), Collector()
        with errors:
            block.only([*known, *cls.declared()])
        for rule in cls.rules:
            with errors:
                rule.check(block)
        for name, key in cls.declared().items():
            with errors:
                vars(values)[name] = key.read(block, base_dir or Path())
        errors.check()
        return values

    @classmethod
    def schema(cls, tag: Mapping[str, Schema] | None = None, null: Iterable[str] = ()) -> Schema:
        """Return the schema of such an object.

        Parameters
        ----------
        tag : mapping of str to schema, optional
            Further properties, which are required: those that chose this class.
        null : iterable of str
            Further keys that may stand there as null.
        """
        properties = {**(tag or {}), **{name: key.schema() for name, key in cls.declared().items()}}
        properties |= {name: {"type": "null"} for name in null if name not in properties}
        required = [*(tag or {}), *(name for name, key in cls.declared().items() if key.required)]
        return {
            "type": "object",
            **({"description": cls.title} if cls.title else {}),
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
            **({"allOf": [rule.schema() for rule in cls.rules]} if cls.rules else {}),
            **({"examples": list(cls.examples)} if cls.examples else {}),
        }


def object_form(keys: type[Keys]) -> Callable[[], Schema]:
    """Return the form of an object with these keys."""
    return keys.schema


def list_form(keys: type[Keys], fewest: int = 1, longest: int | None = None) -> Callable[[], Schema]:
    """Return the form of a list of such objects."""

    def form() -> Schema:
        size = {"minItems": fewest} | ({} if longest is None else {"maxItems": longest})
        return {"type": "array", "items": keys.schema(), **size}

    return form


def chosen_by(tag: str, says: str, kinds: Mapping[str, tuple[str, Schema]]) -> Schema:
    """Return the schema of an object whose other keys depend on the word at `tag`.

    Parameters
    ----------
    tag : str
    says : str
        What the word chooses.
    kinds : mapping of str to (str, schema)
        What each word means, and the schema of an object with it.
    """
    words = {word: meaning for word, (meaning, _) in kinds.items()}
    return {
        "type": "object",
        "properties": {tag: {"description": says, **enumeration(words)}},
        "required": [tag],
        "allOf": [
            {"if": {"properties": {tag: {"const": word}}, "required": [tag]}, "then": schema}
            for word, (_, schema) in kinds.items()
        ],
    }


def enumeration(words: Mapping[str, str] | Sequence[str]) -> Schema:
    """Return the schema of one of several words, with what they mean."""
    meanings = [words[word] for word in words] if isinstance(words, Mapping) else []
    return {"enum": list(words), **({"enumDescriptions": meanings} if any(meanings) else {})}


def quantity(name: str, **bounds: float | None) -> Schema:
    """Return the schema of a number at a key; where it is in seconds, a text with a unit is one, too."""
    number = {"type": "number", **{_NUMBER[kind]: bound for kind, bound in bounds.items() if bound is not None}}
    if not takes_duration(name):
        return number
    return {"anyOf": [number, {"type": "string", "pattern": DURATION}], "unit": "seconds"}


def nullable(schema: Schema) -> Schema:
    """Return a schema that also takes null."""
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema and "allOf" not in schema:
        return {**schema, "type": [schema["type"], "null"]} if schema["type"] != "null" else schema
    if set(schema) & {"anyOf", "oneOf"}:
        kind = "anyOf" if "anyOf" in schema else "oneOf"
        if not set(schema) & {"properties", "type", "enum"}:
            return {**schema, kind: [*schema[kind], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def given(*keys: str) -> Schema:
    """Return the schema of an object that has these keys, and not as null."""
    return {"required": list(keys), "properties": {key: {"not": {"type": "null"}} for key in keys}}


def absent(*keys: str) -> Schema:
    """Return the schema of an object that lacks these keys, or has them as null."""
    return {"properties": {key: {"type": "null"} for key in keys}}


def alone(key: str, keys: Iterable[str]) -> Schema:
    """Return the schema of an object that has one of several keys, and not the others."""
    others = absent(*(other for other in keys if other != key))
    return {"required": [key], "properties": given(key)["properties"] | others["properties"]}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
