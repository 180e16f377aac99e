"""The p99 of an overloaded pool with the instances that it would need."""

import re

from cases import scenario, service

from shadowsim import simulate
from shadowsim.planning.enough_instances import enough_texts
from shadowsim.report.card import card
from shadowsim.report.run_page import html
from shadowsim.report.run_text import results_text

POISSON = {"process": "poisson", "rate_per_s": 200.0}


def overloaded(**more):
    source, shadow = service("exponential", 0.005, 4), service("exponential", 0.06, 4)
    return scenario(POISSON, source, shadow, horizon_s=3600.0, sample_requests=0, **more)  # load 1.5


def test_the_p99_is_that_of_a_run_with_as_many_instances():
    s = overloaded()
    (text,) = enough_texts(s, simulate(s).verdict)
    value = float(re.fullmatch(r"With 2 instances Shadow would have a p99 of (\d+) ms in a run of \d+ min\.", text)[1])
    whole = simulate(s.replace({"shadow.instance_count": 2})).quantile(0.99)["Shadow"]
    # 34 minutes are 900 relaxation times at load 0.75, where the standard deviation of p99 is 6 % of it
    assert abs(value / 1e3 / whole - 1.0) < 0.25


def test_text_page_and_card_say_it():
    run = simulate(overloaded())
    for text in (results_text([run]), html(run), str(card(run))):
        assert "With 2 instances Shadow would have a p99 of" in " ".join(text.split())


def test_a_stable_pool_needs_none():
    s = overloaded().replace({"shadow.instance_count": 2})
    assert enough_texts(s, simulate(s).verdict) == []
