"""What analyses return introduces itself in a line, and writes itself as a page that begins with the answer."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from captured import record, write
from cases import REQUEST, scenario
from pages import figures_of

from shadowsim import (
    InputError,
    agreement,
    default_scenario,
    read_measurement,
    scaling_policy,
    simulate,
    step_model,
    write_report,
)
from shadowsim.measuring.calibration import Calibration, FittedParameter
from shadowsim.measuring.predict import ServicePrediction
from shadowsim.planning.sheet import Sheet
from shadowsim.report.analysis_page import analysis_of

EVIL = "<script>harm</script>"


def steps():
    sizes = ((64, 1, 9), (64, 8, 9), (512, 1, 9))
    rows = [(EVIL, p, n, o, 20 + 0.1 * n * p + 0.5 * n, 20 + 0.5 * n) for p, n, o in sizes]
    columns = ["model", "prompt_tokens", "batch", "output_tokens", "prefill_ms", "token_ms"]
    return step_model(pd.DataFrame(rows, columns=columns))


def answers(place):
    source = [record(f"id{i}", {"score": i, "text": EVIL}, {"x": i}) for i in range(40)]
    shadow = [record(f"id{i}", {"score": i + (i % 20 == 0), "text": EVIL}, {"x": i}) for i in range(40)]
    return agreement(write(place, "AllTraffic", source), write(place, "Shadow-01", shadow))


def log(place):
    file = place / "requests.csv"
    pd.DataFrame({"arrival_s": np.arange(100.0), "latency_s": 0.05}).to_csv(file, index=False)
    return read_measurement(file)


def calibration():
    found = FittedParameter("time.mean_s", 0.05, 0.049, 0.051)
    unknown = FittedParameter("workers", None, why_not="never more than one request at a time")
    return Calibration(f"a table {EVIL}", {"time": {"mean_s": 0.05}}, {}, 1, (found, unknown), ("Assumed.",), (), 900)


def prediction():
    columns = {"measured_s": [0.05], "predicted_s": [0.06], "low_s": [0.055], "high_s": [0.065]}
    table = pd.DataFrame(
        {"measure": "latency", "quantile": ["p50"], **columns, "error_pct": [-17.0], "inside": [False]}
    )
    curve = pd.DataFrame({"measure": "latency", "depth": [0.5], **columns})
    return ServicePrediction("not right", "p50 lies outside the band.", table, curve, 1000, ("A note.",))


def policies(_):
    scaling = {"metric": "InvocationsPerInstance", "target": 1500, "min": 2, "max": 10}
    return scaling_policy(default_scenario().replace({"shadow.scaling": scaling}))


# what makes it, its repr, the answer of its page
THINGS = {
    "steps": (lambda _: steps(), f"<StepFits of {EVIL}>", "a step takes 20.0 ms, and 500 µs more per sequence"),
    "answers": (
        answers,
        "<Agreement of 40 pairs: 95.00 % equal as values>",
        "95.00 % of 40 answers are equal as values",
    ),
    "log": (log, "<Measurement: table of requests, 100 requests>", "100 requests"),
    "calibration": (
        lambda _: calibration(),
        "<Calibration on 900 requests: time.mean_s; 1 not identifiable>",
        "The service has a mean time of 50.0 ms.",
    ),
    "prediction": (
        lambda _: prediction(),
        "<ServicePrediction of 1,000 requests: not right>",
        "p50 lies outside the band.",
    ),
    "policies": (policies, "<ScalingDocuments of Shadow-01>", "Shadow-01 has 2 to 10 instances"),
}


@pytest.mark.parametrize("which", THINGS)
def test_it_introduces_itself_in_a_line_and_its_page_begins_with_the_answer(which, tmp_path):
    make, line, said = THINGS[which]
    thing = make(tmp_path)
    assert repr(thing) == line
    file = write_report(thing, tmp_path / "page.html") if which == "policies" else thing.report(tmp_path / "page.html")
    page = file.read_text("utf-8")
    (headline,) = re.findall('<p class="headline">(.*?)</p>', page)
    assert said in headline.replace("\xa0", " ")
    assert EVIL not in page
    assert len(page) < 100_000 or figures_of(page)  # without charts there is no script


def test_that_a_load_run_was_invalid_stands_beside_the_answer(tmp_path):
    invalid = "The run is invalid: Requests left late."
    made = replace(calibration(), notes=(*calibration().notes, invalid))
    measured = replace(log(tmp_path), lacks=("Waits are not known.", invalid))
    predicted = replace(prediction(), notes=("A note.", invalid))
    for thing in (made, measured, predicted):
        page = thing.report(tmp_path / "page.html").read_text("utf-8")
        beside, rest = re.fullmatch(".*?<section class=.verdict (.*?)</section>(.*)", page, re.DOTALL).groups()
        assert invalid in beside
        assert not beside.startswith("answer")
        assert (invalid in rest) == (thing is measured)  # where a table has all that the log says


def test_a_slowdown_is_said_in_words():
    slow = FittedParameter("slowdown[18]", 1.27, 1.2, 1.3)
    none = FittedParameter("endpoint.overhead_s", 0.0, 0.0, 1e-4)
    found = analysis_of(replace(calibration(), parameters=(slow, none)))
    assert found.answer == "The service has a slowdown of 1.270 with 18 busy workers."


def test_runs_and_frames_have_pages_and_anything_else_is_refused(tmp_path):
    run = simulate(scenario({"process": "poisson", "rate_per_s": 20.0}, horizon_s=120.0))
    assert "Shadow test, simulated" in run.report(tmp_path / "run.html").read_text("utf-8")
    frame = Sheet({"limit_per_s": [np.nan], "factor": np.nan, "rate_per_s": np.nan, "role": "shadow", "binding": ""})
    page = frame.report(tmp_path / "rates.html").read_text("utf-8")
    assert "The shadow holds no rate." in page
    with pytest.raises(InputError, match="what an analysis"):
        write_report(REQUEST, tmp_path / "no.html")
