"""The oracle of services in tokens: against examples worked by hand, its own invariants, and theory."""

import math
from types import SimpleNamespace

import naive_events as events
import naive_tokens as tokens
import numpy as np
import pytest
from cases import runs, scenario, service, traffics
from event_dynamics import OUTAGES, RETRIES, SCALINGS, scaling
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from token_cases import drawn, listed, server, servers

from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.errors import InputError


def run(times, s, dynamics=None, horizon_s=60.0, pool=None, period_s=60.0, **case):
    """The history of the source with requests at given times; `pool` replaces numbers of its pool."""
    poisson = {"process": "poisson", "rate_per_s": 1.0}
    whole = scenario(poisson, service("deterministic", 1.0), horizon_s=horizon_s, period_s=period_s, **case)
    c = events.with_dynamics(columns(whole, arrivals_of(whole)), dynamics or events.dynamics(), events.PLAIN)
    c.source = c.source._replace(**(pool or {}))
    none = np.empty(0)
    trace = k.Arrivals(k.TRACE, none, none, none, np.array(times, float), 0.0, len(times))
    return tokens.simulate(c, SimpleNamespace(streams=[SimpleNamespace(sums=none, arrivals=trace)]), s)[0]


def each(history, *names):
    """Values of sequences, or of their attempts, in order of arrival."""
    rows = []
    for a in history.attempts:
        s = history.sequences[a.number, a.attempt]
        rows.append(tuple(getattr(s if hasattr(s, name) else a, name) for name in names))
    return rows


def unknown(value):
    return pytest.approx(value, nan_ok=True)


# ---- Steps ----


def test_a_lone_request_prefills_and_decodes():
    """Prompt 3: one step of 1 + 3/8 + 1/4 s, then steps of 1 + 1/4 + x/16 s that read x = 4 and 5 tokens."""
    h = run([2.0], server(listed(3), listed(3), p=0.125, s=0.25, c=0.0625, q=0.5))
    first = 2.0 + (1.0 + 0.375 + 0.25 + 4.5)  # 9 pairs
    last = first + (2 * 1.25 + 9 / 16)
    assert each(h, "first", "last", "start", "service", "latency", "status") == [
        (first, last, 2.0, last - 2.0, last - 2.0, "answered")
    ]
    assert each(h, "first_token_s", "per_token_s") == [(first - 2.0, (last - first) / 2)]
    assert (h.tokens_by_window, h.prefill_by_window, h.preemptions_by_window) == ([3, 0], [3, 0], [0, 0])
    assert h.busy_s == [last - 2.0]


def test_a_prompt_is_divided_among_steps():
    """Four tokens a step: 10 = 4 + 4 + 2; the second request joins with what the first one's last chunk leaves."""
    h = run([1.0], server(listed(10), listed(2), step_tokens=4, sequences=2, p=0.125))
    assert each(h, "start", "first", "last") == [(1.0, 5.25, 6.25)]  # steps of 1.5, 1.5, 1.25 and 1 s
    h = run([1.0, 1.5], server(listed(10, 3), listed(2, 1), step_tokens=4, sequences=2, p=0.125))
    # 1.0: 4 of the first; 2.5: 4 of the first, none left; 4.0: 2 of the first and 2 of the second; 5.5: the first
    # decodes, 1 of the second
    assert each(h, "start", "first", "last") == [(1.0, 5.5, 6.625), (4.0, 6.625, 6.625)]
    assert each(h, "latency", "first_token_s", "per_token_s") == [
        (5.625, 4.5, 1.125),
        (5.125, 5.125, unknown(math.nan)),
    ]
    assert h.prefill_by_window == [13, 0]
    pairs = run([1.0], server(listed(10), listed(1), step_tokens=4, sequences=2, q=0.25))
    assert each(pairs, "last") == [(1.0 + (1 + 4.0) + (1 + 12.0) + (1 + 9.0),)]  # 16, 64 - 16 and 100 - 64 pairs


def test_an_undivided_prompt_waits_until_it_fits_into_a_step():
    h = run([0.0, 0.5, 0.75], server(listed(4), listed(4, 4, 1), step_tokens=7, sequences=3, chunked=False))
    # 1.0: the first decodes, which leaves 6: the second, but not the third; 2.0: two decode, which leaves 5
    assert each(h, "start", "first") == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]


def test_at_most_so_many_sequences_run_and_others_are_refused():
    h = run([0.0, 0.5, 0.75], server(listed(1), listed(2), sequences=1), pool={"queue_limit": 1})
    assert each(h, "start", "last", "status") == [
        (0.0, 2.0, "answered"),
        (2.0, 4.0, "answered"),
        (unknown(math.nan), unknown(math.nan), "refused"),
    ]


def test_an_arrival_at_the_end_of_a_step_joins_at_the_next_one():
    h = run([0.0, 1.0, 1.5], server(listed(1), listed(3)))
    assert each(h, "start", "last") == [(0.0, 3.0), (2.0, 5.0), (2.0, 5.0)]


def test_ends_of_steps_are_no_sums_of_steps():
    """In binary 0.1 added eleven times is not 0.1 + 0.1 x 10, which is the end of a segment of ten steps."""
    assert sum([0.1] * 11) != 0.1 + 0.1 * 10.0
    alone = run([0.0], server(listed(1), listed(11), base=0.1, kv_tokens=12))
    assert each(alone, "last") == [(0.1 + 0.1 * 10.0,)]
    # one that cannot be admitted (its prompt needs three blocks) changes no bit, and its admission begins a segment
    h = run([0.0, 0.55, 0.56], server(listed(1, 9, 1), listed(11, 4, 3), base=0.1, kv_tokens=12))
    assert each(h, "last")[0] == (0.1 + 0.1 * 10.0,)
    at = 0.1 + 0.1 * 10.0
    assert each(h, "start", "first")[1:] == [(at, at + 0.1), (each(h, "last")[1][0], unknown(h.sequences[2, 0].first))]
    assert each(h, "last")[1] == ((at + 0.1) + 0.1 * 3.0,)


def test_a_blocked_head_is_not_passed():
    """The second needs two blocks while the first holds two of three; the third, which needs one, waits behind it."""
    h = run([0.0, 0.5, 0.75], server(listed(5, 5, 1), listed(3, 1, 1), kv_tokens=12))
    assert each(h, "start", "last") == [(0.0, 3.0), (3.0, 4.0), (3.0, 4.0)]


def test_a_full_cache_preempts_the_last_sequence_which_waits_at_the_head():
    h = run([0.0, 0.0, 0.5], server(listed(4), listed(6, 4, 1), kv_tokens=12, sequences=2))
    # 0: the first alone (1 block). 1: it decodes with 2 blocks, the second is admitted (1). 2: the second would need
    # another for its 5 tokens, none is free, and it is the last: preempted, with 5 tokens to prefill. 3, 4, 5: two
    # blocks are not free. 6: the first has its 6 tokens and leaves; the second prefills again, and the third joins
    assert each(h, "start", "first", "last", "preemptions") == [
        (0.0, 1.0, 6.0, 0),
        (1.0, 2.0, 9.0, 1),
        (6.0, 7.0, 7.0, 0),
    ]
    assert (h.tokens_by_window, h.prefill_by_window, h.preemptions_by_window) == ([11, 0], [4 + 4 + 5 + 4, 0], [1, 0])
    assert each(h, "per_token_s")[1] == (7.0 / 3.0,)


def test_an_older_sequence_takes_the_blocks_of_a_younger_one():
    h = run([0.0, 0.0], server(listed(3, 2), listed(4, 3), kv_tokens=8, sequences=2))
    # 2: the first has 5 tokens and needs a second block, which the second gives back; it has it again at 4
    assert each(h, "start", "first", "last", "preemptions") == [(0.0, 1.0, 4.0, 0), (1.0, 2.0, 6.0, 1)]


def test_several_preempted_sequences_keep_their_order():
    """Three of one block; the first needs a second and a third block, so that the third, then the second give way."""
    h = run([0.0, 0.0, 0.0], server(listed(2), listed(9, 3, 3), kv_tokens=12, block=4, sequences=3))
    # 1: the first (3 tokens) and the others are admitted. 2: 4, 3, 3 tokens. 3: the first has 5, needs a block, and the
    # last one gives way, then the second has 4. 4: the second has 3 tokens made and left at 4, the third is admitted
    assert each(h, "start", "last", "preemptions") == [(0.0, 9.0, 0), (1.0, 4.0, 0), (1.0, 5.0, 1)]


def test_who_fits_never_is_refused_by_number():
    with pytest.raises(tokens.DoesNotFitError) as caught:
        run([0.0, 1.0], server(listed(8, 9), listed(5), kv_tokens=15))  # 12 tokens in three blocks, 13 in four
    assert caught.value.args == (1,)
    with pytest.raises(tokens.DoesNotFitError):
        run([0.0], server(listed(4), listed(2), step_tokens=4, sequences=4, chunked=False))
    assert server(listed(1), listed(1), step_tokens=4, chunked=False).fits(4, 1)


# ---- What happens to requests ----


def test_waits_before_the_queue_and_after_the_last_token():
    s = server(listed(1), listed(1, 2), before_s=0.25, after_s=0.5)
    h = run([1.0, 1.5], s)
    # steps 1.25 .. 2.25 .. 3.25 .. 4.25: the second enters at 1.75
    names = ("start", "last", "service", "latency", "first_token_s", "ended")
    assert each(h, *names) == [(1.25, 2.25, 1.5, 1.75, 1.75, 2.75), (2.25, 4.25, 2.5, 3.25, 2.25, 4.75)]
    assert h.busy_s == [3.0]
    failing = events.dynamics(outages=events.outages([(0, 2.5, 1.0)]))
    h = run([1.0, 1.5], s, failing)  # the first has left the instance
    assert each(h, "status", "ended", "produced") == [("answered", 2.75, 1), ("failed", 2.5, 0)]
    h = run([1.0], s, pool={"timeout_s": 1.5})  # its answer is on its way at 2.5
    assert each(h, "status", "latency", "service", "first_token_s") == [("timed_out", 1.5, 1.5, unknown(math.nan))]


def test_a_request_whose_time_is_out_is_served_to_its_end():
    h = run([0.0, 1.0], server(listed(1), listed(4), sequences=1), pool={"timeout_s": 2.5})
    assert each(h, "status", "start", "service", "first_token_s") == [
        ("timed_out", 0.0, 4.0, 1.0),
        ("timed_out", 4.0, 4.0, unknown(math.nan)),
    ]
    assert h.tokens_by_window == [8, 0]


def test_a_request_whose_time_is_out_leaves_at_the_end_of_the_step():
    s = server(listed(1), listed(10), sequences=1, abort=True)
    h = run([0.0, 1.0], s, pool={"timeout_s": 2.5})
    # at 3.0, after its third token; the second starts then, and its time is out at 3.5
    assert each(h, "status", "start", "produced", "first_token_s") == [
        ("timed_out", 0.0, 3, 1.0),
        ("timed_out", 3.0, 1, unknown(math.nan)),
    ]
    assert (h.tokens_by_window, h.busy_s) == ([4, 0], [4.0])
    assert np.isnan(h.attempts[0].service)
    h = run([0.0, 0.5], s, pool={"timeout_s": 2.5})  # in the queue at 3.0: it never starts
    assert each(h, "status", "start", "produced")[1] == ("timed_out", unknown(math.nan), 0)
    h = run([0.0, 0.5], server(listed(1), listed(3), sequences=1, abort=True), pool={"timeout_s": 3.0})
    assert each(h, "status", "produced") == [("answered", 3), ("timed_out", 1)]  # the last token comes at the deadline


def test_what_leaves_by_a_time_out_makes_room_for_the_head():
    """The head needs both blocks that the first gives back at 3.0, in the middle of what would be its segment."""
    h = run([0.0, 1.0], server(listed(1, 5), listed(7, 1), kv_tokens=8, abort=True), pool={"timeout_s": 2.5})
    assert each(h, "produced", "start") == [(3, 0.0), (1, 3.0)]


def test_a_step_in_progress_is_lost_with_its_instance():
    h = run([0.0, 3.0], server(listed(1), listed(4)), events.dynamics(outages=events.outages([(0, 2.5, 0.25)])))
    assert each(h, "status", "produced", "first_token_s", "start") == [
        ("failed", 2, 1.0, 0.0),
        ("answered", 4, 1.0, 3.0),
    ]
    assert (h.tokens_by_window, h.busy_s) == ([6, 0], [6.5])
    # at the end of a step the tokens have come
    h = run([0.0], server(listed(1), listed(3)), events.dynamics(outages=events.outages([(0, 3.0, 1.0)])))
    assert each(h, "status") == [("answered",)]


def test_windows_count_tokens_by_the_end_of_their_step():
    h = run([9.0], server(listed(5), listed(4), base=1.0), horizon_s=20.0, period_s=10.0)
    assert (h.tokens_by_window, h.prefill_by_window) == ([0, 4, 0], [0, 5, 0])  # at 10, 11, 12 and 13
    assert h.batches_sampled == {0: [(0, 0)], 1: [(1, 2)]}  # 6 tokens at 10: two blocks of 4
    h = run([9.0], server(listed(5), listed(14), base=1.0), horizon_s=20.0, period_s=10.0)
    assert h.tokens_by_window == [0, 10, 4]  # 20 .. 23: after the horizon


def scaled_in(times, s, timeout_s=60.0):
    """Two instances, of which the second is dropped at 60 s, since fewer than 18 requests came in a minute."""
    dynamics = events.dynamics(scaling=scaling(target=10.0, points=(3, 1)))
    routing = {"routing": "LEAST_OUTSTANDING_REQUESTS"}
    return run(times, s, dynamics, 120.0, {"timeout_s": timeout_s}, source_instances=2, endpoint=routing)


def test_an_instance_that_drains_works_on_what_it_has_and_is_gone():
    h = scaled_in([58.0, 58.0, 58.5, 58.5], server(listed(1), listed(5), sequences=1))  # one runs and one waits at each
    assert sorted(each(h, "instance", "last", "status")) == [(i, t, "answered") for i in (0, 1) for t in (63.0, 68.0)]
    assert (h.steps, h.existing_s) == ([(0.0, 2), (60.0, 1)], [120.0, 68.0])


def test_an_instance_that_drains_is_gone_when_its_last_request_leaves_early():
    """Its time is out at 60.5, and it leaves at the start of the next step; or at once, if it has not entered."""
    h = scaled_in([58.0, 58.0], server(listed(1), listed(5), abort=True), timeout_s=2.5)
    assert each(h, "status", "ended", "produced") == [("timed_out", 60.5, 3)] * 2
    assert (h.existing_s, h.busy_s) == ([120.0, 61.0], [4.0, 2.0])
    h = scaled_in([59.0, 59.0], server(listed(1), listed(5), abort=True, before_s=10.0), timeout_s=4.5)
    assert each(h, "status", "ended", "produced") == [("timed_out", 63.5, 0)] * 2
    assert (h.existing_s, h.busy_s) == ([120.0, 63.5], [0.0, 0.0])


def test_goodput_asks_for_both_limits():
    h = run([0.0, 0.5, 10.0], server(listed(1), listed(3, 3, 1), sequences=1, after_s=0.5))
    # first tokens after 1.5, 4.0 and 1.5 s, each further one after a second
    first, second, lone = h.sequences.values()
    assert [q.is_good(1.5, 1.0) for q in (first, second, lone)] == [True, False, True]
    assert [q.is_good(4.0, 0.9) for q in (first, second, lone)] == [False, False, True]
    late = run([0.0], server(listed(1), listed(9)), pool={"timeout_s": 5.0})
    assert not late.sequences[0, 0].is_good(9.0, 9.0)


# ---- Prefixes ----


def cached(group, prompt, cache_tokens=100, **more):
    s = server(listed(*prompt), listed(1), p=0.125, prefix_length=8, cache_tokens=cache_tokens, **more)
    s.prefix_by_request = np.array(group, float)
    return s


def test_whole_blocks_of_a_known_prefix_are_not_computed_again():
    h = run([0.0, 10.0, 20.0, 30.0, 40.0], cached([1, 1, 2, 1, 1], [10, 10, 10, 8, 7]))
    # the second saves its first 8 tokens; the fourth has no others, and computes one; the fifth has one whole block
    assert each(h, "latency") == [(2.25,), (1.25,), (2.25,), (1.125,), (1.375,)]
    assert h.prefill_by_window == [10 + 2 + 10 + 1 + 3, 0]


def test_a_cache_keeps_the_beginnings_of_the_latest_groups():
    h = run([0.0, 10.0, 20.0], cached([1, 1, 1], [10], cache_tokens=4))
    assert each(h, "latency") == [(2.25,), (1.75,), (1.75,)]  # one block of the two
    # three blocks: group 2 drops the second block of group 1, and a look-up of group 1 makes it drop that of group 2
    h = run([0.0, 10.0, 20.0, 30.0], cached([1, 2, 1, 2], [10], cache_tokens=12))
    assert each(h, "latency") == [(2.25,), (2.25,), (1.75,), (1.75,)]


def test_a_block_is_named_by_the_hash_of_its_last_token():
    s = server(listed(10), listed(1), p=0.125, cache_tokens=100)
    s.prefix_hashes, s.hash_tokens = [[1, 2], [1, 3], [1, 2], []], 6
    h = run([0.0, 10.0, 20.0, 30.0], s)
    # the second block ends with the eighth token, which the second hash covers
    assert each(h, "latency") == [(2.25,), (1.75,), (1.25,), (2.25,)]
    assert each(h, "cached") == [(0,), (4,), (8,), (0,)]
    assert (h.queried_by_window[0], h.hit_by_window[0]) == (40, 12)


def test_an_instance_that_fails_forgets():
    failing = events.dynamics(outages=events.outages([(0, 5.0, 1.0)]))
    assert each(run([0.0, 10.0], cached([1, 1], [10]), failing), "latency") == [(2.25,), (2.25,)]


def test_requests_that_run_at_once_compute_their_prefix_both():
    """It is remembered when the first prefill ends."""
    assert run([0.0, 0.0, 0.5], cached([1, 1, 1], [10], step_tokens=10)).prefill_by_window == [10 + 2 + 2, 0]
    at_once = run([0.0, 0.5, 0.75], cached([3, 1, 1], [10]))
    assert at_once.prefill_by_window == [30, 0]


# ---- Draws ----


def test_servers_of_scenarios(tmp_path):
    """A trace's columns by request; laws by draws, so that equal laws give a request and its copy equal prompts."""
    (tmp_path / "t.csv").write_text("time,input,who\n" + "".join(f"{n},{n + 1},{n % 3}\n" for n in range(40)))
    law = {"law": "exponential", "mean_tokens": 20}
    block = {"output": law, "max_sequences": 8, "max_step_tokens": 64, "kv_tokens": 4000, "before_s": "1ms",
             "step": {"base_s": 0.01, "per_kv_token_s": 1e-5}, "on_timeout": "abort"}  # fmt: skip
    source = {"tokens": block | {"prompt": "input", "prefix": {"length": 9, "session": "who", "cache_tokens": 90}}}
    shadow = {"tokens": block | {"prompt": law, "prefix": {"length": 9, "groups": 5, "cache_tokens": 90}}}
    traffic = {"process": "trace", "path": "t.csv"}
    whole = scenario(traffic, source, shadow, share=100, base_dir=tmp_path)
    trace = whole.traffic.trace()
    by_row, by_law = (tokens.server_of(s.tokens, trace) for s in (whole.source_service, whole.shadow_service))
    assert (by_row.base_s, by_row.per_kv_token_s, by_row.abort, by_row.before_s) == (0.01, 1e-5, True, 0.001)
    arrivals = arrivals_of(whole)
    c = events.with_dynamics(columns(scenario(traffic, base_dir=tmp_path, share=100), arrivals),
                             events.dynamics(), events.dynamics())  # fmt: skip
    histories = tokens.simulate(c, arrivals, by_row, by_law)[:2]
    one, other = ([h.sequences[n, 0] for n in range(40)] for h in histories)
    assert [(q.prompt, q.group) for q in one] == [(n + 1, n % 3) for n in range(40)]
    assert {q.group for q in other} == set(range(5))
    assert len({q.prompt for q in other}) > 15
    assert [q.output for q in one] != [q.output for q in other]
    again = tokens.simulate(c, arrivals, by_law, by_law)[:2]
    prompts = [[(h.sequences[n, 0].prompt, h.sequences[n, 0].group) for n in range(40)] for h in again]
    assert prompts[0] == prompts[1] == [(q.prompt, q.group) for q in other]


def test_drawn_lengths_are_rounded_and_at_least_one():
    lengths = drawn(2.0)
    hashes = np.random.default_rng(1).integers(0, 2**64, 4000, dtype=np.uint64)
    values = [lengths.of(z, 0) for z in hashes]
    p = rounded_exponential(2.0)
    for n in (1, 2, 3):
        assert abs(np.mean(np.array(values) == n) - p[n - 1]) < 4.0 * math.sqrt(p[n - 1] * (1 - p[n - 1]) / 4000)
    assert drawn(1e300).of(hashes[0], 0) == 2**31


# ---- Any scenario ----


@st.composite
def any_case(draw):
    try:
        whole = scenario(draw(traffics()), service("deterministic", 1.0, queue_limit=draw(st.sampled_from([None, 2]))),
                         **draw(runs()))  # fmt: skip
    except InputError as error:
        if "must have a rate > 0" in str(error):  # no request before a short horizon
            reject()
        raise
    source = events.dynamics(scaling=draw(SCALINGS), outages=draw(OUTAGES), retries=draw(RETRIES))
    shadow = events.dynamics(scaling=draw(SCALINGS), outages=draw(OUTAGES))
    return whole, source, shadow, draw(servers()), draw(servers())


def check(case):
    whole, source, shadow, *both = case
    arrivals = arrivals_of(whole)
    c = events.with_dynamics(columns(whole, arrivals), source, shadow)
    histories = tokens.simulate(c, arrivals, *both)[:2]
    for h, s in zip(histories, both, strict=True):
        sequences = list(h.sequences.values())
        # tokens are conserved
        assert sum(h.tokens_by_window) == sum(q.produced for q in sequences)
        computed = sum(q.prompt for q in sequences if q.produced)
        if not (sum(h.preemptions_by_window) or s.cache_tokens):
            assert sum(h.prefill_by_window) >= computed
        assert sum(h.preemptions_by_window) == sum(q.preemptions for q in sequences)
        for q in sequences:
            a = q.attempt
            assert a.over
            assert 0 <= q.produced <= q.output
            assert (q.produced == q.output) == (not np.isnan(q.last)) == (not np.isnan(a.service))
            if a.status in ("answered", "error_4xx", "error_5xx"):
                assert q.produced == q.output
                assert q.first_token_s <= a.latency
                assert (q.output == 1) == np.isnan(q.per_token_s)
            if a.status in ("refused", "unavailable"):
                assert np.isnan(a.start)
            if not np.isnan(a.start):
                assert a.start >= a.arrival + s.before_s
        # what is taken from a queue keeps its order
        taken = {}
        for q in sequences:
            if not np.isnan(q.attempt.start):
                taken.setdefault(q.attempt.instance, []).append((q.attempt.admission, q.attempt.start))
        for pairs in taken.values():
            starts = [start for _, start in sorted(pairs)]
            assert starts == sorted(starts)
        for sample in h.batches_sampled.values():
            assert all(running <= s.max_sequences and used <= s.blocks for running, used in sample)
    if source.outages.mtbf_s == shadow.outages.mtbf_s == math.inf and not source.outages.instance.size:
        up = [h.up_s for h in histories]
        assert all(
            b <= u + 1e-9 for h, ups in zip(histories, up, strict=True) for b, u in zip(h.busy_s, ups, strict=True)
        )


@settings(max_examples=15)
@given(any_case())
def test_any_run_conserves_tokens_and_keeps_its_limits(case):
    check(case)


# ---- Theory ----


def replications(s, rate_per_s, horizon_s, n, **case):
    """Histories of Poisson traffic under n seeds."""
    for seed in range(n):
        traffic = {"process": "poisson", "rate_per_s": rate_per_s}
        whole = scenario(traffic, service("deterministic", 1.0), horizon_s=horizon_s, seed=seed, share=0,
                         endpoint={"timeout_s": 1e9}, **case)  # fmt: skip
        arrivals = arrivals_of(whole)
        c = events.with_dynamics(columns(whole, arrivals), events.dynamics(), events.PLAIN)
        yield tokens.simulate(c, arrivals, s)[0]


def rounded_exponential(mean):
    """Probabilities of 1, 2, ... of an exponential, rounded, at least 1; to 1e-17."""
    edges = np.concatenate([[0.0], np.arange(1, int(40 * mean)) + 0.5])
    return -np.diff(np.exp(-edges / mean), append=0.0)


def deviation(values, expected):
    """Distance of a mean from what it should be, in standard errors between replications."""
    values = np.array(values)
    return abs(values.mean() - expected) / (values.std(ddof=1) / math.sqrt(len(values)))


@pytest.mark.slow
def test_one_sequence_at_a_time_is_a_single_server_queue():
    """M/G/1: the mean wait is rate E[S^2] / (2 (1 - rho)) (Pollaczek-Khinchine); S = 3/8 + o / 4 seconds."""
    mean, rate = 4.0, 0.42
    p = rounded_exponential(mean)
    seconds = 0.375 + 0.25 * np.arange(1, p.size + 1)
    rho = rate * float(p @ seconds)
    assert 0.5 < rho < 0.7
    expected = rate * float(p @ seconds**2) / (2.0 * (1.0 - rho))
    s = server(listed(3), drawn(mean), sequences=1, base=0.25, p=0.125)
    waits, works = [], []
    for h in replications(s, rate, 4000.0, 20):
        later = [a for a in h.attempts if a.arrival > 200.0]  # the empty start is forgotten
        waits.append(np.mean([a.start - a.arrival for a in later]))
        works.append(np.mean([a.service for a in later]))
    assert deviation(works, float(p @ seconds)) < 4.0
    assert deviation(waits, expected) < 4.0
    # an M/M/1 queue of the same load has a third more, which is seen
    assert deviation(waits, rho / (1.0 - rho) * float(p @ seconds)) > 4.0


def test_steps_of_equal_length_are_an_infinite_server():
    """Everyone waits for the next boundary, less than a step, and is then answered after `output` steps."""
    s = server(drawn(20.0), drawn(10.0), sequences=60_000, base=0.25, kv_tokens=2**26, step_tokens=2**26)
    (h,) = replications(s, 2.0, 600.0, 1)
    busy = 0
    for a in h.attempts:
        wait, steps = a.start - a.arrival, h.sequences[a.number, 0].output
        assert 0.0 <= wait < 0.25
        assert a.latency == pytest.approx(wait + 0.25 * steps, abs=1e-9)
        busy += wait > 0.0
    assert busy > 900


@pytest.mark.slow
def test_steps_that_grow_with_their_sequences_share_the_processor():
    """M/G/1 processor sharing: E[latency] = E[S] / (1 - rho), here with S = 1 s in o tokens.

    Tokens are quanta, so the error is as 1 / o: of means at o and 2 o, 2 x the second - the first has only its square.
    """
    rate = 0.6

    def means(o):
        for h in replications(server(listed(1), listed(o), sequences=60_000, base=0.0, s=1.0 / o), rate, 700.0, 12):
            yield np.mean([a.latency for a in h.attempts if a.arrival > 100.0])

    coarse, fine = (np.array(list(means(o))) for o in (10, 20))
    latencies = 2.0 * fine - coarse
    assert deviation(latencies, 1.0 / (1.0 - rate)) < 4.0
    # first in, first out is seen: 1 + rho / (2 (1 - rho)), by Pollaczek-Khinchine
    assert deviation(latencies, 1.0 + rate / (2.0 * (1.0 - rate))) > 4.0
