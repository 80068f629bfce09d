"""Rows through a pool of actors: a shard is read, worked on and written where an actor is; the driver holds counts.

A pass makes one file of every shard, with the same rows in the same order. A shard is cut into pieces, each of which is
committed to the scratch folder as a whole, and joined there as soon as all of them are done; an interrupted pass goes
on with the pieces that are missing.

    scratch/task-0003.00001.parquet                     a finished shard
    scratch/task-0003.00001.0000001024-0000002048.piece    its rows 1,024 to 2,047, until all its pieces are there
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kcm.errors import DataError, KcmError
from pipelines.batch.pieces import Job, Took, Worker, join_pieces, make, make_again, num_rows, took_of, total
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.storage import Storage

_JOBS_PER_ACTOR = 2  # one is worked on, the next is there already


def map_shards(
    sources: Mapping[str, Path],
    worker: type[Worker],
    arguments: Mapping[str, Any],
    *,
    rows_per_piece: int,
    cluster: ClusterConfig | None,
    scratch: Path,
    storage: Storage,
    bar: Bar,
) -> tuple[dict[str, Path], Took]:
    """Make a file of every shard by `worker(**arguments)`: the files by name below `scratch`, and what all took.

    `sources` are the shards by the names of what is made of them. `rows_per_piece` are committed together, and are what
    a kill costs: whoever makes them keeps them in the storage. The workers are the actors of a pool; without `cluster`
    there is one, in this process.
    Raises what a worker raises, and ArtefactError for a shard that cannot be read.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    plan = Plan({name: storage.fetch(source) for name, source in sources.items()}, rows_per_piece, scratch)
    bar.update(plan.num_done, plan.num_rows)
    here = cluster is None or not ray.is_initialized()
    build = _Build(worker, arguments if here else {name: ray.put(value) for name, value in arguments.items()})
    for num_made in _here(Hands(build, storage), plan) if here else _pooled(build, storage, plan, cluster):
        plan.num_done += num_made
        bar.update(plan.num_done, plan.num_rows)
    made = {name: storage.fetch(scratch / name) for name in sources}
    return made, total(took_of(target) for target in made.values())


def place(made: Mapping[str, Path], folder: Path) -> None:
    """Move the files that a pass has made to a folder, under their names."""
    for name, path in made.items():
        os.replace(path, folder / name)


class Plan:
    """The jobs of a pass, in the order of the shards, and how many rows are done."""

    def __init__(self, sources: Mapping[str, Path], rows_per_piece: int, scratch: Path) -> None:
        self._sources, self._rows_per_piece, self._scratch = sources, rows_per_piece, scratch
        self._sizes = {name: num_rows(source) for name, source in sources.items()}
        self._waiting: dict[str, tuple[set[Path], tuple[Path, ...]]] = {}  # pieces of a shard that are left, and all
        self.num_rows = sum(self._sizes.values())
        self.num_done = 0

    @property
    def num_pieces(self) -> int:
        """Pieces of all shards."""
        return sum(max(1, -(-size // self._rows_per_piece)) for size in self._sizes.values())

    def jobs(self) -> Iterator[Job]:
        """The pieces that are to be made or, where they are there, looked at; made as they are asked for."""
        for name, source in self._sources.items():
            size, target = self._sizes[name], self._scratch / name
            if size <= self._rows_per_piece or target.exists():
                yield Job(name, source, 0, size, target, is_made=target.exists())
                continue
            pieces = [
                Job(name, source, start, stop, piece, is_made=piece.exists())
                for start in range(0, size, self._rows_per_piece)
                for stop in [min(start + self._rows_per_piece, size)]
                for piece in [target.with_suffix(f".{start:010}-{stop:010}.piece")]
            ]
            parts = tuple(piece.target for piece in pieces)
            self._waiting[name] = set(parts), parts
            yield from pieces

    def after(self, job: Job) -> Job | None:
        """The joining of the pieces of a shard, when `job` was the last of them."""
        left, parts = self._waiting.get(job.name, (set(), ()))
        left.discard(job.target)
        if left or not parts:
            return None
        del self._waiting[job.name]
        return Job(job.name, job.source, 0, self._sizes[job.name], self._scratch / job.name, parts)


class Hands:
    """A worker with its files: what runs in an actor."""

    def __init__(self, build: _Build, storage: Storage) -> None:
        self._build, self._storage = build, storage
        self._work: Worker | None = None

    def do(self, job: Job) -> int:
        """Make a piece, or join the pieces of a shard; gives the rows that are done by that."""
        if job.parts:
            join_pieces([self._storage.fetch(part) for part in job.parts], job.target)
            self._storage.keep(job.target)
            self._storage.drop(job.parts)
            return 0
        # Not when the actor starts: what is raised there reaches nobody as it is.
        self._work = self._work or self._build()
        self._storage.fetch(job.source)
        try:
            if job.is_made:
                self._storage.fetch(job.target)
                make_again(self._work, job)
            else:
                make(self._work, job)
        except DataError as error:
            error.where = error.where or str(job.source)
            raise
        self._storage.keep(job.target)
        return job.stop - job.start


@dataclass(frozen=True)
class _Build:
    """Makes a worker; arguments may be in the object store, of which each node holds one copy."""

    worker: type[Worker]
    arguments: Mapping[str, Any]

    def __call__(self) -> Worker:
        given = self.arguments.items()
        return self.worker(**{n: ray.get(value) if isinstance(value, ray.ObjectRef) else value for n, value in given})


def _here(hands: Hands, plan: Plan) -> Iterator[int]:
    for job in plan.jobs():
        yield hands.do(job)
        if (join := plan.after(job)) is not None:
            yield hands.do(join)


def _pooled(build: _Build, storage: Storage, plan: Plan, cluster: ClusterConfig) -> Iterator[int]:
    """The jobs by actors; those of one that dies are done again."""
    actors = pool_of(Hands, cluster, min(cluster.num_encoders, plan.num_pieces), build=build, storage=storage)
    try:
        yield from _scheduled(actors, plan)
    finally:
        for actor in actors:
            ray.kill(actor)


def pool_of(kind: type, cluster: ClusterConfig, size: int, **arguments: Any) -> list[Any]:
    """Actors that encode or ask; one that dies is started anew, and asked again."""
    remote = ray.remote(kind).options(
        num_cpus=0 if cluster.use_gpu else 1,
        num_gpus=cluster.gpus_per_encoder if cluster.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=3,
    )
    return [remote.remote(**arguments) for _ in range(size)]


def _scheduled(actors: Sequence[Any], plan: Plan) -> Iterator[int]:
    """The rows done by each job, as they come; the next job goes to the actor that has least to do."""
    jobs, joins = plan.jobs(), deque[Job]()
    running: dict[Any, tuple[Any, Job]] = {}
    load = dict.fromkeys(actors, 0)
    while True:
        while len(running) < _JOBS_PER_ACTOR * len(actors):
            job = joins.popleft() if joins else next(jobs, None)
            if job is None:
                break
            actor = min(actors, key=load.__getitem__)
            load[actor] += 1
            running[actor.do.remote(job)] = actor, job
        if not running:
            return
        (ready,), _ = ray.wait(list(running))
        actor, job = running.pop(ready)
        load[actor] -= 1
        yield result_of(ready)
        if (join := plan.after(job)) is not None:
            joins.append(join)


def run_remotely(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """The results of a function for the arguments of each call, by other processes of this node, which see its files.

    There are as many at a time as this process has cores. Without a cluster it runs in this process.
    """
    if not ray.is_initialized():
        return [function(*arguments) for arguments in calls]
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(function).options(num_cpus=0, max_retries=3, scheduling_strategy=here)
    running: list[Any] = []
    for arguments in calls:
        if len(running) >= len(os.sched_getaffinity(0)):
            ray.wait(running, num_returns=len(running) - len(os.sched_getaffinity(0)) + 1)
        running.append(remote.remote(*arguments))
    return [result_of(reference) for reference in running]


def result_of(reference: Any) -> Any:
    """The result of a remote call; an error of ours is raised as it was there."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, KcmError):
            raise error.cause from None
        raise


def silence_ray_data() -> None:
    """Turn off Ray Data's progress output; the stage has its own bar."""
    import ray.data  # an actor does without

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
