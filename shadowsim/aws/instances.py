"""Looks up instance types, prices and default quotas, and describes an experiment with its cost.

The catalogue is instances.csv in this folder: specifications are EC2's; prices are dated examples, for the types with a
citable source. A blank is unknown, never zero and never guessed. The columns `source` and `as_of` say where each figure
comes from, and when. botocore decides which types exist; a type that the catalogue lacks has unknown figures.

The quotas are the first limits that a new account meets: instances per endpoint, and instances per type. They are the
defaults of Service Quotas in us-east-1, as `list_aws_default_service_quotas` returned them on 10 February 2024
(gruntwork-io/terraform-aws-utilities, docs/quotas.md); an account's own may be higher. No quota counts experiments: a
shadow test is refused for the instances that it adds. "Number of instances across active endpoints" (L-7A3DF611) is 4
as well, but it counts an account's other endpoints, which are not known here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from shadowsim.aws.contract import instance_types
from shadowsim.aws.experiment import DataStorage, Experiment, Variant, iso_time
from shadowsim.errors import InputError, did_you_mean, shown

QUOTA_PER_ENDPOINT = 4  # "Maximum number of instances per endpoint", L-ED8DEE9B
_QUOTA_BY_TYPE = {"ml.t2.medium": 2, "ml.m6g.large": 2, "ml.m6g.xlarge": 1}  # "<type> for endpoint usage"; else 0


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One ml.* type; None where a figure is unknown.

    Attributes
    ----------
    name : str
        Such as "ml.g5.12xlarge".
    vcpus : int or None
    memory_gib : float or None
        The instance's memory.
    accelerator : str or None
        The accelerators' model; None also when there are none.
    accelerator_count : int or None
        0 when there are none.
    accelerator_memory_gib : float or None
        The memory of all accelerators together, as EC2 reports it.
    price_usd_per_h : float or None
        An example of the on-demand price of hosting.
    source, as_of : str
        The origin of the figures, and their dates.
    """

    name: str
    vcpus: int | None = None
    memory_gib: float | None = None
    accelerator: str | None = None
    accelerator_count: int | None = None
    accelerator_memory_gib: float | None = None
    price_usd_per_h: float | None = None
    source: str = ""
    as_of: str = ""

    @property
    def workers(self) -> int | None:
        """The default number of requests served at once: the accelerators if there are any, else the vCPUs."""
        return self.accelerator_count or self.vcpus

    @property
    def price_as_of(self) -> str | None:
        """The date of the price, as its source gives it."""
        return self.as_of.partition("price ")[2] or None


@cache
def catalogue() -> Mapping[str, InstanceType]:
    """Return the catalogue by name, in the order of its file."""
    lines = files("shadowsim.aws").joinpath("instances.csv").read_text("utf-8").splitlines()
    types = [_instance_type(row) for row in csv.DictReader(lines)]
    return MappingProxyType({t.name: t for t in types})


def lookup(name: str) -> InstanceType:
    """Return an instance type by its name, such as "ml.m5.xlarge".

    Raises
    ------
    InputError
        Neither the catalogue nor botocore knows the type; the message names the nearest one.
    """
    if not isinstance(name, str):
        raise InputError("instance_type", "must be a name such as ml.m5.xlarge", name)
    listed = catalogue().get(name)
    if listed is not None:
        return listed
    known = _known_types()
    if name not in known:
        with_prefix = [k for k in known if k.endswith(name)]  # ml.m5.xlarge for m5.xlarge
        near = did_you_mean(name, with_prefix or known)
        raise InputError("instance_type", f"{shown(name)} is not a SageMaker hosting type{near}")
    return known[name]


def matching_types(pattern: str) -> list[InstanceType]:
    """Return the types whose name matches a pattern, by family and then by size.

    Parameters
    ----------
    pattern : str
        A shell pattern such as "ml.g5*" or "ml.*.xlarge"; upper and lower case are the same.

    Raises
    ------
    InputError
        Nothing matches; the message names the nearest family.
    """
    wanted = pattern.lower()
    types = [t for name, t in _known_types().items() if fnmatchcase(name, wanted)]
    if not types:
        families = {f"{name.rpartition('.')[0]}.*" for name in _known_types()}
        family = wanted.removeprefix("ml.").partition(".")[0].rstrip("*?")
        near = did_you_mean(f"ml.{family}.*", families)
        raise InputError("pattern", "must match a SageMaker hosting type", pattern, hint=near)
    return sorted(types, key=_family_and_size)


def experiment_text(experiment: Experiment, price_of: Callable[[str], tuple[float, str]] | None = None) -> str:
    """Return an experiment and its cost over its Schedule as text: one line per item, a label and a value.

    Parameters
    ----------
    experiment : Experiment
    price_of : callable, optional
        Returns an instance type's price in US dollars per hour (NaN when unknown) and the price's origin; by default
        the catalogue's.
    """
    e = experiment
    rows = [
        ("experiment", f"{e.name} ({e.type})"),
        ("description", e.description),
        ("endpoint", e.endpoint_name),
        ("source", _variant_text(e.source)),
        ("shadow", _variant_text(e.shadow)),
        ("share", f"{e.sampling_percentage} % of the source's requests are copied to the shadow"),
        ("schedule", _schedule_text(e)),
        ("storage", _storage_text(e.storage)),
        ("role", e.role_arn),
        ("KMS key", e.kms_key),
        ("tags", ", ".join(f"{key}={value}" for key, value in e.tags)),
        *_cost_rows(e, price_of or _catalogue_price),
    ]
    return "\n".join(f"{label:<16}{shown(text)}" for label, text in rows if text)


def duration_text(duration_s: float) -> str:
    """Return a duration in words: "7 days", "1 day 2 h 30 min"."""
    minutes, seconds = divmod(round(duration_s), 60)
    days, minutes = divmod(minutes, 24 * 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(days, "day" if days == 1 else "days"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def _instance_type(row: dict[str, str]) -> InstanceType:
    return InstanceType(
        name=row["instance_type"],
        vcpus=int(row["vcpus"]),
        memory_gib=float(row["memory_gib"]),
        accelerator=row["accelerator"] or None,
        accelerator_count=int(row["accelerator_count"] or 0),
        accelerator_memory_gib=_float(row["accelerator_memory_gib"]),
        price_usd_per_h=_float(row["price_usd_per_h"]),
        source=row["source"],
        as_of=row["as_of"],
    )


def _float(text: str) -> float | None:
    return float(text) if text else None


def _known_types() -> dict[str, InstanceType]:
    unknown = {name: InstanceType(name) for name in instance_types()}
    return unknown | dict(catalogue())


def _family_and_size(t: InstanceType) -> tuple[list[tuple[int, str]], float, str]:
    family, _, size = t.name.rpartition(".")
    # Compared in runs of letters and digits, so that a tenth generation follows the ninth.
    spaced = "".join(c if c.isdigit() else f" {c} " for c in family)
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in spaced.split()]
    named = {"medium": 0.25, "large": 0.5, "xlarge": 1.0}
    times = size.removesuffix("xlarge")
    return parts, float(times) if times.isdigit() else named.get(size, float("inf")), size


def _variant_text(variant: Variant) -> str:
    pool = variant.pool
    return f"{variant.name}: model {variant.model_name} on {pool.instance_count} x {pool.instance_type}"


def _schedule_text(experiment: Experiment) -> str:
    start, end = experiment.schedule.start, experiment.schedule.end
    begin = f"from {iso_time(start)}" if start else "from its creation"
    if end is None:
        return f"{begin}, for SageMaker's default of 7 days"
    counted = "" if start else ", counted from now"
    return f"{begin} to {iso_time(end)}: {duration_text(experiment.duration_s)}{counted}"


def _storage_text(storage: DataStorage | None) -> str:
    if storage is None:
        return "none: requests and answers are not captured"
    kinds = (("CSV", storage.csv_content_types), ("JSON", storage.json_content_types))
    listed = [f"{kind}: {', '.join(types)}" for kind, types in kinds if types]
    return "; ".join([storage.destination, *listed, "all else in base64" if listed else "all in base64"])


def _catalogue_price(instance_type: str) -> tuple[float, str]:
    listed = lookup(instance_type)
    price = math.nan if listed.price_usd_per_h is None else listed.price_usd_per_h
    return price, f"an example of {listed.price_as_of}"


def _cost_rows(experiment: Experiment, price_of: Callable[[str], tuple[float, str]]) -> list[tuple[str, str]]:
    hours: list[float] = []
    costs: list[float] = []
    rows: list[tuple[str, str]] = []
    for role, variant in (("source", experiment.source), ("shadow", experiment.shadow)):
        instance_type = variant.pool.instance_type
        price, origin = price_of(instance_type)
        hours.append(variant.pool.instance_count * experiment.duration_s / 3600)
        if math.isnan(price):
            rows.append((f"cost of {role}", f"unknown: there is no price for {instance_type}"))
        else:
            costs.append(hours[-1] * price)
            rows.append((f"cost of {role}", f"{costs[-1]:,.2f} USD at {price:g} USD per hour, {origin}"))
    instance_hours = f"{hours[0]:,.1f} source + {hours[1]:,.1f} shadow = {sum(hours):,.1f}"
    total = f"{sum(costs):,.2f} USD for the instances alone" if len(costs) == len(rows) else "unknown"
    return [("instance-hours", instance_hours), *rows, ("total cost", total)]


def default_quota(instance_type: str) -> int:
    """Return the number of instances of a type that a new account may have behind endpoints."""
    return _QUOTA_BY_TYPE.get(instance_type, 0)


def quota_note(needed: Mapping[str, int]) -> str:
    """Return the default quotas that an endpoint exceeds: "needs 6 x ml.m5.xlarge; default quota 0", "" for none.

    Parameters
    ----------
    needed : mapping of str to int
        Instances by type, of both variants together.
    """
    notes = [
        f"needs {n} x {instance_type}; default quota {default_quota(instance_type)}"
        for instance_type, n in needed.items()
        if n > default_quota(instance_type)
    ]
    total = sum(needed.values())
    if total > QUOTA_PER_ENDPOINT:
        notes.append(f"needs {total} instances on one endpoint; default quota {QUOTA_PER_ENDPOINT}")
    return "; ".join(notes)
