"""Which rows have no recorded answer, found in bounded memory: digests of both are merged bucket by bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kcm.errors import DataError
from kcm.tasks.preparation.digests import id_digests
from kcm.tasks.preparation.exchange import Findings, RecordFile, Records, bucket_ranges, merge_buckets, records_of

Ids = Iterable[pa.ChunkedArray]

_ROW, _ANSWER = np.uint64(1), np.uint64(2)
IDS_PER_FILE = 1_000_000  # whose digests are sorted in memory


@dataclass(frozen=True)
class Coverage:
    """How many rows there are, how many have no recorded answer, and the id of the first of these, "" without any."""

    num_rows: int
    num_lacking: int
    first: str

    @classmethod
    def of(cls, answered: Ids, rows: Callable[[], Ids]) -> Coverage:
        """Of rows whose ids `rows` gives, as often as it is called, against the ids of the answers."""
        with tempfile.TemporaryDirectory(prefix="kcm-coverage-") as folder:
            files = [*_files(answered, _ANSWER, Path(folder, "answers")), *_files(rows(), _ROW, Path(folder, "rows"))]
            total = sum(file.starts[-1] for file in files)
            found = [
                merge_buckets(buckets, files, Path(folder, "lacking"), np.bitwise_or, _without_answer)
                for buckets in bucket_ranges(total)
            ]
            lacking = Findings.read(path for path in found if path)
        num_rows = num_lacking = 0
        first = ""
        for ids in rows():
            num_rows += len(ids)
            if len(lacking.records):
                is_lacking = lacking.values(id_digests(ids)) != 0
                if not num_lacking and is_lacking.any():
                    first = ids[int(is_lacking.argmax())].as_py()
                num_lacking += int(is_lacking.sum())
        return cls(num_rows, num_lacking, first)

    def require(self, where: str, hint: str) -> None:
        """Raise DataError where a row has no answer; `where` names the table of answers, `hint` says what helps."""
        if self.num_lacking:
            raise DataError(
                f"{self.num_lacking:,} of {self.num_rows:,} rows have no recorded answer, the first is {self.first!r}",
                where=where,
                hint=hint,
            )


def _without_answer(records: Records) -> np.ndarray:
    return np.asarray(records["value"] == _ROW)


def _files(ids: Ids, value: np.uint64, target: Path) -> Iterator[RecordFile]:
    """The digests of ids with a value, in sorted files."""
    waiting: list[np.ndarray] = []
    for number, chunk in enumerate(ids):
        waiting.append(id_digests(chunk))
        if sum(map(len, waiting)) >= IDS_PER_FILE:
            yield _file(waiting, value, target.with_name(f"{target.name}-{number}"))
            waiting = []
    if waiting:
        yield _file(waiting, value, target.with_name(f"{target.name}-last"))


def _file(digests: list[np.ndarray], value: np.uint64, path: Path) -> RecordFile:
    digest_N = np.concatenate(digests)
    return RecordFile.write(path, records_of(digest_N, np.full(len(digest_N), value), np.bitwise_or))
