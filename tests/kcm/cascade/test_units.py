"""Units: which rows were drawn together, and how many losses a test affords."""

import numpy as np
import pytest

from kcm.cascade.units import Units


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


@pytest.mark.parametrize(("level", "affordable"), [(0.02, -1), (0.04, 1), (0.5, 40)])
def test_as_many_losses_are_afforded_as_the_test_passes_with(level, affordable):
    units = Units(None, 100)
    assert units.affordable(np.arange(41.0), level, 0.1) == affordable
