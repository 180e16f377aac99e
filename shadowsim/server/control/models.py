"""Models, and the tags of any resource: what their actions refuse and answer.

A model is what it was said to be. Nothing that it names (an image, a URL) is fetched or looked at, ever.
"""

from __future__ import annotations

from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.errors import RefusedError, ResourceNotFoundError, ValidationError
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import Record, World, containers_of
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
    record = model(world, body["ModelName"])
    arn = world.arn("model", record.name)
    known = {key: value for key, value in record.request.items() if key != "Tags"}
    return {"EnableNetworkIsolation": False, **known, "ModelArn": arn, "CreationTime": record.created_s}


def list_models(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListModels."""
    rows = [
        Row(r.name, r.created_s, r.created_s, {"ModelName": r.name, "ModelArn": world.arn("model", r.name)})
        for r in world.models.values()
    ]
    return _named("Models", page("ListModels", body, map(_dated, rows), store.key))


def delete_model(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteModel; what serves it goes on serving it."""
    model(world, body["ModelName"])
    return {}


def add_tags(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer AddTags."""
    refuse_tags(body)
    tags = {**_tags(world, body), **{tag["Key"]: tag["Value"] for tag in body["Tags"]}}
    if len(tags) > _MAX_TAGS:
        raise RefusedError(f"A resource can have at most {_MAX_TAGS} tags, and this one would have {len(tags)}.")
    return {"Tags": _tag_list(tags)}


def list_tags(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListTags, in the order in which the tags came."""
    items = _tags(world, body).items()
    # A resource has no more tags than the smallest page, so that there is never a second one to give a token for.
    rows = [Row(key, float(i), 0.0, {"Key": key, "Value": value}) for i, (key, value) in enumerate(items)]
    asked = {**body, "SortOrder": "Ascending"}
    return _named("Tags", page("ListTags", asked, rows, store.key, per_page=_MAX_TAGS))


def delete_tags(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteTags; a key that is not there is no error."""
    _tags(world, body)
    return {}


def model(world: World, name: str) -> Record:
    """Return a model, or refuse in AWS's words."""
    if name not in world.models:
        raise RefusedError(f'Could not find model "{world.arn("model", name)}".')
    return world.models[name]


def single_model(world: World, name: str) -> Record:
    """Return a model that a shadow test can have, or refuse: there is none, or it is of several."""
    found = model(world, name)
    containers = containers_of(found.request)
    if len(containers) > 1 or containers[0].get("Mode") == "MultiModel":
        arn = world.arn("model", name)
        raise RefusedError(f'Model "{arn}" has several containers or models, which shadow tests exclude.')
    return found


def refuse_tags(body: Body) -> None:
    """Refuse tags that say a key twice, or one that belongs to AWS."""
    seen: set[str] = set()
    broken = []
    for i, tag in enumerate(body.get("Tags", ()), start=1):
        key = tag["Key"]
        if key in seen:
            broken.append(sentence(key, f"tags.{i}.member.key", "Member must be unique among the tags' keys"))
        if key.lower().startswith("aws:"):
            text = "Member must not begin with aws:, which AWS keeps for itself"
            broken.append(sentence(key, f"tags.{i}.member.key", text))
        seen.add(key)
    if broken:
        raise ValidationError(broken)


def _tags(world: World, body: Body) -> dict[str, str]:
    arn = body["ResourceArn"]
    if arn not in world.tags:
        raise ResourceNotFoundError(f"Could not find resource {arn}.")
    return world.tags[arn]


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _dated(row: Row) -> Row:
    return Row(row.name, row.created_s, row.modified_s, {**row.summary, "CreationTime": row.created_s}, row.status)


def _named(member: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {member: answer.pop("Items"), **answer}
