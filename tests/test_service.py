import json
import math

import pytest

from shadowsim.errors import InputError
from shadowsim.service import parse_service

PATH = "services.Shadow-01"


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
        ({"time": 1, "slowdown": 1.2}, f"{PATH}.slowdown", "list [...] of at least one number"),
        ({"time": 1, "slowdown": 0}, f"{PATH}.slowdown", "list"),
        ({"time": 1, "slowdown": [1.0, 0]}, f"{PATH}.slowdown.1", "> 0, got 0"),
        ({"time": 1, "slowdown": [math.inf]}, f"{PATH}.slowdown.0", "finite"),
        ({"time": 1, "slowdown": ["1"]}, f"{PATH}.slowdown.0", "number"),
        ({"time": 1, "batching": {}}, f"{PATH}.batching", "`batching` is not built yet"),
        ({"time": 1, "cold_start_s": 1}, f"{PATH}.cold_start_s", "not built yet"),
        ({"time": 1, "cpu_per_request_s": 1}, f"{PATH}.cpu_per_request_s", "not built yet"),
        ({"time": 1, "autoscaling": {}}, f"{PATH}.autoscaling", "not built yet"),
        ({"time": 1, "outages": []}, f"{PATH}.outages", "not built yet"),
        ({"time": 1, "by_instance_type": {}}, f"{PATH}.by_instance_type", "not built yet"),
        ({"time": {"law": "exponential", "mean_s": -1}}, f"{PATH}.time.mean_s", "> 0"),
    ],
)
def test_bad_input_names_path_and_constraint(block, path, why):
    with pytest.raises(InputError) as caught:
        parse_service(block, PATH)
    assert caught.value.path == path
    assert why in str(caught.value)
