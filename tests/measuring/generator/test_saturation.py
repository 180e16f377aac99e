"""The verdict on a generator: each limit alone, its sentence, and what is still open loop."""

import math
import re

import numpy as np
import pytest

from shadowsim.measuring.generator.load_records import ANSWERED, CAP, DROPPED, LATE, LoadRecords
from shadowsim.measuring.generator.saturation import INVALID, VALID, held_open, judge
from shadowsim.measuring.generator.sender import Sent


def ran(lag_s=0.0001, latency_s=0.02, dropped=0, cause=LATE, cpu=0.2, starved=0.0, held=0, n=1000):
    records = LoadRecords()
    for number in range(n):
        row = records.begin(number, 0.01 * number, lag_s=lag_s)
        if number < dropped:
            records.fail(row, DROPPED, cause)
            continue
        records.sent[row], records.done[row] = 0.01 * number + lag_s, 0.01 * number + lag_s + latency_s
        records.status[row] = ANSWERED
        records.held[row] = int(number < held)
    table = records.table()
    return table, [Sent(table, 0.0, cpu, starved, 10.0, False)]


def test_a_generator_that_keeps_up_is_valid():
    table, sent = ran(dropped=1)  # the limit itself
    assert judge(table, sent, len(table)).status == VALID
    assert held_open(table, is_ladder=False)
    assert not held_open(table, is_ladder=True)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ({"lag_s": 0.011}, "p99 of the lag is 11.0 ms, the limit 10.0 ms"),
        ({"dropped": 2}, r"2 requests \(0.2 %\) were not sent \(generator too late\); the limit is 0.1 %"),
        ({"cpu": 0.81}, "used 81.0 % of a core, the limit is 80.0 %"),
    ],
)
def test_each_limit_alone_makes_it_invalid(case, says):
    table, sent = ran(**case)
    verdict = judge(table, sent, len(table))
    assert verdict.status == INVALID
    assert len(verdict.why) == 1
    assert re.search(says, verdict.why[0])


def test_lag_may_be_a_small_share_of_a_long_latency_but_does_not_excuse_itself():
    table, sent = ran(lag_s=0.04, latency_s=1.0)
    assert judge(table, sent, len(table)).is_valid
    table, sent = ran(lag_s=30.0, latency_s=0.02)
    assert not judge(table, sent, len(table)).is_valid


def test_other_programs_are_named_where_the_generator_had_no_core():
    table, sent = ran(lag_s=0.5, starved=0.6)
    assert "Other programs had its core for 60.0 %" in judge(table, sent, len(table)).why[-1]
    table, sent = ran(lag_s=0.5, starved=math.nan)
    assert len(judge(table, sent, len(table)).why) == 1


def test_caps_and_ceilings_close_the_loop():
    assert not held_open(ran(dropped=1, cause=CAP)[0], is_ladder=False)
    assert not held_open(ran(held=1)[0], is_ladder=False)
    empty = LoadRecords().table()
    assert judge(empty, [], 0).is_valid
    assert np.asarray(empty["number"]).size == 0
