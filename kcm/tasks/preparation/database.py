"""The facts of all rows in a DuckDB file, and the statements that find their splits, tasks and positions.

    facts      every row from `preparation.facts`
    earlier_*  ids, contents and groups of the tasks that the sequence has already
    known      usable rows whose content is in an earlier task
    drawn      usable rows with their split: no faults, and the first row of every id
    verdicts   rows that share a content or a group, with a reason for those that another split excludes
    members    the rows of the tasks, up to a cap per task
    chosen     the kept rows: members without what a long tail cuts
    placed     the position of the chosen rows in their task

DuckDB respects a memory limit and spills to disk. No result depends on its threads: rows are ranked by hashes, then by
`place`, which follows the order of the source. A split is an index into SPLITS: train 0, validate 1, certify 2, test 3,
from less to more pure; NOT_GIVEN is less than all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import ARROW

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.tasks.scenarios import TaskPlan
from kcm.tasks.splits import NOT_GIVEN, SPLITS, Split, drawn_splits, draws

MEMORY_LIMIT = "400MB"  # memory for tables and intermediate results; the rest spills to disk
_ROWS_AT_ONCE = 10_000  # rows of a listing, as Python objects
_TRAIN, _CERTIFY = SPLITS.index("train"), SPLITS.index("certify")
_SPLIT_NAMES = f"[{', '.join(map(repr, SPLITS))}]"  # DuckDB's lists start at 1

_FACTS = """
CREATE TABLE facts (
    place BIGINT, id VARCHAR, fault VARCHAR, block BIGINT, row INTEGER, label VARCHAR, task VARCHAR, origin TINYINT,
    content UUID, unit UUID, draw DOUBLE)
"""
_EARLIER = """
CREATE TABLE earlier_ids (id VARCHAR);
CREATE TABLE earlier_units (kind VARCHAR, digest UUID);
"""
# A row whose content is in an earlier task has taught or measured there. Given splits may divide a group, so then its
# rows are known as well.
_KNOWN = """
CREATE TABLE known AS
    SELECT place FROM facts WHERE fault IS NULL AND (
        content IN (SELECT digest FROM earlier_units WHERE kind = 'content')
        OR ($by_group AND unit <> content AND unit IN (SELECT digest FROM earlier_units WHERE kind = 'group')))
"""
_CLASHING = """
UPDATE facts SET fault = 'an earlier task has a row with this id'
    WHERE fault IS NULL AND id IN (SELECT id FROM earlier_ids) AND place NOT IN (SELECT place FROM known)
"""
_MORE = "INSERT INTO facts SELECT * REPLACE (content::UUID AS content, unit::UUID AS unit) FROM more"

# The first row of an id is kept, and later ones are bad rows. Rows without a label can only train.
_DRAWN = f"""
CREATE TABLE first_rows AS
    SELECT id, min(place) AS first FROM facts WHERE fault IS NULL GROUP BY id HAVING count(*) > 1;
CREATE TABLE drawn AS
    SELECT facts.* EXCLUDE fault, label <> '' AS labelled,
        CASE WHEN label = '' THEN {_TRAIN} ELSE drawn_split(draw, origin) END AS split
    FROM facts LEFT JOIN first_rows USING (id)
    WHERE fault IS NULL AND (first IS NULL OR first = place);
"""

# Rows of equal content, and rows of one group. Only shared values matter, so the tables are small.
_SHARED = """
CREATE TABLE contents AS
    SELECT content, max(origin) FILTER (labelled) AS purest_given,
        min(split) FILTER (labelled) AS first_split, max(split) FILTER (labelled) AS purest_split
    FROM drawn GROUP BY content HAVING count(*) > 1;
CREATE TABLE groups AS
    SELECT unit, max(origin) FILTER (labelled) AS purest_given, max(split) FILTER (labelled) AS purest_split
    FROM drawn WHERE unit <> content GROUP BY unit
    HAVING min(origin) <> max(origin) OR (bool_or(labelled) AND NOT bool_and(labelled));
CREATE TABLE bridges AS
    SELECT content, origin, min(split) AS first_split
    FROM drawn WHERE labelled GROUP BY content, origin HAVING min(split) < max(split);
"""

# A row leaves its content, or its group, to a purer split: a labelled row to purer given ones, a row without a label to
# all that measure. A drawn row whose content lies in units of several splits would connect them: train keeps it, then
# validate, then certify, since what has taught cannot measure. A row without a label leaves its content to labelled
# train rows as well. Rows without a group whose content others have too become a unit: `repeats`.
_VERDICTS = f"""
CREATE TABLE verdicts AS
    SELECT drawn.place, contents.content IS NOT NULL AND drawn.unit = drawn.content AS repeats,
        CASE WHEN labelled THEN drawn.origin ELSE 0 END AS purity,
        CASE WHEN labelled THEN contents.purest_given ELSE contents.purest_split END AS purest_content,
        CASE WHEN labelled THEN groups.purest_given ELSE groups.purest_split END AS purest_group,
        CASE WHEN purest_content > purity THEN purest_content WHEN purest_group > purity THEN purest_group END AS purer,
        coalesce(purer IS NULL AND labelled AND bridges.first_split < split, false) AS bridging,
        CASE
            WHEN known.place IS NOT NULL THEN $part || ' or group is in an earlier task'
            WHEN NOT labelled AND contents.first_split = 0 THEN 'its content is also in a labelled row'
            WHEN purer IS NOT NULL THEN $part || ' or group is also in split ' || {_SPLIT_NAMES}[purer + 1]
            WHEN bridging THEN $part || ' is also in split ' || {_SPLIT_NAMES}[bridges.first_split + 1]
        END AS reason
    FROM drawn
    LEFT JOIN contents ON contents.content = drawn.content
    LEFT JOIN groups ON groups.unit = drawn.unit AND drawn.unit <> drawn.content
    LEFT JOIN bridges ON bridges.content = drawn.content AND bridges.origin = drawn.origin
    LEFT JOIN known ON known.place = drawn.place
    WHERE contents.content IS NOT NULL OR groups.unit IS NOT NULL OR known.place IS NOT NULL
"""
_COUNTS = """
SELECT (SELECT count(*) FROM facts) - (SELECT count(*) FROM drawn), count(reason),
    count(*) FILTER (repeats AND reason IS NULL)
FROM verdicts
"""

# Bad rows come first, each kind in the order of the source.
_LEFT_OUT = """
SELECT place, coalesce(id, ''), reason FROM (
    SELECT place, id, fault AS reason, 0 AS rank FROM facts WHERE fault IS NOT NULL
    UNION ALL
    SELECT place, id, 'duplicate id', 0 FROM facts JOIN first_rows USING (id) WHERE fault IS NULL AND place > first
    UNION ALL
    SELECT place, id, reason, 1 FROM drawn JOIN verdicts USING (place) WHERE reason IS NOT NULL
) ORDER BY rank, place
"""

_CELLS = """
SELECT task, label FROM drawn LEFT JOIN verdicts USING (place)
WHERE labelled AND reason IS NULL GROUP BY task, label ORDER BY min(place)
"""

# A row belongs to the task of its label, or of its value in the task column. A row without a label of the list belongs
# to the task that its value names, or to a task drawn by its id.
_MEMBERS = """
CREATE TABLE members AS
    SELECT place, block, row, id, unit, split, labels.number AS label,
        CASE WHEN repeats THEN 'content ' || replace(content::VARCHAR, '-', '') END AS unit_name,
        CASE
            WHEN labels.number >= 0 THEN tasks.number
            WHEN named.number IS NOT NULL THEN named.number
            WHEN drawn.label = '' THEN floor(drawn_number('unlabelled', id) * $num_tasks)::INTEGER
            ELSE floor(drawn_number('out of scope', id) * $num_tasks)::INTEGER
        END AS task
    FROM drawn
    LEFT JOIN verdicts USING (place)
    JOIN labels ON labels.name = drawn.label
    LEFT JOIN tasks ON tasks.name = CASE WHEN $by_label THEN drawn.label ELSE drawn.task END
    LEFT JOIN named ON named.name = drawn.task
    WHERE reason IS NULL
"""

# The units with the lowest numbers are kept, as far as they fit whole; rows without a label have a cap of their own.
_CAPS = f"""
CREATE TABLE sized_units AS
    SELECT task, label = {UNLABELLED} AS pool, unit, count(*) AS num_rows,
        drawn_number('cap', replace(unit::VARCHAR, '-', '')) AS rank,
        sum(num_rows) OVER (PARTITION BY task, pool ORDER BY rank) AS total
    FROM members GROUP BY task, pool, unit
"""
_WITHIN_CAPS = f"""
DELETE FROM members USING sized_units AS units
    WHERE members.task = units.task AND (label = {UNLABELLED}) = pool AND members.unit = units.unit AND total > $limit
"""

# A long tail keeps the train rows of a label that have the lowest numbers.
_CUT = f"""
CREATE OR REPLACE TABLE cut AS
    SELECT place FROM members JOIN sizes USING (task, label) WHERE split = {_TRAIN}
    QUALIFY row_number() OVER (PARTITION BY task, label ORDER BY drawn_number('long tail', id), place) > size
"""

# No network has a class for train rows that are out of scope.
_CHOSEN = f"""
CREATE OR REPLACE VIEW chosen AS
    SELECT * FROM members ANTI JOIN cut USING (place)
    WHERE NOT (split = {_TRAIN} AND label = {OUT_OF_SCOPE})
"""
_CELL_COUNTS = "SELECT task, split, label, count(*) FROM chosen GROUP BY ALL ORDER BY task, split, label"
_CERTIFY_UNITS = f"SELECT task, count(DISTINCT unit) FROM chosen WHERE split = {_CERTIFY} GROUP BY task"

# All usable rows, including those beyond a cap or a long tail, so that another seed looks at the same table.
_UNITS = """
SELECT DISTINCT 'content' AS kind, replace(CAST(content AS VARCHAR), '-', '') AS digest FROM facts WHERE fault IS NULL
UNION ALL
SELECT DISTINCT 'group', replace(CAST(unit AS VARCHAR), '-', '') FROM facts WHERE fault IS NULL AND unit <> content
UNION
SELECT kind, replace(CAST(digest AS VARCHAR), '-', '') FROM earlier_units
ORDER BY kind, digest
"""

# The rows of a task lie split by split, those without a label of the list last, in the order of the source.
_PLACED = """
CREATE TABLE placed AS
    SELECT task, label, split, block, row, unit_name,
        row_number() OVER (PARTITION BY task ORDER BY split, label < 0, place) - 1 AS position
    FROM chosen ORDER BY task, position
"""
_PLACES = """
SELECT label, split, block, row, unit_name FROM placed
WHERE task = $task AND position >= $start AND position < $stop ORDER BY position
"""


class FactsDatabase:
    """The facts of the rows of one source; a context manager that closes the file. `seed` draws all but the splits."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._db = duckdb.connect(str(folder / "facts.duckdb"))  # spill files are next to it
        self._db.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET preserve_insertion_order = false")
        self._db.execute(
            "PRAGMA force_compression = 'uncompressed'"
        )  # a tenth of all CPU, for a file that lives for minutes
        self._db.execute(_FACTS)
        self._db.execute(_EARLIER)

        def drawn_number(purpose_N: pa.ChunkedArray, name_N: pa.ChunkedArray) -> pa.Array:
            return pa.array(draws(seed, purpose_N[0].as_py(), name_N.to_pylist()) if len(name_N) else [], pa.float64())

        self._db.create_function("drawn_number", drawn_number, ["VARCHAR", "VARCHAR"], "DOUBLE", type=ARROW)
        self.origins: frozenset[int] = frozenset()  # given splits that occur, NOT_GIVEN among them
        self.num_bad = self.num_overlapping = self.num_repeating = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, facts: pa.Table) -> None:
        """Add the facts of some rows."""
        self._db.register("more", facts)
        self._db.execute(_MORE)
        self._db.unregister("more")

    def add_earlier(self, ids: Iterable[pa.Table], units: Iterable[pa.Table]) -> None:
        """Add the ids, and the digests of contents and groups, of the tasks that the sequence has already."""
        for table, columns, parts in (("earlier_ids", "id", ids), ("earlier_units", "kind, digest::UUID", units)):
            for part in parts:
                self._db.register("more", part)
                self._db.execute(f"INSERT INTO {table} SELECT {columns} FROM more")
                self._db.unregister("more")

    def judge(self, fractions: Mapping[Split, float], part: str, *, splits_given: bool = False) -> None:
        """Draw the splits, and find the rows that share a content or a group with another split or an earlier task.

        `part` names the content in the reasons. `splits_given` says whether earlier rows came with their splits.
        """
        self.origins = frozenset(row[0] for row in self._rows("SELECT DISTINCT origin FROM facts WHERE fault IS NULL"))

        def drawn_split(draw_N: pa.ChunkedArray, origin_N: pa.ChunkedArray) -> pa.Array:
            return pa.array(drawn_splits(np.asarray(draw_N), np.asarray(origin_N), self.origins, fractions))

        self._db.create_function("drawn_split", drawn_split, ["DOUBLE", "TINYINT"], "TINYINT", type=ARROW)
        self._db.execute(_KNOWN, {"by_group": splits_given or self.origins != {NOT_GIVEN}})
        self._db.execute(_CLASHING)
        self._db.execute(_DRAWN)
        self._db.execute(_SHARED)
        self._db.execute(_VERDICTS, {"part": f"its {part}"})
        ((self.num_bad, self.num_overlapping, self.num_repeating),) = self._rows(_COUNTS)

    def left_out(self) -> Iterator[tuple[int, str, str]]:
        """Place, id and reason of the dropped rows, bad ones first."""
        cursor = self._db.cursor().execute(_LEFT_OUT)
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            yield from rows

    def cells(self) -> list[tuple[str, str]]:
        """The pairs of task value and label, in the order of their first rows."""
        return self._rows(_CELLS)

    def assign_tasks(self, plan: TaskPlan, labels: Sequence[str], outside: str | None) -> None:
        """Find the task of every row; `outside` is the label of out-of-scope rows, if they are kept."""
        special = {"": UNLABELLED} | ({} if outside is None else {outside: OUT_OF_SCOPE})
        self._register("labels", {label: number for number, label in enumerate(labels)} | special)
        self._register("tasks", plan.numbers)
        self._register("named", {name: number for number, name in enumerate(plan.names)})
        self._db.execute(_MEMBERS, {"num_tasks": len(plan.names), "by_label": plan.by_label})

    def cap(self, limit: int) -> None:
        """Keep at most `limit` rows per task, whole units."""
        self._db.execute(_CAPS)
        self._db.execute(_WITHIN_CAPS, {"limit": limit})

    def choose(self, sizes: Mapping[tuple[int, int], int]) -> dict[tuple[int, int, int], int]:
        """Keep at most this many train rows per task and label; returns rows by task, split and label."""
        pairs = np.array([(*pair, size) for pair, size in sizes.items()], dtype=np.int64).reshape(-1, 3)
        self._db.register("sizes", pa.table(dict(zip(("task", "label", "size"), pairs.T, strict=True))))
        self._db.execute(_CUT)
        self._db.execute(_CHOSEN)
        return {(task, split, label): count for task, split, label, count in self._rows(_CELL_COUNTS)}

    def certify_units(self) -> dict[int, int]:
        """The number of units among the certify rows of each task."""
        return dict(self._rows(_CERTIFY_UNITS))

    def write_units(self, path: Path) -> None:
        """Write the digests of all contents and groups as Parquet: kind, and 32 hexadecimal digits, sorted."""
        self._db.sql(_UNITS).write_parquet(str(path), compression="zstd")

    def place(self) -> None:
        """Find the position of every row in its task."""
        self._db.execute(_PLACED)

    def places(self, task: int, start: int, stop: int) -> pa.Table:
        """The rows of a task from position `start` to `stop`, in order: the columns of `_PLACES`."""
        bounds = {"task": task, "start": start, "stop": stop}
        return self._db.sql(_PLACES, params=bounds).to_arrow_table()

    def _register(self, table: str, numbers: Mapping[str, int]) -> None:
        columns = {"name": pa.array(numbers, pa.string()), "number": pa.array(numbers.values(), pa.int32())}
        self._db.register(table, pa.table(columns))

    def _rows(self, query: str, **values: object) -> list[Any]:
        return self._db.execute(query, values).fetchall()
