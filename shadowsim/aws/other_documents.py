"""Recognises documents that resemble a request to create an experiment, and tells what to pass.

A user's first file often is a CloudFormation resource, a template, an endpoint configuration or a skeleton of the AWS
CLI. The violations of such a document are many and beside the point; one sentence is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shadowsim.aws.contract import members_of
from shadowsim.errors import InputError, shown

_EXPERIMENT = "AWS::SageMaker::InferenceExperiment"
_ENDPOINT_CONFIG = ("ShadowProductionVariants", "ProductionVariants", "EndpointConfigName")
_DESCRIPTION = ("Arn", "Status", "CreationTime", "EndpointMetadata")
_TEXTS = ("Name", "RoleArn", "EndpointName")
_MAX_NAMES = 3


def refuse_other_document(document: object, path: str = "request") -> None:
    """Raise `InputError` with one sentence for a document that is another kind of document than a request.

    Parameters
    ----------
    document : object
        Any object; what is neither a request nor recognised passes.
    path : str
        The document's name in the message.
    """
    if isinstance(document, Mapping):
        constraint = _other_kind(document)
        if constraint:
            raise InputError(path, constraint)


def _other_kind(document: Mapping[Any, object]) -> str | None:
    if _is_resource(document):
        return _resource_text(document)
    resources = document.get("Resources", document)
    if isinstance(resources, Mapping) and resources and all(map(_is_resource, resources.values())):
        return _template_text(resources)
    if "AWSTemplateFormatVersion" in document:
        return f"is a CloudFormation template without resources; pass the Properties of an {_EXPERIMENT}"
    known = members_of("CreateInferenceExperiment")
    if any(key in document for key in _ENDPOINT_CONFIG):
        return (
            "is an endpoint or a configuration of one, without ShadowProductionVariants; pass a configuration that has "
            "them (describe-endpoint-config), or a CreateInferenceExperiment request"
        )
    if sum(key in document for key in _DESCRIPTION) > 1:
        return (
            "is a description of an experiment (DescribeInferenceExperiment); pass a CreateInferenceExperiment request "
            f"with the members {', '.join(known)}"
        )
    if all(document.get(key) == "" for key in _TEXTS):
        return "is an empty skeleton of the AWS CLI (--generate-cli-skeleton); fill in its fields"
    return _case_text([key for key in document if isinstance(key, str)], known)


def _is_resource(value: object) -> bool:
    kind = value.get("Type") if isinstance(value, Mapping) else None
    return isinstance(kind, str) and (kind.startswith("AWS::") or kind.startswith("Custom::"))


def _resource_text(resource: Mapping[Any, object]) -> str:
    if resource["Type"] == _EXPERIMENT:
        return f"is a CloudFormation resource ({_EXPERIMENT}); pass its Properties"
    kind = shown(resource["Type"])
    return f"is a CloudFormation resource of another type, {kind}; pass the Properties of an {_EXPERIMENT}"


def _template_text(resources: Mapping[Any, Any]) -> str:
    names = [shown(name) for name, resource in resources.items() if resource["Type"] == _EXPERIMENT]
    if not names:
        return f"is a CloudFormation template without an {_EXPERIMENT}; pass the Properties of one"
    if len(names) == 1:
        return f"is a CloudFormation template; pass the Properties of its resource {names[0]}"
    listed = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
    return f"is a CloudFormation template; pass the Properties of one of its resources {listed}"


def _case_text(keys: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the sentence for a request whose members are written otherwise, None when some are right."""
    if any(key in known for key in keys):
        return None
    by_letters = {name.lower(): name for name in known}
    meant = [by_letters[key.replace("_", "").lower()] for key in keys if key.replace("_", "").lower() in by_letters]
    if len(meant) < 2:
        return None
    if any("_" in key for key in keys):
        written = "in snake case, as for Terraform"
    elif all(key[:1].islower() for key in keys):
        written = "in lower camel case, as for CDK"
    else:
        written = "in another case"
    return f"has members {written}; write all of them as AWS does: {', '.join(meant)}"
