"""Finds the request of an experiment in the documents that people keep it in.

These are a CreateInferenceExperiment request itself, the answer of DescribeInferenceExperiment, CloudFormation
(cloudformation.py), what `terraform show -json` prints (terraform.py), and endpoint configurations with a shadow
variant (endpoint_configs.py). What such a document does not say is assumed, and each assumption is a sentence. What
cannot be known before a deployment is refused by its path, unless the caller gives it. In a plan of Terraform, optional
attributes that are only known after the apply are those that nobody has set: they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shadowsim.aws.cloudformation import Template, Unresolved, resources_of
from shadowsim.aws.contract import is_required, members_of, with_numbers
from shadowsim.aws.endpoint_configs import PLACEHOLDER_ROLE, has_shadow, request_of_config
from shadowsim.aws.other_documents import refuse_other_document
from shadowsim.aws.terraform import found, is_terraform
from shadowsim.errors import Collector, InputError, did_you_mean

_ACTION, _CONFIG = "CreateInferenceExperiment", "CreateEndpointConfig"
_TYPES = {"AWS::SageMaker::InferenceExperiment": _ACTION, "AWS::SageMaker::EndpointConfig": _CONFIG}
_VARIANTS = ("ProductionVariants", "ShadowProductionVariants")
_USED = (
    *("VariantName", "ModelName", "InstanceType", "InitialInstanceCount", "InitialVariantWeight"),
    *("RoutingConfig", "ServerlessConfig", "ManagedInstanceScaling"),
)
_DESCRIPTION = ("Arn", "Status", "CreationTime", "EndpointMetadata")


@dataclass(frozen=True, slots=True)
class RequestSource:
    """The request that a document holds.

    Attributes
    ----------
    request : dict
        A CreateInferenceExperiment request, not yet validated.
    assumed : mapping of str to str
        Sentences on what the document does not say, by path in a scenario.
    routing : mapping of str to str
        The routing strategy by variant, where the document has one.
    """

    request: dict[str, Any]
    assumed: Mapping[str, str] = field(default_factory=dict)
    routing: Mapping[str, str] = field(default_factory=dict)


class _Given(dict[str, object]):
    """Values that the caller gives, which remember what was asked for."""

    def __init__(self, values: Mapping[str, object]):
        super().__init__(values)
        self.asked = set[str]()

    @property
    def used(self) -> set[str]:
        """Those that were asked for."""
        return self.asked & set(self)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: object = None) -> object:
        """Return a value, and remember that it was asked for."""
        self.asked.add(key)
        return super().get(key, default)


@dataclass(frozen=True, slots=True)
class _Candidate:
    action: str
    members: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    optional_unknown: bool = False


def request_source(
    document: Mapping[str, Any],
    path: str = "request",
    resource: str | None = None,
    parameters: Mapping[str, object] | None = None,
) -> RequestSource:
    """Return the request that a document holds; a document that is none of the known is returned as it is.

    Parameters
    ----------
    document : mapping
    path : str
        The document's name in messages.
    resource : str, optional
        Which of several resources is meant: a logical id of CloudFormation, or an address of Terraform.
    parameters : mapping of str to object, optional
        Values for what is not known before a deployment: parameters of CloudFormation without a Default, references
        ("Role.Arn", "AWS::Region"), attributes of Terraform ("role_arn").

    Raises
    ------
    InputError
        It holds no request, several, or one that refers to something unknown.
    """
    given = _Given(parameters or {})
    candidates = _candidates(document, given)
    if candidates is None:
        if resource is not None:
            raise InputError("resource", f"chooses one of several resources, and {path} has none", resource)
        if given:
            raise InputError("parameters", f"are for a template or a plan, which {path} is not", next(iter(given)))
        if has_shadow(document):
            return _of_config(document, path, {})
        if sum(key in document for key in _DESCRIPTION) > 1 and "EndpointConfigArn" not in document:
            return _of_description(document)
        refuse_other_document(document, path)
        return RequestSource(dict(document))
    name = _chosen(candidates, path, resource)
    unused = next((key for key in given if key not in given.used), None)
    if unused is not None:
        raise InputError("parameters", f"must be what {path} refers to", unused, hint=did_you_mean(unused, given.asked))
    candidate, at = candidates[name], f"{path}.{name}" if name else path
    assumed = {f"experiment.{i}": f"experiment: {note}" for i, note in enumerate(candidate.notes)}
    if candidate.action == _CONFIG:
        return _of_config(candidate.members, at, assumed)
    members, dropped = dict(candidate.members), []
    for key in [key for key in members if key not in members_of(_ACTION)]:
        del members[key]
        dropped.append(key)
    if dropped:
        assumed["experiment"] = f"experiment: {', '.join(dropped)} is not used."
    return RequestSource(_resolved(members, _ACTION, at, assumed, candidate.optional_unknown), assumed)


def _candidates(document: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, _Candidate] | None:
    """Return all resources that hold an experiment or a shadow variant by name, None for another kind of document."""
    if is_terraform(document):
        requests = found(document, given)
        known = {name: _Candidate(action, members, (), True) for name, (action, members) in requests.items()}
    else:
        resources = resources_of(document)
        if resources is None:
            return None
        known = {}
        for name, resource in resources.items():
            template = Template(document, resources, given)
            if resource["Type"] in _TYPES and template.is_made(name):
                members = template.properties(name)
                known[name] = _Candidate(_TYPES[resource["Type"]], members, template.notes())
    return {
        name: candidate
        for name, candidate in known.items()
        if candidate.action == _ACTION or has_shadow(candidate.members)
    }


def _chosen(candidates: Mapping[str, _Candidate], path: str, resource: str | None) -> str:
    listed = ", ".join(candidates)
    if not candidates:
        what = "an inference experiment or an endpoint configuration with ShadowProductionVariants"
        raise InputError(path, f"has no resource that is {what}")
    if resource is not None:
        if resource not in candidates:
            hint = did_you_mean(resource, candidates) or f"; it has {listed}"
            raise InputError(
                "resource", f"must be a resource of {path} with an experiment or a shadow", resource, hint=hint
            )
        return resource
    if len(candidates) > 1:
        raise InputError(path, f"has {len(candidates)} candidates: {listed}; choose one (--resource NAME)")
    return next(iter(candidates))


def _of_config(config: Mapping[str, Any], path: str, assumed: Mapping[str, str]) -> RequestSource:
    used = {key: config[key] for key in (*_VARIANTS, "DataCaptureConfig") if key in config}
    for kind in _VARIANTS:
        if isinstance(used.get(kind), list):
            used[kind] = [
                {key: item for key, item in variant.items() if key in _USED}
                if isinstance(variant, Mapping)
                else variant
                for variant in used[kind]
            ]
    notes = dict(assumed)
    request, own, routing = request_of_config(_resolved(used, _CONFIG, path, notes, False), path)
    return RequestSource(request, notes | own, routing)


def _of_description(description: Mapping[str, Any]) -> RequestSource:
    members = members_of(_ACTION)
    request = {key: value for key, value in description.items() if key in members and value is not None}
    endpoint = description.get("EndpointMetadata")
    if isinstance(endpoint, Mapping) and "EndpointName" not in request:
        request["EndpointName"] = endpoint.get("EndpointName")
    variants = request.get("ModelVariants")
    if isinstance(variants, list):
        request["ModelVariants"] = [
            {key: item for key, item in variant.items() if key != "Status"} if isinstance(variant, Mapping) else variant
            for variant in variants
        ]
    assumed = {"experiment.Name": f"experiment: as described, in status {description.get('Status')}."}
    if request.get("RoleArn") is None:
        request["RoleArn"] = PLACEHOLDER_ROLE
        assumed["experiment.RoleArn"] = f"experiment.RoleArn: is not described; {PLACEHOLDER_ROLE} stands for it."
    return RequestSource(request, assumed)


def _resolved(
    members: Mapping[str, Any], action: str, path: str, assumed: dict[str, str], leave_out: bool
) -> dict[str, Any]:
    """Return members without unresolved values, texts of numbers as numbers; add what was left out to `assumed`."""
    errors, left_out = Collector(), list[tuple[str | int, ...]]()
    for at, unknown in _unresolved(members, ()):
        if leave_out and not is_required(action, at):
            left_out.append(at)
            continue
        with errors:
            where = ".".join([path, *map(str, at)])
            constraint = f"refers to {unknown}, which is not known before the deployment (--parameter {unknown}=VALUE)"
            raise InputError(where, constraint)
    errors.check()
    for at in left_out:
        assumed[f"experiment.{at[0]}"] = (
            f"experiment.{'.'.join(map(str, at))}: is not known yet, and taken as left out."
        )
    resolved: dict[str, Any] = with_numbers(action, _without(members, left_out, ()))
    return resolved


def _unresolved(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Unresolved]]:
    if isinstance(value, Unresolved):
        yield path, value
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from _unresolved(item, (*path, key))


def _without(value: Any, paths: list[tuple[str | int, ...]], path: tuple[str | int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {k: _without(item, paths, (*path, k)) for k, item in value.items() if (*path, k) not in paths}
    if isinstance(value, list):
        return [_without(item, paths, (*path, i)) for i, item in enumerate(value) if (*path, i) not in paths]
    return value
