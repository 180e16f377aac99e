"""Services in tokens, against the oracle that makes every step: each token's time, preemption and count."""

import naive
import naive_events as events
import naive_tokens as tokens
import numpy as np
import pytest
from cases import scenario, service
from event_dynamics import OUTAGES, RETRIES, SCALINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from token_cases import servers

from shadowsim.engine import _event_kernel as e
from shadowsim.engine import _kernel as k
from shadowsim.engine import _prefix_kernel as p
from shadowsim.engine import _token_kernel as t
from shadowsim.engine import parallel
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns

EXAMPLES, MANY = 8, 200
GOALS = np.array([[0.5, 0.2], [2.0, 0.5]])


def scheduler_of(s):
    return t.Scheduler(
        s.max_sequences, s.max_step_tokens, s.blocks, s.block_tokens, s.base_s, s.per_prefill_token_s,
        s.per_sequence_s, s.per_kv_token_s, s.per_prefill_pair_s, s.per_prompt_s, s.before_s, s.after_s, s.chunked,
        s.abort,
    )  # fmt: skip


def lengths_of(s, column):
    parts = [part for x in (s.prompt, s.output) for part in (x.table, x.mean, np.asarray(x.by_request, float))]
    return t.Lengths(*parts, column, s.full_batch)


def names_of(s):
    """The kernel's names of a server's prefixes; None: it has no prefix cache."""
    if not s.cache_tokens:
        return None
    rows = s.prefix_hashes or [[int(group)] for group in s.prefix_by_request]
    by_request = np.full((len(rows), max(map(len, rows), default=1)), -1)
    for names, row in zip(by_request, rows, strict=True):
        names[: len(row)] = row
    each = s.hash_tokens if s.prefix_hashes else s.prefix_length
    lengths = (by_request >= 0).sum(axis=1) * each
    blocks = s.cache_tokens // s.block_tokens
    return p.PrefixNames(s.prefix_groups, s.prefix_length, by_request, lengths, each, s.block_tokens, blocks)


def with_servers(c, source, shadow, dynamics):
    """Columns of a run whose variants are in tokens where there is a server, with these dynamics."""
    made = []
    for server, column, more in zip((source, shadow), (t.SOURCE_OUTPUT, t.SHADOW_OUTPUT), dynamics, strict=True):
        if server is not None:
            more = more._replace(
                evented=True,
                scheduler=scheduler_of(server),
                lengths=lengths_of(server, column),
                prefix=names_of(server),
            )
        made.append(more)
    c = events.with_dynamics(c, *made)
    for role, server in (("source", source), ("shadow", shadow)):
        pool = getattr(c, role)
        if server is not None:
            # a trace's column tells the kernel of a plain source that its copies need the numbers of their requests
            column = next((x for x in columns_of(server) if len(x)), np.empty(0))
            column = np.ones(len(column))
            setattr(c, role, pool._replace(n_workers=1, work_s=np.asarray(column, float)))
    c.goodput_s = GOALS
    c.pool = lambda role: getattr(c, role)
    c.dynamics = lambda role: getattr(c, f"{role}_dynamics")
    return c


def columns_of(s):
    """The columns of a trace that a server has, some of them empty."""
    return s.prompt.by_request, s.output.by_request, s.prefix_by_request, s.prefix_hashes


def run(c, arrivals, chunk):
    job = parallel.Job(c, arrivals, chunk, 10**6, 0)
    return parallel.run(job, 1, None, lambda _: None)


def exact(values, expected, what):
    np.testing.assert_array_equal(np.asarray(values, float), np.asarray(expected, float), err_msg=what)


def check_sequences(sample, history):
    """Every attempt's start, first and last token, and how it ended."""
    reached = sorted(
        (a for a in history.attempts if not a.status.startswith("lost")),
        key=lambda a: (a.window, a.in_window, a.attempt),
    )
    rows = sample.rows[: int(sample.n[0])]
    rows = rows[np.lexsort((rows[:, e.S_ATTEMPT], rows[:, k.S_NUMBER], rows[:, k.S_WINDOW]))]
    sequences = [history.sequences[a.number, a.attempt] for a in reached]
    exact(rows[:, k.S_WINDOW], [a.window for a in reached], "window")
    exact(rows[:, k.S_NUMBER], [a.in_window for a in reached], "number")
    exact(rows[:, k.S_ARRIVAL], [a.arrival for a in reached], "arrival")
    exact(rows[:, k.S_INSTANCE], [a.instance for a in reached], "instance")
    exact(rows[:, e.S_PROMPT], [s.prompt for s in sequences], "prompt")
    exact(rows[:, e.S_OUTPUT], [s.output for s in sequences], "output")
    exact(rows[:, k.S_START], [a.start for a in reached], "start")
    exact(rows[:, e.S_LATENCY], [a.latency for a in reached], "latency")
    exact(rows[:, e.S_FIRST_TOKEN], [s.first_token_s for s in sequences], "first token")
    exact(rows[:, e.S_CACHED], [s.cached for s in sequences], "cached tokens")
    exact(rows[:, k.S_SERVICE], [a.service for a in reached], "service")
    names = np.array(["answered", "error_4xx", "error_5xx", "timed_out", "refused", "unavailable", "failed"])
    assert names[rows[:, e.S_STATUS].astype(int)].tolist() == [a.status for a in reached]


def check_measure(c, measure, here):
    """Sums, extremes and numbers of a time by window of the attempt's arrival, and its histogram."""
    for w in range(c.n_windows):
        values = here[w]
        row = measure.rows[w]
        assert row[k.R_REQUESTS] == len(values)
        if values:
            assert row[k.R_LATENCY_MIN] == min(values)
            assert row[k.R_LATENCY_MAX] == max(values)
            assert row[k.R_LATENCY_SUM] == pytest.approx(sum(values), rel=1e-12)
    assert measure.sections.sum() == sum(map(len, here))


def check_windows(c, side, history, server):
    rows, tally = side.tally.rows, side.token_tally
    exact(rows[:, e.R_OUTPUT_TOKENS], history.tokens_by_window, "output tokens")
    exact(rows[:, e.R_PREFILL_TOKENS], history.prefill_by_window, "prefill tokens")
    exact(rows[:, e.R_PREEMPTIONS], history.preemptions_by_window, "preemptions")
    exact(rows[:, e.R_PREFIX_QUERIED], history.queried_by_window, "queried tokens")
    exact(rows[:, e.R_PREFIX_HIT], history.hit_by_window, "tokens found")
    first, per = ([[] for _ in range(c.n_windows)] for _ in range(2))
    met = np.zeros((c.n_windows, len(GOALS)))
    for a in history.attempts:
        if a.status.startswith("lost"):
            continue
        s, w = history.sequences[a.number, a.attempt], naive.window_of(c, a.arrival)
        if not np.isnan(s.first_token_s):
            first[w].append(s.first_token_s)
        if not np.isnan(s.per_token_s):
            per[w].append(s.per_token_s)
        met[w] += [s.is_good(*goal) for goal in GOALS]
    check_measure(c, tally.first_token, first)
    check_measure(c, tally.per_token, per)
    exact(tally.met[:-1], met, "goals")
    for w in range(c.n_windows):
        sampled = history.batches_sampled.get(w, [])
        running, used = [n for n, _ in sampled], [u / server.blocks for _, u in sampled]
        assert rows[w, e.R_SAMPLES] == len(sampled)
        assert rows[w, e.R_RUNNING] == sum(running)
        assert rows[w, e.R_RUNNING_MAX] == max(running, default=0)
        assert rows[w, e.R_CACHE] == pytest.approx(sum(used), rel=1e-12)
        assert rows[w, e.R_CACHE_MAX] == max(used, default=0)
        # no worker is busy for longer than the window
        assert rows[w, e.R_BUSY_S] == pytest.approx(history.busy_s[w], abs=1e-9)


def check(c, arrivals, chunk, source, shadow):
    histories = tokens.simulate(c, arrivals, source, shadow)[:2]
    counts = run(c, arrivals, chunk)
    for name, sample, server, history in zip(
        ("source", "shadow"), counts.samples, (source, shadow), histories, strict=True
    ):
        if server is not None:
            check_sequences(sample, history)
            check_windows(c, counts.evented[name], history, server)
    return histories


@st.composite
def runs(draw, shared):
    """Columns, arrivals and servers of a run with everything on, and prefix caches if `shared`."""
    in_tokens = servers(shared)
    source = draw(st.one_of(in_tokens, in_tokens, st.none()))
    shadow = draw(in_tokens) if source is None else draw(st.one_of(in_tokens, st.none()))
    # only arrivals that are numbered through the run have columns of a trace
    most = max(len(x) for s in (source, shadow) if s is not None for x in columns_of(s))
    process = "constant" if most > 1 else draw(st.sampled_from(["poisson", "constant"]))
    rate = draw(st.sampled_from([0.3, 1.0, 3.0]))
    traffic = {"process": process, "rate_per_s": rate}
    s = scenario(
        traffic, service(), source_instances=draw(st.sampled_from([1, 2, 3])),
        shadow_instances=draw(st.sampled_from([1, 2])), share=draw(st.sampled_from([30, 100])),
        horizon_s=draw(st.sampled_from([65.0, 130.0])), period_s=draw(st.sampled_from([7.0, 60.0])),
        seed=draw(st.integers(0, 2**32)),
        endpoint={"timeout_s": draw(st.sampled_from([2.0, 10.0, 60.0])),
                  "routing": draw(st.sampled_from(["RANDOM", "LEAST_OUTSTANDING_REQUESTS"]))},
        mirror={"instant": draw(st.sampled_from(["arrival", "response"])),
                "max_in_flight": draw(st.sampled_from([None, None, 5]))},
    )  # fmt: skip
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    limit = draw(st.sampled_from([-1, -1, 0, 3]))
    error = draw(st.sampled_from([0.0, 0.2]))
    for role in ("source", "shadow"):
        object.__setattr__(c, role, getattr(c, role)._replace(queue_limit=limit, error_5xx=error))
    dynamics = [
        events.dynamics(
            scaling=draw(SCALINGS),
            outages=draw(OUTAGES),
            retries=draw(RETRIES) if role == "source" else events.NO_RETRIES,
        )
        for role in ("source", "shadow")
    ]
    return with_servers(c, source, shadow, dynamics), arrivals, draw(st.sampled_from([1, 7, 4096])), source, shadow


@settings(max_examples=EXAMPLES)
@given(runs(shared=False))
def test_every_token_comes_when_the_oracle_says(case):
    check(*case[:3], *case[3:])


@pytest.mark.slow  # to compile
@settings(max_examples=EXAMPLES)
@given(runs(shared=True))
def test_every_token_comes_when_the_oracle_says_with_prefix_caches(case):
    check(*case[:3], *case[3:])


@pytest.mark.slow
@settings(max_examples=MANY)
@given(runs(shared=True))
def test_every_token_comes_when_the_oracle_says_in_many_more_runs(case):
    check(*case[:3], *case[3:])
