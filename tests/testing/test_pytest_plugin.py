"""Runs suites such as users write with the plugin, by pytester and under this project's strict settings."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest
from cases import scenario, service

from shadowsim import compare_benchmarks, simulate
from shadowsim.testing.benchmark_files import SIMULATED

pytest_plugins = "pytester"

STRICT = """
[pytest]
addopts = --strict-markers --strict-config -p no:cacheprovider
xfail_strict = true
filterwarnings = error
"""


@pytest.fixture(scope="module")
def small():
    """A hundred requests per second for 100 s, half of them copied; sections of a second."""
    traffic = {"process": "poisson", "rate_per_s": 100.0}
    return scenario(traffic, service("lognormal", 0.01, 2), horizon_s=100.0, period_s=1.0, sample_requests=0)


@pytest.fixture(scope="module", autouse=True)
def heavy_imports(small, tmp_path_factory):
    """Load numba and pyarrow in full before any suite does.

    pytester forgets the modules that a suite imports first. Imported again by a later test of the same process, pandas
    and numba would register their types a second time, which is an error.
    """
    simulate(small).save(tmp_path_factory.mktemp("heavy"))


@pytest.fixture
def suite(pytester, small, monkeypatch):
    """A user's directory: strict settings and a scenario file that they name."""
    monkeypatch.delenv("CI", raising=False)  # there pytest repeats whole messages in its summary
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # in a worker pytest-benchmark measures nothing
    small.save(pytester.path / "small.json")
    pytester.makeini(f"{STRICT}shadow_scenario = small.json\n")
    # pytest-benchmark's own looks for a second at what CPU this is.
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(optionalhook=True)
        def pytest_benchmark_generate_machine_info():
            return {"node": "here"}
        """
    )
    return pytester


def outcome(result, **counts):
    result.assert_outcomes(**counts)
    assert "warning" not in result.stdout.str().lower()
    return result.stdout.str()


def test_a_suite_of_a_user(suite, small):
    """All of it together: goals, a baseline that was kept, and the verdict."""
    simulate(small).save(suite.path / "last-release")
    suite.makepyfile(
        test_shadow="""
        from pathlib import Path
        import pytest
        from shadowsim import assert_no_regression

        HERE = Path(__file__).parent

        @pytest.mark.slo("shadow.p99 <= 200ms and error_rate < 0.1%")
        @pytest.mark.slo("source.p99 <= 200ms")
        def test_it_holds(shadow_result):
            assert shadow_result.verdict.status == "STABLE"

        @pytest.mark.slo("utilisation < 50%")
        def test_goals_alone():
            pass

        def test_no_slower_than_the_last_release(shadow_result):
            assert_no_regression(shadow_result, HERE / "last-release", margin="5%")

        def test_slower(shadow_scenario):
            import shadowsim
            slower = shadowsim.simulate(shadow_scenario.replace({"shadow.time.mean_s": 0.02}))
            assert_no_regression(slower, HERE / "last-release", margin="5%")
        """
    )
    text = outcome(suite.runpytest(), passed=3, failed=1)
    assert "shadowsim: " in text
    assert "E       AssertionError: Shadow: mean is worse (+" in text
    assert "Shadow   p50" in text
    assert "run_comparison.py" not in text  # the traceback ends in the test


def test_a_missed_goal_fails_with_value_goal_and_error(suite):
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.slo("shadow.p99 <= 1ms and source.p50 <= 1s and error_rate <= 0.1%")
        @pytest.mark.slo("mean < 1ms")
        def test_missed(shadow_result):
            pass

        @pytest.mark.slo("p99 <= 1ms")
        def test_its_own_assertion_comes_first():
            assert "mine" == "yours"

        @pytest.mark.slo("p99 <= 1ms")
        @pytest.mark.xfail
        def test_expected():
            pass

        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slo("p99 <= 1ms"))])
        def test_of_a_parameter(n):
            pass

        @pytest.mark.slo("p99 <= 1ms")
        class TestAll:
            def test_missed(self):
                pass
        """
    )
    result = suite.runpytest("-rf")
    text = outcome(result, passed=1, failed=4, xfailed=1)
    result.stdout.re_match_lines(
        [
            r"goal missed: mean < 1ms: Shadow has 1\d\.\d ms \(standard error 0?\.?\d+ ?[mu]s\)",
            r"goal missed: shadow\.p99 <= 1ms: Shadow has \d+\.\d ms \(standard error .*s\)",
            r"STABLE: .*",
        ]
    )
    assert "source.p50 <=" not in text
    assert "'mine' == 'yours'" in text


def test_a_goal_of_which_the_run_says_nothing_is_missed(suite):
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.shadow_scenario(changes={"sampling_percentage": 0})
        @pytest.mark.slo("p99 <= 1s")
        def test_no_copies():
            pass
        """
    )
    assert "goal missed: p99 <= 1s: Shadow has no such figure" in outcome(suite.runpytest(), failed=1)


def test_where_the_scenario_comes_from(suite, small):
    """A mark before the command line before the configuration; and a fixture of one's own before all."""
    small.replace({"seed": 11}).save(suite.path / "other.json")
    small.replace({"seed": 12}).save(suite.mkdir("inner") / "beside.json")
    (suite.path / "inner" / "request.json").write_text(json.dumps(small.document["experiment"]))
    test = """
        import pytest
        from shadowsim import default_scenario

        def test_given(shadow_scenario):
            assert shadow_scenario.seed == {seed}

        @pytest.mark.shadow_scenario("beside.json")
        def test_mark(shadow_scenario):
            assert shadow_scenario.seed == 12

        @pytest.mark.shadow_scenario(changes={{"seed": 13}})
        def test_change(shadow_scenario):
            assert shadow_scenario.seed == 13
            assert shadow_scenario.horizon_s == 100.0

        @pytest.mark.shadow_scenario("request.json", rate_per_s=20.0)
        def test_request(shadow_scenario):
            assert shadow_scenario.traffic.rate_per_s == 20.0

        @pytest.mark.shadow_scenario(default_scenario())
        def test_object(shadow_scenario):
            assert shadow_scenario == default_scenario()
        """
    file = suite.path / "inner" / "test_it.py"
    file.write_text(dedent(test.format(seed=7)))
    outcome(suite.runpytest(), passed=5)
    file.write_text(dedent(test.format(seed=11)))
    outcome(suite.runpytest("--shadow-scenario", "other.json"), passed=5)
    conftest = "import pytest\n@pytest.fixture(scope='session')\ndef shadow_scenario():\n    return 'other.json'\n"
    suite.makeconftest(conftest)
    (suite.path / "inner" / "test_it.py").write_text(
        "def test_own(shadow_result):\n    assert shadow_result.scenario.seed == 11\n"
    )
    outcome(suite.runpytest(), passed=1)


def test_by_default_it_is_the_built_in_scenario(pytester):
    pytester.makeini(STRICT)
    pytester.makepyfile(
        """
        import shadowsim

        def test_it(shadow_scenario):
            assert shadow_scenario == shadowsim.default_scenario()
        """
    )
    outcome(pytester.runpytest(), passed=1)


def test_a_scenario_is_simulated_once_a_session(suite):
    suite.makepyfile(
        """
        import pytest
        seen = []

        def test_one(shadow_result):
            seen.append(shadow_result)

        @pytest.mark.slo("p99 < 1s")
        def test_two(shadow_result):
            assert shadow_result is seen[0]

        @pytest.mark.shadow_scenario(changes={"seed": 5})
        def test_another(shadow_result):
            assert shadow_result is not seen[0]
        """
    )
    outcome(suite.runpytest(), passed=3)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('slo("p999 <= 1s"', "slo: must have a quantile above p0 and below p100"),
        ('slo("shadow.p99 <= 50"', "slo: needs a unit, got 'shadow.p99 <= 50'; shadow.p99 <= 50ms or 50s?"),
        ("slo(", "pytest.mark.slo: takes goals such as"),
        ('slo(goal="p99 < 1s"', "pytest.mark.slo: takes goals such as"),
        ('shadow_scenario("none.json"', "none.json: there is no such file"),
        ('shadow_scenario(change={"seed": 1}', "pytest.mark.shadow_scenario: takes one source"),
        ('shadow_scenario(changes={"sede": 1}', "did you mean seed?"),
        ('shadow_scenario("{}"', "experiment: is required"),
    ],
)
def test_an_error_in_a_mark_is_one_line(suite, mark, message):
    suite.makepyfile(f"import pytest\n@pytest.mark.{mark})\ndef test_it(shadow_scenario):\n    pass\n")
    result = suite.runpytest()
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    assert message in result.stdout.str()
    assert result.stdout.str().count(message) == 1 + (
        f"Failed: {message}" in result.stdout.str()
    )  # once more in the summary
    assert "During handling" not in result.stdout.str()
    assert "pytest_plugin.py" not in result.stdout.str()


def test_a_benchmark_notes_what_was_simulated(suite):
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.slo("p99 < 1s")
        @pytest.mark.benchmark(min_rounds=3)
        def test_speed(shadow_benchmark):
            assert shadow_benchmark(workers=1).verdict.status == "STABLE"

        def test_of_another_scenario(shadow_benchmark, shadow_scenario, benchmark):
            result = shadow_benchmark(shadow_scenario.replace({"seed": 3, "horizon_s": 10.0}), workers=1)
            assert result.scenario.seed == 3

        def test_no_benchmark():
            pass
        """
    )
    quick = ["--benchmark-max-time=0.000001", "--benchmark-min-rounds=1"]
    outcome(suite.runpytest("--benchmark-json=old.json", *quick), passed=3)
    document = json.loads((suite.path / "old.json").read_text())
    speed, other = document["benchmarks"]
    assert speed["stats"]["rounds"] == 3
    figures = speed["extra_info"]
    assert set(figures) == {*SIMULATED, "requests_per_s"}
    assert (figures["scenario"], figures["verdict"]) == ("case", "STABLE")
    assert 0.0 < figures["shadow_p50_s"] < figures["shadow_p99_s"]
    assert figures["requests_per_s"] == pytest.approx(figures["requests"] / speed["stats"]["median"])
    assert figures["instances_usd"] > 0.0
    assert figures["total_usd"] is None  # the sizes of payloads are not known
    assert other["extra_info"]["requests"] < figures["requests"]
    # the same code, by shadowsim's own comparison
    same = compare_benchmarks(suite.path / "old.json", suite.path / "old.json")
    assert same["verdict"].tolist() == ["~", "~"]
    assert same["simulated"].tolist() == ["", ""]
    outcome(suite.runpytest("--benchmark-only", *quick), passed=2, skipped=1)
    outcome(suite.runpytest("--benchmark-disable"), passed=3)
    outcome(suite.runpytest("--benchmark-skip"), passed=1, skipped=2)


@pytest.mark.slow
def test_with_pytest_benchmarks_own_gate(suite):
    """--benchmark-autosave, then --benchmark-compare-fail: a margin that nothing reaches, and one that all do."""
    suite.makepyfile("def test_speed(shadow_benchmark):\n    shadow_benchmark(workers=1)\n")
    quick = ["--benchmark-max-time=0.000001", "--benchmark-min-rounds=2"]
    outcome(suite.runpytest("--benchmark-autosave", "--benchmark-save-data", *quick), passed=1)
    saved = list(suite.path.glob(".benchmarks/*/0001_*.json"))
    assert len(saved) == 1
    assert json.loads(saved[0].read_text())["benchmarks"][0]["extra_info"]["verdict"] == "STABLE"
    gate = ["--benchmark-compare=0001", *quick]
    assert suite.runpytest(*gate, "--benchmark-compare-fail=min:100000%").ret == 0
    # any time is longer than no time
    document = json.loads(saved[0].read_text())
    document["benchmarks"][0]["stats"]["min"] = 1e-12
    saved[0].write_text(json.dumps(document))
    failed = suite.runpytest(*gate, "--benchmark-compare-fail=min:5%")
    assert failed.ret != 0
    assert "Performance has regressed" in failed.stdout.str() + failed.stderr.str()


def test_without_pytest_benchmark_the_need_is_said(suite):
    suite.makepyfile("def test_speed(shadow_benchmark):\n    shadow_benchmark()\n")
    text = outcome(suite.runpytest("-p", "no:benchmark"), errors=1)
    assert "shadow_benchmark needs pytest-benchmark: pip install pytest-benchmark" in text
    assert "pytest_plugin.py" not in text


def test_it_can_be_switched_off_and_asked_for_help(suite):
    suite.makeini(STRICT)
    suite.makepyfile("def test_it():\n    pass\n")
    outcome(suite.runpytest("-p", "no:shadowsim"), passed=1)
    assert "--shadow-scenario" in suite.runpytest("--help").stdout.str()
    marks = suite.runpytest("--markers").stdout.str()
    assert "@pytest.mark.slo(goals)" in marks
    assert "@pytest.mark.shadow_scenario(" in marks
    fixtures = suite.runpytest("--fixtures").stdout.str()
    assert "shadow_benchmark -- " in fixtures
    assert "shadow_result -- " in fixtures


def pytest_output(directory, code, *options):
    """Return the output of a suite of one test in a fresh interpreter, since this one has loaded everything."""
    (directory / "test_it.py").write_text("def test_it():\n    pass\n")
    others = [f"-pno:{name}" for name in ("benchmark", "cacheprovider", "nbmake", "hypothesispytest")]
    command = [sys.executable, "-c", code, "-q", "--rootdir=.", *others, *options, "test_it.py"]
    return subprocess.run(command, check=True, cwd=directory, capture_output=True, text=True).stdout


def test_pytest_starts_without_anything_heavy(tmp_path):
    code = """
import sys, pytest

class After:
    def pytest_collection_finish(self, session):
        heavy = [m for m in ("numba", "numpy", "pandas", "plotly", "aiohttp", "scipy") if m in sys.modules]
        print("loaded", session.config.pluginmanager.hasplugin("shadowsim"), len(session.items), heavy)

sys.exit(pytest.main(sys.argv[1:], [After()]))
"""
    assert "loaded True 1 []" in pytest_output(tmp_path, code)


def test_the_package_may_have_been_imported_before(tmp_path):
    """pytest rewrites the assertions of a distribution that has a plugin, and warns of what it comes too late for."""
    code = "import sys, shadowsim, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    assert "1 passed" in pytest_output(tmp_path, code, "-Werror")


def test_a_goodput_in_a_mark_is_counted(suite):
    suite.makepyfile(
        """
        import pytest
        import shadowsim

        @pytest.fixture
        def shadow_scenario():
            step = {"base_s": 0.02, "per_sequence_s": 0.001}
            served = {"prompt": 50, "output": 20, "max_sequences": 8, "max_step_tokens": 512, "kv_tokens": 8000}
            service = {"tokens": served | {"step": step}}
            return shadowsim.default_scenario().replace({
                "traffic": {"process": "poisson", "rate_per_s": 5.0}, "horizon_s": 120.0, "run.period_s": 10.0,
                "services": {"AllTraffic": service, "Shadow-01": service},
            })

        @pytest.mark.slo("goodput(ttft <= 1s, tpot <= 100ms) >= 50%")
        def test_met():
            pass

        @pytest.mark.slo("ttft.p50 <= 1s and goodput(ttft <= 1s, tpot <= 1ms) >= 50%")
        def test_missed():
            pass
        """
    )
    text = outcome(suite.runpytest(), passed=1, failed=1)
    assert "goal missed: goodput(ttft <= 1s, tpot <= 1ms) >= 50%: Shadow-01 has 0.000 % (standard error" in text
