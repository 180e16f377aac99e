"""Reads the retries of the callers, by generation of boto3.

`traffic.retries` names a mode of botocore, or is an object whose other keys replace the mode's numbers::

    "retries": "standard-2026"
    "retries": {"mode": "legacy", "timeout_s": "5s", "clients": 50}

=================  ========  ========  =============  =================================================================
key                legacy    standard  standard-2026
=================  ========  ========  =============  =================================================================
`max_attempts`     5         3         3              with the first
`backoff_base_s`   1         1         0.05           the wait before attempt a + 1 (a = 0, 1, ...) is evenly
`backoff_cap_s`    none      20        20             distributed up to the lesser of base x 2^a and cap
`quota`            none      500       500            tokens of each client
`cost`             5         5         14             tokens that a retry costs
`timeout_cost`     10        10        14             the same after a time-out
=================  ========  ========  =============  =================================================================

The costs of legacy count only if it is given a `quota`. A success at the first attempt earns one token, a later one the
cost of its last retry. For all modes: `timeout_s`, after which a caller gives up, is 60 s if left out, botocore's read
time-out; `clients`, among whom the requests are divided at random, is 1; and `on` lists the causes that are retried:
by default `timeout`, `unavailable` (no instance serves) and `outage` (its instance failed). `refused` (its queue was
full) and `model_error` (a 4XX or 5XX answer, or the endpoint's time-out) can be added; botocore does not retry a
model's error.

legacy was botocore's default until 1.43; standard-2026 is that from 1.44 on, and standard the opt-in mode before it.
"none" is the default: each request is made once, as if no caller ever gave up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from shadowsim.scenario.fields import Block, choice
from shadowsim.scenario.keys import Integer, Keys, Number, Schema, Word, WordList, enumeration, optional

CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "timeout": "the caller's time-out",
        "unavailable": "no instance serves",
        "outage": "the instance failed",
        "refused": "the instance's queue was full",
        "model_error": "a 4XX or 5XX answer, or the endpoint's time-out; botocore does not retry it",
    }
)
RETRIED = tuple(CAUSES)[:3]
TIMEOUT_S = 60.0
MAX_ATTEMPTS = 100
MAX_TOKENS = 2**31 - 1
MAX_CLIENTS = 10_000_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retries of the callers.

    Attributes
    ----------
    max_attempts : int
        With the first; at least 2.
    backoff_base_s : float
        Longest wait before the first retry; each further one doubles it.
    backoff_cap_s : float or None
        The longest wait of all; None for no cap.
    quota : int or None
        Tokens of each client; None for no limit.
    cost, timeout_cost : int
        Tokens that a retry costs, and one after a time-out.
    timeout_s : float
        When a caller gives up.
    clients : int
        Number of clients, each with a quota.
    on : tuple of str
        The causes that are retried, in the order of `CAUSES`.
    """

    max_attempts: int
    backoff_base_s: float
    backoff_cap_s: float | None
    quota: int | None
    cost: int
    timeout_cost: int
    timeout_s: float = TIMEOUT_S
    clients: int = 1
    on: tuple[str, ...] = RETRIED


MODES: Mapping[str, RetryPolicy | None] = MappingProxyType(
    {
        "none": None,
        "legacy": RetryPolicy(5, 1.0, None, None, 5, 10),
        "standard": RetryPolicy(3, 1.0, 20.0, 500, 5, 10),
        "standard-2026": RetryPolicy(3, 0.05, 20.0, 500, 14, 14),
    }
)
_MODES = {
    "none": "each request is made once",
    "legacy": "botocore's default until 1.43",
    "standard": "botocore's opt-in mode before 1.44",
    "standard-2026": "botocore's default from 1.44 on",
}
_BY_MODE = "the mode's number"


class RetryKeys(Keys):
    """Keys of `retries`."""

    title = "What the callers do about failures: a mode of botocore, with some of its numbers replaced."
    mode = Word("The mode whose numbers hold for what is left out.", _MODES)
    max_attempts = optional(Integer("Most attempts, with the first.", least=1, most=MAX_ATTEMPTS), _BY_MODE)
    backoff_base_s = optional(
        Number(
            "Longest wait before the first retry; that before attempt a + 1 is evenly distributed up to the lesser of "
            "base x 2^a and `backoff_cap_s`.",
            least=0.0,
        ),
        _BY_MODE,
    )
    backoff_cap_s = optional(Number("The longest wait of all.", least=0.0), _BY_MODE)
    quota = optional(Integer("Tokens of each client.", least=0, most=MAX_TOKENS), _BY_MODE)
    cost = optional(Integer("Tokens that a retry costs, if there is a quota.", least=0, most=MAX_TOKENS), _BY_MODE)
    timeout_cost = optional(Integer("The same after a time-out.", least=0, most=MAX_TOKENS), _BY_MODE)
    timeout_s = Number("After which a caller gives up.", default=TIMEOUT_S, above=0.0)
    clients = Integer(
        "Clients among whom the requests are divided at random, each with a quota.",
        default=1,
        least=1,
        most=MAX_CLIENTS,
    )
    on = WordList("The causes that are retried.", CAUSES, default=RETRIED)
    examples = ({"mode": "legacy", "timeout_s": "5s", "clients": 50},)


def retries_form() -> Schema:
    """Return the schema of `retries`."""
    return {"anyOf": [enumeration(_MODES), RetryKeys.schema()]}


def parse_retries(block: Block, key: str = "retries") -> RetryPolicy | None:
    """Return the policy that the value of a key describes; None if nothing is retried.

    That is so for mode none, whose other keys are checked but not used, and with `max_attempts` 1.

    Raises
    ------
    InputError
        When a key is unknown, or a value breaks its constraint.
    """
    value = block.need(key)
    if not isinstance(value, Mapping):
        return MODES[choice(value, block.at(key), tuple(MODES))]
    keys = RetryKeys.read(block.block(key))
    mode = MODES[keys.mode]
    if mode is None:
        return None
    policy = _replaced(mode, keys)
    return policy if policy.max_attempts > 1 else None


def retry_assumptions(policy: RetryPolicy | None, traffic: object) -> list[str]:
    """Return sentences on what was assumed about the callers in a JSON value of traffic, or is not used."""
    traffic = traffic[0] if isinstance(traffic, list) else traffic
    value = traffic.get("retries") if isinstance(traffic, Mapping) else None
    block = value if isinstance(value, Mapping) else {}
    if policy is None:
        unused = ", ".join(key for key in block if key not in ("mode", "max_attempts") and block[key] is not None)
        return [f"traffic.retries: nothing is retried; without effect: {unused}."] if unused else []
    if policy.quota is None or block.get("clients") is not None:
        return []
    return [f"traffic.retries: all requests come from one client with a quota of {policy.quota} (clients is left out)."]


def _replaced(mode: RetryPolicy, keys: RetryKeys) -> RetryPolicy:
    by_mode = ("max_attempts", "backoff_base_s", "backoff_cap_s", "quota", "cost", "timeout_cost")
    own = {key: value for key in by_mode if (value := getattr(keys, key)) is not None}
    return replace(mode, **own, timeout_s=keys.timeout_s, clients=keys.clients, on=keys.on)
