"""Units: which rows were drawn together, and a sample that tears none."""

import numpy as np

from kcm.metrics.intervals import Units


def test_groups_are_units_and_a_row_without_one_stands_alone():
    units = Units(np.array(["a", None, "b", "a", None], dtype=object), 5)
    assert units.count == 4
    assert units.code[0] == units.code[3]
    assert len(set(units.code)) == 4
    assert units.size[units.code].tolist() == [2, 1, 1, 2, 1]
    assert units.weights(np.arange(5)).tolist() == [0.5, 1, 1, 0.5, 1]


def test_rows_without_groups_are_units():
    units = Units(None, 3)
    assert units.count == 3
    assert units.weights(np.arange(2)).tolist() == [1, 1]


def test_of_many_rows_whole_units_are_drawn():
    units = Units(np.repeat(np.arange(100), 4).astype(object), 400)
    drawn = units.sample(400, 50, seed=0)
    assert 40 < len(drawn) <= 50
    assert set(np.bincount(units.code[drawn], minlength=100)) == {0, 4}


def test_of_many_rows_that_stand_alone_as_many_as_allowed_are_drawn():
    assert len(np.unique(Units(None, 400).sample(400, 50, seed=0))) == 50
    assert Units(None, 50).sample(50, 50, seed=0).tolist() == list(range(50))


def test_two_units_are_drawn_however_large_they_are():
    units = Units(np.repeat(np.arange(3), 100).astype(object), 300)
    assert np.bincount(units.code[units.sample(300, 50, seed=0)]).tolist().count(100) == 2
