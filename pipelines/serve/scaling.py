"""How many replicas a deployment needs whose replicas come and go, by the work that it is offered."""

from __future__ import annotations

from typing import Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

LOAD = "load"  # what a replica reports: seconds of work that it was offered in a second, refused work counted
HIGHEST_LOAD = 0.7  # of a replica; the queue before one that is busier grows fast


def by_offered_load(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Replicas by the load that they report, or by the requests that are under way where that asks for more.

    Ray Serve's own policy counts requests under way alone. A request may be one item or a hundred, and what a full
    queue refuses is never under way: an overload would look no larger than the queue.
    """
    replicas, state = replica_queue_length_autoscaling_policy(context)
    loads = (context.aggregated_metrics or {}).get(LOAD, {})
    return max(replicas, sum(loads.values()) / HIGHEST_LOAD), state
