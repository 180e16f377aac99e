"""All that exists in the rehearsed account, as frozen records in dictionaries; and what the records say.

The world is a fold: events.py changes it by what was accepted, clockwork.py by what time brings. Nothing else does,
and both are functions of the world alone, so that the same events make the same world after every restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shadowsim.aws.lifecycle import TERMINAL, Stage
from shadowsim.server.state.fleet import Body, Fleet
from shadowsim.server.state.undocumented import Undocumented

NEVER = float("inf")
ENDPOINT_RANK, EXPERIMENT_RANK = 0, 1  # the order at equal moments


@dataclass(frozen=True, slots=True)
class Record:
    """A model or an endpoint configuration: what its request said, and when."""

    name: str
    request: Body
    created_s: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """A fleet that is being made.

    Attributes
    ----------
    number : int
    fleet : Fleet
    pending : frozenset of str
        Variants whose backends have not answered /ping.
    held_until_s : float
        Before this moment it is not done; infinity while something is pending.
    fallback : Fleet or None
        What serves if it fails.
    """

    number: int
    fleet: Fleet
    pending: frozenset[str]
    held_until_s: float
    fallback: Fleet | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint and what serves behind it.

    Attributes
    ----------
    version : int
        Another one after every change.
    fleet : Fleet or None
        What serves; None until the first one is made.
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
        """What serves once nothing is in progress; None for nothing."""
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
        CreateInferenceExperiment's, with all updates.
    stage : Stage
    before : Fleet or None
        What the endpoint served before; None where the experiment made it, or has not been deployed.
    deployed, made : bool
        Whether its variants were put behind the endpoint, and whether the endpoint was made for that.
    actions, desired : mapping
        StopInferenceExperiment's, by variant.
    reason : str or None
        StatusReason.
    completed_s : float or None
    left : frozenset of str
        Variants that stood behind the endpoint when it ended.
    """

    name: str
    request: Body
    stage: Stage
    created_s: float
    modified_s: float
    before: Fleet | None = None
    deployed: bool = False
    made: bool = False
    actions: Mapping[str, str] = field(default_factory=dict)
    desired: Mapping[str, Body] = field(default_factory=dict)
    reason: str | None = None
    completed_s: float | None = None
    left: frozenset[str] = frozenset()

    @property
    def endpoint_name(self) -> str:
        """The endpoint that it runs on."""
        return str(self.request["EndpointName"])

    @property
    def live(self) -> bool:
        """Whether it has its endpoint: from its creation to its end."""
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
        found: Body = self.request["ShadowModeConfig"]["ShadowModelVariants"][0]
        return found


@dataclass(slots=True)
class World:
    """Models, configurations, endpoints, experiments and tags.

    Attributes
    ----------
    region, account : str
        What ARNs say.
    now_s : float
        Until when the clock has been followed.
    due_s : float
        When it brings something next.
    transition_s : float
    probed : frozenset of str
        Models that have real backends, which must answer /ping; "*" is all.
    tags : dict of str to dict
        By ARN; every resource has its entry.
    latest : dict of str to str
        The last experiment on each endpoint: the only one that can be live.
    """

    region: str = "us-east-1"
    account: str = "111122223333"
    now_s: float = 0.0
    due_s: float = NEVER
    transition_s: float = 1.0
    probed: frozenset[str] = frozenset()
    choices: Undocumented = field(default_factory=Undocumented)
    models: dict[str, Record] = field(default_factory=dict)
    configs: dict[str, Record] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    experiments: dict[str, ExperimentRecord] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    n_changes: int = 0
    # For the clock: a heap of (moment, rank, name), stale entries among it, and what is to be looked at again.
    agenda: list[tuple[float, int, str]] = field(default_factory=list, repr=False)
    changed: set[tuple[int, str]] = field(default_factory=set, repr=False)

    def arn(self, kind: str, name: str) -> str:
        """Return a resource's ARN; kind is "model", "endpoint-config", "endpoint" or "inference-experiment"."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name}"

    def containers(self) -> dict[str, Body]:
        """Return the first container of every model."""
        return {name: containers_of(record.request)[0] for name, record in self.models.items()}

    def live_experiment(self, endpoint: str) -> ExperimentRecord | None:
        """Return the experiment that has an endpoint."""
        found = self.experiments.get(self.latest.get(endpoint, ""))
        return found if found is not None and found.live and found.endpoint_name == endpoint else None

    def settled(self, endpoint: Endpoint) -> Endpoint:
        """Put an endpoint's record in its place, under a new version, and return it."""
        self.n_changes += 1
        endpoint = replace(endpoint, version=self.n_changes)
        self.put_endpoint(endpoint)
        return endpoint

    def put_endpoint(self, endpoint: Endpoint) -> None:
        """Put an endpoint's record in its place under the version that it has: nothing that serves has changed."""
        self.endpoints[endpoint.name] = endpoint
        self.changed.add((ENDPOINT_RANK, endpoint.name))

    def put_experiment(self, experiment: ExperimentRecord) -> None:
        """Put an experiment's record in its place."""
        self.experiments[experiment.name] = experiment
        self.changed.add((EXPERIMENT_RANK, experiment.name))

    def touch(self, endpoint: str) -> None:
        """Give an endpoint a new version, if it exists: something that is seen through it has changed."""
        if endpoint in self.endpoints:
            self.settled(self.endpoints[endpoint])

    def add(self, kind: str, name: str, request: Mapping[str, Any]) -> None:
        """Give a new resource its tags."""
        self.tags[self.arn(kind, name)] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}

    def remove(self, kind: str, name: str) -> None:
        """Forget a resource's tags."""
        self.tags.pop(self.arn(kind, name), None)

    def instances(self) -> Iterator[tuple[str, str, int]]:
        """Yield (endpoint, instance type, count) of all that is deployed, is being so, or is promised to one."""
        reserved = {t.endpoint_name: t for t in self.experiments.values() if t.live and not t.deployed}
        for endpoint in self.endpoints.values():
            fleet = endpoint.intended
            if endpoint.name not in reserved:
                for view in fleet.variants if fleet else ():
                    yield endpoint.name, view.instance_type, view.instance_count
        for name, experiment in reserved.items():
            for variant in experiment.request["ModelVariants"]:
                pool = variant["InfrastructureConfig"]["RealTimeInferenceConfig"]
                yield name, pool["InstanceType"], pool["InstanceCount"]


def containers_of(model: Body) -> list[Body]:
    """Return a model's containers, of which it has one at least."""
    found: list[Body] = [model["PrimaryContainer"]] if "PrimaryContainer" in model else list(model["Containers"])
    return found
