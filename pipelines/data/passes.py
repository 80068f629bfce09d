"""Passes over the blocks of a source on Ray Data, or in this process where rows are few: it starts in no time."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.cloudpickle
import ray.data

from kcm.errors import KcmError
from kcm.tasks.preparation.build import Workers, in_process
from pipelines.batch.mapping import silence_ray_data
from pipelines.context import Context

MANY_ROWS = 200_000  # from which on a cluster is worth its start

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def workers_of(context: Context) -> Workers:
    """Who runs the passes over rows on their way to the storage: all nodes where they see its folder, else this one.

    Blocks lie in files: of a bucket's storage they are on the disk of this node until the sequence is finished.
    """

    def by_rows(function: Callable[[ItemT], ResultT], items: Sequence[ItemT], num_rows: int) -> Iterable[ResultT]:
        """The function of every item, in order: on the cluster, where they hold many rows together."""
        if num_rows < MANY_ROWS or len(items) < 2:
            return in_process(function, items, num_rows)
        context.connect()
        return on_ray_data(function, items, num_rows, only_here=context.store.storage.is_remote)

    return by_rows


def on_ray_data(
    function: Callable[[ItemT], ResultT], items: Sequence[ItemT], num_rows: int, *, only_here: bool = False
) -> Iterable[ResultT]:
    """The function of every item, in order, by tasks of Ray Data: one is done again where its worker dies.

    With `only_here` by processes of this node. A KcmError of the function is raised here, the first item's first.
    """
    silence_ray_data()
    # Ray's own pickle: an item may hold a reference to an object, which another process finds in no other way.
    rows = pa.table({"index": range(len(items)), "item": [ray.cloudpickle.dumps(item) for item in items]})
    blocks = [rows.slice(index, 1) for index in range(len(items))]

    def apply(batch: pa.Table) -> pa.Table:
        done = [_outcome(function, pickle.loads(item)) for item in batch["item"].to_pylist()]
        return pa.table({"index": batch["index"], "result": [pickle.dumps(result) for result in done]})

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()} if only_here else None
    dataset = ray.data.from_arrow(blocks).map_batches(
        apply, batch_size=None, batch_format="pyarrow", label_selector=here
    )
    found: dict[int, Any] = {}
    batches: Iterable[pa.Table] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        found |= zip(batch["index"].to_pylist(), map(pickle.loads, batch["result"].to_pylist()), strict=True)
    for index in range(len(items)):
        if isinstance(found[index], KcmError):
            raise found[index]
        yield found[index]


def _outcome(function: Callable[[ItemT], ResultT], item: ItemT) -> ResultT | KcmError:
    """Errors for a person travel as they are: Ray would wrap them."""
    try:
        return function(item)
    except KcmError as error:
        return error
