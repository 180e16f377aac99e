"""Enforces the account's quotas: numbers of instances and rates of requests.

A quotas file is a JSON object {name: limit} with names as in Service Quotas: "ml.m5.large for endpoint usage" ("* for
endpoint usage" for all types that are not named), "Maximum number of instances per endpoint", "Number of instances
across active endpoints", and "Rate of CreateEndpoint requests" (per second; likewise for each other action of the
control plane and for InvokeEndpoint). Anything not named is unlimited. An update is refused only if it adds instances.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from time import monotonic

from shadowsim.aws import instances
from shadowsim.aws.contract import actions, instance_types
from shadowsim.errors import InputError, ResourceLimitExceededError, ThrottlingError, did_you_mean
from shadowsim.json_files import read_json
from shadowsim.server.state.account import World
from shadowsim.server.state.token_bucket import TokenBucket

PER_ENDPOINT = "Maximum number of instances per endpoint"
ACROSS_ENDPOINTS = "Number of instances across active endpoints"
INVOKE = "InvokeEndpoint"
_ANY_TYPE = "* for endpoint usage"


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits by their names in Service Quotas."""

    limits: Mapping[str, float]

    @classmethod
    def read(cls, source: str | Path | None = None) -> Quotas:
        """Return generous quotas (None), those of a new AWS account ("default"), or those in a file.

        Raises
        ------
        InputError
            The file cannot be read, names an unknown quota, or gives a limit that is not a number >= 0 (> 0 for a
            rate).
        SerializationError
            It is not a JSON object.
        """
        if source is None:
            return cls(json.loads(files("shadowsim.aws").joinpath("quotas.json").read_text("utf-8")))
        if source == "default":
            of_types = {f"{kind} for endpoint usage": instances.default_quota(kind) for kind in instance_types()}
            return cls(
                {**of_types, PER_ENDPOINT: instances.QUOTA_PER_ENDPOINT, ACROSS_ENDPOINTS: instances.QUOTA_PER_ENDPOINT}
            )
        limits = read_json(Path(source))
        rates = {f"Rate of {action} requests" for action in (*actions(), INVOKE)}
        types = {f"{kind} for endpoint usage" for kind in instance_types()}
        known = {PER_ENDPOINT, ACROSS_ENDPOINTS, _ANY_TYPE, *types, *rates}
        for name, limit in limits.items():
            is_rate = name in rates
            if name not in known:
                raise InputError(
                    f"{source}: {name}", "must be a quota of Service Quotas", hint=did_you_mean(name, known)
                )
            is_valid = isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 0
            if not is_valid or (is_rate and limit == 0):
                raise InputError(f"{source}: {name}", f"must be a number {'>' if is_rate else '>='} 0", limit)
        return cls(limits)

    def check(self, world: World, endpoint: str, wanted: Mapping[str, int]) -> None:
        """Raise ResourceLimitExceededError if an endpoint's instances would exceed a quota.

        Parameters
        ----------
        world : World
        endpoint : str
            The endpoint's name.
        wanted : mapping of str to int
            All instances that it will have, by type.

        Raises
        ------
        ResourceLimitExceededError
            With AWS's sentence, for the first quota that would be exceeded.
        """
        used: Counter[str] = Counter()
        used_here: Counter[str] = Counter()
        for name, kind, count in world.reserved_instances():
            used[kind] += count
            if name == endpoint:
                used_here[kind] += count
        for kind, count in wanted.items():
            self._refuse_above(f"{kind} for endpoint usage", used[kind], count - used_here[kind])
        delta = sum(wanted.values()) - used_here.total()
        self._refuse_above(PER_ENDPOINT, used_here.total(), delta)
        self._refuse_above(ACROSS_ENDPOINTS, used.total(), delta)

    def _refuse_above(self, name: str, used: int, delta: int) -> None:
        fallback = self.limits.get(_ANY_TYPE) if name.endswith(" for endpoint usage") else None
        limit = self.limits.get(name, fallback)
        if limit is not None and delta > 0 and used + delta > limit:
            raise ResourceLimitExceededError(
                f"The account-level service limit '{name}' is {limit:g} Instances, with current utilization of {used} "
                f"Instances and a request delta of {delta} Instances. Please use AWS Service Quotas to request an "
                "increase for this quota."
            )


@dataclass(slots=True)
class Throttle:
    """Token buckets, one per action, filled at the action's rate and holding one second's tokens, at least one.

    Attributes
    ----------
    quotas : Quotas
    wall_s : callable
        A monotonic clock; rates are per second of wall time, whatever the time scale is.
    """

    quotas: Quotas
    wall_s: Callable[[], float] = monotonic
    _buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def admit(self, action: str) -> None:
        """Take a token for an action, or raise ThrottlingError."""
        rate = self.quotas.limits.get(f"Rate of {action} requests")
        if rate is None:
            return
        if action not in self._buckets:
            self._buckets[action] = TokenBucket(rate, max(1.0, rate), self.wall_s)
        if not self._buckets[action].take():
            raise ThrottlingError("Rate exceeded")
