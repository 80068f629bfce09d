"""Promise: a run that asks for GPUs which nobody has ends in one line, before anything is computed."""

from typing import Any

import pytest
import ray
import torch

from kcm.errors import ConfigError
from pipelines.cluster.config import ClusterConfig, device_here, require_room
from pipelines.cluster.connection import require_gpus
from pipelines.training.driver import backend

TWO_WORKERS = ClusterConfig(num_workers=2, gpus_per_worker=0.5)


def test_a_machine_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.config.starts_local", lambda config: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"gpus_per_worker = 0\.5, and this machine has no GPU"):
        require_room(TWO_WORKERS)
    require_room(ClusterConfig())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_room(TWO_WORKERS)
    assert (device_here(0.5), device_here(0)) == ("cuda", "cpu")


@pytest.mark.parametrize(
    ("num_gpus", "labels", "ends"), [(1, {}, False), (0, {}, True), (0, {"ray.io/node-group": "g"}, False)]
)
def test_a_fixed_cluster_without_the_gpus_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    num_gpus: int,
    labels: dict[str, Any],
    ends: bool,
) -> None:
    """Promise: a cluster that grows is waited for, and the run says for what."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": float(num_gpus)})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Labels": labels}])
    if ends:
        with pytest.raises(ConfigError, match="2 workers need 1 GPUs, and the cluster has 0"):
            require_gpus(TWO_WORKERS)
        return
    require_gpus(TWO_WORKERS)
    assert ("waiting for its autoscaler" in capsys.readouterr().err) == bool(labels)


@pytest.mark.parametrize(("gpus", "group"), [(0, "gloo"), (0.5, "gloo"), (1, "cpu:gloo,cuda:nccl")])
def test_workers_with_whole_gpus_add_up_by_nccl(gpus: float, group: str) -> None:
    assert backend(gpus) == group
