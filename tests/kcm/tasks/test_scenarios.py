"""Which rows make which task, and in which order tasks come."""

from __future__ import annotations

import json

import pytest

from kcm.errors import ConfigError, DataError
from kcm.tasks.scenarios import group_rows, load_mapping

LABELS = tuple("abcdefg")


def grouped(rows, labels=LABELS, **options):
    defaults = {"scenario": "class_incremental", "num_tasks": None, "mapping": None, "order": "given", "seed": 0}
    return group_rows(rows, labels, **{**defaults, **options})


@pytest.fixture
def rows(rows_of):
    """Two rows of each of seven labels, in two domains."""
    return rows_of([str(i) for i in range(14)], list(LABELS * 2), task=["news"] * 7 + ["mail"] * 7)


def test_labels_are_shared_out_equally_and_the_first_tasks_get_the_rest(rows):
    groups = grouped(rows, num_tasks=3)
    assert [group.labels for group in groups] == [("a", "b", "c"), ("d", "e"), ("f", "g")]
    assert [group.name for group in groups] == ["task-1", "task-2", "task-3"]
    assert sorted(row.id for group in groups for row in group.rows) == sorted(row.id for row in rows)
    assert all(row.label in group.labels for group in groups for row in group.rows)


def test_names_of_tasks_sort_as_they_come(rows_of):
    labels = [f"l{i:02d}" for i in range(12)]
    names = [group.name for group in grouped(rows_of(labels, labels), labels, num_tasks=12)]
    assert names == sorted(names)


def test_a_shuffled_order_depends_on_the_seed_alone(rows):
    def labels_by_task(rows, seed):
        return [group.labels for group in grouped(rows, num_tasks=3, order="shuffled", seed=seed)]

    assert labels_by_task(rows, 1) == labels_by_task(rows[::-1], 1)
    assert len({str(labels_by_task(rows, seed)) for seed in range(20)}) > 10
    for seed in range(20):
        assert sorted(label for labels in labels_by_task(rows, seed) for label in labels) == list(LABELS)


def test_every_label_comes_first_equally_often_over_seeds(rows):
    firsts = [grouped(rows, num_tasks=7, order="shuffled", seed=seed)[0].labels[0] for seed in range(700)]
    statistic = sum((firsts.count(label) - 100) ** 2 / 100 for label in LABELS)
    assert statistic < 22.5  # chi-square with 6 degrees of freedom, p = 0.001


def test_a_mapping_names_the_tasks_and_their_order(rows):
    groups = grouped(rows, mapping={"second half": ["e", "f", "g"], "first half": ["a", "b", "c", "d"]})
    assert [(group.name, group.labels) for group in groups] == [
        ("second half", ("e", "f", "g")),
        ("first half", ("a", "b", "c", "d")),
    ]


def test_domains_come_from_the_task_column_in_the_order_of_the_rows(rows):
    groups = grouped(rows, scenario="domain_incremental")
    assert [(group.name, group.labels) for group in groups] == [("news", LABELS), ("mail", LABELS)]


def test_a_mapping_can_join_domains(rows):
    (group,) = grouped(rows, scenario="domain_incremental", mapping={"all": ["mail", "news"]})
    assert len(group.rows) == 14


def test_a_class_in_two_tasks_is_refused_when_class_incremental_but_not_when_task_incremental(rows):
    with pytest.raises(DataError, match="class 'a' appears in two tasks, 'news' and 'mail'"):
        grouped(rows)
    assert len(grouped(rows, scenario="task_incremental")) == 2


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"x": ["a", "b", "c"], "y": ["c", "d", "e", "f", "g"]}, "label 'c' lies in two tasks, 'x' and 'y'"),
        ({"x": ["a", "b", "c"]}, "no task for label 'd', 'e', 'f', 'g'"),
        ({"x": [*LABELS, "gg"]}, "no row has label 'gg'.*'g'"),
    ],
)
def test_a_mapping_that_does_not_fit_the_labels_is_refused(mapping, message, rows):
    with pytest.raises(DataError, match=message):
        grouped(rows, mapping=mapping)


def test_tasks_that_nothing_tells_apart_are_refused(rows_of):
    rows = rows_of(["x", "y"], ["a", "b"])
    with pytest.raises(ConfigError, match=r"Set source\.task_column"):
        grouped(rows, "ab", scenario="domain_incremental")
    with pytest.raises(ConfigError, match=r"Set source\.task_column"):
        grouped(rows, "ab", scenario="domain_incremental", mapping={"first": ["news"]})
    with pytest.raises(ConfigError, match="Set num_tasks, mapping"):
        grouped(rows, "ab")


def test_a_number_of_tasks_that_cannot_be_is_refused(rows):
    with pytest.raises(ConfigError, match="num_tasks = 8, but there are 7 labels"):
        grouped(rows, num_tasks=8)
    with pytest.raises(ConfigError, match="num_tasks = 3, but there are 2 tasks"):
        grouped(rows, num_tasks=3, scenario="domain_incremental")


def test_a_mapping_is_read_from_json_and_yaml(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"x": ["a", 1]}))
    (tmp_path / "m.yaml").write_text("x:\n- a\n- 1\n")
    assert load_mapping(str(tmp_path / "m.json")) == load_mapping(str(tmp_path / "m.yaml")) == {"x": ["a", "1"]}


@pytest.mark.parametrize(("content", "message"), [("[1, 2]", "expected a mapping"), ("{x: [", "not a JSON or YAML")])
def test_a_mapping_file_that_is_none_is_refused(content, message, tmp_path):
    (tmp_path / "m.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        load_mapping(str(tmp_path / "m.yaml"))
    with pytest.raises(DataError, match="no such file"):
        load_mapping(str(tmp_path / "gone.yaml"))
