"""Reads and checks the values in a scenario file's JSON objects.

A `Block` is a JSON object together with its path, so that every error is one `InputError` with the path, the constraint
and the value. An unknown key is an error that suggests the nearest known one, never a silent default. Null counts as
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shadowsim.errors import Collector, InputError, did_you_mean
from shadowsim.quantities import integer, number, parse_duration

BLOCKS = ("experiment", "traffic", "services", "endpoint", "mirror", "run")
# Short names of paths, for settings on a command line or of a library call; files have the keys in their places.
ALIASES = {
    "sampling_percentage": "experiment.ShadowModeConfig.ShadowModelVariants.0.SamplingPercentage",
    "rate_per_s": "traffic.rate_per_s",
    "seed": "run.seed",
    "horizon_s": "run.horizon_s",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A JSON object and its path.

    Parameters
    ----------
    path : str
        Where it stands, e.g. `services.Shadow-01.time`; "" for the whole file.
    values : mapping
        Its keys and values, as `json` reads them.
    """

    path: str
    values: Mapping[str, object]

    @classmethod
    def of(cls, value: object, path: str) -> Block:
        """Return `value` as a block, or raise `InputError` when it is not an object with text keys."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise InputError(path or "scenario", "must be an object {...}", value)
        return cls(path, value)

    def at(self, key: str) -> str:
        """Return the path of one of the keys."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Return whether the key is given and not null."""
        return self.values.get(key) is not None

    def only(self, known: Iterable[str]) -> None:
        """Raise `InputError` for a key that is not `known`."""
        known, errors = list(known), Collector()
        for key in self.values:
            with errors:
                if key not in known:
                    raise InputError(self.at(key), f"is not a known key{_hint(self.at(key), key, known)}")
        errors.check()

    def need(self, key: str) -> object:
        """Return the value of a required key."""
        if not self.has(key):
            raise InputError(self.at(key), "is required")
        return self.values[key]

    def block(self, key: str) -> Block:
        """Return the object below the key; an empty one when it is left out."""
        return Block.of(self.values[key] if self.has(key) else {}, self.at(key))

    def numbers(
        self, key: str, *, above: float | None = None, least: float | None = None, most: float | None = None
    ) -> tuple[float, ...]:
        """Return the finite numbers of a list, which is required and not empty."""
        value = self.need(key)
        if not isinstance(value, list) or not value:
            raise InputError(self.at(key), "must be a list [...] of at least one number", value)
        return tuple(
            _quantity(key, item, f"{self.at(key)}.{i}", above=above, least=least, most=most)
            for i, item in enumerate(value)
        )

    def items(self, key: str) -> list[Block]:
        """Return the objects of a list, which is required and not empty."""
        value = self.need(key)
        if not isinstance(value, list) or not value:
            raise InputError(self.at(key), "must be a list [...] of at least one object", value)
        return [Block.of(item, f"{self.at(key)}.{i}") for i, item in enumerate(value)]

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        above: float | None = None,
        least: float | None = None,
        most: float | None = None,
    ) -> float:
        """Return a finite number within bounds; without a default the key is required.

        The value of a key in seconds (`mean_s`, `horizon_s`) may also be a text with a unit, such as "30ms".
        """
        if default is not None and not self.has(key):
            return default
        return _quantity(key, self.need(key), self.at(key), above=above, least=least, most=most)

    def integer(self, key: str, default: int | None = None, *, least: int, most: int) -> int:
        """Return an integer from `least` to `most`; without a default the key is required."""
        if default is not None and not self.has(key):
            return default
        return integer(self.need(key), self.at(key), least=least, most=most)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self.values[key] if self.has(key) else default
        if not isinstance(value, bool):
            raise InputError(self.at(key), "must be true or false", value)
        return value

    def text(self, key: str) -> str:
        """Return a text, which is required and not empty."""
        value = self.need(key)
        if not isinstance(value, str) or not value:
            raise InputError(self.at(key), "must be a text", value)
        return value

    def choice(self, key: str, default: str | None, known: Sequence[str], later: Sequence[str] = ()) -> str:
        """Return one of the `known` words; those of `later` are refused as not built yet."""
        if default is not None and not self.has(key):
            return default
        return choice(self.need(key), self.at(key), known, later)


def takes_duration(key: str) -> bool:
    """Return whether a key is in seconds, so that its value may be a text with a unit."""
    return key.endswith("_s") and not key.endswith("per_s")


def _quantity(key: str, value: object, path: str, **bounds: float | None) -> float:
    """Return the number of a key; where the key is in seconds, a text with a unit is one, too."""
    if not isinstance(value, str) or not takes_duration(key):
        return number(value, path, **bounds)
    seconds = parse_duration(value, path)
    try:
        return number(seconds, path, **bounds)
    except InputError as error:
        raise InputError(path, error.constraint, value) from None  # the value as it was written


def choice(value: object, path: str, known: Sequence[str], later: Sequence[str] = ()) -> str:
    """Return `value` when it is one of the `known` words; those of `later` are refused as not built yet."""
    if isinstance(value, str) and value in later:
        raise not_built(path, value)
    if not isinstance(value, str) or value not in known:
        words, hint = known[0], ""
        if len(known) > 1:
            words = "one of " + ", ".join(known)
            hint = _nearest_word(value, known) if isinstance(value, str) else ""
        raise InputError(path, f"must be {words}", value, hint=hint)
    return value


def _nearest_word(value: str, known: Sequence[str]) -> str:
    """Return "; did you mean X?" for the word of other case, of these initials, or else the nearest by spelling."""
    same = [w for w in known if value.upper() in (w.upper(), "".join(part[:1] for part in w.upper().split("_")))]
    return f"; did you mean {same[0]}?" if same else did_you_mean(value, known)


def not_built(path: str, name: str) -> InputError:
    """Return the error for a feature that the file format reserves and this version lacks."""
    return InputError(path, f"`{name}` is not built yet in this version")


def _hint(path: str, key: str, known: Iterable[str]) -> str:
    if path in ALIASES:
        return f" of a file, where it is {ALIASES[path]}"
    known = list(known)
    # `rate` is too short for difflib to find `rate_per_s`, and forgetting the unit is the commonest slip.
    longer = [name for name in known if name.startswith(key + "_")]
    near = f"; did you mean {longer[0]}?" if longer else did_you_mean(key, known)
    return near or f"; known are {', '.join(dict.fromkeys(known))}"
