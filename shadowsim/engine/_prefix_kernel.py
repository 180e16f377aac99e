"""Keeps the blocks that prompts begin with in each engine's prefix cache.

A block is known by a name and its place in the prompt. The name is the group of its request, or the hash of a trace
that covers its last token: such a hash stands for all tokens up to its end, so that one name never follows two
beginnings. A cache forgets the block that was used longest ago. Of one prompt's blocks the first is used last, for
without it no later one can be found.

Each engine has a hash table with chains, and a list of its blocks in order of use. Element 0 of the list is its end in
both directions, and blocks are numbered from 1 on, so that arrays of zeros are empty caches, and take no memory until
blocks are remembered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shadowsim.engine import _kernel
from shadowsim.engine._kernel import GOLDEN, Int32s, Ints, inline, inner, key, mix, watch

PREFIX = 27  # the column of draws of groups, for both variants
HIGH = np.uint64(32)


class PrefixNames(NamedTuple):
    """How the blocks of prompts are named, and how many an engine remembers.

    Groups are drawn evenly from `groups`, and the first `length` tokens of a prompt are those of its group; or
    `by_request` (rows, hashes) holds a trace's names: the j-th is that of the blocks which end in tokens
    [j, j + 1) `name_tokens`, and the first `length_by_request` (rows,) tokens have names.
    """

    groups: int
    length: int
    by_request: Ints
    length_by_request: Ints
    name_tokens: int
    block_tokens: int
    most_blocks: int


# ---- Columns of `Prefixes.of_node`: a request's group, or its row in the trace; its cached tokens, -1: not known ----
P_GROUP, P_CACHED = 0, 1


class Prefixes(NamedTuple):
    """The prefix caches of a pool; updated in place.

    `of_node` (nodes, 2). `n_blocks` (slots,): blocks in a cache. By slot and block, (slots, room + 1): `name` and
    `place`; `newer` and `older`, the blocks that were used after and before it; `chain`, the next in its bucket.
    `bucket` (slots, buckets): the first block, 0: none; their number is a power of two. `known` is scratch for the
    blocks of one prompt.
    """

    names: PrefixNames
    of_node: Ints
    n_blocks: Ints
    name: Ints
    place: Int32s
    newer: Int32s
    older: Int32s
    chain: Int32s
    bucket: Int32s
    known: Int32s


@inner
def name_prefix(x: int, window: int, offset: np.uint64, request: int, seed: np.uint64, prefixes: Prefixes) -> None:
    """Draw the group of a request, or find its row in the trace."""
    names = prefixes.names
    if names.by_request.size:
        group = np.int64(request % names.by_request.shape[0])
    else:
        group = np.int64(((mix(key(seed, PREFIX, window) + offset) >> HIGH) * np.uint64(names.groups)) >> HIGH)
    prefixes.of_node[x, P_GROUP], prefixes.of_node[x, P_CACHED] = group, -1


@inline
def _named_blocks(x: int, prompt: int, prefixes: Prefixes) -> int:
    """Return how many whole blocks of a prompt have a name."""
    names, group = prefixes.names, prefixes.of_node[x, P_GROUP]
    length = names.length_by_request[group] if names.by_request.size else names.length
    return min(length, prompt) // names.block_tokens


@inline
def _name_of(group: int, n: int, block_tokens: int, name_tokens: int, by_request: Ints) -> int:
    """Return the name of block n, counted from 0, of a request."""
    name = group
    if by_request.size:
        j = np.int64(0)
        if by_request.shape[1] > 1:
            j = ((n + 1) * block_tokens - 1) // name_tokens
        name = by_request[group, j]
    return name


@inline
def _bucket_of(name: int, n: int, buckets: int) -> np.uint64:
    return mix(np.uint64(name) + GOLDEN * np.uint64(n + 1)) & np.uint64(buckets - 1)


@inline
def _find(
    i: int, name: int, n: int, at_bucket: np.uint64, names: Ints, place: Int32s, chain: Int32s, bucket: Int32s
) -> int:  # fmt: skip
    """Return the block with a name and place in an engine's cache; 0: it is not there."""
    at = np.int64(bucket[i, at_bucket])
    while at > 0 and (names[i, at] != name or place[i, at] != n):
        at = np.int64(chain[i, at])
    return at


@inline
def _use(i: int, at: int, newer: Int32s, older: Int32s) -> None:
    """Let a block that is in no list be the one that was used last."""
    last = older[i, 0]
    older[i, at], newer[i, at] = last, 0
    newer[i, last] = at
    older[i, 0] = at


@inline
def _unlist(i: int, at: int, newer: Int32s, older: Int32s) -> None:
    newer[i, older[i, at]] = newer[i, at]
    older[i, newer[i, at]] = older[i, at]


@inner
def known_blocks(x: int, i: int, prompt: int, prefixes: Prefixes) -> int:
    """Return how many of a prompt's first blocks an engine knows; they are `known`."""
    _, of_node, _, stored, place, _, _, chain, bucket, known = prefixes
    by_request, name_tokens, b = prefixes.names.by_request, prefixes.names.name_tokens, prefixes.names.block_tokens
    group, named, n = of_node[x, P_GROUP], _named_blocks(x, prompt, prefixes), np.int64(0)
    at = np.int64(1)
    while n < named and at > 0:
        name = _name_of(group, n, b, name_tokens, by_request)
        at = _find(i, name, n, _bucket_of(name, n, bucket.shape[1]), stored, place, chain, bucket)
        if at > 0:
            known[n] = np.int32(at)
            n += 1
    return n


@inner
def use_known(x: int, i: int, n: int, hit: int, prefixes: Prefixes) -> None:
    """Use the first n blocks of a prompt, which are `known`; note the tokens that this saved, the first time."""
    newer, older, known = prefixes.newer, prefixes.older, prefixes.known
    for j in range(n - 1, -1, -1):
        at = np.int64(known[j])
        _unlist(i, at, newer, older)
        _use(i, at, newer, older)
    if prefixes.of_node[x, P_CACHED] < 0:
        prefixes.of_node[x, P_CACHED] = hit


@inner
def remember(x: int, i: int, prompt: int, prefixes: Prefixes) -> None:
    """Let an engine remember the blocks of a prompt that has been computed."""
    _, of_node, n_blocks, stored, place, newer, older, chain, bucket, _ = prefixes
    by_request, name_tokens, b = prefixes.names.by_request, prefixes.names.name_tokens, prefixes.names.block_tokens
    group, named, room = of_node[x, P_GROUP], _named_blocks(x, prompt, prefixes), stored.shape[1] - 1
    for n in range(named - 1, -1, -1):
        name = _name_of(group, n, b, name_tokens, by_request)
        at_bucket = _bucket_of(name, n, bucket.shape[1])
        at = _find(i, name, n, at_bucket, stored, place, chain, bucket)
        if at > 0:
            _unlist(i, at, newer, older)
        else:
            if n_blocks[i] < room:
                n_blocks[i] += 1
                at = n_blocks[i]
            else:
                at = np.int64(newer[i, 0])
                _unlist(i, at, newer, older)
                old = _bucket_of(stored[i, at], np.int64(place[i, at]), bucket.shape[1])
                before = np.int64(bucket[i, old])
                if before == at:
                    bucket[i, old] = chain[i, at]
                else:
                    while chain[i, before] != at:
                        before = np.int64(chain[i, before])
                    chain[i, before] = chain[i, at]
            stored[i, at], place[i, at] = name, np.int32(n)
            chain[i, at] = bucket[i, at_bucket]
            bucket[i, at_bucket] = np.int32(at)
        _use(i, at, newer, older)


@inner
def forget(i: int, prefixes: Prefixes) -> None:
    """Empty the cache of an engine."""
    _, _, n_blocks, stored, place, newer, older, _, bucket, _ = prefixes
    for at in range(1, n_blocks[i] + 1):
        bucket[i, _bucket_of(stored[i, at], np.int64(place[i, at]), bucket.shape[1])] = 0
    n_blocks[i], newer[i, 0], older[i, 0] = 0, 0, 0


watch(__name__, _kernel)
