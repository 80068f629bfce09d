"""KCM against MCM, linear and nearest class mean, by learner and memory, on CLINC150, reviews and digits.

    python benchmarks/continual.py [--only clinc:replay@2] [--num-seeds 3] [--write]
    python benchmarks/continual.py --study STUDY.yaml [--set num_seeds=5] [--json FILE]     on your own table

CLINC150 comes from the hub, or from --clinc FILE (data_full.json of its authors); the tables by domain need --domains
FILE (their domains.json). Every finished cell is kept in --storage, from which an interrupted run resumes. Cells share
the processes of --workers; nothing here needs a cluster.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from benchmarks.continual_plan import DataSet, Row, data_sets
from benchmarks.script import RESULTS, options, read, write
from benchmarks.study.cell import Record
from benchmarks.study.data import Stream, read_data
from benchmarks.study.settings import DEFAULT_SETTINGS, Settings
from benchmarks.study.study import StudyConfig, aggregate, plan, run_cells, run_study
from benchmarks.study.view import study_view
from kcm.config import load_config
from kcm.errors import KcmError

PER_SEED = ("average_accuracy", "forgetting_first", "tail")
KEPT = ("average_accuracy", "average_incremental_accuracy", "learning_accuracy", "forgetting_first", "forgetting_max")
KEPT += ("fwt", "gap_to_joint", "many", "medium", "few", "head", "middle", "tail", "seconds", "memory_bytes")


class Bench:
    """The arguments of one call of this script."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.storage, self.assets = arguments.storage, arguments.assets
        self.only, self.num_seeds, self.workers = arguments.only or ["*"], arguments.num_seeds, arguments.workers
        self.data_sets = data_sets(arguments.clinc, arguments.domains, self.storage)
        self._streams: dict[str, tuple[dict[str, Any], list[Stream]]] = {}

    def chosen(self) -> Iterator[tuple[DataSet, list[Row]]]:
        """The data sets with the rows that --only lets through."""
        for data in self.data_sets:
            if rows := [row for row in data.rows if self._wanted(data.name, row.name)]:
                yield data, rows

    def measure(self) -> dict[str, Any]:
        """Every chosen table: its cells over seeds, and the paired differences."""
        tables = {}
        for data, rows in self.chosen():
            settings, records = best_settings(data), []
            for row in rows:
                changes = {"num_seeds": min(row.num_seeds, self.num_seeds)} if self.num_seeds else {}
                records += self._records(data, data.study(row, **changes), settings)
            described, _ = self._streams_of(data, data.study(rows[0]))
            tables[data.name] = {"title": data.title, "data": described, **aggregate(records)}
        return tables

    def _records(self, data: DataSet, study: StudyConfig, settings: Settings) -> list[Record]:
        """The records of a study's cells."""
        _, streams = self._streams_of(data, study)
        planned = plan(study, settings, streams[0].num_labels)
        by_seed = dict(zip(study.seeds, streams, strict=True))
        return run_cells(planned, by_seed, self.storage / "cells", self.workers)

    def _streams_of(self, data: DataSet, study: StudyConfig) -> tuple[dict[str, Any], list[Stream]]:
        """The description and the streams of a study, kept for the rows that share them."""
        key = f"{data.name} {study.seeds}"
        if key not in self._streams:
            read_files = read_data(study.tasks, self.assets, study.seeds, study.feature_columns, study.encoder.reads)
            streams = read_files.streams(study.encoder, self.assets, self.storage / "features")
            self._streams[key] = read_files.described(), streams
        return self._streams[key]

    def _wanted(self, data: str, row: str) -> bool:
        return any(fnmatchcase(f"{data}:{row}", only) or fnmatchcase(data, only) for only in self.only)


def best_settings(data: DataSet) -> Settings:
    """The committed best settings of a data set, over the default ones."""
    return Settings.load(data.settings_file).over(Settings.load(DEFAULT_SETTINGS))


def short(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell as it is committed: no matrices."""
    settings = {key: cell[key] for key in ("network", "learner", "memory_per_class", "num_parameters", "setting")}
    per_seed = {metric: [seed[metric] for seed in cell["per_seed"]] for metric in PER_SEED}
    return {**settings, "per_seed": per_seed, "aggregated": {metric: cell["aggregated"][metric] for metric in KEPT}}


def with_earlier(table: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """A table, completed with cells and differences of an earlier table that were not measured again."""
    table_now = {**earlier, **table}
    for part, names in (("cells", ("network",)), ("differences", ("first", "second"))):
        cells_by_key = {
            tuple(cell[key] for key in (*names, "learner", "memory_per_class")): cell
            for cell in (*earlier.get(part, ()), *table[part])
        }
        table_now[part] = list(cells_by_key.values())
    return table_now


def write_results(tables: Mapping[str, Any]) -> None:
    """Put tables into the committed file; what this call did not measure stays."""
    results = read("continual")
    stored_tables = results.setdefault("tables", {})
    for name, table in tables.items():
        short_table = {**table, "cells": [short(cell) for cell in table["cells"]]}
        stored_tables[name] = with_earlier(short_table, stored_tables.get(name, {}))
    four_digits = json.loads(json.dumps(results), parse_float=lambda number: round(float(number), 4))
    (RESULTS / "continual.json").write_text(_laid_out(four_digits) + "\n", encoding="utf-8")


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with every object or list that fits on a line of 160 characters on one: a line a metric, not seven."""
    line = json.dumps(value)
    if len(indent) + len(line) <= 160 or not isinstance(value, dict | list):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts, brackets = [f"{json.dumps(key)}: {_laid_out(part, inner)}" for key, part in value.items()], "{}"
    else:
        parts, brackets = [_laid_out(part, inner) for part in value], "[]"
    return f"{brackets[0]}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{brackets[1]}"


def own_study(arguments: argparse.Namespace) -> None:
    """Learn the tasks of a table one after the other, by every network and learner, and compare what is left."""
    try:
        config = load_config(StudyConfig, arguments.study, arguments.set or ())
        result = run_study(config, Settings.load(arguments.settings), arguments.assets, arguments.storage)
    except KcmError as error:
        sys.exit(f"error: {error}")
    print(study_view(result))
    if arguments.json:
        write(arguments.json, result)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, assets=True, storage="storage/benchmark", results="continual")
    parser.add_argument("--only", action="append", metavar="NAME", help="data set, or data set:row; patterns allowed")
    parser.add_argument("--list", action="store_true", help="print the names that --only knows")
    parser.add_argument("--num-seeds", type=int, help="at most so many seeds")
    parser.add_argument("--study", type=Path, metavar="FILE", help="YAML of a study of your own; see docs/learners.md")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="override a value of --study; repeatable")
    parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS, help="how each learner trains each network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result of --study")
    parser.add_argument("--clinc", default="clinc/clinc_oos", metavar="FILE_OR_HUB_ID", help="CLINC150")
    parser.add_argument("--domains", type=Path, metavar="FILE", help="JSON: domain -> its intents")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cells")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write down if asked."""
    arguments = parse_arguments()
    torch.set_num_threads(1)  # of every process; steps are too small for more
    if arguments.study:
        own_study(arguments)
        return
    bench = Bench(arguments)
    if arguments.list:
        for data, rows in bench.chosen():
            print("\n".join(f"{data.name}:{row.name}" for row in rows))
        return
    tables = bench.measure()
    for table in tables.values():
        print(f"\n{table['title']}\n\n{study_view(table)}")
    if arguments.write:
        write_results(tables)


if __name__ == "__main__":
    main()
