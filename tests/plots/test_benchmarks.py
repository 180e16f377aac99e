"""The figure of a comparison of benchmarks: a row per benchmark, a mark per verdict."""

import numpy as np
import pandas as pd

from shadowsim import plots


def test_changes_are_marks_with_intervals_by_verdict():
    table = pd.DataFrame(
        {
            "name": ["a.py::test_<b>", "a.py::test_b", "a.py::new"],
            "change_pct": [12.0, 0.5, np.nan],
            "low_pct": [10.0, -1.0, np.nan],
            "high_pct": [15.0, 2.0, np.nan],
            "verdict": ["slower", "~", "only in new"],
        }
    )
    slower, unsure = plots.benchmark_changes(table).data
    assert (slower.name, list(slower.y), list(slower.x)) == ("slower", ["test_&lt;b&gt;"], [12.0])
    assert (slower.error_x.array[0], slower.error_x.arrayminus[0]) == (3.0, 2.0)
    assert (unsure.name, list(unsure.y)) == ("no significant change", ["test_b"])
    assert not plots.benchmark_changes(table[2:]).data


def test_long_names_take_two_lines_and_lack_their_start():
    long = "a.py::test_the_speed_of_least_outstanding_requests[512-instances]"
    table = pd.DataFrame({"name": [long], "change_pct": 1.0, "low_pct": 0.0, "high_pct": 2.0, "verdict": "~"})
    (marks,) = plots.benchmark_changes(table).data
    assert list(marks.y) == ["…_outstanding_requests<br>[512-instances]"]
