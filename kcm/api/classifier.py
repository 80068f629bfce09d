"""A KAN as a scikit-learn classifier that learns call by call, new classes among them.

It is the collaborator's network with the house's learners. In closed form (`analytic`, `slda`), what was learned in any
number of calls is what one call on all rows would have learned, up to the scaling, which the first call decides.
Shapes: N rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch.nn import functional as F

from kcm.closed_form.sums import RidgeSums
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.config import Config, parse_config
from kcm.errors import ConfigError, DataError
from kcm.learners import Analytic, Batch, LearnerConfig
from kcm.learners.ranks import Ranks
from kcm.learners.stream import TensorRows
from kcm.learners.trainer import TrainConfig, Trainer

_ROWS_AT_ONCE = 4096


class _Learner(Config):
    """The section that names a learner."""

    learner: LearnerConfig


class KANClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier of one KAN on standardised features.

    Parameters
    ----------
    learner : name of a learner, its section as a mapping, or a `LearnerConfig`
        `analytic` and `slda` solve for a single layer and take rows in any number of calls of `partial_fit`; all
        others take steps, and learn in `fit` alone.
    hidden : widths of hidden layers; a closed form has none
    grid_size, spline_order, grid_range : grid of the splines, in standard deviations of a feature
    basis, mixing : `quadratic` or `relu` on `mixing` random projections in place of splines, for many features
    num_epochs, batch_size, learning_rate : how steps are taken; a closed form takes none
    random_state : seed of initial weights, projections and orders

    Attributes
    ----------
    classes_ : labels, sorted, shape [C]
    collaborator_ : the network, in float64; `collaborator_.judge` is the KAN that `kcm.kan.inspect` draws
    n_features_in_ : D

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = KANClassifier().partial_fit(X[:100], y[:100])   # two of the three classes
    >>> classifier.classes_.tolist()
    [0, 1]
    >>> classifier.partial_fit(X[100:], y[100:]).classes_.tolist()   # and the third
    [0, 1, 2]
    >>> round(classifier.score(X, y), 2)
    0.97
    """

    collaborator_: Collaborator
    classes_: NDArray[Any]

    def __init__(
        self,
        learner: str | Mapping[str, Any] | LearnerConfig = "analytic",
        *,
        hidden: tuple[int, ...] = (),
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        basis: Literal["spline", "quadratic", "relu"] = "spline",
        mixing: int = 0,
        num_epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        random_state: Any = 0,
    ) -> None:
        self.learner = learner
        self.hidden = hidden
        self.grid_size = grid_size
        self.spline_order = spline_order
        self.grid_range = grid_range
        self.basis = basis
        self.mixing = mixing
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # scikit-learn's names
        """Learn from these rows alone. Raises ValueError for rows that are no numbers, or for targets of regression."""
        return self._learn(X, y, classes=None, anew=True)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """Learn from these rows as well; classes that were not known are added, `classes` too.

        Raises ConfigError for a learner that takes steps, once it has learned.
        """
        return self._learn(X, y, classes=classes, anew=not hasattr(self, "collaborator_"))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest class of every row, [N]."""
        best_N = self._logits(X).argmax(1)
        return np.asarray(self.classes_[best_N])

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities [N, C], columns as in `classes_`; they are not calibrated."""
        return np.asarray(softmax(self._logits(X), axis=1))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits [N, C]; of two classes the second less the first, [N], as scikit-learn has it."""
        logits_NC = self._logits(X)
        return logits_NC[:, 1] - logits_NC[:, 0] if logits_NC.shape[1] == 2 else logits_NC

    @torch.inference_mode()
    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        features_ND = torch.from_numpy(validate_data(self, X, dtype=np.float64, reset=False).copy())
        parts = [self.collaborator_(part)[0] for part in torch.split(features_ND, _ROWS_AT_ONCE)]
        logits_NC: NDArray[np.float64] = torch.cat(parts).numpy()
        return logits_NC[:, self._columns]

    def _learn(self, X: ArrayLike, y: ArrayLike, *, classes: ArrayLike | None, anew: bool) -> Self:
        features_ND, target_N = validate_data(self, X, y, dtype=np.float64, reset=anew)
        check_classification_targets(target_N)
        given = np.unique(column_or_1d(target_N))
        if classes is not None:
            given = np.union1d(given, np.unique(np.asarray(classes)))
        if anew:
            self._start(features_ND, given)
        elif not self._config.closed_form:
            raise ConfigError(
                f"learner {self._config.tag!r} takes steps, and has learned already",
                where="KANClassifier.partial_fit",
                mend="Use learner 'analytic' or 'slda', or `fit` on all rows",
            )
        else:
            self._grow(given)
        labels_N = torch.tensor([self._index[label] for label in target_N.tolist()])
        features = torch.from_numpy(features_ND.copy())
        no_large_N1 = torch.full((len(labels_N), 1), torch.nan, dtype=torch.float64)
        batch = Batch(features, labels_N, no_large_N1, torch.ones(len(labels_N), dtype=torch.float64))
        if self._config.closed_form:
            self._solve(batch)
        else:
            self._train(batch)
        self.collaborator_.eval()
        return self

    def _start(self, features_ND: NDArray[np.float64], given: NDArray[Any]) -> None:
        """A network that knows nothing, and the scaling of the features."""
        self._config = _learner_config(self.learner)
        state = self.random_state
        self._seed = int(state) if isinstance(state, int | np.integer) else check_random_state(state).randint(2**31)
        self._learner = self._config.build(self._seed)
        self._index: dict[Any, int] = {}
        self._grow(given)
        assert isinstance(self.collaborator_.normalizer, FrozenNormalizer)
        self.collaborator_.normalizer.fit([torch.from_numpy(features_ND.copy())])

    def _grow(self, given: NDArray[Any]) -> None:
        """Outputs for the classes that are not known yet; those of the others stay where they are."""
        fresh = [label for label in given.tolist() if label not in self._index]
        if not fresh:
            return
        self._index |= {label: len(self._index) + place for place, label in enumerate(fresh)}
        self.classes_ = np.unique(np.array(list(self._index), dtype=np.result_type(given, *self._known())))
        self._columns = [self._index[label] for label in self.classes_.tolist()]
        grown = Collaborator(self.n_features_in_, len(self._index), self._network(), "kan", self._seed).double()
        if hasattr(self, "collaborator_") and isinstance(self._learner, Analytic) and self._learner.sums is not None:
            grown.normalizer = self.collaborator_.normalizer
            self._learner.sums = _with_targets(self._learner.sums, len(self._index))
        self.collaborator_ = grown

    def _known(self) -> list[Any]:
        return [self.classes_] if hasattr(self, "classes_") and len(self._index) > len(self.classes_) else []

    def _network(self) -> NetworkConfig:
        values = {
            "hidden": tuple(self.hidden),
            "grid_size": self.grid_size,
            "spline_order": self.spline_order,
            "grid_range": tuple(self.grid_range),
            "basis": self.basis,
            "mixing": self.mixing,
            "scaling": "first_task",
            "shared": True,
        }
        return parse_config(NetworkConfig, values, where="KANClassifier")

    def _solve(self, batch: Batch) -> None:
        ranks = Ranks()
        self._learner.absorb(self.collaborator_, batch, DistillConfig(), ranks)
        assert isinstance(self._learner, Analytic)
        self._learner.solve(self.collaborator_, ranks)

    def _train(self, batch: Batch) -> None:
        if len(self._index) < 2:
            raise DataError("there is one class, and steps need at least two", where="KANClassifier.fit")
        settings = {
            "num_epochs": self.num_epochs,
            "batch_size": self.batch_size,
            "learning_rate": float(self.learning_rate),
        }
        train = parse_config(TrainConfig, settings, where="KANClassifier")
        ids = [str(row) for row in range(len(batch))]
        first = batch.take(torch.arange(1), torch.ones(1, dtype=torch.float64))  # nothing is measured on it
        rows = TensorRows("fit", {"train": (ids, batch), "test": (ids[:1], first)})
        Trainer(self.collaborator_, self._learner, [rows], train, DistillConfig(), seed=self._seed).run()


def _learner_config(learner: str | Mapping[str, Any] | LearnerConfig) -> LearnerConfig:
    section = {"name": learner} if isinstance(learner, str) else learner
    return parse_config(_Learner, {"learner": section}, where="KANClassifier").learner


def _with_targets(sums: RidgeSums, num_labels: int) -> RidgeSums:
    """The sums of the same rows, which were of none of the labels that are added."""
    grown = RidgeSums(0, num_labels, 1)
    grown.count, grown.gram_PP, grown.squares_M = sums.count, sums.gram_PP, sums.squares_M
    more = num_labels - len(sums.totals_K)
    grown.cross_PK, grown.totals_K = F.pad(sums.cross_PK, (0, more)), F.pad(sums.totals_K, (0, more))
    return grown
