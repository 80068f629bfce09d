"""Rows of files through a cascade: the actor that answers them, and the columns that it gives them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kcm.api.cascade import Cascade, load_cascade
from kcm.bundle.answers import Answer, Failure, Input, Unreadable
from kcm.bundle.runtime import fault_of
from kcm.cascade.policy import OnLargeFailure
from kcm.inputs.content import Content, PartError
from kcm.inputs.rowfile import CHUNK, RowFile
from kcm.inputs.vectors import vector_in
from kcm.large import UpstreamConfig
from kcm.large.response_cache import ResponseStore

ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("judge_confidence", pa.float64()),
        ("answer_probability", pa.float64()),
        ("gate_score", pa.float64()),
        ("route", pa.string()),
        ("cost_s", pa.float64()),
        ("error", pa.string()),
    ]
)
UNFINISHED = "unfinished"  # the column that says which rows another attempt may answer


def added_columns(source: RowFile) -> dict[str, str]:
    """The columns of `ANSWERS` and their names in the output beside the columns of `source`."""
    taken = set(source.schema.names)
    names = {name: name for name in ANSWERS.names if name != "id" or source.id_column not in taken}
    for name in names:
        while names[name] in taken:
            names[name] = f"kcm_{names[name]}"
    return names


class Score:
    """Actor that gives the rows of a chunk the columns of `ANSWERS`, and `UNFINISHED`."""

    def __init__(
        self,
        bundle_folder: Path,
        assets_dir: Path,
        device: str,
        upstreams: Sequence[UpstreamConfig] = (),
        responses: ResponseStore | None = None,
        on_missing: OnLargeFailure | None = None,
    ) -> None:
        self._bundle_folder, self._assets_dir, self._device = bundle_folder, assets_dir, device
        self._upstreams, self._responses, self._on_missing = upstreams, responses, on_missing

    @cached_property
    def _cascade(self) -> Cascade:
        # Not made when the actor starts: what is raised there reaches nobody as it is.
        cascade = load_cascade(
            self._bundle_folder,
            self._assets_dir,
            self._device,
            upstreams=self._upstreams,
            responses=self._responses,
        )
        if self._on_missing is not None:
            small_side = cascade.small_side
            small_side.policy = small_side.policy.model_copy(update={"on_large_failure": self._on_missing})
        return cascade

    def answer(self, source: RowFile, chunk: pa.Table) -> pa.Table:
        """Answer the rows of a chunk of `source` that can be answered; the others say why not."""
        bundle = self._cascade.small_side.bundle
        rows = chunk.select(list(CHUNK)).to_pylist()
        vectors = self._vectors(source, chunk)
        inputs = [
            Input(Content(row["text"] or "", row["image"] or b"", vector=vector), row["task"], row["id"])
            for row, (vector, _) in zip(rows, vectors, strict=True)
        ]
        faults = [
            row["fault"] or fault or fault_of(bundle, example)
            for row, (_, fault), example in zip(rows, vectors, inputs, strict=True)
        ]
        usable = [example for example, fault in zip(inputs, faults, strict=True) if fault is None]
        answers = iter(self._cascade.answer(usable))
        given = [next(answers) if fault is None else Unreadable(fault) for fault in faults]
        records = [{"id": row["id"]} | _record(answer) for row, answer in zip(rows, given, strict=True)]
        may_pass = [bundle.large.servable and _large_failed(answer) for answer in given]
        return pa.Table.from_pylist(records, schema=ANSWERS).append_column(UNFINISHED, [may_pass])

    def _vectors(self, source: RowFile, chunk: pa.Table) -> list[tuple[NDArray[np.float32] | None, str]]:
        """The vector of each row, and what is wrong with it, where the bundle reads vectors."""
        bundle = self._cascade.small_side.bundle
        if "vector" not in bundle.reads:
            return [(None, "")] * len(chunk)
        found: list[tuple[NDArray[np.float32] | None, str]] = []
        for row in source.records(chunk["payload"]):
            try:
                found.append((vector_in(row, bundle.encoder.vector_columns), ""))
            except PartError as error:
                found.append((None, str(error)))
        return found


def _large_failed(answer: Answer | Failure) -> bool:
    return not isinstance(answer, Unreadable) if isinstance(answer, Failure) else answer.degraded


def _record(answer: Answer | Failure) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"error": answer.reason}
    return {name: getattr(answer, name) for name in ANSWERS.names if name not in ("id", "error")}
