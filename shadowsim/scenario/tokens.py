"""Reads language models that batch continuously: requests in tokens, and the time of a step.

`tokens` in a service, in place of `time`, gives each instance a continuous batcher, as vLLM has it. It works in steps.
In a step each running sequence produces a token, or works on its prompt; between steps sequences join and leave. The
keys and values of all tokens so far are kept in a cache of blocks. Where it is full, the sequence that was admitted
last gives its blocks back and is computed again later::

    "tokens": {"prompt": "ContextTokens", "output": {"law": "gamma", "mean_tokens": 200, "scv": 1},
               "max_sequences": 256, "max_step_tokens": 8192, "kv_tokens": 400000,
               "step": {"base_s": "12ms", "per_prefill_token_s": "0.03ms", "per_sequence_s": "0.1ms"}}

===============  ======================================================================================================
prompt, output   tokens per request: a number, a law (its keys end in `_tokens`), or a column of the trace. Draws are
                 rounded to whole numbers, at least 1
max_sequences    most running sequences of an instance
max_step_tokens  most tokens of a step: one per sequence that decodes, and those of prompts; at least `max_sequences`
kv_tokens        tokens that an instance's cache holds, in blocks of `block_tokens` (16 if left out)
step             seconds of a step, see below, or the name of a preset, as `shadowsim step-model --presets` lists them
before_s         from a request's arrival until it waits for its admission; if left out the preset's, or 0
after_s          from its last token to its answer; 0 if left out
chunked          whether a prompt may be divided among steps; true if left out
on_timeout       what becomes of a request whose time is out: `finish` (if left out), or `abort` at the end of the step
prefix           the beginnings that prompts share, see below
===============  ======================================================================================================

A step with P tokens of m prompts and n sequences, of which those that decode have K tokens so far, lasts `base_s` +
`per_prefill_token_s` P + `per_sequence_s` n + `per_kv_token_s` K + `per_prefill_pair_s` Q + `per_prompt_s` m. Q is the
sum over prompts of (tokens done after the step)² - (those done before it), since each token attends to all before.
Terms that are left out are 0, but for `base_s`.

`prefix` {`length`, `groups` or `session`, `cache_tokens`}: the first `length` tokens of a prompt are the same for all
requests of a group; an instance remembers `cache_tokens` of such tokens, and computes them no second time while they
are there. Groups are drawn evenly from `groups`, or numbered by the trace's column `session`. `prefix` {`hashes`,
`hash_tokens`, `cache_tokens`} takes what prompts share from a trace instead: from columns that hold a hash for each
`hash_tokens` tokens of a prompt, or one column with lists of them. Two prompts with one hash are the same up to its
end. Tokens after the last hash are taken to be shared by nobody. The cache holds whole blocks, those that were used
last; an instance that starts or is repaired has none::

    "prefix": {"hashes": "hash_ids", "hash_tokens": 512, "cache_tokens": 1000000}

`run.goodput` lists pairs of limits, for the time to the first token and the time per token after it. A request that
is answered within both is counted::

    "run": {"goodput": [{"ttft_s": "500ms", "tpot_s": "50ms"}]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import Collector, InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import (
    Alternatives,
    Flag,
    Integer,
    Keys,
    Number,
    Parsed,
    Schema,
    Text,
    Word,
    alone,
    given,
    object_form,
    optional,
)
from shadowsim.scenario.laws import Law, law_form, parse_law
from shadowsim.scenario.step_models import STEP_KEYS, StepPreset, preset, presets
from shadowsim.scenario.traces import Trace

_NAMED_BY = ("groups", "session", "hashes")
ON_TIMEOUT = {"finish": "it is served to its end", "abort": "it leaves at the end of the step"}
BLOCK_TOKENS = 16
MOST_SEQUENCES = MOST_BLOCK_TOKENS = 65_536
MOST_TOKENS = 2**26  # of a cache or a step: the tokens read in a segment of steps, at most its square, are below 2**53
MOST_GROUPS = 2**31 - 1
MOST_GOODPUT = 8  # as many as frames.py has columns for
LEAST_STEP_S = 1e-6  # so that the end of a step differs from its start, also after thousands of years


@dataclass(frozen=True, slots=True)
class StepModel:
    """Seconds of a step: a constant, and coefficients as the module describes them.

    Attributes
    ----------
    base_s : float
        What every step takes.
    per_prefill_token_s : float
        For each token of prompts that is computed.
    per_sequence_s : float
        For each running sequence.
    per_kv_token_s : float
        For each token in the cache of the sequences that decode.
    per_prefill_pair_s : float
        For each difference of squares of a prompt's tokens after and before the step.
    per_prompt_s : float
        For each prompt that is worked on, as where a server computes prompts apart from what decodes.
    """

    base_s: float
    per_prefill_token_s: float = 0.0
    per_sequence_s: float = 0.0
    per_kv_token_s: float = 0.0
    per_prefill_pair_s: float = 0.0
    per_prompt_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginnings that prompts share.

    Attributes
    ----------
    length : int
        Tokens at the beginning of a prompt that are the same within a group; 0 with `hashes`.
    cache_tokens : int
        Tokens that an instance remembers, apart from those of its running sequences.
    groups : int or None
        Number of groups, each request belonging to any of them with equal probability; None with the others.
    session : str or None
        The trace's column with the groups' numbers.
    hashes : tuple of str
        The trace's columns with hashes of beginnings, or one with lists of them.
    hash_tokens : int
        Tokens by which a beginning is longer than that of the hash before it.
    """

    length: int
    cache_tokens: int
    groups: int | None = None
    session: str | None = None
    hashes: tuple[str, ...] = ()
    hash_tokens: int = 0

    @property
    def name_tokens(self) -> int:
        """Tokens for each of which `prefix_names` has a name."""
        return self.hash_tokens or self.length


@dataclass(frozen=True, slots=True)
class Goodput:
    """Limits within which a request counts as good: to the first token, and per token after it."""

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """The continuous batcher of each instance of a variant.

    Attributes
    ----------
    prompt, output : Law
        Tokens of a request's prompt and answer.
    max_sequences, max_step_tokens : int
        Most running sequences, and most tokens of a step.
    kv_tokens, block_tokens : int
        Tokens in an instance's cache and in one of its blocks.
    step : StepModel
    before_s, after_s : float
        From arrival to the instance's queue, and from the last token to the answer.
    chunked : bool
        Whether a prompt may be divided among steps.
    on_timeout : str or None
        "finish" or "abort"; None if left out, which counts as "finish".
    prefix : Prefix or None
        None for prompts that have nothing in common.
    preset : StepPreset or None
        Where `step` comes from, if the scenario names one.
    path : str
        Where it stands in the scenario, for errors.
    """

    prompt: Law
    output: Law
    max_sequences: int
    max_step_tokens: int
    kv_tokens: int
    step: StepModel
    block_tokens: int = BLOCK_TOKENS
    before_s: float = 0.0
    after_s: float = 0.0
    chunked: bool = True
    on_timeout: str | None = None
    prefix: Prefix | None = None
    preset: StepPreset | None = None
    path: str = field(default="tokens", compare=False)

    @property
    def blocks(self) -> int:
        """Whole blocks in an instance's cache."""
        return self.kv_tokens // self.block_tokens

    @property
    def follows_trace(self) -> bool:
        """Whether lengths of prompts or answers come from columns of a trace."""
        return "linear" in (self.prompt.kind, self.output.kind)

    def fits(self, prompt: int, output: int) -> bool:
        """Whether an instance can serve a request of so many tokens; its last token is never in the cache."""
        tokens = prompt + output - 1
        return -(-tokens // self.block_tokens) <= self.blocks and (self.chunked or tokens <= self.max_step_tokens)


def parse_tokens(block: Block, base_dir: Path | None = None) -> Tokens:
    """Return the batcher that a JSON object describes.

    Raises
    ------
    InputError
        When a key is unknown, or a value breaks its constraint.
    """
    keys = TokenKeys.read(block, base_dir)
    errors = Collector()
    with errors:
        if keys.prefix is not None:
            block.block("prefix").integer("cache_tokens", least=keys.block_tokens, most=MOST_TOKENS)
    with errors:
        if keys.max_step_tokens < keys.max_sequences:
            constraint = f"must be at least `max_sequences`, which is {keys.max_sequences}, a token for each"
            raise InputError(block.at("max_step_tokens"), constraint, keys.max_step_tokens)
    errors.check()
    step, named = keys.step
    return Tokens(
        prompt=keys.prompt,
        output=keys.output,
        max_sequences=keys.max_sequences,
        max_step_tokens=keys.max_step_tokens,
        kv_tokens=keys.kv_tokens,
        step=step,
        block_tokens=keys.block_tokens,
        before_s=(named.before_s if named and keys.before_s is None else keys.before_s) or 0.0,
        after_s=keys.after_s,
        chunked=keys.chunked,
        on_timeout=keys.on_timeout,
        prefix=keys.prefix,
        preset=named,
        path=block.path,
    )


def parse_step(value: object, path: str) -> StepModel:
    """Return the step model that a JSON object describes."""
    keys = StepTimeKeys.read(Block.of(value, path))
    model = StepModel(**{key: getattr(keys, key) for key in STEP_KEYS})
    least_s = model.base_s + model.per_sequence_s
    if least_s < LEAST_STEP_S:
        constraint = f"must have base_s + per_sequence_s >= {LEAST_STEP_S:g}, since each step takes time"
        raise InputError(path, constraint, least_s)
    return model


def read_goodput(run: Block) -> tuple[Goodput, ...]:
    """Return the pairs of limits in `run.goodput`."""
    if not run.has("goodput"):
        return ()
    errors, pairs = Collector(), list[Goodput]()
    for block in run.items("goodput"):
        with errors:
            pairs.append(_goodput(block))
            if pairs[-1] in pairs[:-1]:
                raise InputError(block.path, "must differ from the pairs before it", dict(block.values))
    errors.check()
    if len(pairs) > MOST_GOODPUT:
        raise InputError(run.at("goodput"), f"must list at most {MOST_GOODPUT} pairs", len(pairs))
    return tuple(pairs)


def check_tokens(tokens: Tokens, trace: Trace | None) -> None:
    """Raise `InputError` for columns of a trace that hold no numbers of tokens, or more than an instance can serve."""
    prompt = token_lengths(tokens, "prompt", trace)
    output = token_lengths(tokens, "output", trace)
    prefix_names(tokens, trace)
    # Of lengths that are drawn, what is known is that they are at least 1.
    inputs, outputs = np.broadcast_arrays(prompt if prompt.size else 1.0, output if output.size else 1.0)
    needed = inputs + outputs - 1.0
    blocks = np.ceil(needed / tokens.block_tokens)
    for key, fails in (
        ("kv_tokens", blocks > tokens.blocks),
        ("max_step_tokens", (needed > tokens.max_step_tokens) & (not tokens.chunked)),
    ):
        if fails.any():
            i = int(np.argmax(fails))
            whose = "a request"
            if trace is not None and tokens.follows_trace:
                whose = f"the request in {trace.place(i)}"
            room = "in whole blocks" if key == "kv_tokens" else "in one step, since `chunked` is false"
            constraint = f"must hold all tokens of {whose} but the last, {needed.flat[i]:,.0f}, {room}"
            raise InputError(f"{tokens.path}.{key}", constraint, getattr(tokens, key))


def token_lengths(tokens: Tokens, key: str, trace: Trace | None) -> Floats:
    """Return the whole numbers of tokens by row of the trace, or one number for all; empty where they are drawn.

    Raises
    ------
    InputError
        When a row has less than one token, or a column that is used as it is has a broken number.
    """
    law: Law = getattr(tokens, key)
    path = f"{tokens.path}.{key}"
    if law.kind == "deterministic":
        return np.array([np.floor(law.mean + 0.5)])
    if law.kind != "linear":
        return np.empty(0)
    if trace is None:
        raise InputError(path, "needs trace traffic for a law of trace columns", law.block)
    values = law.values(trace.columns)
    lengths: Floats = np.floor(values + 0.5)
    bad = ~(lengths >= 1.0) | ~(lengths <= MOST_TOKENS)
    if isinstance(law.block, str):
        bad |= lengths != values
    if bad.any():
        i = int(np.argmax(bad))
        constraint = f"must give whole numbers of tokens from 1 to {MOST_TOKENS}, which fails in {trace.place(i)}"
        raise InputError(path, constraint, float(values[i]))
    return lengths


def prefix_names(tokens: Tokens, trace: Trace | None) -> Ints:
    """Return the names of prompts' beginnings by row of the trace, one for each `name_tokens` tokens; -1: none.

    Shape (rows, names); empty where groups are drawn, or nothing is shared.

    Raises
    ------
    InputError
        When the trace or a column is missing, or a column holds something else than whole numbers.
    """
    prefix = tokens.prefix
    if prefix is None or prefix.groups is not None:
        return np.empty((0, 1), np.int64)
    columns = prefix.hashes if prefix.session is None else (prefix.session,)
    path = f"{tokens.path}.prefix.{'hashes' if prefix.session is None else 'session'}"
    if trace is None:
        raise InputError(path, "needs trace traffic for a column", columns[0] if len(columns) == 1 else list(columns))
    if prefix.session is None and len(columns) == 1 and columns[0] in trace.lists:
        return trace.lists[columns[0]]
    return np.stack([trace.whole_numbers(name, path).astype(np.int64) for name in columns], axis=1)


def mean_work_s(tokens: Tokens, columns: Mapping[str, Floats]) -> float:
    """Return the mean time of an instance per request, in seconds, while its batch is full.

    A request of P and o tokens takes p P + q P² + r to prefill. Its o tokens take o (base / B + s) + c (o P +
    o (o - 1) / 2) with B sequences in each step: as many as `max_sequences` and the cache allow at the mean number of
    tokens that a sequence has in it. Roundings of drawn lengths and hits of the prefix cache are left out.
    """
    step = tokens.step
    p, pp, o, read = _moments(tokens, columns)
    prefill_s = step.per_prefill_token_s * p + step.per_prefill_pair_s * pp + step.per_prompt_s
    each_s = step.base_s / full_batch(tokens, columns) + step.per_sequence_s
    return prefill_s + (o * each_s + step.per_kv_token_s * read)


def full_batch(tokens: Tokens, columns: Mapping[str, Floats]) -> float:
    """Return the number B of sequences that run while all that can run do, as for `mean_work_s`; at least 1."""
    _, _, o, read = _moments(tokens, columns)
    return max(1.0, min(float(tokens.max_sequences), tokens.kv_tokens / (read / o)))


def _moments(tokens: Tokens, columns: Mapping[str, Floats]) -> tuple[float, float, float, float]:
    """Return means of a request's prompt tokens, their square, its output tokens, and the tokens read for these."""
    prompt, output = (law.values(columns) if law.kind == "linear" else None for law in (tokens.prompt, tokens.output))
    p, pp = _two_moments(tokens.prompt, prompt)
    o, oo = _two_moments(tokens.output, output)
    op = float((output * prompt).mean()) if prompt is not None and output is not None else o * p
    return p, pp, o, op + (oo - o) / 2.0


def _two_moments(law: Law, values: Floats | None) -> tuple[float, float]:
    if values is not None:
        return float(values.mean()), float((values * values).mean())
    return law.mean, law.mean**2 * (1.0 + law.scv)


def _length(block: Block, key: str, base_dir: Path) -> Law:
    law = parse_law(block.need(key), block.at(key), "tokens", base_dir)
    if law.mean < 1.0:
        raise InputError(block.at(key), "must have a mean of at least 1 token", law.mean)
    return law


def _whole_blocks(block: Block, key: str) -> int:
    least = block.integer("block_tokens", BLOCK_TOKENS, least=1, most=MOST_BLOCK_TOKENS)
    return block.integer(key, least=least, most=MOST_TOKENS)


def _step(block: Block, key: str, base_dir: Path) -> tuple[StepModel, StepPreset | None]:
    value, named = block.need(key), None
    if isinstance(value, str):
        named = preset(value, block.at(key))
    return parse_step(value if named is None else named.step, block.at(key)), named


def _step_form() -> Schema:
    return {"anyOf": [{"enum": list(presets())}, StepTimeKeys.schema()]}


def _prefix(block: Block, key: str, base_dir: Path) -> Prefix:
    inside = block.block(key)
    named = {name: inside.values[name] for name in _NAMED_BY if inside.has(name)}
    unit, other = ("hash_tokens", "length") if "hashes" in named else ("length", "hash_tokens")
    errors = Collector()
    with errors:
        PrefixKeys.rules[0].check(inside)
    with errors:
        if inside.has(other):
            raise InputError(inside.at(other), f"must be left out with `{', '.join(named)}`", inside.values[other])
    with errors:
        inside.need(unit)
    with errors:
        keys = PrefixKeys.read(inside)
    errors.check()
    if keys.hashes is not None:
        return Prefix(0, keys.cache_tokens, hashes=keys.hashes, hash_tokens=keys.hash_tokens or 0)
    return Prefix(keys.length or 0, keys.cache_tokens, keys.groups, keys.session)


def _hashes(block: Block, key: str, base_dir: Path) -> tuple[str, ...]:
    value = block.values[key]
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names) or len({*names}) < len(names):
        constraint = "must be the name of a column of the trace, or a list of such names, each once"
        raise InputError(block.at(key), constraint, value)
    return tuple(names)


def _hashes_form() -> Schema:
    name = {"type": "string", "minLength": 1}
    return {"anyOf": [name, {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}]}


class StepTimeKeys(Keys):
    """Keys of `step`."""

    title = (
        "Seconds of a step with P tokens of prompts and n sequences, of which those that decode have K tokens so far: "
        "base_s + per_prefill_token_s P + per_sequence_s n + per_kv_token_s K + per_prefill_pair_s Q + "
        "per_prompt_s m, where m is the number of prompts of which it computes tokens, and Q the "
        "sum over prompts of (tokens done after the step)² - (those done before it). base_s + per_sequence_s is at "
        f"least {LEAST_STEP_S:g}."
    )
    base_s = Number("What every step takes.", least=0.0)
    per_prefill_token_s = Number("For each token of prompts.", default=0.0, least=0.0)
    per_sequence_s = Number("For each running sequence.", default=0.0, least=0.0)
    per_kv_token_s = Number("For each token in the cache of the sequences that decode.", default=0.0, least=0.0)
    per_prefill_pair_s = Number("For each unit of Q: each token attends to all before.", default=0.0, least=0.0)
    per_prompt_s = Number("For each prompt of which tokens are computed in the step.", default=0.0, least=0.0)
    examples = ({"base_s": "12ms", "per_prefill_token_s": "0.03ms", "per_sequence_s": "0.1ms"},)


class PrefixKeys(Keys):
    """Keys of `prefix`."""

    title = "The beginnings that prompts share, which an instance's cache remembers."
    length = optional(
        Integer("The first tokens of a prompt that are the same in a group.", least=1, most=MOST_TOKENS),
        "required with `groups` or `session`",
    )
    groups = optional(Integer("How many groups, from which each request draws evenly.", least=1, most=MOST_GROUPS))
    session = optional(Text("Or the trace's column with the groups' numbers."))
    hashes = optional(
        Parsed("Or the trace's columns with hashes of beginnings, or one with lists of them.", _hashes, _hashes_form)
    )
    hash_tokens = optional(Integer("Tokens for each hash.", least=1, most=MOST_TOKENS), "required with `hashes`")
    cache_tokens = Integer("Tokens that an instance remembers, at least those of a block.", least=1, most=MOST_TOKENS)
    rules = (Alternatives(_NAMED_BY, 1, 1, "needs one of `groups`, `session` and `hashes`"),)
    examples = (
        {"length": 400, "groups": 50, "cache_tokens": 100_000},
        {"hashes": "hash_ids", "hash_tokens": 512, "cache_tokens": 1_000_000},
    )

    @classmethod
    def schema(cls, tag: Mapping[str, Schema] | None = None, null: Iterable[str] = ()) -> Schema:
        """Return its schema; the unit follows what names the beginnings."""
        own = super().schema(tag, null)
        by_hash = {"if": given("hashes"), "then": alone("hash_tokens", ("length", "hash_tokens"))}
        return own | {"allOf": [*own["allOf"], {**by_hash, "else": alone("length", ("length", "hash_tokens"))}]}


class TokenKeys(Keys):
    """Keys of `tokens`."""

    title = "A continuous batcher, as in vLLM: a language model's server, in place of `time`."
    prompt = Parsed(
        "Tokens of a request's prompt: a number, a law, or a column of the trace; draws are rounded, at least 1.",
        _length,
        law_form("tokens"),
    )
    output = Parsed("Tokens of its answer, likewise.", _length, law_form("tokens"))
    max_sequences = Integer("Most running sequences of an instance.", least=1, most=MOST_SEQUENCES)
    max_step_tokens = Integer(
        "Most tokens of a step: one for each sequence that decodes, and those of prompts; at least `max_sequences`.",
        least=1,
        most=MOST_TOKENS,
    )
    kv_tokens = Parsed(
        "Tokens that an instance's cache holds; at least those of a block, and of any request.",
        lambda block, key, base_dir: _whole_blocks(block, key),
        lambda: {"type": "integer", "minimum": 1, "maximum": MOST_TOKENS},
    )
    block_tokens = Integer("Tokens of a block of the cache.", default=BLOCK_TOKENS, least=1, most=MOST_BLOCK_TOKENS)
    step = Parsed("Seconds of a step, or the name of a preset (`shadowsim step-model --presets`).", _step, _step_form)
    before_s = optional(
        Number("From a request's arrival until it waits for its admission.", least=0.0), "the preset's, or 0"
    )
    after_s = Number("From its last token to its answer.", default=0.0, least=0.0)
    chunked = Flag("Whether a prompt may be divided among steps.", True)
    on_timeout = optional(Word("What becomes of a request whose time is out.", ON_TIMEOUT), "finish")
    prefix = optional(
        Parsed("The beginnings that prompts share.", _prefix, object_form(PrefixKeys)), "nothing is shared"
    )
    examples = (
        {
            "prompt": 500,
            "output": {"law": "gamma", "mean_tokens": 200, "scv": 1},
            "max_sequences": 256,
            "max_step_tokens": 8192,
            "kv_tokens": 400_000,
            "step": {"base_s": "12ms", "per_prefill_token_s": "0.03ms"},
        },
    )


class GoodputKeys(Keys):
    """Keys of a pair of limits."""

    title = "A request that is answered within both counts as good."
    ttft_s = Number("Longest time to the first token.", above=0.0)
    tpot_s = Number("Longest time per token after it.", above=0.0)
    examples = ({"ttft_s": "500ms", "tpot_s": "50ms"},)


def _goodput(block: Block) -> Goodput:
    keys = GoodputKeys.read(block)
    return Goodput(keys.ttft_s, keys.tpot_s)
