"""Splits share no text and no group, and stay when rows are added."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kcm.inputs.content import Content
from kcm.tasks.rows import SourceRow
from kcm.tasks.rows import rows_of as normalised
from kcm.tasks.splits import DEFAULT_FRACTIONS, SPLITS, Fractions, purpose
from kcm.tasks.units import text_key, unit_digest

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


def as_records(table, given=lambda i: ""):
    return normalised(
        [SourceRow(str(i), text, label, group, task, given(i)) for i, (text, label, group, task) in enumerate(table)]
    )


def by_what_they_share(table, splits):
    """Splits of every content, and of every group, of the rows that are kept."""
    found = defaultdict(set)
    for number, (text, _, group, _) in enumerate(table):
        if (split := splits.of.get(str(number))) is not None:
            found["text", text_key(text)].add(split)
            if group:
                found["group", group].add(split)
    return found


@given(table=tables, salt=st.integers(0, 5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_rows_with_text_used_elsewhere_are_left_out(split, table, salt):
    """Promise: the salt and the unit's name draw a split, and other rows, their order, labels and tasks move none.

    So no group lies in two splits; of a text in two, the rows in the purer split are left out.
    """
    found = split(as_records(table), fractions=PLAIN, salt=salt)
    drawn = [purpose(str(salt), unit_digest(Content(text), group)[:16].hex(), PLAIN) for text, _, group, _ in table]
    first = {}
    for (text, *_), split_of in zip(table, drawn, strict=True):
        key = text_key(text)
        first[key] = min(first.get(key, split_of), split_of, key=SPLITS.index)
    for number, (text, *_) in enumerate(table):
        owner = first[text_key(text)]
        if drawn[number] == owner:
            assert found.of[str(number)] == owner
        else:
            assert found.reasons[str(number)] == f"its text is also in split {owner}"


@given(table=tables, given_splits=st.lists(st.sampled_from(["train", "validate", "test"]), min_size=40, max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overlapping_splits_lose_rows_of_the_less_pure_one(split, table, given_splits):
    found = split(as_records(table, lambda i: given_splits[i]), fractions=PLAIN)
    assert all(len(splits) == 1 for splits in by_what_they_share(table, found).values())
    assert all(found.of[str(i)] == "test" for i in range(len(table)) if given_splits[i] == "test")


def test_a_split_is_the_same_on_every_machine(split, rows_of):
    """Promise: a row of certify today is one in any later version, which would else certify on what has trained."""
    found = split(rows_of([f"text {i}" for i in range(48)])).of
    initials = {"train": "-", "validate": "v", "certify": "c", "test": "t"}
    assert "".join(initials[found[str(i)]] for i in range(48)) == "--ttc---c--ctct-c----ttc-v---t--vv-v-t-----tvcv-"


def test_common_text_does_not_tie_documents_together(split, rows_of):
    # A hundred documents of three sentences, all with one sentence in common: it stays where it trains.
    texts = [f"own sentence {i}" if i % 3 else "thank you" for i in range(300)]
    groups = [f"document {i // 3}" for i in range(300)]
    found = split(rows_of(texts, group=groups))
    assert set(found.of.values()) == set(SPLITS)
    assert {found.of[str(i)] for i in range(0, 300, 3) if str(i) in found.of} == {"train"}
    assert {i for i in found.reasons if int(i) % 3} == set()
    assert set(found.reasons.values()) == {"its text is also in split train"}


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
def test_only_what_is_missing_is_carved_from_given_splits(given_splits, expected, split, rows_of):
    origin = [given_splits[i % len(given_splits)] for i in range(400)]
    drawn = split(rows_of([f"text {i}" for i in range(400)], split=origin), fractions=PLAIN)
    found: dict[str, set[str]] = {}
    for number, before in enumerate(origin):
        found.setdefault(before, set()).add(drawn.of[str(number)])
    assert found == expected


def test_duplicate_ids_across_shards_keep_the_first_row(split, rows_of):
    first, second = rows_of(["a", "b"]), rows_of(["c", "d", "e"])
    found = split(first, second)
    assert sorted(found.of) == ["0", "1", "2"]
    assert found.reasons == {"0": "duplicate id", "1": "duplicate id"}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({**PLAIN, "test": 0.3}, "sum to 1"),
        ({**PLAIN, "train": 0.0, "test": 1 - PLAIN["validate"] - PLAIN["certify"]}, "positive"),
        ({**PLAIN, "test": -0.1, "train": PLAIN["train"] + PLAIN["test"] + 0.1}, "positive"),
        ({"train": 0.5, "test": 0.5}, "no fraction for validate, certify"),
        ({**PLAIN, "holdout": 0.1}, "holdout"),
    ],
)
def test_fractions_that_do_not_make_a_whole_are_refused(fractions, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Fractions).validate_python(fractions)


def test_purpose_of_a_unit_depends_only_on_its_name() -> None:
    names = [f"unit {number}" for number in range(20_000)]
    drawn = [purpose("films", name, DEFAULT_FRACTIONS) for name in names]
    for split, fraction in DEFAULT_FRACTIONS.items():
        assert abs(drawn.count(split) / len(names) - fraction) < 0.02
    assert drawn[7] == purpose("films", "unit 7", dict(reversed(DEFAULT_FRACTIONS.items())))
    again = [purpose("books", name, DEFAULT_FRACTIONS) for name in names]
    alike = sum(one == other for one, other in zip(drawn, again, strict=True)) / len(names)
    assert abs(alike - sum(fraction**2 for fraction in DEFAULT_FRACTIONS.values())) < 0.02  # as if drawn anew
