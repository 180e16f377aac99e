"""Cards show what the frames hold, escaped, with styles and without scripts."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from cases import REQUEST, scenario, service

import shadowsim
from shadowsim import Experiment, InputError, Scenario, card, simulate
from shadowsim.planning.sheet import Sheet
from shadowsim.report.card import BADGES

POISSON = {"process": "poisson", "rate_per_s": 20.0}
TAGS = {"b", "details", "div", "li", "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul"}
EVIL = "<b>&\"'</b><script>harm</script>"


@pytest.fixture(scope="module")
def run():
    return simulate(scenario(POISSON, service(mean_s=0.05, workers=4), horizon_s=1200.0))


@pytest.fixture(scope="module")
def overloaded():
    return simulate(scenario(POISSON, service(mean_s=0.05, workers=4), service(mean_s=0.5, workers=4), horizon_s=600.0))


def size_frame():
    return pd.DataFrame(
        {
            "role": "shadow",
            "instance_type": ["ml.c5.xlarge", "ml.m5.xlarge", "ml.p5.48xlarge"],
            "instance_count": pd.array([3, 5, None], "Int64"),
            "p99_s": [0.22, 0.24, np.nan],
            "p99_s_error": [0.002, 0.003, np.nan],
            "cost_usd": [100.0, 190.0, np.nan],
            "one_fewer": ["p99 0.3 s", "p99 0.26 s", ""],
            "note": ["", "", EVIL],
        },
        index=[4, 5, 6],
    )


def plan_frame():
    return pd.DataFrame(
        {
            "sampling_percentage": [10, 50],
            "duration_s": [86_400.0, 3600.0],
            "duration_h": [24.0, 1.0],
            "power": [0.3, 0.85],
            "power_error": [0.04, 0.03],
            "shadow_instances": 1,
            "cost_usd": [40.0, 2.0],
            "reaches": [False, True],
            "how": "simulated",
        }
    )


class CardParser(HTMLParser):
    """Reads the rows of cells of a card, and its tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.attributes, self.open, self.bold = [], set(), set(), [], []
        self.feed(text)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.bold.append("font-weight:600" in dict(attrs)["style"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def text_of(html):
    return unescape(re.sub("<[^>]*>", " ", html))


def table(html):
    return {row[0]: row[1:] for row in CardParser(html).rows}


def test_a_result_shows_its_verdict_and_its_summary(run):
    html, summary = run._repr_html_(), run.summary()
    rows = table(html)
    assert [float(x.removesuffix(" ms")) for x in rows["p99"]] == pytest.approx(1e3 * summary["p99_s"], rel=0.005)
    assert rows["requests"] == [f"{n:,}" for n in summary["requests"]]
    assert rows[""] == ["Source (source)", "Shadow (shadow)"]
    assert f"background:{BADGES['STABLE']}" in html
    for pool in run.verdict.pools:
        assert pool.why in text_of(html)
    assert "Assumed" not in html


def test_an_overloaded_pools_latencies_are_marked(overloaded):
    html = overloaded._repr_html_()
    rows = table(html)
    for name in ("mean", "p50", "p95", "p99", "p99.9"):
        assert not rows[name][0].endswith("*")
        assert rows[name][1].endswith(" *")
    assert "OVERLOADED" in html
    assert "* the pool is OVERLOADED" in text_of(html)


def test_unequal_loads_stand_above_the_figures(run):
    text = text_of(run._repr_html_())
    note = run.compare().attrs["load"]["note"]
    assert text.index(note) < text.index("keeps up")
    assert "the difference that remains is the model's" in text
    equal = simulate(scenario(POISSON, service(mean_s=0.05, workers=4), share=100, horizon_s=600.0))
    assert "load:" not in text_of(equal._repr_html_())


def test_assumptions_are_listed():
    scenario = Scenario.of(REQUEST, rate_per_s=1.0)
    html = scenario._repr_html_()
    assert f"Assumed ({len(scenario.assumptions)})" in html
    for sentence in scenario.assumptions:
        assert sentence in text_of(html)


def test_a_scenario_shows_its_traffic_and_pools(run):
    rows = table(run.scenario._repr_html_())
    assert list(rows) == ["run", "traffic", "source", "shadow"]
    assert rows["traffic"] == ["Poisson, 20 requests/s"]
    assert rows["shadow"][0].endswith("gets 50 % of the requests")  # a line of its own in a terminal


def test_an_experiment_shows_its_request():
    rows = table(Experiment.from_request(REQUEST | {"Description": EVIL})._repr_html_())
    assert rows["description"] == [EVIL]
    assert rows["source"] == ["Source: model model-Source on 1 x ml.m5.xlarge"]
    assert "total cost" in rows


def test_a_size_names_the_cheapest_and_shows_sentences_below_its_rows():
    html = Sheet(size_frame())._repr_html_()
    assert "shadow: 3 × ml.c5.xlarge, 100.00 USD" in html
    parser = CardParser(html)
    assert parser.rows[:3] == [
        ["type", "instances", "p99", "USD"],
        ["ml.c5.xlarge", "3", "220 ms ± 4.00 ms", "100.00"],
        ["one fewer: p99 0.3 s"],
    ]
    assert parser.bold[4:8] == [True] * 4
    assert parser.rows[-1] == [f"note: {EVIL}"]
    assert "No type meets the goals" in card(size_frame().iloc[2:])


def test_a_plan_names_the_cheapest_that_reaches_the_power():
    html = card(plan_frame())
    assert "cheapest: 50 % for 1 h, 2.00 USD, power 85.0 % ± 6.0 %" in html
    assert "All rows: how: simulated." in html
    assert "often enough" in card(plan_frame().assign(reaches=False))


def test_a_sheet_makes_ordinary_frames():
    sheet = Sheet(size_frame())
    assert type(sheet[sheet["p99_s"] > 0.1]) is pd.DataFrame
    assert type(sheet[["p99_s"]]) is pd.DataFrame
    pd.testing.assert_frame_equal(pd.DataFrame(sheet), size_frame())
    assert "card" not in repr(sheet)


@pytest.mark.parametrize("which", ["result", "scenario", "experiment", "size", "plan"])
def test_cards_are_plain_escaped_and_readable_on_any_background(which, run, monkeypatch):
    if which == "result":
        frames = {name: getattr(run, name).assign() for name in ("windows", "latency", "requests")}
        for frame in frames.values():
            frame["variant"] = frame["variant"].replace({"Shadow": EVIL})
        # AWS allows no such name, but a card must not rely on that.
        html = shadowsim.Result(run.scenario, **frames)._repr_html_()
    else:
        evil = REQUEST | {"Description": EVIL}
        make = {
            "scenario": lambda: Scenario.of(evil, rate_per_s=1.0),
            "experiment": lambda: Experiment.from_request(evil),
        }
        make |= {"size": size_frame, "plan": lambda: plan_frame().assign(how=EVIL)}
        html = card(make[which]())
    parser = CardParser(html)
    assert parser.tags <= TAGS
    assert parser.attributes <= {"style", "colspan"}
    assert (EVIL in text_of(html)) == (which != "scenario")  # its card shows no description
    # Only badges have a background and a text colour.
    backgrounds = re.findall(r"background:([^;\"]+)", html)
    assert set(backgrounds) <= {"none", *BADGES.values()}
    assert len(re.findall(r"[;\"]color:", html)) == len([g for g in backgrounds if g != "none"])


def test_badges_are_legible():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in BADGES.values():  # WCAG 2.1, 1.4.3: 4.5 to 1
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_half_a_surrogate_pair_does_not_stop_a_card():
    experiment = Experiment.from_request(REQUEST)
    card(replace(experiment, name="a\ud800b")).encode()


def test_anything_else_is_refused():
    with pytest.raises(InputError, match="thing"):
        card(pd.DataFrame({"x": [1]}))
