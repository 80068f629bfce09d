"""The error on a small table whose draw lacks something says how to fix it."""

import re

import pytest

from kcm.tasks.preparation.checks import SplitError


def test_error_names_split_label_and_needed_rows(write_csv, build, labelled):
    path = write_csv([*labelled(60, 2), *((f"rare {i}", f"rare {i}") for i in range(20))])
    with pytest.raises(SplitError, match=r"class 'rare \d+' of task 'task-1' has no train rows") as caught:
        build(path, num_tasks=1)
    # one row more trains with probability 1/2: four of five do not at least once in ten
    assert re.search(r"Add about 4 rows of class 'rare \d+'", str(caught.value))
    assert caught.value.is_drawn


def test_the_default_salt_is_the_seed(write_csv, build, labelled):
    path = write_csv(labelled(200, 2))
    first, second = (
        build(path, num_tasks=1, **choice).tasks[0].rows for choice in ({"seed": 5}, {"seed": 1, "salt": 5})
    )
    assert first.equals(second)
