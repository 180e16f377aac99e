"""Reads outages: instances that fail for a time, with all requests that they hold.

`outages` in a service lists them, or makes each instance fail by chance, with exponential times up and down::

    "outages": [{"instance": 0, "at_s": "2h", "for_s": "5m"}]
    "outages": {"mtbf_s": "30d", "mttr_s": "5m"}

`instance` counts from 0. A variant that scales gives a new instance the next number, and never one of those before; an
outage of an instance that is not there, or that is down already, does nothing. `mtbf_s` is the mean time from the start
or repair of an instance to its next failure, and `mttr_s` the mean time to repair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from shadowsim.errors import Collector, InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Integer, Keys, Number, Schema, list_form

MAX_OUTAGES = 100_000
MAX_INSTANCE = 2**31 - 1


class OutageKeys(Keys):
    """Keys of a listed outage."""

    title = "An outage of one instance; outages of an instance may not overlap."
    instance = Integer("The number of the instance, from 0 on.", least=0, most=MAX_INSTANCE)
    at_s = Number("When it fails.", least=0.0)
    for_s = Number("How long it is down.", above=0.0)
    examples = ({"instance": 0, "at_s": "2h", "for_s": "5m"},)


class RandomOutageKeys(Keys):
    """Keys of outages by chance."""

    title = "Outages by chance, with exponential times up and down for each instance."
    mtbf_s = Number("Mean time from the start or repair of an instance to its next failure.", above=0.0)
    mttr_s = Number("Mean time to repair.", above=0.0)
    examples = ({"mtbf_s": "30d", "mttr_s": "5m"},)


def outages_form() -> Schema:
    """Return the schema of `outages`."""
    return {"anyOf": [list_form(OutageKeys, 0, MAX_OUTAGES)(), RandomOutageKeys.schema()]}


@dataclass(frozen=True, slots=True)
class Outage:
    """The failure of instance `instance` at `at_s`, which is repaired `for_s` later."""

    instance: int
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class OutagePlan:
    """The failures of a variant's instances.

    Attributes
    ----------
    listed : tuple of Outage
        Ordered by time, then instance.
    mtbf_s, mttr_s : float
        Mean times between failures and to repair of each instance; infinity and 0 for no random failures.
    """

    listed: tuple[Outage, ...] = ()
    mtbf_s: float = math.inf
    mttr_s: float = 0.0


def parse_outages(block: Block, key: str = "outages") -> OutagePlan | None:
    """Return the outages that the value of a key describes; None for an empty list.

    Raises
    ------
    InputError
        When a key is unknown, a value breaks its constraint, or two outages of an instance overlap.
    """
    value = block.need(key)
    if value == []:
        return None
    if isinstance(value, list):
        return _listed(block, key, value)
    if not isinstance(value, Mapping):
        constraint = "must be a list [...] of outages, or an object with mtbf_s and mttr_s"
        raise InputError(block.at(key), constraint, value)
    keys = RandomOutageKeys.read(block.block(key))
    return OutagePlan(mtbf_s=keys.mtbf_s, mttr_s=keys.mttr_s)


def _listed(block: Block, key: str, values: list[object]) -> OutagePlan:
    if len(values) > MAX_OUTAGES:
        raise InputError(block.at(key), f"must list at most {MAX_OUTAGES:,} outages", len(values))
    errors, listed = Collector(), list[tuple[Outage, str]]()
    for item in block.items(key):
        with errors:
            listed.append((_outage(item), item.path))
    errors.check()
    listed.sort(key=lambda pair: (pair[0].instance, pair[0].at_s))
    for (one, _), (other, path) in pairwise(listed):
        # At its repair an instance counts as down, so that an outage at this very moment would do nothing.
        if one.instance == other.instance and other.at_s <= one.at_s + one.for_s:
            constraint = f"must be after the end of this instance's outage from {one.at_s:g} s for {one.for_s:g} s"
            with errors:
                raise InputError(f"{path}.at_s", constraint, other.at_s)
    errors.check()
    return OutagePlan(tuple(sorted((outage for outage, _ in listed), key=lambda o: (o.at_s, o.instance))))


def _outage(block: Block) -> Outage:
    keys = OutageKeys.read(block)
    return Outage(keys.instance, keys.at_s, keys.for_s)
