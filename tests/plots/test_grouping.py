import numpy as np
import pandas as pd
import pytest

from shadowsim.plots.grouping import MAX_POINTS, groups
from shadowsim.verdict import Verdict


def grouped(n, period_s=60.0, horizon_s=None):
    start = np.repeat(np.arange(n) * period_s, 2)
    role = np.tile(["source", "shadow"], n)
    windows = pd.DataFrame({"time_s": start, "role": role, "Invocations": np.arange(2 * n) // 2})
    return groups(windows, Verdict("STABLE", ()), {"source": "a", "shadow": "b"}, horizon_s)


@pytest.mark.parametrize(
    ("n", "size", "words"),
    [
        (1, 1, "windows of 60 s"),
        (500, 1, "windows of 60 s"),
        (501, 2, "groups of 2 windows (2 min)"),
        (1440, 3, "groups of 3 windows (3 min)"),
        (10_080, 30, "groups of 30 windows (30 min)"),
        (43_200, 120, "groups of 120 windows (2 h)"),
        (1_000_000, 2000, "groups of 2000 windows (33.3333 h)"),
    ],
)
def test_sizes_that_people_can_think_in(n, size, words):
    g = grouped(n)
    assert (g.size, g.words) == (size, words)
    assert len(g.edge_s) - 1 == -(-n // size) <= MAX_POINTS


def test_groups_tile_the_run_and_add_up():
    g = grouped(1201, horizon_s=1200 * 60.0 + 7.0)
    assert g.edge_s[0] == 0.0
    assert g.edge_s[-1] == 72_007.0
    assert (np.diff(g.edge_s)[:-1] == 180.0).all()
    for role in ("source", "shadow"):
        assert g.of(role, "Invocations", "sum").sum() == 1200 * 1201 / 2
    assert g.spans[0] == "00:00:00 to 00:03:00"


def test_a_mean_over_time_weighs_the_shorter_last_window_less():
    g = grouped(3, horizon_s=130.0)
    assert g.mean("source", "Invocations").tolist() == [0.0, 1.0, 2.0]
    long = grouped(1001, horizon_s=60_006.0)
    assert long.mean("source", "Invocations")[-1] == pytest.approx((999 * 60 + 1000 * 6) / 66)
