"""Describes the experiments of a server for the page: a list of all, and one of them in detail.

A description is a JSON object. It is made from the account and the counts alone, which the event loop owns, in at most
some milliseconds; what takes longer (timeline.py, looks.py) is computed elsewhere and put in.
"""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from typing import Any

from shadowsim import __version__
from shadowsim.aws.lifecycle import ACTIONS
from shadowsim.frames import ROLES
from shadowsim.server.data_plane.counts import Totals
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.page.looks import Looks
from shadowsim.server.state.account import ExperimentRecord, World
from shadowsim.server.state.fleet import Body

MOST_LISTED = 100


def account_state(world: World, now_s: float, scale: float) -> dict[str, Any]:
    """Return the clock of the schedules, and a list of experiments: those that are live first, then the latest."""
    listed = heapq.nlargest(MOST_LISTED, world.experiments.values(), key=lambda e: (e.live, e.stage.live, e.modified_s))
    return {
        "version": __version__,
        "now_s": now_s,
        "scale": scale,
        "n_experiments": len(world.experiments),
        "experiments": [_row(record) for record in listed],
    }


def _row(record: ExperimentRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "status": record.stage.status,
        "endpoint": record.endpoint_name,
        "percentage": record.percentage,
        "start_s": record.stage.start_s,
        "end_s": record.stage.end_s,
    }


def experiment_state(world: World, record: ExperimentRecord, live: LiveEndpoint | None) -> dict[str, Any]:
    """Return what SageMaker knows of an experiment, and the actions that its status allows.

    `live` is its endpoint, if that serves.
    """
    stage, pools = record.stage, {pool.variant.name: pool for pool in (live.serving() if live else ())}
    allowed = world.choices.table.get(stage.status, {})
    sides = {}
    for role, name in zip(ROLES, (record.source_name, record.shadow_name), strict=True):
        variant: Body = next((v for v in record.request["ModelVariants"] if v["VariantName"] == name), {})
        pool = variant.get("InfrastructureConfig", {}).get("RealTimeInferenceConfig", {})
        sides[role] = {
            "variant": name,
            "model": variant.get("ModelName", ""),
            "instances": f"{pool.get('InstanceCount', '?')} x {pool.get('InstanceType', '?')}",
            "in_flight": sum(pools[name].outstanding) if name in pools else None,
        }
    return {
        **_row(record),
        "description": record.request.get("Description", ""),
        "reason": record.reason or "",
        "created_s": record.created_s,
        "completed_s": record.completed_s,
        "is_live": stage.live,
        "actions": [action for action in ACTIONS if action in allowed],
        "sides": sides,
    }


def counts_state(logbook: Logbook) -> dict[str, Any]:
    """Return the numbers of requests, errors and copies of a live experiment since the server first saw it."""
    source, shadow = (series.totals.get(role, Totals()) for series, role in zip(logbook.series, ROLES, strict=True))
    return {
        "began_s": logbook.began_s,
        "requests": {"source": source.n, "shadow": shadow.n},
        "errors": {"source": source.model_errors, "shadow": shadow.model_errors},
        "lost": dict(sorted(shadow.lost.items())),
        "share": shadow.n / source.n if source.n else None,
        "knows_work": all(n is not None for n in logbook.n_workers),
    }


def looks_state(looks: Looks, age_s: float) -> dict[str, Any]:
    """Return what the last look found, and in how many wall seconds the next one is due at an age."""
    plan, n_looks = looks.plan, len(looks.plan.fractions)
    following = looks.look + 1
    return {
        "look": looks.look,
        "looks": n_looks,
        "at_s": plan.age_s(looks.look) if looks.look else None,
        "next_in_s": plan.made_at_s(following) - age_s if following <= n_looks else None,
        "found": looks.found,
    }


def moment_text(seconds: float) -> str:
    """Return a moment of the schedules' clock as text: "2026-12-04 10:00:00 UTC"."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
