"""Tests quotas files, counts of instances, and rates of requests."""

import json

import pytest

from shadowsim.errors import InputError, ResourceLimitExceededError, SerializationError, ThrottlingError
from shadowsim.server.state.account import World
from shadowsim.server.state.quotas import ACROSS_ENDPOINTS, PER_ENDPOINT, Quotas, Throttle

TYPE = "ml.m5.xlarge for endpoint usage"


def refusal(quotas, wanted, world=None, endpoint="live"):
    with pytest.raises(ResourceLimitExceededError) as caught:
        quotas.check(world or World(), endpoint, wanted)
    return str(caught.value)


@pytest.mark.parametrize("name", [TYPE, "* for endpoint usage", PER_ENDPOINT, ACROSS_ENDPOINTS])
def test_each_quota_holds_up_to_its_limit(name):
    quotas = Quotas({name: 4})
    quotas.check(World(), "live", {"ml.m5.xlarge": 4})
    shown = TYPE if name.startswith("*") else name
    text = f"service limit '{shown}' is 4 Instances, with current utilization of 0 Instances and a request delta of 5 "
    assert text in refusal(quotas, {"ml.m5.xlarge": 5})


def test_a_named_type_goes_before_all_types():
    quotas = Quotas({TYPE: 9, "* for endpoint usage": 0})
    quotas.check(World(), "live", {"ml.m5.xlarge": 9})
    assert "ml.c5.xlarge for endpoint usage" in refusal(quotas, {"ml.c5.xlarge": 1})


def test_built_in_quotas():
    Quotas.read().check(World(), "live", {"ml.p5.48xlarge": 500})
    assert "is 0 Instances" in refusal(Quotas.read("default"), {"ml.m5.xlarge": 1})
    Quotas.read("default").check(World(), "live", {"ml.t2.medium": 2})


def test_a_quotas_file(tmp_path):
    file = tmp_path / "quotas.json"
    limits = {TYPE: 3, "Rate of CreateEndpoint requests": 0.5}
    file.write_text(json.dumps(limits))
    assert Quotas.read(file).limits == limits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"ml.m5.xlarg for endpoint usage": 3}', "must be a quota of Service Quotas; did you mean ml.m5.xlarge for"),
        (f'{{"{TYPE}": -1}}', "must be a number >= 0, got -1"),
        (f'{{"{TYPE}": "3"}}', "must be a number >= 0, got '3'"),
        (f'{{"{TYPE}": true}}', "must be a number >= 0, got true"),
        ('{"Rate of ListModels requests": 0}', "must be a number > 0, got 0"),
        ('{"Rate of CreateEndpiont requests": 1}', "did you mean Rate of CreateEndpoint requests"),
        ('{"Rate of InvokeEndpoints requests": 1}', "did you mean Rate of InvokeEndpoint requests"),
    ],
)
def test_wrong_quotas(tmp_path, text, message):
    file = tmp_path / "quotas.json"
    file.write_text(text)
    with pytest.raises(InputError, match=f"quotas.json: .*{message}"):
        Quotas.read(file)


def test_unreadable_quotas(tmp_path):
    (tmp_path / "a").write_text("[]")
    with pytest.raises(SerializationError):
        Quotas.read(tmp_path / "a")
    with pytest.raises(InputError, match="there is no such file"):
        Quotas.read(tmp_path / "b")


def test_a_rate_lets_its_burst_through_and_then_its_rate():
    now = [0.0]
    throttle = Throttle(Quotas({"Rate of ListModels requests": 4}), lambda: now[0])

    def n_admitted(tries):
        n = 0
        for _ in range(tries):
            try:
                throttle.admit("ListModels")
                n += 1
            except ThrottlingError:
                pass
        return n

    assert n_admitted(10) == 4
    now[0] = 0.5
    assert n_admitted(10) == 2
    now[0] = 1e6
    assert n_admitted(10) == 4
    for _ in range(100):
        throttle.admit("ListEndpoints")
