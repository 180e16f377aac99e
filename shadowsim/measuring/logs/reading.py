"""Reads any log, result of a load tool or export of CloudWatch, recognised by what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from shadowsim.errors import InputError, shown
from shadowsim.json_files import path_of
from shadowsim.measuring.logs.access_logs import read_access_log, read_nginx_json
from shadowsim.measuring.logs.cloudwatch_exports import (
    read_cloudwatch_data,
    read_cloudwatch_statistics,
    read_cloudwatch_table,
)
from shadowsim.measuring.logs.jmeter import read_jmeter_csv, read_jmeter_xml
from shadowsim.measuring.logs.k6 import read_k6
from shadowsim.measuring.logs.language_models import (
    read_aiperf,
    read_aiperf_report,
    read_inference_perf,
    read_inference_perf_report,
)
from shadowsim.measuring.logs.load_balancer import read_load_balancer
from shadowsim.measuring.logs.own_files import is_run, read_capture_files, read_requests_table, read_run
from shadowsim.measuring.logs.percentile_text import UNIT_S, read_spectrum, read_wrk
from shadowsim.measuring.logs.vegeta import read_vegeta, read_vegeta_report
from shadowsim.measuring.measurement import Measurement
from shadowsim.scenario import log_forms
from shadowsim.scenario.table_files import DAMAGED_ERRORS

Source = str | os.PathLike[str]

_READERS: dict[str, Callable[[list[Path], str], Measurement]] = {
    log_forms.K6_CSV: read_k6,
    log_forms.K6_JSON: read_k6,
    log_forms.VEGETA_CSV: read_vegeta,
    log_forms.VEGETA_JSON: read_vegeta,
    log_forms.VEGETA_REPORT: read_vegeta_report,
    log_forms.WRK: read_wrk,
    log_forms.JMETER_CSV: read_jmeter_csv,
    log_forms.JMETER_XML: read_jmeter_xml,
    log_forms.NGINX_JSON: read_nginx_json,
    log_forms.NGINX_TABLE: read_nginx_json,
    log_forms.ALB: read_load_balancer,
    log_forms.CLOUDWATCH_STATISTICS: read_cloudwatch_statistics,
    log_forms.CLOUDWATCH_DATA: read_cloudwatch_data,
    log_forms.CLOUDWATCH_TABLE: read_cloudwatch_table,
    log_forms.INFERENCE_PERF: read_inference_perf,
    log_forms.INFERENCE_PERF_REPORT: read_inference_perf_report,
    log_forms.AIPERF: read_aiperf,
    log_forms.AIPERF_REPORT: read_aiperf_report,
    log_forms.REQUESTS_TABLE: read_requests_table,
}
# Forms whose files are pieces of one log, or metrics of one service.
_SEVERAL = (
    *(log_forms.ACCESS_LOG, log_forms.NGINX_JSON, log_forms.ALB, log_forms.VEGETA_CSV, log_forms.VEGETA_JSON),
    *(log_forms.CLOUDWATCH_STATISTICS, log_forms.CLOUDWATCH_DATA, log_forms.CLOUDWATCH_TABLE, log_forms.AIPERF),
)
_KNOWN = (
    "results of k6, vegeta, wrk, wrk2, JMeter, inference-perf or AIPerf, a percentile spectrum, an access log of "
    "nginx, Apache or an ALB, an export of CloudWatch, SageMaker's captures, a table with arrival_s and latency_s"
)


def read_measurement(
    source: Source | Sequence[Source],
    *,
    log_format: str | None = None,
    latency_unit: str | None = None,
    variant: str | None = None,
) -> Measurement:
    """Read what was measured on a real service, from the files that people have.

    The form is recognised by the content: results of k6 (CSV, JSON lines), vegeta (CSV, JSON lines, report), wrk, wrk2,
    JMeter (CSV, XML), inference-perf and AIPerf; percentile spectra of HdrHistogram; access logs of nginx, Apache and
    AWS's Application Load Balancer; exports of CloudWatch; SageMaker's captures; folders that shadowsim wrote; and
    tables with the columns of `Measurement.requests`, of which `arrival_s` and `latency_s` are needed. Compressed files
    are unpacked. Lines that cannot be read are counted.

    Parameters
    ----------
    source : path, or sequence of paths
        A file or a folder. Several files, or a folder of them, are pieces of one access log, metrics of one service in
        CloudWatch, or results of several load generators.
    log_format : str, optional
        nginx's log_format of an access log that has another than the combined one, as in nginx.conf, with or without
        the directive's name.
    latency_unit : str, optional
        ns, us, ms or s: the unit of a percentile spectrum that does not say it.
    variant : str, optional
        Of a folder that shadowsim wrote, or a table with a column `variant`, the one to take; by default the source.

    Returns
    -------
    Measurement
        What is known, and in `lacks` what is not.

    Raises
    ------
    InputError
        There is no such file; it has none of these forms, or could have several; most of its lines are damaged; or it
        needs `log_format` or `latency_unit`.

    Examples
    --------
    >>> import pandas as pd, shadowsim as ss
    >>> pd.DataFrame({"arrival_s": [0.0, 0.5], "latency_s": [0.02, 0.03]}).to_csv("log.csv", index=False)
    >>> measured = ss.read_measurement("log.csv")
    >>> len(measured.requests)
    2
    """
    if latency_unit is not None and latency_unit not in UNIT_S:
        raise InputError("latency_unit", f"must be one of {', '.join(UNIT_S)}", latency_unit)
    single = isinstance(source, str | os.PathLike)
    sources = [path_of(one, "source") for one in ([source] if single else source)]  # type: ignore[union-attr]
    if not sources:
        raise InputError("source", "must name at least one file")
    if len(sources) == 1 and sources[0].is_dir():
        if is_run(sources[0]):
            return read_run(sources[0], variant)
        files = _files_in(sources[0])
    else:
        files = sources
    form = log_forms.ACCESS_LOG if log_format is not None else _form_of(files)
    if form == log_forms.CAPTURES:
        if len(sources) > 1:
            raise InputError(shown(sources[1]), "must not be given beside another: captures are read from one folder")
        return read_capture_files(sources[0])
    if len(files) > 1 and form not in _SEVERAL:
        raise InputError(shown(files[1]), f"must not be given beside {files[0].name}: {form} is one file a run")
    if form == log_forms.REQUESTS_TABLE:
        return read_requests_table(files, form, variant)
    if variant is not None:
        raise InputError("variant", f"must be left out: {form} is of one service", variant)
    if form == log_forms.ACCESS_LOG:
        return read_access_log(files, form, log_format)
    if form == log_forms.HDR:
        return read_spectrum(files, form, latency_unit)
    return _READERS[form](files, form)


def measurement_of(source: Measurement | Source, variant: str | None = None) -> Measurement:
    """Return a measurement, read by `read_measurement` if it is a path."""
    return source if isinstance(source, Measurement) else read_measurement(source, variant=variant)


def _files_in(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InputError(shown(folder), "is a folder without files")
    return files


def _form_of(files: list[Path]) -> str:
    """Return the one form that all files have."""
    first = _form_of_file(files[0])
    for file in files[1:]:
        form = _form_of_file(file)
        if form != first:
            raise InputError(shown(file), f"must have the form of {files[0].name}, {first}, and is {form}")
    return first


def _form_of_file(file: Path) -> str:
    name = shown(file)
    try:
        head = log_forms.head_of(file)
    except FileNotFoundError:
        raise InputError(name, "there is no such file") from None
    except IsADirectoryError:
        raise InputError(name, "is a folder, and cannot be read beside others") from None
    except (*DAMAGED_ERRORS, ValueError) as error:  # ValueError: a null character in the path
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
        raise InputError(name, f"cannot be read; is it damaged? ({reason})") from None
    if not head.lines:
        raise InputError(name, "is empty")
    forms = log_forms.forms_of(head)
    if len(forms) > 1:
        raise InputError(name, f"could be any of {', '.join(forms)}: is it several files in one?")
    if forms:
        return forms[0]
    if head.text.startswith("PAR1"):
        return log_forms.REQUESTS_TABLE
    if "\0" in head.text:
        raise InputError(name, f"is neither text nor compressed text{_gob(head.text)}")
    what = f"is none of these: {_KNOWN}; an access log in another format needs its log_format (--log-format)"
    what += ", and a table of times alone is a trace for a scenario's traffic"
    raise InputError(name, what, head.lines[0][:80])


def _gob(text: str) -> str:
    """Return what to do with what `vegeta attack` writes: Go's gob, which names its type at the beginning."""
    is_vegeta = "Result" in text[:200] and "Attack" in text[:200]
    return "; `vegeta encode --to json` makes lines of vegeta's results" if is_vegeta else ""
