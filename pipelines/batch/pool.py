"""Rows through a pool of actors: a shard is read, worked on and written where an actor is; the driver holds counts.

A pass makes one file of every shard, with the same rows in the same order. A shard is cut into pieces, each of which is
committed to the scratch folder as a whole, and joined there as soon as all of them are done; an interrupted pass goes
on with the pieces that are missing.

    scratch/task-0003.00001.parquet                     a finished shard
    scratch/task-0003.00001.0000001024-0000002048.piece    its rows 1,024 to 2,047, until all its pieces are there
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kcm.errors import ArtefactError, DataError, KcmError
from kcm.tasks.shards import GROUP_ROWS, open_shard
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.storage import Storage

ROWS_AT_ONCE = 16 * GROUP_ROWS  # that a worker is given, and holds, at most
_TOOK = b"took"
_JOBS_PER_ACTOR = 2  # one is worked on, the next is there already

UNFINISHED = "unfinished: "  # begins the names of counts of unfinished rows, by reason
Took: TypeAlias = dict[str, float]  # what rows took together, such as tokens


class Worker(Protocol):
    """What is done to the rows of a shard.

    `unfinished` is a boolean column of what is made, true for rows that the next attempt makes again; None where there
    is none.
    """

    unfinished: ClassVar[str | None]

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """The rows that are made of `rows` of a shard, as many and in the same order, and what they took."""


@dataclass(frozen=True)
class Job:
    """Rows `start` to `stop` of a shard, and where what is made of them goes; or `parts` of it, to be joined there."""

    name: str
    source: Path
    start: int
    stop: int
    target: Path
    parts: tuple[Path, ...] = ()
    is_made: bool = False  # by an earlier attempt


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
    for num_rows in _here(Hands(build, storage), plan) if here else _pooled(build, storage, plan, cluster):
        plan.num_done += num_rows
        bar.update(plan.num_done, plan.num_rows)
    made = {name: storage.fetch(scratch / name) for name in sources}
    return made, _sum(_took(target) for target in made.values())


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
            _join([self._storage.fetch(part) for part in job.parts], job.target)
            self._storage.keep(job.target)
            self._storage.drop(job.parts)
            return 0
        # Not when the actor starts: what is raised there reaches nobody as it is.
        self._work = self._work or self._build()
        self._storage.fetch(job.source)
        try:
            if job.is_made:
                self._storage.fetch(job.target)
                _make_again(self._work, job)
            else:
                _make(self._work, job)
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


def _make(work: Worker, job: Job) -> None:
    """Commit what is made of the rows of a piece."""
    took: Took = {}

    def made() -> Iterator[pa.Table]:
        for rows in read_range(job.source, job.start, job.stop):
            table, spent = work(rows, job.source)
            took.update(_sum((took, spent)))
            yield table

    _commit(made(), job.target, took)


def _make_again(work: Worker, job: Job) -> None:
    """Make the unfinished rows anew of a piece that an earlier attempt has committed."""
    if work.unfinished is None:
        return
    again_N = pq.read_table(job.target, columns=[work.unfinished])[work.unfinished].to_numpy()
    if not again_N.any():
        return
    earlier = pq.read_table(job.target).replace_schema_metadata()
    rows = pa.concat_tables(list(read_range(job.source, job.start, job.stop))).filter(pa.array(again_N))
    table, spent = work(rows, job.source)
    kept = earlier.filter(pa.array(~again_N))
    order_N = np.argsort(np.concatenate([np.flatnonzero(~again_N), np.flatnonzero(again_N)]))
    whole = pa.concat_tables([kept, table.cast(kept.schema)]).take(pa.array(order_N))
    before = {name: count for name, count in _took(job.target).items() if not name.startswith(UNFINISHED)}
    _commit([whole], job.target, _sum((before, spent)))


def _join(parts: Sequence[Path], target: Path) -> None:
    """Make a shard of its pieces, in their order."""
    took = _sum(_took(part) for part in parts)
    _commit((pq.read_table(part).replace_schema_metadata() for part in parts), target, took)


def _commit(tables: Iterable[pa.Table], target: Path, took: Took) -> None:
    """Write tables as one file of row groups that are read by index, which appears when it is whole."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    writer, waiting = None, []
    try:
        for table in tables:
            writer = writer or open_shard(draft, table.schema)
            waiting.append(table)
            if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                whole = pa.concat_tables(waiting)
                groups = len(whole) - len(whole) % GROUP_ROWS
                writer.write_table(whole.slice(0, groups), row_group_size=GROUP_ROWS)
                waiting = [whole.slice(groups)]
        assert writer is not None  # a shard without rows gives one empty table
        writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({_TOOK.decode(): json.dumps(took, sort_keys=True)})
        writer.close()
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def num_rows(shard: Path) -> int:
    """The rows of a shard. ArtefactError for one that cannot be read."""
    with _readable(shard) as file:
        rows: int = file.metadata.num_rows
        return rows


def read_range(shard: Path, start: int, stop: int) -> Iterator[pa.Table]:
    """Rows `start` to `stop` of a shard, at most `ROWS_AT_ONCE` at a time; one empty table where there is none."""
    with _readable(shard) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        if stop <= start:
            yield file.schema_arrow.empty_table()
        while start < stop:
            end = min(start + ROWS_AT_ONCE, stop)
            first, last = np.searchsorted(starts, [start, end - 1], side="right") - 1
            try:
                rows = file.read_row_groups(range(first, last + 1))
            except (OSError, pa.ArrowException) as error:
                raise _damaged(shard, f"rows {starts[first]} to {starts[last + 1]}: {error}") from None
            yield rows.slice(start - starts[first], end - start)
            start = end


def _readable(shard: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(shard)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(shard, error) from None


def _damaged(shard: Path, error: object) -> ArtefactError:
    reason = " ".join(str(error).split())
    return ArtefactError(f"the shard cannot be read: {reason}", where=str(shard), mend="Put it back, or build it again")


def _took(file: Path) -> Took:
    """What the rows of a file took."""
    found = (pq.read_metadata(file).metadata or {}).get(_TOOK, b"{}")
    took: Took = json.loads(found)
    return took


def _sum(parts: Iterable[Took]) -> Took:
    total: Took = {}
    for part in parts:
        total |= {name: total.get(name, 0) + count for name, count in part.items()}
    return total


def silence_ray_data() -> None:
    """Turn off Ray Data's progress output; the stage has its own bar."""
    import ray.data  # an actor does without

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
