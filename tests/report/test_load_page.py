"""What the page of a load run says on top, and which charts it has."""

import re

from loading import answering, service

import shadowsim as ss
from shadowsim.measuring.generator.saturation import GeneratorLimits
from shadowsim.report import load_page

LENIENT = GeneratorLimits(lag_s=20.0, dropped=0.0, cpu=100.0)  # a test must not depend on a busy machine


def page_of(status=200, **more):
    with service(answering(status)) as target:
        run = ss.load(target.url, rate_per_s=100.0, duration_s=0.3, seed=4, **more)
    return run, load_page.html(run)


def answer_of(html):
    return re.search(r"<main.*?</section>", html, re.DOTALL)[0].replace("\xa0", " ")


def test_latencies_are_the_answer():
    run, html = page_of(limits=LENIENT)
    said = answer_of(html)
    assert "Valid" in said
    assert "error rate 0.00 %" in said
    assert re.search(r"Latency p50 [\d.]+ (us|µs|ms|s), p95 .*, p99 .* at [\d.]+/s", said)
    assert all(f'"{name}"' in html for name in ("load-latency", "load-quantiles", "load-rate"))
    assert f"{len(run.requests)} requests planned, {len(run.requests)} sent" in html


def test_an_invalid_run_has_no_chart_of_the_generators_own_latencies():
    _, html = page_of(limits=GeneratorLimits(lag_s=0.0))
    assert "Invalid" in answer_of(html)
    assert "Latency p50" not in html
    assert '"load-rate"' in html
    assert '"load-latency"' not in html
    assert '"load-quantiles"' not in html


def test_a_run_of_which_all_fails_says_so():
    run, html = page_of(503, limits=LENIENT)
    assert run.error_rate == 1.0
    assert "error rate 100.00 %" in answer_of(html)
    assert "nan" not in answer_of(html).lower()
