"""The commands size, capacity, plan and sweep: output, exit statuses and errors."""

from __future__ import annotations

import csv
import io
import json

import pandas as pd
import pytest
from commands import good, refused, run, written

from shadowsim import capacity, default_scenario, plan, size, sweep
from shadowsim.scenario.scenario import init_scenario

BASE = default_scenario().replace({"traffic.profile": None, "rate_per_s": 100, "horizon_s": 1200})


@pytest.fixture(scope="module")
def scenario_file(tmp_path_factory):
    """A scenario of twenty minutes of steady traffic, short enough to be sized and planned by simulation."""
    place = tmp_path_factory.mktemp("scenario")
    BASE.save(place / "scenario.json")
    return place / "scenario.json"


@pytest.fixture(scope="module")
def request_file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("request") / "request.json", init_scenario()["experiment"])


class TestSize:
    GOALS = ("--slo", "p99 <= 100ms")

    def test_answers_with_the_cheapest(self, scenario_file):
        text = good("size", scenario_file, *self.GOALS)
        assert "goals: p99 <= 100ms" in text
        assert "Enough for the shadow: 1 x ml.m5.xlarge, 38.64 USD for 7 days." in text

    def test_own_prices(self, scenario_file, tmp_path):
        prices = written(tmp_path / "prices.csv", "instance_type,price_usd_per_h\nml.m5.xlarge,1\n")
        assert "1 x ml.m5.xlarge, 168.00 USD" in good("size", scenario_file, *self.GOALS, "--prices", prices)

    def test_counts_instances_of_the_roles_that_the_goals_mention(self, scenario_file):
        goals = ("--slo", "source.p99 <= 100ms and p99 <= 100ms")
        answer = json.loads(good("size", scenario_file, *goals, "--json"))
        assert [row["role"] for row in answer] == ["source", "shadow"]
        line = refused("size", scenario_file, *goals, "--variants", "shadow")
        assert "has a goal for the source, whose instances are not counted" in line

    def test_fails_when_no_type_will_do(self, scenario_file):
        done = run("size", scenario_file, "--slo", "p50 < 1ms", "--max-instances", 4)
        assert done.exit_code == 1
        assert "No type meets the goals of the shadow." in done.stdout
        done = run("size", scenario_file, *self.GOALS, "--types", "ml.c5.large,ml.c5.xlarge")
        assert done.exit_code == 1
        assert done.stdout.count("not measured") == 2

    def test_for_machines(self, scenario_file):
        want = size(scenario_file, "p99 <= 100ms", headroom_pct=20)
        options = (*self.GOALS, "--headroom-pct", 20)
        got = pd.read_csv(io.StringIO(good("size", scenario_file, *options, "--csv")))
        assert got.loc[0, "instance_count"] == want.loc[0, "instance_count"]
        answer = json.loads(good("size", scenario_file, *options, "--json"))
        assert answer[0]["p99_s"] == want.loc[0, "p99_s"]
        assert answer[0]["certain"] is True

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ([], "--slo: is required"),
            (["--slo", "p99 <= 1kg"], "--slo: needs a time"),
            (["--slo", "p98,5 < 1s"], "--slo: is not a metric"),
            (["--slo", "p99 < 1s", "--types", "ml.m5.xlrge"], "did you mean ml.m5.xlarge?"),
            (["--slo", "p99 < 1s", "--headroom-pct", "20%"], "--headroom-pct: must be a number, got '20%'"),
            (["--slo", "p99 < 1s", "--max-instances", "0"], "--max-instances: must be a whole number >= 1, got 0"),
            (["--slo", "p99 < 1s", "--variants", "all"], "--variants: must be some of source and shadow"),
            (["--slo", "p99 < 1s", "--prices", "none.csv"], "none.csv: cannot be read"),
        ],
    )
    def test_slips(self, options, says):
        assert says in refused("size", *options)


class TestCapacity:
    GOALS = ("--slo", "p99 <= 100ms", "--replications", 3)

    def test_answers_with_the_greatest_rate(self, scenario_file, tmp_path):
        text = good("capacity", scenario_file, *self.GOALS, "--report", tmp_path / "page.html")
        assert "goals: p99 <= 100ms" in text
        assert "shadow: decided by p99 <= 100ms; stable below 800 requests/s; 3 runs of" in text
        assert "Latency against the rate" in (tmp_path / "page.html").read_text()

    def test_for_machines(self, scenario_file):
        want = capacity(scenario_file, "p99 <= 100ms", replications=3)
        got = pd.read_csv(io.StringIO(good("capacity", scenario_file, *self.GOALS, "--csv")))
        assert got.loc[0, "rate_per_s"] == pytest.approx(want.loc[0, "rate_per_s"])
        (answer,) = json.loads(good("capacity", scenario_file, *self.GOALS, "--json"))
        assert answer["low_per_s"] == want.loc[0, "low_per_s"]
        assert answer["binding"] == "p99 <= 100ms"

    def test_fails_when_no_rate_holds(self, scenario_file):
        done = run("capacity", scenario_file, "--slo", "p50 < 1ms")
        assert done.exit_code == 1
        assert "The shadow holds no rate." in done.stdout

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ([], "--slo: is required"),
            (["--slo", "p99 <= 100"], "--slo: needs a unit"),
            (["--slo", "utilisation >= 5%"], "--slo: needs a goal that a higher rate breaks"),
            (["--slo", "p99 < 1s", "--replications", "2"], "--replications: must be"),
            (["--slo", "p99 < 1s", "--confidence", "95"], "--confidence: must be"),
        ],
    )
    def test_slips(self, scenario_file, options, says):
        assert says in refused("capacity", scenario_file, *options)


class TestPlan:
    OPTIONS = ("--replications", 10, "--shares", "50,100", "--durations", "600,20min", "--effect", "mean +40%")
    ARGUMENTS = {"shares": [50, 100], "durations": [600, 1200.0], "replications": 10}  # noqa: RUF012
    DEFAULTS = {"alpha": 0.05, "looks": 1, "prices": None, "workers": None, "progress": False}  # noqa: RUF012

    @pytest.fixture
    def arguments(self, monkeypatch):
        """The arguments of `plan`, which is slow: it is replaced by one that returns four rows, the second the best."""
        arguments = {}

        def four_rows(scenario, effect, power, **more):
            arguments.update(more, scenario=scenario, effect=effect, power=power)
            rows = {
                "sampling_percentage": [50, 50, 100, 100], "duration_s": [600.0, 1200.0] * 2,
                "duration_h": [1 / 6, 1 / 3] * 2, "power": [0.5, 0.85, 0.6, 0.9], "visible_pct": 30.0,
                "cost_usd": [0.1, 0.2, 0.3, 0.4], "shadow_instances": 1, "how": "simulated", "note": "",
            }  # fmt: skip
            errors = dict.fromkeys(("power_error", "false_alarm", "false_alarm_error", "simulated_h"), 0.05)
            return pd.DataFrame(rows).assign(**errors, reaches=lambda x: x["power"] >= power)

        monkeypatch.setattr("shadowsim.planning.plan.plan", four_rows)
        return arguments

    def test_passes_its_options_on(self, arguments, scenario_file):
        good("plan", scenario_file, *self.OPTIONS, "--set", "seed=9")
        assert arguments.pop("scenario").seed == 9
        assert arguments == self.ARGUMENTS | self.DEFAULTS | {"effect": "mean +40%", "power": 0.8}

    @pytest.mark.usefixtures("arguments")
    def test_recommends_or_fails(self):
        text = " ".join(good("plan", *self.OPTIONS).split())
        says = "50 % of the requests for 20 min on 1 shadow instance, for 0.20 USD."
        assert text.endswith(f"Cheapest that finds it in 80 % of tests: {says}")
        for form in ([], ["--csv"], ["--json"]):
            done = run("plan", *self.OPTIONS, "--power", 0.95, *form)
            assert done.exit_code == 1
        assert json.loads(done.stdout)["recommended"] is None

    @pytest.mark.usefixtures("arguments")
    def test_for_machines(self):
        table = pd.read_csv(io.StringIO(good("plan", *self.OPTIONS, "--csv")))
        assert table["power"].tolist() == [0.5, 0.85, 0.6, 0.9]
        answer = json.loads(good("plan", *self.OPTIONS, "--json"))
        assert [cell["power"] for cell in answer["cells"]] == [0.5, 0.85, 0.6, 0.9]
        assert answer["recommended"]["duration_s"] == 1200.0

    @pytest.mark.slow
    def test_is_what_the_function_says(self, scenario_file):
        want = plan(scenario_file, "mean +40%", 0.5, **self.ARGUMENTS)
        answer = json.loads(good("plan", scenario_file, *self.OPTIONS, "--power", 0.5, "--json"))
        assert [cell["power"] for cell in answer["cells"]] == want["power"].tolist()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--effect", "p99 5%"], "--effect: "),
            (["--shares", "10,x"], "--shares: must be a number, got 'x'"),
            (["--shares", "0"], "--shares: must be a whole number >= 1, got 0"),
            (["--durations", "6h,1y"], "--durations: must be seconds, or have a unit"),
            (["--power", "80"], "--power: "),
            (["--power", "high"], "--power: must be a number, got 'high'"),
            (["--replications", "3"], "--replications: must be an integer from 10"),
        ],
    )
    def test_slips(self, options, says):
        assert says in refused("plan", *options)


class TestSweep:
    GRID = ("--set", "sampling_percentage=10,50", "--set", "horizon_s=60")

    def test_of_the_built_in_scenario(self):
        text = good("sweep", *self.GRID)
        assert "in all cells: horizon_s = 60" in text
        assert "2 cells: 2 STABLE." in text or "TOO SHORT" in text

    def test_for_machines(self, scenario_file):
        want = sweep(scenario_file, {"sampling_percentage": [10, 50], "horizon_s": [60]}, replications=2)
        options = (*self.GRID, "--replications", 2)
        got = csv.DictReader(io.StringIO(good("sweep", scenario_file, *options, "--csv")))
        assert [float(row["p99_s"]) for row in got] == want["p99_s"].tolist()
        answer = json.loads(good("sweep", scenario_file, *options, "--json"))
        assert [row["p99_s"] for row in answer] == want["p99_s"].tolist()

    def test_a_request_needs_no_other_rate_than_those_of_the_sweep(self, request_file):
        options = ("--set", "rate_per_s=5,10", "--set", "horizon_s=60")
        assert len(json.loads(good("sweep", request_file, *options, "--json"))) == 4
        assert "--rate R" in refused("sweep", request_file, *self.GRID)
        assert good("sweep", request_file, *self.GRID, "--rate", 5)

    def test_strict_fails_for_what_is_overloaded(self):
        options = ("--set", "shadow.time.mean_s=0.02,0.2", "--set", "horizon_s=600")
        good("sweep", *options)
        assert run("sweep", *options, "--strict").exit_code == 1

    def test_goes_on_from_a_cache(self, tmp_path, monkeypatch):
        first = good("sweep", *self.GRID, "--cache", tmp_path / "runs", "--csv")
        monkeypatch.setattr("shadowsim.planning.sweep.run", lambda *args, **more: pytest.fail("it was run again"))
        assert good("sweep", *self.GRID, "--cache", tmp_path / "runs", "--csv") == first

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ("", "--set: is required"),
            ("--set sampling_percentage=10,,50", "--set: must be PATH=VALUE,VALUE,..."),
            ("--set sampling_percentage=10,101", "cell 1 (sampling_percentage=101)"),
            ("--set sampling=10", "sampling: is not a path of a scenario"),
            ("--set seed=1 --replications 0", "--replications: must be a whole number >= 1, got 0"),
            ("--set seed=1 --cache /dev/null", "cache: cannot be a directory"),
        ],
    )
    def test_slips(self, options, says):
        assert says in refused("sweep", *options.split())

    def test_a_cluster_that_does_not_answer(self, monkeypatch):
        monkeypatch.setattr("shadowsim.cli.plan.DASK_TIMEOUT_S", 0.2)
        line = refused("sweep", "--set", "seed=1,2", "--dask", "127.0.0.1:1")
        assert line.startswith("--dask: must be the address of a scheduler that answers (")
        assert line.endswith("got '127.0.0.1:1'")
        assert "--dask: must be the address" in refused("sweep", "--set", "seed=1,2", "--dask", "nowhere://")

    @pytest.mark.slow
    def test_on_a_cluster(self):
        from dask.distributed import LocalCluster

        here = good("sweep", *self.GRID, "--csv")
        options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
        with LocalCluster(n_workers=2, **options) as cluster:
            assert good("sweep", *self.GRID, "--csv", "--dask", cluster.scheduler_address) == here


def test_a_page_of_a_sweep(tmp_path):
    words = ["sweep", "--set", "horizon_s=600", "--set", "sampling_percentage=20,50", "-q", "--report"]
    page = tmp_path / "sweep.html"
    assert f"page: {page}" in good(*words, page)
    assert "share copied (%)" in page.read_text()
    assert str(page) not in good(*words, page, "--csv")
    assert "is a directory" in refused(*words, tmp_path)


class TestScalingPolicy:
    """shadowsim scaling-policy"""

    SCALING = '{"metric": "InvocationsPerInstance", "target": 1500, "min": 1, "max": 10}'
    SET = ("--set", f"shadow.scaling={SCALING}", "--set", "horizon_s=600")

    def test_prints_what_boto3_takes_and_notes_apart_from_it(self):
        result = run("scaling-policy", *self.SET)
        requests = json.loads(result.stdout)["Shadow-01"]
        assert list(requests) == ["RegisterScalableTarget", "PutScalingPolicy"]
        assert requests["RegisterScalableTarget"]["MaxCapacity"] == 10
        assert "note  Shadow-01: simulated with scale-outs after 3 data points of 60 s" in result.stderr
        assert "note" not in run("scaling-policy", *self.SET, "--quiet").stderr
        template = json.loads(run("scaling-policy", *self.SET, "--format", "cloudformation").stdout)
        assert list(template["Resources"]) == ["ShadowScalableTarget", "ShadowScalingPolicy"]

    def test_a_policy_that_does_not_exist_is_a_failed_goal(self):
        """The traffic of ten minutes hardly changes, so that no policy costs less than what it needs."""
        result = run("scaling-policy", *self.SET, "--slo", "p99 <= 200ms")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "No scaling policy of the shadow meets its goals: no policy meets the goals" in result.stderr

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (
                (),
                "scenario: must have a variant that scales, by services.AllTraffic.scaling or services.",
            ),
            ((*SET, "--format", "yaml"), "--format: must be one of json, cloudformation, got 'yaml'"),
            ((*SET, "--slo", "source.p99 <= 1s"), "--slo: has a goal for the source, which has no scaling"),
            ((*SET, "--slo", "p99 <= 1"), "--slo: needs a unit"),
        ],
    )
    def test_slips(self, options, says):
        assert says in refused("scaling-policy", *options)

    def test_size_shows_policies_and_fails_if_only_the_rule_of_thumb_is_left(self):
        text = good("size", *self.SET, "--slo", "p99 <= 200ms", "-q")
        assert "rule of thumb" in text
        assert "policy: no policy meets the goals and costs less than" in text
        # the service alone takes longer
        assert run("size", *self.SET, "--slo", "p99 <= 30ms", "-q").exit_code == 1
