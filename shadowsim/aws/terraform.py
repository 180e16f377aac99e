"""Finds experiments and endpoint configurations in what `terraform show -json` prints.

The provider aws has `aws_sagemaker_endpoint_configuration` and no inference experiments; awscc has both, as
`awscc_sagemaker_inference_experiment` and `awscc_sagemaker_endpoint_config`. What is only known after the apply is
`Unresolved`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shadowsim.aws.cloudformation import Unresolved
from shadowsim.aws.contract import recased

ACTIONS = {
    "awscc_sagemaker_inference_experiment": "CreateInferenceExperiment",
    "awscc_sagemaker_endpoint_config": "CreateEndpointConfig",
    "aws_sagemaker_endpoint_configuration": "CreateEndpointConfig",
}


def is_terraform(document: Mapping[str, Any]) -> bool:
    """Return whether a document is what `terraform show -json` prints."""
    return "format_version" in document and any(key in document for key in ("planned_values", "values"))


def found(document: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the action and its request for each resource of interest, by address.

    `given` has values for what is known after the apply only, by attribute ("role_arn").
    """
    values = document.get("planned_values") or document.get("values")
    root = values.get("root_module") if isinstance(values, Mapping) else None
    unknown = {
        change.get("address"): (change.get("change") or {}).get("after_unknown")
        for change in document.get("resource_changes") or ()
        if isinstance(change, Mapping)
    }
    requests = {}
    for resource in _resources(root):
        action = ACTIONS.get(str(resource.get("type")))
        if action is not None and resource.get("mode", "managed") == "managed":
            address = str(resource.get("address"))
            whole = _overlaid(resource.get("values") or {}, unknown.get(address), "", given)
            requests[address] = action, recased(action, whole)
    return requests


def _resources(module: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(module, Mapping):
        yield from (resource for resource in module.get("resources") or () if isinstance(resource, Mapping))
        for child in module.get("child_modules") or ():
            yield from _resources(child)


def _overlaid(value: Any, unknown: Any, path: str, given: Mapping[str, object]) -> Any:
    """Return a value with `Unresolved` for each part that is known after the apply only."""
    if unknown is True:
        return given.get(path, Unresolved(path))
    if isinstance(unknown, Mapping):
        members = value if isinstance(value, Mapping) else {}
        inside = {key: f"{path}.{key}" if path else key for key in (*members, *unknown)}
        parts = {key: _overlaid(members.get(key), unknown.get(key), at, given) for key, at in inside.items()}
        return {key: part for key, part in parts.items() if part is not None}
    if isinstance(unknown, list) and unknown:
        items = value if isinstance(value, list) else []
        both = [(items[i] if i < len(items) else None, part) for i, part in enumerate(unknown)]
        return [_overlaid(item, part, f"{path}.{i}", given) for i, (item, part) in enumerate(both)]
    return value
