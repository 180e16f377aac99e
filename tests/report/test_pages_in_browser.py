"""Pages of analyses in a real browser: all of a chart is seen, keys reach every control, and little paper is used."""

import itertools
import random
import re

import pandas as pd
import pytest
from browsing import WAIT_MS, browser, opened
from cases import scenario
from timing_files import document

from shadowsim import compare_benchmarks, simulate
from shadowsim.report import analysis_page, run_page
from shadowsim.report.measured_analyses import benchmarks_analysis
from shadowsim.testing.benchmark_files import read_timings

LONG = "benchmarks/test_speed.py::test_the_speed_of_least_outstanding_requests[512-instances-1000]"
SETTINGS = ("sampling_percentage", "shadow.instance_count", "shadow.time.mean_s")
# Texts of charts that reach out of their chart, or over another text
FAULTS = """() => [...document.querySelectorAll(".chart")].flatMap((chart) => {
  const box = chart.getBoundingClientRect();
  const texts = [...chart.querySelectorAll("text")].filter((text) => text.textContent.trim() && text.checkVisibility())
    .map((text) => [text.textContent, text.getBoundingClientRect()]);
  const out = texts.filter(([, b]) => b.left < box.left - 1 || b.right > box.right + 1 || b.bottom > box.bottom + 1);
  const common = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]);
  const touch = (a, b) => common(a, b, "left", "right") > 2 && common(a, b, "top", "bottom") > 4;
  const over = texts.flatMap(([text, a], i) =>
    texts.slice(0, i).filter(([, b]) => touch(a, b)).map(([other]) => `${other} under ${text}`));
  return [...out.map(([text]) => text), ...over];
})"""
NAMED = """(x) => [x.closest("figure")?.querySelector("h2").textContent, x.getAttribute("aria-label") ?? x.textContent]
  .join(" ")"""

# The bar of buttons, which appears when one has the focus
SEEN = """() => {
  const bar = document.activeElement.closest(".modebar");
  return !bar || getComputedStyle(bar).opacity === "1";
}"""
HEIGHTS = "[...document.querySelectorAll('.chart')].map((chart) => chart.clientHeight)"


def swept():
    """Return a frame of a sweep over three settings, with overloaded cells side by side."""
    rows = []
    for values in itertools.product([50, 100], [1, 2, 3, 4], [0.02, 0.06]):
        share, n, mean_s = values
        for role, used in (("source", 0.4), ("shadow", 1.25 * share * mean_s / n)):
            verdict = "OVERLOADED" if used >= 1.0 else "STABLE"
            times = {"mean_s": mean_s, "p50_s": mean_s, "p99_s": 3.0 * mean_s, "p99_9_s": 4.0 * mean_s}
            rows.append(
                dict(zip(SETTINGS, values, strict=True))
                | {"replication": 0, "role": role, "verdict": verdict, **times, "maximum_s": 1.0}
                | {"utilisation": min(used, 1.0), "error_rate": 0.0, "run_verdict": verdict}
            )
    frame = pd.DataFrame(rows)
    cell = frame.groupby(frame.index // 2)["verdict"].transform(lambda verdicts: verdicts.iloc[1])
    return frame.assign(run_verdict=cell)


def planned():
    """Return a frame of a plan that finds the effect in all designs, whose map is low."""
    designs = itertools.product([50, 100], [1800.0, 3600.0])
    rows = [{"sampling_percentage": share, "duration_s": s, "cost_usd": share * s / 1e5} for share, s in designs]
    certain = {"power": 1.0, "power_error": 0.0, "false_alarm": 0.0, "false_alarm_error": 0.0, "reaches": True}
    return pd.DataFrame(rows).assign(
        **certain, visible_pct=1.0, shadow_instances=2, how="simulated", simulated_h=1.0, note=""
    )


def timed():
    """Return the page of a comparison of benchmarks with long names."""
    draw = random.Random(1)
    sides = []
    for slower in (1.0, 1.3):
        whole = document([slower * draw.uniform(0.9, 1.1) for _ in range(10)], LONG)
        for name in ("test_plain.py::test_short", "test_tokens.py::test_prefixes[4000]"):
            whole["benchmarks"] += document([draw.uniform(0.9, 1.1) for _ in range(10)], name)["benchmarks"]
        sides.append(read_timings(whole, "old"))
    return benchmarks_analysis(compare_benchmarks(*sides), *sides, 5.0)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The files of the pages by name."""
    folder = tmp_path_factory.mktemp("pages")
    kinds = {"sweep": swept(), "plan": planned(), "benchmarks": timed()}
    files = {name: analysis_page.write(thing, folder / f"{name}.html") for name, thing in kinds.items()}
    service = {"time": {"law": "exponential", "mean_s": 0.05}, "workers": 4}
    run = simulate(scenario({"process": "poisson", "rate_per_s": 20.0}, service, horizon_s=610.0))
    files["run"] = run_page.write(run, folder / "run.html")  # with charts of two panels
    return {name: file.as_uri() for name, file in files.items()}


@pytest.fixture(scope="module")
def chrome():
    with browser() as running:
        yield running


def drawn(page):
    page.locator("html[data-charts=drawn]").wait_for(timeout=WAIT_MS)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("name", ["sweep", "plan", "benchmarks", "run"])
def test_all_texts_of_charts_are_seen_and_the_page_fits(chrome, pages, name, width):
    with opened(chrome, pages[name], width=width) as page:
        drawn(page)
        assert page.locator(".chart text").count() > 5
        assert page.evaluate(FAULTS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_all_controls_of_an_analysis_are_reached_by_keyboard(chrome, pages):
    with opened(chrome, pages["sweep"]) as page:
        drawn(page)
        controls = page.evaluate(
            f"[...document.querySelectorAll('button, summary, a, .scroll, details[open] pre')].map({NAMED})"
        )
        assert len(set(controls)) == len(controls) > 4 * 4
        reached = set()
        for _ in controls:
            page.keyboard.press("Tab")
            name, outline = page.evaluate(
                f"[({NAMED})(document.activeElement), getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert outline == "solid", name
            for _ in range(WAIT_MS // 50):  # the page's policy forbids playwright's own waiting
                if page.evaluate(SEEN):
                    break
                page.wait_for_timeout(50)
            assert page.evaluate(SEEN), name
            reached.add(name)
        assert reached == set(controls)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most_sheets"), [("sweep", 2), ("plan", 1), ("run", 4)])
def test_a_page_is_printed_on_few_sheets_and_then_drawn_again(chrome, pages, name, most_sheets):
    with opened(chrome, pages[name], color_scheme="dark") as page:
        drawn(page)
        before = page.evaluate(HEIGHTS)
        noted = f"window.printed = {HEIGHTS}; window.faults = ({FAULTS})();"
        page.evaluate(f"() => addEventListener('beforeprint', () => {{ {noted} }})")
        n_sheets = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", prefer_css_page_size=True)))
        assert n_sheets <= most_sheets
        assert page.evaluate("faults") == []
        assert all(paper < screen for paper, screen in zip(page.evaluate("printed"), before, strict=True))
        assert page.evaluate(HEIGHTS) == before
