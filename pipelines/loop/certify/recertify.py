"""Certifying a challenger on the certify decisions of a window of the log (docs/traffic.md).

Whatever would void the promise is refused before a figure is computed: decisions without version or probability, a
share of 0, too many decisions missing, units that trained anything, another large model, a window that reaches back
behind the last promotion or holds the alarm that called for it. Labels that people volunteered are never read.

Shapes: N decisions of certify units, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike

from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.certify.certificate import CertificateConfig, CertifiedWindow
from kcm.certify.traffic import plan_bet
from kcm.certify.window import TrafficCertificate, certify_traffic
from kcm.errors import DataError
from pipelines.loop.certify.labels import LabelDraw, labelled_traffic
from pipelines.loop.certify.rows import Rows
from pipelines.loop.certify.scope import WindowScope, refuse, utc_of


def certify_window(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    config: CertificateConfig,
    *,
    scope: WindowScope,
    floor: float,
    delta: float,
    bet: float,
    labels: LabelDraw | None = None,
) -> tuple[Policy, dict[str | None, TrafficCertificate]]:
    """The policy to deploy and its certificates by task; None is the key of the decision for all other requests.

    `window` [N] holds the certify decisions, in the columns of the log's reader; `scores_N` and `small_labels_N` are
    the frozen challenger's. `policy` was found on validate and deploys, for every decision in it, the searched
    threshold or the stricter certified one. `floor` is the least probability of being asked that was announced in the
    window, `delta` what the lineage's ledger gives to this attempt, `bet` that of `planned_bet`. Every decision of the
    policy spends an equal share of delta; a task without rows loses its own and follows the common one.

    With `labels`, disagreements that were drawn for labelling are lost only where their label says so; skipped ones,
    and answers of the large model that never came, count as lost. Its answers under other prompts than `none` are not
    in the log. Raises DataError for whatever voids the promise.
    """
    rows = Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    refuse(rows.table, policy, scope)
    share = delta / (1 + len(policy.task_decisions))
    certificates: dict[str | None, TrafficCertificate] = {}
    for task, decision in ((None, policy.decision), *policy.task_decisions.items()):
        chosen = rows.select(rows.of_task(task, policy.task_decisions))
        if len(chosen) or task is None:
            certificates[task] = _certify(chosen, decision, config, scope, floor, share, bet, labels)
    tasks = {task: certificate.route for task, certificate in certificates.items() if task is not None}
    deployed = policy.model_copy(update={"decision": certificates[None].route, "task_decisions": tasks})
    return deployed, certificates


def planned_bet(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    epsilon: float,
    floor: float,
) -> float:
    """The constant bet for the certify decisions, from the window's validate decisions at the policy's thresholds.

    Without validate decisions the largest bet, which is the best where nothing disagrees.
    """
    rows = Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    if not len(rows):
        return plan_bet(np.zeros(1), floor * epsilon)
    tasks = [None if pd.isna(task) else str(task) for task in rows.table["task"]]
    lost = rows.asked & rows.disagrees & policy.keep(rows.score, tasks)
    x_N = np.where(lost, floor / rows.table["probability"].to_numpy(dtype=np.float64), 0.0)
    losses_U = pd.Series(x_N).groupby(rows.table["unit"].to_numpy()).mean()
    return plan_bet(losses_U.to_numpy(), floor * epsilon)


def _certify(
    rows: Rows,
    decision: Decision,
    config: CertificateConfig,
    scope: WindowScope,
    floor: float,
    delta: float,
    bet: float,
    labels: LabelDraw | None,
) -> TrafficCertificate:
    if not len(rows):
        raise DataError(
            f"decisions {scope.after + 1} to {scope.upto} hold none of a certify unit that follows the policy's common"
            " decision",
            where=f"application {scope.application}",
            hint="Wait for more traffic",
        )
    traffic = rows.traffic(floor)
    labelled = None if labels is None else labelled_traffic(rows, traffic, decision.cut, labels)
    answered = rows.table["answered_at"]
    window = CertifiedWindow(
        application=scope.application,
        after=scope.after,
        upto=scope.upto,
        begins_at=utc_of(answered.min()),
        ends_at=utc_of(answered.max()),
        expires_at=scope.now + timedelta(days=scope.expires_days),
        num_decisions=len(rows),
        num_asked=int(traffic.asked.sum()),
        num_labels=0 if labelled is None else int((labelled.answered & rows.known).sum()),
    )
    if decision == ESCALATE_ALL:
        labelled = None  # nothing is kept, so that nothing is disputed
    return certify_traffic(traffic, decision, config, window, delta=delta, bet=bet, labelled=labelled)
