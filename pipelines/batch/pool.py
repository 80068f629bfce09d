"""Rows through a pool of actors: a shard is read, worked on and written where an actor is; the driver holds counts.

Whoever makes a shard keeps it in the storage and tells its hash: no byte of it passes through the driver.

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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kcm.errors import DataError, KcmError
from pipelines.batch.pieces import Job, RowsAhead, Took, Worker, join_pieces, make, make_again, sizes_of, took_of, total
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.storage import Kept, Storage

_JOBS_PER_ACTOR = 2  # one is worked on, the next is there already
_FEW = 8  # calls that are not worth the start of other processes


@dataclass(frozen=True)
class Made:
    """A shard that was made, what its rows took, and what was seen in it."""

    kept: Kept
    took: Took
    seen: Any = None


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
    look: Callable[[Path], Any] | None = None,
) -> tuple[dict[str, Made], Took]:
    """Make a file of every shard by `worker(**arguments)`: the files by name below `scratch`, and what all took.

    `sources` are the shards by the names of what is made of them. `rows_per_piece` are committed together, and are what
    a kill costs: whoever makes them keeps them in the storage. The workers are the actors of a pool; without `cluster`
    there is one, in this process, which reads the shards by ranges. `look` is called with every shard that was made,
    where it was made.
    Raises what a worker raises, and ArtefactError for a shard that cannot be read.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    plan = Plan(sources, sizes_of(sources, storage), rows_per_piece, scratch, set(storage.names(scratch)))
    bar.update(plan.num_done, plan.num_rows)
    cluster = cluster if ray.is_initialized() else None
    build = _Build(worker, arguments if cluster is None else {n: ray.put(value) for n, value in arguments.items()})
    hands: dict[str, Any] = {"build": build, "storage": storage, "look": look, "fetches": cluster is not None}
    made: dict[str, Made] = {}
    for num_rows, shard in _here(Hands(**hands), plan) if cluster is None else _pooled(hands, plan, cluster):
        made |= {} if shard is None else {shard.kept.path.name: shard}
        plan.num_done += num_rows
        bar.update(plan.num_done, plan.num_rows)
    return {name: made[name] for name in sources}, total(made[name].took for name in sources)


def kept(made: Mapping[str, Made]) -> dict[str, Kept]:
    """The files that a pass has made, by name."""
    return {name: each.kept for name, each in made.items()}


class Plan:
    """The jobs of a pass, in the order of the shards, and how many rows are done.

    `sizes` are the rows of every shard, `there` the names of what an earlier attempt has made.
    """

    def __init__(
        self,
        sources: Mapping[str, Path],
        sizes: Mapping[str, int],
        rows_per_piece: int,
        scratch: Path,
        there: Collection[str],
    ) -> None:
        self._sources, self._rows_per_piece, self._scratch = sources, rows_per_piece, scratch
        self._sizes, self._there = sizes, there
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
            if size <= self._rows_per_piece or name in self._there:
                yield Job(name, source, 0, size, target, is_made=name in self._there)
                continue
            pieces = [
                Job(name, source, start, stop, piece, is_made=piece.name in self._there)
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
    """A worker with its files: what runs in an actor.

    Where `fetches`, shards come to this node as a whole: others there make further pieces of them. Else they are read
    by ranges.
    """

    def __init__(
        self, build: _Build, storage: Storage, look: Callable[[Path], Any] | None = None, *, fetches: bool
    ) -> None:
        self._build, self._storage, self._look, self._fetches = build, storage, look, fetches
        self._read = RowsAhead(storage)
        self._work: Worker | None = None

    def do(self, job: Job) -> tuple[int, Made | None]:
        """Make a piece, or join the pieces of a shard: the rows that are done by that, and the shard once it is whole.

        An actor that did it may have died before it could say so.
        """
        if job.parts:
            return 0, self._joined(job)
        num_rows, unfinished = job.stop - job.start, self._build.worker.unfinished
        if job.is_made and unfinished is None:
            return num_rows, self._found(job.target) if job.is_whole else None
        # Not when the actor starts: what is raised there reaches nobody as it is.
        self._work = self._work or self._build()
        if self._fetches:
            self._storage.fetch(job.source)
        try:
            if job.is_made and unfinished is not None:
                self._fetched_anew(job.target)
                make_again(self._work, unfinished, job, self._read)
            else:
                make(self._work, job, self._read)
        except DataError as error:
            error.where = error.where or str(job.source)
            raise
        if job.is_whole:
            return num_rows, self._handed_over(job.target)
        self._storage.keep(job.target)
        return num_rows, None

    def _joined(self, job: Job) -> Made:
        """The shard of pieces, which are gone afterwards."""
        try:
            parts = [self._storage.fetch(part) for part in job.parts]
        except FileNotFoundError:
            return self._found(job.target)
        join_pieces(parts, job.target)
        made = self._handed_over(job.target)
        self._storage.drop(job.parts)
        return made

    def _handed_over(self, shard: Path) -> Made:
        """A shard that was made here, as part of the storage."""
        took, seen = took_of(shard), self._look and self._look(shard)
        return Made(self._storage.hand_over(shard), took, seen)

    def _found(self, shard: Path) -> Made:
        """A shard that an earlier attempt has made."""
        with self._storage.files.open(self._storage.name(shard)) as file:
            took = took_of(file)
        kept = self._storage.known(shard)
        if self._look is None:
            return Made(kept, took)
        seen = self._look(self._fetched_anew(shard))
        self._storage.leave(shard)
        return Made(kept, took, seen)

    def _fetched_anew(self, path: Path) -> Path:
        """What the storage has of a file: an attempt that was killed may have left another one here."""
        self._storage.leave(path)
        return self._storage.fetch(path)


@dataclass(frozen=True)
class _Build:
    """Makes a worker; arguments may be in the object store, of which each node holds one copy."""

    worker: type[Worker]
    arguments: Mapping[str, Any]

    def __call__(self) -> Worker:
        given = self.arguments.items()
        return self.worker(**{n: ray.get(value) if isinstance(value, ray.ObjectRef) else value for n, value in given})


def _here(hands: Hands, plan: Plan) -> Iterator[tuple[int, Made | None]]:
    for job in plan.jobs():
        yield hands.do(job)
        if (join := plan.after(job)) is not None:
            yield hands.do(join)


def _pooled(hands: Mapping[str, Any], plan: Plan, cluster: ClusterConfig) -> Iterator[tuple[int, Made | None]]:
    """The jobs by actors; those of one that dies are done again."""
    actors = pool_of(Hands, cluster, min(cluster.num_encoders, plan.num_pieces), **hands)
    try:
        yield from _scheduled(actors, plan)
    finally:
        for actor in actors:
            ray.kill(actor)


def pool_of(kind: type, cluster: ClusterConfig, size: int, **arguments: Any) -> list[Any]:
    """Actors that encode or ask; one that dies is started anew, and asked again."""
    remote: Any = ray.remote(kind).options(
        num_cpus=0 if cluster.use_gpu else 1,
        num_gpus=cluster.gpus_per_encoder if cluster.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=3,
    )
    return [remote.remote(**arguments) for _ in range(size)]


def _scheduled(actors: Sequence[Any], plan: Plan) -> Iterator[tuple[int, Made | None]]:
    """What each job has come to, as they end; the next job goes to the actor that has least to do."""
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
    return list(_results(function, calls, len(os.sched_getaffinity(0)), num_cpus=0, scheduling_strategy=here))


def run_anywhere(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """The same by processes of any node, which see the storage alone: as many at a time as the cluster has cores."""
    if not ray.is_initialized():
        return [function(*arguments) for arguments in calls]
    return list(_results(function, calls, _cores(), num_cpus=1, scheduling_strategy="SPREAD"))


def in_order(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], shared: tuple[Any, ...] = ()
) -> Iterator[Any]:
    """The same as they are asked for, in their order; few of them in this process, which begins at once.

    `shared` are the first arguments of all calls.
    """
    if len(calls) < _FEW or not ray.is_initialized():
        return (function(*shared, *arguments) for arguments in calls)
    held = tuple(map(ray.put, shared))
    return _results(
        function, [(*held, *call) for call in calls], 2 * _cores(), num_cpus=1, scheduling_strategy="SPREAD"
    )


def _results(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], most: int, **options: Any
) -> Iterator[Any]:
    """The results of remote calls, of which `most` are on their way at a time."""
    remote, running = ray.remote(function).options(max_retries=3, **options), deque[Any]()
    for arguments in calls:
        if len(running) >= most:
            yield result_of(running.popleft())
        running.append(remote.remote(*arguments))
    while running:
        yield result_of(running.popleft())


def _cores() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


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
