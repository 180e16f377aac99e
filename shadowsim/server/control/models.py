"""Answers the actions on models, and on the tags of any resource.

A model is only recorded: what it names (an image, a URL) is never fetched or inspected.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from shadowsim.aws.experiment import tag_rules
from shadowsim.errors import RefusedError, ResourceNotFoundError, ValidationError
from shadowsim.server.control.pagination import page
from shadowsim.server.state.account import ResourceRecord, World, containers_of
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

_MAX_TAGS = 50


class _Tag(NamedTuple):
    """A tag as a record of a list, in the order in which tags were added."""

    name: str
    created_s: float
    value: str


def create_model(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateModel."""
    name = body["ModelName"]
    arn = world.arn("model", name)
    refuse_tags(body)
    if ("PrimaryContainer" in body) == bool(body.get("Containers")):
        raise RefusedError("You must provide either PrimaryContainer or Containers, and not both.")
    for container in containers_of(body):
        if "Image" not in container and "ModelPackageName" not in container:
            raise RefusedError("Every container must have an Image or a ModelPackageName.")
    if name in world.models:
        raise RefusedError(f'Cannot create already existing model "{arn}".')
    return {"ModelArn": arn}


def describe_model(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeModel."""
    record = find_model(world, body["ModelName"])
    arn = world.arn("model", record.name)
    members = {key: value for key, value in record.request.items() if key != "Tags"}
    return {"EnableNetworkIsolation": False, **members, "ModelArn": arn, "CreationTime": record.created_s}


def list_models(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListModels."""
    summary = lambda r: {  # noqa: E731
        "ModelName": r.name,
        "ModelArn": world.arn("model", r.name),
        "CreationTime": r.created_s,
    }
    return _answer_with("Models", page("ListModels", body, world.models.values(), store.key, summary))


def delete_model(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteModel; endpoints that serve the model go on serving it."""
    find_model(world, body["ModelName"])
    return {}


def add_tags(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer AddTags."""
    refuse_tags(body)
    tags = {**_tags_of(world, body), **{tag["Key"]: tag["Value"] for tag in body["Tags"]}}
    if len(tags) > _MAX_TAGS:
        raise RefusedError(f"A resource can have at most {_MAX_TAGS} tags, and this one would have {len(tags)}.")
    return {"Tags": _tag_list(tags)}


def list_tags(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListTags, in the order in which the tags were added."""
    # One page holds all tags that a resource can have, so no token is ever needed.
    tags = [_Tag(key, float(i), value) for i, (key, value) in enumerate(_tags_of(world, body).items())]
    summary = lambda tag: {"Key": tag.name, "Value": tag.value}  # noqa: E731
    ascending = {**body, "SortOrder": "Ascending"}
    return _answer_with("Tags", page("ListTags", ascending, tags, store.key, summary, per_page=_MAX_TAGS))


def delete_tags(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteTags; a key that the resource does not have is ignored."""
    _tags_of(world, body)
    return {}


def find_model(world: World, name: str) -> ResourceRecord:
    """Return the model of a name; raise AWS's RefusedError if there is none."""
    if name not in world.models:
        raise RefusedError(f'Could not find model "{world.arn("model", name)}".')
    return world.models[name]


def find_single_model(world: World, name: str) -> ResourceRecord:
    """Return a model that a shadow test can use: raise RefusedError if it is missing or has several containers."""
    record = find_model(world, name)
    containers = containers_of(record.request)
    if len(containers) > 1 or containers[0].get("Mode") == "MultiModel":
        arn = world.arn("model", name)
        raise RefusedError(f'Model "{arn}" has several containers or models, which shadow tests exclude.')
    return record


def refuse_tags(body: Body) -> None:
    """Raise ValidationError for keys that occur twice or that are reserved for AWS."""
    broken = list(tag_rules(body.get("Tags", ())))
    if broken:
        raise ValidationError(broken)


def _tags_of(world: World, body: Body) -> dict[str, str]:
    arn = body["ResourceArn"]
    if not world.has_resource(arn):
        raise ResourceNotFoundError(f"Could not find resource {arn}.")
    return world.tags.get(arn, {})


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _answer_with(member: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {member: answer.pop("Items"), **answer}
