"""`kcm plan`: what a rate of requests takes, with the cascade and with the large model alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from jobs.options import Run, options_of
from jobs.views.table import plain_table, result_console
from kcm.config import parse_config
from kcm.costs import prices
from kcm.errors import ConfigError
from kcm.parquet import read_table
from pipelines.loop.parent import Parent
from pipelines.loop.state import LoopState
from pipelines.serve.capacity import Capacity, Demand, Pool, capacity
from pipelines.store.features import SECONDS
from pipelines.store.sequence import ShardedArtefact


@options_of(Demand, "demand")
def plan(config: Run, demand: dict[str, Any]) -> dict[str, Any]:
    """Say how many replicas answer so many requests in time, and what they cost; with the large model alone, too.

    What work takes is what it took in the run, on the machine of the run, unless it is given. Plan by a queue of
    requests that come at random, and measure before you rely on it.
    """
    asked, state = parse_config(Demand, demand), LoopState.of(config)
    parent = Parent.of(state.store, state.champions.present().champion)
    small, large, rate = asked.small_ms, asked.large_ms, asked.call_rate
    small = _recorded_ms(parent.features, SECONDS) if small is None else small
    large = _recorded_ms(parent.outcomes, "large_cost") if large is None else large
    rate = parent.bundle.metrics["overall"]["call_rate"] if rate is None else rate
    if not large:
        raise ConfigError(
            "answers were recorded, so that nobody knows what they take", where="--large-ms", hint="Give it"
        )
    kinds = {"the cascade": (rate, small), "the large model alone": (1.0, 0.0)}
    at_once = config.serve.large.max_ongoing_requests if config.large.remote else 1  # a replica waits for many answers
    plans = {
        name: capacity(asked, config.serve, call_rate=share, small_ms=work, large_ms=large, at_once=at_once)
        for name, (share, work) in kinds.items()
    }
    per_call = prices(config.costs, parent.outcomes.usage)
    costs = {
        name: (per_call.large * each.calls_per_hour if per_call else 0.0)
        + each.cpus * asked.cpu_hour
        + each.gpus * asked.gpu_hour
        for name, each in plans.items()
    }
    result_console().print(_table(asked, plans, costs, config.costs.currency))
    if per_call is None and config.large.remote:
        result_console().print("calls are counted without a price: give `costs.large`")
    measured = {"small_ms": small, "large_ms": large, "call_rate": rate, "costs_per_hour": costs}
    return measured | {"plans": {name: asdict(each) for name, each in plans.items()}}


def _recorded_ms(rows: ShardedArtefact, column: str) -> float:
    """What a row took in the run: the median of the first shard."""
    first = rows.readable(rows.shards(0)[0].name)
    return 1000 * float(np.median(read_table(first, columns=[column])[column].to_numpy()))


def _table(asked: Demand, plans: dict[str, Capacity], costs: dict[str, float], currency: str) -> Table:
    table = plain_table(f"{asked.rps:g} requests a second")
    for name in ("", *plans):
        table.add_column(name, justify="right" if name else "left")
    rows: dict[str, Callable[[Capacity], str]] = {
        "doors; busy": lambda each: _pool(each.doors),
        "replicas of the large model; busy": lambda each: _pool(each.large),
        "CPUs; GPUs": lambda each: f"{each.cpus:g}; {each.gpus:g}",
        "99% of kept items within": lambda each: f"{each.doors.p99_ms:.0f} ms",
        "99% of escalated items within": lambda each: (
            f"{each.doors.p99_ms + each.large.p99_ms:.0f} ms" if each.large else "–"
        ),
        "calls of the large model an hour": lambda each: f"{each.calls_per_hour:,.0f}",
    }
    for what, cell in rows.items():
        table.add_row(what, *map(cell, plans.values()))
    table.add_row(f"{currency} an hour", *(f"{cost:,.2f}" for cost in costs.values()))
    return table


def _pool(pool: Pool | None) -> str:
    return f"{pool.replicas}; {pool.busy:.0%}" if pool else "–"
