"""Compares benchmarks of two versions: the change of each, its interval, and whether it is chance.

This is what benchstat does for Go. Two samples are compared by their ranks: no distribution is assumed, and an outlier
is one rank away from its neighbour, however large it is, since timings of code have long tails. The observations of a
sample are assumed to be independent and alike. The change is the shift between the logarithms of both samples, so that
it is a factor. Files that were saved without rounds hold quartiles, from which the median has a standard error of about
1.25 R / (1.35 sqrt(n)), where R is the range between the quartiles of n rounds (McGill, Tukey and Larsen, 1978, who
assume that the middle half of the rounds is normal).

The rounds of one file come from one process and one minute. They are not independent runs: they share the memory
layout, the caches and the neighbours on the machine. Two files of the same code may differ by several per cent, or by
half on a busy machine, and more rounds only make such a difference look more certain. So a change counts only beyond a
margin. For a reliable answer, each side should be a directory of files that were made in turn: then each file is an
observation, and the interval covers what differs between runs. Four files per side are the fewest that can show a
change.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.errors import InputError, shown
from shadowsim.option_defaults import BENCHMARK_MARGIN_PCT
from shadowsim.quantities import number
from shadowsim.statistics.terms import CONFIDENCE
from shadowsim.testing.benchmark_files import SIMULATED, Source, Timing, Timings, read_timings
from shadowsim.text import grid, time_text, wrapped

_HALVINGS = 64
_MAX_EXACT_STEPS = 1e7


class Interval(NamedTuple):
    """An estimate and its interval; the ends are NaN when the sample is too small for an interval."""

    value: float
    low: float
    high: float


def median_interval(x: Floats, confidence: float) -> Interval:
    """Return the median, with the narrowest interval of order statistics that covers it often enough.

    Its ends are the k-th values from below and from above, for the largest k with P(B <= k - 1) <= (1 - confidence) / 2
    and B binomial (n, 1/2) (David and Nagaraja, Order Statistics, 2003, section 7.1). For 95 % it takes six
    observations.
    """
    ordered = np.sort(x)
    k = int(stats.binom.ppf((1.0 - confidence) / 2.0, x.size, 0.5))
    # ppf gives the first number that reaches the level; k - 1 must not pass it.
    k += bool(stats.binom.cdf(k, x.size, 0.5) <= (1.0 - confidence) / 2.0)
    ends = (float(ordered[k - 1]), float(ordered[-k])) if k > 0 else (math.nan, math.nan)
    return Interval(float(np.median(ordered)), *ends)


def shift_interval(x: Floats, y: Floats, confidence: float) -> Interval:
    """Return the shift of y above x: the median of all differences, with its interval (Hodges and Lehmann, 1963).

    The interval holds the shifts that the test in `p_value` would not reject if no values were equal (Moses, 1965;
    Hollander, Wolfe and Chicken, 2014, section 4.3): from the C-th difference to the C-th from above. C is the number
    of values of U whose exact two-sided p is too small; for large samples, the integer part of
    n m / 2 - z sqrt(n m (n + m + 1) / 12).
    """
    x, y = np.sort(x), np.sort(y)
    n = x.size * y.size
    if _is_cheap(x.size, y.size):
        below = np.cumsum(_rank_sum_shares(np.arange(1, x.size + y.size + 1), x.size))
        c = int((2.0 * below < 1.0 - confidence).sum()) - x.size * (x.size + 1) // 2
    else:
        z = float(stats.norm.ppf(0.5 + 0.5 * confidence))
        c = math.floor(n / 2.0 - z * math.sqrt(n * (x.size + y.size + 1) / 12.0))
    middle = 0.5 * (_difference(x, y, (n + 1) // 2) + _difference(x, y, n // 2 + 1))
    ends = (_difference(x, y, c), _difference(x, y, n + 1 - c)) if c > 0 else (math.nan, math.nan)
    return Interval(middle, *ends)


def p_value(x: Floats, y: Floats) -> float:
    """Return the two-sided p of Mann and Whitney's (1947) test that neither sample tends to be larger.

    The p is exact, also with equal values, up to some 30 + 30 values: the share of all ways to divide the values into
    such samples whose rank sum is as far from its mean. Beyond that it is the normal approximation with its corrections
    for equal values and for continuity. The approximation is wrong for few values: it gives 0.047 for three of one size
    and three of another, where 2 of the 20 ways are as extreme.
    """
    if _is_cheap(x.size, y.size):
        small, large = (x, y) if x.size <= y.size else (y, x)
        ranks = (2.0 * stats.rankdata(np.concatenate((small, large)))).astype(np.int64)  # equal values have half ranks
        shares = _rank_sum_shares(ranks, small.size)
        mean = small.size * ranks.size + small.size  # of the doubled sums
        distances = np.abs(np.arange(shares.size) - mean)
        return min(1.0, float(shares[distances >= abs(ranks[: small.size].sum() - mean)].sum()))
    if x.min() == x.max() == y.min() == y.max():
        return 1.0
    return float(stats.mannwhitneyu(x, y).pvalue)


def _is_cheap(n: int, m: int) -> bool:
    """Tell whether the exact distribution of the rank sum takes a few milliseconds."""
    return 2 * (min(n, m) * (n + m)) ** 2 <= _MAX_EXACT_STEPS


def _rank_sum_shares(ranks: NDArray[np.int64], n: int) -> Floats:
    """Return the share of the choices of n ranks that has each sum, from 0 to the greatest."""
    counts = np.zeros((n + 1, int(np.sort(ranks)[-n:].sum()) + 1))  # choices of k ranks with the sum s
    counts[0, 0] = 1.0
    for rank in ranks.tolist():
        counts[1:, rank:] += counts[:-1, : counts.shape[1] - rank]
    shares: Floats = counts[n] / counts[n].sum()
    return shares


def _difference(x: Floats, y: Floats, k: int) -> float:
    """Return the k-th smallest of all y_j - x_i without storing them: thousands of rounds have many millions."""
    low, high = float(y[0] - x[-1]), float(y[-1] - x[0])
    if _count_up_to(x, y, low) >= k:
        return low
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _count_up_to(x, y, middle) >= k:
            high = middle
        else:
            low = middle
    # The smallest difference above `low`.
    above = np.searchsorted(y, x + low, side="right")
    exists = above < y.size
    return float((y[above[exists]] - x[exists]).min())


def _count_up_to(x: Floats, y: Floats, d: float) -> int:
    return int(np.searchsorted(y, x + d, side="right").sum())


SLOWER, FASTER, WITHIN, UNSURE, ONLY = "slower", "faster", "within the margin", "~", "only in {}"
COLUMNS = (
    *("name", "n_old", "n_new", "old_s", "old_low_s", "old_high_s", "new_s", "new_low_s", "new_high_s"),
    *("change_pct", "low_pct", "high_pct", "p", "verdict", "method", "simulated"),
)
MIN_ROUNDS = 5  # fewer rounds give no usable quartiles
FEW = 10  # benchstat advises at least as many
_ENDS = ("", "_low", "_high")
_NOTHING = Interval(math.nan, math.nan, math.nan)


def compare_benchmarks(
    old: Source | Sequence[Source] | Timings,
    new: Source | Sequence[Source] | Timings,
    *,
    margin_pct: float = BENCHMARK_MARGIN_PCT,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Compare the timings of two versions that pytest-benchmark saved; the module says what they can show.

    Parameters
    ----------
    old, new : path, JSON text, mapping, a list of these, or Timings
        As for `read_timings`: a file, or a directory of several.
    margin_pct : float
        The largest change that does not matter, in per cent of the old time.
    confidence : float
        Confidence level of the intervals; a change is significant when p < 1 - confidence.

    Returns
    -------
    DataFrame
        One row per benchmark, in the order of the new file; those that only the old file has come last.

        name : str
            The benchmark's full name.
        n_old, n_new : int
            The number of rounds, or of files; 0 for a side without the benchmark.
        old_s, new_s, old_low_s, old_high_s, new_low_s, new_high_s : float
            Medians in seconds with their intervals.
        change_pct, low_pct, high_pct : float
            The increase in time, in per cent, with its interval.
        p : float
            The p-value of the hypothesis that nothing changed.
        verdict : str
            "slower" or "faster": significant, and beyond the margin. "within the margin": significant. "~": not.
            "only in old", "only in new".
        method : str
            "runs" for several files on both sides, "rounds", or "quartiles" when a file has no rounds.
        simulated : str
            Changes of the simulated test's own figures, which `shadow_benchmark` records.

        NaN where there are too few rounds.

    Raises
    ------
    InputError, SerializationError
        A file or a parameter cannot be used, or the files have no benchmark in common.

    Examples
    --------
    >>> import shadowsim as ss
    >>> def timings(seconds):
    ...     measured = {"fullname": "test_speed", "stats": {"data": seconds}}
    ...     return {"machine_info": {"node": "ci"}, "benchmarks": [measured]}
    >>> old = timings([1.00, 1.01, 0.99, 1.02, 1.00, 0.98])
    >>> new = timings([1.20, 1.21, 1.19, 1.22, 1.20, 1.18])
    >>> ss.compare_benchmarks(old, new)["verdict"].tolist()
    ['slower']
    """
    margin = number(margin_pct, "margin_pct", above=0.0)
    if not 0.0 < confidence < 1.0:
        raise InputError("confidence", "must be > 0 and < 1", confidence)
    before, after = (
        source if isinstance(source, Timings) else read_timings(source, name)
        for source, name in ((old, "old"), (new, "new"))
    )
    if not before.by_name.keys() & after.by_name.keys():
        raise InputError("new", "must have a benchmark in common with old, and has none of the same name")
    names = [*after.by_name, *(name for name in before.by_name if name not in after.by_name)]
    if (before.n_files > 1) != (after.n_files > 1):
        side, n = ("new", after.n_files) if before.n_files > 1 else ("old", before.n_files)
        raise InputError(side, "must be several files, as the other side is, or both a single one", n)
    method = "runs" if before.n_files > 1 else "rounds"
    rows = [
        _comparison_row(before.by_name.get(name), after.by_name.get(name), method, margin, confidence) for name in names
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).assign(name=names)
    return table.astype({"n_old": "int64", "n_new": "int64"})


def geometric_mean(table: pd.DataFrame) -> tuple[float, float, float]:
    """Return the geometric means of the old and of the new medians of a comparison, and the change in per cent.

    Only benchmarks that both sides have count.
    """
    both = table[(table["old_s"] > 0.0) & (table["new_s"] > 0.0)]
    if both.empty:
        return math.nan, math.nan, math.nan
    old, new = (float(np.exp(np.log(both[side].to_numpy(np.float64)).mean())) for side in ("old_s", "new_s"))
    return old, new, 100.0 * (new / old - 1.0)


def benchmarks_object(table: pd.DataFrame) -> dict[str, object]:
    """Return a comparison for JSON: the names of slower benchmarks, the geometric mean, and the rows."""
    slower = table.loc[table["verdict"] == SLOWER, "name"].tolist()
    mean = dict(zip(("old_s", "new_s", "change_pct"), geometric_mean(table), strict=True))
    return {"slower": slower, "geometric_mean": mean, "benchmarks": table.to_dict("records")}


def benchmarks_text(table: pd.DataFrame, old: Timings, new: Timings, margin_pct: float = BENCHMARK_MARGIN_PCT) -> str:
    """Return a comparison as a table for people, with notes on how to read it."""
    rows, notes = benchmark_rows(table), benchmark_notes(table, old, new, margin_pct)
    return "\n".join([grid(rows, left=(0, 9)), "", *(wrapped(note, hanging="  ") for note in notes)]).rstrip()


def benchmark_rows(table: pd.DataFrame) -> list[list[str]]:
    """Return a head, a row of cells per benchmark, and one of the geometric mean of several."""
    rows = [["", "old", "", "new", "", "change", "interval", "p", "n", ""]]
    for name, row in zip(_short_names(table["name"]), table.to_dict("records"), strict=True):
        sides = [cell for side in ("old", "new") for cell in _median_cells(*(row[f"{side}{end}_s"] for end in _ENDS))]
        p = "-" if math.isnan(row["p"]) else f"{row['p']:.3f}" if row["p"] >= 0.001 else "<0.001"
        verdict = "" if row["verdict"] == UNSURE else row["verdict"]
        change, interval = _change_cells(row)
        rows.append([name, *sides, change, interval, p, f"{row['n_old']}+{row['n_new']}", verdict])
    if len(table) > 1:
        before, after, change_pct = geometric_mean(table)
        rows.append(["geometric mean", time_text(before), "", time_text(after), "", f"{change_pct:+.1f} %", *[""] * 4])
    return rows


def _median_cells(value: float, low: float, high: float) -> tuple[str, str]:
    """Return a median and the longer half of its interval as texts."""
    if math.isnan(value):
        return "-", ""
    half = max(value - low, high - value) / value if value > 0.0 else math.nan
    return time_text(value), "" if math.isnan(half) else f"+-{100.0 * half:.0f} %"


def _change_cells(row: Mapping[Hashable, Any]) -> tuple[str, str]:
    change, low, high = (row[key] for key in ("change_pct", "low_pct", "high_pct"))
    change_text = UNSURE if row["verdict"] == UNSURE else "" if math.isnan(change) else f"{change:+.1f} %"
    return change_text, "" if math.isnan(low) else f"{low:+.1f} to {high:+.1f}"


def _short_names(names: pd.Series[str]) -> list[str]:
    """Return names without their files if they stay distinct, else the full names."""
    short = [name.rpartition("::")[2] for name in names]
    return short if len(set(short)) == len(short) else list(names)


def benchmark_answer(table: pd.DataFrame, margin_pct: float) -> str:
    """Return how many benchmarks are slower, in a sentence."""
    n, margin = int((table["verdict"] == SLOWER).sum()), f"by more than {margin_pct:g} %"
    return f"{n} of {len(table)} slower {margin}." if n else f"Nothing is slower {margin}."


def benchmark_notes(table: pd.DataFrame, old: Timings, new: Timings, margin_pct: float) -> list[str]:
    """Return changes of simulated figures, how many are slower, and what the rounds cannot show."""
    verdicts, method = table["verdict"], table["method"]
    named = zip(_short_names(table["name"]), table["simulated"], strict=True)
    notes = [*(f"{name}: {changes}" for name, changes in named if changes), benchmark_answer(table, margin_pct)]
    if (verdicts == UNSURE).any():
        notes.append(f"{UNSURE}: no significant change.")
    both = table[(table["n_old"] > 0) & (table["n_new"] > 0)]
    if (both["method"] == "quartiles").any():
        notes.append("Some rounds were not saved (--benchmark-save-data): changes are estimated from quartiles.")
    if (both[["n_old", "n_new"]].min(axis=1) < FEW).any():
        notes.append(f"Fewer than {FEW} of each side show only large changes (--benchmark-min-rounds, or more files).")
    if verdicts.isin([SLOWER, FASTER]).any() and (method != "runs").any():
        notes.append(
            "Rounds of one process do not show what differs between runs: before acting on a change, compare "
            "directories of several files each."
        )
    if set(old.machines) != set(new.machines):
        there, here = ("; ".join(side.machines) or "unknown" for side in (old, new))
        notes.append(f"The sides ran on different machines: {there} and {here}.")
    return notes


def _comparison_row(
    old: Timing | None, new: Timing | None, method: str, margin_pct: float, confidence: float
) -> dict[str, object]:
    observed = all(timing is None or timing.observed_s is not None for timing in (old, new))
    row: dict[str, object] = {"method": method if observed else "quartiles", "simulated": ""}
    for side, timing in (("old", old), ("new", new)):
        row[f"n_{side}"] = timing.n if timing else 0
        row[f"{side}_s"], row[f"{side}_low_s"], row[f"{side}_high_s"] = (
            _timing_median(timing, confidence) if timing else _NOTHING
        )
    change, p = _NOTHING, math.nan
    if old is None or new is None:
        verdict = ONLY.format("new" if old is None else "old")
    else:
        change, p = _change(old, new, confidence)
        verdict = _verdict(change.value, p, margin_pct, confidence)
        row["simulated"] = _simulated_changes(old.simulated, new.simulated)
    row["change_pct"], row["low_pct"], row["high_pct"] = change
    return row | {"p": p, "verdict": verdict}


def _timing_median(timing: Timing, confidence: float) -> Interval:
    if timing.observed_s is not None:
        return median_interval(timing.observed_s, confidence)
    half = float(stdtrit(max(timing.n - 1, 1), 0.5 + 0.5 * confidence)) * _median_error(timing)
    return Interval(timing.median_s, timing.median_s - half, timing.median_s + half)


def _median_error(timing: Timing) -> float:
    """Return the standard error of a median from its quartiles; the module has the formula."""
    if timing.n < MIN_ROUNDS or timing.range_s <= 0.0:
        return math.nan
    return 1.25 * timing.range_s / (1.35 * math.sqrt(timing.n))


def _change(old: Timing, new: Timing, confidence: float) -> tuple[Interval, float]:
    """Return the change in per cent with its interval, and the p of no change."""
    if old.observed_s is not None and new.observed_s is not None:
        p = p_value(old.observed_s, new.observed_s)
        if min(old.observed_s.min(), new.observed_s.min()) <= 0.0:  # shorter than the clock resolves
            return _NOTHING, p
        logarithms = shift_interval(np.log(old.observed_s), np.log(new.observed_s), confidence)
    else:
        if min(old.median_s, new.median_s) <= 0.0:
            return _NOTHING, math.nan
        # The standard error of a logarithm, to first order.
        error = math.hypot(_median_error(old) / old.median_s, _median_error(new) / new.median_s)
        value, df = math.log(new.median_s / old.median_s), old.n + new.n - 2
        half = float(stdtrit(df, 0.5 + 0.5 * confidence)) * error if df else math.nan
        logarithms = Interval(value, value - half, value + half)
        p = 2.0 * float(stdtr(df, -abs(value) / error)) if error > 0.0 else math.nan
    return Interval(*(100.0 * math.expm1(x) for x in logarithms)), p


def _verdict(change_pct: float, p: float, margin_pct: float, confidence: float) -> str:
    if not p < 1.0 - confidence or math.isnan(change_pct):
        return UNSURE
    if abs(change_pct) <= margin_pct:
        return WITHIN
    return SLOWER if change_pct > 0.0 else FASTER


def _simulated_changes(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Return the simulated figures that differ: "verdict STABLE -> OVERLOADED, shadow_p99_s 0.0709 -> 4.2"."""
    changed: Sequence[str] = [key for key in SIMULATED if key in old and key in new and old[key] != new[key]]
    return ", ".join(f"{key} {_value_text(old[key])} -> {_value_text(new[key])}" for key in changed)


def _value_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)
