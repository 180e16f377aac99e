"""Checks pairs by inference id against plain dicts, and that bodies are not kept in memory."""

import tracemalloc
from datetime import timedelta

import numpy as np
import pytest
from captured import START, record, write
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim import InputError
from shadowsim.captures import pairing
from shadowsim.captures.pairing import index_captures, pair_by_id, read_pairs

ids = st.lists(st.none() | st.sampled_from(["a", "b", "c", "ü", "a ", "\x00"]), max_size=12)


def spread(root, variant, names, n_files=3):
    """Write records with the answers 0, 1, 2, ... into several files; return their folder."""
    records = [record(name, answer=i, request=i) for i, name in enumerate(names)]
    per_file = -(-len(records) // n_files) or 1
    for i in range(0, len(records), per_file):
        folder = write(root, variant, records[i : i + per_file], START + timedelta(minutes=i))
    return folder


@settings(max_examples=60)
@given(ids, ids)
def test_the_earliest_records_of_an_id_are_a_pair(tmp_path_factory, source, shadow):
    root = tmp_path_factory.mktemp("captures")
    sides, first = [], []
    for variant, names in (("V", [*source, "last"]), ("W", [*shadow, "last"])):
        sides.append(index_captures(spread(root, variant, names), variant))
        known = {}
        for i, name in enumerate(names):
            if name is not None:
                known.setdefault(name, i)
        first.append(known)
        assert sides[-1].n_without_id == names.count(None)
        assert sides[-1].ids.size == len(names) - names.count(None)
        assert sides[-1].variant == variant
    pairs = pair_by_id(*sides)
    assert pairs.n_ids == (len(first[0]), len(first[1]))
    answers = [(a.inference_id, int(a.response.body), int(b.response.body)) for a, b in read_pairs(*sides, pairs)]
    both = sorted(set(first[0]) & set(first[1]), key=first[0].get)
    assert answers == [(name, first[0][name], first[1][name]) for name in both]


def test_more_files_than_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(pairing, "_OPEN_FILES", 2)
    names = [f"id-{i}" for i in range(24)]
    sides = [
        index_captures(spread(tmp_path, v, order, n_files=8), v) for v, order in (("V", names), ("W", names[::-1]))
    ]
    paired = [(a.inference_id, b.inference_id) for a, b in read_pairs(*sides, pair_by_id(*sides))]
    assert paired == [(name, name) for name in names]


def test_bodies_are_not_held(tmp_path):
    """40 MB of bodies are paired in a tenth of that: what one pair needs."""
    n, body = 20, "x" * 10**6
    folders = []
    for variant in ("V", "W"):
        for i in range(n):
            folders.append(write(tmp_path, variant, [record(f"id-{i}", answer=body)], START + timedelta(minutes=i)))
    tracemalloc.start()
    try:
        sides = [index_captures(folder, "source") for folder in (folders[0], folders[-1])]
        assert sum(a.response == b.response for a, b in read_pairs(*sides, pair_by_id(*sides))) == n
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A line of 1 MB, its text, its data and its body, for the pair before, the pair at hand and the line being read.
    assert peak < 15e6


def test_an_index_holds_28_bytes_a_record(tmp_path):
    index = index_captures(write(tmp_path, "V", [record(str(i)) for i in range(1000)]), "source")
    assert sum(a.nbytes for a in (index.ids, index.file, index.offset)) == 28 * 1000


def test_a_folder_of_two_variants_is_refused(tmp_path):
    write(tmp_path, "AllTraffic", [record("a")])
    write(tmp_path, "Shadow-01", [record("a")])
    with pytest.raises(InputError, match=r"source: must be captures of one variant; .* has endpoint/AllTraffic, endp"):
        index_captures(tmp_path, "source")


def test_without_inference_ids_there_is_nothing_to_pair(tmp_path):
    folder = write(tmp_path, "V", [record(None, answer=1), record(None, answer=2)])
    message = r"shadow: must have inference ids \(InvokeEndpoint's InferenceId\): none of 2 records in .*V has one"
    with pytest.raises(InputError, match=message):
        index_captures(folder, "shadow")


def test_a_file_that_changes_or_goes_between_two_readings(tmp_path):
    sides = [index_captures(write(tmp_path, v, [record("a", answer=1), record("b")]), v) for v in ("V", "W")]
    pairs = pair_by_id(*sides)
    np.testing.assert_array_equal(pairs.source, [0, 1])
    for text in ("{}\n", "torn", ""):
        write(tmp_path, "W", [], torn=text)
        with pytest.raises(InputError, match=r"\.jsonl: must not change while it is read, but has"):
            list(read_pairs(*sides, pairs))
    write(tmp_path, "W", [record("b", answer=1), record("a")])
    with pytest.raises(InputError, match="must not change while it is read, but has"):
        list(read_pairs(*sides, pairs))
    sides[1].files[0].path.unlink()
    with pytest.raises(InputError, match=r"\.jsonl: cannot be read: No such file"):
        list(read_pairs(*sides, pairs))
