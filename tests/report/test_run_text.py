"""The text table of a run: which figures it leaves out."""

from aa_pairs import alike

from shadowsim import default_scenario, replicate, simulate
from shadowsim.report.card import card
from shadowsim.report.run_page import html
from shadowsim.report.run_text import results_object, results_text, summary_table
from shadowsim.verdict import uncertain_quantiles


def test_a_run_of_few_relaxation_times_shows_no_p99():
    few, many = (summary_table(simulate(alike("exponential", load, 25_000, 1))) for load in (0.9, 0.5))
    for label in ("p99 ", "p99.9 "):
        (line,) = [line for line in few.splitlines() if line.strip().startswith(label)]
        assert line.split() == [label.strip(), "-", "-"]
        assert line not in many
    assert next(line for line in few.splitlines() if line.strip().startswith("p95")).count("ms") >= 2
    assert "beyond p95 100" in few
    assert "beyond p95 100" not in many


def test_the_rule_of_uncertain_quantiles():
    names = {"p50_s", "p90_s", "p95_s", "p99_s", "p99_9_s"}

    def uncertain(load, n):
        run = simulate(alike("exponential", load, n, 1))
        return uncertain_quantiles(run.windows, run.scenario)["Source"]

    # at load 0.9 a relaxation time is 0.1 s / 4 / (1 - sqrt 0.9)^2 = 9.5 s, in which 342 requests arrive
    assert uncertain(0.9, 3_000) == names
    assert uncertain(0.9, 25_000) == {"p99_s", "p99_9_s"}
    assert uncertain(0.9, 40_000) == frozenset()
    assert uncertain(0.5, 10_000) == {"p99_9_s"}  # ten answers beyond
    assert uncertain(1.2, 25_000) == frozenset()  # marked instead


def test_page_card_and_replications_leave_out_uncertain_quantiles():
    run = simulate(alike("exponential", 0.9, 25_000, 1))
    p99, p95 = (f"{1e3 * run.summary()[name].iloc[0]:.3g}" for name in ("p99_s", "p95_s"))
    page, shown = html(run), str(card(run))
    figures = page[page.index('aria-labelledby="figures"') : page.index('aria-labelledby="cost"')]
    for text in (figures, shown):
        assert p95 in text
        assert p99 not in text
    p99_line = next(x for x in results_text(replicate(run.scenario, 3)).splitlines() if x.strip().startswith("p99 "))
    assert p99_line.count("+-") == 2


def test_json_has_the_actions_of_a_run():
    failing = {"horizon_s": 600, "shadow.outages": [{"instance": 1, "at_s": 120, "for_s": 60}]}
    run = simulate(default_scenario().replace(failing))
    (outage,) = results_object([run])["actions"]
    assert (outage["action"], outage["instance"], outage["time_s"], outage["done_s"]) == ("outage", 1, 120.0, 180.0)
    assert results_object([simulate(default_scenario().replace({"horizon_s": 600}))])["actions"] == []
    assert "actions" not in results_object([run, run])  # each run has its own
