"""A KAN as a scikit-learn classifier that learns call by call, including new classes.

It trains the collaborator's network with the usual trainer: each call is a task of the sequence. In closed form
(`analytic`, `slda`), any number of calls learns the same as one call on all rows, except for the scaling, which the
first call decides.
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
from torch import Tensor, nn

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.config import Config, ConfigT, parse_config
from kcm.errors import ConfigError
from kcm.learners import Batch, LearnerConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of

_ROWS_AT_ONCE = 4096


class _Learner(Config):
    """The section that names a learner."""

    learner: LearnerConfig


class KANClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier of one KAN on standardised features.

    Parameters
    ----------
    learner : name of a learner, its section as a mapping, or a `LearnerConfig`
        `analytic` and `slda` solve for a single layer and forget nothing over calls of `partial_fit`; other learners
        take steps, and each protects earlier calls in its own way: every call is a task
    hidden : widths of hidden layers; a closed form has none
    grid_size, spline_order, grid_range : grid of the splines, in standard deviations of a feature
    basis, mixing : `quadratic` or `relu` on `mixing` random projections in place of splines, for many features
    num_epochs, batch_size, learning_rate : training steps; a closed form takes none
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
    >>> classifier = KANClassifier().partial_fit(X[:100], y[:100])  # two of the three classes
    >>> classifier.classes_.tolist()
    [0, 1]
    >>> classifier.partial_fit(X[100:], y[100:]).classes_.tolist()  # and the third
    [0, 1, 2]
    >>> round(classifier.score(X, y), 2)
    0.97
    """

    collaborator_: Collaborator
    classes_: NDArray[Any]
    _index: dict[Any, int]  # outputs of the network by label, in the order in which labels came
    _seen_outputs: set[int]  # outputs that have had rows
    _past_tasks: list[TensorRows]
    _state: dict[str, Any] | None
    _scaling: FrozenNormalizer

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
        """Learn from these rows alone. Raises ValueError for rows that are not numbers, or for regression targets."""
        return self._learn(X, y, classes=None, restart=True)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """Learn from these rows as well; adds new classes, including all of `classes`.

        Raises ConfigError for a learner that needs all rows so far, such as `joint`.
        """
        return self._learn(X, y, classes=classes, restart=not hasattr(self, "collaborator_"))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest class of every row, [N]."""
        best_N = self._logits(X).argmax(1)
        return np.asarray(self.classes_[best_N])

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities [N, C], columns as in `classes_`; they are not calibrated."""
        return np.asarray(softmax(self._logits(X), axis=1))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits [N, C]; for two classes, the second minus the first, [N], as in scikit-learn."""
        logits_NC = self._logits(X)
        return logits_NC[:, 1] - logits_NC[:, 0] if logits_NC.shape[1] == 2 else logits_NC

    @torch.inference_mode()
    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "collaborator_")
        features_ND = torch.from_numpy(validate_data(self, X, dtype=np.float64, reset=False).copy())
        parts = [self.collaborator_(self._scaling(part))[0] for part in torch.split(features_ND, _ROWS_AT_ONCE)]
        logits_NC: NDArray[np.float64] = torch.cat(parts).numpy()
        known_NC = np.full((len(logits_NC), len(self._index)), UNSEEN)
        seen_outputs = sorted(self._seen_outputs)
        known_NC[:, seen_outputs] = logits_NC[:, seen_outputs]
        return known_NC[:, [self._index[label] for label in self.classes_.tolist()]]

    def _learn(self, X: ArrayLike, y: ArrayLike, *, classes: ArrayLike | None, restart: bool) -> Self:
        features_ND, target_N = validate_data(self, X, y, dtype=np.float64, reset=restart)
        check_classification_targets(target_N)
        targets = np.unique(column_or_1d(target_N))
        if classes is not None:
            targets = np.union1d(targets, np.unique(np.asarray(classes)))
        features = torch.from_numpy(features_ND.copy())
        if restart:
            self._start(features)
        index = self._index | {
            label: len(self._index) + place
            for place, label in enumerate(target for target in targets.tolist() if target not in self._index)
        }
        labels_N = torch.tensor([index[label] for label in target_N.tolist()])
        collaborator, state = self._train(self._scaling(features), labels_N, len(index))
        # An error above this line leaves the fitted state unchanged in `partial_fit`, and no state in `fit`.
        self.collaborator_, self._state, self._index = collaborator.eval(), state, index
        self.classes_ = targets if restart else np.union1d(self.classes_, targets)
        self._seen_outputs |= set(labels_N.tolist())
        self._past_tasks.append(_one_of_each(f"call {len(self._past_tasks)}", self._scaling(features), labels_N))
        return self

    def _start(self, features: Tensor) -> None:
        """Reset the classifier, and set the scaling of the features."""
        self.__dict__.pop("collaborator_", None)
        learner, random = self.learner, self.random_state
        section = {"learner": {"name": learner} if isinstance(learner, str) else learner}
        self._config = parse_config(_Learner, section, where="KANClassifier").learner
        self._seed = int(random) if isinstance(random, int | np.integer) else check_random_state(random).randint(2**31)
        self._index = {}
        self._seen_outputs = set()
        self._past_tasks = []
        self._state = None
        self._scaling = FrozenNormalizer(features.shape[1]).double()
        self._scaling.fit([features])

    def _train(self, features: Tensor, labels_N: Tensor, num_labels: int) -> tuple[Collaborator, dict[str, Any]]:
        """The network after one more task with these rows, and the state of its trainer."""
        shape = "hidden", "grid_size", "spline_order", "grid_range", "basis", "mixing"
        network = self._section(NetworkConfig, *shape, shared=True)  # without a large model, both networks are equal
        rate = float(self.learning_rate)  # masking, so that classes can be added
        train = self._section(TrainConfig, "num_epochs", "batch_size", learning_rate=rate, mask_unseen=True)
        learner = self._config.build(self._seed)
        self._config.check_network(network)
        number = len(self._past_tasks)
        if learner.tasks_to_stream(number) != range(number, number + 1):
            raise ConfigError(
                f"learner {self._config.tag!r} needs all rows so far, but they are not kept",
                where="KANClassifier.partial_fit",
                hint="Use another learner, or `fit` on all rows",
            )
        collaborator = Collaborator(features.shape[1], num_labels, network, "kan", self._seed).double()
        collaborator.add_module("normalizer", nn.Identity())  # features are already scaled one by one
        rows = _rows(f"call {number}", features, labels_N, torch.arange(1))
        tasks = [*self._past_tasks, rows]
        trainer = trainer_of(collaborator, learner, tasks, train, DistillConfig(), seed=self._seed)
        if self._state is not None:
            trainer.load_state_dict(self._state)
        trainer.run()
        return collaborator, trainer.state_dict()

    def _section(self, model: type[ConfigT], *names: str, **constants: Any) -> ConfigT:
        """A section of a configuration, from the parameters of these names."""
        values = {name: getattr(self, name) for name in names}
        return parse_config(model, values | constants, where="KANClassifier")


def _rows(name: str, features: Tensor, labels_N: Tensor, test_N: Tensor) -> TensorRows:
    """The rows of a task; the rows at the positions `test_N` are also its test rows."""
    no_large_N1 = torch.full((len(labels_N), 1), torch.nan, dtype=features.dtype)
    batch = Batch(features, labels_N, no_large_N1, torch.ones(len(labels_N), dtype=features.dtype))
    ids = [f"{name}, {row}" for row in range(len(labels_N))]
    test = batch.take(test_N, batch.weights[test_N])
    return TensorRows(name, {"train": (ids, batch), "test": ([ids[row] for row in test_N.tolist()], test)})


def _one_of_each(name: str, features: Tensor, labels_N: Tensor) -> TensorRows:
    """A finished task as later tasks need it: one row per label."""
    first = [int((labels_N == label).nonzero()[0, 0]) for label in sorted(set(labels_N.tolist()))]
    return _rows(name, features[first], labels_N[first], torch.arange(1))
