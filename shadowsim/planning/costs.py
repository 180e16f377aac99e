"""What a shadow test costs: instances for as long as they are deployed, and the data that passes.

SageMaker bills the instances of both variants by the hour, whatever share is copied, and data in and out of the
endpoint by the GB. Prices of instances are those of the catalogue (instances.py), each an example with a date, or the
caller's. An unknown price stays unknown, a NaN with a sentence, and never counts as zero.

The test lasts as long as its Schedule, or SageMaker's 7 days. Requests are the traffic's mean rate over the simulated
horizon, for that long. A GB is 10^9 bytes.
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
from shadowsim.frames import ROLES
from shadowsim.json_files import path_of, read_json
from shadowsim.scenario.fields import number
from shadowsim.scenario.laws import Law
from shadowsim.scenario.scenario import Scenario

GB = 1e9
DATA_USD_PER_GB, DATA_AS_OF = 0.016, "2023-12"  # in and out alike; from a bill of eu-west-1
# A line of a capture file without its payloads, as SageMaker writes it for JSON.
ENVELOPE_BYTES = 349
BASE64 = 4 / 3
PriceSource = Mapping[str, float] | str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Price:
    """The price of an hour of an instance type.

    Attributes
    ----------
    usd_per_h : float
        NaN when it is not known.
    origin : str
        Where it comes from: "an example of 2025-01", "given by prices.csv".
    """

    usd_per_h: float
    origin: str


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of instances: those given, and the catalogue's for the rest. Made by `read_prices`."""

    given: Mapping[str, Price] = field(default_factory=dict)

    def of(self, instance_type: str) -> Price:
        """Return the price of a type, which may be unknown."""
        if instance_type in self.given:
            return self.given[instance_type]
        known = lookup(instance_type)
        if known.price_usd_per_h is None:
            return Price(math.nan, f"there is no price for {instance_type}")
        return Price(known.price_usd_per_h, f"an example of {known.price_as_of}")

    def quoted(self, instance_type: str) -> tuple[float, str]:
        """Return the price of a type and its origin, as `instances.describe` takes them."""
        price = self.of(instance_type)
        return price.usd_per_h, price.origin


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """What a test costs; `str()` gives it as lines of text.

    Attributes
    ----------
    items : DataFrame
        A row an item: item, of (what it is, in words), quantity, unit, price_usd (of a unit), cost_usd, note. NaN where
        it is not known.
    duration_s : float
        How long the test runs.
    """

    items: pd.DataFrame
    duration_s: float

    @property
    def instances_usd(self) -> float:
        """The instances of both variants, NaN when a price is not known."""
        return self._sum("instance-hours")

    @property
    def data_usd(self) -> float:
        """Data in and out of the endpoint, NaN when the sizes of payloads are not known."""
        return self._sum("GB processed")

    @property
    def total_usd(self) -> float:
        """What SageMaker charges: instances and data. Captures are S3's to charge."""
        return self.instances_usd + self.data_usd

    def _sum(self, unit: str) -> float:
        return float(self.items.loc[self.items["unit"] == unit, "cost_usd"].sum(skipna=False))

    def __str__(self) -> str:
        lines = [f"{duration_text(self.duration_s)} of the test cost"]
        for row in self.items.itertuples():
            quantity, usd = float(row.quantity), float(row.cost_usd)  # type: ignore[arg-type]
            amount = "unknown" if math.isnan(quantity) else f"{quantity:,.1f}"
            lines.append(f"  {row.item:<17}{_usd(usd):>16}   {amount} {row.unit}: {row.of}; {row.note}")
        lines.append(f"  {'instances in all':<17}{_usd(self.instances_usd):>16}")
        lines.append(f"  {'with data':<17}{_usd(self.total_usd):>16}")
        return "\n".join(lines)


def cost(
    scenario: Scenario | Mapping[str, object] | str | os.PathLike[str],
    prices: PriceSource | Prices = None,
    *,
    rate_per_s: float | None = None,
    data_usd_per_gb: float | None = None,
) -> Cost:
    """Return what a scenario's test costs.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    prices : mapping of str to float, path or Prices, optional
        US dollars an hour by instance type, in place of the catalogue's; see `read_prices`.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests a second.
    data_usd_per_gb : float, optional
        Price of data in and out of the endpoint; by default an example, dated.

    Raises
    ------
    InputError, ValidationError
        When the scenario or the prices cannot be used.
    """
    whole, known = Scenario.of(scenario, rate_per_s=rate_per_s), read_prices(prices)
    duration_s = whole.experiment.duration_s
    rows = [_instances(whole, role, duration_s / 3600.0, known) for role in ROLES]
    rate = whole.traffic.mean_rate(whole.horizon_s, whole.start)
    sizes = [_mean_bytes(whole, law) for law in (whole.traffic.request_bytes, whole.traffic.response_bytes)]
    if data_usd_per_gb is None:
        price, origin = DATA_USD_PER_GB, f"an example of {DATA_AS_OF}"
    else:
        price, origin = number(data_usd_per_gb, "data_usd_per_gb", least=0.0), "as given"
    n = rate * duration_s
    for item, key, size in zip(("data in", "data out"), ("request_bytes", "response_bytes"), sizes, strict=True):
        of, note = f"{n:,.0f} requests of {size:,.0f} B", f"{price:g} USD a GB, {origin}"
        if math.isnan(size):
            of, note = f"{n:,.0f} requests of unknown size", f"traffic.{key} is not given"
        rows.append(_row(item, of, n * size / GB, "GB processed", price, note))
    rows.append(_capture(whole, n, sizes))
    return Cost(pd.DataFrame(rows), duration_s)


def read_prices(source: PriceSource | Prices) -> Prices:
    """Read prices of instance types, in US dollars an hour.

    Parameters
    ----------
    source : mapping of str to float, path or Prices
        By type; or a file: JSON with such an object (its name ends in .json), or CSV with the columns `instance_type`
        and `price_usd_per_h` and perhaps `as_of`, a date. Other columns are left alone, and a blank price leaves the
        catalogue's.

    Raises
    ------
    InputError
        For a file that is none of these, an unknown type, one that stands twice, or a price that is no number >= 0.
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
    return Prices(_table(file))


def _table(file: Path) -> dict[str, Price]:
    try:
        # As spreadsheets write it: a byte order mark may come first.
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
    found: dict[str, Price] = {}
    for row in reader:
        where, kind = f"{file}, line {reader.line_num}", (row["instance_type"] or "").strip()
        text = (row["price_usd_per_h"] or "").strip()
        if kind in found:
            raise InputError(where, "must not give an instance type twice", kind)
        try:
            value: object = float(text) if text else math.nan
        except ValueError:
            value = text
        price = _price(kind, 0.0 if not text else value, where, f"of {row.get('as_of') or file.name}")
        if text:
            found[kind] = price
    return found


def _price(kind: str, usd: object, where: str, origin: str) -> Price:
    try:
        lookup(kind)
    except InputError as error:
        raise InputError(where, error.constraint) from None
    return Price(number(usd, f"{where}: {kind}", least=0.0), origin)


def _row(item: str, of: str, quantity: float, unit: str, price: float, note: str) -> dict[str, object]:
    # Nothing costs nothing, whatever its price.
    total = 0.0 if quantity == 0.0 else quantity * price
    return {
        "item": item,
        "of": of,
        "quantity": quantity,
        "unit": unit,
        "price_usd": price,
        "cost_usd": total,
        "note": note,
    }


def _instances(scenario: Scenario, role: str, hours: float, prices: Prices) -> dict[str, object]:
    pool = scenario.side(role).variant.pool
    price = prices.of(pool.instance_type)
    note = price.origin if math.isnan(price.usd_per_h) else f"{price.usd_per_h:g} USD an hour, {price.origin}"
    of = f"{pool.instance_count} x {pool.instance_type}"
    return _row(f"{role} instances", of, pool.instance_count * hours, "instance-hours", price.usd_per_h, note)


def _capture(scenario: Scenario, n: float, sizes: Iterable[float]) -> dict[str, object]:
    storage = scenario.experiment.storage
    if storage is None:
        return _row("capture", "nothing is captured", 0.0, "GB in S3", math.nan, "no DataStorageConfig")
    records = n * (1.0 + scenario.share)
    payload = sum(sizes)
    if math.isnan(payload):
        of = f"{records:,.0f} records of unknown size"
        return _row("capture", of, math.nan, "GB in S3", math.nan, "traffic.request_bytes or response_bytes missing")
    factor = _encoding(storage)
    size = payload * factor + ENVELOPE_BYTES
    text = "in base64" if factor > 1.0 else "as text; what is of no listed content type grows by a third in base64"
    of = f"{records:,.0f} records of about {size:,.0f} B"
    return _row("capture", of, records * size / GB, "GB in S3", math.nan, f"{text}; S3 charges for it")


def _encoding(storage: DataStorage) -> float:
    """Return how much a payload grows: base64 without a list of content types (CaptureContentTypeHeader)."""
    return 1.0 if storage.csv_content_types or storage.json_content_types else BASE64


def _mean_bytes(scenario: Scenario, law: Law | None) -> float:
    """Return the mean size of a body, NaN when it is not given."""
    if law is None:
        return math.nan
    return float(law.values(scenario.traffic.trace().columns).mean()) if law.kind == "linear" else law.mean


def _usd(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:,.2f} USD"
