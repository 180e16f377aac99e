"""JMeter's own files, transactions, redirects, failed assertions and dates."""

import log_samples as samples
import pytest

from shadowsim import read_measurement


def read(tmp_path, text):
    file = tmp_path / "out.jtl"
    file.write_text(text)
    return read_measurement(file)


def test_files_of_jmeter_itself(tmp_path):
    csv = read(tmp_path, samples.JMETER_CSV)
    assert csv.requests["status"].tolist() == ["failed", "answered", "answered"]
    assert csv.requests["arrival_s"].tolist() == [0.0, 0.095, 0.098]
    assert csv.requests["first_byte_s"].tolist()[1:] == pytest.approx([0.185, 0.145])
    assert "1 samples of transaction controllers were left out: no requests." in csv.lacks
    xml = read(tmp_path, samples.JMETER_XML)
    assert xml.requests["status"].tolist() == ["failed", "answered"]
    assert xml.requests["latency_s"].tolist()[1] == 0.123
    for measured in (csv, xml):
        assert (measured.open_loop, measured.resolution_s, measured.latency_resolution_s) == (None, 1e-3, 1e-3)


def test_a_redirected_request_counts_its_parts(tmp_path):
    part = (
        '<httpSample t="5" lt="4" ts="179591473356{0}" s="true" lb="x-{0}" rc="{1}" rm="OK" tn="u" dt="text" by="1"/>'
    )
    parts = part.format(0, 302) + part.format(6, 200)
    whole = f'<httpSample t="11" lt="4" ts="1795914733560" s="true" lb="x" rc="200" rm="OK">{parts}</httpSample>'
    alone = part.format(9, 200)
    measured = read(tmp_path, f'<?xml version="1.0"?><testResults version="1.2">{whole}\n{alone}</testResults>')
    assert measured.requests["arrival_s"].tolist() == pytest.approx([0.0, 0.006, 0.009])
    assert measured.n_damaged == 0


def test_failed_assertions_time_outs_and_dates(tmp_path):
    text = (
        "timeStamp|elapsed|label|responseCode|success\n"
        "2026/11/29 01:12:08.587|10|a|200|false\n"
        "2026/11/29 01:12:09.587|60000|a|Non HTTP response code: java.net.SocketTimeoutException|false\n"
    )
    measured = read(tmp_path, text)
    assert measured.requests["status"].tolist() == ["broken", "timed_out"]
    assert measured.started.isoformat() == "2026-11-29T01:12:08.587000+00:00"
    assert "Times name no zone and were read as UTC." in measured.lacks
