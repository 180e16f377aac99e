"""What is written in each format is read back, whatever the file is called; damage is counted, mixtures are refused."""

import bz2
import gzip
import json
import lzma
import tracemalloc

import log_samples as samples
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_samples import START_MS, Sent

from shadowsim import read_measurement
from shadowsim.errors import InputError
from shadowsim.scenario import log_forms

STATUS = {2: "answered", 4: "error_4xx", 5: "error_5xx", 0: "failed"}
# How each format is written, the form that is recognised, and which of the columns it has.
SENT, RECEIVED = "request_bytes", "response_bytes"
FORMATS = {
    "k6 CSV": (samples.k6_csv, log_forms.K6_CSV, ()),
    "k6 JSON": (samples.k6_json, log_forms.K6_JSON, ()),
    "vegeta CSV": (samples.vegeta_csv, log_forms.VEGETA_CSV, (SENT, RECEIVED)),
    "vegeta JSON": (samples.vegeta_json, log_forms.VEGETA_JSON, (SENT, RECEIVED)),
    "JMeter CSV": (samples.jmeter_csv, log_forms.JMETER_CSV, (SENT, RECEIVED)),
    "JMeter XML": (samples.jmeter_xml, log_forms.JMETER_XML, (SENT, RECEIVED)),
    "nginx JSON": (samples.nginx_json, log_forms.NGINX_JSON, (SENT, RECEIVED)),
    "nginx table": (samples.nginx_table, log_forms.NGINX_TABLE, (SENT, RECEIVED)),
    "nginx log_format": (samples.nginx_own, log_forms.ACCESS_LOG, (SENT, RECEIVED)),
    "ALB": (samples.alb, log_forms.ALB, (SENT, RECEIVED)),
    "AIPerf": (samples.aiperf, log_forms.AIPERF, ()),
    "inference-perf": (samples.inference_perf, log_forms.INFERENCE_PERF, ()),
}
FEW = [Sent(0, 20, 200, 10, 100), Sent(1500, 35, 404, 11, 0), Sent(2750, 8, 500, 12, 7), Sent(2751, 90, 200, 0, 5)]
requests = st.lists(
    st.builds(
        Sent,
        st.integers(0, 10**7),
        st.integers(1, 59_999),
        st.sampled_from([200, 204, 404, 500, 503]),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=12,
)


def options(name):
    return {"log_format": samples.NGINX_FORMAT} if name == "nginx log_format" else {}


def written(folder, text, name="what.ever"):
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def rows(frame, columns):
    """Return the requests of a measurement as sorted tuples, times in ms."""
    kept = frame["arrival_s"] * 1e3, frame["latency_s"] * 1e3, frame["status"], *(frame[name] for name in columns)
    return sorted(zip(*kept, strict=True))


def expected(sent, name):
    """Return those that a format must give: AIPerf and inference-perf keep 204 for an error without a meaning."""
    language = name in ("AIPerf", "inference-perf")
    first = min(r.arrival_ms for r in sent)
    out = []
    for r in sent:
        status = STATUS[r.code // 100]
        sizes = [{SENT: r.sent, RECEIVED: r.received}[column] for column in FORMATS[name][2]]
        out.append((r.arrival_ms - first, r.latency_ms, "answered" if language and r.code == 204 else status, *sizes))
    return sorted(out)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=requests)
def test_what_was_written_is_read_back(tmp_path, name, sent):
    write, form, columns = FORMATS[name]
    if name in ("AIPerf", "inference-perf"):
        sent = [r._replace(code=200 if r.code == 204 else r.code) for r in sent]
    measured = read_measurement(written(tmp_path, write(sent)), **options(name))
    assert measured.form == form
    assert measured.n_damaged == 0, measured.first_damaged
    for got, want in zip(rows(measured.requests, columns), expected(sent, name), strict=True):
        # To half a microsecond: sums and differences of float64 seconds.
        assert got[0] == pytest.approx(want[0], abs=5e-4)
        assert got[1] == pytest.approx(want[1], abs=5e-4)
        assert got[2:] == want[2:]
    if name != "inference-perf":  # on a clock of its own
        first = START_MS + min(r.arrival_ms for r in sent)
        assert measured.started.timestamp() * 1e3 == pytest.approx(first, abs=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_compression_and_encoding_are_recognised_too(tmp_path, name):
    write, form, _ = FORMATS[name]
    text = write(FEW)
    packed = [gzip.compress(text.encode()), bz2.compress(text.encode()), lzma.compress(text.encode())]
    for content in (*packed, text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode(), text.encode("utf-16")):
        if name == "JMeter XML" and content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            continue  # its own first line says UTF-8
        measured = read_measurement(written(tmp_path, content), **options(name))
        assert (measured.form, measured.n_requests, measured.n_damaged) == (form, 4, 0)


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("JMeter XML", "inference-perf")])
def test_damaged_lines_are_counted_and_the_first_is_named(tmp_path, name):
    write, _, _ = FORMATS[name]
    many = [Sent(1000 * i, 20, 200, 1, 1) for i in range(30)]
    lines = write(many).splitlines(keepends=True)
    middle = len(lines) // 2
    lines.insert(middle, "!!?" + lines[middle][4:11] + "\n")
    lines.insert(middle, lines[middle + 1][:9] + "\n")
    cut = "".join(lines).rstrip("\n")[:-25]  # written to half when the disk was full
    measured = read_measurement(written(tmp_path, cut), **options(name))
    assert measured.n_damaged in (2, 3)  # vegeta's and nginx's cut lines still have what is read
    assert measured.n_requests in (29, 30)
    assert measured.first_damaged.startswith(f"line {middle + 1} of what.ever: ")


def test_an_array_and_an_xml_file_that_break_off_are_read_to_there(tmp_path):
    many = [Sent(1000 * i, 20, 200, 1, 1) for i in range(30)]
    for write in (samples.inference_perf, samples.jmeter_xml):
        text = write(many)
        measured = read_measurement(written(tmp_path, text[: len(text) // 2]))
        assert 12 <= measured.n_requests <= 16
        assert measured.n_damaged == 1
        assert "breaks off" in measured.first_damaged


def test_a_compressed_file_that_is_cut_short_is_read_to_there(tmp_path):
    rng = np.random.default_rng(5)
    many = [Sent(10 * i, int(rng.integers(1, 9_999)), 200, int(rng.integers(1, 9_999)), 1) for i in range(3_000)]
    packed = gzip.compress(samples.vegeta_csv(many).encode())
    measured = read_measurement(written(tmp_path, packed[: len(packed) // 2]))
    assert 1_000 < measured.n_requests < 2_000
    assert "ends too early" in measured.first_damaged


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_mostly_damaged_or_hold_no_requests_are_refused(tmp_path, name):
    write, _, _ = FORMATS[name]
    text = write([])
    if name in ("k6 CSV", "JMeter CSV", "nginx table", "JMeter XML"):
        with pytest.raises(InputError, match="holds no requests"):
            read_measurement(written(tmp_path, text))
    if name not in ("JMeter XML", "inference-perf", "nginx log_format"):
        rubbish = write([Sent(0, 1)]) + "?!\n" * 40
        with pytest.raises(InputError, match=r"cannot be read as such|is none of these"):
            read_measurement(written(tmp_path, rubbish))


def test_what_is_none_of_them_is_refused_in_one_line(tmp_path):
    cases = {
        "a,b\n1,2\n": "is none of these: results of k6",
        "": "is empty",
        "\n\n": "is empty",
        "{}": "is none of these",
        "[]": "is none of these",
        "\0\1\2\0": "is neither text nor compressed text",
        "\x0e\xff\x81\3\1\1\6Result\1\xff\x82\0\1\n\1\6Attack\1\x0c\0": "vegeta encode --to json",
    }
    for text, why in cases.items():
        with pytest.raises(InputError) as caught:
            read_measurement(written(tmp_path, text))
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    for source in (tmp_path / "none", "null\0", tmp_path / "what.ever" / "x"):
        with pytest.raises(InputError, match=r"there is no such file|cannot be read"):
            read_measurement(source)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder without files"):
        read_measurement(tmp_path / "folder")
    with pytest.raises(InputError, match="must be a path"):
        read_measurement([1])
    with pytest.raises(InputError, match="at least one file"):
        read_measurement([])


def test_mixtures_are_refused_with_the_candidates(tmp_path):
    mixed = samples.vegeta_json(FEW) + samples.aiperf(FEW)
    with pytest.raises(InputError, match="could be any of vegeta JSON lines, AIPerf records: is it several files"):
        read_measurement(written(tmp_path, mixed))
    first = written(tmp_path, samples.vegeta_json(FEW), "a")
    second = written(tmp_path, samples.vegeta_csv(FEW), "b")
    with pytest.raises(InputError, match="must have the form of a, vegeta JSON lines, and is vegeta CSV"):
        read_measurement([first, second])
    one, two = (written(tmp_path, samples.k6_csv(FEW), name) for name in ("c", "d"))
    with pytest.raises(InputError, match="must not be given beside c: k6 CSV is one file a run"):
        read_measurement([one, two])


def test_each_form_is_recognised_as_itself_alone():
    heads = {form: log_forms.head_of_text(write(FEW)) for write, form, _ in FORMATS.values()}
    heads[log_forms.ACCESS_LOG] = log_forms.head_of_text("".join(map(samples.combined, FEW)))
    heads |= {log_forms.WRK: log_forms.head_of_text(samples.WRK)}
    for form, head in heads.items():
        assert log_forms.forms_of(head) == [form]
    assert log_forms.forms_of(log_forms.head_of_text(samples.WRK2)) == [log_forms.WRK]


def test_pieces_of_one_log_are_joined_in_order_of_time(tmp_path):
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    written(pieces, gzip.compress(samples.alb(FEW[2:]).encode()), "a.gz")
    written(pieces, samples.alb(FEW[:2]), "b.log")
    for source in (pieces, sorted(pieces.iterdir())):
        measured = read_measurement(source)
        assert measured.requests["arrival_s"].tolist() == [0.0, 1.5, 2.75, 2.751]


def test_a_key_of_another_format_inside_a_body_does_not_mislead(tmp_path):
    body = json.dumps({"metadata": {"request_start_ns": 1}, "metrics": 1, "captureData": 1, "eventMetadata": 2})
    line = json.loads(samples.vegeta_json(FEW[:1]))
    text = json.dumps(line | {"error": body}) + "\n"
    assert read_measurement(written(tmp_path, text)).form == log_forms.VEGETA_JSON


@pytest.mark.parametrize("write", [samples.vegeta_json, samples.inference_perf, samples.nginx_own])
def test_memory_holds_numbers_and_not_the_text(tmp_path, write):
    """Another request costs less than 600 bytes, though its text has 20,000."""
    peaks = []
    for n in (300, 600):
        text = write([Sent(1000 * i, 20, 200, 1, 1) for i in range(n)])
        for body in ("e30=", "],[", "b\\x22"):
            text = text.replace(body, "x" * 20_000)
        file = written(tmp_path, text)
        del text
        options_of = options("nginx log_format") if write is samples.nginx_own else {}
        tracemalloc.start()
        read_measurement(file, **options_of)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 300 * 600
    assert peaks[1] < 6e6  # of a text of 12 MB: an array is read by megabytes
