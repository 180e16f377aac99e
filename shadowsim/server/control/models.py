"""Answers the actions on models, and on the tags of any resource.

A model is only recorded: what it names (an image, a URL) is never fetched or inspected.
"""

from __future__ import annotations

from typing import Any

from shadowsim.aws.experiment import tag_rules
from shadowsim.errors import RefusedError, ResourceNotFoundError, ValidationError
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import ResourceRecord, World, containers_of
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

_MAX_TAGS = 50


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
    rows = [
        Row(r.name, r.created_s, r.created_s, {"ModelName": r.name, "ModelArn": world.arn("model", r.name)})
        for r in world.models.values()
    ]
    return _answer_with("Models", page("ListModels", body, map(_with_creation_time, rows), store.key))


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
    items = _tags_of(world, body).items()
    # One page holds all tags that a resource can have, so no token is ever needed.
    rows = [Row(key, float(i), 0.0, {"Key": key, "Value": value}) for i, (key, value) in enumerate(items)]
    ascending = {**body, "SortOrder": "Ascending"}
    return _answer_with("Tags", page("ListTags", ascending, rows, store.key, per_page=_MAX_TAGS))


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
    if arn not in world.tags:
        raise ResourceNotFoundError(f"Could not find resource {arn}.")
    return world.tags[arn]


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _with_creation_time(row: Row) -> Row:
    return Row(row.name, row.created_s, row.modified_s, {**row.summary, "CreationTime": row.created_s}, row.status)


def _answer_with(member: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {member: answer.pop("Items"), **answer}
