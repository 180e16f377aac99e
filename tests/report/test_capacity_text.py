"""The text of `capacity`: table, notes and the sentence below it; its card and page."""

import math

import pandas as pd
import pytest

from shadowsim import card
from shadowsim.planning.slo import parse_slo
from shadowsim.report.analysis_page import html
from shadowsim.report.capacity_text import answer_text, capacity_text

GOALS = "p99 <= 100ms and source.mean <= 30ms"


def row(role, **more):
    figures = {"p99_s": 0.1, "p99_s_error": 0.001} if role == "shadow" else {"mean_s": 0.03, "mean_s_error": 1e-4}
    return {
        "role": role,
        "instance_type": "ml.m5.xlarge",
        "instance_count": 4,
        "rate_per_s": 645.06,
        "low_per_s": 643.68,
        "high_per_s": 646.91,
        "factor": 6.4506,
        **figures,
        "utilisation": 0.807,
        "utilisation_error": 0.001,
        "binding": "source.mean <= 30ms",
        "limit_per_s": 800.0,
        "replications": 8,
        "simulated_h": 0.1,
        "note": "",
    } | more


NOTHING = dict.fromkeys(("rate_per_s", "low_per_s", "high_per_s", "factor", "utilisation", "limit_per_s"), math.nan)


def frame(*rows):
    made = pd.DataFrame(list(rows)).astype({"replications": "Int64"})
    made.attrs["tried"] = [
        {"role": r["role"], "rate_per_s": x, "mean_s": x / 2e4, "mean_s_error": e, "replications": n}
        for r in rows
        for x, e, n in ((500.0, math.nan, 1), (645.0, 1e-4, 8), (2000.0, math.nan, 1))
    ]
    return made


def test_the_text_has_rates_intervals_and_what_decides():
    both = frame(row("source"), row("shadow", rate_per_s=667.9, binding="p99 <= 100ms", note="a note"))
    text = capacity_text(both, parse_slo(GOALS))
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    # half-widths are 2.365 standard errors: Student's t of eight runs
    assert "source 645.1 643.7 to 646.9 6.45 - 30.0 ms +- 236 us 80.7 %" in lines
    assert "shadow 667.9 643.7 to 646.9 6.45 100 ms +- 2.36 ms - 80.7 %" in lines
    assert "source: decided by source.mean <= 30ms; stable below 800 requests/s; 8 runs of" in text
    assert text.endswith(
        "The pools hold 645.1 requests/s at the endpoint (643.7 to 646.9), 6.45 times the\ntraffic's rate; the source, "
        "4 x ml.m5.xlarge, decides."
    )


def test_other_answers():
    none = frame(row("shadow", **NOTHING, binding="", replications=pd.NA, note="no rate holds: p99 213 ms"))
    text = capacity_text(none, parse_slo("p99 <= 100ms"))
    assert "shadow: no rate holds: p99 213 ms" in text
    assert text.endswith("The shadow holds no rate.")
    any_rate = frame(row("shadow", high_per_s=math.inf, limit_per_s=math.nan, binding=""))
    assert "643.7 to any" in capacity_text(any_rate, parse_slo("p99 <= 100ms"))
    assert answer_text(any_rate) == "The pools hold 645.1 requests/s, the highest rate that was tried."
    stable = frame(row("shadow", binding="stability"))
    assert "decided by the stability of its queues" in capacity_text(stable, parse_slo("p99 <= 100ms"))


@pytest.mark.parametrize("high_per_s", [646.91, math.inf])
def test_card_and_page(high_per_s):
    made = frame(row("source", high_per_s=high_per_s))
    assert "The pools hold 645.1 requests/s" in card(made)
    page = html(made, "source.mean <= 30ms")
    assert "Greatest rate that the pools hold" in page
    assert "Latency against the rate" in page
    none = frame(row("source", **NOTHING, binding="", replications=pd.NA, note="why"))
    assert "The source holds no rate." in html(none)
