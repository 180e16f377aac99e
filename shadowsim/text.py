"""Text for people: numbers with their units, a scenario in a few lines, and tables that fit 80 columns.

Plain ASCII but for the names that users give, so that it reads the same on every terminal and in every log.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

from shadowsim.aws.instances import InstanceType, duration_text

if TYPE_CHECKING:
    from shadowsim.aws.experiment import Variant
    from shadowsim.result import Result
    from shadowsim.scenario.scenario import Scenario

WIDTH = 80
_MAX_NAME = 30  # two columns of names and one of labels fit the width
OVERLOADED = "OVERLOADED"
_QUANTILES = {"p50": "p50_s", "p90": "p90_s", "p95": "p95_s", "p99": "p99_s", "p99.9": "p99_9_s", "max": "maximum_s"}
LABELS = ("", "variant", "verdict", "requests", "rate", "share copied", "latency mean",
          *(f"        {name}" for name in _QUANTILES), "wait mean", "utilisation", "errors", "captured")  # fmt: skip


def count(n: float) -> str:
    """Return a whole number with its thousands apart: "34,560,822"."""
    return f"{int(n):,}"


def significant(x: float, n: int = 3) -> str:
    """Return a number with at least `n` significant digits and never an exponent: "70.9", "1.02", "12,345"."""
    if x == 0.0:
        return "0"
    digits = n - 1 - math.floor(math.log10(abs(x)))
    # Rounding may carry into a new digit: 9.996 is 10.0, not 10.00.
    rounded = round(x, digits) if digits > 0 else x
    digits = n - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(digits, 0)}f}"


def compact(n: float) -> str:
    """Return a number of three digits at most, with its thousands as a letter: "950", "20.8k", "34.6M"."""
    for letter, one in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * one:
            return f"{significant(n / one)}{letter}"
    return significant(n) if n < 1.0 else f"{n:.0f}"


def seconds(x: float) -> str:
    """Return a time with a unit that suits it: "870 us", "70.9 ms", "1.02 s"; "-" when there is none."""
    if not math.isfinite(x):
        return "-"
    rounded = float(f"{x:.3g}")
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if 0.0 < rounded < 1000.0 * size:
            return f"{significant(rounded / size)} {unit}"
    return f"{significant(rounded)} s"


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as "50.0 %"; "-" when there is none."""
    return f"{100.0 * share:.{decimals}f} %" if math.isfinite(share) else "-"


def rate(per_s: float) -> str:
    """Return a rate as "400 requests/s"."""
    return f"{_short(per_s)} requests/s"


def speed(n: int, took_s: float) -> str:
    """Return how fast `n` requests were simulated: "34,560,822 requests in 1.50 s, 23 million requests/s"."""
    took = f"{n:,} requests in {seconds(took_s)}"
    # What is slow about a short run is its beginning.
    return took if took_s < 1.0 or n < 1e6 else f"{took}, {significant(n / took_s / 1e6, 2)} million requests/s"


def size(n_bytes: float) -> str:
    """Return a number of bytes in decimal units: "1.02 GB"."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= one:
            return f"{significant(n_bytes / one)} {unit}"
    return f"{n_bytes:,.0f} B"


def wrapped(text: str, indent: str = "", hanging: str | None = None) -> str:
    """Return a text in lines of at most 80 columns; words are not broken."""
    after = indent if hanging is None else hanging
    return fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


def grid(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return rows of cells as lines of columns, two spaces apart.

    Parameters
    ----------
    rows : sequence of sequence of str
        All of one length.
    left : sequence of int
        The columns that are set flush left; all others are flush right, as numbers are.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def scenario_text(scenario: Scenario) -> str:
    """Return what is simulated: its name and length, its traffic, and a line a pool."""
    s, e = scenario, scenario.experiment
    length = duration_text(s.horizon_s) if s.horizon_s >= 60.0 else _trimmed(s.horizon_s)
    rows = [
        ("run", f"{e.name}: {length} in windows of {_trimmed(s.period_s)}, seed {s.seed}"),
        ("traffic", _traffic_text(s)),
        ("source", _pool_text(s, e.source, s.source_workers)),
        ("shadow", _pool_text(s, e.shadow, s.shadow_workers) + f", gets {e.sampling_percentage} % of the requests"),
    ]
    said = _unusual(s)
    if said:
        rows.append(("copies", said))
    return "\n".join(wrapped(text, f"{label:<9}", " " * 9) for label, text in rows)


def summary_table(result: Result) -> str:
    """Return a run's figures, source beside shadow: a row a metric.

    Latencies of an overloaded pool carry a mark, because they say how long the run was and not how good the pool is.
    """
    summary = result.summary()
    columns = [list(LABELS)]
    for variant, row in summary.iterrows():
        part = result.windows[result.windows["variant"] == variant]
        mark, blank = (" *", "  ") if row["verdict"] == OVERLOADED else ("", "")
        share = f"{percent(row['share'], 3)} of {_short(100.0 * result.scenario.share)} %"
        figures = [seconds(row[key]) + mark for key in ("mean_s", *_QUANTILES.values(), "wait_mean_s")]
        columns.append(
            [
                *(
                    cell + blank
                    for cell in (row["role"], short_name(str(variant)), row["verdict"], count(row["requests"]))
                ),
                f"{significant(row['rate_per_s'], 4)}/s{blank}",
                share + blank if row["role"] == "shadow" else "",
                *figures,
                percent(row["utilisation"]) + blank,
                _errors(int(part["InvocationModelErrors"].sum()), int(row["requests"])) + blank,
                _captured(result.scenario.capture, int(part["captured_records"].sum()), row["captured_bytes"]) + blank,
            ]
        )
    table = grid(list(zip(*columns, strict=True)))
    from shadowsim.frames import LOST_CAUSES  # who has a result has loaded it

    lost = {cause: int(result.windows[f"copies_lost_{cause}"].sum()) for cause in LOST_CAUSES}
    if any(lost.values()):
        causes = ", ".join(f"{n:,} to mirror.{cause}" for cause, n in lost.items() if n)
        table += "\n" + wrapped(f"copies lost: {causes}")
    return table + of_overload(summary["verdict"])


def of_overload(statuses: Iterable[str]) -> str:
    """Return the line that explains the mark of latencies, or "" when no pool is overloaded."""
    if OVERLOADED not in list(statuses):
        return ""
    note = "of an OVERLOADED pool: it grows with the length of the run, and is no property of the pool"
    return "\n" + wrapped(note, "* ", "  ")


def instances_table(types: Sequence[InstanceType]) -> str:
    """Return instance types as a table; a question mark or "unknown" is a figure that is not known."""
    rows = [("type", "vCPU", "GiB", "accelerators", "USD/h", "as of")]
    for t in types:
        n = t.accelerator_count
        # All of them fit 80 columns only without the maker's name.
        what = (t.accelerator or "accelerator").partition(" ")[2] or t.accelerator
        accelerators = "?" if n is None else f"{n} x {what}" if n else "-"
        price = "unknown" if t.price_usd_per_h is None else f"{t.price_usd_per_h:.4f}"
        rows.append((t.name, _known(t.vcpus), _known(t.memory_gib), accelerators, price, (t.price_as_of or "")[:10]))
    return grid(rows, left=(0, 3, 5))


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows with the same keys as CSV, with a header; None is an empty field."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _known(figure: float | None) -> str:
    return "?" if figure is None else _short(figure)


def short_name(name: str) -> str:
    """Return a name so short that two columns of them fit the width."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


def _short(x: float) -> str:
    """Return a number with at least five significant digits, without noughts at its end."""
    text = significant(x, 5)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _trimmed(x: float) -> str:
    """Return a time that somebody gave, without noughts at its end: "20 ms"."""
    text, unit = seconds(x).split(" ")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


PROCESSES = {
    "poisson": "Poisson",
    "constant": "evenly spaced",
    "gamma": "gamma gaps",
    "mmpp": "a modulated Poisson process (MMPP)",
    "trace": "a recorded trace",
    "superposition": "several streams superposed",
}


def _traffic_text(scenario: Scenario) -> str:
    traffic = scenario.traffic
    mean = traffic.mean_rate(scenario.horizon_s, scenario.start)
    if traffic.process == "trace":
        n = traffic.trace().n_before(scenario.horizon_s)
        file = traffic.file.name if traffic.file else ""
        faster = "" if traffic.speed == 1.0 else f" at {_short(traffic.speed)} times its speed"
        played = "" if traffic.repeat == 1 else f", played {traffic.repeat:,} times"
        return f"trace {file}{faster}{played}: {n:,} requests, {rate(mean)} in the mean"
    kind = PROCESSES[traffic.process]
    if traffic.profile is None:
        return f"{kind}, {rate(mean)}"
    peak = float(traffic.knots(scenario.horizon_s, scenario.start)[1].max())
    return f"{kind}, {rate(mean)} in the mean and {_short(peak)} at the peak"


def _pool_text(scenario: Scenario, variant: Variant, workers: int) -> str:
    law = scenario.services[variant.name].time
    time = law.kind if math.isnan(law.mean) else f"{law.kind} {_trimmed(law.mean)}"
    pool, noun = variant.pool, "worker" if workers == 1 else "workers"
    return f"{variant.name}: {pool.instance_count:,} x {pool.instance_type}, {workers} {noun} each, service {time}"


def _unusual(s: Scenario) -> str:
    """Say how requests are copied and routed where it is not by a coin at arrival, and at random."""
    said = []
    if (s.mirror_rule, s.mirror_instant) != ("coin", "arrival"):
        said.append(f"by {s.mirror_rule} at the {s.mirror_instant}")
    caps = {"bytes of body": s.max_body_bytes, "in flight": s.max_in_flight, "a second": s.max_per_s}
    said += [f"at most {_short(cap)} {what}" for what, cap in caps.items() if cap is not None]
    if set(s.routing.values()) != {"RANDOM"}:
        said.append("routing " + ", ".join(f"{name} {strategy}" for name, strategy in s.routing.items()))
    return "; ".join(said)


def _errors(n: int, requests: int) -> str:
    if n == 0:
        return "none"
    share = n / requests
    return f"{n:,} ({'< 0.01 %' if share < 1e-4 else percent(share, 2)})"


def _captured(wanted: bool, records: int, n_bytes: Any) -> str:
    import pandas as pd  # who has a result has loaded it

    if not wanted:
        return "-"
    # Bytes are missing where payload sizes are not known.
    return f"{records:,} records" + ("" if pd.isna(n_bytes) else f", {size(float(n_bytes))}")
