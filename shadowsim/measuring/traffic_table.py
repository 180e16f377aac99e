"""Makes of a measurement the table that a scenario replays as a trace.

Of requests it has the arrivals in seconds, `arrival_s`, and beside them the sizes that a service may need: tokens and
bytes. Where only counts of periods are known it has a row a period, with the time and `Invocations`: a scenario spreads
them within the period, as `traffic.within` says.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shadowsim.errors import InputError
from shadowsim.measuring.measurement import Measurement

SIZES = ("prompt_tokens", "output_tokens", "request_bytes", "response_bytes")
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def traffic_table(measurement: Measurement) -> pd.DataFrame:
    """Return a table for `traffic` with process trace.

    Raises
    ------
    InputError
        Neither requests nor counts of more than one period are known.

    Examples
    --------
    >>> import pandas as pd, shadowsim as ss
    >>> pd.DataFrame({"arrival_s": [0.0, 0.5], "latency_s": [0.02, 0.03]}).to_csv("log.csv", index=False)
    >>> ss.traffic_table(ss.read_measurement("log.csv")).columns.tolist()
    ['arrival_s']
    """
    if measurement.requests is not None:
        columns = ["arrival_s", *(name for name in SIZES if name in measurement.requests.columns)]
        return measurement.requests[columns].reset_index(drop=True)
    windows = measurement.windows
    if windows is None or "Invocations" not in windows.columns or len(windows) < 2:
        what = "has no single requests and no counts of periods, so that it makes no trace"
        rate = measurement.rate_per_s
        hint = f"; its mean rate is {rate:.6g} per second: traffic of process poisson" if rate else ""
        raise InputError(measurement.form, f"{what}{hint}")
    counted = windows.loc[windows["Invocations"].notna(), ["time_s", "Invocations"]]
    table = counted.rename(columns={"time_s": "arrival_s"}).astype({"Invocations": "int64"})
    return table.reset_index(drop=True)


def write_trace(measurement: Measurement, file: Path) -> int:
    """Write the table of a measurement as CSV (also .csv.gz) or Parquet, and return the number of its rows."""
    if not file.name.endswith(SUFFIXES):
        raise InputError(str(file), f"must end in {', '.join(SUFFIXES)}")
    table = traffic_table(measurement)
    if file.suffix == ".parquet":
        table.to_parquet(file, index=False)
    else:
        table.to_csv(file, index=False, lineterminator="\n", float_format="%.9f")
    return len(table)
