"""Questions to the large model, many at a time: a pool of actors that each hold the model, or a line to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import DataError
from kcm.large import CausalLmConfig, Item, LinearHead, OpenAiConfig, Prompt, ZeroShotConfig
from kcm.large.build import build_large
from kcm.large.config import AnyLargeConfig
from pipelines.features import rows_of_lists
from pipelines.outcome_file import Outcomes
from pipelines.pool import ROW, map_rows, retain
from pipelines.progress import Bar
from pipelines.stage import Context

PAID = "paid.sqlite"  # in the store, not in an artefact: what was paid for outlives any config


class Ask:
    """Actor that puts rows to the large model."""

    def __init__(
        self,
        large: AnyLargeConfig,
        label_names: Sequence[str],
        assets_dir: Path,
        device: str,
        head: LinearHead | None,
        paid: Path,
    ) -> None:
        self._model = build_large(large, label_names, assets_dir, device=device, head=head, paid=paid)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Answer the columns `id`, `text` and `prompt`."""
        items = [
            Item(row_id, text, read_prompt(prompt))
            for row_id, text, prompt in zip(batch["id"], batch["text"], batch["prompt"], strict=True)
        ]
        answers = self._model.answer(items)
        columns = Outcomes.of(answers, len(self._model.label_names))
        return {
            ROW: batch[ROW],
            "label": columns.label_N,
            "probabilities": columns.probabilities_NC,
            "cost": columns.cost_N,
            "failed": columns.failed_N,
            "reason": np.array([answer.error or "" for answer in answers], dtype=object),
            "tokens": np.array([answer.cost.tokens for answer in answers], dtype=np.int64),
            "currency": np.array([answer.cost.currency for answer in answers], dtype=np.float64),
        }


def ask(
    context: Context,
    large: AnyLargeConfig,
    label_names: Sequence[str],
    rows: pa.Table,
    *,
    head: LinearHead | None = None,
    scratch: Path,
    bar: Bar,
) -> tuple[Outcomes, dict[str, Any]]:
    """The answers to `rows` (columns id, text, prompt), in their order, and what all together took.

    What an interrupted attempt left in `scratch` is not asked again, unless it failed. Raises DataError when no row at
    all was answered.
    """
    cluster = context.config.cluster
    if isinstance(large, OpenAiConfig):  # waits for the network: one actor keeps the budget, and needs no GPU
        cluster = cluster.model_copy(update={"num_encoders": 1, "use_gpu": False})
    retain(scratch, ~pc.field("failed"))
    parts = map_rows(
        rows,
        pc.utf8_length(rows["text"]).to_numpy(),
        Ask,
        {
            "large": large,
            "label_names": tuple(label_names),
            "assets_dir": context.config.assets_path,
            "device": cluster.device,
            "head": head,
            "paid": context.store.root / PAID,
        },
        batch_size=_rows_per_batch(large),
        cluster=cluster,
        scratch=scratch,
        bar=bar,
    )
    answers = parts.to_table().sort_by(ROW)
    _tell_failures(context, answers)
    return _as_outcomes(answers), _totals(answers)


def _rows_per_batch(large: AnyLargeConfig) -> int:
    """Rows that are answered and committed together."""
    if isinstance(large, OpenAiConfig):
        return 8 * large.num_concurrent
    return 4 * large.batch_size if isinstance(large, CausalLmConfig) else _encoder_batch(large)


def _encoder_batch(large: AnyLargeConfig) -> int:
    return large.encoder.batch_size if isinstance(large, ZeroShotConfig) else 64


def _tell_failures(context: Context, answers: pa.Table) -> None:
    failed = answers.filter(answers["failed"])
    if not len(failed):
        return
    reasons = Counter(failed["reason"].to_pylist()).most_common(1)
    told = f"{len(failed)} of {len(answers)} rows, most often: {reasons[0][0]}"
    if len(failed) == len(answers):
        raise DataError(f"the large model failed on {told}", where="large", mend="Mend it and start again")
    context.reporter.say(f"[yellow]the large model failed on {told}[/yellow]")


def _as_outcomes(answers: pa.Table) -> Outcomes:
    return Outcomes(
        label_N=answers["label"].to_numpy(),
        probabilities_NC=rows_of_lists(answers["probabilities"]),
        cost_N=answers["cost"].to_numpy(),
        failed_N=answers["failed"].to_numpy(),
    )


def _totals(answers: pa.Table) -> dict[str, Any]:
    """What all answers together took, and how many of them there are."""
    return {
        "rows": len(answers),
        "failed": int(pc.sum(answers["failed"].cast(pa.int64())).as_py() or 0),
        "tokens": int(pc.sum(answers["tokens"]).as_py() or 0),
        "currency": float(pc.sum(answers["currency"]).as_py() or 0.0),
    }


def written_prompt(prompt: Prompt) -> str:
    """A prompt as text, which crosses processes as a column does."""
    return json.dumps(asdict(prompt))


def read_prompt(text: str) -> Prompt:
    """What `written_prompt` wrote."""
    value = json.loads(text)
    suggestions = tuple((int(label), float(probability)) for label, probability in value["suggestions"])
    return Prompt(value["mode"], suggestions, tuple(value["candidates"]))
