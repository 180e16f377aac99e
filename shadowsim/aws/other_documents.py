"""Recognises documents that resemble a request to create an experiment, and tells what to pass.

A user's first file may be an endpoint, a skeleton of the AWS CLI, or a request with its members in another case. The
violations of such a document are many and beside the point; one sentence is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shadowsim.aws.contract import members_of
from shadowsim.errors import InputError

_ENDPOINT_CONFIG = ("ShadowProductionVariants", "ProductionVariants", "EndpointConfigName")
_TEXTS = ("Name", "RoleArn", "EndpointName")


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
    known = members_of("CreateInferenceExperiment")
    if any(key in document for key in _ENDPOINT_CONFIG):
        return (
            "is an endpoint or a configuration of one, without ShadowProductionVariants; pass a configuration that has "
            "them (describe-endpoint-config), or a CreateInferenceExperiment request"
        )
    if all(document.get(key) == "" for key in _TEXTS):
        return "is an empty skeleton of the AWS CLI (--generate-cli-skeleton); fill in its fields"
    return _case_text([key for key in document if isinstance(key, str)], known)


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
