"""Converts the account's records to rows of JSON and back, which stand for all events before them.

A row holds one record: a model, a configuration, an endpoint, an experiment, the tags of an ARN, or the name of an
endpoint's last experiment; one further row holds what the account has once, such as its moment. Records keep their
order. Members are named as the fields of the classes, so that a later version can read what this one has written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from shadowsim.aws.lifecycle import Stage
from shadowsim.server.state import transitions
from shadowsim.server.state.account import Deployment, Endpoint, ExperimentRecord, ResourceRecord, World
from shadowsim.server.state.fleet import CaptureView, Fleet, ShadowView, VariantView
from shadowsim.server.state.scaling import ScalableTarget, ScalingActivity, TrackingPolicy
from shadowsim.server.state.undocumented import Undocumented

ACCOUNT = "account"  # the kind of the row for what the account has once
_BATCH_ROWS = 500


def removed_rows(world: World) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of the rows that were removed since the last snapshot, or may have got a new place."""
    for kind, records in world.records.items():
        for name in sorted(records.removed):
            yield kind, name


def changed_rows(world: World) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, name, JSON text) of the rows that have changed since the last snapshot, in order of their place."""
    for kind, records in world.records.items():
        for name in records.changed:
            if name in records:
                yield kind, name, _text(records[name])
    yield _account_row(world)


def all_rows(world: World) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, name, JSON text) of all rows, which make the same account again."""
    for kind, records in world.records.items():
        for name, record in records.items():
            yield kind, name, _text(record)
    yield _account_row(world)


def restore(world: World, rows: Iterable[tuple[str, str, str]]) -> None:
    """Fill an empty account from rows, in order of their place.

    Parameters
    ----------
    world : World
        Modified.
    rows : iterable of (str, str, str)
        Kind, name and JSON text.

    Raises
    ------
    ValueError, KeyError, TypeError
        The rows were written by another version.
    """
    records: dict[str, dict[str, Any]] = {kind: {} for kind in _RECORDS}
    for kind, name, body in _parsed(rows):
        if kind == ACCOUNT:
            world.now_s, world.transition_s = body["now_s"], body["transition_s"]
            world.probed, world.n_changes = frozenset(body["probed"]), body["n_changes"]
            world.choices = Undocumented(**body["choices"])
        else:
            if body or kind != "tags":  # an earlier version had rows of resources without tags
                records[kind][name] = _RECORDS[kind](body)
    for kind, read in records.items():
        world.records[kind].update(read)  # not assignments: nothing has changed
    transitions.reschedule(world, everything=True)


def _account_row(world: World) -> tuple[str, str, str]:
    once = {
        "now_s": world.now_s,
        "transition_s": world.transition_s,
        "probed": world.probed,
        "choices": asdict(world.choices),
        "n_changes": world.n_changes,
    }
    return ACCOUNT, "", _text(once)


def forget_changes(world: World) -> None:
    """Take the account as it is as the one in the last snapshot."""
    for records in world.records.values():
        records.forget_changes()


def _parsed(rows: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, Any]]:
    batch: list[tuple[str, str, str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield from _parsed_batch(batch)
            batch = []
    yield from _parsed_batch(batch)


def _parsed_batch(batch: list[tuple[str, str, str]]) -> Iterator[tuple[str, str, Any]]:
    # One list takes a fraction of the time of many short texts.
    bodies = json.loads(f"[{','.join(text for _, _, text in batch)}]")
    for (kind, name, _), body in zip(batch, bodies, strict=True):
        yield kind, name, body


def _text(record: object) -> str:
    return json.dumps(record, default=_members, separators=(",", ":"))


def _members(value: Any) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return {name: getattr(value, name) for name in value.__slots__}


def _endpoint(body: dict[str, Any]) -> Endpoint:
    deployment = body["deployment"]
    if deployment is not None:
        deployment["pending"] = frozenset(deployment["pending"])
        deployment = Deployment(**{**deployment, **_fleets(deployment, "fleet", "fallback")})
    return Endpoint(**{**body, **_fleets(body, "fleet"), "deployment": deployment})


def _experiment(body: dict[str, Any]) -> ExperimentRecord:
    body["stage"], body["variants_left"] = Stage(**body["stage"]), frozenset(body["variants_left"])
    return ExperimentRecord(**{**body, **_fleets(body, "fleet_before")})


def _fleets(body: Mapping[str, Any], *names: str) -> dict[str, Fleet | None]:
    return {name: None if body[name] is None else _fleet(body[name]) for name in names}


def _fleet(body: dict[str, Any]) -> Fleet:
    shadow = body["shadow"]
    return Fleet(
        config_name=body["config_name"],
        request=body["request"],
        production=tuple(map(_variant, body["production"])),
        shadow=None if shadow is None else ShadowView(**{**shadow, "variant": _variant(shadow["variant"])}),
        captures=tuple(map(_capture, body["captures"])),
        routing=body["routing"],
    )


def _variant(body: dict[str, Any]) -> VariantView:
    starting_s = body.get("starting_s")
    if starting_s:
        body["starting_s"] = tuple(starting_s)
    else:
        body.pop("starting_s", None)
    return VariantView(**body)


def _capture(body: dict[str, Any]) -> CaptureView:
    types = {name: tuple(body[name]) for name in ("csv_content_types", "json_content_types")}
    variants = None if body["variants"] is None else tuple(body["variants"])
    return CaptureView(**{**body, **types, "modes": frozenset(body["modes"]), "variants": variants})


_RECORDS: dict[str, Callable[[Any], object]] = {
    "models": lambda body: ResourceRecord(**body),
    "configs": lambda body: ResourceRecord(**body),
    "endpoints": _endpoint,
    "experiments": _experiment,
    "tags": lambda body: body,
    "latest_experiment": lambda body: body,
    "targets": lambda body: ScalableTarget(**body),
    "policies": lambda body: TrackingPolicy(**body),
    "activities": lambda body: ScalingActivity(**body),
}
