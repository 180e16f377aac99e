"""The compiled event loop as a file: numba's cache must see a change in what it imports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shadowsim

FIRST_OUTAGE = """
import numpy as np
from shadowsim import default_scenario
from shadowsim.engine import _event_kernel as e
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.event_run import new_event_side
from shadowsim.engine.run_state import new_sample

s = default_scenario().replace({"horizon_s": 60.0, "source.outages": {"mtbf_s": 1000.0, "mttr_s": 10.0}})
arrivals = arrivals_of(s)
c = columns(s, arrivals)
side = new_event_side(c, "source", arrivals, 64, new_sample(0, 1.0, 0, 1, True))
print(repr(float(side.machines.world_s[0])), sum(e.start_pool.stats.cache_hits.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_a_change_of_the_other_kernel_is_compiled_again(tmp_path):
    """The event kernel's compiled code holds code of `_kernel`, of which numba knows nothing."""
    package = tmp_path / "shadowsim"
    shutil.copytree(Path(shadowsim.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def first_outage():
        out = subprocess.run(
            [sys.executable, "-c", FIRST_OUTAGE], env=environment, cwd=tmp_path, check=True, capture_output=True
        )
        at_s, hits = out.stdout.split()
        return float(at_s), int(hits)

    at_s, hits = first_outage()
    assert hits == 0
    assert first_outage() == (at_s, 1)
    kernel = package / "engine" / "_kernel.py"
    text = kernel.read_text()
    assert text.count("0xBF58476D1CE4E5B9") == 1
    kernel.write_text(text.replace("0xBF58476D1CE4E5B9", "0xBF58476D1CE4E5BB"))  # another finaliser: other draws
    other_s, hits = first_outage()
    assert hits == 0
    assert other_s != at_s
    assert first_outage() == (other_s, 1)
