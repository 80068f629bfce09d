"""Splits share no text and no group, hold what they need, and stay when rows are added."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kcm.tasks.rows import Row
from kcm.tasks.splits import DEFAULT_FRACTIONS, SPLITS, Fractions, assign_splits, purpose, without_overlap
from kcm.tasks.units import content_key

PLAIN = {"train": 0.4, "validate": 0.2, "certify": 0.2, "test": 0.2}

tables = st.lists(
    st.tuples(
        st.sampled_from(["Good film", "good  FILM", "bad", "dull", "fine", "ｆｉｎｅ", "awful", "great", "so so"]),
        st.sampled_from("ab"),
        st.sampled_from(["", "", "d1", "d2", "d3"]),
        st.sampled_from(["t1", "t2"]),
    ),
    min_size=1,
    max_size=40,
)


def as_rows(table, split=lambda i: ""):
    return [Row(str(i), text, label, group, task, split(i)) for i, (text, label, group, task) in enumerate(table)]


@given(tables, st.integers(0, 5))
@settings(max_examples=200)
def test_no_text_and_no_group_lies_in_two_splits(table, seed):
    rows = as_rows(table)
    splits = assign_splits(rows, [row.task for row in rows], PLAIN, seed)
    for key in (content_key, lambda row: row.group or row.id):
        seen: dict[str, str] = {}
        for row, split in zip(rows, splits, strict=True):
            assert seen.setdefault(key(row), split) == split


@given(tables, st.lists(st.sampled_from(["train", "validate", "test"]), min_size=40, max_size=40))
@settings(max_examples=200)
def test_given_splits_that_overlap_lose_the_rows_of_the_less_pure_one(table, given_splits):
    kept, dropped = without_overlap(as_rows(table, lambda i: given_splits[i]))
    assert len(kept) + len(dropped) == len(table)
    splits = assign_splits(kept, [row.task for row in kept], PLAIN, 0)
    for key in (content_key, lambda row: row.group or row.id):
        seen: dict[str, str] = {}
        for row, split in zip(kept, splits, strict=True):
            assert seen.setdefault(key(row), split) == split
    assert all(split == row.split for row, split in zip(kept, splits, strict=True) if row.split == "test")
    assert not {row.id for row in as_rows(table, lambda i: given_splits[i]) if row.split == "test"} & {
        b.id for b in dropped
    }


def test_shares_come_out_as_asked(rows_of):
    rows = rows_of([f"text {i}" for i in range(20_000)])
    splits = assign_splits(rows, ["t"] * len(rows), DEFAULT_FRACTIONS, 3)
    for split in SPLITS:  # four standard deviations of a share of 20,000 draws
        assert splits.count(split) / len(rows) == pytest.approx(DEFAULT_FRACTIONS[split], abs=0.0142)


def test_rows_added_later_move_no_row(rows_of):
    texts, groups = [f"text {i}" for i in range(400)], [f"document {i % 60}" for i in range(400)]
    few = assign_splits(rows_of(texts[:200], group=groups), ["t"] * 200, PLAIN, 0)
    many = assign_splits(rows_of(texts, group=groups), ["t"] * 400, PLAIN, 0)
    assert many[:200] == few


def test_the_order_of_rows_does_not_matter_and_the_seed_does(rows_of):
    rows = rows_of([f"text {i}" for i in range(200)])
    forward = assign_splits(rows, ["t"] * 200, PLAIN, 0)
    assert assign_splits(rows[::-1], ["t"] * 200, PLAIN, 0)[::-1] == forward
    assert assign_splits(rows, ["t"] * 200, PLAIN, 1) != forward


def test_a_split_is_the_same_on_every_machine(rows_of):
    splits = assign_splits(rows_of([f"text {i}" for i in range(12)]), ["t"] * 12, PLAIN, 0)
    initials = {"train": "-", "validate": "v", "certify": "c", "test": "t"}
    assert "".join(initials[split] for split in splits) == "--vvc-ct---t"


def test_a_class_with_one_row_is_trained_on(rows_of):
    for seed in range(20):
        rows = rows_of([f"text {i}" for i in range(60)], ["rare"] + ["a", "b"] * 29 + ["a"])
        assert assign_splits(rows, ["t"] * 60, PLAIN, seed)[0] == "train"


def test_every_split_of_a_small_task_gets_two_classes(rows_of):
    for seed in range(50):
        rows = rows_of([f"text {i}" for i in range(16)], ["a", "b"] * 8)
        splits = assign_splits(rows, ["t"] * 16, {"train": 0.85, "validate": 0.05, "certify": 0.05, "test": 0.05}, seed)
        for split in SPLITS:
            assert {row.label for row, at in zip(rows, splits, strict=True) if at == split} == {"a", "b"}


def test_no_split_is_helped_at_the_cost_of_a_class_in_train(rows_of):
    # Three rows of one class and many of the other: train keeps one of the three, and two go where they are needed.
    for seed in range(50):
        rows = rows_of([f"text {i}" for i in range(30)], ["rare"] * 3 + ["common"] * 27)
        splits = assign_splits(rows, ["t"] * 30, PLAIN, seed)
        assert "train" in splits[:3]


def test_sentences_that_chain_documents_together_do_not_swamp_a_small_split(rows_of):
    # A hundred documents of three sentences, all with one sentence in common: they are one unit.
    texts = [f"own sentence {i}" if i % 3 else "thank you" for i in range(300)] + [f"lone {i}" for i in range(300)]
    groups = [f"document {i // 3}" for i in range(300)] + [""] * 300
    for seed in range(10):
        splits = assign_splits(rows_of(texts, group=groups), ["t"] * 600, PLAIN, seed)
        assert set(splits[:300]) == {"train"}


@pytest.mark.parametrize(
    ("given_splits", "expected"),
    [
        (("train", "test"), {"train": {"train", "validate", "certify"}, "test": {"test"}}),
        (("train", "validate"), {"train": {"train", "test"}, "validate": {"validate", "certify"}}),
        (("train", "validate", "test"), {"train": {"train"}, "validate": {"validate", "certify"}, "test": {"test"}}),
        (("train", "certify", "test"), {"train": {"train", "validate"}, "certify": {"certify"}, "test": {"test"}}),
        (("train",), {"train": set(SPLITS)}),
        (SPLITS, {split: {split} for split in SPLITS}),
    ],
)
def test_only_what_is_missing_is_carved_from_given_splits(given_splits, expected, rows_of):
    origin = [given_splits[i % len(given_splits)] for i in range(400)]
    splits = assign_splits(rows_of([f"text {i}" for i in range(400)], split=origin), ["t"] * 400, PLAIN, 0)
    found: dict[str, set[str]] = {}
    for before, after in zip(origin, splits, strict=True):
        found.setdefault(before, set()).add(after)
    assert found == expected


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({**PLAIN, "test": 0.3}, "sum to 1"),
        ({**PLAIN, "test": 0.0, "train": 0.6}, "positive"),
        ({"train": 0.5, "test": 0.5}, "no fraction for validate, certify"),
        ({**PLAIN, "holdout": 0.1}, "holdout"),
    ],
)
def test_fractions_that_do_not_make_a_whole_are_refused(fractions, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Fractions).validate_python(fractions)


def test_the_purpose_of_a_unit_is_drawn_by_its_name_and_nothing_else() -> None:
    names = [f"unit {number}" for number in range(20_000)]
    drawn = [purpose("films", name, DEFAULT_FRACTIONS) for name in names]
    for split, fraction in DEFAULT_FRACTIONS.items():
        assert abs(drawn.count(split) / len(names) - fraction) < 0.02
    assert drawn[7] == purpose("films", "unit 7", dict(reversed(DEFAULT_FRACTIONS.items())))
    again = [purpose("books", name, DEFAULT_FRACTIONS) for name in names]
    alike = sum(one == other for one, other in zip(drawn, again, strict=True)) / len(names)
    assert abs(alike - sum(fraction**2 for fraction in DEFAULT_FRACTIONS.values())) < 0.02  # as if drawn anew


def test_the_purpose_of_a_unit_never_changes_between_versions() -> None:
    """Promise: a row of certify today is one tomorrow: a change of the rule would certify on what has trained."""
    found = [purpose("salt", f"unit {number}", DEFAULT_FRACTIONS) for number in range(8)]
    assert found == ["validate", "train", "train", "train", "train", "test", "certify", "test"]
