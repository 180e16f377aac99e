"""The live page in a real browser: a rehearsal is watched, changed and stopped from it."""

import asyncio
import json
import logging
import re
from pathlib import Path
from threading import Event, Thread

import pytest
from browsing import WAIT_MS, browser, opened, shown
from serving import KEYS, ROLE, create_models, serving, until, variant

from shadowsim.scenario.service import parse_service
from shadowsim.server.page import looks
from shadowsim.server.page.comparing import found
from shadowsim.server.page.looks import LookPlan

PAPER_PX = 703  # an A4 sheet of 210 mm less its margins, at 96 pixels to the inch
EVIL = "</script><img src=x onerror=alert(1)>"
# Text against the ground that it stands on (WCAG 2.2, 1.4.3), and graphics against theirs (1.4.11)
CONTRASTS = """() => {
  const parse = (text) => {
    const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number);
    return {r, g, b, a: a ?? 1};
  };
  const channel = (x) => { const c = x / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = (c) => 0.2126 * channel(c.r) + 0.7152 * channel(c.g) + 0.0722 * channel(c.b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.a === 1) return colour;
    }
    throw Error("no ground");
  };
  const ratio = (a, b) => {
    const [x, y] = [light(parse(a)), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const style = getComputedStyle(node), isDrawn = node instanceof SVGElement;
    if (!node.checkVisibility() || node.closest("dialog:not([open])")) continue;
    const name = `${node.tagName}#${node.id}.${node.getAttribute("class")}`;
    const ownText = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const colour = isDrawn ? style.fill : style.color;
    if (ownText || node.tagName === "INPUT") found.push([ratio(colour, ground(node)), 4.5, name]);
    if (node.matches("path")) found.push([ratio(style.stroke, ground(node)), 3, name]);
  }
  return found;
}"""


NAMED = (
    "(x) => x.id || x.getAttribute('href') || x.getAttribute('aria-labelledby')"
    " || x.closest('figure')?.querySelector('h3').textContent || x.getAttribute('aria-label') || x.textContent"
)


@pytest.fixture(scope="module")
def chrome():
    with browser() as running:
        yield running


def services(slower=3.0):
    def service(mean_s):
        return parse_service({"time": {"law": "lognormal", "mean_s": mean_s, "scv": 0.1}, "workers": 4}, "services")

    return {"AllTraffic": service(0.005), "Shadow-01": service(0.005 * slower)}


class Calls:
    """Calls of an endpoint by a thread, one after another."""

    def __init__(self, server):
        self._ended, self._invoke = Event(), server.invoke
        self._thread = Thread(target=self._call, daemon=True)
        self._thread.start()

    def _call(self):
        while not self._ended.wait(0.005):
            self._invoke(Body=b"[1, 2]")

    def end(self):
        self._ended.set()
        self._thread.join(20.0)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server with a running experiment that is called."""
    with serving(tmp_path_factory.mktemp("page"), services=services()) as server:
        server.experiment("ranker", percentage=50, Description=EVIL)
        calls = Calls(server)
        yield server
        calls.end()


def test_a_rehearsal_is_watched_changed_and_stopped(chrome, tmp_path, monkeypatch):
    async def answer(folder):  # without a process, whose start takes seconds
        return json.dumps(await asyncio.to_thread(found, Path(folder))).encode()

    monkeypatch.setattr(looks, "_answer", answer)
    monkeypatch.setattr(LookPlan, "of", classmethod(lambda cls, length_s: cls(24.0, (0.25, 1.0))))
    with serving(tmp_path, services=services()) as server, opened(chrome, f"{server.url}/") as page:
        shown(page, "empty", "No experiment yet")
        sagemaker = server.experiment("ranker", percentage=50, Description=EVIL)
        calls = Calls(server)
        try:
            shown(page, "name", "^ranker$")
            shown(page, "status", "^Running$")
            assert page.locator("#description").inner_text() == EVIL
            assert page.locator("main img, main script").count() == 0
            shown(page, "sides", r"requests\s*\d{2,}\s*\d{2,}")
            shown(page, "copies", r"achieved share\s*[3-6]\d")
            page.locator("#charts path.shadow").first.wait_for(timeout=WAIT_MS)

            page.fill("#share", "100")
            page.click("#apply")
            shown(page, "done", "The update was accepted")
            until(lambda: sagemaker.describe_inference_experiment(Name="ranker")["Status"] == "Running")
            config = sagemaker.describe_inference_experiment(Name="ranker")["ShadowModeConfig"]
            assert config["ShadowModelVariants"][0]["SamplingPercentage"] == 100
            shown(page, "copies", r"configured share\s*100 %")

            page.fill("#end", "2020-01-01T00:00:00")
            page.click("#apply")
            shown(page, "refused", "ValidationException: .*schedule.endTime")

            shown(page, "headline", r"^Worse: p50 \(\+[\d.]+ ")
            shown(page, "early", "Stop early\\? Yes: the shadow is certainly worse in p50")
            shown(page, "look", "^Look 1 of 2, 6 s after the start")

            page.click("#stop")
            page.check("input[value=promote]")
            assert page.locator("#fates").inner_text() == "AllTraffic: Remove, Shadow-01: Promote"
            page.fill("#why", EVIL)
            page.click("#confirm")
            shown(page, "status", "^Completed$")
            shown(page, "reason", re.escape(EVIL))
            assert page.locator("#stop").is_disabled()
        finally:
            calls.end()
        answer = sagemaker.describe_inference_experiment(Name="ranker")
        assert (answer["Status"], answer["StatusReason"]) == ("Completed", EVIL)
        assert server.invoke(Body=b"[1]")["InvokedProductionVariant"] == "Shadow-01"


def test_a_scheduled_experiment_is_started_with_credentials_on(chrome, tmp_path, caplog):
    secrets = {KEYS["aws_access_key_id"]: KEYS["aws_secret_access_key"]}
    with serving(tmp_path, secrets=secrets) as server, caplog.at_level(logging.INFO):
        sagemaker = server.client("sagemaker")
        create_models(sagemaker, "a", "b")
        shadow = {"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": 10}
        sagemaker.create_inference_experiment(
            Name="later",
            Type="ShadowMode",
            RoleArn=ROLE,
            EndpointName="endpoint",
            Schedule={"StartTime": server.store.clock.now() + 3600.0},
            ModelVariants=[variant("AllTraffic", "a"), variant("Shadow-01", "b")],
            ShadowModeConfig={"SourceModelVariantName": "AllTraffic", "ShadowModelVariants": [shadow]},
        )
        link = server.app.page_link
        with opened(chrome, link) as page:
            assert page.url == f"{server.url}/"  # the key is in no history
            shown(page, "status", "^Created$")
            assert page.evaluate("document.cookie") == ""
            page.click("#start")
            shown(page, "status", "^Running$")
            shown(page, "done", "The start was accepted")
        assert f"the next one can by {server.app.page_link}" in caplog.text
        page = chrome.new_context().new_page()
        assert page.goto(link).status == 403
        assert page.goto(server.url).status == 403
        assert "Open the link that the server printed" in page.inner_text("body")
        page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_the_page_fits(chrome, watched, scheme, width):
    with opened(chrome, f"{watched.url}/#ranker", width=width, color_scheme=scheme) as page:
        page.locator("#charts path.shadow").first.wait_for(timeout=WAIT_MS)
        page.click("#figures summary")
        page.fill("#end", "2020-01-01T00:00:00")
        page.click("#apply")
        shown(page, "refused", "ValidationException")
        contrasts = page.evaluate(CONTRASTS)
        page.click("#stop")
        contrasts += page.evaluate(CONTRASTS)
        assert len(contrasts) > 150
        assert [entry for entry in contrasts if entry[0] < entry[1]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 380) == (scheme == "light")


@pytest.mark.slow
def test_a_service_in_tokens_has_charts_of_the_first_token(chrome, tmp_path, watched):
    tokens = {"prompt": 20, "output": 5, "max_sequences": 8, "max_step_tokens": 200, "kv_tokens": 10_000}
    steps = {"AllTraffic": 0.004, "Shadow-01": 0.012}
    kinds = {
        name: parse_service({"tokens": {**tokens, "step": {"base_s": base_s}}}, "services")
        for name, base_s in steps.items()
    }
    with serving(tmp_path, services=kinds) as server:
        server.experiment("ranker", percentage=100)
        calls = Calls(server)
        try:
            with opened(chrome, f"{server.url}/") as page:
                for quantile in ("p50", "p99"):
                    title = f"Time to the first token, {quantile}"
                    chart = page.locator("#charts figure", has=page.get_by_role("heading", name=title))
                    for role in ("source", "shadow"):  # a level line has no height, and is not visible to the browser
                        chart.locator(f"path.{role}").wait_for(state="attached", timeout=WAIT_MS)
                    assert re.match(
                        f"{title}, last: source .+, shadow ", chart.locator("svg").get_attribute("aria-label")
                    )
                    shown(page, "sides", f"first token {quantile}")
                page.click("#figures summary")
                heads = page.locator("#figure-table th[scope=col]").all_inner_texts()
                assert {f"Time to the first token, p99, {role}" for role in ("source", "shadow")} <= set(heads)
                until(lambda: server.n_served("Shadow-01") >= 20)
                row = page.locator("#sides tr", has=page.get_by_role("rowheader", name="first token p50"))
                source, shadow = (float(cell.removesuffix(" ms")) for cell in row.locator("td").all_inner_texts())
                assert source >= 1e3 * steps["AllTraffic"] * 0.99  # buckets are 0.8 % wide
                assert shadow >= 1e3 * steps["Shadow-01"] * 0.99
        finally:
            calls.end()
    with opened(chrome, f"{watched.url}/#ranker") as page:
        page.locator("#charts path.shadow").first.wait_for(timeout=WAIT_MS)
        assert page.locator("#charts h3", has_text="first token").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_paper_has_the_charts_and_no_controls(chrome, watched, width):
    with opened(chrome, f"{watched.url}/#ranker", width=width, color_scheme="dark") as page:
        page.locator("#charts path.shadow").first.wait_for(timeout=WAIT_MS)
        page.click("#stop")
        page.emulate_media(media="print")
        page.set_viewport_size({"width": PAPER_PX, "height": 900})
        controls = (
            "[...document.querySelectorAll('a, button, input, summary, dialog')].filter((x) => x.checkVisibility())"
        )
        assert page.evaluate(f"{controls}.length") == 0
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        charts = page.evaluate(
            "[...document.querySelectorAll('#charts svg')].map((x) => x.getBoundingClientRect().toJSON())"
        )
        assert len(charts) >= 6
        assert all(chart["left"] >= 0.0 and chart["right"] <= PAPER_PX and chart["height"] > 100.0 for chart in charts)
        assert page.evaluate("document.documentElement.scrollWidth") <= PAPER_PX
        kept = page.evaluate(
            "[...document.querySelectorAll('#charts figure')].map((x) => getComputedStyle(x).breakInside)"
        )
        assert set(kept) == {"avoid"}
        page.emulate_media(media=None)
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", prefer_css_page_size=True))) <= 2


@pytest.mark.slow
def test_all_controls_are_reached_by_keyboard(chrome, watched):
    with opened(chrome, f"{watched.url}/#ranker") as page:
        page.locator("#charts path.shadow").first.wait_for(timeout=WAIT_MS)
        controls = page.evaluate(
            f"[...document.querySelectorAll('a, button, input, summary, svg, .scroll')]"
            f".filter((x) => x.checkVisibility() && !x.disabled).map({NAMED})"
        )
        assert len(controls) == len(set(controls)) > 12
        reached = {}
        for _ in range(len(controls) + 15):  # parts of a date are stops of their own
            page.keyboard.press("Tab")
            name, *outline = page.evaluate(
                f"(() => {{ const x = document.activeElement, s = getComputedStyle(x);"
                f" return [({NAMED})(x), s.outlineStyle, s.outlineWidth]; }})()"
            )
            reached[name] = outline
        assert set(controls) <= set(reached)
        assert {name: reached[name] for name in controls if reached[name] != ["solid", "2px"]} == {}

        page.focus("#charts svg")
        page.keyboard.press("Home")
        assert page.locator("#charts figcaption p").first.inner_text().startswith("at 0 s: source ")
        page.focus("#stop")
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "stop"
        page.focus("#share")
        page.keyboard.press("Control+A")
        page.keyboard.type("40")
        page.keyboard.press("Enter")
        shown(page, "done", "The update was accepted")
        until(lambda: watched.client("sagemaker").describe_inference_experiment(Name="ranker")["Status"] == "Running")


@pytest.mark.slow
def test_readers_hear_names_of_all_controls_and_parts(chrome, watched):
    with opened(chrome, f"{watched.url}/#ranker") as page:
        page.locator("#charts path.shadow").first.wait_for(timeout=WAIT_MS)
        heard = page.locator("body").aria_snapshot()
        for part in (
            'navigation "Experiments"',
            'heading "ranker Running"',
            'spinbutton "Share copied, %"',
            'textbox "End, UTC"',
            'button "Update"',
            'button "Stop …"',
            'columnheader "source"',
            'rowheader "p99 so far"',
            'img "Latency, p99, last: source',
            'progressbar "Part of the schedule that has passed"',
        ):
            assert part in heard, part
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3')].filter((x) => x.checkVisibility()).map((x) => +x.tagName[1])"
        )
        assert levels.count(1) == 1
        assert page.evaluate("document.querySelectorAll('[id]').length") == page.evaluate(
            "new Set([...document.querySelectorAll('[id]')].map((x) => x.id)).size"
        )


@pytest.mark.slow
def test_the_policy_blocks_what_is_not_the_pages_own(chrome, watched):
    page = chrome.new_context().new_page()
    said = []
    page.on("console", lambda line: said.append(line.text))
    page.goto(f"{watched.url}/")
    page.locator("#experiment").wait_for(timeout=WAIT_MS)
    harm = json.dumps(f"<img src='http://shadowsim.invalid/x.png' onerror='document.body.dataset.harm=1'>{EVIL}")
    for script in (
        f"document.body.innerHTML += {harm}",
        "document.head.append(Object.assign(document.createElement('script'), {textContent: 'location.hash = 1'}))",
        "await fetch('http://shadowsim.invalid/')",
    ):
        page.evaluate(f"async () => {{ try {{ {script}; }} catch {{ }} }}")
    until(lambda: page.evaluate("true") and len(said) >= 3)
    assert page.evaluate("document.body.dataset.harm") is None
    assert sum("Content Security Policy" in line or "TrustedHTML" in line or "Trusted" in line for line in said) >= 3
    page.context.close()


@pytest.mark.slow
def test_a_page_that_loses_its_server_says_so(chrome, tmp_path):
    with serving(tmp_path) as server:
        server.experiment("ranker")
        page = chrome.new_context().new_page()
        page.goto(f"{server.url}/")
        shown(page, "status", "^Running$")
    shown(page, "connection", "No connection to the server")
    page.click("#apply")
    page.fill("#share", "7")
    page.click("#apply")
    shown(page, "refused", "The server did not answer")
    page.context.close()


def test_numbers_have_three_digits_and_the_sign_of_print(chrome, watched):
    with opened(chrome, f"{watched.url}/") as page:
        said = page.evaluate("""async () => {
          const {change, minus, percent, significant, time, trimmed} = await import("/shadowsim/page/words.js");
          return [significant(29.96), significant(30), significant(0.0123), percent(0.05), time(0.0299),
            trimmed("2.50 %"), trimmed("0.500"), trimmed("100 ms"), change({unit: "s", ratio: 0.632}),
            minus("-7.1 to -2 at 2026-11-30")];
        }""")
    assert said == [
        *("30.0", "30", "0.0123", "5 %", "29.9 ms", "2.5 %", "0.5", "100 ms", "−36.8 %"),
        "−7.1 to −2 at 2026-11-30",
    ]
