"""Retrieval as a cascade: queries become rows of a classification, and what is chosen keeps within what it is given."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.retrieval import (
    MAX_SHARE,
    Candidate,
    Gallery,
    Vectors,
    candidates,
    figures,
    fit_weight,
    galleries,
    queries,
    within_share,
)
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.tasks.readers.pairs import LABELS

NUM, DIM, K = 30, 6, 5
SEARCH = SimpleNamespace(seed=0, tune=SimpleNamespace(gates=("confidence", "signals")))


def made(small: object, large: object, right: object, split: str = "test") -> Gallery:
    scores = [np.asarray(each, float) for each in (small, small, small, large)]
    names = np.array([f"{split}{number // 2}" for number in range(len(scores[0]))], dtype=object)
    return Gallery(split, *scores, relevant=np.asarray(right, bool), group=names)


@pytest.fixture(scope="module")
def drawn() -> list[Gallery]:
    """60 queries of each split with one right item each; both models score it higher, the large one by more."""
    found = []
    for seed, split in enumerate(("validate", "certify", "test")):
        rng, right = np.random.default_rng(seed), np.eye(60, dtype=bool)
        small, large = (right * strength + rng.normal(size=(60, 60)) for strength in (1.5, 3.0))
        found.append(made(small, large, right, split))
    return found


@pytest.fixture(scope="module")
def tried(drawn: list[Gallery]) -> list[Candidate]:
    return list(candidates(drawn, SEARCH, (2, K)))


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.0), (0.3, 0.3), (1.5, 1.5), (-1.0, 0.0)])
def test_the_weight_of_a_second_ranker_is_found_again(weight: float, expected: float) -> None:
    """The right item is drawn by the softmax of 2 first + 2 weight second: a Gumbel race. One that misleads is out."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4000, 8))
    chosen = (2 * first + 2 * weight * second + rng.gumbel(size=first.shape)).argmax(1)
    right = np.arange(8) == chosen[:, None]
    # Scores are standardised within the query, which blurs the weight a little.
    found = fit_weight([(first, second, right)])
    assert found == pytest.approx(expected, abs=0.06 + 0.05 * expected)
    untold = first, second, np.zeros_like(right)
    assert fit_weight([untold]) == 0.0
    assert fit_weight([(first, second, right), untold]) == found


def test_the_three_ways_to_ask_the_large_model() -> None:
    # The small model's first two are items 0 and 1; the large one likes item 3 best, then 1; item 1 is right.
    one = made([[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 0.5, 2.0]], [[0, 1, 0, 0]])
    hard, soft = (queries([one], "test", 2, weight) for weight in (0.0, 10.0))
    assert (hard.place.tolist(), hard.num_items.tolist()) == ([1], [4])
    assert [hard.small_right.item(), hard.large_right.item(), hard.listed_right.item()] == [False, False, True]
    assert not soft.listed_right.item()  # with a large weight, it repeats the small model's mistake


def test_the_search_keeps_within_its_share(tried: list[Candidate]) -> None:
    assert len(tried) == 4 * 2
    bounded, decision = within_share(tried)
    assert float((~decision.keep(bounded.validate.score)).mean()) * bounded.share <= MAX_SHARE


def test_a_policy_lies_between_the_small_ranking_and_large_only(drawn: list[Gallery], tried: list[Candidate]) -> None:
    keep, escalate = (figures(tried[0], drawn, decision) for decision in (KEEP_ALL, ESCALATE_ALL))
    assert (keep["pair_share"], escalate["pair_share"]) == (0, 1)
    assert keep["cascade_recall_at_1"] == keep["small_recall_at_1"]
    assert escalate["cascade_recall_at_1"] == escalate["large_recall_at_1"]
    assert escalate["difference"]["estimate"] == 0
    _, rows = tried[0].on(drawn, "test")
    half = figures(tried[0], drawn, Decision.of(float(np.median(rows.score))))
    assert half["pair_share"] == pytest.approx(half["escalated"] * 2 / 60)  # a call costs the pairs that it scores


def unit(seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((3 * NUM, DIM)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_rows_that_match_become_queries_both_ways() -> None:
    """A caption of two pictures is asked for once; networks that say nothing leave the ranking to the cosine."""
    names = [f"picture {number}" for number in range(3 * NUM)]
    splits = [split for split in ("validate", "certify", "test") for _ in range(NUM)]
    captions = ["Twice", "twice", *names[2:]]
    rows = pa.table({"text": captions, "group": names, "split": splits, "task": ["t"] * len(names)})
    collaborator = Collaborator(DIM + 1, 2, NetworkConfig(hidden=()), "kan", seed=0)
    with torch.no_grad():
        for parameter in collaborator.parameters():
            parameter.zero_()
    small = Vectors(unit(0), unit(1))
    found = galleries(rows, small, Vectors(unit(2), unit(3)), collaborator, SimpleNamespace(label_names=LABELS))
    assert [gallery.split for gallery in found] == [split for split in splits[::NUM] for _ in range(2)]
    pictures, texts = found[:2]
    assert pictures.relevant.shape == texts.relevant.T.shape == (NUM, NUM - 1)
    assert (pictures.relevant.sum(0) == np.array([1] * (NUM - 2) + [2])).all()
    assert (texts.relevant == pictures.relevant.T).all()
    certify = slice(NUM, 2 * NUM)
    # Columns are sorted by caption, and there all are their own.
    cosine = (small.images[certify] @ small.texts[certify].T)[:, np.argsort(names[certify])]
    for scores in (found[2].small, found[2].judge):
        assert (scores.argsort(1) == cosine.argsort(1)).all()
