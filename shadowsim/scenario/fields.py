"""Reads and checks the values in a scenario file's JSON objects, and the parameters of functions.

A `Block` is a JSON object together with its path, so that every error is one `InputError` with the path, the constraint
and the value. An unknown key is an error that suggests the nearest known one, never a silent default. Null counts as
left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import index

from shadowsim.errors import Collector, InputError, nearest

BLOCKS = ("experiment", "traffic", "services", "endpoint", "mirror", "run")
BLOCK_KEYS = {
    "endpoint": ("routing", "overhead_s", "timeout_s"),
    "mirror": ("rule", "instant", "max_in_flight", "max_body_bytes", "max_per_s"),
    "run": ("horizon_s", "period_s", "seed", "sample_requests", "replications"),
}
BLOCK_LATER = {"run": ("warmup_s", "precision")}
SERVICE_KEYS = (
    *("time", "workers", "queue_limit", "slowdown", "error_4xx", "error_5xx", "discipline"),
    *("batching", "scaling", "cold_start_s", "outages", "by_instance_type"),
)
SERVICE_LATER = ("tokens", "cpu_per_request_s")

# Seconds per unit, as texts for Decimal: 30 x the float 0.001 may differ from the float 0.03 in its last bit.
TIME_UNITS = {
    **{"us": "0.000001", "µs": "0.000001", "μs": "0.000001", "ms": "0.001", "s": "1"},
    **{"m": "60", "min": "60", "h": "3600", "d": "86400", "w": "604800"},
}
_DURATION = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*([^\W\d_]+)")


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

    def only(self, known: Iterable[str], later: Iterable[str] = ()) -> None:
        """Raise `InputError` for a key that is not `known`; those of `later` are refused as not built yet."""
        known, later, errors = list(known), set(later), Collector()
        for key, value in self.values.items():
            with errors:
                if key in later and value is not None:
                    raise not_built(self.at(key), key)
                if key not in known and key not in later:
                    raise InputError(self.at(key), f"is not a known key{_hint(key, known)}")
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

    def cap(self, key: str, most: int) -> int | None:
        """Return an integer from 0 to `most`, or None for no limit when it is left out."""
        return self.integer(key, least=0, most=most) if self.has(key) else None

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


def number(
    value: object,
    path: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> float:
    """Return `value` as a float when it is a finite JSON number within the bounds.

    Booleans and texts with digits are not numbers here.
    """
    bounds = [f"> {above:g}"] if above is not None else []
    bounds += [f">= {least:g}"] if least is not None else []
    bounds += [f"<= {most:g}"] if most is not None else []
    constraint = "must be a finite number" + (" " + " and ".join(bounds) if bounds else "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(path, constraint, value)
    try:
        result = float(value)
    except OverflowError:  # an integer of more than 308 digits
        raise InputError(path, constraint, value) from None
    inside = (
        (above is None or result > above) and (least is None or result >= least) and (most is None or result <= most)
    )
    if not math.isfinite(result) or not inside:
        raise InputError(path, constraint, value)
    return result


def integer(value: object, path: str, *, least: int, most: int) -> int:
    """Return `value` when it is an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(path, f"must be an integer from {least} to {most}", value)
    return value


def _quantity(key: str, value: object, path: str, **bounds: float | None) -> float:
    """Return the number of a key; where the key is in seconds, a text with a unit is one, too."""
    if not isinstance(value, str) or not key.endswith("_s") or key.endswith("per_s"):
        return number(value, path, **bounds)
    seconds = duration_s(value, path)
    try:
        return number(seconds, path, **bounds)
    except InputError as error:
        raise InputError(path, error.constraint, value) from None  # the value as it was written


def duration_s(value: object, path: str) -> float:
    """Return a duration in seconds.

    A number is in seconds; a text needs a unit, such as "30ms", "1.5h" or "1d". Units are us, ms, s, m or min, h, d, w.

    Raises
    ------
    InputError
        It is neither, or its unit is unknown.
    """
    if not isinstance(value, str):
        return number(value, path)
    match = _DURATION.fullmatch(value.strip())
    seconds = math.inf
    if match and match[2] in TIME_UNITS:
        seconds = float(Decimal(match[1]) * Decimal(TIME_UNITS[match[2]]))
    if not math.isfinite(seconds):
        what = "must be seconds, or have a unit (us, ms, s, m or min, h, d, w), as in 30ms or 1.5h"
        raise InputError(path, what, value)
    return seconds


def check_whole(value: object, path: str, least: int) -> int:
    """Return `value` when it is an integer, also one of numpy's, that is at least `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        checked = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(path, f"must be a whole number >= {least}", value) from None
    if checked < least:
        raise InputError(path, f"must be at least {least}", value)
    return checked


def per_cent(value: object, path: str) -> float:
    """Return a margin in per cent: the text "5%" is 5, and so are the share 0.05 and its text.

    A number >= 1 is refused, because it could mean either.
    """
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    try:
        margin_pct = float(text.removesuffix("%")) * (1.0 if text.endswith("%") else 100.0)
    except ValueError:
        margin_pct = math.nan
    if not (0.0 < margin_pct < math.inf) or (margin_pct >= 100.0 and not text.endswith("%")):
        raise InputError(path, "must be a percentage such as 5%, or a share such as 0.05", value)
    return margin_pct


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
    return f"; did you mean {same[0]}?" if same else nearest(value, known)


def not_built(path: str, name: str) -> InputError:
    """Return the error for a feature that the file format reserves and this version lacks."""
    return InputError(path, f"`{name}` is not built yet in this version")


def _hint(key: str, known: Iterable[str]) -> str:
    known = list(known)
    # `rate` is too short for difflib to find `rate_per_s`, and forgetting the unit is the commonest slip.
    longer = [name for name in known if name.startswith(key + "_")]
    near = f"; did you mean {longer[0]}?" if longer else nearest(key, known)
    return near or f"; known are {', '.join(dict.fromkeys(known))}"
