"""Retrieval as an outcome table: places as labels, prompt modes as what the large model is shown, pairs as cost."""

from __future__ import annotations

import numpy as np
import pytest

from kcm.cascade.certificate import CertificateConfig
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.cascade.reranking import Gallery
from kcm.cascade.retrieval_quality import Retrieved
from kcm.cascade.retrieval_search import Choice, RetrievalConfig, candidates, cheapest, queries, within_share
from kcm.errors import DataError

CONFIG = RetrievalConfig(top_k=(2, 5), weights=(1.0,))


def gallery(small: object, large: object, relevant: object, **parts: object) -> Gallery:
    small = np.asarray(small, dtype=np.float64)
    names = np.array([f"q{number}" for number in range(len(small))], dtype=object)
    fields = {"judge": small, "task": "t", "split": "test", "way": "image to text", "group": names} | parts
    return Gallery(
        small=small, large=np.asarray(large, float), relevant=np.asarray(relevant, bool), ids=names, **fields
    )


def drawn(split: str, seed: int, num: int = 60, small: float = 1.5, large: float = 3.0) -> Gallery:
    """Queries with one right item each; both models score it higher, the large one by more."""
    rng = np.random.default_rng(seed)
    right = np.eye(num, dtype=bool)
    scores = (right * strength + rng.normal(size=(num, num)) for strength in (small, large))
    return gallery(*scores, right, split=split, group=np.array([f"{split}{n // 2}" for n in range(num)], dtype=object))


@pytest.fixture(scope="module")
def galleries() -> list[Gallery]:
    return [drawn(split, seed) for seed, split in enumerate(("validate", "certify", "test"))]


def test_the_three_ways_to_ask_the_large_model():
    # The small model's first two are items 0 and 1; the large one likes item 3 best, then 1; item 1 is right.
    one = gallery([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 1, 0, 0]])
    assert one.ranks("none", 2, 0.0).tolist() == [1]
    assert one.ranks("hard", 2, 0.0).tolist() == [0]
    assert one.ranks("soft", 2, 10.0).tolist() == [1]  # told loudly enough, it repeats the small model's mistake
    assert one.small_ranks().tolist() == [1]


def test_a_query_is_a_row_whose_labels_are_places():
    one = gallery([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 1, 0, 0]])
    table = one.outcomes("hard", 2, 0.0)
    assert table.label_names == ("1", "2", "elsewhere")
    assert table.prompt.tolist() == ["none", "hard"]
    assert table.label.tolist() == [1, 1]
    assert table.small_correct.tolist() == [False, False]
    assert table.large_label.tolist() == [-1, 1]  # outside the list, then the right place
    assert table.large_cost.tolist() == [4, 2]  # pairs scored


def test_a_right_item_outside_the_list_is_large_onlys_alone():
    one = gallery([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 0, 0, 1]])
    hard = one.outcomes("hard", 2, 0.0).where(prompt="hard")
    assert (hard.large_none_correct.tolist(), hard.large_correct.tolist()) == ([True], [False])
    assert one.ranks("hard", 2, 0.0).tolist() == [3]


def test_any_of_several_right_items_will_do():
    one = gallery([[3.0, 2.0, 1.0]], [[0.0, 1.0, 2.0]], [[0, 1, 1]])
    assert one.outcomes("hard", 3, 0.0).large_correct.all()


def test_the_places_agree_with_the_ranks(galleries):
    for mode in ("none", "hard", "soft"):
        table = galleries[2].outcomes(mode, 5, 1.0).where(prompt=mode)
        assert (table.large_correct == (galleries[2].ranks(mode, 5, 1.0) == 0)).all()
        assert (table.small_correct == (galleries[2].small_ranks() == 0)).all()


def test_keeping_all_is_the_small_ranking_and_escalating_all_is_large_only(galleries):
    candidate = candidates(galleries, CONFIG, ("confidence",), seed=0)[0]
    keep = Retrieved.of(galleries, candidate, Policy(decision=KEEP_ALL))
    assert (keep.cascade == galleries[2].small_ranks()).all()
    assert keep.share == 0
    escalate = Retrieved.of(galleries, candidate, Policy(decision=ESCALATE_ALL))
    assert (escalate.cascade == galleries[2].ranks("none", 2, 0.0)).all()
    assert escalate.share == 1
    assert escalate.difference().estimate == 0


def test_a_call_costs_as_many_pairs_as_it_scores(galleries):
    candidate = candidates(galleries, CONFIG, ("confidence",), seed=0)[0]
    half = Decision.of(float(np.median(candidate.score(queries(galleries, "test", candidate.choice)).score)))
    found = Retrieved.of(galleries, candidate, Policy(decision=half))
    assert found.share == pytest.approx((~found.kept).mean() * 2 / 60)


def test_the_search_keeps_within_its_share_and_its_loss(galleries):
    tried = candidates(galleries, CONFIG, ("confidence", "deferral"), seed=0)
    assert len(tried) == 4 * 2
    best, policy = cheapest(tried, 0.05, CertificateConfig(epsilon=0.3))
    assert policy.prompt == best.choice.mode != "none"
    bounded, decision = within_share(tried, 0.01)
    assert float((~decision.keep(bounded.rows.score)).mean()) * bounded.share <= 0.01


def test_a_list_longer_than_a_gallery_is_refused(galleries):
    with pytest.raises(DataError, match="top_k = 100, but a gallery of task 't' has 60 items"):
        candidates(galleries, RetrievalConfig(top_k=(100,)), ("confidence",), seed=0)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="small scores"):
        gallery([[np.nan, 1.0]], [[0.0, 1.0]], [[0, 1]])


def test_a_choice_is_what_its_queries_are_answered_with(galleries):
    table = queries(galleries, "validate", Choice(5, "soft", 1.0))
    assert set(table.split) == {"validate"}
    assert set(table.prompt) == {"soft"}
