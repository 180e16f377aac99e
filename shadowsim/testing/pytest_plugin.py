"""Provides pytest fixtures and marks that simulate shadow tests, so that a regression fails a build.

    @pytest.mark.slo("shadow.p99 <= 200ms and error_rate < 0.1%")
    def test_it_holds(shadow_result):
        assert shadow_result.verdict.status == "STABLE"

    def test_it_is_no_slower_than_the_last_release(shadow_result):
        assert_no_regression(shadow_result, "tests/last-release", margin="5%")

    def test_speed(shadow_benchmark):
        shadow_benchmark()

The scenario under test comes from the first of these that exists:

* a fixture `shadow_scenario` of the suite;
* a mark such as `@pytest.mark.shadow_scenario("scenario.json", changes={"shadow.instance_count": 3})`, with the
  arguments of `Scenario.of`; its file is relative to the test's;
* `--shadow-scenario FILE`;
* `shadow_scenario = FILE` in pytest's configuration, relative to the configuration file;
* the built-in scenario, of a day and 34.6 million requests.

pytest loads this module whenever the package is installed, so slow imports wait until a test needs them.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from shadowsim.errors import InputError, SerializationError, ValidationError

if TYPE_CHECKING:
    from shadowsim.result import Result
    from shadowsim.scenario.scenario import Scenario

MAX_RESULTS = 32  # results kept per session; the least recently used is dropped, because results hold frames

_SETTING = "shadow_scenario"
_RESULTS = pytest.StashKey["OrderedDict[tuple[str, str], Result]"]()


class ShadowBenchmark(Protocol):
    """The fixture `shadow_benchmark`: a function that times the engine and returns the result.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path, optional
        By default the test's `shadow_scenario`.
    workers : int, optional
        Threads, as for `simulate`.
    """

    def __call__(self, scenario: object = None, *, workers: int | None = None) -> Result:
        """Time the simulation of a scenario."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --shadow-scenario and the setting shadow_scenario."""
    group = parser.getgroup("shadowsim", "SageMaker shadow tests")
    group.addoption(
        "--shadow-scenario",
        metavar="FILE",
        help="Scenario of the fixtures shadow_scenario, shadow_result and shadow_benchmark.",
    )
    parser.addini(_SETTING, "Scenario file of shadowsim's fixtures, relative to this file. [the built-in scenario]")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line(
        "markers", "slo(goals): fail unless the test's shadow_result meets goals such as 'shadow.p99 <= 200ms'."
    )
    config.addinivalue_line(
        "markers",
        "shadow_scenario(source=None, *, rate_per_s=None, changes=None): the scenario of shadowsim's fixtures, with "
        "the arguments of Scenario.of; a file is relative to the test's.",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the scenario file, if one is given."""
    file = _scenario_file(config)
    return None if file is None else f"shadowsim: {file}"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Add the fixtures that a test's mark slo, or its fixture shadow_benchmark, needs."""
    names = getattr(item, "fixturenames", None)
    if names is None:
        return
    if item.get_closest_marker("slo") and "shadow_result" not in names:
        names.append("shadow_result")
    # Only if pytest-benchmark is there: without it, shadow_benchmark says what to install.
    if "shadow_benchmark" in names and "benchmark" not in names and item.config.pluginmanager.hasplugin("benchmark"):
        names.append("benchmark")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose result misses its goals, after its own assertions have passed."""
    yield
    goals = [goal for mark in item.iter_markers("slo") for goal in _goals(mark)]
    if not goals:
        return
    result = getattr(item, "funcargs", {}).get("shadow_result")
    if result is None:
        raise _failure("pytest.mark.slo: is for tests that can have the fixture shadow_result")
    with _short_failures():
        missed = _missed_goals_text(result, goals)
    if missed:
        raise _failure(missed)


@pytest.fixture
def shadow_scenario(request: pytest.FixtureRequest) -> Scenario:
    """The scenario under test: from a mark, --shadow-scenario or pytest's configuration, else the built-in one."""
    from shadowsim.scenario.scenario import Scenario, default_scenario

    mark = request.node.get_closest_marker("shadow_scenario")
    configured = _scenario_file(request.config)
    with _short_failures():
        if mark is None:
            return default_scenario() if configured is None else Scenario.of(configured)
        source, rate_per_s, changes = _mark_arguments(mark)
        if source is None:
            source = default_scenario() if configured is None else configured
        elif isinstance(source, str) and not source.lstrip().startswith("{"):
            source = request.path.parent / source
        return Scenario.of(source, rate_per_s, changes)


@pytest.fixture
def shadow_result(request: pytest.FixtureRequest, shadow_scenario: Scenario) -> Result:
    """The result of simulating shadow_scenario; tests of one scenario share it, so it must not be changed.

    It counts the pairs of limits of the goodputs in the test's marks, besides those of the scenario.
    """
    from shadowsim.planning.slo import parse_slo, with_goodput
    from shadowsim.scenario.scenario import Scenario

    goals = [goal for mark in request.node.iter_markers("slo") for goal in _goals(mark)]
    with _short_failures():
        scenario = Scenario.of(shadow_scenario)
        for slo in map(parse_slo, goals):
            scenario = with_goodput(scenario, slo)
        return _session_result(request.session, scenario)


@pytest.fixture
def shadow_benchmark(request: pytest.FixtureRequest) -> ShadowBenchmark:
    """Times the engine on shadow_scenario with pytest-benchmark, and records simulated figures in extra_info."""
    try:
        benchmark = request.getfixturevalue("benchmark")
    except pytest.FixtureLookupError:
        raise _failure("shadow_benchmark needs pytest-benchmark: pip install pytest-benchmark") from None

    def time(scenario: object = None, *, workers: int | None = None) -> Result:
        __tracebackhide__ = True
        from shadowsim.engine.simulate import simulate
        from shadowsim.scenario.scenario import Scenario

        with _short_failures():
            timed = Scenario.of(request.getfixturevalue("shadow_scenario") if scenario is None else scenario)
            # Not timed, because the first run may compile.
            result = _session_result(request.session, timed)
            benchmark(simulate, timed, workers=workers)
            benchmark.extra_info.update(_simulated_figures(result))
        if benchmark.stats is not None:  # else timing is disabled
            benchmark.extra_info["requests_per_s"] = benchmark.extra_info["requests"] / benchmark.stats.stats.median
        return result

    return time


def _scenario_file(config: pytest.Config) -> Path | None:
    """Return the scenario file of the command line or of the configuration."""
    file = config.getoption("--shadow-scenario", None)
    if file:
        return Path(config.invocation_params.dir, file)
    setting = config.getini(_SETTING)
    return Path((config.inipath or config.rootpath / "pytest.ini").parent, setting) if setting else None


def _mark_arguments(mark: pytest.Mark) -> tuple[object, float | None, Mapping[str, object] | None]:
    """Return the arguments of the mark shadow_scenario: a source, a rate and changes."""

    def read(
        source: object = None, *, rate_per_s: float | None = None, changes: Mapping[str, object] | None = None
    ) -> tuple[object, float | None, Mapping[str, object] | None]:
        return source, rate_per_s, changes

    try:
        return read(*mark.args, **mark.kwargs)
    except TypeError:
        text = "pytest.mark.shadow_scenario: takes one source, rate_per_s=... and changes={...}, and nothing else"
        raise _failure(text) from None


def _session_result(session: pytest.Session, scenario: Scenario) -> Result:
    """Return the result of a scenario, which is simulated once per session."""
    from shadowsim.engine.simulate import simulate

    results = session.stash.setdefault(_RESULTS, OrderedDict())
    key = json.dumps(scenario.document, sort_keys=True), str(scenario.base_dir)
    if key not in results:
        results[key] = simulate(scenario)
    results.move_to_end(key)
    if len(results) > MAX_RESULTS:
        results.popitem(last=False)
    return results[key]


def _goals(mark: pytest.Mark) -> tuple[str, ...]:
    if mark.kwargs or not mark.args:
        raise _failure("pytest.mark.slo: takes goals such as 'shadow.p99 <= 200ms', and nothing else")
    return mark.args


def _missed_goals_text(result: Result, goals: list[str]) -> str:
    """Return one line per missed goal, and the verdict; "" when the result meets all goals."""
    from shadowsim.planning.slo import parse_slo
    from shadowsim.text import percent, time_text

    lines = []
    for slo in map(parse_slo, goals):
        for goal, row in zip(slo.goals, slo.evaluate(result).to_dict("records"), strict=True):
            if row["met"]:
                continue
            value_text = time_text if goal.is_time else partial(percent, decimals=3)
            error = row["standard_error"]
            error_text = f"standard error {value_text(error)}" if math.isfinite(error) else "standard error unknown"
            value = "no such figure" if math.isnan(row["value"]) else f"{value_text(row['value'])} ({error_text})"
            lines.append(f"goal missed: {goal}: {row['variant']} has {value}")
    return "\n".join([*lines, str(result.verdict)]) if lines else ""


def _simulated_figures(result: Result) -> dict[str, object]:
    """Return the figures of a result that a benchmark records, independent of any clock (`SIMULATED`)."""
    from shadowsim.planning.costs import cost

    roles = result.summary(standard_errors=False).set_index("role").to_dict("index")
    usd = cost(result)
    figures: dict[str, float] = {}
    for role in ("source", "shadow"):
        figures |= {f"{role}_{p}_s": roles[role][f"{p}_s"] for p in ("p50", "p99")}
    figures |= {"instances_usd": usd.instances_usd, "total_usd": usd.total_usd}
    return {
        "scenario": result.scenario.experiment.name,
        "verdict": result.verdict.status,
        "requests": int(roles["source"]["requests"]),
        **{name: float(x) if math.isfinite(x) else None for name, x in figures.items()},
    }


@contextmanager
def _short_failures() -> Iterator[None]:
    """Turn errors of input into failures of one line, without a traceback."""
    __tracebackhide__ = True
    try:
        yield
    except (InputError, ValidationError, SerializationError) as error:
        raise _failure(str(error)) from None


def _failure(text: str) -> BaseException:
    """Return a failure that shows a text and no traceback."""
    return pytest.fail.Exception(text, pytrace=False)
