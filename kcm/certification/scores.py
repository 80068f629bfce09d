"""`kcm.certify`: a certificate for the score of any cascade, from arrays."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.thresholds import lowest_threshold
from kcm.certification.ledger import GROUP, Ledger, Look, unit_hashes
from kcm.certification.pvalues import LossTest, fewest_binomial

NOT_GROUPED = "rows taken as independent: give groups if several are of one user, text or session"
NOT_RECORDED = "this look is not recorded: name a ledger, so that all looks at these rows share one delta"


_FEW_REPEATED, _DIGITS = 0.02, 4


@dataclass(frozen=True)
class ScoreCertificate:
    """Keep a row if its score > `threshold`; -inf keeps all rows, None escalates all.

    `kept` is the share of the rows above the threshold. `bound` is an upper confidence bound on the accuracy lost, at
    `delta`, the part of delta that this look spends. `look` is the look's number in the ledger, None without a ledger.
    `valid` says that the promise holds for the decision; escalating all rows loses nothing, so it is always valid. With
    fewer than `fewest_units` units nothing could be certified, whatever the outcomes.
    """

    threshold: float | None
    kept: float
    bound: float
    delta: float
    look: int | None
    valid: bool
    max_loss: float
    num_units: int
    fewest_units: int
    note: str = ""


def certify(
    score: ArrayLike,
    small_correct: ArrayLike,
    large_correct: ArrayLike | None = None,
    *,
    max_loss: float = 0.02,
    delta: float = 0.1,
    groups: Sequence[object] | None = None,
    ledger: str | Path | Ledger | None = None,
) -> ScoreCertificate:
    """The lowest threshold on a score that loses at most `max_loss` accuracy, with probability 1 - `delta`.

    `score` [N]: how sure the small model is; it must not have been fitted on these rows. `small_correct` [N] and
    `large_correct` [N]: whether each model is right, as bool or 0/1. Without `large_correct` the large model is the
    reference, and `small_correct` says whether the small model agrees with it. `groups` [N]: rows drawn together, such
    as the sentences of one review; a row whose group is None stands alone. `ledger`: a folder in which looks are
    counted (`kcm.certification.ledger`). A later look spends less of delta. Groups distinguish tables; without groups,
    all looks of a ledger share one delta.

    With L_i(t) = 1[score_i > t] 1[small wrong, large right], the threshold is the lowest t such that

        p(t') = P(Bin(N, max_loss) <= sum_i L_i(t')) <= delta     for all t' >= t

    L_i only grows as t falls, so every threshold may be tried on the same rows: to keep too much, the test must fail at
    the one threshold at which the true loss reaches max_loss (RCPS, arXiv 2101.02703). So there is no split. With
    groups, the loss of a unit is the mean of its rows, and p(t') is Hoeffding and Bentkus' (arXiv 2110.01052).

        >>> import numpy as np
        >>> score = np.linspace(0, 1, 400)
        >>> certificate = certify(score, score > 0.1)  # agrees with the large model above .1
        >>> round(certificate.kept, 3), certificate.valid
        (0.91, True)

    Raises ValueError that names the argument, and ArtefactError for a damaged ledger.
    """
    for name, level in (("max_loss", max_loss), ("delta", delta)):
        if not 0 < level < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {level}")
    _require_one_order(
        {"score": score, "small_correct": small_correct, "large_correct": large_correct, "groups": groups}
    )
    score_N = _column("score", score, None)
    small_N = _truths("small_correct", small_correct, score_N)
    large_N = small_N | True if large_correct is None else _truths("large_correct", large_correct, score_N)
    units = _Units.of(groups, len(score_N))
    if groups is None and (num_repeated := _num_repeated(score_N, small_N, large_N)) > _FEW_REPEATED * len(score_N):
        warnings.warn(f"{num_repeated:,} of {len(score_N):,} rows repeat another row: {NOT_GROUPED}", stacklevel=2)
    look = None
    if ledger is not None and len(score_N):
        look = _look(ledger, units, (score_N, small_N, large_N), max_loss, delta)
    spend = delta if look is None else look.spend
    lost_rows = np.flatnonzero(large_N & ~small_N)
    lost_rows = lost_rows[np.argsort(-score_N[lost_rows])]
    totals = np.append(0.0, np.cumsum(1 / units.size[units.code[lost_rows]]))  # unit losses of the first k lost rows
    test = LossTest(units)
    affordable = test.affordable(totals, max_loss, spend) if len(score_N) else -1
    threshold = math.inf if affordable < 0 else lowest_threshold(score_N, score_N[lost_rows], affordable)
    share_kept = float((score_N > threshold).mean()) if len(score_N) else 0.0
    bound = max_loss if share_kept else 0.0
    if threshold == -math.inf:  # this threshold does not depend on outcomes, so its own bound holds too
        bound = min(bound, test.upper_bound(float(totals[-1]), spend))
    return ScoreCertificate(
        threshold=threshold if share_kept else None,
        kept=share_kept,
        bound=bound,
        delta=spend,
        look=None if look is None else look.number,
        valid=True,
        max_loss=max_loss,
        num_units=units.count,
        fewest_units=fewest_binomial(max_loss, spend),
        note="; ".join(note for note, applies in ((NOT_GROUPED, groups is None), (NOT_RECORDED, not look)) if applies),
    )


@dataclass(frozen=True)
class _Units:
    """The unit of every row [N], the rows of every unit [U], and the names of the groups."""

    code: NDArray[np.intp]
    size: NDArray[np.intp]
    names: tuple[str, ...]

    @classmethod
    def of(cls, groups: Sequence[object] | None, num_rows: int) -> _Units:
        if groups is None:
            return cls(np.arange(num_rows), np.ones(num_rows, dtype=np.intp), ())
        if len(groups) != num_rows:
            raise ValueError(f"groups has {len(groups)} rows, score has {num_rows}")
        numbers: dict[object, int] = {}
        keys = [(row,) if group is None or group != group else str(group) for row, group in enumerate(groups)]
        code = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)
        return cls(code, np.bincount(code), tuple(key for key in numbers if isinstance(key, str)))

    @property
    def count(self) -> int:
        return len(self.size)

    @property
    def grouped(self) -> bool:
        return bool(self.names)


def _look(
    ledger: str | Path | Ledger, units: _Units, columns: Sequence[NDArray[np.generic]], max_loss: float, delta: float
) -> Look:
    digest = hashlib.sha256(f"kcm.certify {max_loss!r}".encode())
    for column in (*columns, units.code):
        digest.update(np.ascontiguousarray(column).tobytes())
    open_ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    names_by_kind = {GROUP: unit_hashes(units.names)} if units.grouped else None
    return open_ledger.look(names_by_kind, delta=delta, digest=digest.hexdigest(), purpose="kcm.certify")


def _require_one_order(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for pandas Series whose indexes differ: by position, rows would meet other rows."""
    indexes = {name: values.index for name, values in arguments.items() if hasattr(values, "reindex")}
    for name, index in indexes.items():
        if not index.equals(next(iter(indexes.values()))):
            raise ValueError(f"{name} has another index than {next(iter(indexes))}: align them, or give .to_numpy()")


def _num_repeated(score_N: NDArray[np.float64], *others: NDArray[np.bool_]) -> int:
    """Rows whose score and outcomes another row has too; scores of few digits may be equal by chance."""
    is_fine_N = np.round(score_N, _DIGITS) != score_N
    rows = np.stack([score_N, *others], 1)[is_fine_N]
    return len(rows) - len(np.unique(rows, axis=0))


def _column(name: str, values: ArrayLike, score_N: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked rows: leave them out of all arguments")
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or (score_N is not None and len(column) != len(score_N)):
        expected = "one dimension" if score_N is None else f"{len(score_N)} rows, as score has"
        raise ValueError(f"{name} must have {expected}, not shape {column.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(f"{name} must be finite: row {bad[0]} is {column[bad[0]]}")
    return column


def _truths(name: str, values: ArrayLike, score_N: NDArray[np.float64]) -> NDArray[np.bool_]:
    column = _column(name, values, score_N)
    if len(bad := np.flatnonzero((column != 0) & (column != 1))):
        raise ValueError(f"{name} must be 0 or 1: row {bad[0]} is {column[bad[0]]}")
    return column == 1
