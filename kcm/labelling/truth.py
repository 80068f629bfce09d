"""People's labels on some rows of a table: how accurate are the delivered labels, and the large model?

Agreement with the large model is promised; accuracy is measured, and enters no promise. The delivered labels are
measured as they were delivered. The large model's answers on the rows with people's labels are bought afterwards.
Shapes: N rows, n of them with a person's label, U different texts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kcm.config import Config
from kcm.errors import DataError
from kcm.labelling.certificate import Labelled
from kcm.labelling.purchases import FAILED, Oracle
from kcm.labelling.texts import column_of
from kcm.large.prompts import matching_label
from kcm.metrics.intervals import Interval, score_interval

NO_LABEL = -1
_SHOWN = 5
_PRIOR_ERRORS = 5  # so many rarer outcomes halve the trust in a correlation: from few errors it is a chance find


class Accuracies(Config):
    """Accuracy by people's labels on `rows` rows, with 95% intervals; they hold if these rows are a random sample."""

    rows: int
    labels: Interval = Field(description="Accuracy of the delivered labels.")
    llm: Interval | None = Field(description="Accuracy of the LLM; None if the money did not pay for its answers.")
    bought: int = Field(description="Texts bought for the accuracy of the LLM alone, after the promise was settled.")


def truth_codes(
    frame: pd.DataFrame, column: str, label_names: tuple[str, ...], unit_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Codes of people's labels [N], `NO_LABEL` for empty cells and for rows without a text.

    Case and surrounding spaces do not matter. Raises DataError for a missing column, for one without labels, and for
    values that are not on the label list.
    """
    cells = column_of(frame, column, "--truth")
    values = cells.convert_dtypes().astype("string").str.strip()  # 1.0 beside empty cells is the label 1
    values = values.mask((values == "") | (unit_N < 0))
    counts = values.value_counts()
    code_of = {value: matching_label(str(value), label_names) for value in counts.index}
    if unknown := [value for value, code in code_of.items() if code is None]:
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
        raise DataError(
            f"column {column!r} has values that are not labels in {int(counts[unknown].sum()):,} rows: {shown}",
            where="truth",
            hint="Correct or empty these cells, or add the values to the labels",
        )
    if not code_of:
        raise DataError(f"column {column!r} has no labels on rows with a text", where="truth", hint="Name another one")
    return np.array([NO_LABEL if pd.isna(value) else code_of[value] for value in values], dtype=np.int64)


def measured(
    truth_N: NDArray[np.int64],
    unit_N: NDArray[np.int64],
    labelled: Labelled,
    oracle: Oracle,
) -> Accuracies:
    """Both accuracies on the N rows that have a text; the answers of the large model that are missing are bought.

    `truth_N` are codes from `truth_codes`. An answer that the large model fails to give is wrong.
    """
    has_text_N = unit_N >= 0
    truth_N, unit_N = truth_N[has_text_N], unit_N[has_text_N]
    rows_n = np.flatnonzero(truth_N != NO_LABEL)
    truth_n, unit_n = truth_N[rows_n], unit_N[rows_n]
    sure_N = 1 - labelled.wrong_U[unit_N]
    labels = difference_estimate(labelled.answer_U[unit_n] == truth_n, sure_N[rows_n], sure_N)
    said_U = np.where(labelled.bought_U, labelled.answer_U, FAILED)
    missing = np.unique(unit_n[~labelled.asked_U[unit_n]])
    if oracle.affords(missing) < len(missing):
        return Accuracies(rows=len(rows_n), labels=labels, llm=None, bought=0)
    if len(missing):
        said_U[missing] = oracle(missing)
    llm = difference_estimate(said_U[unit_n] == truth_n, sure_N[rows_n], sure_N)
    return Accuracies(rows=len(rows_n), labels=labels, llm=llm, bought=len(missing))


def difference_estimate(
    right_n: NDArray[np.bool_], control_n: NDArray[np.float64], control_N: NDArray[np.float64]
) -> Interval:
    """The share of right rows of a finite table, with a 95% interval.

    It follows from a random sample and a control that is known for every row.

    Notes
    -----
    With y the outcomes of the sample and c the control,

        estimate = mean_n(y) + lambda (mean_N(c) - mean_n(c)),    lambda = a cov_n(y, c) / var_n(c)

    which for a = 1 has the least variance: the power-tuned lambda of PPI++ (arXiv 2311.01453, section 6), for a control
    that is known on the sample too. Its variance is the plain mean's times 1 - (2a - a^2) rho^2, with rho the
    correlation of y and c. rho found on k right or k wrong rows is too optimistic for small k, hence
    a = k / (k + 5). The interval is Wilson's at the number of rows with this variance,

        n / ((1 - (2a - a^2) rho^2) (1 - n/N)),

    with the correction for sampling without replacement; it does not collapse if every row of the sample is right.
    A control without information costs nothing, and a biased one leaves the estimate unbiased to first order.
    """
    y_n, num_rows = right_n.astype(np.float64), len(control_N)
    mean, variance, spread = float(y_n.mean()), float(y_n.var()), float(control_n.var())
    rarer = min(y_n.sum(), len(y_n) - y_n.sum())
    tuning = factor = 0.0
    if variance > 0 and spread > 0:
        trust = rarer / (rarer + _PRIOR_ERRORS)
        covariance = float(((y_n - mean) * (control_n - control_n.mean())).mean())
        tuning = trust * covariance / spread
        factor = (2 * trust - trust**2) * min(1.0, covariance**2 / (variance * spread))
    estimate = float(np.clip(mean + tuning * (control_N.mean() - control_n.mean()), 0, 1))
    if len(y_n) == num_rows:
        return Interval(mean, mean, mean)
    return score_interval(estimate, len(y_n) / ((1 - factor) * (1 - len(y_n) / num_rows)))
