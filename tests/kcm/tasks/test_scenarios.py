"""Which rows make which task, and in which order tasks come."""

from collections import Counter

import pytest

from kcm.errors import ConfigError, DataError
from kcm.tasks import SPLITS
from kcm.tasks.scenarios import long_tail_sizes, natural_scenario, plan_tasks

LABELS = tuple("abcdefg")


CELLS = [("news", label) for label in LABELS] + [("mail", label) for label in LABELS]


def planned(cells=CELLS, labels=LABELS, **options):
    defaults = {"scenario": "class_incremental", "num_tasks": None, "order": "given", "seed": 0}
    return plan_tasks(cells, labels, **{**defaults, **options})


def test_labels_are_shared_out_equally_in_order():
    """The numbers of labels of two tasks differ by one at most."""
    plan = planned(num_tasks=3)
    assert plan.labels == (("a", "b", "c"), ("d", "e"), ("f", "g"))
    assert plan.names == ("task-1", "task-2", "task-3")
    assert plan.by_label
    assert plan.numbers == dict(zip("abcdefg", (0, 0, 0, 1, 1, 2, 2), strict=True))


def test_a_shuffled_order_depends_on_the_seed_alone():
    def labels_by_task(cells, seed):
        return planned(cells, num_tasks=3, order="shuffled", seed=seed).labels

    assert labels_by_task(CELLS, 1) == labels_by_task(CELLS[::-1], 1)
    assert len({labels_by_task(CELLS, seed) for seed in range(20)}) > 10
    for seed in range(20):
        assert sorted(label for labels in labels_by_task(CELLS, seed) for label in labels) == list(LABELS)


def test_domains_follow_the_task_column_in_row_order():
    plan = planned(scenario="domain_incremental")
    assert (plan.names, plan.labels) == (("news", "mail"), (LABELS, LABELS))
    assert not plan.by_label


def test_class_in_two_tasks_is_refused_if_class_incremental():
    with pytest.raises(DataError, match="class 'a' appears in two tasks, 'news' and 'mail'"):
        planned()
    assert len(planned(scenario="task_incremental").names) == 2


def test_tasks_that_nothing_tells_apart_are_refused():
    cells = [("", "a"), ("", "b")]
    with pytest.raises(ConfigError, match=r"Set source\.task_column"):
        planned(cells, "ab", scenario="domain_incremental")
    with pytest.raises(ConfigError, match="Set num_tasks or source"):
        planned(cells, "ab")


def test_a_number_of_tasks_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="num_tasks = 8, but there are 7 labels"):
        planned(num_tasks=8)
    with pytest.raises(ConfigError, match="num_tasks = 3, but there are 2 tasks"):
        planned(num_tasks=3, scenario="domain_incremental")


def test_a_cap_keeps_whole_groups_in_their_old_order_and_nests(write_csv, build):
    rows = [(f"text {i}", "ab"[i % 2], f"document {i // 3}") for i in range(900)]
    path = write_csv(rows, ("text", "label", "document"))
    found = []
    for limit in (301, 601):
        sequence = build(path, num_tasks=1, max_rows_per_task=limit, source={"group_column": "document"})
        rows = sequence.tasks[0].rows.to_pydict()
        found.append(set(rows["id"]))
        assert len(found[-1]) == limit - 1  # a group of three does not fit any more
        assert set(Counter(rows["group"]).values()) == {3}
        for split in SPLITS:
            of_split = sequence.tasks[0].splits[split]["id"].to_pylist()
            numbers = [int(row.removeprefix("data-")) for row in of_split]
            assert numbers == sorted(numbers)
    assert found[0] < found[1]


def test_cifar_100_lt_has_its_published_number_of_rows():
    # With imbalance factor 100 it has 10,847 train images (Cao et al., LDAM, 2019), sizes cut instead of rounded.
    assert sum(long_tail_sizes(500, 100, 100)) == pytest.approx(10_847, abs=100)


def test_a_shuffled_order_of_domains_keeps_their_rows():
    plans = [planned(scenario="domain_incremental", order="shuffled", seed=seed) for seed in range(8)]
    assert {plan.names for plan in plans} == {("news", "mail"), ("mail", "news")}
    assert all(plan.names[plan.numbers[name]] == name for plan in plans for name in ("news", "mail"))


@pytest.mark.parametrize(
    ("labels", "scenario"),
    [
        ({"one": "ab", "two": "cd", "three": "e"}, "class_incremental"),
        ({"one": "ab", "two": "ba", "three": "ab"}, "domain_incremental"),
        ({"one": "ab", "two": "ab", "three": "cd"}, None),
        ({"one": "ab", "two": "abc"}, None),
    ],
)
def test_labels_of_tasks_decide_on_the_scenario(labels: dict[str, str], scenario: str | None) -> None:
    """Promise: tasks share all labels or none; anything between is refused."""
    if scenario:
        assert natural_scenario(labels) == scenario
        return
    with pytest.raises(DataError, match=r"share some of their .* --scenario task_incremental .* a task column"):
        natural_scenario(labels)
