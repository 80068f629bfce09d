"""What reading costs: CPU seconds per million rows of 12 words, and the memory that it takes beyond the imports.

    python benchmarks/scale_read.py --rows 1000000 4000000 [--write]

Rows are generated, an id, a text and one of 50 labels, as one file of each kind; `vectors` are 64 float32 in a list
column of Parquet instead of a text. Each file is read in a process of its own, as a source gives it to the stage
`tasks`: normalised, checked, and thrown away. `--write` puts the figures into benchmarks/results/scale_read.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from machine import machine
from rich.console import Console
from rich.table import Table

from kcm.tasks.readers.files import FilesSource

RESULTS = Path(__file__).parent / "results" / "scale_read.json"
ROWS_AT_ONCE, NUM_WORDS, NUM_LABELS, NUM_FEATURES = 100_000, 12, 50, 64


def read(rows: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """The figures of every kind of file, by number of rows."""
    found = []
    for count in rows:
        for kind, write in KINDS.items():
            path = folder / f"{kind}-{count}{'.parquet' if kind == 'vectors' else f'.{kind}'}"
            write(path, count)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                figures = pool.apply(_figures, (str(path), kind == "vectors"))
            found.append({"kind": kind, "rows": count, "file_mib": path.stat().st_size >> 20} | figures)
            path.unlink()
    return found


def _figures(path: str, vectors: bool) -> dict[str, Any]:
    """Read a file in this process, which has read none before."""
    source = FilesSource(path=path, id_column="id", text_column=None if vectors else "text")
    before_mib, before_s = _peak_mib(), time.process_time()
    num_rows = sum(len(table) for table in source.build(Path(), ("vector",) if vectors else ()).tables())
    seconds = time.process_time() - before_s
    return {
        "cpu_s_per_million": round(seconds / num_rows * 1e6, 2),
        "added_peak_mib": _peak_mib() - before_mib,
    }


def _peak_mib() -> int:
    """The largest resident memory of this process; getrusage would count that of the process that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM:"))


def _tables(count: int) -> Iterator[pa.Table]:
    """The rows, some at a time."""
    rng = np.random.default_rng(0)
    words = pa.array([f"word{number}" for number in range(5000)])
    for start, size in _parts(count):
        drawn = words.take(pa.array(rng.integers(0, len(words), size * NUM_WORDS)))
        lists = pa.FixedSizeListArray.from_arrays(drawn, NUM_WORDS).cast(pa.list_(pa.string()))
        yield pa.table(
            {
                "id": [f"row-{start + row}" for row in range(size)],
                "text": pa.compute.binary_join(lists, " "),
                "label": [f"label-{number}" for number in rng.integers(0, NUM_LABELS, size)],
            }
        )


def _write(writer: type[pa_csv.CSVWriter | pq.ParquetWriter], tables: Iterator[pa.Table], path: Path) -> None:
    first = next(tables)
    with writer(path, first.schema) as file:
        for table in (first, *tables):
            file.write_table(table)


def _write_json_lines(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for table in _tables(count):
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())


def _vectors(count: int) -> Iterator[pa.Table]:
    """Rows with a vector instead of a text, some at a time."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32())), ("label", pa.string())])
    for start, size in _parts(count):
        flat = pa.array(rng.normal(size=size * NUM_FEATURES).astype(np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(flat, NUM_FEATURES).cast(pa.list_(pa.float32()))
        labels = [f"label-{number}" for number in rng.integers(0, NUM_LABELS, size)]
        ids = [f"row-{start + row}" for row in range(size)]
        yield pa.table([pa.array(ids), vectors, pa.array(labels)], schema=schema)


def _parts(count: int) -> Iterator[tuple[int, int]]:
    """Where each part of the rows begins, and how many it has."""
    return ((start, min(ROWS_AT_ONCE, count - start)) for start in range(0, count, ROWS_AT_ONCE))


KINDS: dict[str, Callable[[Path, int], None]] = {
    "csv": lambda path, count: _write(pa_csv.CSVWriter, _tables(count), path),
    "jsonl": _write_json_lines,
    "parquet": lambda path, count: _write(pq.ParquetWriter, _tables(count), path),
    "vectors": lambda path, count: _write(pq.ParquetWriter, _vectors(count), path),
}


def main() -> None:
    """Measure, print, and keep the figures where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000_000])
    parser.add_argument("--write", action="store_true", help=f"put the figures into {RESULTS.name}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = read(given.rows, Path(folder))
    table = Table(*found[0], title="reading")
    for row in found:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if given.write:
        content = {"machine": machine(), "read": found}
        RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
