"""Tables in every common dialect hold the same values; errors name the line of the file."""

import bz2
import gzip
import json
import lzma
import zipfile

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.scenario.table_files import VEGETA, line_of, read_table

ROWS = [(0.25, "a", 1), (0.5, "b, or c", 2), (1.75, "", 3)]


def csv_text(delimiter=",", decimal="."):
    def field(value):
        text = str(value).replace(".", decimal) if isinstance(value, float) else str(value)
        return f'"{text}"' if delimiter in text else text

    lines = [["arrival_s", "name", "n"], *ROWS]
    return "".join(delimiter.join(map(field, line)) + "\n" for line in lines)


def written(folder, content, name="t.csv"):
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def records():
    return [dict(zip(("arrival_s", "name", "n"), row, strict=True)) for row in ROWS]


FORMS = {
    "comma": ("t.csv", csv_text().encode()),
    "semicolon": ("t.csv", csv_text(";").encode()),
    "european": ("t.csv", csv_text(";", ",").encode()),
    "tab": ("t.tsv", csv_text("\t").encode()),
    "bar": ("t.txt", csv_text("|").encode()),
    "crlf": ("t.csv", csv_text().replace("\n", "\r\n").encode()),
    "byte order mark": ("t.csv", csv_text().encode("utf-8-sig")),
    "UTF-16": ("t.csv", csv_text("\t").encode("utf-16")),
    "UTF-16 without a mark": ("t.csv", csv_text().encode("utf-16-le")),
    "UTF-16 of the other order": ("t.csv", csv_text().encode("utf-16-be")),
    "blank lines": ("t.csv", ("\n\n" + csv_text().replace("\n", "\n\n")).encode()),
    "JSON lines": ("t.jsonl", "".join(json.dumps(row) + "\n" for row in records()).encode()),
    "JSON array": ("t.json", json.dumps(records(), indent=1).encode()),
    "gzip": ("t.csv.gz", gzip.compress(csv_text().encode())),
    "bzip2": ("t.csv.bz2", bz2.compress(csv_text().encode())),
    "xz of JSON lines": ("t.jsonl.xz", lzma.compress("".join(json.dumps(r) + "\n" for r in records()).encode())),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_table_in_every_form(tmp_path, form):
    name, content = FORMS[form]
    table = read_table(written(tmp_path, content, name), "here")
    assert list(table.columns) == ["arrival_s", "name", "n"]
    assert table["arrival_s"].tolist() == [row[0] for row in ROWS]
    assert table["name"].fillna("").tolist() == [row[1] for row in ROWS]
    assert table["n"].tolist() == [1, 2, 3]


def test_zip_and_parquet(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("inside.csv", csv_text())
    pd.DataFrame(records()).to_parquet(tmp_path / "t.parquet")
    for name in ("t.zip", "t.parquet"):
        assert read_table(tmp_path / name, "here")["n"].tolist() == [1, 2, 3]


def test_vegetas_table_has_no_names(tmp_path):
    """As `vegeta encode --to csv` writes it: ns since 1970, code, latency in ns, bytes, error, body and more."""
    row = "171529920000000000{i},200,1500000,0,12,,aGVsbG8=,attack,{i},GET,http://127.0.0.1/,SG9zdA=="
    table = read_table(written(tmp_path, "".join(row.format(i=i) + "\n" for i in range(5))), "here")
    assert tuple(table.columns) == VEGETA
    assert table["timestamp_ns"].tolist() == [1715299200000000000 + i for i in range(5)]
    assert table["seq"].tolist() == list(range(5))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.5,1\n0.7,2\n", "names no columns: its first line holds data"),
        ("2024-05-10 00:00:00,1\n2024-05-10 00:00:01,2\n", "names no columns"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4 has 3 fields, and the header names 2"),
        ('a,b\n"1\n\n",2\n3,4,5\n', "line 5 has 3 fields"),
        ('{"a": 1}\n\n{"a": }\n', "line 3 is no JSON object on a line of its own"),
        ('{"a": 1}\n[2]\n', "must hold objects with a time each; line 2 is none, got [2]"),
        ('[{"a": 1}, 2]', "element 2 is none"),
        ('[{"a": 1},\n {"a"]', "line 2 is no JSON"),
        ("[]", "has no rows"),
        ("a,b\n", "has no rows"),
        ("\n \n", "is empty"),
        ("a,a\n1,2\n", "must not have two columns of one name, got 'a'"),
        (b"a,b\n\xe9,2\n", "is not text in UTF-8"),
        ('{"captureData": {}, "eventMetadata": {}}\n', "shadowsim measured FOLDER"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, text, why):
    file = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_table(file, "here")
    assert caught.value.path == "here"
    assert str(file) in str(caught.value)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=30)
@given(blank=st.lists(st.integers(0, 2), min_size=1, max_size=8), header=st.integers(0, 2), json_lines=st.booleans())
def test_the_line_of_a_row_counts_blank_ones(tmp_path_factory, blank, header, json_lines):
    lines = [""] * header + ([] if json_lines else ["a,b"])
    expected = []
    for i, n in enumerate(blank):
        lines += [""] * n + ['{"a": 1}' if json_lines else f"{i},x"]
        expected.append(len(lines))
    file = written(tmp_path_factory.mktemp("lines"), "\n".join(lines) + "\n")
    assert [line_of(file, row) for row in range(len(blank))] == expected
    assert len(read_table(file, "here")) == len(blank)
