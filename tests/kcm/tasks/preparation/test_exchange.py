"""Records of equal digests are merged, and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kcm.tasks.preparation.digests import DIGEST
from kcm.tasks.preparation.exchange import (
    NUM_BUCKETS,
    RECORD,
    Findings,
    RecordFile,
    bridging,
    bucket_ranges,
    merge_buckets,
    merged,
    records_of,
    repeated,
)

# Few values for each half, so that digests share halves, which real ones never do.
digests = st.lists(st.tuples(st.sampled_from([0, 1, 1 << 60, 2**64 - 1]), st.integers(0, 2)), max_size=40)


def as_digests(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, DIGEST) if pairs else np.empty(0, DIGEST)


@given(digests)
def test_records_are_merged_by_their_whole_digest(pairs: list[tuple[int, int]]) -> None:
    values = np.arange(len(pairs), dtype=np.uint64)
    records = records_of(as_digests(pairs), values, np.minimum)
    firsts = {pair: pairs.index(pair) for pair in sorted(set(pairs))}
    assert [tuple(record) for record in records.tolist()] == [
        (*pair, first, pairs.count(pair)) for pair, first in firsts.items()
    ]


@given(st.lists(digests, min_size=1, max_size=4), st.integers(1, 200))
def test_buckets_over_blocks_give_what_all_rows_together_would(
    tmp_path_factory, blocks: list[list[tuple[int, int]]], num_rows: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("buckets")
    bits = [np.array([1 << (place % 3) for place in range(len(pairs))], np.uint64) for pairs in blocks]
    files = [
        RecordFile.write(folder / str(number), records_of(as_digests(pairs), value, np.bitwise_or))
        for number, (pairs, value) in enumerate(zip(blocks, bits, strict=True))
    ]
    ranges = bucket_ranges(num_rows * 1_000_000)
    assert [bucket for each in ranges for bucket in each] == list(range(NUM_BUCKETS))
    together = records_of(as_digests([pair for pairs in blocks for pair in pairs]), np.concatenate(bits), np.bitwise_or)
    for matters in (bridging, repeated):
        paths = [merge_buckets(each, files, folder / matters.__name__, np.bitwise_or, matters) for each in ranges]
        found = Findings.read([path for path in paths if path])
        np.testing.assert_array_equal(found.records, together[matters(together)])
        wanted = {(record["high"], record["low"]): record["value"] for record in found.records}
        for pairs in blocks:
            expected = [wanted.get(pair, 0) for pair in pairs]
            assert found.values(as_digests(pairs)).tolist() == expected


def test_nothing_merges_to_nothing() -> None:
    assert len(merged(np.empty(0, RECORD), np.minimum)) == 0
    assert Findings.read([]).values(as_digests([(1, 2)])).tolist() == [0]
