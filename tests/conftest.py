"""Settings of the whole suite: failures must be reproducible, and nothing depends on how fast the machine is."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from schema_checks import check_all_scenarios

settings.register_profile(
    "shadowsim",
    max_examples=30,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that does other work
)
settings.load_profile("shadowsim")
settings.register_profile("thorough", settings.get_profile("shadowsim"), max_examples=100)  # asked for by .ci/run

MANY_TESTS = 1_000

check_all_scenarios()  # whatever scenario a test reads is valid by the schema, too

# A shell starts its background jobs with interrupts ignored: tests of Ctrl-C and their processes would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules and items are there to the end: to look through them for garbage while they are made takes five seconds.
gc.disable()


def pytest_collection_finish():
    gc.enable()
    gc.freeze()
    gc.get_freeze_count = lambda: 1  # it walks through all of them, a third of a second for each run of a load
    gc.set_threshold(10_000, 20, 20)  # full collections of what tests and caches hold took another ten


@pytest.fixture(scope="module", autouse=True)
def frozen_heap() -> None:
    """Leave what other modules left out of collections, of which each run of a load makes one."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The workers of a session of many tests share the work of compiling; few tests may need no kernel."""
    if "PYTEST_XDIST_WORKER" in os.environ and len(request.session.items) > MANY_TESTS:
        from warm_up import compile_together

        compile_together(tmp_path_factory.getbasetemp().parent / "kernels")


@pytest.fixture
def azure_trace() -> Path:
    """The Azure LLM inference trace of 2023 (code), which is beside the project and not part of it."""
    file = Path(__file__).resolve().parents[2] / "shared" / "data" / "azure_llm_code_2023.csv"
    if not file.exists():
        pytest.skip(f"the Azure trace is not at {file}")
    return file
