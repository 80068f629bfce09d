"""A fitted router: the head, its inputs, and the out-of-fold scores of the rows that it was fitted on.

The head is one KAN layer over numbers, linear in the encoder's features, in categories and in hashed words. It
estimates one figure per row, such as the gain of a large call, P(large right) - P(small right), the right criterion for
deferral (arXiv 2307.02764). It is linear in its coefficients, so it is fitted in closed form. So are the estimates of
every row with its unit left out, which a search must use.
Shapes: N rows, F numbers, E encoder features, G categories, V word buckets, P coefficients of the KAN.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor, nn

from kcm.bundle.sealed_folder import SealedFolder, sealing, write_json, write_tensors
from kcm.closed_form.left_out import gram_ridge_left_out, ridge_left_out
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.config import Config
from kcm.errors import ArtefactError, DataError
from kcm.kan import KAN, KANLinear
from kcm.metrics.intervals import Units
from kcm.routing.config import RouteColumns
from kcm.routing.inputs import Progress, RouterInputs, silent
from kcm.routing.table import RoutingTable

# With more rows than this, words share fewer buckets, and inputs are read chunk by chunk.
EXACT_ROWS, NUM_FOLDED = 4000, 2048
# Variance of the scaled inputs of each kind, relative to 1 for the words. Chosen on the GSM8K answers of
# benchmarks/routing.py at commit 5c701b9c, where seven other choices of shares and kernels came within 0.005 APGR.
NUMBERS_SHARE, ENCODING_SHARE, CATEGORY_SHARE = 0.1, 0.3, 0.3

Block: TypeAlias = NDArray[np.float64] | csr_array


class RoutingHead(nn.Module):
    """Fitted estimates of one figure. All parts read rows scaled to mean square length 1 over the fitted rows."""

    encoding_weight: Tensor
    category_weight: Tensor
    words_weight: Tensor
    constant: Tensor

    def __init__(self, num_numbers: int, num_features: int, num_categories: int, num_buckets: int) -> None:
        super().__init__()
        self.normalizer = FrozenNormalizer(num_numbers)
        self.kan = KAN([max(1, num_numbers), 1], grid_size=2, spline_order=2)
        self.register_buffer("encoding_weight", torch.zeros(num_features))
        self.register_buffer("category_weight", torch.zeros(num_categories))
        self.register_buffer("words_weight", torch.zeros(num_buckets))
        self.register_buffer("constant", torch.zeros(()))
        self.double().requires_grad_(False)

    @property
    def layer(self) -> KANLinear:
        """The one layer of the KAN."""
        layer = self.kan.layers[0]
        assert isinstance(layer, KANLinear)
        return layer

    def curves(self, numbers_NF: NDArray[np.float64]) -> NDArray[np.float64]:
        """Base and spline functions of the standardised numbers, [N, P]."""
        if numbers_NF.shape[1] == 0:
            return np.zeros((len(numbers_NF), 0))
        curves_NP: Tensor = self.layer.features(self.normalizer(torch.from_numpy(numbers_NF)))
        return curves_NP.numpy()

    def estimate(self, inputs: RouterInputs) -> NDArray[np.float64]:
        """The estimated figure of every row, float64 [N]. Raises DataError for inputs of other widths."""
        weights = (self.encoding_weight, self.category_weight, self.words_weight)
        expected = (len(self.normalizer.mean), *map(len, weights))
        if inputs.widths != expected:
            raise DataError(f"inputs of widths {inputs.widths}, the routing head reads {expected}", where="router")
        estimate_N = np.full(len(inputs), float(self.constant))
        if expected[0]:
            numbers_NF = self.normalizer(torch.from_numpy(inputs.numbers_NF))
            estimate_N += self.kan(numbers_NF).numpy()[:, 0]
        estimate_N += inputs.encoding_NE @ self.encoding_weight.numpy()
        estimate_N += inputs.category_NG @ self.category_weight.numpy()
        return np.asarray(estimate_N + inputs.words_NV @ self.words_weight.numpy())


def fit_head(
    inputs: RouterInputs,
    target_N: NDArray[np.float64],
    group: NDArray[np.object_] | None = None,
    progress: Progress = silent,
) -> tuple[RoutingHead, NDArray[np.float64]]:
    """A head fitted to `target_N`, and its out-of-fold estimates [N] for the same rows.

    Raises DataError when there are fewer than two units.
    """
    units = Units(group, len(inputs))
    if units.count < 2:
        raise DataError(f"a routing head needs at least two rows or groups, got {units.count}", where="fit")
    head = RoutingHead(*inputs.widths)
    head.normalizer.fit([torch.from_numpy(inputs.numbers_NF)])
    blocks = _scaled_blocks(head.curves(inputs.numbers_NF), inputs)
    # Solve the smaller system: with all buckets of words, the time would grow with the cube of the rows.
    is_wide = sum(block.shape[1] for block, _ in blocks) > len(inputs)
    solve = _solve_by_rows if is_wide and len(inputs) <= EXACT_ROWS else partial(_solve, progress=progress)
    weights, constant, left_out_N = solve(blocks, target_N, units)
    if inputs.numbers_NF.shape[1]:
        head.layer.weight.copy_(torch.from_numpy(weights[0])[None])
    for parameter, weight in zip(
        (head.encoding_weight, head.category_weight, head.words_weight), weights[1:], strict=True
    ):
        parameter.copy_(torch.from_numpy(weight))
    head.constant.fill_(constant)
    return head, left_out_N


def _scaled_blocks(curves_NP: NDArray[np.float64], part: RouterInputs) -> list[tuple[Block, float]]:
    """The kinds of input, each with the factor that gives its rows their share of the variance."""
    blocks = (
        (curves_NP, NUMBERS_SHARE),
        (part.encoding_NE, ENCODING_SHARE),
        (part.category_NG, CATEGORY_SHARE),
        (part.words_NV, 1.0),
    )
    return [(block, math.sqrt(_scale(block, share))) for block, share in blocks]


def _solve_by_rows(
    blocks: list[tuple[Block, float]], target_N: NDArray[np.float64], units: Units
) -> tuple[list[NDArray[np.float64]], float, NDArray[np.float64]]:
    """Weights of every block in its own units, the constant, and the left-out estimates [N], from products of rows."""
    gram_NN = np.zeros((len(target_N), len(target_N)))
    for block, scale in blocks:
        gram_NN += scale**2 * _dense(block @ block.T)
    dual = gram_ridge_left_out(gram_NN, target_N[:, None], units)
    weights = [scale**2 * np.asarray(block.T @ dual.dual[:, 0]) for block, scale in blocks]
    return weights, float(dual.mean[0] - dual.dual[:, 0] @ gram_NN.mean(1)), dual.left_out[:, 0]


def _solve(
    blocks: list[tuple[Block, float]], target_N: NDArray[np.float64], units: Units, progress: Progress
) -> tuple[list[NDArray[np.float64]], float, NDArray[np.float64]]:
    """As `_solve_by_rows`, but with memory independent of the number of rows.

    Words share `NUM_FOLDED` buckets (arXiv 0902.2206).
    """
    *dense, (words_NV, words_scale) = blocks
    num_buckets = words_NV.shape[1]
    bucket_V = np.arange(num_buckets) % NUM_FOLDED
    fold_VW = csr_array(
        (np.ones(num_buckets), (np.arange(num_buckets), bucket_V)), (num_buckets, min(num_buckets, NUM_FOLDED))
    )

    def read(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        words_nW = _dense(words_NV[rows] @ fold_VW)
        return np.concatenate([*(scale * _dense(block[rows]) for block, scale in dense), words_scale * words_nW], 1)

    fit = ridge_left_out(read, target_N[:, None], units, lambda done, total: progress("rows fitted on", done, total))
    ends = np.cumsum([block.shape[1] for block, _ in dense])
    parts = np.split(fit.weight[:, 0], ends)
    weights = [scale * part for part, (_, scale) in zip(parts, blocks, strict=True)]
    weights[-1] = fold_VW @ weights[-1]
    return weights, float(fit.constant[0]), fit.left_out[:, 0]


def _scale(block: Block, share: float) -> float:
    """The factor that gives the block's centred rows a mean square length of `share`; 0 if they do not vary."""
    if block.shape[1] == 0:
        return 0.0
    mean = np.asarray(block.mean(axis=0)).ravel()
    variance = float((block * block).sum() / block.shape[0] - mean @ mean)
    return share / variance if variance > 1e-12 else 0.0


def _dense(block: Block) -> NDArray[np.float64]:
    return np.asarray(block.toarray() if isinstance(block, csr_array) else block)


MANIFEST, FORMAT = "router.json", 5


class RouterConfig(Config):
    """Everything a router needs to read another table in the same way as the first."""

    columns: RouteColumns
    categories: tuple[str, ...] = Field(description="The categories that the router uses.")
    seed: int = Field(description="Seed of the splits.")
    encoder: str | None = Field(description="The encoder by hub id or folder; null: hashed words alone.")
    encoder_identity: str | None = Field(description="Digest of everything that decides the encoder's output.")
    widths: tuple[int, int, int, int] = Field(
        description="Widths: numbers of a row, features of the encoder, categories, and buckets of hashed words."
    )


@dataclass(frozen=True, eq=False)
class FittedRouter:
    """Gate scores for any rows; for the rows it was fitted on, the out-of-fold scores.

    `items` int64 are the fitted rows' digests, ascending; `left_out` are their scores.
    """

    config: RouterConfig
    model: RoutingHead
    items: NDArray[np.int64]
    left_out: NDArray[np.float64]

    @classmethod
    def fit(
        cls, table: RoutingTable, inputs: RouterInputs, config: RouterConfig, progress: Progress = silent
    ) -> FittedRouter:
        """Fit on every row of `table`; the score is the head's estimate of P(small right) - P(large right).

        `config` describes the `inputs`.
        """
        gain = table.small_correct.astype(np.float64) - table.large_correct
        model, left_out = fit_head(inputs, gain, table.group, progress)
        items, first = np.unique(digests(table.item), return_index=True)
        return cls(config, model, items, left_out[first])

    def scores(self, table: RoutingTable, inputs: RouterInputs) -> NDArray[np.float64]:
        """Gate score of every row, [N]."""
        score_N, (position, is_known) = self.model.estimate(inputs), self._fitted_positions(table)
        score_N[is_known] = self.left_out[position[is_known]]
        return score_N

    def refuse_fitted(self, table: RoutingTable, split: str) -> None:
        """Raise DataError if rows that the router was fitted on would evaluate it."""
        _, is_known = self._fitted_positions(table)
        if is_known.any():
            raise DataError(
                f"{is_known.sum()} {split} rows are among those that the router was fitted on, the first is"
                f" {table.name[np.flatnonzero(is_known)[0]]}",
                where="--router",
                hint="Use other rows, or the table and seed that the router was fitted with",
            )

    def _fitted_positions(self, table: RoutingTable) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        keys = digests(table.item)
        position = np.searchsorted(self.items, keys).clip(max=len(self.items) - 1)
        return position, self.items[position] == keys

    def write(self, folder: Path) -> None:
        """Write a new folder atomically. Raises ArtefactError if it exists."""
        tensors = {"items": torch.from_numpy(self.items), "left_out": torch.from_numpy(self.left_out)}
        with sealing(folder, MANIFEST, FORMAT) as draft:
            write_json(draft / "config.json", self.config.model_dump(mode="json"))
            write_tensors(draft / "model.safetensors", self.model.state_dict())
            write_tensors(draft / "fitted.safetensors", tensors)

    @classmethod
    def read(cls, folder: Path) -> FittedRouter:
        """Read a router from its folder. Raises ArtefactError if it is missing or damaged."""
        if not (folder / MANIFEST).is_file():
            raise ArtefactError("no router here", where=str(folder), hint="Fit one with `kcm route fit`")
        sealed = SealedFolder(folder, MANIFEST, FORMAT)
        config = sealed.config(RouterConfig, "config.json")
        model = RoutingHead(*config.widths)
        model.load_state_dict(sealed.tensors("model.safetensors"))
        tensors = sealed.tensors("fitted.safetensors")
        return cls(config, model, tensors["items"].numpy(), tensors["left_out"].numpy())


def digests(items: Sequence[object] | NDArray[np.object_]) -> NDArray[np.int64]:
    """64 bits of BLAKE2b of every item's name, [N]."""
    raw = b"".join(hashlib.blake2b(str(item).encode(), digest_size=8).digest() for item in items)
    return np.frombuffer(raw, dtype=np.int64)
