"""Frames of runs in tokens, through `simulate`: equal to the oracle's figures, saved, and the same on all workers."""

from pathlib import Path

import naive
import naive_tokens as tokens
import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

import shadowsim as ss
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.replicate import replicate, summarise
from shadowsim.frames import FIRST_TOKEN, LATENCY_MEASURE, MEASURES, PER_TOKEN, TIME_COLUMNS, TOKEN_WINDOWS, of_measure
from shadowsim.report.run_text import results_text
from shadowsim.text import percent, time_text

STEP = {"base_s": 0.02, "per_prefill_token_s": 0.0005, "per_sequence_s": 0.002, "per_kv_token_s": 1e-5}
SERVED = {
    "prompt": {"law": "lognormal", "mean_tokens": 60, "scv": 0.5},
    "output": {"law": "gamma", "mean_tokens": 40, "scv": 0.7},
    "max_sequences": 16,
    "max_step_tokens": 64,
    "kv_tokens": 900,
    "step": STEP,
    "before_s": 0.01,
    "after_s": 0.02,
    "on_timeout": "abort",
}
PAIRS = [{"ttft_s": 0.5, "tpot_s": 0.05}, {"ttft_s": 2.0, "tpot_s": 0.06}]
POISSON = {"process": "poisson", "rate_per_s": 6.0}
PREFIX = {"length": 40, "groups": 5, "cache_tokens": 100}


def token_run(source=None, shadow=None, **more):
    source, shadow = source or {"tokens": SERVED}, shadow or {"tokens": SERVED | {"kv_tokens": 600}}
    run = {"horizon_s": 130.0, "period_s": 20.0, "seed": 5, "goodput": PAIRS} | more
    return scenario(POISSON, source, shadow, share=60, endpoint={"timeout_s": 4.0}, **run)


def oracle(s):
    arrivals = arrivals_of(s)
    servers = [
        None if side.service.tokens is None else tokens.server_of(side.service.tokens)
        for side in map(s.side, ("source", "shadow"))
    ]
    c = columns(s, arrivals)
    return c, servers, tokens.simulate(c, arrivals, *servers)[:2]


def check_windows(c, windows, history, server):
    exact = np.testing.assert_array_equal
    exact(windows["output_tokens"], history.tokens_by_window[: c.n_windows])
    exact(windows["prefill_tokens"], history.prefill_by_window[: c.n_windows])
    exact(windows["preemptions"], history.preemptions_by_window[: c.n_windows])
    reached = [a for a in history.attempts if not a.status.startswith("lost")]
    sequences = [history.sequences[a.number, a.attempt] for a in reached]
    window = np.array([naive.window_of(c, a.arrival) for a in reached])
    for measure, attribute in ((FIRST_TOKEN, "first_token_s"), (PER_TOKEN, "per_token_s")):
        values, name = np.array([getattr(x, attribute) for x in sequences]), TIME_COLUMNS[measure]
        for w, row in windows.reset_index(drop=True).iterrows():
            here = values[(window == w) & ~np.isnan(values)] * 1e6
            assert row[f"{name}_SampleCount"] == here.size
            assert (row[f"{name}_Minimum"], row[f"{name}_Maximum"]) == (here.min(), here.max())
            assert row[f"{name}_Average"] == pytest.approx(here.mean(), rel=1e-12)
            assert row[f"{name}_p50"] == pytest.approx(np.quantile(here, 0.5, method="inverted_cdf"), rel=0.008)
    for i, pair in enumerate(PAIRS, start=1):
        good = np.array([x.is_good(pair["ttft_s"], pair["tpot_s"]) for x in sequences])
        exact(windows[f"goodput_{i}"], np.bincount(window, good, c.n_windows))
    for w, (running, used) in enumerate(zip(windows["running_sequences_mean"], windows["cache_use_mean"], strict=True)):
        sampled = np.array(history.batches_sampled[w], float)
        assert running == sampled[:, 0].mean()
        assert used == pytest.approx(sampled[:, 1].mean() / server.blocks, rel=1e-12)
    greatest = [max(n for n, _ in history.batches_sampled[w]) for w in range(c.n_windows)]
    exact(windows["running_sequences_maximum"], greatest)


def check_prefixes(c, windows, requests, history):
    exact = np.testing.assert_array_equal
    exact(windows["prefix_queried_tokens"], history.queried_by_window[: c.n_windows])
    exact(windows["prefix_hit_tokens"], history.hit_by_window[: c.n_windows])
    cached = [history.sequences[row.request, row.attempt].cached for row in requests.itertuples()]
    exact(requests["cached_tokens"].to_numpy(float, na_value=np.nan), cached)


def check_requests(requests, history):
    reached = {(a.number, a.attempt): a for a in history.attempts if not a.status.startswith("lost")}
    assert len(requests) == len(reached)
    for row in requests.itertuples():
        x = history.sequences[row.request, row.attempt]
        assert (row.prompt_tokens, row.output_tokens) == (x.prompt, x.output)
        np.testing.assert_array_equal([row.first_token_s, row.latency_s], [x.first_token_s, x.attempt.latency])
        assert row.status == x.attempt.status


def test_the_frames_have_the_oracles_figures():
    s = token_run()
    c, servers, histories = oracle(s)
    result = ss.simulate(s)
    statuses = set(result.requests["status"])
    assert {"answered", "timed_out"} <= statuses  # so that first tokens of requests that fail are in it
    assert result.windows["preemptions"].sum() > 0
    for role, server, history in zip(("source", "shadow"), servers, histories, strict=True):
        check_windows(c, result.windows[result.windows["role"] == role], history, server)
        check_requests(result.requests[result.requests["role"] == role], history)
    counts = result.latency.groupby(["measure", "role"])["count"].sum()
    for measure, name in TIME_COLUMNS.items():
        for role in ("source", "shadow"):
            n = result.windows.loc[result.windows["role"] == role, f"{name}_SampleCount"].sum()
            assert counts[measure, role] == n > 0
    assert set(result.latency["measure"]) == set(MEASURES)


def test_a_plain_variant_beside_has_no_figures_of_tokens():
    s = token_run(shadow=service(mean_s=0.2, workers=2))
    c, (server, _), (history, _) = oracle(s)
    result = ss.simulate(s)
    shadow = result.windows[result.windows["role"] == "shadow"]
    mine = [column.name for column in TOKEN_WINDOWS if column.name in result.windows]
    assert [name for name in mine if name.startswith("goodput")] == ["goodput_1", "goodput_2"]
    assert shadow[mine].isna().all(axis=None)
    check_windows(c, result.windows[result.windows["role"] == "source"], history, server)
    latency = result.latency[result.latency["role"] == "shadow"]
    assert set(latency["measure"]) == {LATENCY_MEASURE}
    requests = result.requests[result.requests["role"] == "shadow"]
    assert requests[["first_token_s", "prompt_tokens", "output_tokens"]].isna().all(axis=None)


@pytest.mark.slow  # to compile
@pytest.mark.parametrize("roles", [("source",), ("shadow",), ("source", "shadow")])
def test_prefix_caches_have_the_oracles_figures_on_any_number_of_workers(roles, tmp_path):
    served = {role: {"tokens": SERVED | ({"prefix": PREFIX} if role in roles else {})} for role in ("source", "shadow")}
    s = token_run(served["source"], served["shadow"])
    c, _, histories = oracle(s)
    result = ss.simulate(s, workers=1)
    for workers in (2, 3):
        again = ss.simulate(s, workers=workers)
        for name in ("windows", "latency", "requests"):
            pd.testing.assert_frame_equal(getattr(result, name), getattr(again, name), check_exact=True)
    summary = result.summary().set_index("role")
    for role, history in zip(("source", "shadow"), histories, strict=True):
        windows, requests = (frame[frame["role"] == role] for frame in (result.windows, result.requests))
        check_requests(requests, history)
        if role in roles:
            check_prefixes(c, windows, requests, history)
            share = windows["prefix_hit_tokens"].sum() / windows["prefix_queried_tokens"].sum()
            assert summary.loc[role, "prefix_hit_share"] == share > 0.05
        else:
            assert windows[["prefix_queried_tokens", "prefix_hit_tokens"]].isna().all(axis=None)
            assert requests["cached_tokens"].isna().all()
            assert np.isnan(summary.loc[role, "prefix_hit_share"])
    if len(roles) == 2:
        return
    loaded = ss.Result.load(result.save(tmp_path / "run"))
    for name in ("windows", "requests"):
        pd.testing.assert_frame_equal(getattr(result, name), getattr(loaded, name), check_exact=True)
    share = percent(summary.loc[roles[0], "prefix_hit_share"])
    for text in (results_text([result]), ss.card(result), result.report(tmp_path / "p.html").read_text("utf-8")):
        assert "prefix hits" in text
        assert share in text


@pytest.mark.slow
def test_hashes_of_a_recorded_trace_have_the_oracles_figures():
    """Two minutes of the Mooncake conversations; copies by session, which is the second hash."""
    file = Path(__file__).resolve().parents[3] / "shared" / "data" / "mooncake_conversation_2025.csv"
    if not file.exists():
        pytest.skip(f"the Mooncake trace is not at {file}")
    served = SERVED | {
        "prompt": "input_length", "output": "output_length", "max_step_tokens": 8192, "kv_tokens": 200_000,
        "prefix": {"hashes": "first_hashes", "hash_tokens": 512, "cache_tokens": 40_000},
        "step": {"base_s": 0.03, "per_prefill_token_s": 6e-5, "per_kv_token_s": 1e-7},
    }  # fmt: skip
    traffic = {"process": "trace", "path": str(file), "sessions": "first_hashes[1]"}
    s = scenario(
        traffic, {"tokens": served}, {"tokens": served}, source_instances=2, share=40, mirror={"rule": "hash"},
        endpoint={"timeout_s": 60.0}, horizon_s=120.0, period_s=20.0,
    )  # fmt: skip
    trace = s.traffic.trace()
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    servers = [tokens.server_of(side.service.tokens, trace) for side in map(s.side, ("source", "shadow"))]
    histories = tokens.simulate(c, arrivals, *servers)[:2]
    result = ss.simulate(s)
    for role, history in zip(("source", "shadow"), histories, strict=True):
        windows, requests = (frame[frame["role"] == role] for frame in (result.windows, result.requests))
        check_requests(requests, history)
        check_prefixes(c, windows, requests, history)
    session = trace.whole_numbers("first_hashes[1]", "")[: (result.requests["role"] == "source").sum()]
    copied = np.isin(np.arange(session.size), requests["request"])
    assert not {*session[copied]} & {*session[~copied]}
    assert set(requests["cached_tokens"]) >= {0, 512, 2048}


def test_runs_without_prefix_caches_have_no_such_columns():
    result = ss.simulate(token_run())
    assert not {"prefix_queried_tokens", "prefix_hit_tokens"} & set(result.windows)
    assert "cached_tokens" not in result.requests
    assert "prefix_hit_share" not in result.summary()


def test_runs_without_tokens_have_no_such_columns():
    result = ss.simulate(scenario(POISSON, horizon_s=60.0))
    assert "measure" not in result.latency
    assert of_measure(result.latency) is result.latency
    assert not {column.name for column in TOKEN_WINDOWS} & set(result.windows)


def test_the_number_of_workers_changes_no_bit_and_a_saved_run_has_all_columns(tmp_path):
    s = token_run()
    first = ss.simulate(s, workers=1)
    for workers in (2, 3):
        again = ss.simulate(s, workers=workers)
        for name in ("windows", "latency", "requests"):
            pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name), check_exact=True)
    loaded = ss.Result.load(first.save(tmp_path / "run"))
    for name in ("windows", "latency", "requests"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(loaded, name), check_exact=True)
    assert loaded.scenario.goodput == s.goodput


def test_a_summary_has_the_figures_of_its_requests():
    s = token_run(shadow=service(mean_s=0.2, workers=2))
    result = ss.simulate(s)
    summary = result.summary().set_index("role")
    requests = result.requests[result.requests["role"] == "source"]
    row, windows = summary.loc["source"], result.windows[result.windows["role"] == "source"]
    first = requests["first_token_s"].dropna().to_numpy()
    assert row["ttft_mean_s"] == pytest.approx(first.mean(), rel=1e-9)
    for level in (50, 99):
        exact = np.quantile(first, level / 100, method="inverted_cdf")
        assert row[f"ttft_p{level}_s"] == pytest.approx(exact, rel=0.009)
    # all requests are in the sample, so that per-token times can be had from it: last token minus first
    done = requests[(requests["status"] == "answered") & (requests["output_tokens"] >= 2)]
    per = (done["latency_s"] - done["first_token_s"]).to_numpy() / (done["output_tokens"].to_numpy(float) - 1)
    assert row["tpot_mean_s"] == pytest.approx(per.mean(), rel=1e-9)
    assert row["tpot_p95_s"] == pytest.approx(np.quantile(per, 0.95, method="inverted_cdf"), rel=0.009)
    assert row["output_tokens_per_s"] == windows["output_tokens"].sum() / s.horizon_s
    assert row["preemptions"] == windows["preemptions"].sum() > 0
    answered = requests["status"] == "answered"
    single = requests["output_tokens"] == 1
    for i, pair in enumerate(PAIRS, start=1):
        in_time = requests["first_token_s"] <= pair["ttft_s"]
        fast = single | ((requests["latency_s"] - requests["first_token_s"]) <= pair["tpot_s"] * (
            requests["output_tokens"].astype(float) - 1))  # fmt: skip
        assert row[f"goodput_share_{i}"] == pytest.approx((answered & in_time & fast).mean(), rel=1e-12)
    assert summary.loc["shadow", ["ttft_p99_s", "tpot_mean_s", "output_tokens_per_s", "goodput_share_1"]].isna().all()
    assert not {"ttft_mean_s", "preemptions"} & set(ss.simulate(scenario(POISSON, horizon_s=60.0)).summary())


def test_text_card_and_page_show_the_figures_in_words(tmp_path):
    result = ss.simulate(token_run(horizon_s=600.0))
    summary = result.summary().iloc[0]
    label, n = "goodput (500 ms, 50 ms)", f"{summary['preemptions']:,.0f}"
    for text in (results_text([result]), ss.card(result), result.report(tmp_path / "p.html").read_text("utf-8")):
        for words in ("first token p50", "per token p95", "running sequences", "cache use", "preemptions", label):
            assert words in text
        assert n in text
        assert time_text(summary["tpot_mean_s"]) in text
    several = replicate(token_run(horizon_s=600.0), 2)
    assert f"{label} " in results_text(several)
    figures = set(summarise(several)["figure"])
    assert {"ttft_p99_s", "goodput_share_2"} <= figures
