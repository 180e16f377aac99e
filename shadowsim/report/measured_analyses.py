"""Tells what calibrations, predictions, agreements, logs and benchmarks answer, for their pages."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from shadowsim import plots
from shadowsim.captures.agreement import Agreement
from shadowsim.measuring.calibration import Calibration, FittedParameter, figure_text
from shadowsim.measuring.measurement import Measurement
from shadowsim.measuring.overview import overview_rows
from shadowsim.measuring.predict import NOT_RIGHT, RIGHT, ServicePrediction
from shadowsim.measuring.step_model import StepFits
from shadowsim.planning.scaling_documents import ScalingDocuments
from shadowsim.report.analysis import BAD, GOOD, NEUTRAL, UNSURE, Analysis, notes_html, table_of
from shadowsim.report.html_page import Chart, sentence, table, text
from shadowsim.testing.benchmark_comparison import FASTER, SLOWER, benchmark_answer, benchmark_notes, benchmark_rows
from shadowsim.testing.benchmark_files import Timings
from shadowsim.text import count, percent

_PARAMETERS = {
    **{"time.mean_s": "a mean time of", "time.p50_s": "a p50 of", "time.p99_s": "a p99 of"},
    "endpoint.overhead_s": "an overhead of",
}
# Values that an answer need not name
_NOTHING_SPECIAL = {"slowdown": 1.0, "error_4xx": 0.0, "error_5xx": 0.0, "endpoint.overhead_s": 0.0}
_SLOWDOWN = re.compile(r"slowdown\[(\d+)\]")
_UNFIT = "The run is "  # begins the note on a load run that is not valid
_MOST_EXAMPLES = 20
_MOST_NAMED = 10  # benchmarks in a sentence


def prediction_analysis(prediction: ServicePrediction) -> Analysis:
    """Return the page of a prediction of a measured run."""
    tone = {RIGHT: GOOD, NOT_RIGHT: BAD}.get(prediction.verdict, UNSURE)
    rows = prediction.quantile_rows()
    said = [f"{row[0]}: measured {row[1]}, predicted {row[2]}" for row in rows[1:]]
    joined = [(*row[:3], f"{row[3]} {row[4]}".strip(), *row[5:]) for row in rows]
    return Analysis(
        kicker="Prediction of a measured run",
        answer=sentence(prediction.reason),
        charts=[Chart("prediction", plots.measured_and_predicted(prediction.curve), f"{'; '.join(said)}.")],
        tables=[table_of(joined, "The band holds all judged quantiles together.")],
        status=prediction.verdict.capitalize(),
        tone=tone,
        texts=_unfit(prediction.notes),
        notes=_rest(prediction.notes),
    )


def calibration_analysis(calibration: Calibration) -> Analysis:
    """Return the page of a calibrated service."""
    known = [one for one in calibration.parameters if one.is_identified]
    found = [_parameter_text(one) for one in known if one.value != _NOTHING_SPECIAL.get(one.name.partition("[")[0])]
    left_open = calibration.open_questions()
    return Analysis(
        kicker="Calibration of a service",
        answer=f"The service has {', '.join(found)}." if found else "The data identify no parameter of the service.",
        tables=[table_of([*map(list, calibration.parameter_rows())], "From and to: the interval of each parameter.")],
        tone=NEUTRAL if found and not _unfit(calibration.notes) else UNSURE,
        texts=[calibration.head, *_unfit(calibration.notes), *(f"{sentence(question)}." for question in left_open)],
        notes=_rest(calibration.notes),
        documents={"The service, for services.VARIANT of a scenario": dict(calibration.service)},
    )


def _parameter_text(one: FittedParameter) -> str:
    """Return a parameter in words, or by its path in a scenario where it has none."""
    value = figure_text(one.name, one.value)
    if busy := _SLOWDOWN.fullmatch(one.name):
        return f"a slowdown of {value} with {busy[1]} busy workers"
    if one.name == "workers":
        return f"{value} worker{'' if one.value == 1 else 's'}"
    return f"{_PARAMETERS.get(one.name, one.name)} {value}"


def _unfit(notes: Sequence[str]) -> list[str]:
    """Return the notes that say that a measured run is not fit for conclusions: they belong beside the answer."""
    return [note for note in notes if note.startswith(_UNFIT)]


def _rest(notes: Sequence[str]) -> list[str]:
    return [note for note in notes if not note.startswith(_UNFIT)]


def steps_analysis(fits: StepFits) -> Analysis:
    """Return the page of fitted step times."""
    n = len(fits.fits)
    first = fits.fits[0]
    base, per = (figure_text(f"{key}", first.step[key]) for key in ("base_s", "per_sequence_s"))
    said = f"{first.name}: a step takes {base}, and {per} more per sequence."
    tables = [
        f"<h3>{text(fits.heading(fit))}</h3>\n"
        + table_of([["", "value", "standard error"], *map(list, fits.coefficient_rows(fit))])
        + notes_html((fits.misses_text(fit).capitalize(), *fit.notes))
        for fit in fits.fits
    ]
    return Analysis(
        kicker="Step times of a language model’s server",
        answer=said if n == 1 else f"{n} configurations have step times. {said}",
        tables=tables,
        notes=fits.notes,
        documents={f"tokens of {fit.name}": fit.tokens for fit in fits.fits},
    )


def measurement_analysis(measurement: Measurement) -> Analysis:
    """Return the page of a log or a load test's results."""
    rows = overview_rows(measurement)
    said = dict(reversed(rows))
    return Analysis(
        kicker="What a log says",
        answer=f"{said['arrivals']}; latency: {said['latency']}; errors: {said['errors']}.",
        tables=[table_of([["", "says"], *map(list, rows)])],
        tone=UNSURE if _unfit(measurement.lacks) else NEUTRAL,
        texts=_unfit(measurement.lacks),
        title=measurement.form,
    )


def agreement_analysis(agreement: Agreement, at_least: float | None = None) -> Analysis:
    """Return the page of two variants' answers, with a goal for the share that is equal as values."""
    within = agreement.within
    tone, goal = NEUTRAL, ""
    if at_least is not None:
        is_met = within.low >= at_least
        tone = GOOD if is_met else BAD if within.high < at_least else UNSURE
        goal = f" The goal, at least {100.0 * at_least:g} %, is {'met' if is_met else 'not met'}."
    bounds = f" (interval {percent(within.low, 2)} to {percent(within.high, 2)})" if within.of else ""
    said = f"{percent(within.share, 2)} of {count(within.of)} answers are equal as values{bounds}.{goal}"
    fields, rest = agreement.field_rows()
    examples = [(e.inference_id, [e.why, e.source, e.shadow]) for e in agreement.examples[:_MOST_EXAMPLES]]
    tables = [table_of([["", "share", "pairs", f"{100 * agreement.confidence:g} % interval"], *agreement.share_rows()])]
    tables += [table_of(fields, f"Fields that differ most; {rest}.")] if fields else []
    if examples:
        heads = ["inference id", "why", "source", "shadow"]
        tables.append(table("Pairs that disagree.", heads, examples, as_typed=True))
    return Analysis(
        kicker="Answers of source and shadow",
        answer=said,
        tables=tables,
        tone=tone,
        texts=[f"{agreement.pairs_text()}."],
        title=" and ".join(side.variant or "?" for side in (agreement.source, agreement.shadow)),
        notes=[agreement.method_text(), *agreement.byte_notes(), *agreement.left_out()],
    )


def benchmarks_analysis(table: pd.DataFrame, old: Timings, new: Timings, margin_pct: float) -> Analysis:
    """Return the page of a comparison of benchmarks."""
    slower = (table["verdict"] == SLOWER).any()
    answer = benchmark_answer(table, margin_pct)
    head, *rows = benchmark_rows(table)
    joined = [[row[0], *(f"{row[i]} {row[i + 1]}".strip() for i in (1, 3)), *row[5:]] for row in rows]
    heads = ["benchmark", head[1], head[3], *head[5:9], "verdict"]
    changed = [_changed_text(rows, verdict) for verdict in (SLOWER, FASTER)]
    return Analysis(
        kicker="Benchmarks of two versions",
        answer=answer,
        charts=[Chart("changes", plots.benchmark_changes(table), " ".join(filter(None, changed)) or answer)],
        tables=[table_of([heads, *joined])],
        status="Slower" if slower else "Not slower",
        tone=BAD if slower else GOOD,
        texts=changed[:1],
        notes=[note for note in benchmark_notes(table, old, new, margin_pct) if note != answer],
    )


def _changed_text(rows: Sequence[Sequence[str]], verdict: str) -> str:
    """Return the benchmarks of a verdict with their changes, in a sentence; "" for none."""
    named = [f"{row[0]} {row[5]}" for row in rows if row[-1] == verdict]
    more = f" and {len(named) - _MOST_NAMED:,} more" if len(named) > _MOST_NAMED else ""
    return f"{verdict.capitalize()}: {', '.join(named[:_MOST_NAMED])}{more}." if named else ""


def scaling_analysis(printed: ScalingDocuments, size: Analysis | None = None) -> Analysis:
    """Return the page of scaling policies as AWS takes them, and of the search that found them if there was one."""
    documents = {"The documents, as AWS takes them": printed.documents}
    said = f"{'; '.join(printed.policies)}."
    notes = [f"{note}." for note in printed.notes]
    if size is None:
        return Analysis("Scaling policies", said, notes=notes, documents=documents)
    return Analysis(
        kicker="Cheapest scaling policy that meets the goals",
        answer=size.answer,
        charts=size.charts,
        tables=size.tables,
        tone=size.tone,
        texts=[said, *size.texts],
        notes=[*size.notes, *notes],
        documents=documents,
    )
