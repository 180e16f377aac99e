"""Default values of public functions that the command line shows in its help.

They stand apart from the functions because help must not load pandas and numba; both sides take them from here. Those
of all comparisons are in statistics/terms.py.
"""

from __future__ import annotations

from typing import Literal

# noise-floor, benchmark-compare, agreement
NOISE_FLOOR_RUNS = 10  # where the scenario itself asks for one run
BENCHMARK_MARGIN_PCT = 5.0
TOLERANCE = 0.0  # of numbers in captured answers, relative and absolute
EXAMPLES = 5  # disagreements shown
ANSWER_FORMAT = "auto"

# size
HEADROOM_PCT = 0.0
MAX_INSTANCES = 1000

# capacity
CAPACITY_REPLICATIONS = 8

# plan
EFFECT = "p99 +5%"
POWER = 0.8
ALPHA = 0.05
SAMPLING_PERCENTAGES = (10, 25, 50, 100)
LOOKS = 1
REHEARSALS = 100

# predict
PREDICTION_MARGIN_PCT, PREDICTION_TOLERANCE_PCT = 2.0, 15.0
PREDICTION_DRAWS = 60

# serve
PORT = 4599
TIME_SCALE = 1.0
TRANSITION_S = 1.0
FLUSH_S = 60.0
SKEW_S = 300.0
MAX_BODY_BYTES = 6_291_456  # SageMaker's limit of an invocation
SERVER_SEED = 7
STREAM_S = 480.0  # AWS says only that a streamed answer may take longer than 60 s

PAGE_IN_RUN = "report.html"  # the page of a saved run, beside its frames
AUTO: Literal["auto"] = "auto"  # run.warmup_s: by MSER-5
