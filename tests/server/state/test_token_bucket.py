"""Token buckets: bursts, refills and debts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.server.state.token_bucket import TokenBucket

STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=60)  # quarters of a second, tokens


@given(STEPS)
def test_no_stretch_of_time_takes_more_than_burst_and_rate(steps):
    now_s, taken = 0.0, []
    bucket = TokenBucket(per_s=2, burst=10, clock=lambda: now_s)
    for quarters, n in steps:
        now_s += quarters / 4
        if bucket.take(n):
            taken.append((now_s, n))
    for i, (begin_s, _) in enumerate(taken):
        for end_s, _ in taken[i:]:
            assert sum(n for at_s, n in taken if begin_s <= at_s <= end_s) <= 10 + 2 * (end_s - begin_s)


def test_a_debt_is_paid_before_anything_is_taken():
    now_s = 0.0
    bucket = TokenBucket(per_s=2, burst=10, clock=lambda: now_s)
    assert bucket.overdraw(10)
    assert not bucket.overdraw(4)
    now_s = 2.0
    assert bucket.overdraw(0)
    assert not bucket.take(1)
    now_s = 2.5
    assert bucket.take(1)


def test_the_level_is_the_share_of_the_burst_that_is_left():
    now_s = 0.0
    bucket = TokenBucket(per_s=2, burst=10, clock=lambda: now_s)
    assert bucket.level == 1.0
    bucket.overdraw(12)
    assert bucket.level == pytest.approx(-0.2)
    now_s = 3.5
    assert bucket.level == pytest.approx(0.5)
