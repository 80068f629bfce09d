"""The decisions of a window as a challenger would have made them, beside those of the cascade that answered.

Shapes: N decisions, in the order of their numbers; D features, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate
from kcm.cascade.policy import Policy
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from kcm.parquet import read_table, write_table
from pipelines.batch.encoding import encoded
from pipelines.context import Context
from pipelines.progress import Bar

PAYLOAD = ("text", "image", "features", "large_probabilities")  # columns that no figure needs
NEW = ("challenger_score", "challenger_label", "challenger_keeps")


@dataclass(frozen=True, eq=False)
class JudgedWindow:
    """Rows of a window without their payload, with the challenger's gate scores, answers and routes."""

    table: pa.Table

    @classmethod
    def of(
        cls,
        window: pa.Table,
        features_ND: NDArray[np.float32],
        collaborator: Collaborator,
        gate: Gate,
        policy: Policy,
        label_names: Sequence[str],
    ) -> JudgedWindow:
        """Judge the rows of `window` [N], whose features these are."""
        judge_NC, small_NC = logits(collaborator, features_ND)
        score_N = gate.score(features_ND, judge_NC, small_NC)
        plain = window.drop_columns([name for name in PAYLOAD if name in window.column_names])
        label_N = np.asarray(label_names, dtype=object)[small_NC.argmax(axis=1)]
        columns = (
            pa.array(score_N),
            pa.array(label_N.tolist(), pa.string()),
            pa.array(policy.keep(score_N, plain["task"].to_pylist())),
        )
        for name, column in zip(NEW, columns, strict=True):
            plain = plain.append_column(name, column)
        return cls(plain)

    @classmethod
    def read(cls, file: Path) -> JudgedWindow:
        """Read what `write` wrote."""
        return cls(read_table(file))

    def write(self, file: Path) -> None:
        """Write it as Parquet."""
        write_table(self.table, file)

    def under(self, policy: Policy) -> JudgedWindow:
        """The same under another policy on the same gate score."""
        keeps = policy.keep(self.score, self.table["task"].to_pylist())
        return JudgedWindow(self.table.drop_columns([NEW[2]]).append_column(NEW[2], pa.array(keeps)))

    def of_purpose(self, *purposes: str) -> JudgedWindow:
        """The rows of these purposes."""
        return JudgedWindow(self.table.filter(pc.is_in(self.table["purpose"], pa.array(purposes))))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def score(self) -> NDArray[np.float64]:
        """The challenger's gate scores, [N]."""
        return np.asarray(self.table[NEW[0]].to_numpy(), dtype=np.float64)

    @property
    def label(self) -> list[str]:
        """The challenger's answers, [N]."""
        found: list[str] = self.table[NEW[1]].to_pylist()
        return found

    @property
    def keeps(self) -> NDArray[np.bool_]:
        """What the challenger would have kept, [N]."""
        return np.asarray(self.table[NEW[2]].to_numpy(zero_copy_only=False), dtype=bool)

    @property
    def champion_kept(self) -> NDArray[np.bool_]:
        """What was kept when it was answered, [N]."""
        return np.array([route == "small" for route in self.table["route"].to_pylist()], dtype=bool)

    @property
    def unit(self) -> NDArray[np.object_]:
        """What was drawn together, [N]."""
        return np.asarray(self.table["unit"].to_pylist(), dtype=object)


def window_features(
    window: pa.Table, encoder: EncoderConfig, context: Context, *, scratch: Path, bar: Bar
) -> NDArray[np.float32]:
    """Features [N, D] of a window's rows: those that were stored, else the encoder's of what was stored of the input.

    Raises DataError for rows of which nothing was stored.
    """
    stored = window["features"].is_valid().to_numpy(zero_copy_only=False)
    if stored.all():
        return _matrix(window["features"])
    text, image = (pc.fill_null(window[name], empty) for name, empty in (("text", ""), ("image", b"")))
    ids = pc.binary_join_element_wise(window["request_id"], window["item"].cast(pa.string()), "/")
    rows = pa.table({"id": ids, "text": text, "image": image}).filter(pa.array(~stored))
    blank = pc.and_(pc.equal(pc.binary_length(rows["text"]), 0), pc.equal(pc.binary_length(rows["image"]), 0))
    if missing := rows.filter(blank)["id"].to_pylist():
        raise DataError(
            f"nothing is stored of the inputs of {len(missing)} decisions, the first is {missing[0]}",
            where="serve.feedback.store_payloads",
            hint="Set it to text or all, and begin the window after that",
        )
    made_MD = encoded(context, encoder, rows, scratch=scratch, bar=bar)
    if not stored.any():
        return made_MD
    features_ND = np.empty((len(window), made_MD.shape[1]), dtype=np.float32)
    features_ND[~stored] = made_MD
    features_ND[stored] = _matrix(window.filter(pa.array(stored))["features"])
    return features_ND


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of equally long lists as float32 [N, D]."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.array(flat, dtype=np.float32).reshape(len(column), -1)  # a copy: Arrow's own memory is read-only
