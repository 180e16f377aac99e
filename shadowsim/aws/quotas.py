"""The account limits that an experiment meets before anything else: how many instances an endpoint may have.

Defaults of Service Quotas in us-east-1, as `list_aws_default_service_quotas` gave them on 10 February 2024
(gruntwork-io/terraform-aws-utilities, docs/quotas.md). An account's own may be higher, and no quota speaks of
experiments: a shadow test is refused for the instances that it adds. "Number of instances across active endpoints"
(L-7A3DF611) is 4 as well, and counts what an account has elsewhere, which is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

PER_ENDPOINT = 4  # "Maximum number of instances per endpoint", L-ED8DEE9B
BY_TYPE = {"ml.t2.medium": 2, "ml.m6g.large": 2, "ml.m6g.xlarge": 1}  # "<type> for endpoint usage"; all others 0


def default_quota(instance_type: str) -> int:
    """Return how many instances of a type a new account may have behind endpoints."""
    return BY_TYPE.get(instance_type, 0)


def quota_note(needed: Mapping[str, int]) -> str:
    """Return which default quotas an endpoint passes: "needs 6 x ml.m5.xlarge; default quota 0", "" for none.

    Parameters
    ----------
    needed : mapping of str to int
        Instances by type, those of both variants together.
    """
    notes = [
        f"needs {n} x {kind}; default quota {default_quota(kind)}"
        for kind, n in needed.items()
        if n > default_quota(kind)
    ]
    total = sum(needed.values())
    if total > PER_ENDPOINT:
        notes.append(f"needs {total} instances on one endpoint; default quota {PER_ENDPOINT}")
    return "; ".join(notes)
