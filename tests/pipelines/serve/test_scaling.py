from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from pipelines.serve.scaling import by_offered_load


def context(requests: float, loads: dict[Any, float] | None, running: int) -> AutoscalingContext:
    """Replicas that are to have 4 requests each."""
    given: dict[str, Any] = dict.fromkeys(
        (
            "app_name",
            "total_queued_requests",
            "raw_metrics",
            "last_scale_up_time",
            "last_scale_down_time",
            "current_time",
        )
    )
    return AutoscalingContext(
        deployment_id=None,  # type: ignore[arg-type]
        deployment_name="large",
        current_num_replicas=running,
        target_num_replicas=running,
        running_replicas=[],
        total_num_requests=requests,
        aggregated_metrics={"load": loads} if loads else None,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=9,
        policy_state={},
        config=AutoscalingConfig(target_ongoing_requests=4),
        **given,
    )


@pytest.mark.parametrize(
    ("requests", "loads", "running", "replicas"),
    [
        (8, None, 2, 2),  # as Ray Serve's own policy where nothing is reported
        (8, {"a": 0.2, "b": 0.2}, 2, 2),
        (8, {"a": 2.1, "b": 2.1}, 2, 6),  # most of it was refused, and so is not among the requests
        (16, {"a": 0.7, "b": 0.7}, 2, 4),  # they wait
        (0, {"a": 0.0, "b": 0.0}, 2, 0),
        (1, None, 0, 1),  # a request where no replica runs starts one
    ],
)
def test_replicas_are_as_many_as_requests_or_the_load_ask_for(
    requests: float, loads: dict[Any, float] | None, running: int, replicas: int
) -> None:
    assert by_offered_load(context(requests, loads, running))[0] == pytest.approx(replicas)
