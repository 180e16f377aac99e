"""Explains a key of a scenario by its path: its sentence, range, default and the keys inside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from shadowsim.errors import InputError, did_you_mean
from shadowsim.quantities import DURATION
from shadowsim.reference.schema import scenario_schema
from shadowsim.scenario.fields import ALIASES, BLOCKS
from shadowsim.scenario.keys import Schema
from shadowsim.scenario.paths import SYNONYMS, VARIANT_ALIASES
from shadowsim.text import WIDTH, wrapped

_MOST_WORDS, _MOST_ITEMS = 12, 1000
_ANY = "*"
_WORDS = {"string": "a text", "boolean": "true or false", "object": "an object", "null": "null"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is said of a key in one of the places that its path can mean.

    Attributes
    ----------
    schema : dict
        Its JSON Schema.
    within : tuple of str
        The words that choose this place, such as ("lognormal",).
    required : bool
    """

    schema: Schema
    within: tuple[str, ...] = ()
    required: bool = False


def explain(path: str = "") -> str:
    """Return the entry of a key as text.

    Parameters
    ----------
    path : str
        A path in the scenario file (`traffic.profile`, `services.*.tokens.step`, `services.Shadow-01.time`), or an
        alias as `--set` takes it (`shadow.instance_count`); the whole scenario if it is empty. A number or `*` stands
        for an item of a list, and `*` for a variant.

    Raises
    ------
    InputError
        There is no such key; the message names the nearest.

    Examples
    --------
    >>> from shadowsim.reference.explain import explain
    >>> print(explain("run.seed"))
    run.seed  an integer from 0 to 18446744073709551615; default 7
      Seed of all random draws.
    """
    full = full_path(path)
    name = full if full == path else f"{path} ({full})"
    return "\n".join(_text(name or "a scenario", entries(path)))


def entries(path: str = "") -> list[Entry]:
    """Return all that a path can mean, each with its schema; raise `InputError` for none."""
    here = [Entry(scenario_schema_once(), (), True)]
    for part in filter(None, full_path(path).split(".")):
        here = [child for entry in here for child in _children(entry, part)]
    described = _distinct(here)
    if not described:
        raise InputError(path, f"is not a key of a scenario{_nearest(path)}")
    return described


def full_path(path: str) -> str:
    """Return the path in a scenario file that a path or an alias means, with `*` for items of lists."""
    head, _, rest = path.partition(".")
    if path in ALIASES:
        path = ALIASES[path]
    elif head in ("source", "shadow") and rest:
        in_request = VARIANT_ALIASES.get(rest)
        path = f"experiment.ModelVariants.*.{in_request}" if in_request else f"services.*.{rest}"
    path = re.sub(r"(?<=\.by_instance_type\.)ml\.[^.]+\.[^.]+", _ANY, path)
    return re.sub(r"(?<=\.)\d+(?=\.|$)", _ANY, path)


@cache
def scenario_schema_once() -> Schema:
    """Return the schema of a scenario, which is not to be changed."""
    return scenario_schema()


@cache
def known_paths() -> tuple[str, ...]:
    """Return the paths of all keys, with `*` for items of lists, variants and columns."""
    found: dict[str, None] = {}

    def walk(here: list[Entry], path: str) -> None:
        names = dict.fromkeys(name for entry in here for name in _names(entry))
        for name in names:
            inside = _distinct([child for entry in here for child in _children(entry, name)])
            full = f"{path}.{name}" if path else name
            if inside and full not in found and full.count(f".{_ANY}") <= 3 and not full.startswith("traffic.*"):
                found[full] = None
                walk(inside, full)

    walk([Entry(scenario_schema_once())], "")
    return tuple(found)


def _forms(entry: Entry) -> Iterator[Entry]:
    """Yield a schema and those that it is made of, with the words that choose them."""
    yield entry
    schema = entry.schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from _forms(Entry(scenario_schema_once()["$defs"][name], entry.within, entry.required))
    for part in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _forms(Entry(part, entry.within, entry.required))
    if "then" in schema:
        chosen = [tag["const"] for tag in schema["if"].get("properties", {}).values() if "const" in tag]
        yield from _forms(Entry(schema["then"], (*entry.within, *chosen), entry.required))


def _children(entry: Entry, part: str) -> Iterator[Entry]:
    for form in _forms(entry):
        schema = form.schema
        required = part in schema.get("required", ())
        others = schema.get("additionalProperties")
        if part in schema.get("properties", {}):
            yield Entry(schema["properties"][part], form.within, required)
        elif isinstance(others, dict) and (part == _ANY or "properties" not in schema):
            yield Entry(others, form.within)
        elif "items" in schema and part == _ANY:
            yield Entry(schema["items"], form.within)


def _names(entry: Entry) -> Iterator[str]:
    for form in _forms(entry):
        yield from form.schema.get("properties", {})
        if isinstance(form.schema.get("additionalProperties"), dict) or "items" in form.schema:
            yield _ANY


def _distinct(found: Sequence[Entry]) -> list[Entry]:
    """Return the entries that say something, those that say the same as one."""
    said: dict[str, Entry] = {}
    for entry in found:
        if not {"description", "$ref", "enum", "minimum", "items"} & set(entry.schema) and "anyOf" not in entry.schema:
            continue
        key = json.dumps(entry.schema, sort_keys=True)
        before = said.get(key)
        within = entry.within if before is None else (*before.within, *entry.within)
        required = entry.required or (before is not None and before.required)
        said[key] = Entry(entry.schema, tuple(dict.fromkeys(within)), required)
    described = [entry for entry in said.values() if "description" in entry.schema or "$ref" in entry.schema]
    return described or list(said.values())


def _text(path: str, found: Sequence[Entry]) -> Iterator[str]:
    for i, entry in enumerate(found):
        if i:
            yield ""
        place = f" (with {', '.join(entry.within)})" if entry.within and len(found) > 1 else ""
        yield from _lines(f"{path}{place}  {_facts(entry)}", "", "  ")
        yield from _lines(_description(entry), "  ")
        yield from _words(entry)
        yield from _keys(entry)
        for example in _examples(entry):
            yield from _lines(f"example  {json.dumps(example, ensure_ascii=False)}", "  ", " " * 11)


def _facts(entry: Entry) -> str:
    facts = [_kind(entry.schema)]
    if "default" in entry.schema:
        facts.append(f"default {json.dumps(entry.schema['default'], ensure_ascii=False)}")
    elif "otherwise" in entry.schema:
        otherwise = entry.schema["otherwise"]
        facts.append(otherwise if otherwise.startswith("required") else f"if left out: {otherwise}")
    elif entry.required:
        facts.append("required")
    return "; ".join(facts)


def _description(entry: Entry) -> str:
    texts = [
        form.schema["description"]
        for form in _forms(entry)
        if "description" in form.schema and form.within == entry.within
    ]
    return " ".join(dict.fromkeys(texts[:2]))


def _words(entry: Entry) -> Iterator[str]:
    """Yield a line for each word with a meaning that the value may be."""
    for form in _forms(entry):
        meanings = form.schema.get("enumDescriptions")
        if meanings and form.within == entry.within:
            words = dict(zip(form.schema["enum"], meanings, strict=True))
            width = max(map(len, words))
            for word, meaning in words.items():
                yield from _lines(f"{word:<{width}}  {meaning}", "    ", " " * (6 + width))


def _keys(entry: Entry) -> Iterator[str]:
    """Yield lines for the keys inside."""
    inside = {name: _distinct(list(_children(entry, name))) for name in dict.fromkeys(_names(entry))}
    inside = {name: children for name, children in inside.items() if children and any(map(_description, children))}
    tags = {word for children in inside.values() for child in children for word in child.within}
    width = min(max(map(len, inside), default=0), 28)
    for name, children in inside.items():
        says = " / ".join(dict.fromkeys(_first(_description(child)) for child in children))
        chosen = dict.fromkeys(word for child in children for word in child.within if word not in entry.within)
        within = f" ({', '.join(chosen)})" if chosen and set(chosen) < tags else ""
        facts = list(dict.fromkeys(map(_facts, children)))
        shown = f" [{facts[0]}]" if len(facts) == 1 and len(facts[0]) < 2 * WIDTH else ""
        yield from _lines(f"{name:<{width}}  {says}{shown}{within}", "    ", " " * (6 + width))


def _examples(entry: Entry) -> list[object]:
    return [example for form in _forms(entry) for example in form.schema.get("examples", ())]


def _first(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _kind(schema: Schema) -> str:
    """Return a schema's values in words: "an integer from 1 to 100"."""
    kinds = dict.fromkeys(_kinds(schema))
    kinds.pop("null", None)
    return " or ".join(kinds) or "null"


def _kinds(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield from _kinds(scenario_schema_once()["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    elif "enum" in schema:
        words = [json.dumps(w) if not isinstance(w, str) else w for w in schema["enum"] if w is not None]
        more = f", ... ({len(words)} in all)" if len(words) > _MOST_WORDS else ""
        yield f"one of {', '.join(words[:_MOST_WORDS])}{more}" if len(words) > 1 else "".join(words)
    elif "const" in schema:
        yield json.dumps(schema["const"])
    elif "type" in schema:
        types = schema["type"]
        for kind in [types] if isinstance(types, str) else types:
            yield _of_type(kind, schema)
    else:
        for part in schema.get("anyOf", ()):
            yield from _kinds(part)


def _of_type(kind: str, schema: Schema) -> str:
    if kind == "array":
        return f"a list{_size(schema)} of {_kind(schema['items'])}"
    if kind in ("number", "integer"):
        low, high = schema.get("minimum"), schema.get("maximum")
        if kind == "integer" and low is not None and high is not None:
            return f"an integer from {low} to {high}"
        bounds = [f"> {schema['exclusiveMinimum']:g}"] if "exclusiveMinimum" in schema else []
        bounds += [f">= {low:g}"] if low is not None else []
        bounds += [f"<= {high:g}"] if high is not None else []
        return " ".join(["a number", " and ".join(bounds)]).rstrip()
    if kind == "string" and schema.get("pattern") == DURATION:
        return "a duration such as 30ms"
    return _WORDS[kind]


def _size(schema: Schema) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most is None or most > _MOST_ITEMS:
        return ""
    return f" of {least}" if least == most else f" of {least} to {most}"


def _nearest(path: str) -> str:
    """Return "; did you mean X?" for the nearest path: by meaning, one that ends alike, or by spelling."""
    head, _, last = path.rpartition(".")
    if head in ("", "source", "shadow") and last in SYNONYMS:
        meant = SYNONYMS[last]
        return f"; did you mean {'' if meant in ALIASES else (head or 'shadow') + '.'}{meant}?"
    if not head and last in VARIANT_ALIASES:
        return f"; did you mean shadow.{last}?"
    if head in ("source", "shadow") and (near := get_close_matches(last, VARIANT_ALIASES, n=1, cutoff=0.8)):
        return f"; did you mean {head}.{near[0]}?"
    known = known_paths()
    ending = [other for other in known if other.rpartition(".")[2] == last]
    if ending:
        return f"; did you mean {min(ending, key=lambda other: (other.count('.'), other))}?"
    generic = re.sub(r"^services\.[^.]+", "services.*", full_path(path))
    return did_you_mean(generic, [*known, *ALIASES]) or f"; known are {', '.join(BLOCKS)}"


def _lines(text: str, indent: str, later: str | None = None) -> list[str]:
    return wrapped(text, indent, later).splitlines()
