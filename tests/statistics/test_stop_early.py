"""Advice to stop early: chances against simulated tests, and the sentence for each case."""

import math

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import InputError, compare, simulate
from shadowsim.statistics.metric_rows import outcome_of
from shadowsim.statistics.sequential_looks import bounds
from shadowsim.statistics.stop_early import stop_early
from shadowsim.statistics.terms import BETTER, NOT_ENOUGH, SAME, WORSE, Terms

LOOKS, TERMS = [0.05, 0.1, 0.2, 0.5, 0.75, 1.0], Terms()  # margin: 10 %
BOUNDS = bounds(LOOKS, 0.05, "pocock")


def row(metric="p99", value=0.0, half=math.nan, n_eff=math.nan, **changes):
    """Return a row of `compare` for a source of 1 s."""
    known = {"metric": metric, "unit": "s", "source": 1.0, "margin": 0.1, "n_eff": n_eff}
    known |= {"ratio": 1.0 + value, "ratio_low": 1.0 + value - half, "ratio_high": 1.0 + value + half}
    known |= {"difference": value, "low": value - half, "high": value + half} | changes
    outcome = known.setdefault("outcome", outcome_of(known, TERMS))
    return {"verdict": TERMS.verdict(outcome, known["unit"])} | known


def advice(*rows, look=3, **options):
    return stop_early(pd.DataFrame(rows), look, LOOKS, **{"spending": "pocock", **options})


def test_chances_are_those_of_simulated_tests():
    """True differences are drawn evenly, as the predictive distribution supposes; estimates are Brownian."""
    rng, look, error_end, n = np.random.default_rng(5), 3, 0.035, 3000
    f = LOOKS[look - 1]
    true = rng.uniform(-0.6, 0.6, n)
    at_look = true + rng.standard_normal(n) * error_end / math.sqrt(f)
    rest = true + rng.standard_normal(n) * error_end / math.sqrt(1.0 - f)
    at_end = f * at_look + (1.0 - f) * rest
    rows, found = [], []
    for i, (d, e) in enumerate(zip(at_look, at_end, strict=True)):
        here = row(f"m{i}", d, BOUNDS[look - 1] * error_end / math.sqrt(f))
        if here["outcome"] == NOT_ENOUGH and abs(d) < 0.35:  # far from where the true differences end
            rows.append(here)
            found.append(row(value=e, half=BOUNDS[-1] * error_end)["outcome"])
    outlooks = advice(*rows, metrics=[here["metric"] for here in rows]).outlooks
    chances = {code: [outlook.chances[code] for outlook in outlooks] for code in (WORSE, BETTER, SAME, NOT_ENOUGH)}
    assert len(found) > 500
    for code, predicted in chances.items():
        p = np.array(predicted)
        assert np.all((p >= 0.0) & (p <= 1.0))
        assert abs(p.sum() - found.count(code)) <= 4.0 * math.sqrt((p * (1.0 - p)).sum())
    assert np.allclose(np.sum(list(chances.values()), axis=0), 1.0)


def test_a_decision_is_likely_where_the_chance_passes_one_half():
    half = 0.16
    (outlook,) = advice(row(value=0.15, half=half)).outlooks
    # at look j the interval's half width is `narrower`; the median estimate is the present one
    narrower = [half * BOUNDS[j] / BOUNDS[2] * math.sqrt(LOOKS[2] / LOOKS[j]) for j in range(6)]
    expected = next(j for j in range(3, 6) if narrower[j] < 0.15)  # which is then worse in half of the cases
    assert outlook.next_look == expected + 1
    assert outlook.half_width == pytest.approx(narrower[-1])


@pytest.mark.parametrize(
    ("rows", "look", "code", "answer"),
    [
        ([row(value=0.3, half=0.1), row("p50", half=0.2)], 3, "worse", "certainly worse in p99; more data would"),
        ([row(half=0.05), row("p50", -0.3, 0.1)], 3, "decided", "Yes: p50 and p99 have their answer, and none is"),
        ([row(half=0.2), row("p50", half=0.01)], 6, "ended", "The last look has been made, and p99 stayed undecided"),
        ([row(value=0.04, half=0.13)], 5, "hopeless", "More data would hardly help: p99 will most likely be undec"),
        ([row(value=0.15, half=0.16)], 3, "go_on", "Not yet: p99 undecided; look 4 is likely to tell."),
        ([row(), row("p50", half=0.05, n_eff=900.0)], 3, "go_on", "Not yet: p99 undecided; look 4 is likely to tell."),
        ([row(), row("p50", half=0.05, n_eff=90.0)], 3, "hopeless", "More data would hardly help: p99"),
        ([row(), row("p50", half=0.05, n_eff=9e9)], 3, "go_on", "Not yet: p99 undecided."),
        ([row(value=0.5, half=math.inf, ratio_low=1.2, low=0.2, outcome=WORSE)], 3, "worse", "certainly worse in p99"),
    ],
)  # fmt: skip
def test_the_answer(rows, look, code, answer):
    result = advice(*rows, look=look)
    assert (result.code, result.stops) == (code, code != "go_on")
    assert answer in result.answer
    assert not any("nan" in text or "inf" in text for text in result.reasons(lambda look: "soon"))


def test_reasons_name_chances_intervals_and_moments():
    rows = [
        row("p50", 0.02, 0.05),
        row(value=0.15, half=0.16),
        row("ttft_p50", 0.0, 0.05, n_eff=500.0),
        row("ttft_p99"),
        row("error_rate", 0.004, 0.001, unit="share", margin=0.001),
    ]
    p50, p99, first, errors = advice(*rows).reasons(lambda look: f"at {LOOKS[look - 1]:g}")
    assert p50 == "p50: no difference larger than 10 %, -3.00 to +7.00 %."
    assert p99.startswith("p99: undecided, -1.0 to +31.0 %. At the end it will be ± 6")
    assert p99.endswith("A decision is likely by look 4, at 0.5.")
    # 2,000 answers at a fifth of the test's 500 are there at 0.8 of it
    assert first.endswith("500 of the 2,000 needed by look 6, at 1.")
    assert errors == "errors: worse, +0.300 to +0.500 points."


def test_a_table_without_the_metrics_and_looks_beyond_the_plan_are_refused():
    with pytest.raises(InputError, match="metrics: must be some of mean"):
        advice(row("mean", half=0.1))
    with pytest.raises(InputError, match="look: must be an integer from 1 to looks, which is 6"):
        advice(row(half=0.1), look=7)


def test_a_comparison_at_a_look_of_unequal_ones_has_that_looks_bound():
    side = service("lognormal", 0.02, workers=4)
    run = simulate(scenario({"process": "poisson", "rate_per_s": 50.0}, side, horizon_s=1200.0, period_s=12.0))
    at_look = {"look": 1, "looks": LOOKS, "spending": "pocock"}
    plain, early = (compare(run, **x).set_index("metric") for x in ({}, at_look))
    width = early["high"]["p50"] - early["low"]["p50"]
    assert width > 1.5 * (plain["high"]["p50"] - plain["low"]["p50"])
    assert stop_early(early.reset_index(), 1, LOOKS, spending="pocock").outlooks[0].metric == "p50"
