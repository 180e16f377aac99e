"""Services in tokens: keys, lengths by law and by a trace's columns, and what an instance can serve."""

import json

import numpy as np
import pytest

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.report.scenario_text import scenario_text
from shadowsim.scenario.defaults import builtin_document
from shadowsim.scenario.fields import Block
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.service import parse_service
from shadowsim.scenario.step_models import preset
from shadowsim.scenario.tokens import (
    BLOCK_TOKENS,
    MOST_SEQUENCES,
    MOST_TOKENS,
    Goodput,
    Prefix,
    StepModel,
    mean_work_s,
    parse_tokens,
    prefix_names,
    read_goodput,
    token_lengths,
)

PATH = "services.Shadow-01.tokens"
KEYS = {
    "prompt": {"law": "lognormal", "mean_tokens": 1000, "scv": 1},
    "output": 200,
    "max_sequences": 256,
    "max_step_tokens": 8192,
    "kv_tokens": 400_000,
    "step": {"base_s": "12ms", "per_sequence_s": 1e-4},
}
TYPE = "ml.g5.xlarge"


def parsed(**keys):
    values = {key: value for key, value in (KEYS | keys).items() if value is not ...}
    return parse_tokens(Block(PATH, values))


def token_scenario(traffic, tokens=None, base_dir=None, **run):
    document = builtin_document()
    for service in document["services"]:
        document["services"][service] = {"tokens": KEYS | (tokens or {})}
    return Scenario.from_dict(document | {"traffic": traffic, "run": {"horizon_s": 60.0} | run}, base_dir)


POISSON = {"process": "poisson", "rate_per_s": 1.0}


def test_keys_and_defaults():
    tokens = parsed()
    assert (tokens.max_sequences, tokens.max_step_tokens, tokens.kv_tokens) == (256, 8192, 400_000)
    assert (tokens.block_tokens, tokens.blocks) == (BLOCK_TOKENS, 25_000)
    assert tokens.step == StepModel(0.012, 0.0, 1e-4, 0.0, 0.0)
    assert (tokens.before_s, tokens.after_s, tokens.chunked, tokens.on_timeout, tokens.prefix) == (
        0,
        0,
        True,
        None,
        None,
    )
    assert (tokens.prompt.mean, tokens.prompt.scv, tokens.output.mean) == (1000.0, 1.0, 200.0)
    step = {key: i for i, key in enumerate(("base_s", "per_prefill_token_s", "per_sequence_s"), 1)}
    step |= {"per_kv_token_s": "1us", "per_prefill_pair_s": 0, "per_prompt_s": "3ms"}
    tokens = parsed(step=step, before_s="2ms", after_s=0.25, chunked=False, on_timeout="abort", block_tokens=7)
    assert tokens.step == StepModel(1.0, 2.0, 3.0, 1e-6, 0.0, 0.003)
    assert (tokens.before_s, tokens.after_s, tokens.chunked, tokens.on_timeout) == (0.002, 0.25, False, "abort")
    assert (tokens.block_tokens, tokens.blocks) == (7, 57_142)
    assert parsed(prefix={"length": 64, "groups": 10, "cache_tokens": 16}).prefix == Prefix(64, 16, 10)
    assert parsed(prefix={"length": 64, "session": "hash", "cache_tokens": 99}).prefix == Prefix(64, 99, None, "hash")
    by_hash = parsed(prefix={"hashes": ["a", "b"], "hash_tokens": 512, "cache_tokens": 99}).prefix
    assert by_hash == Prefix(0, 99, hashes=("a", "b"), hash_tokens=512)
    assert (
        by_hash.name_tokens,
        parsed(prefix={"length": 64, "groups": 10, "cache_tokens": 16}).prefix.name_tokens,
    ) == (
        512,
        64,
    )


@pytest.mark.parametrize(
    ("keys", "where", "why"),
    [
        ({"promt": 1}, ".promt", "did you mean prompt"),
        ({"prompt": ...}, ".prompt", "is required"),
        ({"prompt": 0}, ".prompt", "must have a mean of at least 1 token, got 0.0"),
        ({"prompt": {"law": "exponential", "mean_s": 5}}, ".prompt.mean_s", "did you mean mean_tokens"),
        ({"output": {"law": "exponential", "mean_tokens": 0.5}}, ".output", "at least 1 token, got 0.5"),
        ({"output": []}, ".output", "must be a number of tokens, a trace column or an object"),
        ({"max_sequences": ...}, ".max_sequences", "is required"),
        ({"max_sequences": 0}, ".max_sequences", f"must be an integer from 1 to {MOST_SEQUENCES}, got 0"),
        ({"max_step_tokens": 255}, ".max_step_tokens", "`max_sequences`, which is 256, a token for each, got 255"),
        ({"kv_tokens": 15}, ".kv_tokens", f"must be an integer from 16 to {MOST_TOKENS}, got 15"),
        ({"kv_tokens": MOST_TOKENS + 1}, ".kv_tokens", "integer from 16"),
        ({"block_tokens": 0}, ".block_tokens", "integer from 1"),
        ({"step": ...}, ".step", "is required"),
        ({"step": "llama"}, ".step", "must be a preset that `shadowsim step-model --presets` lists, got 'llama'"),
        ({"step": {}}, ".step.base_s", "is required"),
        ({"step": {"base_s": 0}}, ".step", "base_s + per_sequence_s >= 1e-06, since each step takes time, got 0"),
        ({"step": {"base_s": 1, "per_token_s": 1}}, ".step.per_token_s", "did you mean per_kv_token_s"),
        ({"step": {"base_s": 1, "per_kv_token_s": -1}}, ".step.per_kv_token_s", ">= 0, got -1"),
        ({"before_s": -1}, ".before_s", ">= 0"),
        ({"after_s": "1"}, ".after_s", "must be seconds, or have a unit"),
        ({"chunked": 1}, ".chunked", "must be true or false, got 1"),
        ({"on_timeout": "stop"}, ".on_timeout", "must be one of finish, abort, got 'stop'"),
        ({"prefix": {}}, ".prefix", "needs one of `groups`, `session` and"),
        ({"prefix": {"groups": 3}}, ".prefix.length", "is required"),
        ({"prefix": {"hashes": "h"}}, ".prefix.hash_tokens", "is required"),
        ({"prefix": {"hashes": [], "hash_tokens": 1, "cache_tokens": 16}}, ".prefix.hashes", "or a list of such"),
        ({"prefix": {"hashes": ["a", "a"], "hash_tokens": 1, "cache_tokens": 16}}, ".prefix.hashes", "each once"),
        ({"prefix": {"hashes": "h", "hash_tokens": 9, "length": 9, "cache_tokens": 16}}, ".prefix.length",
         "must be left out with `hashes`, got 9"),
        ({"prefix": {"groups": 2, "length": 9, "hash_tokens": 9, "cache_tokens": 16}}, ".prefix.hash_tokens",
         "must be left out with `groups`, got 9"),
        ({"prefix": {"length": 1, "cache_tokens": 15, "groups": 1}}, ".prefix.cache_tokens", "integer from 16"),
        ({"prefix": {"length": 1, "cache_tokens": 16}}, ".prefix", "needs one of `groups`, `session` and"),
        ({"prefix": {"length": 1, "cache_tokens": 16, "groups": 1, "session": "x"}}, ".prefix", "needs one of"),
    ],
)  # fmt: skip
def test_errors_name_path_constraint_and_value(keys, where, why):
    with pytest.raises(InputError) as caught:
        parsed(**keys)
    error = caught.value.each[0]
    assert error.path == PATH + where
    assert why in str(error)


@pytest.mark.parametrize(
    ("key", "value"), [("time", 1), ("batching", {"max_size": 1}), ("workers", 2), ("slowdown", [1.0])]
)
def test_tokens_take_the_place_of_other_keys(key, value):
    with pytest.raises(InputError, match=rf"^services\.x\.{key}: must be left out beside `tokens`"):
        parse_service({"tokens": KEYS, key: value}, "services.x")


def test_an_instance_type_has_its_own_step():
    slow = KEYS | {"step": {"base_s": 1.0}}
    block = {"tokens": KEYS, "queue_limit": 4, "by_instance_type": {TYPE: {"tokens": slow}}}
    assert parse_service(block, "services.x").tokens.step.base_s == 0.012
    service = parse_service(block, "services.x", instance_type=TYPE)
    assert (service.tokens.step.base_s, service.queue_limit, service.has_events) == (1.0, 4, True)
    slow["step"] = {"base_s": -1}
    with pytest.raises(InputError, match=rf"^services\.x\.by_instance_type\.{TYPE}\.tokens\.step\.base_s"):
        parse_service(block, "services.x", instance_type=TYPE)


def test_goodput():
    def of(value):
        return read_goodput(Block("run", {"goodput": value}))

    assert of(None) == ()
    assert of([{"ttft_s": "500ms", "tpot_s": 0.05}]) == (Goodput(0.5, 0.05),)
    for value, where, why in (
        ({}, "", "must be a list"),
        ([{"ttft_s": 1}], ".0.tpot_s", "is required"),
        ([{"ttft_s": 0, "tpot_s": 1}], ".0.ttft_s", "> 0"),
        ([{"ttft_s": 1, "tpot_s": 1}] * 2, ".1", "must differ"),
        ([{"ttft_s": i, "tpot_s": 1} for i in range(1, 10)], "", "at most 8 pairs, got 9"),
    ):
        with pytest.raises(InputError, match=why) as caught:
            of(value)
        assert caught.value.path == f"run.goodput{where}"
    with pytest.raises(InputError, match=r"^run\.goodput: needs a service with `tokens`"):
        ss.default_scenario().replace({"run.goodput": [{"ttft_s": 1, "tpot_s": 1}]})
    assert token_scenario(POISSON, goodput=[{"ttft_s": 1, "tpot_s": "40ms"}]).goodput == (Goodput(1.0, 0.04),)


# ---- Lengths ----


def test_what_fits():
    """A request's last token is never in the cache: 4 + 5 - 1 tokens fill two blocks of 4."""
    tokens = parsed(kv_tokens=11, block_tokens=4, max_step_tokens=256)
    assert tokens.fits(4, 5)
    assert not tokens.fits(4, 6)
    whole = parsed(kv_tokens=400, max_sequences=4, max_step_tokens=8, chunked=False, prompt=4, output=4)
    assert whole.fits(4, 5)
    assert not whole.fits(5, 5)


def written(folder, text):
    (folder / "t.csv").write_text("time,input,output,who\n" + text)
    return {"process": "trace", "path": "t.csv"}


def test_lengths_of_a_trace(tmp_path):
    traffic = written(tmp_path, "0,100,7,1\n1,200,9,2\n")
    lengths = {"prompt": "input", "output": {"law": "linear", "base_tokens": 0.5, "output": 1.5}}
    s = token_scenario(traffic, lengths | {"prefix": {"length": 9, "cache_tokens": 99, "session": "who"}}, tmp_path)
    tokens, trace = s.source_service.tokens, s.traffic.trace()
    assert token_lengths(tokens, "prompt", trace).tolist() == [100.0, 200.0]
    assert token_lengths(tokens, "output", trace).tolist() == [11.0, 14.0]  # of 11 and 14
    assert token_lengths(parsed(output=2.5), "output", None).tolist() == [3.0]
    assert token_lengths(parsed(), "prompt", None).size == 0


def test_names_of_prefixes_are_groups_or_hashes(tmp_path):
    (tmp_path / "t.csv").write_text("time,who,a,b,hashes\n0,7,1,2,5 6\n1,8,1,3,5\n")
    traffic = {"process": "trace", "path": "t.csv"}

    def names(**prefix):
        s = token_scenario(traffic, {"prefix": {"cache_tokens": 99} | prefix}, tmp_path)
        return prefix_names(s.source_service.tokens, s.traffic.trace()).tolist()

    assert names(length=9, session="who") == [[7], [8]]
    assert names(length=9, session="hashes[1]") == [[6], [5]]  # or the last
    assert names(hashes="hashes", hash_tokens=16) == [[5, 6], [5, -1]]
    assert names(hashes=["a", "b"], hash_tokens=16) == [[1, 2], [1, 3]]
    assert names(hashes="a", hash_tokens=16) == [[1], [1]]
    assert names(length=9, groups=3) == []
    for wrong, why in (("hash", "no column 'hash'; .*did you mean hashes"), (["a", "hashes"], "as hashes\\[0\\]")):
        with pytest.raises(InputError, match=rf"tokens\.prefix\.hashes: .*{why}"):
            names(hashes=wrong, hash_tokens=16)


@pytest.mark.parametrize(
    ("rows", "tokens", "path", "why"),
    [
        # rows need not be in order of time: the line is that of the file
        ("9,10,1,1\n1,0,1,1\n", {"prompt": "input"}, "prompt", "from 1 to 67108864, which fails in line 3, got 0"),
        ("0,10,1,1\n1,2.5,1,1\n", {"prompt": "input"}, "prompt", "whole numbers of tokens .* line 3, got 2.5"),
        ("0,10,,1\n", {"output": "output"}, "output", "finite numbers >= 0 in trace column output, .* line 2"),
        ("0,10,1,1\n", {"prompt": "inputs"}, "prompt", "no column 'inputs'; .*did you mean input"),
        ("0,10,1,1\n", {"prompt": {"law": "linear", "inputs": 1}}, "prompt.inputs", "no column"),
        ("0,10,1,1\n1,10,0,1\n", {"output": {"law": "linear", "output": 0.4}}, "output", "line 2, got 0.4"),
        ("9,17,1,1\n1,3,1,1\n", {"prompt": "input", "output": 1, "kv_tokens": 16}, "kv_tokens",
         "all tokens of the request in line 2 but the last, 17, in whole blocks, got 16"),
        ("0,17,1,1\n", {"prompt": "input", "output": 1, "max_sequences": 1, "max_step_tokens": 16, "chunked": False},
         "max_step_tokens", "line 2 but the last, 17, in one step, since `chunked` is false, got 16"),
        ("0,1,1,1.5\n", {"prefix": {"length": 9, "cache_tokens": 16, "session": "who"}}, "prefix.session",
         "whole numbers in trace column who, which fails in line 2, got 1.5"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(tmp_path, rows, tokens, path, why):
    with pytest.raises(InputError, match=why) as caught:
        token_scenario(written(tmp_path, rows), tokens, tmp_path)
    assert caught.value.each[0].path == f"services.AllTraffic.tokens.{path}"


@pytest.mark.parametrize(
    ("tokens", "path", "why"),
    [
        ({"prompt": "input"}, "prompt", "needs trace traffic for a law of trace columns, got 'input'"),
        ({"prefix": {"length": 9, "cache_tokens": 16, "session": "who"}}, "prefix.session", "needs trace traffic"),
        (
            {"prefix": {"hashes": ["a", "b"], "hash_tokens": 9, "cache_tokens": 16}},
            "prefix.hashes",
            "needs trace traffic for a column, got",
        ),
        (
            {"prompt": 400_000},
            "kv_tokens",
            "all tokens of a request but the last, 400,199, in whole blocks, got 400000",
        ),
    ],
)
def test_columns_need_a_trace(tokens, path, why):
    with pytest.raises(InputError, match=why) as caught:
        token_scenario(POISSON, tokens)
    assert caught.value.each[0].path == f"services.AllTraffic.tokens.{path}"


def test_mean_work():
    """P = 10, o = 4: 3 prefill tokens' worth of squares and so on, with B = min(8, 100 / 11.5) sequences."""
    step = {"base_s": 8.0, "per_prefill_token_s": 0.5, "per_sequence_s": 0.25, "per_kv_token_s": 0.125}
    step["per_prefill_pair_s"] = 0.0625
    tokens = parsed(prompt=10, output=4, max_sequences=8, kv_tokens=160, step=step)
    assert mean_work_s(tokens, {}) == (5.0 + 6.25) + (4 * (1.0 + 0.25) + 0.125 * 46.0)  # 10 + 11 + 12 + 13 = 46
    apart = parsed(prompt=10, output=4, max_sequences=8, kv_tokens=160, step=step | {"per_prompt_s": 2.0})
    assert mean_work_s(apart, {}) == mean_work_s(tokens, {}) + 2.0
    tight = parsed(prompt=10, output=4, max_sequences=8, kv_tokens=23, step=step)  # two of 11.5
    assert mean_work_s(tight, {}) == (5.0 + 6.25) + (4 * (4.0 + 0.25) + 0.125 * 46.0)
    columns = {"p": np.array([10.0, 20.0]), "o": np.array([4.0, 2.0])}
    traced = parsed(prompt="p", output="o", max_sequences=1, step={"base_s": 1.0, "per_kv_token_s": 1.0})
    assert mean_work_s(traced, columns) == 3.0 + (46.0 + 41.0) / 2
    law = {"law": "exponential", "mean_tokens": 100}
    drawn = parsed(prompt=10, output=law, max_sequences=1, step={"base_s": 1.0, "per_kv_token_s": 1.0})
    assert mean_work_s(drawn, {}) == 100.0 + 1000.0 + (20_000.0 - 100.0) / 2


# ---- As a part of a scenario ----


def test_a_scenario_in_tokens_is_described():
    s = token_scenario(POISSON)
    assert s.evented
    assert s.side("source").workers == 1
    assert (
        "AllTraffic: 4 x ml.m5.xlarge, up to 256 sequences with 400,000 cached tokens, prompts of lognormal 1,000 "
        "tokens and answers of 200 tokens"
    ) in " ".join(scenario_text(s).split())
    assumed = "AllTraffic: requests that time out are served to their end (tokens.on_timeout is left out)."
    assert assumed in s.assumptions
    slow = token_scenario(POISSON | {"rate_per_s": 50.0}, {"step": {"base_s": 12}})
    assert any('are its coefficients milliseconds ("12ms")?' in text for text in slow.assumptions)
    assert not any("milliseconds" in text for text in s.assumptions)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"length": 9, "groups": 2}, "9 for each of 2 groups"),
        ({"length": 9, "session": "who"}, "9 a group, numbered by the trace's who"),
        ({"hashes": ["who", "a"], "hash_tokens": 512}, "by the trace's who and a, one for 512 tokens"),
    ],
)
def test_what_prompts_share_is_told(tmp_path, keys, text):
    (tmp_path / "t.csv").write_text("time,who,a\n0,1,2\n5,1,3\n")
    traffic = {"process": "trace", "path": "t.csv"}
    s = token_scenario(traffic, {"prefix": keys | {"cache_tokens": 1600}}, tmp_path)
    told = " ".join(scenario_text(s).split())
    assert f"of 200 tokens, and remembers 1,600 tokens that prompts begin with ({text})" in told


def test_a_step_may_be_a_presets_name():
    """The preset's time before the entry holds where the scenario has none, and its misses are said."""
    name = "llama-2-7b-hf-h100-tp1"
    s = token_scenario(POISSON, {"step": name.upper()})
    tokens = s.source_service.tokens
    assert tokens.step == StepModel(**preset(name).step)
    assert tokens.before_s == preset(name).before_s > 0.0
    assert f"AllTraffic: {preset(name).assumption}" in s.assumptions
    assert s.to_dict()["services"]["AllTraffic"]["tokens"]["step"] == name.upper()
    assert token_scenario(POISSON, {"step": name, "before_s": 0}).source_service.tokens.before_s == 0.0
    assert token_scenario(POISSON, {"step": "llama2-70b-h100-80gb-tp8"}).source_service.tokens.before_s == 0.0


def test_it_is_edited_and_saved_with_its_files(tmp_path):
    (tmp_path / "sizes.csv").write_text("n\n5\n9\n")
    s = token_scenario(POISSON, {"output": {"law": "empirical", "path": "sizes.csv"}}, tmp_path)
    changed = s.replace({"shadow.tokens.max_sequences": 2, "source.tokens.step.base_s": "20ms"})
    assert (changed.shadow_service.tokens.max_sequences, changed.source_service.tokens.step.base_s) == (2, 0.02)
    (tmp_path / "deep").mkdir()
    s.save(tmp_path / "deep" / "s.json")
    again = Scenario.load(tmp_path / "deep" / "s.json")
    assert again.services["AllTraffic"].tokens.output.mean == 7.0
    assert json.loads((tmp_path / "deep" / "s.json").read_text())["services"]["AllTraffic"]["tokens"]["output"] == {
        "law": "empirical",
        "path": "../sizes.csv",
    }
