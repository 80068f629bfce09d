"""Retrieval as an outcome table: places as labels, prompt modes as what the large model is shown, pairs as cost."""

from __future__ import annotations

import numpy as np
import pytest

from kcm.errors import DataError


def test_the_three_ways_to_ask_the_large_model(gallery):
    # The small model's first two are items 0 and 1; the large one likes item 3 best, then 1; item 1 is right.
    one = gallery([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 1, 0, 0]])
    assert one.ranks("none", 2, 0.0).tolist() == [1]
    assert one.ranks("hard", 2, 0.0).tolist() == [0]
    assert one.ranks("soft", 2, 10.0).tolist() == [1]  # with a large weight, it repeats the small model's mistake
    assert one.small_ranks().tolist() == [1]


def test_a_query_is_a_row_whose_labels_are_places(gallery):
    one = gallery([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 1, 0, 0]])
    table = one.outcomes("hard", 2, 0.0)
    assert table.label_names == ("1", "2", "elsewhere")
    assert table.prompt.tolist() == ["none", "hard"]
    assert table.label.tolist() == [1, 1]
    assert table.small_correct.tolist() == [False, False]
    assert table.large_label.tolist() == [-1, 1]  # outside the list, then the right place
    assert table.large_cost.tolist() == [4, 2]  # pairs scored


def test_a_right_item_outside_the_list_is_large_onlys_alone(gallery):
    one = gallery([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 0, 0, 1]])
    hard = one.outcomes("hard", 2, 0.0).where(prompt="hard")
    assert (hard.large_none_correct.tolist(), hard.large_correct.tolist()) == ([True], [False])
    assert one.ranks("hard", 2, 0.0).tolist() == [3]


def test_any_of_several_right_items_will_do(gallery):
    one = gallery([[3.0, 2.0, 1.0]], [[0.0, 1.0, 2.0]], [[0, 1, 1]])
    assert one.outcomes("hard", 3, 0.0).large_correct.all()


def test_the_places_agree_with_the_ranks(galleries):
    for mode in ("none", "hard", "soft"):
        table = galleries[2].outcomes(mode, 5, 1.0).where(prompt=mode)
        assert (table.large_correct == (galleries[2].ranks(mode, 5, 1.0) == 0)).all()
        assert (table.small_correct == (galleries[2].small_ranks() == 0)).all()


def test_scores_that_are_no_numbers_are_refused(gallery):
    with pytest.raises(DataError, match="small scores"):
        gallery([[np.nan, 1.0]], [[0.0, 1.0]], [[0, 1]])
