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


def launch_on_ec2(config: dict[str, Any]) -> None:
    """Start an instance of each node type as `ray up` does; raise where EC2 knows no such parameter."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    resolved = bootstrap_aws(prepare_config(config))
    provider = AWSNodeProvider(resolved["provider"], resolved["cluster_name"])
    for kind in resolved["available_node_types"].values():
        provider.create_node(kind["node_config"], {}, 1)


def haproxy_configuration(folder: Path) -> str:
    """What Ray Serve writes for HAProxy, for one application at 127.0.0.1:8000."""
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions

    door = BackendConfig(
        name="door", path_prefix="/", app_name="kcm", servers=[ServerConfig(name="r", host="127.0.0.1", port=1)]
    )
    http = HTTPOptions(host="127.0.0.1", port=8000)
    file = folder / "haproxy.cfg"
    config = HAProxyConfig(http_options=http, socket_path=str(folder / "admin.sock"))
    HAProxyApi(config, {"door": door}, config_file_path=str(file))._generate_config_file_internal()
    return file.read_text()
