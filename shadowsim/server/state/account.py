"""Defines the simulated account, `World`: its models, configurations, endpoints, experiments and tags.

The world is a fold over the event log: events.py applies accepted actions to it, transitions.py what falls due with
time. Nothing else changes it, and both depend on the world alone, so the same events give the same world after every
restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from shadowsim.aws.lifecycle import TERMINAL, Stage
from shadowsim.server.state.fleet import Body, Fleet
from shadowsim.server.state.scaling import ScalableTarget, ScalingActivity, TrackingPolicy
from shadowsim.server.state.undocumented import Undocumented

_Record = TypeVar("_Record")
NEVER = float("inf")
ENDPOINT_RANK, EXPERIMENT_RANK, ACTIVITY_RANK = 0, 1, 2  # the order in which they advance at equal moments


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """A model or an endpoint configuration: its request and creation time."""

    name: str
    request: Body
    created_s: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """A fleet that is being put behind an endpoint.

    Attributes
    ----------
    number : int
        Unique within the account.
    fleet : Fleet
    pending : frozenset of str
        Variants whose backends have not answered /ping.
    held_until_s : float
        The earliest moment at which it can be done; infinity while a variant is pending.
    fallback : Fleet or None
        The fleet that serves if this one fails.
    """

    number: int
    fleet: Fleet
    pending: frozenset[str]
    held_until_s: float
    fallback: Fleet | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint and its fleet.

    Attributes
    ----------
    since_s : float
        When it came to its status.
    version : int
        New after every change that the data plane must see.
    fleet : Fleet or None
        The fleet that serves; None until the first one is deployed.
    """

    name: str
    status: str
    since_s: float
    created_s: float
    modified_s: float
    version: int
    fleet: Fleet | None = None
    deployment: Deployment | None = None
    failure: str | None = None

    @property
    def intended(self) -> Fleet | None:
        """The fleet that serves once nothing is in progress; None for no fleet."""
        if self.status in ("Failed", "Deleting"):
            return None
        if self.deployment is None:
            return self.fleet
        return self.deployment.fallback if self.status == "RollingBack" else self.deployment.fleet


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    """An inference experiment.

    Attributes
    ----------
    request : mapping
        The CreateInferenceExperiment request with all updates merged in.
    stage : Stage
    fleet_before : Fleet or None
        The endpoint's fleet before the experiment; None if the experiment created the endpoint, or is not deployed.
    deployed, created_endpoint : bool
        Whether its variants were put behind the endpoint, and whether that created the endpoint.
    variant_actions, desired_variants : mapping
        ModelVariantActions and DesiredModelVariants of StopInferenceExperiment, by variant name.
    reason : str or None
        StatusReason.
    completed_s : float or None
    variants_left : frozenset of str
        Variants behind the endpoint when the experiment ended.
    """

    name: str
    request: Body
    stage: Stage
    created_s: float
    modified_s: float
    fleet_before: Fleet | None = None
    deployed: bool = False
    created_endpoint: bool = False
    variant_actions: Mapping[str, str] = field(default_factory=dict)
    desired_variants: Mapping[str, Body] = field(default_factory=dict)
    reason: str | None = None
    completed_s: float | None = None
    variants_left: frozenset[str] = frozenset()

    @property
    def endpoint_name(self) -> str:
        """The name of the endpoint that it runs on."""
        return str(self.request["EndpointName"])

    @property
    def live(self) -> bool:
        """Whether it has not ended: from its creation on it holds its endpoint."""
        return self.stage.status not in TERMINAL

    @property
    def source_name(self) -> str:
        """The production variant's name."""
        return str(self.request["ShadowModeConfig"]["SourceModelVariantName"])

    @property
    def shadow_name(self) -> str:
        """The shadow variant's name."""
        return str(self._shadow["ShadowModelVariantName"])

    @property
    def percentage(self) -> int:
        """SamplingPercentage."""
        return int(self._shadow["SamplingPercentage"])

    @property
    def _shadow(self) -> Body:
        shadow: Body = self.request["ShadowModeConfig"]["ShadowModelVariants"][0]
        return shadow


class Records(dict[str, _Record]):
    """A dictionary that knows what has changed, so that a snapshot writes no more than that, and can take changes back.

    Entries are changed by assignment, `del` and `pop` only.

    Attributes
    ----------
    changed : dict of str to None
        Names that were assigned, the new ones in the order of the dictionary.
    removed : set of str
        Names that were removed, and may have been assigned again.
    replaced : dict of str to record or None
        While it is set, gets the records that changes replace, None for those that were not there.
    """

    __slots__ = ("changed", "removed", "replaced")

    def __init__(self) -> None:
        super().__init__()
        self.replaced: dict[str, _Record | None] | None = None
        self.forget_changes()

    def forget_changes(self) -> None:
        """Take what the dictionary holds now as unchanged."""
        self.changed: dict[str, None] = {}
        self.removed: set[str] = set()

    def take_back(self, replaced: Mapping[str, _Record | None]) -> None:
        """Put back what changes have replaced."""
        for name, record in replaced.items():
            if record is None:
                self.pop(name, None)
            else:
                self[name] = record

    def _keep(self, name: str) -> None:
        if self.replaced is not None:
            self.replaced.setdefault(name, self.get(name))

    def __setitem__(self, name: str, record: _Record) -> None:
        self._keep(name)
        if name not in self:
            self.changed.pop(name, None)
        self.changed[name] = None
        super().__setitem__(name, record)

    def __delitem__(self, name: str) -> None:
        self._keep(name)
        super().__delitem__(name)
        self.removed.add(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove an entry and return it, or the default."""
        self._keep(name)
        self.removed.add(name)
        return super().pop(name, *default)


@dataclass(slots=True)
class World:
    """The state of the account at the moment `now_s`.

    Attributes
    ----------
    region, account : str
        Used in ARNs.
    now_s : float
        The moment up to which transitions have been made, in scaled seconds since 1970.
    due_s : float
        When the next transition is due.
    transition_s : float
        How long Creating, Starting, Updating and Stopping last, in scaled seconds.
    probed : frozenset of str
        Models with real backends, which must answer /ping; "*" stands for all.
    choices : Undocumented
    tags : dict of str to dict
        By ARN, of resources that have any.
    latest_experiment : dict of str to str
        The last experiment by endpoint: the only one that can be live.
    targets, policies, activities : dict of str to record
        Auto scaling: by resource id, by resource id and policy name, and by activity id.
    n_changes : int
        Counts versions and deployments.
    agenda : list of (moment, rank, name)
        A heap of transitions; entries may be stale.
    changed : set of (rank, name)
        Resources whose next transition must be looked up again.
    """

    region: str = "us-east-1"
    account: str = "111122223333"
    now_s: float = 0.0
    due_s: float = NEVER
    transition_s: float = 1.0
    probed: frozenset[str] = frozenset()
    choices: Undocumented = field(default_factory=Undocumented)
    models: Records[ResourceRecord] = field(default_factory=Records)
    configs: Records[ResourceRecord] = field(default_factory=Records)
    endpoints: Records[Endpoint] = field(default_factory=Records)
    experiments: Records[ExperimentRecord] = field(default_factory=Records)
    tags: Records[dict[str, str]] = field(default_factory=Records)
    latest_experiment: Records[str] = field(default_factory=Records)
    targets: Records[ScalableTarget] = field(default_factory=Records)
    policies: Records[TrackingPolicy] = field(default_factory=Records)
    activities: Records[ScalingActivity] = field(default_factory=Records)
    n_changes: int = 0
    agenda: list[tuple[float, int, str]] = field(default_factory=list, repr=False)
    changed: set[tuple[int, str]] = field(default_factory=set, repr=False)

    def arn(self, kind: str, name: str) -> str:
        """Return a resource's ARN; kind is "model", "endpoint-config", "endpoint" or "inference-experiment"."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name}"

    @property
    def records(self) -> dict[str, Records[Any]]:
        """The dictionaries of records, by the names of their attributes."""
        names = ("models", "configs", "endpoints", "experiments", "tags", "latest_experiment")
        return {name: getattr(self, name) for name in (*names, "targets", "policies", "activities")}

    def first_containers(self, config: Body) -> dict[str, Body]:
        """Return the first container of every existing model that an endpoint configuration names, by model name."""
        variants = [*config["ProductionVariants"], *config.get("ShadowProductionVariants", ())]
        records = {v["ModelName"]: self.models.get(v["ModelName"]) for v in variants}
        return {name: containers_of(record.request)[0] for name, record in records.items() if record is not None}

    def live_experiment(self, endpoint: str) -> ExperimentRecord | None:
        """Return the live experiment on an endpoint."""
        record = self.experiments.get(self.latest_experiment.get(endpoint, ""))
        return record if record is not None and record.live and record.endpoint_name == endpoint else None

    def put_new_version(self, endpoint: Endpoint) -> Endpoint:
        """Store an endpoint's record under a new version, and return it."""
        self.n_changes += 1
        endpoint = replace(endpoint, version=self.n_changes)
        self.put_endpoint(endpoint)
        return endpoint

    def put_endpoint(self, endpoint: Endpoint) -> None:
        """Store an endpoint's record under its old version: the data plane need not see the change."""
        self.endpoints[endpoint.name] = endpoint
        self.changed.add((ENDPOINT_RANK, endpoint.name))

    def put_experiment(self, experiment: ExperimentRecord) -> None:
        """Store an experiment's record."""
        self.experiments[experiment.name] = experiment
        self.changed.add((EXPERIMENT_RANK, experiment.name))

    def put_activity(self, activity: ScalingActivity) -> None:
        """Store an activity's record."""
        self.activities[activity.name] = activity
        self.changed.add((ACTIVITY_RANK, activity.name))

    def policies_of(self, resource: str) -> list[TrackingPolicy]:
        """Return the policies of a scalable target."""
        return [policy for policy in self.policies.values() if policy.resource == resource]

    def activities_of(self, resource: str) -> list[ScalingActivity]:
        """Return the activities of a scalable target, the oldest first."""
        return [activity for activity in self.activities.values() if activity.resource == resource]

    def remove_target(self, resource: str) -> None:
        """Remove a scalable target with its policies; its activities stay."""
        del self.targets[resource]
        for key in [key for key, policy in self.policies.items() if policy.resource == resource]:
            del self.policies[key]

    def renew_version(self, endpoint: str) -> None:
        """Give an endpoint a new version, if it exists: its experiment has changed."""
        if endpoint in self.endpoints:
            self.put_new_version(self.endpoints[endpoint])

    def add_tags(self, kind: str, name: str, request: Mapping[str, Any]) -> None:
        """Store the tags of a new resource."""
        self.put_tags(self.arn(kind, name), {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())})

    def remove_tags(self, kind: str, name: str) -> None:
        """Remove the tags of a resource."""
        self.put_tags(self.arn(kind, name), {})

    def put_tags(self, arn: str, tags: dict[str, str]) -> None:
        """Store all tags of a resource."""
        if tags:
            self.tags[arn] = tags
        elif arn in self.tags:
            del self.tags[arn]

    def has_resource(self, arn: str) -> bool:
        """Return whether a resource of an ARN exists."""
        of_kind: dict[str, Mapping[str, object]] = {
            "model": self.models,
            "endpoint-config": self.configs,
            "endpoint": self.endpoints,
            "inference-experiment": self.experiments,
        }
        kind, _, name = arn.rpartition(":")[2].partition("/")
        return kind in of_kind and arn == self.arn(kind, name) and name in of_kind[kind]

    def reserved_instances(self) -> Iterator[tuple[str, str, int]]:
        """Yield (endpoint, instance type, count) per variant deployed, being deployed, or of an experiment to come."""
        reserved = {e.endpoint_name: e for e in self.experiments.values() if e.live and not e.deployed}
        for endpoint in self.endpoints.values():
            fleet = endpoint.intended
            if endpoint.name not in reserved:
                for view in fleet.variants if fleet else ():
                    yield endpoint.name, view.instance_type, view.desired_count
        for name, experiment in reserved.items():
            for variant in experiment.request["ModelVariants"]:
                pool = variant["InfrastructureConfig"]["RealTimeInferenceConfig"]
                yield name, pool["InstanceType"], pool["InstanceCount"]


def containers_of(model: Body) -> list[Body]:
    """Return the containers of a CreateModel request, at least one."""
    containers: list[Body] = [model["PrimaryContainer"]] if "PrimaryContainer" in model else list(model["Containers"])
    return containers
