"""Which digests occur with what, over all blocks of rows: a shuffle by digest, in bounded memory.

Every block merges its own digests and writes them in order, so that the digests of a bucket (those with the same
upper bits) lie together. A bucket is then merged over all blocks by itself. What comes out is no larger than the
number of digests that matter: one content a million times is one digest in every block.

N records, which hold a digest, a value and how many rows have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_BUCKETS = 64
_SHIFT = np.uint64(58)  # leaves the bits that tell 64 buckets apart
ROWS_AT_ONCE = 1_000_000  # records that one merge holds, where buckets are as large

RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("value", "<u8"), ("count", "<u8")])
Records = NDArray[np.void]
Matters = Callable[[Records], NDArray[np.bool_]]


@dataclass(frozen=True)
class RecordFile:
    """The records of a block on disk, sorted; bucket i lies between `starts[i]` and `starts[i + 1]`."""

    path: Path
    starts: tuple[int, ...]

    @classmethod
    def write(cls, path: Path, records: Records) -> RecordFile:
        """Keep merged records."""
        records.tofile(path)
        bounds = np.searchsorted(records["high"] >> _SHIFT, np.arange(NUM_BUCKETS + 1, dtype=np.uint64))
        return cls(path, tuple(bounds.tolist()))

    def read(self, buckets: range) -> Records:
        """The records of adjoining buckets."""
        start, stop = self.starts[buckets.start], self.starts[buckets.stop]
        return np.fromfile(self.path, RECORD, stop - start, offset=start * RECORD.itemsize)


def records_of(digest_N: NDArray[np.void], value_N: NDArray[np.unsignedinteger], how: np.ufunc) -> Records:
    """Rows by their digests, merged: values by `how`, counts summed."""
    records = np.empty(len(digest_N), RECORD)
    records["high"], records["low"] = digest_N["high"], digest_N["low"]
    records["value"], records["count"] = value_N, 1
    return merged(records, how)


def merged(records: Records, how: np.ufunc) -> Records:
    """One record for each digest, in order: values merged by `how`, such as np.bitwise_or, counts summed."""
    if not len(records):
        return records
    order = np.argsort(records["high"])
    high_N, low_N = records["high"][order], records["low"][order]
    alike_N = high_N[1:] == high_N[:-1]
    if not (low_N[1:] == low_N[:-1])[alike_N].all():  # digests that share 64 bits: there are none, but for bad luck
        order = np.lexsort((records["low"], records["high"]))
        high_N, low_N = records["high"][order], records["low"][order]
        alike_N = (high_N[1:] == high_N[:-1]) & (low_N[1:] == low_N[:-1])
    starts = np.flatnonzero(np.concatenate([[True], ~alike_N]))
    found = np.empty(len(starts), RECORD)
    found["high"], found["low"] = high_N[starts], low_N[starts]
    found["value"] = how.reduceat(records["value"][order], starts)
    found["count"] = np.add.reduceat(records["count"][order], starts)
    return found


def bucket_ranges(num_rows: int) -> list[range]:
    """All buckets, as many at once as memory has room for."""
    size = max(1, NUM_BUCKETS * ROWS_AT_ONCE // max(num_rows, 1))
    return [range(start, min(start + size, NUM_BUCKETS)) for start in range(0, NUM_BUCKETS, size)]


def repeated(records: Records) -> NDArray[np.bool_]:
    """Which digests several rows have."""
    return np.asarray(records["count"] > 1)


def bridging(records: Records) -> NDArray[np.bool_]:
    """Which digests occur in several roles: their values have more than one bit."""
    value_N = records["value"]
    return np.asarray(value_N & (value_N - np.uint64(1)), dtype=bool)


def merge_buckets(
    buckets: range, files: Sequence[RecordFile], target: Path, how: np.ufunc, matters: Matters
) -> Path | None:
    """Merge some buckets over all blocks; the file with the records that matter, named after `target`, if any do."""
    everything = merged(np.concatenate([file.read(buckets) for file in files]), how)
    kept = everything[matters(everything)]
    if not len(kept):
        return None
    path = target.with_name(f"{target.name}-{buckets.start:02d}")
    kept.tofile(path)
    return path


@dataclass(frozen=True)
class Findings:
    """The records that matter, in order."""

    records: Records

    @classmethod
    def read(cls, files: Iterable[Path]) -> Findings:
        """What `merge_buckets` kept, in the order of the buckets."""
        return cls(np.concatenate([np.empty(0, RECORD), *(np.fromfile(file, RECORD) for file in files)]))

    def values(self, digest_N: NDArray[np.void]) -> NDArray[np.uint64]:
        """The value of every digest, [N]; 0 for those that do not matter."""
        found_N = np.zeros(len(digest_N), dtype=np.uint64)
        table = self.records
        place_N = np.searchsorted(table["high"], digest_N["high"])
        while len(pending := np.flatnonzero(place_N < len(table))):
            alike = table["high"][place_N[pending]] == digest_N["high"][pending]
            equal = alike & (table["low"][place_N[pending]] == digest_N["low"][pending])
            found_N[pending[equal]] = table["value"][place_N[pending[equal]]]
            place_N[pending] += 1
            place_N[pending[~alike | equal]] = len(table)  # done; only digests that share 64 bits go on
        return found_N
