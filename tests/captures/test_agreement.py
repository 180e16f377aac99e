"""Checks the agreement of two variants: counts against plain dicts, left-out records, the report, and errors."""

import io
import json
import math

import numpy as np
import pytest
from captured import START, record, write
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from shadowsim import InputError, agreement
from shadowsim.captures.agreement import share_of
from shadowsim.captures.record import CaptureRecord, payload_of

REPORT = """
AllTraffic (source) and Shadow-01 (shadow): 7 pairs by inference id

equal byte for byte  66.67 %  4 of 6  22.28 % to 95.67 %
equal as values      83.33 %  5 of 6  35.88 % to 99.58 %
copied and captured  87.50 %  7 of 8  47.35 % to 99.68 %

As values: without $.at, at.all, within rtol 0 and atol 0. Intervals: 95 %, Clopper-Pearson.

field    unequal  values    bias  mean |d|  p99 |d|  max |d|
$.score        1       6  0.0208    0.0208    0.125    0.125
$.label        1       6       -         -        -        -
unequal: pairs; d: shadow minus source, bias its mean

not compared, pairs whose requests differ: 1
source: ids that the other side does not have (1)
shadow: records without an inference id (1); duplicates of an id, of which the earliest counts (2); ids that the other
side does not have (1); last lines cut short (1); other lines that cannot be read (1); records of another eventVersion,
read all the same (1)
shadow, first line that cannot be read: broken JSON at column 1: Expecting value
ignored, but in no answer: at.all

id-3: $.score: source 0.375, shadow 0.5
  source '{"score": 0.375, "label": "cat", "at": 3}'
  shadow '{"score": 0.5, "label": "dog", "at": 0}'
"""


def folders(root, source, shadow):
    return write(root, "AllTraffic", source), write(root, "Shadow-01", shadow)


def agreement_of(root, source, shadow, **options):
    """Compare two lists of answers to the same requests."""
    sides = [[record(f"id-{i}", a) for i, a in enumerate(answers)] for answers in (source, shadow)]
    return agreement(*folders(root, *sides), **options)


answers = st.none() | st.fixed_dictionaries({"score": st.sampled_from([0.0, 1.0, 1.05, 2]), "id": st.integers(0, 1)})
sides = st.lists(st.tuples(st.sampled_from("abcdef"), answers, st.sampled_from([None, 1, 2])), max_size=10)


@settings(max_examples=40)
@given(sides, sides)
def test_counts_are_those_of_two_dicts(tmp_path_factory, source, shadow):
    lists = [[*side, ("always", {"score": 1.0, "id": 0}, 1)] for side in (source, shadow)]
    root = tmp_path_factory.mktemp("captures")
    result = agreement(*folders(root, *([record(*entry) for entry in side] for side in lists)), ignore="id", rtol=0.06)

    one, other = ({name: rest for name, *rest in reversed(side)} for side in lists)  # the earliest of a name stays
    common = one.keys() & other.keys()
    differ = {name for name in common if None not in (one[name][1], other[name][1]) and one[name][1] != other[name][1]}
    silent = [{name for name in common - differ if side[name][0] is None} for side in (one, other)]
    compared = common - differ - silent[0] - silent[1]
    exact = sum(json.dumps(one[name][0]) == json.dumps(other[name][0]) for name in compared)
    apart = {name: abs(other[name][0]["score"] - one[name][0]["score"]) for name in compared}
    within = sum(apart[name] <= 0.06 * abs(one[name][0]["score"]) for name in compared)

    assert result.n_pairs == len(common)
    assert result.n_requests_differ == len(differ)
    assert result.exact == share_of(exact, len(compared), 0.95) or not compared
    assert result.within == share_of(within, len(compared), 0.95) or not compared
    assert result.copied == share_of(len(common), len(one), 0.95)
    for side, names, entries, missing in (
        (result.source, one, lists[0], silent[0]),
        (result.shadow, other, lists[1], silent[1]),
    ):
        assert side.n_records == len(entries)
        assert side.n_duplicates == len(entries) - len(names)
        assert side.n_unpaired == len(names.keys() - common)
        assert side.n_unanswered == len(missing)
    assert len(result.examples) == min(5, len(compared) - within)
    fields = result.fields.set_index("path")
    if compared:
        assert list(fields.index) == ["$.score"]
        assert fields.loc["$.score", "abs_max"] == max(apart.values())
        assert fields.loc["$.score", "abs_mean"] == pytest.approx(sum(apart.values()) / len(apart), rel=1e-12)
    json.dumps(result.to_dict(), allow_nan=False)
    assert str(result).isascii()


def test_a_whole_report(tmp_path):
    source = [record(f"id-{i}", {"score": i / 8, "label": "cat", "at": i}, [i]) for i in range(8)]
    shadow = [record(f"id-{i}", {"score": i / 8, "label": "cat", "at": i}, [i]) for i in range(1, 8)]
    shadow[2] = record("id-3", {"score": 0.5, "label": "dog", "at": 0}, [3])
    shadow[3] = record("id-4", {"score": 0.5, "label": "cat", "at": 0}, [4])
    shadow[4] = record("id-5", {"score": 0.0}, ["other"])
    shadow += [record(None, 1), record("id-1", 1), record("id-9", 1), record("id-9", 1, event_version="1")]
    one = write(tmp_path, "AllTraffic", source)
    other = write(tmp_path, "Shadow-01", shadow, torn='nothing\n{"captureData":')
    result = agreement(one, other, ignore=["$.at", "at.all"], examples=1)
    text = str(result)
    assert all(len(line) <= 80 or str(tmp_path) in line for line in text.splitlines())
    place = f"{next(other.rglob('*.jsonl'))}, at byte "
    head, _, rest = " ".join(text.split()).partition(place)
    assert head + rest.partition(": ")[2] == " ".join(REPORT.split())


def test_a_dictionary_for_json(tmp_path):
    result = agreement_of(tmp_path, [{"a": 0}, {"a": "x"}, None], [{"a": 1}, {"a": "x"}, None], confidence=0.9)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["exact"] == {"n": 1, "of": 2, "share": 0.5, "low": result.exact.low, "high": result.exact.high}
    assert document["source"]["n_unanswered"] == 1
    assert document["fields"][0]["path"] == "$.a"
    assert document["fields"][0]["abs_max"] == 1.0
    assert document["fields"][0]["relative_max"] is None  # infinite: the source's is 0
    assert result.fields["relative_max"][0] == math.inf
    assert document["examples"] == [
        {"inference_id": "id-0", "why": "$.a: source 0, shadow 1", "source": "'{\"a\": 0}'", "shadow": "'{\"a\": 1}'"}
    ]
    assert document["confidence"] == 0.9
    nothing = agreement_of(tmp_path, [None], [None])
    assert nothing.to_dict()["exact"]["share"] is None
    assert "0 of 0" in str(nothing)


def npy_record(inference_id, array):
    stream = io.BytesIO()
    np.save(stream, array)
    payload = payload_of(stream.getvalue(), "application/x-npy", ("text/csv",), ("application/json",))
    return CaptureRecord(event_id="e", inference_id=inference_id, inference_time=START, response=payload)


def test_arrays_in_base64(tmp_path):
    """As in AWS's own shadow notebook: npy bodies, which no content type lists."""
    rng = np.random.default_rng(2)
    arrays = [rng.random((4, 3), dtype=np.float32) for _ in range(10)]
    moved = [a if i % 2 else a + np.float32(0.25) for i, a in enumerate(arrays)]
    sides = [[npy_record(str(i), a) for i, a in enumerate(side)] for side in (arrays, moved)]
    result = agreement(*folders(tmp_path, *sides))
    assert (result.exact.n, result.within.n, result.within.of) == (5, 5, 10)
    (row,) = result.fields.to_dict("records")
    assert (row["path"], row["n_values"], row["n_unequal"]) == ("$[*][*]", 120, 60)
    # A float32 below 1.25 is off by at most 2^-24.
    assert row["abs_max"] == pytest.approx(0.25, abs=2**-23)
    assert row["bias"] == pytest.approx(0.125, abs=2**-23)
    assert "float32 array of shape (4, 3): " in result.examples[0].source
    assert agreement(*folders(tmp_path, *sides), atol=0.26).within.n == 10


def test_an_endpoint_that_lists_no_types_stores_json_in_base64(tmp_path):
    listed, plain = (
        CaptureRecord(
            event_id="e", inference_id="a", inference_time=START, response=payload_of(b'{"a": 1}', t, (), types)
        )
        for t, types in (("application/json", ["application/json"]), ("application/json;charset=utf-8", []))
    )
    assert (listed.response.encoding, plain.response.encoding) == ("JSON", "BASE64")
    result = agreement(*folders(tmp_path, [listed], [plain]))
    assert (result.exact.n, result.within.n, result.fields["path"].tolist()) == (1, 1, ["$.a"])


def texts_of(root, source, shadow, types=("text/html; charset=utf-8",) * 2, **options):
    """Compare answers of two texts and content types, which an endpoint without listed types captures in base64."""
    sides = [
        [
            CaptureRecord(
                event_id="e", inference_id=f"id-{i}", inference_time=START, response=payload_of(t.encode(), k)
            )
            for i, t in enumerate(texts)
        ]
        for texts, k in zip((source, shadow), types, strict=True)
    ]
    return agreement(*folders(root, *sides), **options)


@pytest.mark.parametrize("types", [("text/html; charset=utf-8",) * 2, ("text/plain", "application/json"), (None, None)])
def test_json_of_another_label_has_its_tolerance(tmp_path, types):
    """A scikit-learn container answers JSON as text/html."""
    result = texts_of(tmp_path, ['{"v": [0.5]}'] * 3, ['{"v": [0.5000000001]}'] * 3, types, rtol=1e-6)
    assert (result.exact.n, result.within.n, result.n_bytes) == (0, 3, 0)
    assert result.fields["path"].tolist() == ["$.v[*]"]
    assert "applied" not in str(result)
    forced = texts_of(tmp_path, ['{"v": [0.5]}'] * 3, ['{"v": [0.5000000001]}'] * 3, types, rtol=1e-6, format="bytes")
    assert (forced.within.n, forced.n_bytes, forced.format) == (0, 3, "bytes")
    assert "rtol was not applied: 3 answers were compared byte by byte." in str(forced)


def test_a_tolerance_without_effect_is_said(tmp_path):
    source, shadow = ["Good day", '{"v": 1}', "a cat"], ["Good day", '{"v": 1}', "a dog"]
    result = texts_of(tmp_path, source, shadow)
    assert (result.within.n, result.n_bytes) == (2, 2)
    assert "\n2 of 3 answers were compared byte by byte.\n" in str(result)
    assert "applied" not in str(result)
    both = texts_of(tmp_path, source, shadow, rtol=0.1, atol=0.2)
    assert "rtol and atol were not applied: 2 of 3 answers were compared byte by byte." in str(both)
    assert "atol was not applied: 1 answer was compared byte by byte." in str(
        texts_of(tmp_path / "one", ["a"], ["b"], atol=0.2)
    )
    assert "rtol was not applied: no answers hold numbers." in str(
        texts_of(tmp_path / "texts", ['{"v": "1"}'], ['{"v": "2"}'], rtol=0.1)
    )
    assert both.to_dict()["n_bytes"] == 2
    assert both.to_dict()["format"] == "auto"


def test_differences_of_huge_integers_are_shown_exactly(tmp_path):
    result = agreement_of(tmp_path, [{"s": 12345678901234567890}] * 2, [{"s": 12345678901234567990}] * 2)
    assert result.within.n == 0
    assert "\n$.s          2       2   100       100      100      100\n" in str(result)
    moved = agreement_of(tmp_path / "moved", [{"s": 2**60}], [{"s": 2**60 + 123456}])
    assert " 123456\n" in str(moved)


def test_values_may_agree_where_bytes_do_not(tmp_path):
    result = agreement_of(tmp_path, [{"a": 1, "b": 2}], [{"b": 2.0, "a": 1}])
    assert (result.exact.n, result.within.n) == (0, 1)


def test_examples_are_a_sample_that_does_not_depend_on_the_order(tmp_path):
    n = 60
    sides = [[record(f"id-{i}", i + k) for i in range(n)] for k in (0, 1)]
    result = agreement(*folders(tmp_path / "a", *sides), examples=7)
    names = [example.inference_id for example in result.examples]
    assert len(set(names)) == 7
    back = agreement(*folders(tmp_path / "b", sides[0][::-1], sides[1]), examples=7)
    assert [example.inference_id for example in back.examples] == names
    # From the whole run: the chance that seven of sixty all come from one half is 2 C(30, 7) / C(60, 7), 1 in 95.
    assert {int(name[3:]) < n / 2 for name in names} == {True, False}
    assert agreement(*folders(tmp_path / "a", *sides), examples=0).examples == ()


def test_a_path_that_matches_nothing_is_named(tmp_path):
    result = agreement_of(tmp_path, [{"score": 1}], [{"score": 2}], ignore=("$.scroe", "$['score']"))
    assert result.within.n == 1
    assert result.unused == ("$.scroe",)
    assert "ignored, but in no answer: $.scroe" in str(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ignore": "$..id"},
            r"ignore: must be a JSON path of names, places and \*, as \$\.items\[\*\]\.id, got '\$\.\.i",
        ),
        ({"rtol": -1.0}, "rtol: must be a finite number >= 0, got -1.0"),
        ({"atol": math.nan}, "atol: must be a finite number >= 0, got nan"),
        ({"confidence": 1.0}, "confidence: must lie between 0 and 1, got 1.0"),
        ({"examples": -1}, "examples: must be a whole number >= 0, got -1"),
        ({"format": "jsn"}, r"format: must be one of auto, json, csv, bytes, got 'jsn'; did you mean json\?"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        agreement_of(tmp_path, [1], [1], **options)


def test_bad_captures(tmp_path):
    one, other = folders(tmp_path, [record("a", 1)], [record("b", 1), record("c", 1)])
    with pytest.raises(InputError, match="nowhere: there is no such file or folder"):
        agreement(one, tmp_path / "nowhere")
    with pytest.raises(InputError, match="shadow: must not be captures of the source, got '"):
        agreement(one, one)
    common = "shadow: must have inference ids of the source: 2 against 1, and none in common"
    with pytest.raises(InputError, match=common):
        agreement(one, other)
    write(tmp_path, "Shadow-01", [record(None, 1)])
    with pytest.raises(InputError, match="shadow: must have inference ids"):
        agreement(one, other)


@settings(max_examples=40)
@given(st.integers(1, 10**6), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.999]))
def test_the_bounds_are_the_shares_that_would_rarely_give_the_count(of, part, confidence):
    n = round(part * of)
    share = share_of(n, of, confidence)
    assert (share.n, share.of, share.share) == (n, of, n / of)
    assert 0.0 <= share.low <= share.share <= share.high <= 1.0
    tail = (1 - confidence) / 2
    # The binomial's tails are good to some 1e-9 of themselves at a million trials.
    assert share.low == 0.0 if n == 0 else binom.sf(n - 1, of, share.low) == pytest.approx(tail, rel=1e-6)
    assert share.high == 1.0 if n == of else binom.cdf(n, of, share.high) == pytest.approx(tail, rel=1e-6)


@pytest.mark.parametrize("of", [1, 2, 5, 20])
def test_a_lower_end_is_above_the_truth_at_most_once_in_forty(of):
    """Of all true shares: the chance of a count whose interval begins above the truth."""
    lows = [share_of(n, of, 0.95).low for n in range(of + 1)]
    for truth in np.linspace(0.001, 0.999, 997):
        assert sum(binom.pmf(n, of, truth) for n, low in enumerate(lows) if low > truth) <= 0.025 + 1e-12


def test_a_published_interval():
    """81 of 263, from Newcombe (1998, Statistics in Medicine 17, table I), method 5."""
    share = share_of(81, 263, 0.95)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2527, 0.3676)


def test_of_nothing_nothing_is_known():
    share = share_of(0, 0, 0.95)
    assert all(map(math.isnan, (share.share, share.low, share.high)))
    assert share.table_cells() == ["-", "0 of 0", ""]
    assert share_of(1, 2, 0.95).table_cells() == ["50.00 %", "1 of 2", "1.26 % to 98.74 %"]
