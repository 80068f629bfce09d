"""The routing head: the ridge estimate it claims to be, and left-out estimates that never saw their row."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from kcm.routing import router as heads
from kcm.routing.inputs import RouterInputs, hashed_words
from kcm.routing.router import fit_head


def inputs(num_rows: int, *, num_buckets: int, seed: int = 0) -> tuple[RouterInputs, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers, encoding = rng.normal(size=(num_rows, 2)), rng.normal(size=(num_rows, 3))
    category = np.eye(4)[rng.integers(4, size=num_rows)]
    words = rng.poisson(0.3, size=(num_rows, num_buckets)).astype(float)
    target = np.sin(2 * numbers[:, 0]) + 0.5 * encoding[:, 1] + category[:, 2] + (words[:, 0] if num_buckets else 0)
    rows = RouterInputs(numbers, encoding, csr_array(category), csr_array(words))
    return rows, target + 0.1 * rng.normal(size=num_rows)


@pytest.mark.parametrize(
    "num_buckets", [0, 5, 400], ids=["no words", "fewer inputs than rows", "more inputs than rows"]
)
def test_it_finds_curves_lines_categories_and_words(num_buckets: int) -> None:
    rows, target = inputs(300, num_buckets=num_buckets)
    fitted, held_out = np.arange(250), np.arange(250, 300)
    head, left_out = fit_head(rows.select(fitted), target[fitted])
    estimate = head.estimate(rows.select(held_out))
    assert np.corrcoef(estimate, target[held_out])[0, 1] > (0.85 if num_buckets < 400 else 0.6)
    assert np.corrcoef(left_out, target[fitted])[0, 1] > (0.85 if num_buckets < 400 else 0.6)


def test_both_systems_give_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, target = inputs(60, num_buckets=5)
    head, left_out = fit_head(rows, target)
    monkeypatch.delattr(heads, "ridge_left_out")  # with more inputs than rows it has to do without
    wide = replace(rows, words_NV=csr_array(np.pad(rows.words_NV.toarray(), ((0, 0), (0, 90)))))
    other, other_left_out = fit_head(wide, target)
    np.testing.assert_allclose(other.estimate(wide), head.estimate(rows), atol=1e-5)
    np.testing.assert_allclose(other_left_out, left_out, atol=1e-5)


def test_pure_noise_is_not_learned_out_of_fold() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklmnop"), 8)) for _ in range(200)]
    rows = RouterInputs(rng.normal(size=(200, 3)), np.zeros((200, 0)), csr_array((200, 0)), hashed_words(texts))
    target = rng.choice([-1.0, 0.0, 1.0], 200)
    _, left_out = fit_head(rows, target)
    assert abs(np.corrcoef(left_out, target)[0, 1]) < 0.2 or np.ptp(left_out) < 1e-3


@pytest.mark.parametrize("target", [np.zeros(20), np.ones(20)])
def test_a_target_or_inputs_that_do_not_vary_give_its_mean(target: np.ndarray) -> None:
    same = RouterInputs(np.ones((20, 2)), np.zeros((20, 0)), csr_array((20, 0)), csr_array(np.ones((20, 4))))
    head, left_out = fit_head(same, target)
    np.testing.assert_allclose(left_out, target, atol=1e-9)
    np.testing.assert_allclose(head.estimate(same), target, atol=1e-9)


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_many_rows_are_fitted_as_few_are_and_all_of_them(monkeypatch: pytest.MonkeyPatch, grouped: bool) -> None:
    rows, target = inputs(400, num_buckets=20)
    group = np.repeat(np.arange(100), 4).astype(object) if grouped else None
    head, left_out = fit_head(rows, target, group)
    monkeypatch.setattr(heads, "EXACT_ROWS", 50)
    monkeypatch.setattr("kcm.closed_form.left_out.CHUNK_ROWS", 90)
    steps: list[tuple[str, int, int]] = []
    streamed, streamed_left_out = fit_head(rows, target, group, lambda *step: steps.append(step))
    np.testing.assert_allclose(streamed.estimate(rows), head.estimate(rows), atol=1e-6)
    np.testing.assert_allclose(streamed_left_out, left_out, atol=1e-6)
    assert steps[-1] == ("rows fitted on", 800, 800)  # each is read twice
