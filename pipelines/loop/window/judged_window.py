"""The decisions of a window, with a frozen challenger's answers to them.

Shapes: N decisions, in the order of their numbers; D features, C labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.policy import Policy
from kcm.certification.monitoring.monitor import Observations, loss_interval
from kcm.certification.traffic import Traffic
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from kcm.parquet import read_table, write_table
from pipelines.batch.encoding import encoded
from pipelines.context import Attempt
from pipelines.serve.log.window import row_ids
from pipelines.store.features import feature_matrix

PAYLOAD = ("text", "image", "features", "large_probabilities")  # columns that no certificate reads


@dataclass(frozen=True, eq=False)
class JudgedWindow:
    """Decisions [N] in the columns of the log's reader, without payload.

    `challenger_score` and `challenger_label` are the challenger's gate score and answer.
    """

    rows: pd.DataFrame

    @classmethod
    def of(cls, window: pa.Table, scores_N: ArrayLike, labels_N: Sequence[str]) -> JudgedWindow:
        """The rows of `window` with these gate scores and answers."""
        score_N, label_N = np.asarray(scores_N, dtype=np.float64), np.array(list(labels_N), dtype=object)
        lean_window = window.drop_columns([name for name in PAYLOAD if name in window.column_names])
        return cls(lean_window.to_pandas().assign(challenger_score=score_N, challenger_label=label_N))

    @classmethod
    def by(
        cls,
        collaborator: Collaborator,
        gate: Gate,
        window: pa.Table,
        features_ND: NDArray[np.float32],
        label_names: Sequence[str],
    ) -> JudgedWindow:
        """The rows of `window` as a collaborator judges their features."""
        judge_NC, small_NC = logits(collaborator, features_ND)
        label_N = np.asarray(label_names, dtype=object)[small_NC.argmax(axis=1)]
        return cls.of(window, gate.score(features_ND, judge_NC, small_NC), label_N.tolist())

    @classmethod
    def read(cls, file: Path) -> JudgedWindow:
        """Read what `write` wrote."""
        return cls(read_table(file).to_pandas())

    def write(self, file: Path) -> None:
        """Write it as Parquet."""
        write_table(pa.Table.from_pandas(self.rows, preserve_index=False), file)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: ArrayLike) -> JudgedWindow:
        """The decisions that a mask [N] picks."""
        return JudgedWindow(self.rows[np.asarray(places, dtype=bool)].reset_index(drop=True))

    def of_purpose(self, *purposes: str) -> JudgedWindow:
        """The decisions of these purposes."""
        return self.select(self.rows["purpose"].isin(purposes))

    def of_task(self, task: str | None, tasks_of_their_own: Collection[str]) -> JudgedWindow:
        """The decisions that a threshold of `task` is for; None stands for all tasks without a threshold in `own`."""
        return self.select(
            self.rows["task"] == task if task is not None else ~self.rows["task"].isin(list(tasks_of_their_own))
        )

    @property
    def score(self) -> NDArray[np.float64]:
        """The challenger's gate scores, [N]."""
        return np.asarray(self.rows["challenger_score"], dtype=np.float64)

    @property
    def label(self) -> NDArray[np.object_]:
        """The challenger's answers, [N]."""
        return np.asarray(self.rows["challenger_label"], dtype=object)

    @property
    def large_label(self) -> NDArray[np.object_]:
        """The large model's answers, [N]; NaN or None if it gave none."""
        return np.asarray(self.rows["large_label"], dtype=object)

    @property
    def unit(self) -> NDArray[np.object_]:
        """The unit of each decision, [N]."""
        return np.asarray(self.rows["unit"], dtype=object)

    @property
    def probability(self) -> NDArray[np.float64]:
        """The probability with which the large model was asked, [N]."""
        return np.asarray(self.rows["probability"], dtype=np.float64)

    @property
    def items(self) -> NDArray[np.object_]:
        """The name of each item, `request id/item`, [N]."""
        pairs = zip(self.rows["request_id"], self.rows["item"], strict=True)
        return np.array([f"{request}/{item}" for request, item in pairs], dtype=object)

    @property
    def champion_kept(self) -> NDArray[np.bool_]:
        """Whether the champion kept the item at the time, [N]."""
        return np.asarray(self.rows["route"] == "small", dtype=bool)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Whether the large model was asked: always true if the item was escalated, [N]."""
        return np.asarray(~self.champion_kept | self.rows["state"].notna(), dtype=bool)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Whether the large model was asked and its answer is known, [N]."""
        return np.asarray(self.asked & self.rows["large_label"].notna(), dtype=bool)

    def with_labels(self, labels: Mapping[str, str]) -> JudgedWindow:
        """The decisions with labels of people by the name of the item; None where nobody gave one."""
        return JudgedWindow(self.rows.assign(reference=[labels.get(item) for item in self.items]))

    @property
    def num_labels(self) -> int:
        """The labels of people."""
        return int(self.rows["reference"].notna().sum()) if "reference" in self.rows else 0

    @property
    def disagrees(self) -> NDArray[np.bool_]:
        """Whether the challenger's answer differs from the large model's, or the latter is missing, [N].

        If a person gave the challenger's answer too, it does not count as a disagreement.
        """
        differs = ~self.answered | (self.large_label != self.label)
        is_right = self.rows["reference"] == self.label if "reference" in self.rows else False
        return np.asarray(differs & ~np.asarray(is_right), dtype=bool)

    def keeps(self, policy: Policy) -> NDArray[np.bool_]:
        """Whether the challenger keeps the item under a policy on its gate score, [N]."""
        tasks = [None if pd.isna(task) else str(task) for task in self.rows["task"]]
        return np.asarray(policy.keep(self.score, tasks), dtype=bool)

    def champion_loss(
        self, policy: Policy, floor: float, delta: float, new_labels: Collection[str] = ()
    ) -> tuple[float, float]:
        """Bounds on the share of decisions that the champion loses against the large model; each holds with 1 - delta.

        The champion loses an item that its policy keeps and on which it differs from the large model, and an escalated
        item that the large model answers with one of `new_labels`, which the champion's large model does not have. If
        the policy was stopped, escalated items count as the policy would have decided. `floor` is the least probability
        of having been asked. (0, 1) without decisions.
        """
        if not len(self):
            return 0.0, 1.0
        score = np.nan_to_num(np.asarray(self.rows["gate_score"], dtype=np.float64), nan=-np.inf)
        tasks = [None if pd.isna(task) else str(task) for task in self.rows["task"]]
        keeps, has_answer = policy.keep(score, tasks), self.answered
        differs = self.large_label != np.asarray(self.rows["small_label"], dtype=object)
        losses = np.where(keeps, differs, np.isin(self.large_label.astype(str), list(new_labels)))
        low, high = has_answer & losses, self.asked & np.where(has_answer, losses, keeps)
        kinds = pd.DataFrame({"probability": self.probability, "low": low, "high": high})
        groups = kinds.groupby(["probability", "low", "high"]).size().items()
        return loss_interval(
            [Observations(count, floor, p, float(low), float(high)) for (p, low, high), count in groups], delta
        )

    def traffic(self, floor: float) -> Traffic:
        """The window in the form that a certificate reads; `floor` is the least probability of having been asked."""
        return Traffic(
            score=self.score,
            asked=self.asked,
            probability=self.probability,
            disagrees=self.disagrees,
            floor=floor,
            unit=self.unit,
        )


def window_features(window: pa.Table, encoder: EncoderConfig, attempt: Attempt, scratch: Path) -> NDArray[np.float32]:
    """Features [N, D] of a window's rows: the stored features, or else the encoder's features of the stored input.

    Raises DataError for rows without either.
    """
    has_features = window["features"].is_valid().to_numpy(zero_copy_only=False)
    if has_features.all():
        return _matrix(window["features"])
    text, image = (pc.fill_null(window[name], empty) for name, empty in (("text", ""), ("image", b"")))
    rows = pa.table({"id": row_ids(window), "text": text, "image": image}).filter(pa.array(~has_features))
    blank = pc.and_(pc.equal(pc.binary_length(rows["text"]), 0), pc.equal(pc.binary_length(rows["image"]), 0))
    if missing := rows.filter(blank)["id"].to_pylist():
        raise DataError(
            f"nothing is stored of the inputs of {len(missing)} decisions, the first is {missing[0]}",
            where="serve.feedback.store_payloads",
            hint="Set it to text or all, and begin the window after that",
        )
    made_MD = feature_matrix(encoded(attempt, encoder, rows, scratch))
    features_ND = np.empty((len(window), made_MD.shape[1]), dtype=np.float32)
    features_ND[~has_features] = made_MD
    if has_features.any():
        features_ND[has_features] = _matrix(window.filter(pa.array(has_features))["features"])
    return features_ND


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of equally long lists as float32 [N, D]."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.array(flat, dtype=np.float32).reshape(len(column), -1)  # a copy: Arrow's own memory is read-only
