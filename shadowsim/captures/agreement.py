"""Compares the captured answers of two variants, paired by inference id.

Answers are compared byte for byte, and as values: without the fields to ignore, and with a tolerance for numbers
(answers.py). Answers that encode no values in one format are compared byte by byte there too, which the report says. A
pair whose requests differ is a wrong pairing, as when one id is used for two requests; it is counted, and its answers
are not compared. The same holds for a pair in which a side has no answer.

Shares have Clopper and Pearson's exact intervals, which assume that pairs are independent: ten copies of one question
count as ten.
"""

from __future__ import annotations

import bisect
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shadowsim.captures.answers import FORMATS, Differences, IgnoredFields, fields_of, value_text, values_of
from shadowsim.captures.folders import Source
from shadowsim.captures.pairing import CaptureIndex, index_captures, pair_by_id, read_pairs
from shadowsim.captures.record import CapturedPayload
from shadowsim.errors import InputError, did_you_mean
from shadowsim.option_defaults import ANSWER_FORMAT, EXAMPLES, TOLERANCE
from shadowsim.quantities import integer, number
from shadowsim.statistics.terms import CONFIDENCE
from shadowsim.text import count, grid, percent, wrapped

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Share:
    """The share `n` of `of`, with an interval from `low` to `high`; all three are NaN when `of` is 0."""

    n: int
    of: int
    share: float
    low: float
    high: float

    def table_cells(self) -> list[str]:
        """Return share, count and interval as texts."""
        bounds = f"{percent(self.low, 2)} to {percent(self.high, 2)}" if self.of else ""
        return [percent(self.share, 2), f"{count(self.n)} of {count(self.of)}", bounds]


def share_of(n: int, of: int, confidence: float) -> Share:
    """Return a share with the exact interval of Clopper and Pearson (1934, Biometrika 26, 404-413).

    The trials are independent. Each end misses the true share with a probability of at most (1 - confidence) / 2, for
    any number of trials. Score intervals (Wilson's) are narrower and do so in the mean only: one pair that agrees would
    show a share of at least 21 % with 95 %, though a share of 21 % gives such a pair in 21 % of all cases.
    """
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    if of == 0:
        return Share(0, 0, math.nan, math.nan, math.nan)
    tail = 0.5 - 0.5 * confidence
    low = float(betaincinv(n, of - n + 1, tail)) if n > 0 else 0.0
    high = float(betaincinv(n + 1, of - n, 1.0 - tail)) if n < of else 1.0
    return Share(n, of, n / of, low, high)


_MAX_FIELDS_SHOWN, _MAX_PATH_SHOWN = 12, 24  # a table that fits 80 columns
_MAX_WHOLE_SHOWN = 1e6
_LEFT_OUT = {
    "n_without_id": "records without an inference id",
    "n_duplicates": "duplicates of an id, of which the earliest counts",
    "n_unpaired": "ids that the other side does not have",
    "n_unanswered": "pairs without this side's answer",
    "n_torn": "last lines cut short",
    "n_broken": "other lines that cannot be read",
    "n_other_versions": "records of another eventVersion, read all the same",
}


@dataclass(frozen=True, slots=True)
class SideCounts:
    """Counts of one side's records, and of those that are left out of the comparison.

    Attributes
    ----------
    variant : str or None
        The name in the side's folder.
    n_records : int
        Records read.
    n_without_id : int
        Records without an inference id: they cannot be paired.
    n_duplicates : int
        Records with the id of an earlier record.
    n_unpaired : int
        Ids that the other side does not have.
    n_unanswered : int
        Pairs in which this side has no answer.
    n_torn, n_broken : int
        Last lines of files that are cut short, and other lines that cannot be read.
    n_other_versions : int
        Records of another eventVersion, read all the same.
    first_flaw : str or None
        The place and cause of the first line that cannot be read.
    """

    variant: str | None
    n_records: int
    n_without_id: int
    n_duplicates: int
    n_unpaired: int
    n_unanswered: int
    n_torn: int
    n_broken: int
    n_other_versions: int
    first_flaw: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """A pair that disagrees: its id, its first disagreement, and both answers, shortened."""

    inference_id: str
    why: str
    source: str
    shadow: str


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """The agreement of two variants' answers; `str()` gives a report, `to_dict()` an object for JSON.

    Attributes
    ----------
    exact : Share
        The share of compared pairs whose answers are equal byte for byte.
    within : Share
        The share of compared pairs whose answers agree as values, without the ignored fields and within tolerance.
    copied : Share
        The share of the source's ids that the shadow has too: those copied and captured.
    fields : DataFrame
        One row per field, with the columns of `Differences.frame`.
    examples : tuple of Example
        A random sample of the pairs that disagree as values; the same in every call.
    source, shadow : SideCounts
        The records read on each side, and those left out.
    n_pairs : int
        Ids that both sides have.
    n_requests_differ : int
        Pairs that are not compared because their requests differ.
    ignore, unused : tuple of str
        The ignored fields, and those among them that no answer had: possibly misspelt.
    rtol, atol, confidence : float
    format : {"auto", "json", "csv", "bytes"}
        The answers' format; "auto" takes what fits both answers of a pair, whatever their content types.
    n_bytes : int
        Compared pairs whose answers encode no values in one format: they are equal byte for byte, or differ.

    Examples
    --------
    >>> import json, shadowsim as ss
    >>> from pathlib import Path
    >>> def captured(variant, answer):
    ...     payload = {"observedContentType": "application/json", "mode": "OUTPUT", "data": answer, "encoding": "JSON"}
    ...     about = {"eventId": "e1", "inferenceId": "r1", "inferenceTime": "2026-12-01T00:00:00Z"}
    ...     file = Path("captures", "ranker", variant, "2026/12/01/00/00-00-000-a.jsonl")
    ...     file.parent.mkdir(parents=True, exist_ok=True)
    ...     line = {"captureData": {"endpointOutput": payload}, "eventMetadata": about, "eventVersion": "0"}
    ...     with file.open("w") as lines:
    ...         print(json.dumps(line), file=lines)
    ...     return Path("captures", "ranker", variant)
    >>> ss.agreement(captured("AllTraffic", "[1]"), captured("Shadow-01", "[1]")).within.low > 0.0
    True
    """

    exact: Share
    within: Share
    copied: Share
    fields: pd.DataFrame
    examples: tuple[Example, ...]
    source: SideCounts
    shadow: SideCounts
    n_pairs: int
    n_requests_differ: int
    ignore: tuple[str, ...]
    unused: tuple[str, ...]
    rtol: float
    atol: float
    confidence: float
    format: str
    n_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as an object for JSON: one row per field, and null for numbers that are not finite."""
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("exact", "within", "copied", "source", "shadow"):
            document[name] = asdict(document[name])
        document["fields"] = self.fields.to_dict("records")
        document["examples"] = [asdict(example) for example in self.examples]
        plain: dict[str, Any] = _json_value(document)
        return plain

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the agreement as an HTML page, and return its path."""
        from shadowsim import write_report  # imported late: report/ imports this module

        return write_report(self, path)

    def __repr__(self) -> str:
        return f"<Agreement of {count(self.n_pairs)} pairs: {percent(self.within.share, 2)} equal as values>"

    def __str__(self) -> str:
        fields, rest = self.field_rows()
        parts = [
            self.pairs_text(),
            grid(self.share_rows()),
            wrapped(self.method_text()),
            "\n".join(wrapped(line, hanging="  ") for line in self.byte_notes()),
            f"{grid(fields)}\n{rest}" if fields else "",
            "\n".join(wrapped(line, hanging="  ") for line in self.left_out()),
            "\n".join(_example_text(example) for example in self.examples),
        ]
        return "\n\n".join(filter(None, parts))

    def pairs_text(self) -> str:
        """Return who is compared, and how many pairs there are."""
        names = [side.variant or role for role, side in (("source", self.source), ("shadow", self.shadow))]
        return f"{names[0]} (source) and {names[1]} (shadow): {count(self.n_pairs)} pairs by inference id"

    def share_rows(self) -> list[list[str]]:
        """Return a row of cells per share: name, share, count, interval."""
        shares = {"equal byte for byte": self.exact, "equal as values": self.within, "copied and captured": self.copied}
        return [[name, *share.table_cells()] for name, share in shares.items()]

    def method_text(self) -> str:
        """Return what values and intervals mean."""
        without = f"without {', '.join(self.ignore)}, " if self.ignore else ""
        note = f"As values: {without}within rtol {self.rtol:g} and atol {self.atol:g}."
        return f"{note} Intervals: {100 * self.confidence:g} %, Clopper-Pearson."

    def field_rows(self) -> tuple[list[list[str]], str]:
        """Return the fields that differ most, a head first, and a note on the rest; nothing without fields."""
        if self.fields.empty:
            return [], ""
        worst = self.fields.sort_values(["n_pairs_unequal", "abs_max"], ascending=False, kind="stable")
        head = ["field", "unequal", "values", "bias", "mean |d|", "p99 |d|", "max |d|"]
        rows = [
            [
                row["path"] if len(row["path"]) <= _MAX_PATH_SHOWN else f"...{row['path'][3 - _MAX_PATH_SHOWN :]}",
                *(count(row[name]) for name in ("n_pairs_unequal", "n_values")),
                *(_number_text(row[name]) for name in ("bias", "abs_mean", "abs_p99", "abs_max")),
            ]
            for row in worst.head(_MAX_FIELDS_SHOWN).to_dict("records")
        ]
        more = len(self.fields) - len(rows)
        rest = f"and {count(more)} more; " if more else ""
        return [head, *rows], f"{rest}unequal: pairs; d: shadow minus source, bias its mean"

    def byte_notes(self) -> list[str]:
        """Return the notes on answers that have no values, and on a tolerance without effect."""
        tolerances = " and ".join(name for name in ("rtol", "atol") if getattr(self, name))
        of = self.within.of
        if self.n_bytes:
            few = "" if self.n_bytes == of else f" of {count(of)}"
            fact = f"{count(self.n_bytes)}{few} {'answer was' if of == 1 else 'answers were'} compared byte by byte"
            if not tolerances:
                return [f"{fact}."]
            return [f"{tolerances} {'was' if ' ' not in tolerances else 'were'} not applied: {fact}."]
        if tolerances and of and not self.fields["n_numbers"].any():
            return [f"{tolerances} {'was' if ' ' not in tolerances else 'were'} not applied: no answers hold numbers."]
        return []

    def left_out(self) -> list[str]:
        """Return the counts of records that were not compared, with the reasons."""
        lines = []
        if self.n_requests_differ:
            lines.append(f"not compared, pairs whose requests differ: {count(self.n_requests_differ)}")
        for role, side in (("source", self.source), ("shadow", self.shadow)):
            counts = {reason: getattr(side, name) for name, reason in _LEFT_OUT.items() if getattr(side, name)}
            if counts:
                lines.append(f"{role}: {'; '.join(f'{reason} ({count(n)})' for reason, n in counts.items())}")
            if side.first_flaw:
                lines.append(f"{role}, first line that cannot be read: {side.first_flaw}")
        if self.unused:
            lines.append(f"ignored, but in no answer: {', '.join(self.unused)}")
        return lines


def agreement(
    source: Source,
    shadow: Source,
    *,
    ignore: str | Sequence[str] = (),
    rtol: float = TOLERANCE,
    atol: float = TOLERANCE,
    confidence: float = CONFIDENCE,
    examples: int = EXAMPLES,
    format: str = ANSWER_FORMAT,
) -> Agreement:
    """Compare the answers of two variants, from their captures.

    Parameters
    ----------
    source, shadow : path
        Folders of captures (searched recursively) or files, of one variant each.
    ignore : str or sequence of str
        Fields left out of the comparison as values: `$.a.b`, `a.b`, `$.items[*].id`, `$['a b']`; `$[*][2]` is
        column 2 of a CSV body.
    rtol, atol : float
        Numbers agree when |shadow - source| <= atol + rtol |source|.
    confidence : float
        Confidence level of the intervals.
    examples : int
        The most pairs that disagree to show.
    format : {"auto", "json", "csv", "bytes"}
        The answers' format. By default the contents decide, not the content types: what parses as JSON, JSON lines, CSV
        or npy on both sides is compared as values, anything else byte by byte.

    Returns
    -------
    Agreement

    Raises
    ------
    InputError
        An option is wrong; a side has no captures, captures of several variants or no inference ids; or the sides
        share a file or have no id in common.

    Examples
    --------
    >>> import json, shadowsim as ss
    >>> from pathlib import Path
    >>> def captured(variant, answer):
    ...     payload = {"observedContentType": "application/json", "mode": "OUTPUT", "data": answer, "encoding": "JSON"}
    ...     about = {"eventId": "e1", "inferenceId": "r1", "inferenceTime": "2026-12-01T00:00:00Z"}
    ...     file = Path("captures", "ranker", variant, "2026/12/01/00/00-00-000-a.jsonl")
    ...     file.parent.mkdir(parents=True, exist_ok=True)
    ...     line = {"captureData": {"endpointOutput": payload}, "eventMetadata": about, "eventVersion": "0"}
    ...     with file.open("w") as lines:
    ...         print(json.dumps(line), file=lines)
    ...     return Path("captures", "ranker", variant)
    >>> answers = ss.agreement(captured("AllTraffic", "[1]"), captured("Shadow-01", "[1.0]"))
    >>> answers.n_pairs
    1
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        number(value, name, least=0.0)
    if not 0.0 < confidence < 1.0:
        raise InputError("confidence", "must lie between 0 and 1", confidence)
    integer(examples, "examples", least=0)
    if format not in FORMATS:
        raise InputError(
            "format", f"must be one of {', '.join(FORMATS)}", format, hint=did_you_mean(str(format), FORMATS)
        )
    ignored = IgnoredFields([ignore] if isinstance(ignore, str) else ignore)

    indexes = index_captures(source, "source"), index_captures(shadow, "shadow")
    if set.intersection(*({file.path.resolve() for file in index.files} for index in indexes)):
        raise InputError("shadow", "must not be captures of the source", str(shadow))
    pairs = pair_by_id(*indexes)
    n_pairs = pairs.source.size
    if not n_pairs:
        n_ids = f"{count(pairs.n_ids[1])} against {count(pairs.n_ids[0])}"
        raise InputError("shadow", f"must have inference ids of the source: {n_ids}, and none in common")

    differences = Differences(rtol, atol)
    sample: list[tuple[bytes, Example]] = []
    n_compared = n_exact = n_within = n_requests_differ = n_bytes = 0
    unanswered = [0, 0]
    for a, b in read_pairs(*indexes, pairs):
        if a.request and b.request and a.request.body != b.request.body:
            n_requests_differ += 1
            continue
        if a.response is None or b.response is None:
            unanswered[0] += a.response is None
            unanswered[1] += b.response is None
            continue
        n_compared += 1
        n_exact += a.response.body == b.response.body
        values = values_of(a.response, b.response, format)
        n_bytes += isinstance(values[0], bytes)
        why = differences.add(fields_of(*values, ignored))
        n_within += not why
        if why and examples:
            example = Example(a.inference_id or "", why, *map(_answer_text, (a.response, b.response), values))
            _keep_in_sample(sample, examples, example)

    return Agreement(
        exact=share_of(n_exact, n_compared, confidence),
        within=share_of(n_within, n_compared, confidence),
        copied=share_of(n_pairs, pairs.n_ids[0], confidence),
        fields=differences.frame(),
        examples=tuple(example for _, example in sorted(sample, key=lambda entry: entry[0])),
        source=_side_counts(indexes[0], pairs.n_ids[0], n_pairs, unanswered[0]),
        shadow=_side_counts(indexes[1], pairs.n_ids[1], n_pairs, unanswered[1]),
        n_pairs=n_pairs,
        n_requests_differ=n_requests_differ,
        ignore=ignored.paths,
        unused=tuple(path for path in ignored.paths if path not in ignored.used),
        rtol=rtol,
        atol=atol,
        confidence=confidence,
        format=format,
        n_bytes=n_bytes,
    )


def _side_counts(index: CaptureIndex, n_ids: int, n_pairs: int, n_unanswered: int) -> SideCounts:
    reading = index.reading
    return SideCounts(
        variant=index.variant,
        n_records=reading.n_records,
        n_without_id=index.n_without_id,
        n_duplicates=index.ids.size - n_ids,
        n_unpaired=n_ids - n_pairs,
        n_unanswered=n_unanswered,
        n_torn=reading.n_torn,
        n_broken=reading.n_broken,
        n_other_versions=reading.n_other_versions,
        first_flaw=reading.first_flaw,
    )


def _keep_in_sample(sample: list[tuple[bytes, Example]], n: int, example: Example) -> None:
    """Keep the n examples with the smallest hashes of their ids: a random sample, whatever the order of reading."""
    key = blake2b(example.inference_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    bisect.insort(sample, (key, example), key=lambda entry: entry[0])
    del sample[n:]


def _answer_text(payload: CapturedPayload, value: Any) -> str:
    return value_text(payload.body if isinstance(value, dict | list) else value)


def _example_text(example: Example) -> str:
    answers = [wrapped(f"{role} {getattr(example, role)}", "  ", "    ") for role in ("source", "shadow")]
    return "\n".join([wrapped(f"{example.inference_id}: {example.why}", hanging="  "), *answers])


def _number_text(x: float) -> str:
    if math.isnan(x):
        return "-"
    return f"{x:.0f}" if x.is_integer() and abs(x) < _MAX_WHOLE_SHOWN else f"{x:.3g}"


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
