"""Each key of a scenario can be explained, by its path or by an alias."""

import json

import pytest
from commands import good, refused

from shadowsim import InputError, explain, scenario_schema
from shadowsim.reference.explain import entries, known_paths
from shadowsim.scenario.keys import Key
from shadowsim.scenario.paths import ALIASES, VARIANT_ALIASES
from shadowsim.scenario.scaling import COOLDOWN_S, ScalingKeys
from shadowsim.scenario.service import ServiceKeys
from shadowsim.scenario.traffic import TraceKeys


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("run.seed", ["run.seed  an integer from 0 to 18446744073709551615; default 7", "Seed of all random draws."]),
        ("traffic.profile", ["if left out: a flat rate", "peak_hour", "(diurnal)", 'example  {"kind": "steps"']),
        ("traffic.3.profile.kind", ["steps    rates that hold until the next begins"]),
        ("services.*.tokens.step", ["required", "llama2-70b", "per_kv_token_s", "default 0.0"]),
        ("services.Shadow-01.scaling.scale_in_cooldown_s", [f"default {COOLDOWN_S}", "a duration such as 30ms"]),
        ("shadow.time.mean_s", ["services.*.time.mean_s", "The mean."]),
        ("shadow.instance_count", ["RealTimeInferenceConfig.InstanceCount", "an integer from 1 to 2147483647"]),
        ("sampling_percentage", ["SamplingPercentage", "an integer from 0 to 100"]),
        ("rate_per_s", ["(with poisson, gamma, constant)", "(with mmpp)"]),
        ("endpoint.routing", ["LEAST_OUTSTANDING_REQUESTS  to the instance with the fewest", 'default "RANDOM"']),
        ("endpoint.routing.Shadow-01", ["one of RANDOM"]),
        ("services.x.by_instance_type.ml.g5.xlarge.workers", ["accelerators"]),
        ("services.x.time.*", ["A trace's column: seconds per unit of it."]),
        ("", ["experiment", "traffic", "services", "endpoint", "mirror", "run"]),
    ],
)  # fmt: skip
def test_an_entry(path, says):
    text = explain(path)
    for words in says:
        assert words in " ".join(text.split()) or words in text, text
    assert all(len(line) <= 80 or "Config" in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("traffic.profil", "did you mean traffic.profile?"),
        ("services.x.tokens.stp", "did you mean services.*.tokens.step?"),
        ("max_step_tokens", "did you mean shadow.tokens?"),
        ("peak_hour", "did you mean traffic.profile.peak_hour?"),
        ("rate", "did you mean rate_per_s?"),
        ("shadow.instance_cout", "did you mean shadow.instance_count?"),
        ("shadow.instances", "did you mean shadow.instance_count?"),
        ("instance_count", "did you mean shadow.instance_count?"),
        ("xyzzy", "known are experiment, traffic, services, endpoint, mirror, run"),
    ],
)
def test_an_unknown_path_names_the_nearest(path, hint):
    with pytest.raises(InputError) as caught:
        explain(path)
    assert str(caught.value).startswith(f"{path}: is not a key of a scenario; ")
    assert str(caught.value).endswith(hint)


def test_all_declared_keys_and_aliases_have_an_entry():
    known = known_paths()
    assert len(known) > 250
    for keys, at in ((ServiceKeys, "services.*"), (ScalingKeys, "services.*.scaling"), (TraceKeys, "traffic")):
        assert {f"{at}.{name}" for name in keys.declared()} <= set(known)
    for path in (*known, *ALIASES, *(f"shadow.{alias}" for alias in VARIANT_ALIASES)):
        assert entries(path), path


def every_keys(base=None):
    from shadowsim.scenario.keys import Keys

    for child in (base or Keys).__subclasses__():
        yield child
        yield from every_keys(child)


def test_every_class_of_keys_is_in_the_schema():
    text = json.dumps(scenario_schema(), ensure_ascii=False)
    for keys in every_keys():
        if not keys.__module__.startswith("shadowsim."):
            continue  # of another test
        for key in keys.declared().values():
            assert isinstance(key, Key)
            assert json.dumps(key.says, ensure_ascii=False)[1:-1] in text, (keys, key.name)


def test_the_command():
    assert good("explain", "run.seed") == f"{explain('run.seed')}\n"
    assert good("explain") == f"{explain()}\n"
    [entry] = json.loads(good("explain", "run.seed", "--json"))
    assert entry["schema"]["default"] == 7
    goal = refused("explain", "shadow.p99")
    assert goal.startswith('shadow.p99: is a figure of goals, as in --slo "shadow.p99 <= 200ms", and no key; ')
    assert refused("explain", "error_rate").startswith("error_rate: is a figure of goals")
    assert refused("explain", "run.sed") == "run.sed: is not a key of a scenario; did you mean run.seed?"
    assert json.loads(good("schema")) == scenario_schema()
