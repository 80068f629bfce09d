"""Routers on the answers to MMLU that RouteLLM recorded: the head of `kcm route fit`, and a sceptic's baselines.

    python benchmarks/route_logs.py --responses FOLDER    # routellm/evals/mmlu/responses of github lm-sys/RouteLLM

14,042 questions, Mixtral-8x7B as the small model, GPT-4 as the large one, their subject as category; APGR over five
folds. The head reads no encoder here. The ridge reads TF-IDF of single words and the subject as one-hot columns; its
alpha is the best of three on the very folds, which favours it. The mean of a subject is shrunk to that of all by ten
rows. Whether words carry signs in their buckets was chosen on these folds and on GSM8K.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from benchmarks.script import options
from benchmarks.study.seeds import resampled_mean
from kcm.cascade.evaluation import router_quality
from kcm.cascade.scored import ScoredOutcomes
from kcm.routing.inputs import RouterInputs, hashed_words, text_statistics
from kcm.routing.router import fit_head

NUM_FOLDS, ALPHAS, SHRINKAGE = 5, (3.0, 10.0, 30.0), 10
Rows = NDArray[np.intp]
Router = Callable[[Rows, Rows], NDArray[np.float64]]  # train and test rows -> the estimated gain of each test row


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--responses", type=Path, required=True)
    table = read(parser.parse_args().responses)
    routers = {"subject's mean": subject_mean(table), "head": head(table)}
    routers |= {f"ridge, alpha {alpha:g}": ridge(table, alpha) for alpha in ALPHAS}
    apgr = {name: over_folds(table, router) for name, router in routers.items()}
    for name, folds in apgr.items():
        print(f"{name:16} {folds.mean():.3f}", np.round(folds, 3))
    best = max((name for name in apgr if name.startswith("ridge")), key=lambda name: float(apgr[name].mean()))
    for baseline in (best, "subject's mean"):
        interval = resampled_mean(apgr["head"] - apgr[baseline], 1 / (NUM_FOLDS - 1))
        assert interval is not None
        print(f"head − {baseline}: {interval.estimate:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})")


def read(folder: Path) -> pd.DataFrame:
    """Columns `text`, `small`, `large` and `subject`."""
    parts = []
    for file in sorted(folder.glob("mmlu_*.csv")):
        part = pd.read_csv(file).set_axis(["text", "small", "large"], axis=1)
        parts.append(part.assign(subject=file.stem.removeprefix("mmlu_")))
    return pd.concat(parts, ignore_index=True)


def over_folds(table: pd.DataFrame, router: Router) -> NDArray[np.float64]:
    """APGR in every fold."""
    rows = []
    for train, test in KFold(NUM_FOLDS, shuffle=True, random_state=0).split(table):
        correct = {f"{side}_correct": table[side].to_numpy(bool)[test] for side in ("small", "large")}
        rows.append(router_quality(ScoredOutcomes(score=-router(train, test), **correct)).apgr)
    return np.array(rows)


def gain(table: pd.DataFrame) -> NDArray[np.float64]:
    """What a call of the large model gains, [N]."""
    return np.asarray(table["large"].to_numpy(float) - table["small"].to_numpy(float))


def one_hot(table: pd.DataFrame) -> csr_array:
    code = pd.factorize(table["subject"])[0]
    return csr_array((np.ones(len(table)), (np.arange(len(table)), code)))


def head(table: pd.DataFrame) -> Router:
    texts = table["text"].tolist()
    inputs = RouterInputs(text_statistics(texts), np.zeros((len(table), 0)), one_hot(table), hashed_words(texts))
    return lambda train, test: fit_head(inputs.select(train), gain(table)[train])[0].estimate(inputs.select(test))


def ridge(table: pd.DataFrame, alpha: float) -> Router:
    def estimate(train: Rows, test: Rows) -> NDArray[np.float64]:
        words = TfidfVectorizer(min_df=2, sublinear_tf=True).fit(table["text"].iloc[train]).transform(table["text"])
        inputs = csr_array(hstack([words, one_hot(table)]))
        model = Ridge(alpha=alpha, solver="sparse_cg", tol=1e-3)
        return np.asarray(model.fit(inputs[train], gain(table)[train]).predict(inputs[test]))

    return estimate


def subject_mean(table: pd.DataFrame) -> Router:
    def estimate(train: Rows, test: Rows) -> NDArray[np.float64]:
        train_gain = pd.Series(gain(table)[train]).groupby(table["subject"].to_numpy()[train])
        overall = gain(table)[train].mean()
        means = (train_gain.sum() + SHRINKAGE * overall) / (train_gain.count() + SHRINKAGE)
        return table["subject"].iloc[test].map(means).fillna(overall).to_numpy()

    return estimate


if __name__ == "__main__":
    main()
