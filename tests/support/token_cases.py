"""Servers of tokens, by hand and by hypothesis, for several test modules."""

import numpy as np
from hypothesis import strategies as st
from naive_tokens import Lengths, Server

from shadowsim.engine.law_tables import law_table
from shadowsim.scenario.laws import parse_law


def listed(*lengths):
    return Lengths(by_request=np.array(lengths, float))


def drawn(mean, law="exponential", **more):
    """Lengths of a law."""
    parsed = parse_law({"law": law, "mean_tokens": mean} | more, "tokens", "tokens")
    return Lengths(law_table(parsed), parsed.mean)


def server(prompt, output, *, sequences=8, step_tokens=2**20, kv_tokens=2**20, block=4, base=1.0, p=0.0, s=0.0, c=0.0,
           q=0.0, r=0.0, **more):  # fmt: skip
    return Server(prompt, output, sequences, step_tokens, kv_tokens, block, base, p, s, c, q, r, **more)


@st.composite
def lengths(draw, longest):
    if draw(st.booleans()):
        return listed(*draw(st.lists(st.integers(1, longest), min_size=1, max_size=5)))
    return drawn(draw(st.sampled_from([2.0, longest / 2])), "uniform", scv=0.3)  # at most twice the mean


@st.composite
def prefixes(draw, block):
    """What prompts share: drawn groups, groups by request, or hashes; caches from one block on."""
    blocks = draw(st.sampled_from([1, 2, 3, 5, 9, 1000]))
    named = {"cache_tokens": blocks * block + draw(st.integers(0, block - 1))}
    kind = draw(st.sampled_from(["drawn", "groups", "hashes"]))
    if kind == "hashes":
        rows = draw(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=5))
        return named | {"prefix_hashes": rows, "hash_tokens": draw(st.sampled_from([1, 4, 7]))}
    named |= {"prefix_length": draw(st.sampled_from([1, 8, 30]))}
    if kind == "drawn":
        return named | {"prefix_groups": draw(st.integers(1, 4))}
    return named | {"prefix_by_request": np.array(draw(st.lists(st.integers(0, 3), min_size=1, max_size=5)), float)}


@st.composite
def servers(draw, shared=True):
    """Servers with tight caches and budgets, which serve every request of the lengths that they get.

    Some have a prefix cache, unless `shared` is false.
    """
    longest = draw(st.sampled_from([12, 12, 40]))
    prompt, output = draw(lengths(longest)), draw(lengths(longest))
    block = draw(st.sampled_from([1, 3, 4, 16]))
    least_blocks = -(-(2 * longest - 1) // block)
    sequences = draw(st.sampled_from([1, 3, 5, 9]))
    chunked = draw(st.sampled_from([True, True, False]))
    step_tokens = sequences + draw(st.sampled_from([0, 3, 50])) if chunked else draw(st.sampled_from([79, 100]))
    return server(
        prompt,
        output,
        sequences=sequences,
        step_tokens=step_tokens,
        kv_tokens=block * (least_blocks + draw(st.sampled_from([0, 0, 1, 3, 50]))) + draw(st.integers(0, block - 1)),
        block=block,
        base=draw(st.sampled_from([0.01, 0.1, 0.4])),
        p=draw(st.sampled_from([0.0, 0.01, 0.0625])),
        s=draw(st.sampled_from([0.0, 0.03, 0.1])),
        c=draw(st.sampled_from([0.0, 0.001])),
        q=draw(st.sampled_from([0.0, 0.0005])),
        r=draw(st.sampled_from([0.0, 0.02])),
        before_s=draw(st.sampled_from([0.0, 0.0, 0.25])),
        after_s=draw(st.sampled_from([0.0, 0.0, 0.1])),
        chunked=chunked,
        abort=draw(st.booleans()),
        **draw(st.one_of(st.just({}), prefixes(block)) if shared else st.just({})),
    )
