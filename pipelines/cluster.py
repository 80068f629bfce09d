"""The Ray cluster that the stages run on: an existing one where an address is given, else a local one."""

from __future__ import annotations

import ipaddress
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from pydantic import Field, field_validator
from ray.exceptions import AuthenticationError

from kcm.config import Config
from kcm.errors import ConfigError, KcmError
from kcm.redact import PlainUrl
from pipelines._ray_private import loopback_kept
from pipelines.authentication import local_token, write_address
from pipelines.signals import handlers_restored

MIB = 2**20
CPUS_PER_TRIAL = 1


class ClusterConfig(Config):
    """Size and address of the cluster; nothing here changes a result."""

    address: PlainUrl | None = Field(None, description="An existing cluster; without one a local cluster is started.")
    node_ip: str = Field(
        "127.0.0.1",
        description="Address of a local cluster's node; with any but a loopback address Ray listens on all interfaces.",
    )
    num_cpus: int = Field(
        4, ge=1, description="Logical CPUs of a local cluster; more than cores, since workers share them."
    )
    object_store_mib: int = Field(256, ge=80, description="Object store of a local cluster.")
    num_workers: int | tuple[int, int] = Field(
        2, description="Train workers; a pair is the fewest and the most, as many as the cluster has room for."
    )
    cpus_per_worker: float = Field(0.5, gt=0, description="Logical CPUs that a train worker reserves.")
    max_failures: int = Field(3, ge=0, description="Times that a dead train worker is replaced.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints inside a task.")
    num_encoders: int = Field(2, ge=1, description="Actors that encode features and ask the large model.")
    num_trials: int = Field(2, ge=1, description="Tune trials that run at once, at most; fewer where there is no room.")
    workers_per_trial: int = Field(
        0, ge=0, description="Train workers of a trial; 0: a trial trains alone, which suits all but large data."
    )
    use_gpu: bool = Field(False, description="Whether train workers and encoders take GPUs.")
    gpus_per_encoder: float = Field(1.0, gt=0, description="GPU share of an encoder, where there are GPUs.")

    @field_validator("node_ip")
    @classmethod
    def _of_this_machine(cls, value: str) -> str:
        try:
            if not ipaddress.ip_address(value).is_unspecified:
                return value
        except ValueError:
            pass
        raise ValueError("must be an IP address of this machine, such as 127.0.0.1")

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
        return "cuda" if self.use_gpu else "cpu"

    @property
    def within_trials(self) -> ClusterConfig | None:
        """The train workers of a trial as a cluster of its own; None where a trial trains alone."""
        return self.model_copy(update={"num_workers": self.workers_per_trial}) if self.workers_per_trial else None

    def concurrent_trials(self, resources: Mapping[str, float]) -> int:
        """How many trials may run at once within a cluster's `resources`, at least one.

        Ray places trials before their train workers: with one trial too many, all wait forever for the resources that
        the others hold (ray#54305). Trials that train alone may queue.
        """
        if self.workers_per_trial == 0:
            return self.num_trials
        room = resources.get("CPU", 0.0) / self.cpus_of_trial
        if self.use_gpu:
            room = min(room, resources.get("GPU", 0.0) / self.workers_per_trial)
        return max(1, min(self.num_trials, int(room)))

    @property
    def cpus_of_trial(self) -> float:
        """Logical CPUs that a trial reserves together with its train workers."""
        return CPUS_PER_TRIAL + self.workers_per_trial * self.cpus_per_worker


def prepare_environment() -> None:
    """Environment variables for Ray's processes; the user's own values win."""
    for name, value in {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # saves 4 s at every start of a trainer
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's C++ side warns on the terminal about its own actors
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is to stop the run, not to end a search early as if it were whole
        "TUNE_GLOBAL_CHECKPOINT_S": "1",  # a killed search forgets no more than its last second
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def connected(config: ClusterConfig, folder: Path | None = None) -> Iterator[None]:
    """A connection to the cluster within the block; an open connection is left open.

    A local cluster asks for a token and listens on `config.node_ip`. Its address and token are in `folder`, which only
    its owner can read (`pipelines.authentication.find_cluster`).
    """
    if ray.is_initialized():
        yield
        return
    prepare_environment()
    address = config.address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        if not address:
            _check_room(config)
        private = None if address else stack.enter_context(local_token(folder))
        with _silent_stderr(), handlers_restored(signal.SIGTERM):
            if address:
                join(address)
            else:
                _start(config)
        stack.callback(ray.shutdown)  # before the token goes
        if private:  # a local cluster
            write_address(private, ray.get_runtime_context().gcs_address)
        yield


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}


def join(address: str) -> None:
    """Connect to an existing cluster. KcmError where none answers, or it asks for another token."""
    try:
        with loopback_kept():
            ray.init(address=address, **_QUIET)
    except ConnectionError as error:
        raise KcmError(
            f"no Ray cluster answers: {error}", where=address, mend="Start one, or drop the address"
        ) from error
    except AuthenticationError as error:
        raise KcmError(
            f"the Ray cluster refuses us: {str(error).partition('. ')[0]}",
            where=address,
            mend="Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file of its token",
        ) from error


def _start(config: ClusterConfig) -> None:
    """Start a local cluster."""
    with loopback_kept():
        ray.init(
            # Somebody else's cluster on this machine, which Ray would find by itself, is not ours to use.
            address="local",
            num_cpus=config.num_cpus,
            object_store_memory=config.object_store_mib * MIB,
            include_dashboard=False,
            _node_ip_address=config.node_ip,
            **_QUIET,
        )


def _check_room(config: ClusterConfig) -> None:
    """Refuse train workers for which a local cluster, which never grows, has no room: Ray would wait forever."""
    fewest = config.num_workers if isinstance(config.num_workers, int) else config.num_workers[0]
    if fewest * config.cpus_per_worker > config.num_cpus:
        raise ConfigError(
            f"{fewest} train workers of {config.cpus_per_worker:g} CPUs each have no room in a local cluster of"
            f" {config.num_cpus}",
            where="cluster.num_workers",
            mend="Lower it or cluster.cpus_per_worker, or raise cluster.num_cpus",
        )
    if config.cpus_of_trial > config.num_cpus:
        raise ConfigError(
            f"a trial and its {config.workers_per_trial} train workers take {config.cpus_of_trial:g} CPUs, a local"
            f" cluster has {config.num_cpus}",
            where="cluster.workers_per_trial",
            mend="Lower it or cluster.cpus_per_worker, or raise cluster.num_cpus",
        )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hide stderr while Ray starts: its C++ side announces its log level there. Errors are raised anyway."""
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
