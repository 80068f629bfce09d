"""How many replicas answer a rate of requests in time, on paper: each pool of replicas is a queue of Erlang (M/M/c).

Work takes exponential times there, which is longer at the tail than what networks take, and nothing is batched: a real
service does better. What clients send comes at random, not in step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, log

from pydantic import Field

from kcm.config import Config
from kcm.errors import ConfigError
from pipelines.serve.config import ServeConfig

LATE = 0.01  # share of the requests that may take longer than the p99


class Demand(Config):
    """What is asked of a service, and what its work takes, where that is known better than by the run."""

    rps: float = Field(100.0, gt=0, description="Requests a second, of one item each.")
    p99: float = Field(100.0, gt=0, description="Milliseconds within which 99% of the kept items are answered.")
    p99_large: float | None = Field(
        None, gt=0, description="The same of what the large model answers; three times what an answer takes without it."
    )
    door_ms: float = Field(12.0, ge=0, description="What HTTP, routing and log take of a request (docs/serving.md).")
    small_ms: float | None = Field(None, gt=0, description="What the encoder takes of an item; as in the run without.")
    large_ms: float | None = Field(None, gt=0, description="What an answer of the large model takes; likewise.")
    call_rate: float | None = Field(None, ge=0, le=1, description="Share that is escalated; as on the test rows.")
    cpu_hour: float = Field(0.05, ge=0, description="Price of a core for an hour, in the currency of `costs`.")
    gpu_hour: float = Field(2.5, ge=0, description="Price of a GPU for an hour.")


@dataclass(frozen=True)
class Pool:
    """Replicas, the share of the time that each works, and the milliseconds within which 99% of its work is done."""

    replicas: int
    busy: float
    p99_ms: float


@dataclass(frozen=True)
class Capacity:
    """What a service needs: `large` is None where nothing is asked of the large model."""

    doors: Pool
    large: Pool | None
    cpus: float
    gpus: float
    calls_per_hour: float


def capacity(
    demand: Demand, serve: ServeConfig, *, call_rate: float, small_ms: float, large_ms: float, at_once: int = 1
) -> Capacity:
    """The fewest doors and replicas of the large model; with a `small_ms` of zero those of the large model alone.

    A replica of the large model gives `at_once` answers at a time. Raises ConfigError for a time that no number of
    replicas can keep.
    """
    doors, large = pool(demand.rps, demand.door_ms + small_ms, demand.p99, "--p99"), None
    if call_rate:
        within = demand.p99_large or doors.p99_ms + 3 * large_ms
        answering = pool(demand.rps * call_rate, large_ms, within - doors.p99_ms, "--p99-large")
        large = replace(answering, replicas=ceil(answering.replicas / at_once))
    replicas = large.replicas if large else 0
    return Capacity(
        doors,
        large,
        cpus=doors.replicas * serve.cpus + replicas * serve.large.cpus,
        gpus=doors.replicas * serve.gpus + replicas * serve.large.gpus,
        calls_per_hour=3600 * demand.rps * call_rate,
    )


def pool(rate: float, work_ms: float, within_ms: float, option: str) -> Pool:
    """The fewest replicas that do work which comes `rate` times a second and takes `work_ms`, 99% of it in time.

    ConfigError for work that takes longer by itself.
    """
    if work_ms > within_ms:
        raise ConfigError(
            f"work of {work_ms:.0f} ms is not done within {within_ms:.0f} ms by any number of replicas",
            where=option,
            hint="Allow more time, or take a smaller encoder or large model",
        )
    load = rate * work_ms / 1000
    replicas = floor(load) + 1
    while (p99_ms := work_ms * (1 + wait(replicas, load))) > within_ms:
        replicas += 1
    return Pool(replicas, load / replicas, p99_ms)


def wait(replicas: int, load: float) -> float:
    """The wait that 1% of the work exceeds, in times of one piece of work, by Erlang's formula C."""
    blocked = 1.0
    for number in range(1, replicas + 1):
        blocked = load * blocked / (number + load * blocked)
    waits = blocked / (1 - load / replicas * (1 - blocked))
    return max(0.0, log(waits / LATE)) / (replicas - load)
