"""Computes the cost of a shadow test: instances while they are deployed, and data in and out.

SageMaker bills the instances of both variants by the hour, whatever share is copied, and data in and out of the
endpoint by the GB. A variant that scales is charged for the mean number of instances that existed in a run, also while
they started, drained or were down; without a run it is charged for its InstanceCount, and the item gives the range of
its min and max. Prices of instances
are the caller's or those of the catalogue (aws/instances.py), each of which is an example with a date. An unknown price
stays unknown, a NaN with a sentence, and never counts as zero.

The test lasts as long as its Schedule, or SageMaker's default of 7 days. The number of requests is the traffic's mean
rate over the simulated horizon times that length, and the copies are the share of it; callers' retries add those of a
run. A GB is 10^9 bytes.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from shadowsim.aws.experiment import DataStorage
from shadowsim.aws.instances import duration_text, lookup
from shadowsim.errors import InputError
from shadowsim.frames import ROLES, billed_instances
from shadowsim.json_files import path_of, read_json
from shadowsim.quantities import number
from shadowsim.result import Result
from shadowsim.scenario.laws import Law
from shadowsim.scenario.scenario import Scenario

GB = 1e9
DATA_USD_PER_GB, DATA_AS_OF = 0.016, "2023-12"  # for either direction; from a bill of eu-west-1
ENVELOPE_BYTES = 349  # of a capture file's line without its payloads, as SageMaker writes it for JSON
BASE64 = 4 / 3  # the growth of a payload
PriceSource = Mapping[str, float] | str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Price:
    """The price of an hour of an instance type.

    Attributes
    ----------
    usd_per_h : float
        NaN when it is not known.
    origin : str
        Its source in words: "an example of 2025-01", "of prices.csv".
    """

    usd_per_h: float
    origin: str


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of instance types: the caller's, and the catalogue's for all others. Made by `read_prices`."""

    by_type: Mapping[str, Price] = field(default_factory=dict)

    def of(self, instance_type: str) -> Price:
        """Return the price of a type, which may be unknown."""
        if instance_type in self.by_type:
            return self.by_type[instance_type]
        listed = lookup(instance_type)
        if listed.price_usd_per_h is None:
            return Price(math.nan, f"there is no price for {instance_type}")
        return Price(listed.price_usd_per_h, f"an example of {listed.price_as_of}")

    def quoted(self, instance_type: str) -> tuple[float, str]:
        """Return the price of a type and its origin, as `instances.describe` takes them."""
        price = self.of(instance_type)
        return price.usd_per_h, price.origin


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """The cost of a test; `str()` gives it as lines of text.

    Attributes
    ----------
    items : DataFrame
        One row per item: item, of (its quantity in words), quantity, unit, price_usd (per unit), cost_usd, note. NaN
        where it is not known.
    duration_s : float
        Length of the test.
    """

    items: pd.DataFrame
    duration_s: float

    @property
    def instances_usd(self) -> float:
        """Cost of the instances of both variants, NaN when a price is not known."""
        return self._sum("instance-hours")

    @property
    def data_usd(self) -> float:
        """Cost of data in and out of the endpoint, NaN when the sizes of payloads are not known."""
        return self._sum("GB processed")

    @property
    def total_usd(self) -> float:
        """SageMaker's charge for instances and data; S3 charges for captures separately."""
        return self.instances_usd + self.data_usd

    def _sum(self, unit: str) -> float:
        return float(self.items.loc[self.items["unit"] == unit, "cost_usd"].sum(skipna=False))

    def __repr__(self) -> str:
        return f"<Cost of {duration_text(self.duration_s)}: {_usd(self.instances_usd)} for instances>"

    def __str__(self) -> str:
        lines = [f"Cost of the test for {duration_text(self.duration_s)}"]
        for row in self.items.itertuples():
            quantity, usd = float(row.quantity), float(row.cost_usd)  # type: ignore[arg-type]
            amount = "unknown" if math.isnan(quantity) else f"{quantity:,.1f}"
            lines.append(f"  {row.item:<17}{_usd(usd):>16}   {amount} {row.unit}: {row.of}; {row.note}")
        lines.append(f"  {'instances in all':<17}{_usd(self.instances_usd):>16}")
        lines.append(f"  {'with data':<17}{_usd(self.total_usd):>16}")
        return "\n".join(lines)


def cost(
    scenario: Scenario | Result | Mapping[str, object] | str | os.PathLike[str],
    prices: PriceSource | Prices = None,
    *,
    rate_per_s: float | None = None,
    data_usd_per_gb: float | None = None,
) -> Cost:
    """Compute the cost of a scenario's test.

    Parameters
    ----------
    scenario : Scenario, Result, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`. Or a run: it tells how many
        instances a variant that scales had, and how many attempts callers made.
    prices : mapping of str to float, path or Prices, optional
        US dollars per hour by instance type, in place of the catalogue's; see `read_prices`.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests per second.
    data_usd_per_gb : float, optional
        Price of data in and out of the endpoint; by default an example, dated.

    Raises
    ------
    InputError, ValidationError
        When the scenario or the prices cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> test = ss.cost(ss.default_scenario().replace({"horizon_s": "1h"}), {"ml.m5.xlarge": 0.25})
    >>> test.instances_usd  # six instances for the seven days of a Schedule that is left out
    252.0
    """
    run = scenario if isinstance(scenario, Result) else None
    given = scenario.scenario if isinstance(scenario, Result) else scenario
    priced, price_list = Scenario.of(given, rate_per_s=rate_per_s), read_prices(prices)
    duration_s = priced.experiment.duration_s
    rows = [_instances(priced, role, duration_s / 3600.0, price_list, run) for role in ROLES]
    rate = priced.traffic.mean_rate(priced.horizon_s, priced.start)
    if run is not None and priced.traffic.retries is not None:
        rate = float(run.windows.loc[run.windows["role"] == "source", "Invocations"].sum()) / priced.horizon_s
    sizes = [_mean_bytes(priced, law) for law in (priced.traffic.request_bytes, priced.traffic.response_bytes)]
    if data_usd_per_gb is None:
        price, origin = DATA_USD_PER_GB, f"an example of {DATA_AS_OF}"
    else:
        price, origin = number(data_usd_per_gb, "data_usd_per_gb", least=0.0), "as given"
    n = rate * duration_s
    for item, key, size in zip(("data in", "data out"), ("request_bytes", "response_bytes"), sizes, strict=True):
        description, note = f"{n:,.0f} requests of {size:,.0f} B", f"{price:g} USD per GB, {origin}"
        if math.isnan(size):
            description, note = f"{n:,.0f} requests of unknown size", f"traffic.{key} is not given"
        rows.append(_item(item, description, n * size / GB, "GB processed", price, note))
    rows.append(_capture(priced, n, sizes))
    return Cost(pd.DataFrame(rows), duration_s)


def read_prices(source: PriceSource | Prices) -> Prices:
    """Read prices of instance types, in US dollars per hour.

    Parameters
    ----------
    source : mapping of str to float, path or Prices
        Prices by type; or a file: JSON with such an object (its name ends in .json), or CSV with the columns
        `instance_type` and `price_usd_per_h` and perhaps `as_of`, a date. Other columns are ignored; for a blank price
        the catalogue's is used.

    Raises
    ------
    InputError
        When a file is neither of these, a type is unknown or given twice, or a price is not a number >= 0.
    """
    if isinstance(source, Prices):
        return source
    if source is None:
        return Prices()
    if isinstance(source, Mapping):
        return Prices({kind: _price(kind, usd, "prices", "as given") for kind, usd in source.items()})
    file = path_of(source, "prices")
    if file.suffix.lower() == ".json":
        return Prices({kind: _price(kind, usd, f"{file}", f"of {file.name}") for kind, usd in read_json(file).items()})
    return Prices(_read_csv(file))


def _read_csv(file: Path) -> dict[str, Price]:
    try:
        # Spreadsheets write a byte order mark first.
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null character in the path
        raise InputError(str(file), f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    reader = csv.DictReader(lines, skipinitialspace=True)
    missing = [name for name in ("instance_type", "price_usd_per_h") if name not in (reader.fieldnames or [])]
    if missing:
        has = ", ".join(reader.fieldnames or ["none"])
        raise InputError(
            str(file), f"lacks the column {missing[0]}; needed are instance_type and price_usd_per_h, and it has {has}"
        )
    prices: dict[str, Price] = {}
    for row in reader:
        where, kind = f"{file}, line {reader.line_num}", (row["instance_type"] or "").strip()
        text = (row["price_usd_per_h"] or "").strip()
        if kind in prices:
            raise InputError(where, "must not give an instance type twice", kind)
        try:
            value: object = float(text) if text else math.nan
        except ValueError:
            value = text
        price = _price(kind, 0.0 if not text else value, where, f"of {row.get('as_of') or file.name}")
        if text:
            prices[kind] = price
    return prices


def _price(kind: str, usd: object, where: str, origin: str) -> Price:
    try:
        lookup(kind)
    except InputError as error:
        raise InputError(where, error.constraint) from None
    return Price(number(usd, f"{where}: {kind}", least=0.0), origin)


def _item(item: str, description: str, quantity: float, unit: str, price: float, note: str) -> dict[str, object]:
    # Nothing costs nothing, even at an unknown price.
    total = 0.0 if quantity == 0.0 else quantity * price
    return {
        "item": item,
        "of": description,
        "quantity": quantity,
        "unit": unit,
        "price_usd": price,
        "cost_usd": total,
        "note": note,
    }


def _instances(scenario: Scenario, role: str, hours: float, prices: Prices, run: Result | None) -> dict[str, object]:
    side = scenario.side(role)
    pool, scaling, n = side.variant.pool, side.service.scaling, float(side.n_instances)
    price = prices.of(pool.instance_type)
    note = price.origin if math.isnan(price.usd_per_h) else f"{price.usd_per_h:g} USD per hour, {price.origin}"
    description = f"{pool.instance_count} x {pool.instance_type}"
    if scaling is not None and run is not None:
        n = billed_instances(run.windows[run.windows["role"] == role], scenario.horizon_s)
        description = f"{n:.2f} x {pool.instance_type} in the mean of the run"
    elif scaling is not None:
        ends = " to ".join(f"{count * hours:,.1f}" for count in (scaling.least, scaling.most))
        note += f"; it scales from {scaling.least} to {scaling.most}, {ends} instance-hours: a run tells the mean"
    return _item(f"{role} instances", description, n * hours, "instance-hours", price.usd_per_h, note)


def _capture(scenario: Scenario, n: float, sizes: Iterable[float]) -> dict[str, object]:
    storage = scenario.experiment.storage
    if storage is None:
        return _item("capture", "nothing is captured", 0.0, "GB in S3", math.nan, "no DataStorageConfig")
    records = n * (1.0 + scenario.share)
    payload = sum(sizes)
    if math.isnan(payload):
        description, note = f"{records:,.0f} records of unknown size", "traffic.request_bytes or response_bytes missing"
        return _item("capture", description, math.nan, "GB in S3", math.nan, note)
    factor = _encoding(storage)
    size = payload * factor + ENVELOPE_BYTES
    coding = "in base64" if factor > 1.0 else "as text; content types that are not listed grow by a third in base64"
    description = f"{records:,.0f} records of about {size:,.0f} B"
    return _item("capture", description, records * size / GB, "GB in S3", math.nan, f"{coding}; S3 charges for it")


def _encoding(storage: DataStorage) -> float:
    """Return the growth of a payload: by base64, unless content types are listed (CaptureContentTypeHeader)."""
    return 1.0 if storage.csv_content_types or storage.json_content_types else BASE64


def _mean_bytes(scenario: Scenario, law: Law | None) -> float:
    """Return the mean size of a body, NaN when it is not given."""
    if law is None:
        return math.nan
    return float(law.values(scenario.traffic.trace().columns).mean()) if law.kind == "linear" else law.mean


def _usd(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:,.2f} USD"
