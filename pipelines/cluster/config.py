"""The section `cluster` of a configuration, and whether there is a cluster: without an import of Ray, which is slow."""

from __future__ import annotations

import math
import os
import sys
from typing import Any, Self

from pydantic import Field, field_validator

from kcm.config import Config
from kcm.errors import ConfigError
from kcm.redact import PlainUrl


class ClusterConfig(Config):
    """Size and address of the cluster; nothing here changes a result."""

    address: PlainUrl | None = Field(None, description="An existing cluster; without one a local cluster is started.")
    in_process_rows: int = Field(
        50_000,
        ge=0,
        description="Without an address, a run on at most so many rows starts no cluster, unless it trains by steps.",
    )
    num_cpus: int = Field(
        4,
        ge=1,
        description="Logical CPUs of a local cluster; more than cores, because workers share cores. A serving "
        "cluster gets at least what its replicas reserve.",
    )
    num_workers: int | tuple[int, int] = Field(
        2,
        description="Most train workers; training by steps uses one per 512 rows of a step, as more would be slower. "
        "A pair gives the fewest and the most: as many are used as the cluster has room for.",
    )
    cpus_per_worker: float = Field(0.5, gt=0, description="Logical CPUs that a train worker reserves.")
    num_encoders: int = Field(2, ge=1, description="Actors that encode features and ask the large model.")
    gpus_per_worker: float = Field(
        0.0,
        ge=0,
        description="GPUs of a train worker, an encoder and a Tune trial, possibly a fraction; above 0, a run in "
        "process uses the machine's GPU. Not measured on a GPU.",
    )
    accelerator_type: str | None = Field(
        None, description="Kind of the train workers' GPUs, as Ray names it, such as A10G; null: any kind."
    )

    @field_validator("num_workers", mode="before")
    @classmethod
    def _count_or_pair(cls, value: Any) -> Any:
        ends = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
        if all(isinstance(end, int) and not isinstance(end, bool) for end in ends) and 1 <= ends[0] <= ends[1]:
            return value
        raise ValueError("must be a count from 1, or a pair such as [1, 4], the smaller first")

    @property
    def device(self) -> str:
        """The torch device of encoders; its class is part of a feature's fingerprint."""
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def fewest_workers(self) -> int:
        """The least number of train workers for a run."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    def with_room_for(self, cpus: float) -> Self:
        """A copy whose local cluster has at least this many logical CPUs; a larger reservation would wait forever."""
        return self.model_copy(update={"num_cpus": max(self.num_cpus, math.ceil(cpus))})


def is_connected() -> bool:
    """Whether this process is connected to a cluster, which a process without Ray is not."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def address_of(config: ClusterConfig) -> str | None:
    """The address of an existing cluster; None to start a local one."""
    return config.address or os.environ.get("RAY_ADDRESS")


def starts_local(config: ClusterConfig) -> bool:
    """Whether `pipelines.cluster.connection.connected` starts a cluster of its own, which ends with its block."""
    return not is_connected() and address_of(config) is None


def device_here(gpus: float) -> str:
    """The torch device of this process: a GPU of the machine if some are asked for and it has one."""
    if not gpus:
        return "cpu"
    import torch  # slow to import

    return "cuda" if torch.cuda.is_available() else "cpu"


def require_room(config: ClusterConfig) -> None:
    """Refuse what a local cluster has no room for: it never grows, so Ray would wait forever."""
    if not starts_local(config):
        return
    if device_here(config.gpus_per_worker) != config.device:
        raise ConfigError(
            f"gpus_per_worker = {config.gpus_per_worker:g}, and this machine has no GPU",
            where="cluster.gpus_per_worker",
            hint="Set it to 0, or give cluster.address of a cluster with GPUs",
        )
    fewest = config.fewest_workers
    if fewest * config.cpus_per_worker > config.num_cpus:
        raise ConfigError(
            f"no room for {fewest} train workers with {config.cpus_per_worker:g} CPUs each in a local cluster with "
            f"{config.num_cpus} CPUs",
            where="cluster.num_workers",
            hint="Lower it or cluster.cpus_per_worker, or raise cluster.num_cpus",
        )
