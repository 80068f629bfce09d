"""The number of replicas of an autoscaling deployment, from the work that it is offered."""

from __future__ import annotations

from typing import Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

LOAD = "load"  # a replica's report: offered work in seconds per second, refused work included
HIGHEST_LOAD = 0.7  # largest load of a replica: above it, the queue grows fast


def by_offered_load(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """The number of replicas for the reported load, or for the open requests if that number is larger.

    Ray Serve's own policy counts only open requests. A request may be one item or a hundred, and a request that a full
    queue refuses is never open: an overload would look no larger than the queue.
    """
    replicas, state = replica_queue_length_autoscaling_policy(context)
    loads = (context.aggregated_metrics or {}).get(LOAD, {})
    return max(replicas, sum(loads.values()) / HIGHEST_LOAD), state
