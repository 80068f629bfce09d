"""Callers whose labels disagree with the rest. Shapes: N labels of one caller."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
import pyarrow as pa

from kcm.certification.monitoring.alarm import RateAlarm
from kcm.certification.pvalues import binomial_upper_bound

DELTA = 0.05  # probability of excluding any caller falsely, per window
MARGIN = 0.1  # allowed difference between callers: some send harder items than others


def outliers(rows: pa.Table, known_labels: Collection[str]) -> dict[str, str]:
    """Evidence against each caller whose labels differ from the large model's answers more often than all others' do.

    `rows` are decisions of a window, with `caller`, `label` and `large_label`. Labels outside `known` are skipped: the
    large model could not have given them. Each caller gets a betting test against the upper end of the others' share,
    raised by MARGIN (`kcm.certification.monitoring.alarm`); all tests of a window hold together with probability 1 -
    DELTA.
    """
    labels = rows.select(["caller", "label", "large_label"]).to_pandas().dropna()
    labels = labels[labels["label"].isin(list(known_labels))]
    differs, outliers_by_caller = labels["label"] != labels["large_label"], {}
    counts = pd.DataFrame({"caller": labels["caller"], "differs": differs}).groupby("caller")["differs"]
    for caller, differs_N in counts:
        num_agreeing = len(labels) - len(differs_N)
        spend = DELTA / (2 * counts.ngroups)
        limit = (
            MARGIN + binomial_upper_bound(float(differs.sum() - differs_N.sum()), num_agreeing, spend)
            if num_agreeing
            else 1.0
        )
        if limit >= 1:
            continue
        alarm = RateAlarm(limit, spend)
        alarm.observe(differs_N.to_numpy(dtype=float))
        if alarm.alarm:
            outliers_by_caller[str(caller)] = (
                f"{differs_N.sum()} of {len(differs_N)} labels differ from the large model's answers"
            )
    return outliers_by_caller
