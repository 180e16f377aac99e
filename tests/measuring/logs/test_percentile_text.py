"""wrk's and wrk2's text, and spectra whose unit is said, given or missing."""

import log_samples as samples
import pytest

from shadowsim import read_measurement
from shadowsim.errors import InputError

SPECTRUM = samples.WRK2[samples.WRK2.index("       Value") : samples.WRK2.index("-----")]


def read(tmp_path, text, **options):
    file = tmp_path / "out"
    file.write_text(text)
    return read_measurement(file, **options)


def test_wrk(tmp_path):
    """What wrk 4.1 printed here."""
    measured = read(tmp_path, samples.WRK)
    assert measured.form == "wrk text"
    assert measured.quantiles == pytest.approx({0.5: 0.01053, 0.75: 0.0175, 0.9: 0.02633, 0.99: 0.04281})
    assert (measured.n_requests, measured.span_s, measured.open_loop) == (700, 2.01, False)
    assert measured.mean_latency_s() == pytest.approx(0.01262)
    assert measured.error_shares() == {"other": 40 / 700}
    bare = read(tmp_path, samples.WRK.replace("  Latency Distribution\n", "").replace("%   ", "?   "))
    assert "Without --latency wrk prints no quantiles." in bare.lacks


def test_wrk2_in_milliseconds_from_planned_times(tmp_path):
    measured = read(tmp_path, samples.WRK2)
    assert measured.form == "wrk2 text"
    assert measured.quantiles == pytest.approx({0.0: 0.000921, 0.5: 0.006671, 0.99: 0.011183, 1.0: 0.012503})
    assert (measured.n_requests, measured.open_loop) == (59_003, True)
    assert measured.rate_per_s == pytest.approx(1966.77, abs=0.01)


@pytest.mark.parametrize(("unit", "scale"), [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])
def test_a_spectrum_needs_its_unit(tmp_path, unit, scale):
    named = SPECTRUM.replace("Value  ", f"Value({unit})")
    for measured in (read(tmp_path, SPECTRUM, latency_unit=unit), read(tmp_path, named)):
        assert measured.quantile(0.5) == pytest.approx(6.671 * scale)
        assert measured.mean_latency_s() == pytest.approx(6.602 * scale)
        assert (measured.n_requests, measured.rate_per_s) == (39_566, None)
    with pytest.raises(InputError, match="does not say the unit of its values: give latency_unit"):
        read(tmp_path, SPECTRUM)
    with pytest.raises(InputError, match="latency_unit: must be one of ns, us, ms, s, got 'min'"):
        read(tmp_path, SPECTRUM, latency_unit="min")


def test_damaged_rows_of_a_spectrum_are_counted(tmp_path):
    measured = read(tmp_path, SPECTRUM.replace("11.183     0.99", "11.183  x  0.99"), latency_unit="ms")
    assert measured.n_damaged == 1
    assert 0.99 not in measured.quantiles
