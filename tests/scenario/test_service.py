import json
import math

import pytest
from cases import scenario

from shadowsim import Scenario
from shadowsim.errors import InputError
from shadowsim.scenario.service import Wake, parse_service

PATH, G5 = "services.Shadow-01", "ml.g5.xlarge"


def test_defaults_and_round_trip():
    block = {"time": 0.5}
    service = parse_service(block, PATH)
    assert (service.time.mean, service.workers, service.queue_limit) == (0.5, None, None)
    assert (service.slowdown, service.error_4xx, service.error_5xx) == ((), 0.0, 0.0)
    assert service.block == block


def test_everything_given_and_null_counts_as_left_out():
    block = {
        "time": {"law": "gamma", "mean_s": 0.02, "scv": 0.5},
        "workers": 8,
        "queue_limit": 0,
        "slowdown": [1, 1.25],
        "error_4xx": 0.25,
        "error_5xx": 0.75,
        "discipline": "fifo",
        "batching": None,
    }
    service = parse_service(json.loads(json.dumps(block)), PATH)
    assert (service.workers, service.queue_limit, service.error_4xx, service.error_5xx) == (8, 0, 0.25, 0.75)
    assert service.slowdown == (1.0, 1.25)
    assert parse_service(service.block, PATH) == service
    assert parse_service({"time": 1, "slowdown": []}, PATH).slowdown == ()
    assert parse_service({"time": 1, "wake": {"most_s": "3ms", "half_s": 0.05}}, PATH).wake == Wake(0.003, 0.05)
    assert parse_service({"time": 1, "workers": None, "queue_limit": None}, PATH).workers is None


@pytest.mark.parametrize(
    ("block", "path", "why"),
    [
        (None, PATH, "object"),
        ({}, f"{PATH}.time", "is required"),
        ({"time": 1, "worker": 4}, f"{PATH}.worker", "did you mean workers"),
        ({"time": 1, "workers": 0}, f"{PATH}.workers", "integer from 1"),
        ({"time": 1, "workers": 4.0}, f"{PATH}.workers", "integer"),
        ({"time": 1, "workers": True}, f"{PATH}.workers", "integer"),
        ({"time": 1, "workers": "4"}, f"{PATH}.workers", "integer"),
        ({"time": 1, "queue_limit": -1}, f"{PATH}.queue_limit", "integer from 0"),
        ({"time": 1, "error_4xx": 1.5}, f"{PATH}.error_4xx", "<= 1"),
        ({"time": 1, "error_5xx": -0.1}, f"{PATH}.error_5xx", ">= 0"),
        ({"time": 1, "error_4xx": 0.6, "error_5xx": 0.6}, PATH, "error_4xx + error_5xx <= 1"),
        ({"time": 1, "discipline": "ps"}, f"{PATH}.discipline", "`ps` is not built yet"),
        ({"time": 1, "discipline": "lifo"}, f"{PATH}.discipline", "must be fifo"),
        ({"time": 1, "wake": {"most_s": 1}}, f"{PATH}.wake.half_s", "is required"),
        ({"time": 1, "wake": {"most_s": 0, "half_s": 1}}, f"{PATH}.wake.most_s", "> 0, got 0"),
        ({"time": 1, "wake": {"most_s": 1, "half_s": 1, "x": 1}}, f"{PATH}.wake.x", "not a known key"),
        (
            {"time": 1, "wake": {"most_s": 1, "half_s": 1}, "outages": [{"instance": 0, "at_s": 1, "for_s": 1}]},
            f"{PATH}.wake",
            "must be left out beside `outages`",
        ),
        ({"time": 1, "slowdown": 1.2}, f"{PATH}.slowdown", "list [...] of at least one number"),
        ({"time": 1, "slowdown": 0}, f"{PATH}.slowdown", "list"),
        ({"time": 1, "slowdown": [1.0, 0]}, f"{PATH}.slowdown.1", "> 0, got 0"),
        ({"time": 1, "slowdown": [math.inf]}, f"{PATH}.slowdown.0", "finite"),
        ({"time": 1, "slowdown": ["1"]}, f"{PATH}.slowdown.0", "number"),
        ({"tokens": []}, f"{PATH}.tokens", "must be an object {...}, got []"),
        ({"time": 1, "tokens": {}}, f"{PATH}.tokens.prompt", "is required"),
        ({"time": 1, "cold_start_s": -1}, f"{PATH}.cold_start_s", ">= 0, got -1"),
        ({"time": 1, "cpu_per_request_s": 1}, f"{PATH}.cpu_per_request_s", "not built yet"),
        ({"time": 1, "autoscaling": {}}, f"{PATH}.autoscaling", "did you mean scaling?"),
        ({"time": 1, "batching": 8}, f"{PATH}.batching", "must be an object {...}, got 8"),
        ({"time": 1, "scaling": []}, f"{PATH}.scaling", "must be an object {...}, got []"),
        ({"time": 1, "outages": 5}, f"{PATH}.outages", "must be a list"),
        ({"time": 1, "by_instance_type": []}, f"{PATH}.by_instance_type", "object"),
        ({"time": 1, "by_instance_type": {G5: 1}}, f"{PATH}.by_instance_type.{G5}", "object"),
        ({"time": 1, "by_instance_type": {"ml.g5.xlarg": {}}}, f"{PATH}.by_instance_type.ml.g5.xlarg", "ml.g5.xlarge?"),
        ({"time": 1, "by_instance_type": {G5: {"time": -1}}}, f"{PATH}.by_instance_type.{G5}.time", "> 0"),
        ({"time": 1, "by_instance_type": {G5: {"tim": 1}}}, f"{PATH}.by_instance_type.{G5}.tim", "did you mean time"),
        (
            {"time": 1, "by_instance_type": {G5: {"by_instance_type": {}}}},
            f"{PATH}.by_instance_type.{G5}.by_i",
            "known",
        ),
        ({"by_instance_type": {G5: {"time": 1}}}, f"{PATH}.time", "is required"),
        ({"time": {"law": "exponential", "mean_s": -1}}, f"{PATH}.time.mean_s", "> 0"),
    ],
)
def test_bad_input_names_path_and_constraint(block, path, why):
    with pytest.raises(InputError) as caught:
        parse_service(block, PATH)
    assert caught.value.path.startswith(path)
    assert why in str(caught.value)


CHANGING = {
    "time": 1,
    "slowdown": [1.0, 0.5],
    "batching": {"max_size": 4, "factors": [1.0, 1.2, 2.0, 3.0]},
    "scaling": {"metric": "InvocationsPerInstance", "target": 900, "min": 1, "max": 3},
    "cold_start_s": "90s",
    "outages": {"mtbf_s": "1d", "mttr_s": 60},
}


def test_instances_that_batch_scale_and_fail():
    service = parse_service(CHANGING, PATH)
    assert (service.batching.max_size, service.scaling.most, service.outages.mttr_s) == (4, 3, 60.0)
    assert service.cold_start_s == 90.0
    plain = parse_service({"time": 1, "cold_start_s": 90, "outages": []}, PATH)
    assert (plain.outages, plain.has_events) == (None, False)
    for key in ("batching", "scaling", "outages"):
        assert parse_service({"time": 1, key: CHANGING[key]}, PATH).has_events


def test_factors_of_work():
    """Slowdowns 1 and 0.5; a full batch of 4 takes 3, and 2 in 1.2 are the most per second."""
    service, plain = parse_service(CHANGING, PATH), parse_service({"time": 1}, PATH)
    assert service.saturated_factor == 0.5 * 3.0 / 4
    assert service.slowest_factor == 3.0 / 4
    assert service.fastest_factor == 0.5 * 1.2 / 2
    assert service.least_latency_factor == 0.5
    factors = (plain.saturated_factor, plain.slowest_factor, plain.fastest_factor, plain.least_latency_factor)
    assert factors == (1.0, 1.0, 1.0, 1.0)


def test_a_type_overrides_whole_keys():
    other = {"max_size": 2, "marginal": 0.5}
    block = CHANGING | {"by_instance_type": {G5: {"batching": other, "cold_start_s": 5}}}
    service = parse_service(block, PATH, None, G5)
    assert (service.batching.factors, service.cold_start_s, service.scaling.most) == ((1.0, 1.5), 5.0, 3)
    with pytest.raises(InputError) as caught:
        parse_service(CHANGING | {"by_instance_type": {G5: {"outages": {"mtbf_s": -1}}}}, PATH)
    where = f"{PATH}.by_instance_type.{G5}.outages"
    assert [error.path for error in caught.value.each] == [f"{where}.mtbf_s", f"{where}.mttr_s"]


MEASURED = {"time": 1, "workers": 4, "queue_limit": 7, "by_instance_type": {G5: {"time": 0.25, "queue_limit": None}}}


def test_a_types_keys_override_those_of_the_service():
    on_g5, other = parse_service(MEASURED, PATH, None, G5), parse_service(MEASURED, PATH, None, "ml.m5.xlarge")
    assert (on_g5.time.mean, on_g5.workers, on_g5.queue_limit) == (0.25, 4, 7)
    assert (other.time.mean, other.workers, other.queue_limit) == (1, 4, 7)
    assert on_g5.by_instance_type == other.by_instance_type
    assert on_g5.block == other.block == MEASURED
    only = {"by_instance_type": {G5: {"time": 0.25}}}
    assert parse_service(only, PATH, None, G5).time.mean == 0.25


def test_a_variant_that_changes_its_type_changes_its_service():
    s = scenario({"process": "poisson", "rate_per_s": 1.0}, shadow=MEASURED)
    assert s.shadow_service.time.mean == 1
    on_g5 = s.replace({"shadow.instance_type": G5})
    assert on_g5.shadow_service.time.mean == 0.25
    assert on_g5.shadow_workers == 4
    assert on_g5.replace({"shadow.instance_type": "ml.m5.xlarge"}) == s


def test_a_key_of_the_variant_edits_that_of_its_type():
    """Otherwise the edit would change a value that is not used, and silently have no effect."""
    s = scenario({"process": "poisson", "rate_per_s": 1.0}, shadow=MEASURED).replace({"shadow.instance_type": G5})
    edited = s.replace({"shadow.time": 0.5, "shadow.queue_limit": 3})
    assert (edited.shadow_service.time.mean, edited.shadow_service.queue_limit) == (0.5, 3)
    assert edited.document["services"]["Shadow"]["time"] == 1
    assert edited.document["services"]["Shadow"]["queue_limit"] == 3  # which the type does not override
    changed = s.replace({"shadow.by_instance_type": {G5: {"time": 0.75}}})
    assert changed.shadow_service.time.mean == 0.75
    deep = s.replace({f"services.Shadow.by_instance_type.{G5}.time": 0.125})
    assert deep.shadow_service.time.mean == 0.125


def test_files_of_a_type_are_found_from_where_the_scenario_is_saved(tmp_path):
    (tmp_path / "times.csv").write_text("s\n0.1\n0.3\n")
    (tmp_path / "below").mkdir()
    service = MEASURED | {"by_instance_type": {G5: {"time": {"law": "empirical", "path": "times.csv"}}}}
    s = scenario({"process": "poisson", "rate_per_s": 1.0}, shadow=service, base_dir=tmp_path)
    s.save(tmp_path / "below" / "s.json")
    again = Scenario.load(tmp_path / "below" / "s.json").replace({"shadow.instance_type": G5})
    assert again.shadow_service.time.mean == pytest.approx(0.2)
