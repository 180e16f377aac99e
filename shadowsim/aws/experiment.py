"""Reads a valid CreateInferenceExperiment request into a frozen `Experiment`.

A request that passes its shape (contract.py) can still be one that SageMaker refuses, or one without a meaning. This
module checks the rules across fields; each has its own sentence.

The Schedule is kept as given. `window` fills in missing times from SageMaker's defaults and from `read_at`, the time
at which the request was read. `read_at` takes no part in equality: the same request, read tomorrow, is equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from shadowsim.aws.contract import as_time, sentence, violations
from shadowsim.aws.destinations import parse_destination
from shadowsim.aws.request_sources import request_source
from shadowsim.documents import read_document, refuse_doubtful
from shadowsim.errors import ValidationError, shown

# Limits from the developer guide; the service model has them in prose only.
SHORTEST = timedelta(hours=1)
LONGEST = timedelta(days=30)
DEFAULT_DURATION = timedelta(days=7)
LEAST_INSTANCES = 1  # of a variant: the model allows 0, but each variant is deployed


@dataclass(frozen=True, slots=True)
class InstancePool:
    """The instances behind one variant.

    Attributes
    ----------
    instance_type : str
        Such as "ml.m5.xlarge".
    instance_count : int
        At least 1.
    """

    instance_type: str
    instance_count: int


@dataclass(frozen=True, slots=True)
class Variant:
    """A model on its instances, with the name that metrics carry."""

    name: str
    model_name: str
    pool: InstancePool


@dataclass(frozen=True, slots=True)
class Schedule:
    """The experiment's start and end, as the request gives them.

    Attributes
    ----------
    start, end : datetime or None
        In UTC; None where the request gives none.
    """

    start: datetime | None = None
    end: datetime | None = None

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """Return start and end as given; by default the start is `now` and the end 7 days after the start."""
        start = self.start or now
        return start, self.end or start + DEFAULT_DURATION


@dataclass(frozen=True, slots=True)
class DataStorage:
    """Storage of captured requests and answers.

    Attributes
    ----------
    destination : str
        An S3 URI.
    kms_key : str or None
        The key that encrypts them.
    csv_content_types, json_content_types : tuple of str
        Content types stored as CSV and as JSON; all others are stored in base64.
    """

    destination: str
    kms_key: str | None = None
    csv_content_types: tuple[str, ...] = ()
    json_content_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A valid CreateInferenceExperiment request.

    Attributes
    ----------
    source, shadow : Variant
        The variant that answers the callers, and the one that receives copies.
    sampling_percentage : int
        The share of the source's requests that is copied, 0..100.
    schedule : Schedule
        As given; `schedule.start` is None when the request has no StartTime.
    tags : tuple of (str, str)
        Keys and values, in the request's order.
    read_at : datetime
        The time at which the request was read (UTC), the start of an experiment without StartTime. Not compared.

    Examples
    --------
    >>> import shadowsim as ss
    >>> request = ss.default_scenario().to_dict()["experiment"]
    >>> experiment = ss.Experiment.from_request(request)
    >>> experiment.source.pool.instance_type, experiment.sampling_percentage
    ('ml.m5.xlarge', 50)
    """

    name: str
    type: str
    role_arn: str
    endpoint_name: str
    source: Variant
    shadow: Variant
    sampling_percentage: int
    schedule: Schedule = Schedule()
    storage: DataStorage | None = None
    description: str | None = None
    kms_key: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    read_at: datetime = field(compare=False, repr=False)

    @classmethod
    def from_request(
        cls,
        request: object,
        now: datetime | None = None,
        *,
        refuse_past: bool = False,
        resource: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Experiment:
        """Return the experiment that a request describes.

        Parameters
        ----------
        request : mapping, str, bytes or path
            Keyword arguments for boto3 (times may be datetimes), JSON text, or the path of a file in JSON, YAML or
            TOML; times in files are seconds since 1970 or dates as text. It may also be the answer of
            DescribeInferenceExperiment, an endpoint configuration with a shadow variant, a template or a resource of
            CloudFormation, or a plan of Terraform in JSON (request_sources.py).
        now : datetime, optional
            Start of an experiment without StartTime. The wall clock by default.
        refuse_past : bool
            Whether a Schedule that ends before `now` is a violation, as it is for SageMaker. By default it is not: what
            was valid once can be read again.
        resource : str, optional
            Which resource of a template or a plan is meant, where there are several.
        parameters : mapping of str to object, optional
            Values for what a template or a plan does not know before its deployment.

        Raises
        ------
        ValidationError
            The request breaks its shape or rules across fields; every violation is listed.
        SerializationError
            The text is not a JSON object.
        InputError
            The file cannot be read, or holds another kind of document, such as a CloudFormation template.
        """
        members = request_source(read_document(request), "request", resource, parameters).request
        refuse_doubtful(members)
        read_at = as_time(now if now is not None else datetime.now(UTC))
        if read_at is None:
            raise TypeError(f"now must be a datetime, got {now!r}")
        broken = [*violations("CreateInferenceExperiment", members), *_broken_rules(members, read_at)]
        schedule = _member(members, "Schedule")
        if refuse_past and _member(schedule, "StartTime") is not None:  # an EndTime alone is compared with now anyway
            broken += past_rules(schedule, read_at)
        if broken:
            raise ValidationError(broken)
        return _experiment(members, read_at)

    @property
    def duration_s(self) -> float:
        """The length of the experiment in seconds."""
        start, end = self.window()
        return (end - start).total_seconds()

    def window(self, now: datetime | None = None) -> tuple[datetime, datetime]:
        """Return start and end in UTC; missing times count from `now` (by default `read_at`)."""
        return self.schedule.window(now or self.read_at)

    def to_request(self) -> dict[str, Any]:
        """Return the request as plain JSON with the members that were given; boto3 accepts it.

        Times are ISO 8601 in UTC ("2026-01-31T12:00:00Z"), whatever their form in the request.
        """
        shadow = {"ShadowModelVariantName": self.shadow.name, "SamplingPercentage": self.sampling_percentage}
        return _without_empty(
            Name=self.name,
            Type=self.type,
            Schedule=_without_empty(StartTime=iso_time(self.schedule.start), EndTime=iso_time(self.schedule.end)),
            Description=self.description,
            RoleArn=self.role_arn,
            EndpointName=self.endpoint_name,
            ModelVariants=[_variant_request(self.source), _variant_request(self.shadow)],
            DataStorageConfig=_storage_request(self.storage),
            ShadowModeConfig={"SourceModelVariantName": self.source.name, "ShadowModelVariants": [shadow]},
            KmsKey=self.kms_key,
            Tags=[{"Key": key, "Value": value} for key, value in self.tags],
        )

    def __repr__(self) -> str:
        pair = f"{self.source.name} to {self.shadow.name}"
        return f"<Experiment {self.name}: {self.sampling_percentage} % of {pair}>"

    def _repr_html_(self) -> str:
        from shadowsim import card  # deferred: a card needs modules further down

        return card(self)


def excluded_type(instance_type: object, path: str) -> Iterator[str]:
    """Yield the sentence for an instance type that shadow tests exclude, nothing for any other value."""
    if isinstance(instance_type, str) and instance_type.startswith("ml.inf1."):
        yield sentence(instance_type, path, "Member must not be an Inf1 type, which shadow tests exclude")


def pool_rules(variants: Sequence[Any], path: str) -> Iterator[str]:
    """Yield a sentence for each variant without instances: the model allows 0, but each variant is deployed."""
    for i, variant in enumerate(variants, start=1):
        pool = _member(_member(variant, "InfrastructureConfig"), "RealTimeInferenceConfig")
        count = _member(pool, "InstanceCount")
        if isinstance(count, int) and not isinstance(count, bool) and count == LEAST_INSTANCES - 1:
            constraint = f"Member must have value greater than or equal to {LEAST_INSTANCES}, "
            constraint += "because each variant is deployed"
            at = f"{path}.{i}.member.infrastructureConfig.realTimeInferenceConfig.instanceCount"
            yield sentence(count, at, constraint)


def tag_rules(tags: Sequence[Any]) -> Iterator[str]:
    """Yield a sentence for each tag's key that occurs twice or is reserved for AWS."""
    keys = [_member(tag, "Key") for tag in tags]
    yield from _repeated(keys, "tags.{}.member.key", "Member must be unique among the tags' keys")
    for i, key in enumerate(keys, start=1):
        if isinstance(key, str) and key.lower().startswith("aws:"):
            yield sentence(key, f"tags.{i}.member.key", "Member must not begin with aws:, which is reserved for AWS")


def past_rules(schedule: object, now: datetime) -> Iterator[str]:
    """Yield the sentence for a Schedule that has ended, nothing for any other value."""
    raw = {name: _member(schedule, name) for name in ("StartTime", "EndTime")}
    times = Schedule(*map(as_time, raw.values()))
    name = "StartTime" if raw["EndTime"] is None else "EndTime"
    parsed = times.start, times.end
    if any((time is None) != (value is None) for time, value in zip(parsed, raw.values(), strict=True)):
        return  # an unreadable time is already reported
    try:
        ended = times.window(now)[1] <= now
    except OverflowError:
        return
    if ended:
        clock = iso_time(now.replace(microsecond=0))
        constraint = f"Member must leave the experiment's end later than now, which is {clock}"
        yield sentence(raw[name], f"schedule.{name[0].lower()}{name[1:]}", constraint)


def _broken_rules(request: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """Yield one sentence per broken rule across fields, for the rules whose fields have the right types."""
    variants = _list_member(request, "ModelVariants")
    yield from _name_rules(request, [_member(variant, "VariantName") for variant in variants])
    for i, variant in enumerate(variants, start=1):
        pool = _member(_member(variant, "InfrastructureConfig"), "RealTimeInferenceConfig")
        instance_type = _member(pool, "InstanceType")
        path = f"modelVariants.{i}.member.infrastructureConfig.realTimeInferenceConfig.instanceType"
        yield from excluded_type(instance_type, path)
    yield from pool_rules(variants, "modelVariants")
    yield from _schedule_rules(_member(request, "Schedule"), now)
    yield from _destination_rules(_member(_member(request, "DataStorageConfig"), "Destination"))
    yield from tag_rules(_list_member(request, "Tags"))


def _name_rules(request: Mapping[str, Any], names: Sequence[object]) -> Iterator[str]:
    unique = "Member must be unique among the variants' names"
    yield from _repeated(names, "modelVariants.{}.member.variantName", unique)
    config = _member(request, "ShadowModeConfig")
    source = _member(config, "SourceModelVariantName")
    shadows = [_member(shadow, "ShadowModelVariantName") for shadow in _list_member(config, "ShadowModelVariants")]
    paths = [f"shadowModelVariants.{i}.member.shadowModelVariantName" for i in range(1, len(shadows) + 1)]
    for name, path in zip([source, *shadows], ["sourceModelVariantName", *paths], strict=True):
        # A variant without a usable name might be the one meant; its missing name is already reported.
        known = [n for n in names if isinstance(n, str)]
        if isinstance(name, str) and len(known) == len(names) > 0 and name not in known:
            constraint = f"Member must name exactly one of modelVariants [{', '.join(map(shown, known))}]"
            yield sentence(name, f"shadowModeConfig.{path}", constraint)
    for shadow, path in zip(shadows, paths, strict=True):
        if isinstance(shadow, str) and shadow == source:
            constraint = "Member must differ from sourceModelVariantName"
            yield sentence(shadow, f"shadowModeConfig.{path}", constraint)


def _schedule_rules(schedule: object, now: datetime) -> Iterator[str]:
    raw = _member(schedule, "StartTime"), _member(schedule, "EndTime")
    times = Schedule(*map(as_time, raw))
    if (times.start is None) != (raw[0] is None) or (times.end is None) != (raw[1] is None):
        return  # an unreadable time is already reported
    try:
        start, end = times.window(now)
    except OverflowError:
        yield sentence(raw[0], "schedule.startTime", "Member must leave 7 days before the calendar ends")
        return
    origin = "startTime" if times.start else f"the start, which without startTime is now ({iso_time(now)})"
    if end <= start:
        yield sentence(raw[1], "schedule.endTime", f"Member must be later than {origin}")
    elif end - start < SHORTEST:
        yield sentence(raw[1], "schedule.endTime", f"Member must be at least 1 hour later than {origin}")
    elif end - start > LONGEST:
        yield sentence(raw[1], "schedule.endTime", f"Member must be at most 30 days later than {origin}")


def _destination_rules(destination: object) -> Iterator[str]:
    path = "dataStorageConfig.destination"
    # One that breaks its shape is already reported.
    if isinstance(destination, str) and not violations("DestinationS3Uri", destination):
        try:
            parse_destination(destination, path)
        except ValidationError as error:
            yield from error.violations


def _repeated(names: Sequence[object], path: str, constraint: str) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for i, name in enumerate(names, start=1):
        if isinstance(name, str):
            if seen[name]:
                yield sentence(name, path.format(i), constraint)
            seen[name] += 1


def _member(value: object, member: str) -> Any:
    return value.get(member) if isinstance(value, Mapping) else None


def _list_member(value: object, member: str) -> Sequence[Any]:
    items = _member(value, member)
    return items if isinstance(items, list | tuple) else ()


def _experiment(request: Mapping[str, Any], read_at: datetime) -> Experiment:
    variants = {variant["VariantName"]: _variant(variant) for variant in request["ModelVariants"]}
    config = request["ShadowModeConfig"]
    copied = config["ShadowModelVariants"][0]
    schedule = request.get("Schedule")
    return Experiment(
        name=request["Name"],
        type=request["Type"],
        role_arn=request["RoleArn"],
        endpoint_name=request["EndpointName"],
        source=variants[config["SourceModelVariantName"]],
        shadow=variants[copied["ShadowModelVariantName"]],
        sampling_percentage=copied["SamplingPercentage"],
        schedule=Schedule(as_time(_member(schedule, "StartTime")), as_time(_member(schedule, "EndTime"))),
        storage=_storage(request.get("DataStorageConfig")),
        description=request.get("Description"),
        kms_key=request.get("KmsKey"),
        tags=tuple((tag["Key"], tag["Value"]) for tag in request.get("Tags") or ()),
        read_at=read_at,
    )


def _variant(entry: Mapping[str, Any]) -> Variant:
    pool = entry["InfrastructureConfig"]["RealTimeInferenceConfig"]
    return Variant(entry["VariantName"], entry["ModelName"], InstancePool(pool["InstanceType"], pool["InstanceCount"]))


def _storage(config: Mapping[str, Any] | None) -> DataStorage | None:
    if config is None:
        return None
    types = config.get("ContentType")
    return DataStorage(
        destination=config["Destination"],
        kms_key=config.get("KmsKey"),
        csv_content_types=tuple(_list_member(types, "CsvContentTypes")),
        json_content_types=tuple(_list_member(types, "JsonContentTypes")),
    )


def _without_empty(**members: object) -> dict[str, Any]:
    # Empty lists and objects mean the same as none in this request; an empty description stays.
    return {name: value for name, value in members.items() if value is not None and value not in ({}, [])}


def _variant_request(variant: Variant) -> dict[str, Any]:
    pool = {"InstanceType": variant.pool.instance_type, "InstanceCount": variant.pool.instance_count}
    # RealTimeInference is the only InfrastructureType in the model.
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": variant.model_name, "VariantName": variant.name, "InfrastructureConfig": infrastructure}


def _storage_request(storage: DataStorage | None) -> dict[str, Any] | None:
    if storage is None:
        return None
    types = _without_empty(
        CsvContentTypes=list(storage.csv_content_types), JsonContentTypes=list(storage.json_content_types)
    )
    return _without_empty(Destination=storage.destination, KmsKey=storage.kms_key, ContentType=types)


def iso_time(time: datetime | None) -> str | None:
    """Return a time in UTC as "2026-01-31T12:00:00Z", and None as None."""
    return None if time is None else time.isoformat().replace("+00:00", "Z")
