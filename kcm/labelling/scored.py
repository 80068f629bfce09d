"""Labelling a table with a proxy of any kind: its probabilities are recalibrated on what was bought.

Shapes: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from kcm.labelling.certificate import TableCertificate
from kcm.labelling.forecaster import Promise
from kcm.labelling.plan import Schedule
from kcm.labelling.purchases import FAILED, Guess, Oracle
from kcm.labelling.rounds import Rounds

SCHEDULE = Schedule(pilot=24, growth=0.5, slope=0.5)
_SUM_TOLERANCE = 1e-3
_FLOOR = 1e-6  # probabilities below it are taken for it


@dataclass(frozen=True, eq=False)
class ScoredLabels:
    """Labels [N]: the oracle's for the rows that were `bought` [N], the recalibrated proxy's for the others."""

    labels: NDArray[np.int64]
    bought: NDArray[np.bool_]
    certificate: TableCertificate


class Recalibration:
    """P(label c | proxy) = softmax(e^t log p + b)_c with one temperature and a constant for each label.

    t and b are the maximum a posteriori under t ~ N(-1, 1), since the probabilities of large models are too sure, and
    b_c ~ N(0, 3^2).
    """

    def __init__(self, probabilities: NDArray[np.float64]) -> None:
        self._log = np.log(np.maximum(probabilities, _FLOOR))

    def fit(self, units: NDArray[np.int64], labels: NDArray[np.int64]) -> Guess:
        """Refit on the rows bought so far; see `SmallModel`."""
        num_labels = self._log.shape[1]
        log, hot = self._log[units], np.eye(num_labels)[labels]

        def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            t, b = parameters[0], parameters[1:]
            scaled = np.exp(t) * log
            log_p = log_softmax(scaled + b, axis=1)
            excess = np.exp(log_p) - hot
            value = -float(log_p[np.arange(len(labels)), labels].sum()) + ((t + 1) ** 2 + (b**2).sum() / 9) / 2
            return value, np.concatenate([[(excess * scaled).sum() + t + 1], excess.sum(0) + b / 9])

        best = minimize(loss, np.concatenate([[-1.0], np.zeros(num_labels)]), jac=True, method="L-BFGS-B").x
        p = softmax(np.exp(best[0]) * self._log + best[1:], axis=1)
        answer = p.argmax(1)
        wrong = 1 - p[np.arange(len(p)), answer]
        return Guess(answer, wrong)


Labels = Sequence[int | None] | NDArray[np.int64]


class _Asked(Oracle):
    """The caller's function, whose answers are checked."""

    def __init__(self, answer: Callable[[NDArray[np.int64]], Labels], num_labels: int) -> None:
        super().__init__()
        self._answer, self._num_labels = answer, num_labels

    def __call__(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        answers = list(self._answer(units))
        if len(answers) != len(units):
            raise ValueError(f"oracle: {len(answers)} answers for {len(units)} rows")
        for row, label in zip(units, answers, strict=True):
            if label is not None and label not in range(self._num_labels):
                raise ValueError(f"oracle: expected 0 to {self._num_labels - 1} or None for row {row}, got {label!r}")
        return np.array([FAILED if label is None else int(label) for label in answers], dtype=np.int64)


def label_scored(
    probabilities: ArrayLike,
    oracle: Callable[[NDArray[np.int64]], Labels],
    *,
    target: float = 0.95,
    delta: float = 0.05,
    seed: int = 0,
) -> ScoredLabels:
    """Label a finite table with a proxy, so that at least a share `target` agrees with the oracle.

    With probability at least 1 - `delta` over the draw of the rows, at most floor((1 - target) N) labels differ from
    what the oracle would have said. The promise is that of `kcm.certification.finite`, so it does not depend on how
    good or how well calibrated the proxy is.

    Parameters
    ----------
    probabilities : the proxy's probabilities [N, C], in rows that sum to one
    oracle : from an array of row numbers to their labels, 0 to C - 1; None for a row without an answer, which counts as
        a row that differs. Every row is asked at most once.
    target, delta : the promise
    seed : of the draw; another seed is another look at the same table

    Raises ValueError for no rows, NaN, rows that do not sum to one, target or delta outside (0, 1), and answers that
    are no label.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.arange(2000) % 2
    >>> sure = np.where(truth == 1, 0.9, 0.1)
    >>> scored = label_scored(np.stack([1 - sure, sure], 1), lambda rows: truth[rows], target=0.9, delta=0.1)
    >>> bool((scored.labels == truth).mean() >= 0.9), bool(scored.bought.sum() < 200), scored.certificate.certified
    (True, True, True)
    """
    if np.ma.is_masked(probabilities):
        raise ValueError("probabilities: has masked cells")
    p_NC = np.asarray(probabilities, dtype=np.float64)
    if p_NC.ndim != 2 or len(p_NC) == 0 or p_NC.shape[1] < 2:
        raise ValueError(f"probabilities: expected rows of at least two columns, got shape {p_NC.shape}")
    if not np.isfinite(p_NC).all() or (p_NC < 0).any():
        raise ValueError("probabilities: expected finite numbers that are not negative")
    if (off := np.abs(p_NC.sum(1) - 1) > _SUM_TOLERANCE).any():
        raise ValueError(f"probabilities: row {int(off.argmax())} sums to {p_NC[off.argmax()].sum():g}, expected 1")
    for name, value in (("target", target), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a number between 0 and 1, got {value}")

    copies, asked = np.ones(len(p_NC), dtype=np.int64), _Asked(oracle, p_NC.shape[1])
    result = Rounds(copies, Recalibration(p_NC), asked, Promise(target, delta), SCHEDULE, seed).run()
    certificate = TableCertificate.of(result, target=target, delta=delta, seed=seed)
    return ScoredLabels(result.answer_U, result.bought_U, certificate)
