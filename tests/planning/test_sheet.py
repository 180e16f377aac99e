"""The choice of a plan's best row."""

import numpy as np
import pandas as pd
import pytest

from shadowsim import InputError, recommend


def test_the_cheapest_row_that_reaches_the_power_is_recommended():
    frame = pd.DataFrame(
        {
            "reaches": [False, True, True, True],
            "cost_usd": [1.0, 3.0, 2.0, 2.0],
            "shadow_instances": [1, 1, 2, 1],
            "duration_h": [1.0, 2.0, 3.0, 3.0],
            "duration_s": [3600.0, 7200.0, 10_800.0, 10_800.0],
        }
    )
    assert recommend(frame).name == 3
    assert recommend(frame.assign(cost_usd=np.nan)).name == 1
    assert recommend(frame.assign(reaches=False)) is None


def test_only_a_plan_can_be_recommended_from():
    with pytest.raises(InputError, match="must be what plan returned"):
        recommend(pd.DataFrame({"reaches": [True]}))
