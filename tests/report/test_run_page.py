"""The page of a run shows the run, cannot do harm, and a browser draws it without contacting a server."""

import itertools
import json
import re
import socketserver
import subprocess
import threading
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from browsing import chromium
from cases import REQUEST, scenario
from pages import figures_of, unpacked
from plotly.offline import get_plotlyjs

import shadowsim
from shadowsim import Result, cost, simulate
from shadowsim.frames import failures
from shadowsim.report import analysis_page
from shadowsim.report.card import card
from shadowsim.report.comparison_text import outcome_text
from shadowsim.report.run_page import html, write
from shadowsim.report.run_text import summary_table

EVIL = "</script><script>document.body.dataset.harm='1'</script><!--<img src=x onerror=alert(1)>\"'&"
POISSON = {"process": "poisson", "rate_per_s": 20.0}
VOID = {"meta", "link", "img", "br"}
N_CHARTS = 6
# A new profile of Chromium contacts its maker whatever the flags: for the time, updates, an account and hints.
CHROMIUM_HOSTS = (
    *("clients2.google.com", "update.googleapis.com", "accounts.google.com"),
    "optimizationguide-pa.googleapis.com",
)


def service(mean_s):
    return {"time": {"law": "exponential", "mean_s": mean_s}, "workers": 4}


@pytest.fixture(scope="module")
def run():
    return simulate(scenario(POISSON, service(0.05), horizon_s=610.0))


@pytest.fixture(scope="module")
def text(run):
    """The page of the run."""
    return html(run)


@pytest.fixture(scope="module")
def page(text):
    """The elements of the page of the run."""
    return Page(text)


@pytest.fixture(scope="module")
def overloaded():
    return simulate(scenario(POISSON, service(0.05), service(0.5), horizon_s=1200.0))


@pytest.fixture(scope="module")
def overloaded_text(overloaded):
    return html(overloaded)


@pytest.fixture(scope="module")
def overloaded_page(overloaded_text):
    return Page(overloaded_text)


@pytest.fixture(scope="module")
def evil():
    """A run whose request would do harm as HTML."""
    result = simulate(REQUEST | {"Description": EVIL, "Schedule": HOUR}, rate_per_s=5.0)
    # AWS allows no such tag, but the page must not rely on that.
    document = result.scenario.to_dict()
    document["experiment"]["Tags"] = [{"Key": "owner", "Value": EVIL}]
    return replace(result, scenario=replace(result.scenario, document=document))


HOUR = {"StartTime": "2031-01-06T00:00:00Z", "EndTime": "2031-01-06T01:00:00Z"}


class Page(HTMLParser):
    """Reads the elements of a page: (tag, attributes, text)."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        assert len(element[1]) == len(attrs), "an attribute is given twice"
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data.replace("\xa0", " ")  # which keeps numbers and their units together

    def all(self, tag, **attributes):
        return [e for e in self.elements if e[0] == tag and attributes.items() <= e[1].items()]

    def text(self, tag):
        return " ".join(e[2] for e in self.all(tag))


def cells(page, heading="figures"):
    """Return the table below a heading: {row: [cells]}."""
    page = page.partition(f'id="{heading}"')[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', page, re.DOTALL)
    return {name: re.findall('<td(?: class="(?:words|text)")?>(.*?)</td>', rest) for name, rest in rows}


def test_the_page_describes_the_run(run, page):
    assert page.all("html")[0][1] == {"lang": "en"}
    assert page.text("h1") == "case"
    assert "STABLE" in page.text("h2")
    main = page.text("main")
    for words in (
        "Traffic: Poisson, 20",
        "requests per second in the mean for 10 min 10 s, in 11 windows of 60 s",
        "Source has 1 × ml.m5.xlarge with 4 workers each",
        "50 % of the requests to Source are copied to Shadow",
        "the seed is 7",
        *(p.why.replace("`", "") for p in run.verdict.pools),
    ):
        assert re.sub(r"\s+", " ", words) in re.sub(r"\s+", " ", main), words
    assert f"shadowsim {shadowsim.__version__}" in page.text("footer")
    assert json.loads(page.text("pre")) == run.scenario.to_dict()


def test_the_table_is_the_summary(run, text):
    table, summary = cells(text), run.summary()
    assert table["requests"] == [f"{n:,}" for n in summary["requests"]]
    for name, column in (("mean", "mean_s"), ("p99", "p99_s"), ("maximum", "maximum_s"), ("mean wait", "wait_mean_s")):
        shown = [float(c.split(" ±")[0]) for c in table[name]]
        assert shown == pytest.approx([1e3 * x for x in summary[column]], rel=0.005)
    assert table["share copied"][1].endswith("of 50 %")
    assert "captured" not in table


def test_unequal_loads_stand_above_the_figures(run, page):
    note = run.compare().attrs["load"]["note"]
    section = page.all("section")[0][2]
    assert note in section
    assert "At the source's load (simulated: all requests to 1 instance, " in section


def test_the_comparison_is_the_results(run, text):
    compared = run.compare()
    table = cells(text, "comparison")
    assert list(table) == [metric.replace("_", " ") for metric in compared["metric"]]
    for row in compared.to_dict("records"):
        assert table[row["metric"].replace("_", " ")][-1] == outcome_text(row)
    row = compared.set_index("metric").loc["mean"]
    assert [float(x.removesuffix(" ms")) for x in table["mean"][:2]] == pytest.approx(
        [1e3 * row["source"], 1e3 * row["shadow"]], rel=0.005
    )
    drawn = figures_of(text)["comparison"]
    assert {name for trace in drawn["data"] for name in trace["y"]} == set(compared["metric"]) - {
        "paired_p5",
        "paired_p95",
    }


def test_the_cost_is_shown_and_unknown_prices_stay_unknown(run, text):
    table, total = cells(text, "cost"), cost(run.scenario)
    assert table["source instances"][:2] == ["168.0 instance-hours", "38.64"]
    assert table["instances in all"][1] == f"{total.instances_usd:,.2f}"
    assert table["with data"][1] == "unknown"


@pytest.mark.slow
def test_counts_and_captured_bytes_are_readable():
    sized = POISSON | {"request_bytes": 1_000, "response_bytes": 500}
    table = cells(html(simulate(scenario(sized, service(0.05), capture=True))))
    assert table["captured"][0].endswith(" MB")
    assert cells(html(simulate(scenario(POISSON, service(0.05), capture=True))))["captured"] == ["size not known"] * 2
    busy = simulate(scenario({"process": "constant", "rate_per_s": 100.0}, service(0.01), horizon_s=100.0))
    assert cells(html(busy))["requests"][0] == "10,000"


@pytest.mark.parametrize("which", ["page", "overloaded_page"])
def test_readers_who_cannot_see_and_keyboards_reach_everything(which, request):
    page = request.getfixturevalue(which)
    ids = [e[1]["id"] for e in page.elements if "id" in e[1]]
    assert len(ids) == len(set(ids))
    assert {e[1]["aria-labelledby"] for e in page.elements if "aria-labelledby" in e[1]} <= set(ids)
    scrolling = page.all("div", **{"class": "scroll"})
    assert len(scrolling) == len(page.all("table"))
    for _, attributes, _ in [*scrolling, *page.all("pre")]:
        assert attributes["tabindex"] == "0"
    assert all(attributes["aria-label"] for _, attributes, _ in scrolling)
    for _, attributes, _ in page.all("div", **{"class": "chart"}):
        assert attributes["role"] == "group"
        assert re.search(r"\d", attributes["aria-label"]), "an alternative has figures"
    assert all("scope" in attributes for _, attributes, _ in page.all("th"))
    levels = [int(e[0][1]) for e in page.elements if re.fullmatch("h[1-6]", e[0])]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_an_overloaded_pool_is_never_shown_without_that_word(overloaded_text, overloaded_page):
    text, page = overloaded_text, overloaded_page
    assert page.all("section")[0][1]["class"] == "verdict overloaded"
    assert "Shadow cannot keep up" in page.text("main")
    source, shadow, *others = (e[2] for e in page.all("th", scope="col"))
    assert "OVERLOADED" in shadow
    assert "OVERLOADED" not in source
    assert others[-6:-4] == ["source", "shadow, OVERLOADED"]
    marks = [e[2] for e in page.all("td", **{"class": "mark"})]
    assert marks[0] == ""
    assert "OVERLOADED" in marks[1]
    figures = figures_of(text)
    assert set(figures) == {"comparison", "latency", "waits", "distribution", "utilisation", "copies", "requests"}
    for key, figure in figures.items():
        shaded = [s for s in figure["layout"].get("shapes", []) if s["type"] == "rect"]
        # The comparison's rectangles are its margins. A pool that is overloaded all the time is named, not shaded.
        assert not shaded or key == "comparison"
        said = [a["text"] for a in figure["layout"].get("annotations", []) if "OVERLOADED" in a["text"]]
        assert said == ["Shadow OVERLOADED all the time"] * (key not in ("comparison", "distribution"))
    for gist in (e[1]["aria-label"] for e in page.all("div", role="group")):
        assert "ms" not in gist.split() or "Shadow (OVERLOADED)" in gist


@pytest.fixture(scope="module")
def evil_page(evil):
    return Page(html(evil))


def test_all_text_of_a_request_stays_text(evil_page):
    page = evil_page
    assert len(page.all("script")) == 4
    assert not page.all("img")
    assert page.all("p")[1][2] == EVIL
    assert json.loads(page.text("pre"))["experiment"]["Tags"][0]["Value"] == EVIL
    assert not [name for e in page.elements for name in e[1] if name.startswith("on")]


def test_the_assumptions_are_listed(evil, evil_page):
    main = evil_page.text("main")
    assert evil.scenario.assumptions
    for sentence in evil.scenario.assumptions:
        assert sentence in main


def test_half_a_surrogate_pair_does_not_stop_the_page(run, tmp_path):
    experiment = replace(run.scenario.experiment, description="a\ud800b")
    odd = replace(run, scenario=replace(run.scenario, experiment=experiment))
    assert "a?b" in write(odd, tmp_path / "page.html").read_text("utf-8")


def test_nothing_is_loaded_from_elsewhere(text, page):
    for _, attributes, _ in page.elements:
        assert not {"src", "srcset", "action", "data", "poster"} & set(attributes)
        assert attributes.get("href", "data:,").startswith("data:")
    style = page.text("style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (e[1]["content"] for e in page.all("meta", **{"http-equiv": "Content-Security-Policy"}))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert unpacked(text, "plotly") == get_plotlyjs()
    allowed = [b64encode(sha256(s.encode()).digest()).decode() for s in (get_plotlyjs(), page.all("script")[-1][2])]
    assert re.findall(r"'sha256-(.*?)'", policy) == allowed


@pytest.mark.slow
def test_the_page_is_a_function_of_the_result(run, text, tmp_path):
    assert html(Result.load(run.save(tmp_path / "run"))) == text
    file = write(run, str(tmp_path / "page.html"))
    assert file.read_bytes() == text.encode()


@pytest.mark.slow
def test_the_page_of_a_week_is_at_most_two_and_a_half_megabytes():
    traffic = {"process": "poisson", "rate_per_s": 0.5}
    week = simulate(scenario(traffic, service(0.05), horizon_s=604_800.0, sample_requests=10_000))
    assert len(week.windows) == 2 * 10_080
    text = html(week)
    assert len(text.encode()) <= 2_500_000


def test_pools_that_change_and_callers_that_retry_are_shown():
    policy = {"metric": "InvocationsPerInstance", "target": 300, "min": 1, "max": 4, "out_points": 1}
    s = scenario(
        POISSON | {"retries": "legacy"},
        service(0.05) | {"scaling": policy, "outages": [{"instance": 0, "at_s": 90.0, "for_s": 20.0}]},
        service(0.05) | {"batching": {"max_size": 4, "max_delay_s": 0.1, "marginal": 0.1}},
        horizon_s=300.0,
    )
    run = simulate(s)
    text, summary = html(run), run.summary()
    assert len(Page(text).all("figure")) == N_CHARTS + 4
    table = cells(text)
    assert table["success of callers"][0] == f"{100 * summary['success_rate'].iloc[0]:.3f} %"
    assert table["success of callers"][1] == "–"
    assert float(table["batch size"][1]) == pytest.approx(summary["batch_size_mean"].iloc[1], abs=0.005)
    assert f"Scaling actions and outages: {len(run.actions)}" in text
    failed = failures(run.windows)[(run.windows["role"] == "source").to_numpy()].sum()
    n = summary["requests"].iloc[0]
    assert f"Source: {100 * failed / n:.2f} % failed, at most " in Page(text).all("main")[0][2]
    assert re.search(r"Lowest and highest number of serving instances of a window. Source: \d to \d; ", text)
    assert "instance 0 fails, until 00:01:50" in text
    assert "Retries of callers: up to 5 attempts per request" in text
    assert "instances of Source served, by scaling and outages" in text
    shown = summary_table(run)
    for label in ("instances serving", "instance-hours", "batch size", "retries per request", "success of callers"):
        assert label in shown
        assert label in card(run)


@pytest.mark.parametrize(
    "case", ["no copies", "trace", *(pytest.param(c, marks=pytest.mark.slow) for c in ("one window", "no requests"))]
)
def test_pages_of_unusual_runs(case):
    trace = {"process": "trace", "path": "builtin:trace_small"}
    linear = {"time": {"law": "linear", "base_s": 0.05, "GeneratedTokens": 0.002}, "workers": 2}
    make = {
        "no copies": lambda: scenario(POISSON, service(0.05), share=0, horizon_s=180.0),
        "one window": lambda: scenario(POISSON, service(0.05), horizon_s=60.0),
        "trace": lambda: scenario(trace, linear, share=100, horizon_s=720.0),
        "no requests": lambda: scenario({"process": "poisson", "rate_per_s": 1e-9}, service(0.05), horizon_s=180.0),
    }
    text = html(simulate(make[case]()))
    assert "nan" not in re.sub("<script.*?</script>", "", text, flags=re.DOTALL).lower()
    assert len(Page(text).all("figure")) == N_CHARTS
    if case == "no copies":
        assert cells(text)["p99"][1] == "–"
    if case == "trace":
        assert "Traffic: a recorded trace" in text
        assert "linear in GeneratedTokens" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a function that opens a file in a real browser and returns the document, the console and the requests."""
    program = chromium()
    asked = []

    class Recorder(socketserver.StreamRequestHandler):
        def handle(self):
            line = self.rfile.readline().decode("latin-1").strip()
            if not re.match(rf"\w+ (https?://)?({'|'.join(map(re.escape, CHROMIUM_HOSTS))})[:/]", line):
                asked.append(line)

    # The browser sends all requests to this proxy, which never answers.
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Recorder) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --disable-dev-shm-usage --enable-logging=stderr --v=0 "
            f"--virtual-time-budget=8000 --proxy-server=127.0.0.1:{proxy.server_address[1]} --dump-dom"
        ).split()

        def open_file(file):
            asked.clear()
            profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
            command = [program, *flags, profile, file.as_uri()]
            process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
            console = [line for line in process.stderr.splitlines() if "CONSOLE" in line]
            return process.stdout, console, list(asked)

        yield open_file
        proxy.shutdown()


@pytest.mark.parametrize("which", [*(pytest.param(w, marks=pytest.mark.slow) for w in ("run", "overloaded")), "evil"])
def test_a_browser_draws_all_charts_and_contacts_no_server(which, browser, tmp_path, request):
    result = request.getfixturevalue(which)
    document, console, asked = browser(write(result, tmp_path / "page.html"))
    assert console == []
    assert asked == []
    assert document.count('class="main-svg"') >= N_CHARTS
    assert len(re.findall('class="trace scatter', document)) >= 10
    assert "data-harm" not in document
    assert ("Shadow OVERLOADED" in document) == (which == "overloaded")


@pytest.mark.slow
def test_a_browser_draws_an_analysis_and_contacts_no_server(run, browser, tmp_path):
    document, console, asked = browser(
        analysis_page.write(run.compare(), tmp_path / "page.html", scenario=run.scenario)
    )
    assert (console, asked) == ([], [])
    assert document.count('class="main-svg"') >= 1
    assert 'class="trace scatter' in document


@pytest.mark.slow
def test_the_policy_blocks_unescaped_scripts(run, browser, tmp_path):
    harm = "<script>document.body.dataset.harm='1'</script><img src='http://shadowsim.invalid/x.png'>"
    file = tmp_path / "page.html"
    text = html(run).replace("<main>", f"<main>{harm}", 1)
    file.write_text(text, "utf-8", newline="\n")
    document, console, asked = browser(file)
    assert "data-harm" not in document
    assert asked == []
    assert any("Content Security Policy" in line for line in console)
    # Without the policy the same page does harm, so this test can fail.
    file.write_text(re.sub("<meta http-equiv[^>]*>", "", text), "utf-8", newline="\n")
    document, _, asked = browser(file)
    assert "data-harm" in document
    assert any("shadowsim.invalid" in line for line in asked)
