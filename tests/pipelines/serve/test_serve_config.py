import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.cluster.config import ClusterConfig
from pipelines.serve.config import ReplicaConfig, ServeConfig
from pipelines.serve.deploy.app import deployment_options, http_replica_options, large_options


def test_it_answers_by_the_address_that_it_listens_on() -> None:
    assert ServeConfig(host="192.0.2.7").hosts[-1] == "192.0.2.7"
    assert ServeConfig(host="fd00::7").hosts[-1] == "[fd00::7]"
    assert ServeConfig(host="0.0.0.0").hosts == ServeConfig().hosts[:3] == ServeConfig(host="::").hosts


def test_replicas_are_on_nodes_with_the_selected_labels() -> None:
    """Promise: every replica is on a node with the labels that are asked for."""
    stay = {"ray.io/market-type": "!spot"}
    config = parse_config(ServeConfig, {"label_selector": stay, "large": {"min_replicas": 0}})
    found = [http_replica_options(config), large_options(config), deployment_options(ReplicaConfig(), config)]
    assert [options["ray_actor_options"]["label_selector"] for options in found] == [stay] * 3
    assert "label_selector" not in http_replica_options(ServeConfig())["ray_actor_options"]


def test_replicas_autoscale_if_the_fewest_is_set() -> None:
    """Promise: replicas of either deployment follow the load if the config names the fewest."""
    assert large_options(ServeConfig())["num_replicas"] == 1
    assert large_options(ServeConfig())["max_ongoing_requests"] == 64 + 256  # none waits where no time is kept
    options = large_options(parse_config(ServeConfig, {"large": {"min_replicas": 0, "num_replicas": 3}}))
    assert "num_replicas" not in options
    scaling = options["autoscaling_config"]
    assert (scaling.min_replicas, scaling.max_replicas, scaling.downscale_delay_s) == (0, 3, 300.0)
    http = http_replica_options(parse_config(ServeConfig, {"min_replicas": 1, "num_replicas": 3}))
    assert (http["autoscaling_config"].min_replicas, http["autoscaling_config"].max_replicas) == (1, 3)
    assert "num_replicas" not in http


def test_a_local_cluster_grows_to_what_all_replicas_reserve() -> None:
    large = {"num_replicas": 2, "cpus": 1.5}
    config = ServeConfig.model_validate({"num_replicas": 2, "large": large})
    assert config.reserved_cpus == 2 * 1 + 2 * 1.5
    assert ClusterConfig(num_cpus=4).with_room_for(config.reserved_cpus).num_cpus == 5
    assert ClusterConfig().with_room_for(ServeConfig().reserved_cpus) == ClusterConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_batch_size": 100, "max_ongoing_requests": 10}, "requests of one item never fill a batch"),
        ({"timeout_s": 5.0, "large": {"timeout_s": 5.0}}, "the service needs time to answer without it"),
        ({"limits": {"max_items": 2000}}, "max_items must be at most 1024"),
        ({"large": {"min_replicas": 2}}, r"min_replicas \(2\) must not exceed num_replicas \(1\)"),
        ({"min_replicas": 0}, "min_replicas must be at least 1"),
        ({"large": {"max_queue": 5}}, "did you mean 'large.max_queued_requests'"),
        ({"num_replicas": 8, "auth": {"requests_per_minute": 4}}, r"requests_per_minute \(4\) must be at least num_"),
        ({"allowed_hosts": ["kcm.example.org:443"]}, "a name without a port"),
    ],
)
def test_a_config_that_cannot_work_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ServeConfig, values)
