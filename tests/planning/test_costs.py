"""What a test costs: sums that can be checked on paper."""

import json
import math

import pandas as pd
import pytest
from cases import REQUEST, STORAGE, scenario

import shadowsim
from shadowsim import InputError, Scenario, simulate
from shadowsim.aws.instances import catalogue, quota_note
from shadowsim.planning.costs import ENVELOPE_BYTES, cost, read_prices

SIZED = {"process": "poisson", "rate_per_s": 10.0, "request_bytes": 5000, "response_bytes": 1000}
DAY = {"StartTime": "2030-01-01T00:00:00Z", "EndTime": "2030-01-02T00:00:00Z"}
N = 10.0 * 86_400


def a_day(traffic=SIZED, **changes):
    s = scenario(traffic, source_instances=3, shadow_instances=2, capture=True)
    return s.replace({"experiment.Schedule": DAY} | changes)


def items(costs):
    return costs.items.set_index("item")


def test_a_day_on_paper():
    costs = cost(a_day(), {"ml.m5.xlarge": 0.5}, data_usd_per_gb=0.02)
    rows = items(costs)
    assert rows["quantity"].to_list() == pytest.approx(
        [3 * 24, 2 * 24, N * 5000 / 1e9, N * 1000 / 1e9, N * 1.5 * (6000 * 4 / 3 + ENVELOPE_BYTES) / 1e9]
    )
    assert rows["cost_usd"].to_list()[:4] == pytest.approx([36.0, 24.0, 0.02 * N * 5e-6, 0.02 * N * 1e-6])
    assert math.isnan(rows["cost_usd"]["capture"])
    assert (costs.instances_usd, costs.duration_s) == (60.0, 86_400.0)
    assert costs.total_usd == pytest.approx(60.0 + 0.02 * N * 6e-6)
    assert "60.00 USD" in str(costs)
    assert "0.5 USD per hour, as given" in rows["note"]["source instances"]


def test_without_a_schedule_it_is_seven_days_whatever_the_run():
    short = scenario({"process": "poisson", "rate_per_s": 10.0}, horizon_s=60.0)
    assert items(cost(short))["quantity"]["source instances"] == 7 * 24
    assert shadowsim.cost(REQUEST, rate_per_s=3.0).duration_s == 7 * 86_400


def test_prices_are_the_catalogues_with_their_date():
    rows = items(cost(a_day()))
    known = catalogue()["ml.m5.xlarge"]
    assert rows["price_usd"]["shadow instances"] == known.price_usd_per_h
    assert known.price_as_of in rows["note"]["shadow instances"]


def test_an_unknown_price_is_never_zero():
    costs = cost(a_day(**{"shadow.instance_type": "ml.t2.large", "shadow.workers": 2}))
    assert math.isnan(items(costs)["cost_usd"]["shadow instances"])
    assert math.isnan(costs.instances_usd)
    assert math.isnan(costs.total_usd)
    assert "there is no price for ml.t2.large" in str(costs)


def test_unknown_sizes_leave_data_unknown_and_instances_known():
    costs = cost(a_day({"process": "poisson", "rate_per_s": 10.0}))
    assert items(costs)["cost_usd"].isna().to_list() == [False, False, True, True, True]
    assert costs.instances_usd > 0
    assert math.isnan(costs.total_usd)
    assert "traffic.request_bytes is not given" in str(costs)


def test_nothing_captured_costs_nothing():
    row = items(cost(scenario(SIZED))).loc["capture"]
    assert (row["quantity"], row["cost_usd"]) == (0.0, 0.0)


def test_listed_content_types_are_kept_as_text():
    listed = STORAGE | {"ContentType": {"JsonContentTypes": ["application/json"]}}
    text = items(cost(a_day(**{"experiment.DataStorageConfig": listed})))
    assert text["quantity"]["capture"] == pytest.approx(N * 1.5 * (6000 + ENVELOPE_BYTES) / 1e9)


def test_sizes_of_a_trace_are_the_means_of_its_columns():
    trace = {"process": "trace", "path": "builtin:trace_small", "request_bytes": "ContextTokens"}
    s = Scenario.from_dict(a_day().to_dict() | {"traffic": trace}).replace({"horizon_s": 1000.0})
    table = pd.read_csv(shadowsim.__path__[0] + "/scenario/data/trace_small.csv")
    n = len(table) / s.horizon_s * 86_400  # the run ends with the trace
    assert items(cost(s))["quantity"]["data in"] == pytest.approx(n * table["ContextTokens"].mean() / 1e9)


def test_prices_from_files(tmp_path):
    table, record = tmp_path / "prices.csv", tmp_path / "prices.json"
    table.write_text(
        "instance_type,price_usd_per_h,as_of,region\nml.m5.xlarge,0.25,2026-02,eu\nml.m5.large,,,\n", "utf-8-sig"
    )
    record.write_text(json.dumps({"ml.m5.xlarge": 0.25}))
    for file in (table, str(record)):
        rows = items(cost(a_day(), file))
        assert rows["cost_usd"]["source instances"] == 3 * 24 * 0.25
    assert "2026-02" in read_prices(table).of("ml.m5.xlarge").origin
    assert read_prices(table).of("ml.m5.large").usd_per_h == catalogue()["ml.m5.large"].price_usd_per_h


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("instance_type\nml.m5.xlarge\n", "lacks the column price_usd_per_h"),
        ("", "lacks the column instance_type"),
        ("instance_type,price_usd_per_h\nml.m5.xlarge,dear\n", "finite number >= 0, got 'dear'"),
        ("instance_type,price_usd_per_h\nml.m5.xlarge,-1\n", "finite number >= 0"),
        ("instance_type,price_usd_per_h\nml.m5.xlarge,nan\n", "finite number >= 0"),
        ("instance_type,price_usd_per_h\nm5.xlarge,1\n", "did you mean ml.m5.xlarge"),
        ("instance_type,price_usd_per_h\nml.m5.xlarge,1\nml.m5.xlarge,2\n", "line 3: must not give"),
    ],
)
def test_bad_price_files(tmp_path, text, why):
    file = tmp_path / "prices.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=why) as caught:
        read_prices(file)
    assert "prices.csv" in caught.value.path


def test_bad_prices():
    with pytest.raises(InputError, match="No such file"):
        read_prices("nowhere.csv")
    with pytest.raises(InputError, match=r"did you mean ml\.m5\.xlarge"):
        cost(a_day(), {"m5.xlarge": 1.0})
    with pytest.raises(InputError, match="data_usd_per_gb"):
        cost(a_day(), data_usd_per_gb=-1.0)


def test_quotas():
    assert quota_note({"ml.t2.medium": 2}) == ""
    assert quota_note({"ml.m5.xlarge": 6}) == (
        "needs 6 x ml.m5.xlarge; default quota 0; needs 6 instances on one endpoint; default quota 4"
    )
    assert quota_note({"ml.t2.medium": 2, "ml.m6g.xlarge": 2}) == "needs 2 x ml.m6g.xlarge; default quota 1"


SCALING = {"metric": "InvocationsPerInstance", "target": 100, "min": 1, "max": 4, "delay_s": 30}


def a_scaled_run(**traffic):
    """One request per second for 10 minutes, then four, to 30 minutes: 60 and 240 per minute."""
    steps = [{"from_s": 0.0, "rate_per_s": 1.0}, {"from_s": 600.0, "rate_per_s": 4.0}]
    profile = {"process": "constant", "profile": {"kind": "steps", "steps": steps}}
    block = {"time": 0.01, "workers": 1, "scaling": SCALING, "cold_start_s": 60}
    s = scenario(profile | traffic, {"time": 0.01, "workers": 4}, share=100, horizon_s=1800.0)
    return s.replace({"services.Shadow": block})


def test_a_scaled_pool_costs_the_instances_that_existed():
    """The third minute of 240 requests ends at 780 s, and three are wanted; 30 s later they exist, and start for 60 s.

    So there is one for 810 s and three for 990 s, 2.1 in the mean; 240 is not below 0.9 x 100 x 3, and none goes.
    """
    run = simulate(a_scaled_run())
    rows = items(cost(run, {"ml.m5.xlarge": 0.5}))
    assert rows["quantity"]["shadow instances"] == pytest.approx(2.1 * 7 * 24)
    assert rows["cost_usd"]["shadow instances"] == pytest.approx(2.1 * 7 * 24 * 0.5)
    assert rows["of"]["shadow instances"] == "2.10 x ml.m5.xlarge in the mean of the run"
    assert rows["of"]["source instances"] == "1 x ml.m5.xlarge"
    summary = run.summary().set_index("role")["billed_instances"]
    assert summary.to_dict() == pytest.approx({"source": 1.0, "shadow": 2.1})


def test_without_a_run_a_scaled_pool_costs_its_instance_count_and_says_so():
    row = items(cost(a_scaled_run())).loc["shadow instances"]
    assert row["quantity"] == 7 * 24
    assert row["note"].endswith("; it scales from 1 to 4, 168.0 to 672.0 instance-hours: a run tells the mean")


def test_retries_are_requests_of_the_run():
    """A source whose only instance is down for half of the time: who came then tries again."""
    sized = {"request_bytes": 1000, "response_bytes": 0}
    s = a_scaled_run(retries={"mode": "legacy", "max_attempts": 2}, **sized)
    down = s.replace({"source.outages": [{"instance": 0, "at_s": 900, "for_s": 900}]})
    run = simulate(down)
    n = run.windows.loc[run.windows["role"] == "source", "Invocations"].sum()
    assert n > 600 + 4 * 1200 + 3000
    assert items(cost(run))["quantity"]["data in"] == pytest.approx(n / 1800 * 7 * 86_400 * 1000 / 1e9)
