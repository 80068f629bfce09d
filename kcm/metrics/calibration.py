"""Calibration of probabilities. Shapes: N rows, C labels, B bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from kcm.errors import DataError

_LOG_TEMPERATURES = (np.log(0.01), np.log(100.0))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature T in [0.01, 100] that minimises the NLL of softmax(logits / T) (Guo et al., arXiv 1706.04599).

    `logits` [N, C], `labels` int [N]. The NLL is convex in 1/T, so the minimum is unique; if every row is right it lies
    near the lower end. Rows whose own label cannot be answered (logit -inf) carry no information about T and are
    skipped. Raises DataError if no row is left, or for NaN.
    """
    logits_NC, labels_N = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if np.isnan(logits_NC).any():
        raise DataError("logits contain NaN", where="temperature")
    answerable_N = np.isfinite(np.take_along_axis(logits_NC, labels_N[:, None], 1)[:, 0])
    if not answerable_N.any():
        raise DataError("no rows to fit a temperature on", where="temperature", hint="Give validate rows")
    logits_NC, labels_N = logits_NC[answerable_N], labels_N[answerable_N]

    def at(log_temperature: float) -> float:
        return negative_log_likelihood(logits_NC / np.exp(log_temperature), labels_N)

    return float(np.exp(minimize_scalar(at, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6}).x))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log softmax(logits)[label], in nats. `logits` [N, C], `labels` int [N]."""
    log_p_NC = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return float(-np.take_along_axis(log_p_NC, np.asarray(labels)[:, None], 1).mean())


def reliability(confidence: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> list[dict[str, float]]:
    """Mean `confidence` [N] in [0, 1], accuracy by `correct` [N] and `count` of every bin of equal width with rows.

    Bins are (a, b], the first one closed. Raises DataError for a confidence outside [0, 1].
    """
    confidence_N, correct_N = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    bad = np.flatnonzero(~((confidence_N >= 0) & (confidence_N <= 1)))
    if len(bad):
        raise DataError(
            f"confidence must lie in [0, 1]: {len(bad)} values do not, row {bad[0]} holds {confidence_N[bad[0]]}",
            where="confidence",
        )
    edges = np.linspace(0, 1, num_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, num_bins - 1)
    bins, count = np.unique(bin_N, return_counts=True)
    means = (np.bincount(bin_N, values)[bins] / count for values in (confidence_N, correct_N))
    columns = zip(*(column.tolist() for column in (*means, count)), strict=True)
    return [dict(zip(("confidence", "accuracy", "count"), row, strict=True)) for row in columns]


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> float | None:
    """ECE: mean distance between confidence and accuracy, bins weighted by rows (Naeini et al. 2015; 1706.04599).

    None without rows.
    """
    bins = reliability(confidence, correct, num_bins)
    gaps = [abs(row["confidence"] - row["accuracy"]) for row in bins]
    return float(np.average(gaps, weights=[row["count"] for row in bins])) if bins else None


def confidences(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Largest probability of every row, [N], from `logits` [N, C]."""
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1).max(axis=1))
