"""What a small model would have saved of one template: trained on its earlier calls, certified on its later ones.

With probability 1 - delta over the draw of the certify rows, the small model's answers differ from the large model's on
at most a share 1 - target of all calls of the template to come, if these are drawn as the rows are: an exact binomial
test over all thresholds (`kcm.certification.scores`). Shapes: T texts that train, N certify rows, D features, C labels.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.policy import ESCALATE_ALL, Decision
from kcm.certification.ledger import Ledger, Look, unit_hashes
from kcm.certification.pvalues import fewest_binomial
from kcm.certification.scores import certify
from kcm.encoders import EncoderConfig
from kcm.labelling.bundle import FittedSide
from kcm.labelling.encoding import Mapper, encoded, word_vectors
from kcm.logs.config import SavingsConfig
from kcm.logs.drift import LabelDrift, label_drift, share_interval
from kcm.logs.split import Split
from kcm.logs.tally import LabelledText
from kcm.tasks.units import text_key

STAYS = 0.1  # share of a label's calls below which the label stays with the large model
_NO_LABEL = "(no label)"


@dataclass(frozen=True)
class Vectors:
    """How texts become vectors: by an encoder, or None for their words alone."""

    encoder: EncoderConfig | None
    assets: Path
    mapper: Mapper

    def of(self, texts: Sequence[str], num_known: int) -> NDArray[np.float32]:
        """Vectors [U, D]; nothing is learned from texts after the first `num_known`."""
        if self.encoder is None:
            return word_vectors(texts, num_known=num_known)
        return encoded(texts, self.encoder, self.assets, self.mapper)


@dataclass(frozen=True, eq=False)
class Trained:
    """The small side, the texts [T] that it was fitted to, and its labels [C]."""

    side: FittedSide
    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TemplateForecast:
    """What the small model would save of a template.

    `share` of the certify rows lie above the threshold, `interval` is what to expect of it later. `bound` limits the
    share of all answers that differ, with probability 1 - `delta`: the part of delta that this look spends. `kept` is
    the share of each label that the small model answers. If the mix of labels drifts, the figures hold for the log and
    not for calls to come. `trained` is None if there is nothing to learn. At least `fewest` calls must certify.
    """

    trained: Trained | None
    decision: Decision
    share: float
    interval: tuple[float, float]
    bound: float
    look: Look
    fewest: int
    drift: LabelDrift
    split: Split
    kept: dict[str, float]

    @property
    def delta(self) -> float:
        """What this look spends of delta."""
        return self.look.spend

    @property
    def could_save(self) -> float | None:
        """The share of calls to come that the small model could answer; None if the mix of labels drifts.

        Without times it does not: a table may be sorted by label.
        """
        return None if self.drift.detected and self.split.by_time else self.share

    @property
    def stay(self) -> tuple[str, ...]:
        """Labels that must stay with the large model: the small one answers hardly any of their calls."""
        return tuple(label for label, share in self.kept.items() if share < STAYS)

    @property
    def is_short(self) -> bool:
        """Whether there are too few calls to certify on, whatever the small model answers."""
        return len(self.split.certify) < self.fewest

    @property
    def why_nothing(self) -> str:
        """Why nothing could be saved."""
        if self.trained is None:
            return "its earlier calls have one label alone"
        if self.is_short:
            return f"{len(self.split.certify):,} calls to certify on, at least {self.fewest:,} are needed"
        return "the small model differs from the LLM too often, also where it is surest"


def forecast(rows: Sequence[LabelledText], config: SavingsConfig, ledger: Ledger, vectors: Vectors) -> TemplateForecast:
    """Train on earlier rows, certify on later ones. A reply without a label counts as different."""
    split = Split.of(rows, config.seed)
    look = _look(ledger, rows, config)
    trained, score_N, right_N = _trained(split, config.seed, vectors)
    decision, bound = ESCALATE_ALL, 0.0
    if trained is not None and len(split.certify):
        decision, bound = _certified(score_N, right_N, split.certify, config.max_loss, look.spend)
    kept_N = decision.keep(score_N)
    return TemplateForecast(
        trained=trained,
        decision=decision,
        share=float(kept_N.mean()) if len(kept_N) else 0.0,
        interval=share_interval(kept_N) if kept_N.any() else (0.0, 0.0),
        bound=bound,
        look=look,
        fewest=fewest_binomial(config.max_loss, look.spend),
        drift=label_drift([row.label or _NO_LABEL for row in split.ordered], config.seed),
        split=split,
        kept=_kept_by_label(split.certify, kept_N, trained.labels if trained else ()),
    )


def _trained(
    split: Split, seed: int, vectors: Vectors
) -> tuple[Trained | None, NDArray[np.float64], NDArray[np.bool_]]:
    """The small side; for the certify rows its gate scores [N] and whether it agrees with the large model [N]."""
    by_text: dict[str, Counter[str]] = {}
    for row in split.train:
        if row.label is not None:
            by_text.setdefault(row.text, Counter())[row.label] += 1
    label_of = {text: counts.most_common(1)[0][0] for text, counts in by_text.items()}
    labels = tuple(sorted(set(label_of.values())))
    num_rows = len(split.certify)
    if len(labels) < 2:
        return None, np.zeros(num_rows), np.zeros(num_rows, dtype=bool)
    codes = {label: code for code, label in enumerate(labels)}
    texts = list(dict.fromkeys([*label_of, *(row.text for row in split.certify)]))
    places = {text: place for place, text in enumerate(texts)}
    features_UD = vectors.of(texts, len(label_of))
    label_T = np.array([codes[label] for label in label_of.values()])
    side = FittedSide.fit(features_UD[: len(label_of)], label_T, len(labels), seed)
    answer_N, score_N = side.judged(features_UD[[places[row.text] for row in split.certify]])
    right_N = answer_N == np.array([codes.get(row.label or "", -1) for row in split.certify])
    return Trained(side, tuple(label_of), labels), score_N, right_N


def _certified(
    score_N: NDArray[np.float64],
    right_N: NDArray[np.bool_],
    rows: Sequence[LabelledText],
    max_loss: float,
    delta: float,
) -> tuple[Decision, float]:
    """The lowest threshold that is certified, and the bound on the share of answers that differ.

    If texts repeat, the threshold is certified for calls and for different texts: the first alone would count rows of
    a log that was written twice as two draws, the second alone would not weigh frequent texts.
    """
    certificates = [certify(score_N, right_N, max_loss=max_loss, delta=delta)]
    if len({row.text for row in rows}) < len(rows):
        groups = [row.text for row in rows]
        certificates.append(certify(score_N, right_N, max_loss=max_loss, delta=delta, groups=groups))
    cuts = [np.inf if certificate.threshold is None else certificate.threshold for certificate in certificates]
    decision = Decision.of(float(max(cuts)))
    return decision, 0.0 if decision == ESCALATE_ALL else max(certificate.bound for certificate in certificates)


def _look(ledger: Ledger, rows: Sequence[LabelledText], config: SavingsConfig) -> Look:
    """The look at the question that these texts are."""
    request = {"max_loss": config.max_loss, "delta": config.delta, "seed": config.seed}
    digest = hashlib.sha256(json.dumps(["savings", request]).encode())
    for row in rows:
        digest.update(hashlib.sha256(f"{row.label}\0{row.text}".encode(errors="surrogatepass")).digest())
    names = unit_hashes(text_key(row.text) for row in rows)
    return ledger.look(names, delta=config.delta, digest=digest.hexdigest(), purpose="savings")


def _kept_by_label(rows: Sequence[LabelledText], kept_N: NDArray[np.bool_], labels: Sequence[str]) -> dict[str, float]:
    """The share of each label's certify rows that the small model answers; labels that it never saw have none."""
    totals: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for row, is_kept in zip(rows, kept_N.tolist(), strict=True):
        if row.label is not None:
            totals[row.label] += 1
            answered[row.label] += is_kept
    return {label: answered[label] / totals[label] if totals[label] else 0.0 for label in sorted({*labels, *totals})}
