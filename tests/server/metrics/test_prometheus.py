"""Prometheus metrics: samples as Prometheus parses them, and counters that only grow."""

from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import endpoint, served

from shadowsim.frames import LOST_CAUSES, SERVER_CRASH, SERVER_LAG
from shadowsim.server.data_plane import counts
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.counts import BOUNDS_S, Series
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.metrics.prometheus import SLICE_CHARACTERS, family_text, prometheus_slices


def scraped(live, captures=None):
    """Return {(sample, labels except endpoint): value} of an endpoint, as Prometheus' own parser reads it."""
    captures = captures or CaptureWriter(None, Random(1))
    text = b"".join(prometheus_slices({"e": live}, captures, LoopClock())).decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    values = {}
    for sample in (sample for family in families for sample in family.samples):
        assert sample.labels.pop("endpoint", "e") == "e"  # the lag is the server's
        values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return values


def test_counters_do_not_decrease_when_the_oldest_minutes_are_dropped(monkeypatch):
    monkeypatch.setattr(counts, "KEPT_PERIODS", 3)
    live, before = endpoint("e"), {}
    live.series["v"] = Series()
    live.shadows.add("v")
    for minute in range(10):
        outcome = "answered" if minute % 2 else "error_5xx"
        live.series["v"].add(served(60.0 * minute, 0.002 * minute, outcome, is_copy=True))
        live.series["v"].lose(60.0 * minute, "max_per_s")
        now = scraped(live)
        assert all(now[key] >= value for key, value in before.items())
        before = now
    labels = (("role", "shadow"), ("variant", "v"))
    assert before["shadowsim_invocations_total", labels] == 10
    assert before["shadowsim_model_errors_total", labels] == 5
    assert before["shadowsim_model_latency_seconds_count", labels] == 10
    assert before["shadowsim_model_latency_seconds_sum", labels] == pytest.approx(0.09)
    assert len(live.series["v"].periods) == 3


def test_buckets_count_latencies_up_to_their_bound():
    live, random = endpoint("e"), Random(3)
    live.series["v"] = Series()
    latencies = [*BOUNDS_S, *(random.expovariate(1.0) for _ in range(200)), 100.0]
    for latency_s in latencies:
        live.series["v"].add(served(0.0, latency_s))
    values = scraped(live)
    for bound in (*BOUNDS_S, float("inf")):
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        labels = (("le", text), ("role", "source"), ("variant", "v"))
        assert values["shadowsim_model_latency_seconds_bucket", labels] == sum(x <= bound for x in latencies)


def test_counters_without_events_are_zero_and_not_absent():
    """A rate over a counter that appears with its first event misses that event."""
    live = endpoint("e")
    live.series["v"] = Series()
    live.shadows.add("v")
    values = scraped(live)
    causes = {dict(labels)["cause"] for name, labels in values if name == "shadowsim_copies_lost_total"}
    assert causes == {*LOST_CAUSES, SERVER_LAG, SERVER_CRASH}
    assert values["shadowsim_captures_lost_total", ()] == 0
    assert set(values.values()) == {0}


def test_a_promotion_leaves_what_was_counted_before_as_it_was():
    live = endpoint("e")
    series = live.series["v"] = Series()
    live.shadows.add("v")
    for _ in range(56):
        series.add(served(0.0, is_copy=True))
    series.lose(0.0, "max_per_s")
    before = scraped(live)
    live.shadows.remove("v")
    promoted = scraped(live)
    assert before.items() <= promoted.items()
    assert {value for key, value in promoted.items() if ("role", "source") in key[1]} == {0}
    for _ in range(7):
        series.add(served(60.0))
    after = scraped(live)
    assert before.items() <= after.items()
    counted = [after["shadowsim_invocations_total", (("role", r), ("variant", "v"))] for r in ("shadow", "source")]
    assert counted == [56, 7]
    assert [key for key in after if key[0] == "shadowsim_copies_lost_total" and ("role", "source") in key[1]] == []


def many(n):
    """Return endpoints in no order, each with a source and a shadow that have served, and one with many variants."""
    lives = {f"e-{i:04}": endpoint(f"e-{i:04}") for i in Random(5).sample(range(n), n)}
    for name, live in lives.items():
        variants = [f"v-{i}" for i in range(n if name == "e-0000" else 2)]
        live.shadows.add("v-1")
        for variant in variants:
            series = live.series[variant] = Series()
            series.add(served(0.0, 0.37, "error_5xx", is_copy=variant == "v-1"))
            series.totals["shadow" if variant == "v-1" else "source"].captured_records = 12_345_678  # has an exponent
    return lives


def test_slices_are_short_and_make_one_page_whose_families_are_described_once():
    lives, captures = many(200), CaptureWriter(None, Random(1))
    slices = list(prometheus_slices(lives, captures, LoopClock()))
    lines_of_a_variant = 200 * (len(BOUNDS_S) + 3)
    assert max(map(len, slices)) < SLICE_CHARACTERS + lines_of_a_variant
    families = list(text_string_to_metric_families(b"".join(slices).decode()))
    assert len({family.name for family in families}) == len(families) == 9
    (invocations,) = (family for family in families if family.name == "shadowsim_invocations")
    labels = [(s.labels["endpoint"], s.labels["role"], s.labels["variant"]) for s in invocations.samples]
    assert labels == [
        (name, "shadow" if variant == "v-1" else "source", variant)
        for name in sorted(lives)
        for variant in sorted(lives[name].series)
    ]
    assert {sample.value for sample in invocations.samples} == {1}


def test_lines_are_written_as_prometheus_own_library_writes_them():
    captures = CaptureWriter(None, Random(1))
    captures.n_lost["e-0001"] = captures.n_lost["gone"] = 3
    text = b"".join(prometheus_slices(many(3), captures, LoopClock()))
    families = list(text_string_to_metric_families(text.decode()))
    assert b"".join(map(family_text, families)) == text
