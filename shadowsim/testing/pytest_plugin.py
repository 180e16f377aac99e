"""A pytest plugin: shadow tests simulated within a test suite, so that what breaks them fails a build.

    @pytest.mark.slo("shadow.p99 <= 200ms and error_rate < 0.1%")
    def test_it_holds(shadow_result):
        assert shadow_result.verdict.status == "STABLE"

    def test_it_is_no_slower_than_the_last_release(shadow_result):
        assert_no_regression(shadow_result, "tests/last-release", margin="5%")

    def test_speed(shadow_benchmark):
        shadow_benchmark()

Which scenario is tested is said, the nearest first, by a fixture `shadow_scenario` of one's own; by a mark such as
`@pytest.mark.shadow_scenario("scenario.json", changes={"shadow.instance_count": 3})`, which takes what `Scenario.of`
takes, its file beside the test's; by `--shadow-scenario FILE`; by `shadow_scenario = FILE` in pytest's configuration,
beside which the file lies. By default it is the built-in one, of a day and 34.6 million requests.

pytest loads this file whenever the package is installed: what is slow to import is imported when a test needs it.
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

MOST_KEPT = 32  # results of a session, the least recently used being dropped: they hold frames

_FILE = "shadow_scenario"
_RESULTS = pytest.StashKey["OrderedDict[tuple[str, str], Result]"]()


class ShadowBenchmark(Protocol):
    """What the fixture `shadow_benchmark` gives: times the engine, and returns the result.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path, optional
        By default the test's `shadow_scenario`.
    workers : int, optional
        Threads, as for `simulate`.
    """

    def __call__(self, scenario: object = None, *, workers: int | None = None) -> Result:
        """Time it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --shadow-scenario and its setting."""
    group = parser.getgroup("shadowsim", "SageMaker shadow tests")
    group.addoption(
        "--shadow-scenario",
        metavar="FILE",
        help="Scenario of the fixtures shadow_scenario, shadow_result and shadow_benchmark.",
    )
    parser.addini(_FILE, "Scenario file of shadowsim's fixtures, relative to this file. [the built-in scenario]")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line(
        "markers", "slo(goals): fail unless the test's shadow_result meets goals such as 'shadow.p99 <= 200ms'."
    )
    config.addinivalue_line(
        "markers",
        "shadow_scenario(source=None, *, rate_per_s=None, changes=None): the scenario of shadowsim's fixtures, from "
        "what Scenario.of takes; a file is looked for beside the test's.",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the scenario file, if one is given."""
    file = _configured(config)
    return None if file is None else f"shadowsim: {file}"


def pytest_itemcollected(item: pytest.Item) -> None:
    """See to it that a test has the fixtures that its mark, or shadow_benchmark, needs."""
    names = getattr(item, "fixturenames", None)
    if names is None:
        return
    if item.get_closest_marker("slo") and "shadow_result" not in names:
        names.append("shadow_result")
    # Only now: a test that lacks pytest-benchmark should hear more than that there is no such fixture.
    if "shadow_benchmark" in names and "benchmark" not in names and item.config.pluginmanager.hasplugin("benchmark"):
        names.append("benchmark")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose result does not meet its goals, once its own assertions have held."""
    yield
    goals = [goal for mark in item.iter_markers("slo") for goal in _goals(mark)]
    if not goals:
        return
    result = getattr(item, "funcargs", {}).get("shadow_result")
    if result is None:
        raise _line("pytest.mark.slo: is for tests that can have the fixture shadow_result")
    with _in_a_line():
        missed = _missed(result, goals)
    if missed:
        raise _line(missed)


@pytest.fixture
def shadow_scenario(request: pytest.FixtureRequest) -> Scenario:
    """The scenario under test: from a mark, --shadow-scenario or pytest's configuration, else the built-in one."""
    from shadowsim.scenario.scenario import Scenario, default_scenario

    mark = request.node.get_closest_marker("shadow_scenario")
    configured = _configured(request.config)
    with _in_a_line():
        if mark is None:
            return default_scenario() if configured is None else Scenario.of(configured)
        source, rate_per_s, changes = _arguments(mark)
        if source is None:
            source = default_scenario() if configured is None else configured
        elif isinstance(source, str) and not source.lstrip().startswith("{"):
            source = request.path.parent / source
        return Scenario.of(source, rate_per_s, changes)


@pytest.fixture
def shadow_result(request: pytest.FixtureRequest, shadow_scenario: Scenario) -> Result:
    """The simulation of shadow_scenario; tests of one scenario share it, so it must not be changed."""
    from shadowsim.scenario.scenario import Scenario

    with _in_a_line():
        return _result(request.session, Scenario.of(shadow_scenario))


@pytest.fixture
def shadow_benchmark(request: pytest.FixtureRequest) -> ShadowBenchmark:
    """Times the engine on shadow_scenario with pytest-benchmark, and notes what was simulated in extra_info."""
    try:
        benchmark = request.getfixturevalue("benchmark")
    except pytest.FixtureLookupError:
        raise _line("shadow_benchmark needs pytest-benchmark: pip install pytest-benchmark") from None

    def time(scenario: object = None, *, workers: int | None = None) -> Result:
        __tracebackhide__ = True
        from shadowsim.engine.simulate import simulate
        from shadowsim.scenario.scenario import Scenario

        with _in_a_line():
            whole = Scenario.of(request.getfixturevalue("shadow_scenario") if scenario is None else scenario)
            # Untimed, since the first run may compile.
            result = _result(request.session, whole)
            benchmark(simulate, whole, workers=workers)
            benchmark.extra_info.update(_noted(result))
        if benchmark.stats is not None:  # else timing is disabled
            benchmark.extra_info["requests_per_s"] = benchmark.extra_info["requests"] / benchmark.stats.stats.median
        return result

    return time


def _configured(config: pytest.Config) -> Path | None:
    """Return the scenario file of the command line or of the configuration."""
    given = config.getoption("--shadow-scenario", None)
    if given:
        return Path(config.invocation_params.dir, given)
    setting = config.getini(_FILE)
    return Path((config.inipath or config.rootpath / "pytest.ini").parent, setting) if setting else None


def _arguments(mark: pytest.Mark) -> tuple[object, float | None, Mapping[str, object] | None]:
    """Return what the mark shadow_scenario says: a source, a rate and changes."""

    def read(
        source: object = None, *, rate_per_s: float | None = None, changes: Mapping[str, object] | None = None
    ) -> tuple[object, float | None, Mapping[str, object] | None]:
        return source, rate_per_s, changes

    try:
        return read(*mark.args, **mark.kwargs)
    except TypeError:
        takes = "takes one source, rate_per_s=... and changes={...}, and nothing else"
        raise _line(f"pytest.mark.shadow_scenario: {takes}") from None


def _result(session: pytest.Session, scenario: Scenario) -> Result:
    """Return the simulation of a scenario, made once a session."""
    from shadowsim.engine.simulate import simulate

    kept = session.stash.setdefault(_RESULTS, OrderedDict())
    key = json.dumps(scenario.document, sort_keys=True), str(scenario.base_dir)
    if key not in kept:
        kept[key] = simulate(scenario)
    kept.move_to_end(key)
    if len(kept) > MOST_KEPT:
        kept.popitem(last=False)
    return kept[key]


def _goals(mark: pytest.Mark) -> tuple[str, ...]:
    if mark.kwargs or not mark.args:
        raise _line("pytest.mark.slo: takes goals such as 'shadow.p99 <= 200ms', and nothing else")
    return mark.args


def _missed(result: Result, goals: list[str]) -> str:
    """Return a line for each goal that a result does not meet, and its verdict; "" when it meets them all."""
    from shadowsim.planning.slo import parse_slo
    from shadowsim.text import percent, time_text

    lines = []
    for slo in map(parse_slo, goals):
        for goal, row in zip(slo.goals, slo.evaluate(result).to_dict("records"), strict=True):
            if row["met"]:
                continue
            show = time_text if goal.is_time else partial(percent, decimals=3)
            error = row["standard_error"]
            known = f"standard error {show(error)}" if math.isfinite(error) else "standard error unknown"
            value = "no such figure" if math.isnan(row["value"]) else f"{show(row['value'])} ({known})"
            lines.append(f"goal missed: {goal}: {row['variant']} has {value}")
    return "\n".join([*lines, str(result.verdict)]) if lines else ""


def _noted(result: Result) -> dict[str, object]:
    """Return what a benchmark notes of a result: figures that no clock has a part in (timings.SIMULATED)."""
    from shadowsim.planning.costs import cost

    roles = result.summary().set_index("role").to_dict("index")
    usd = cost(result.scenario)
    known: dict[str, float] = {}
    for role in ("source", "shadow"):
        known |= {f"{role}_{p}_s": roles[role][f"{p}_s"] for p in ("p50", "p99")}
    known |= {"instances_usd": usd.instances_usd, "total_usd": usd.total_usd}
    return {
        "scenario": result.scenario.experiment.name,
        "verdict": result.verdict.status,
        "requests": int(roles["source"]["requests"]),
        **{name: float(x) if math.isfinite(x) else None for name, x in known.items()},
    }


@contextmanager
def _in_a_line() -> Iterator[None]:
    """Say what is wrong with an input in a line, without the way there."""
    __tracebackhide__ = True
    try:
        yield
    except (InputError, ValidationError, SerializationError) as error:
        raise _line(str(error)) from None


def _line(text: str) -> BaseException:
    """Return the failure that shows this and no traceback."""
    return pytest.fail.Exception(text, pytrace=False)
