"""Do the words and pixels that `kcm explain` names decide an answer? Deletion and insertion curves.

    python benchmarks/faithfulness.py [--rows 200] [--write]

Words: the demo's reviews on MiniLM, 2,000 train rows. `kcm explain` leaves out each word in turn; so does its copy for
logistic regression on the same features. Word coefficients are those of logistic regression on word counts. Pixels:
scikit-learn's digits, 1,000 train rows. `kcm explain` draws each pixel's share as a heat map; logistic regression has
coefficient times distance from the mean. KCM is the product's default, learned curves of 512 mixtures.

A row's words or pixels are ranked by what they add to the model's own answer. Deletion takes away the first 10, 30,
50, 70 and 90%; insertion shows only these. A deleted pixel takes its mean over the train rows.
Both models are calibrated by one temperature each on further rows. The figure is the mean probability of the answer
under insertion less that under deletion (RISE, arXiv 1806.07421): 0 for an order that says nothing. Rows are texts of 5
to 60 words and digits that no model has learned. Nothing was tuned; rows were read once, four of them twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.label_tables import embedded
from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.rows import MINILM, NETWORK, at_unit_length, batch, fit_at_once
from benchmarks.study.seeds import gap
from kcm.bundle.answers import Input
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders import Encoder
from kcm.explain.explanation import WORDS, variants
from kcm.inputs.content import Content
from kcm.kan import MixedSplines
from kcm.kan.inspect import attribution
from kcm.metrics.calibration import fit_temperature
from kcm.tasks.readers.reviews import read_reviews

SHARED = NETWORK.model_copy(update={"shared": True})
SHARES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
Floats = NDArray[np.float64]
Scores = Callable[[NDArray[np.float32]], Floats]  # logits [N, C] of features [N, D]
Masked = Callable[[NDArray[np.bool_]], NDArray[np.float32]]  # features [M, D] of masks [M, I] of what is there


def spread(both: Mapping[str, Scores], masked: Masked, orders: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """Insertion less deletion of one row, by model and order; an order [I, C] ranks the parts by what they add."""
    num_parts = len(next(iter(orders.values())))
    counts_S = np.round(SHARES * num_parts).clip(1, num_parts - 1)
    figures = {}
    for model, scores in both.items():
        answer = int(scores(masked(np.ones((1, num_parts), dtype=bool)))[0].argmax())
        ranks = [(-order_IC[:, answer]).argsort(kind="stable").argsort(kind="stable") for order_IC in orders.values()]
        inserted = [rank_I < counts_S[:, None] for rank_I in ranks]
        masks_MI = np.concatenate([part for inserted_SI in inserted for part in (inserted_SI, ~inserted_SI)])
        means = softmax(scores(masked(masks_MI)), axis=1)[:, answer].reshape(len(orders), 2, -1).mean(2)
        figures[model] = dict(zip(orders, (means[:, 0] - means[:, 1]).tolist(), strict=True))
    return figures


def models(
    train: tuple[NDArray[np.float32], NDArray[np.int64]], other: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> tuple[Collaborator, LogisticRegression, dict[str, Scores]]:
    """KCM at its default, logistic regression, and the logits of both, each at the temperature that fits other rows."""
    features_ND, label_N = train
    collaborator = Collaborator(features_ND.shape[1], int(label_N.max()) + 1, SHARED, "kan", 0)
    fit_at_once(collaborator, batch(features_ND, label_N))
    regression = LogisticRegression(C=10, max_iter=1000).fit(features_ND, label_N)

    def of_kcm(features_ND: NDArray[np.float32]) -> Floats:
        with torch.no_grad():
            return np.asarray(collaborator(torch.from_numpy(features_ND))[0].double().numpy())

    def of_regression(features_ND: NDArray[np.float32]) -> Floats:
        decision = regression.decision_function(features_ND)
        return decision if decision.ndim == 2 else np.stack([-decision, decision], 1) / 2

    raw: dict[str, Scores] = {"KCM": of_kcm, "logistic regression": of_regression}
    return collaborator, regression, {model: tempered(scores, *other) for model, scores in raw.items()}


def tempered(scores: Scores, features_ND: NDArray[np.float32], label_N: NDArray[np.int64]) -> Scores:
    """The same logits at the temperature that fits these rows best."""
    temperature = fit_temperature(scores(features_ND), label_N)
    return lambda features_ND: scores(features_ND) / temperature


def words(num_rows: int, assets: Path) -> list[dict[str, dict[str, float]]]:
    """By row, model and order: insertion less deletion of words."""
    rng, read = np.random.default_rng(0), list(read_reviews(assets))
    rows = [read[row] for row in rng.permutation(len(read)) if 5 <= len(read[row].text.split()) <= WORDS]
    texts, label_N = [row.text for row in rows], np.array([row.label == "positive" for row in rows], dtype=np.int64)
    learned, other = slice(2000), slice(2000 + num_rows, 2500 + num_rows)
    train, calibration = ((embedded(texts[part], assets), label_N[part]) for part in (learned, other))
    _, _, both = models(train, calibration)
    counts = CountVectorizer()
    counted = LogisticRegression(max_iter=1000).fit(counts.fit_transform(texts[learned]), label_N[learned])
    coefficients = dict(zip(counts.get_feature_names_out(), counted.coef_[0], strict=True))
    encoder, tokens_of, figures = MINILM.build(assets), counts.build_analyzer(), []
    for text in texts[2000 : 2000 + num_rows]:
        parts, of_words = text.split(), Vectors(encoder)
        vectors_ND = of_words([variant.content.text for variant in variants(Input(Content(text=text)))])
        logits = {model: scores(vectors_ND) for model, scores in both.items()}
        orders = {name: logits[model][0] - logits[model][1:] for name, model in LEFT_OUT.items()}
        weight_I = np.array([sum(coefficients.get(token, 0.0) for token in tokens_of(part)) for part in parts])
        orders |= {"word coefficients": np.stack([-weight_I, weight_I], 1), "random": random_order(rng, len(parts), 2)}
        figures.append(spread(both, partial(with_words, of_words, parts), orders))
    return figures


LEFT_OUT = {"kcm explain": "KCM", "logistic regression": "logistic regression"}  # orders of words by their model


class Vectors(dict[str, NDArray[np.float32]]):
    """MiniLM's vectors at unit length by text, each computed once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of these texts, [N, D]."""
        if new := [text for text in dict.fromkeys(texts) if text not in self]:
            features_ND = self.encoder.encode([Content(text=text) for text in new])
            self.update(zip(new, at_unit_length(features_ND), strict=True))
        return np.stack([self[text] for text in texts])


def with_words(of_words: Vectors, parts: Sequence[str], masks_MI: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features of a text that has only the words of each mask."""
    return of_words([" ".join(compress(parts, mask_I)) for mask_I in masks_MI])


def random_order(rng: np.random.Generator, num_parts: int, num_labels: int) -> Floats:
    """One random order, whatever the answer."""
    return np.repeat(rng.random((num_parts, 1)), num_labels, axis=1)


def pixels(num_rows: int) -> list[dict[str, dict[str, float]]]:
    """By row, model and order: insertion less deletion of pixels."""
    rng = np.random.default_rng(0)
    pixels_ND, label_N = load_digits(return_X_y=True)
    order = rng.permutation(len(label_N))
    pixels_ND, label_N = (pixels_ND[order] / 16).astype(np.float32), label_N[order]
    learned, other = slice(1000), slice(1000 + num_rows, None)
    collaborator, regression, both = models((pixels_ND[learned], label_N[learned]), (pixels_ND[other], label_N[other]))
    judge, mean_D, figures = collaborator.judge, pixels_ND[learned].mean(0), []
    assert isinstance(judge, MixedSplines)
    for x_D in pixels_ND[1000 : 1000 + num_rows]:
        inputs_1D = collaborator.inputs(torch.from_numpy(x_D[None]))
        shares_CI = attribution(judge, inputs_1D).contributions[0]
        orders = {
            "kcm explain": torch.stack([judge.passed_back(share_I, inputs_1D[0]) for share_I in shares_CI], 1).numpy(),
            "logistic regression": (regression.coef_ * (x_D - mean_D)).T,
            "random": random_order(rng, len(x_D), len(shares_CI)),
        }
        figures.append(spread(both, partial(with_pixels, x_D, mean_D), orders))
    return figures


def with_pixels(
    x_D: NDArray[np.float32], mean_D: NDArray[np.float32], masks_MD: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """A picture that has only the pixels of each mask; the others take their mean."""
    return np.where(masks_MD, x_D, mean_D)


def summary(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """By model: mean over rows by order, and each model's own order less the others; then KCM less the regression."""
    figures: dict[str, Any] = {"rows": len(rows)}
    own = {model: order for order, model in LEFT_OUT.items()}
    for model, order in own.items():
        by_order = {name: np.array([row[model][name] for row in rows]) for name in rows[0][model]}
        figures[model] = {"means": {name: gap(values, 0.0) for name, values in by_order.items()}}
        others = [name for name in by_order if name != order]
        figures[model]["own order less"] = {name: gap(by_order[order], by_order[name]) for name in others}
    pairs = [row["KCM"][own["KCM"]] - row["logistic regression"][own["logistic regression"]] for row in rows]
    figures["KCM - logistic regression, own orders"] = gap(pairs, 0.0)
    return figures


def main() -> None:
    parser = options(__doc__, assets=True, results="faithfulness")
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, measure in (("pixels", pixels), ("words", partial(words, assets=arguments.assets))):
        started = time.process_time()
        figures = summary(measure(arguments.rows)) | {"cpu_s": time.process_time() - started}
        print(name, figures, flush=True)
        if arguments.write:
            keep("faithfulness", {"machine": machine(), name: figures})


if __name__ == "__main__":
    main()
