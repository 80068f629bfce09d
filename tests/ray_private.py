"""Every use that tests make of private parts of Ray; those of `pipelines._ray_private` have their own tests.

Ray's private modules are imported inside the functions, since most tests need few of them.
"""

from pathlib import Path
from typing import Any


def session_folder() -> Path:
    """Where the local cluster writes its logs and sockets."""
    from ray._private import worker

    return Path(worker._global_node.get_session_dir_path())


def asks_for_a_token() -> bool:
    """Whether Ray's processes ask each other for a token; it is in mode "token", not "disabled"."""
    from ray._raylet import get_authentication_mode

    mode: int = get_authentication_mode()
    return {0: False, 1: True}[mode]


def keeps_loopback() -> bool:
    """Whether Ray leaves 127.0.0.1 as it stands, rather than replace it by the machine's outward address."""
    from ray._private import ray_constants

    return not ray_constants.ENABLE_RAY_CLUSTER


def validate_autoscaler(config: dict[str, Any]) -> None:
    """Raise where Ray's cluster launcher refuses a configuration."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def started_nodes(
    config: dict[str, Any], resources: dict[str, float], selector: dict[str, str] | None = None, lacking: str = ""
) -> dict[str, int]:
    """The nodes that Ray's autoscaler starts for an actor, by kind; `lacking` could not be had before."""
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    operators = [LabelSelectorOperator.Value(f"LABEL_OPERATOR_{name}") for name in ("IN", "NOT_IN")]
    labels = [(name, operators[label.startswith("!")], [label.lstrip("!")]) for name, label in (selector or {}).items()]
    actor = ResourceRequestUtil.make(resources, label_selectors=[labels])
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=AutoscalingConfig(prepare_config(config), skip_content_hash=True).get_node_type_configs(),
        max_num_nodes=config["max_workers"],
        resource_requests=ResourceRequestUtil.group_by_count([actor]),
        recoverable_resource_availabilities={lacking: 0.0} if lacking else {},
    )
    return {launch.instance_type: launch.count for launch in ResourceDemandScheduler().schedule(request).to_launch}
