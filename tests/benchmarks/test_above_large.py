"""The figures of a cascade above its large model: what each split holds, and what is compared."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from benchmarks.above_large import NUM_CERTIFY, SIDES, SIZES, Rows, sceptic, summary


def test_larger_train_sets_hold_the_smaller() -> None:
    """All sizes of a split share their certify rows, and no row is in two splits."""
    rows = Rows(np.zeros((4000, 1)), np.zeros(4000), np.zeros(4000))
    splits = [rows.split(3, size) for size in SIZES]
    for split_N, size in zip(splits, SIZES, strict=True):
        assert [(split_N == name).sum() for name in ("train", "certify", "test")] == [
            size,
            NUM_CERTIFY,
            4000 - size - NUM_CERTIFY,
        ]
    assert not ((splits[0] == "train") & (splits[1] != "train")).any()
    assert ((splits[0] == "certify") == (splits[2] == "certify")).all()


def test_the_sceptic_never_calls_a_model_that_is_always_wrong() -> None:
    """Blobs far apart: logistic regression is right, so each of its thresholds keeps everything."""
    vectors, label = make_blobs(600, centers=3, cluster_std=0.1, random_state=0)
    gold = np.array(["a", "b", "c"], dtype=object)[label]
    split = np.array(["train", "test"], dtype=object)[np.arange(600) % 2]
    found = sceptic(Rows(vectors, gold, np.full(600, "d", dtype=object)), split)
    assert found["sceptic accuracy"] == {"right": 1.0, "calls": 0.0}
    assert found["sceptic calls"] == {"right": 1.0, "calls": 0.0}


def test_gains_are_paired_and_false_certificates_counted() -> None:
    """The gain is the mean of differences within splits; certified splits that are worse on test rows are counted."""

    def cell(size: int, large: float, cascade: float, certified: bool) -> dict[str, object]:
        side = {"right": cascade, "calls": 0.5, "certified": certified}
        sides = dict.fromkeys(SIDES, side) | {"large": {"right": large, "calls": 1.0}}
        return {"size": size, "test_rows": 1000, "cpu_s": 1.0, **sides}

    cells = [cell(size, *figures) for size in SIZES for figures in ((0.8, 0.84, True), (0.7, 0.69, True))]
    figures = summary(cells)[0]
    assert figures["accuracy"]["gain"][0] == pytest.approx(0.015)
    assert (figures["accuracy"]["certified"], figures["accuracy"]["worse"]) == (2, 1)
