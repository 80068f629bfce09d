"""Gradient boosting, the router of trees: products of few inputs, where the head adds up curves of many.

Its inputs are the numbers of a row, the leading components of the encoder's features, and what a call gains in the
row's category: the mean over the rows that were fitted on, shrunk to that of all. Words are not read. scikit-learn
fits the trees (Friedman 2001, with subsamples); they are kept as arrays, since pickles run what they hold.
Shapes: N rows, F numbers, E features of the encoder, G categories, C components, I inputs of the trees, T trees.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor
from torch import Tensor, nn

from kcm.errors import DataError
from kcm.metrics.intervals import Units
from kcm.routing.routers.inputs import Progress, RouterInputs, silent

NUM_COMPONENTS = 40
NUM_TREES, DEPTH, RATE = 150, 3, 0.05
_SMALLEST_LEAF = 20  # rows
_SHRUNK_BY = 20  # rows with the mean of all, that every category is given
_NUM_FOLDS = 5

Floats = NDArray[np.float64]


class BoostedTrees(nn.Module):
    """Fitted estimates of one figure."""

    mean_feature: Tensor
    component: Tensor
    category_gain: Tensor
    constant: Tensor
    read: Tensor
    threshold: Tensor
    below: Tensor
    above: Tensor
    value: Tensor

    def __init__(self, num_numbers: int, num_features: int, num_categories: int, num_buckets: int) -> None:
        super().__init__()
        self.widths = (num_numbers, num_features, num_categories, num_buckets)
        nodes = (NUM_TREES, 2 ** (DEPTH + 1) - 1)
        self.register_buffer("mean_feature", torch.zeros(num_features))
        self.register_buffer("component", torch.zeros(num_features, NUM_COMPONENTS))
        self.register_buffer("category_gain", torch.zeros(num_categories))
        self.register_buffer("constant", torch.zeros(()))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(nodes))
        self.double()
        for name in ("read", "below", "above"):  # the input that a node reads, and where its rows go on; a leaf: itself
            self.register_buffer(name, torch.zeros(nodes, dtype=torch.int64))

    def fit(self, inputs: RouterInputs, target_N: Floats, units: Units) -> BoostedTrees:
        """Fit all to `target_N`. A row's own target is no part of its category's mean while trees are fitted."""
        mean = float(target_N.mean())
        rest_N = target_N - mean
        self.constant.fill_(mean)
        if num_components := min(NUM_COMPONENTS, *inputs.encoding_NE.shape):
            pca = PCA(num_components, svd_solver="covariance_eigh").fit(inputs.encoding_NE)
            self.mean_feature.copy_(torch.from_numpy(pca.mean_))
            self.component[:, :num_components] = torch.from_numpy(pca.components_.T)
        category_NG, category_N = inputs.category_NG, np.zeros(len(inputs))
        for held_out in _folds(units):
            gain_G = _shrunk_means(category_NG[~held_out], rest_N[~held_out])
            category_N[held_out] = category_NG[held_out] @ gain_G
        self.category_gain.copy_(torch.from_numpy(_shrunk_means(category_NG, rest_N)))
        boosting = GradientBoostingRegressor(
            n_estimators=NUM_TREES,
            learning_rate=RATE,
            max_depth=DEPTH,
            min_samples_leaf=_SMALLEST_LEAF,
            subsample=0.5,
            max_features=0.3,
            init="zero",
            random_state=0,
        ).fit(self._read(inputs, category_N), rest_N)
        for number, (fitted,) in enumerate(boosting.estimators_):
            tree = fitted.tree_
            here = np.arange(tree.node_count)
            is_leaf = tree.children_left < 0
            self.read[number, here] = torch.from_numpy(np.where(is_leaf, 0, tree.feature))
            self.threshold[number, here] = torch.from_numpy(tree.threshold)
            self.below[number, here] = torch.from_numpy(np.where(is_leaf, here, tree.children_left))
            self.above[number, here] = torch.from_numpy(np.where(is_leaf, here, tree.children_right))
            self.value[number, here] = torch.from_numpy(RATE * tree.value[:, 0, 0])
        return self

    def estimate(self, inputs: RouterInputs) -> Floats:
        """The estimated figure of every row, float64 [N]. Raises DataError for inputs of other widths."""
        if inputs.widths != self.widths:
            raise DataError(f"inputs of widths {inputs.widths}, the trees read {self.widths}", where="router")
        inputs_NI = self._read(inputs, inputs.category_NG @ self.category_gain.numpy())
        row_N, estimate_N = np.arange(len(inputs)), np.full(len(inputs), float(self.constant))
        parts = (self.read, self.threshold, self.below, self.above, self.value)
        for read, threshold, below, above, value in zip(*(part.numpy() for part in parts), strict=True):
            node_N = np.zeros(len(inputs), dtype=np.int64)
            for _ in range(DEPTH):
                is_below = inputs_NI[row_N, read[node_N]] <= threshold[node_N]
                node_N = np.where(is_below, below[node_N], above[node_N])
            estimate_N += value[node_N]
        return estimate_N

    def _read(self, inputs: RouterInputs, category_N: Floats) -> NDArray[np.float32]:
        """What the trees read, [N, I], in the precision that scikit-learn compares in."""
        components_NC = (inputs.encoding_NE - self.mean_feature.numpy()) @ self.component.numpy()
        return np.concatenate([inputs.numbers_NF, components_NC, category_N[:, None]], 1).astype(np.float32)


def fit_trees(
    inputs: RouterInputs,
    target_N: Floats,
    group: NDArray[np.object_] | None = None,
    progress: Progress = silent,
) -> tuple[BoostedTrees, Floats]:
    """Trees fitted to `target_N`, and the estimates [N] of such that have seen no row of the unit's fold.

    Raises DataError when there are fewer than two units.
    """
    units = Units(group, len(inputs))
    if units.count < 2:
        raise DataError(f"a router needs at least two rows or groups, got {units.count}", where="fit")
    left_out_N = np.empty(len(inputs))
    for number, held_out in enumerate(folds := _folds(units), 1):
        rows = np.flatnonzero(~held_out)
        trees = BoostedTrees(*inputs.widths).fit(inputs.select(rows), target_N[rows], units.of(rows))
        left_out_N[held_out] = trees.estimate(inputs.select(held_out))
        progress("folds of trees fitted", number, len(folds))
    return BoostedTrees(*inputs.widths).fit(inputs, target_N, units), left_out_N


def _folds(units: Units) -> list[NDArray[np.bool_]]:
    """Which rows each fold holds out, [N] each: whole units, drawn."""
    num_folds = min(_NUM_FOLDS, units.count)
    fold_U = np.random.default_rng(0).permutation(units.count) % num_folds
    fold_N = fold_U[units.code] if units.grouped else fold_U
    return [fold_N == fold for fold in range(num_folds)]


def _shrunk_means(category_NG: csr_array, rest_N: Floats) -> Floats:
    """The mean of `rest_N` in every category, [G], shrunk to 0."""
    return np.asarray((category_NG.T @ rest_N) / (category_NG.sum(0) + _SHRUNK_BY))
