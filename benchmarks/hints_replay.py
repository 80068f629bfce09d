"""Arithmetic of benchmarks/hints.py: what hints change in stored answers, and in a cascade that asks for them.

Labels are numbers; -1 is no label. A question has labels + 1 stored answers: column 0 without a hint, column h + 1 with
label h as the hint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kcm.large.prompts import hard_candidates

RELIABILITY = 0.95  # the product's default: kept and right on this share of a label's rows, which then leaves the list


@dataclass(frozen=True)
class Stored:
    """Stored answers to N questions with C labels, and the gold labels.

    `best` [N, C + 1] are the likeliest labels, `off_label` [N, C + 1] whether the likeliest token is none of them,
    `logprobs` [N, C] those without a hint (-inf if the reply does not list the label).
    """

    gold: np.ndarray
    best: np.ndarray
    off_label: np.ndarray
    logprobs: np.ndarray

    @property
    def num_labels(self) -> int:
        """C."""
        return self.logprobs.shape[1]

    def at(self, rows: np.ndarray) -> Stored:
        """The questions of these rows."""
        return Stored(self.gold[rows], self.best[rows], self.off_label[rows], self.logprobs[rows])

    @property
    def alone(self) -> np.ndarray:
        """Answers [N] without a hint."""
        return np.asarray(self.best[:, 0])

    def soft(self, hint_N: np.ndarray) -> np.ndarray:
        """Answers [N] with these hints."""
        return np.asarray(self.best[np.arange(len(hint_N)), hint_N + 1])

    def hard(self, candidates: tuple[int, ...]) -> np.ndarray:
        """Answers [N] without a hint, restricted to the candidates; to all labels if fewer than two are left."""
        if len(candidates) < 2:
            return self.alone
        return np.asarray(np.array(candidates)[self.logprobs[:, list(candidates)].argmax(1)])


@dataclass(frozen=True)
class Small:
    """Labels [N] of a small model, and the scores [N] of its judge; larger is surer."""

    label: np.ndarray
    score: np.ndarray

    def at(self, rows: np.ndarray) -> Small:
        """The answers to these rows."""
        return Small(self.label[rows], self.score[rows])


def coin(gold_N: np.ndarray, accuracy: float, num_labels: int, random: np.random.Generator) -> np.ndarray:
    """Hints [N] that are right with this probability for any row, and otherwise a uniformly drawn wrong label."""
    wrong_N = (gold_N + random.integers(1, num_labels, size=len(gold_N))) % num_labels
    return np.where(random.random(len(gold_N)) < accuracy, gold_N, wrong_N)


def best_threshold(score_N: np.ndarray, small_right_N: np.ndarray, large_right_N: np.ndarray) -> float:
    """The threshold with the most right answers, if rows with a score above it are the small model's.

    Of equal ones the lowest, which asks the large model least.
    """
    thresholds = np.concatenate([[-np.inf], np.unique(score_N)])
    num_right = [np.where(score_N > threshold, small_right_N, large_right_N).sum() for threshold in thresholds]
    return float(thresholds[int(np.argmax(num_right))])


def changes(alone_right_N: np.ndarray, hinted_right_N: np.ndarray, hint_right_N: np.ndarray) -> dict[str, float]:
    """Shares of right answers that a hint spoils, and of wrong answers that it corrects, by whether it is right.

    NaN if there is no such row.
    """
    figures = {}
    for name, of_hint in (("right", hint_right_N), ("wrong", ~hint_right_N)):
        spoiled, corrected = ~hinted_right_N[alone_right_N & of_hint], hinted_right_N[~alone_right_N & of_hint]
        figures[f"spoiled by a {name} hint"] = float(spoiled.mean()) if len(spoiled) else np.nan
        figures[f"corrected by a {name} hint"] = float(corrected.mean()) if len(corrected) else np.nan
    return figures


@dataclass(frozen=True)
class Sides:
    """Stored answers and a small model's answers to the same rows."""

    stored: Stored
    small: Small

    def at(self, rows: np.ndarray) -> Sides:
        """Both sides of these rows."""
        return Sides(self.stored.at(rows), self.small.at(rows))

    @property
    def small_right(self) -> np.ndarray:
        """Whether the small model is right [N]."""
        return np.asarray(self.small.label == self.stored.gold)

    def accuracy(self, threshold: float, answer_N: np.ndarray) -> float:
        """Accuracy of the cascade whose large model gives these answers [N] to rows up to the threshold."""
        final = np.where(self.small.score > threshold, self.small.label, answer_N)
        return float((final == self.stored.gold).mean())


def every_row_hinted(sides: Sides, random: np.random.Generator) -> dict[str, float]:
    """The large model without hints, with the small model's on every row, and with a coin's of the same accuracy."""
    stored_hints, small_right = sides.stored, sides.small_right
    alone_right = stored_hints.alone == stored_hints.gold
    figures = {"large": float(alone_right.mean()), "small": float(small_right.mean())}
    figures["off label"] = float(stored_hints.off_label[:, 0].mean())
    rows = np.arange(len(stored_hints.gold))
    figures["off label, hinted"] = float(stored_hints.off_label[rows, sides.small.label + 1].mean())
    tossed = coin(stored_hints.gold, figures["small"], stored_hints.num_labels, random)
    for name, hint_N in (("soft", sides.small.label), ("coin", tossed)):
        hinted_right = stored_hints.soft(hint_N) == stored_hints.gold
        figures[f"every row, {name}"] = float(hinted_right.mean())
        shares = changes(alone_right, hinted_right, hint_N == stored_hints.gold)
        figures |= {f"{name}: {change}": share for change, share in shares.items()}
    return figures


def half_escalated(validate: Sides, test: Sides, random: np.random.Generator) -> dict[str, float]:
    """The cascade that asks the large model about the less sure half, by hint; the coin is as often right as there."""
    threshold = float(np.median(validate.small.score))
    stored_hints, is_escalated = test.stored, test.small.score <= threshold
    accuracy = float(test.small_right[is_escalated].mean()) if is_escalated.any() else 0.0
    tossed = coin(stored_hints.gold, accuracy, stored_hints.num_labels, random)
    figures = {"half: calls": float(is_escalated.mean()), "half: right hints": accuracy}
    figures |= {
        "half: none": test.accuracy(threshold, stored_hints.alone),
        "half: soft": test.accuracy(threshold, stored_hints.soft(test.small.label)),
        "half: coin": test.accuracy(threshold, stored_hints.soft(tossed)),
    }
    return figures | hard_hinted("half", threshold, validate, test)


def best_escalated(validate: Sides, test: Sides) -> dict[str, float]:
    """The cascade at the threshold that is most accurate on `validate`, chosen apart without and with soft hints."""
    past, figures = validate.stored, {}
    threshold_without = best_threshold(validate.small.score, validate.small_right, past.alone == past.gold)
    hinted_right = past.soft(validate.small.label) == past.gold
    hinted = best_threshold(validate.small.score, validate.small_right, hinted_right)
    figures["best: calls"] = float((test.small.score <= threshold_without).mean())
    figures["best: calls, soft"] = float((test.small.score <= hinted).mean())
    figures["best: none"] = test.accuracy(threshold_without, test.stored.alone)
    figures["best: soft"] = test.accuracy(hinted, test.stored.soft(test.small.label))
    return figures | hard_hinted("best", threshold_without, validate, test)


def hard_hinted(policy: str, threshold: float, validate: Sides, test: Sides) -> dict[str, float]:
    """The cascade whose large model chooses among the labels that the small side does not answer reliably.

    Nothing for two labels.
    """
    if test.stored.num_labels < 3:
        return {}
    reliable = (validate.small.score > threshold) & validate.small_right
    candidates = hard_candidates(validate.stored.gold, reliable, test.stored.num_labels, RELIABILITY)
    return {
        f"{policy}: hard": test.accuracy(threshold, test.stored.hard(candidates)),
        f"{policy}: labels left out": float(test.stored.num_labels - len(candidates)),
    }


def replayed(sides: Sides, validate: np.ndarray, test: np.ndarray, random: np.random.Generator) -> dict[str, float]:
    """All figures of one split: thresholds and candidates come from the rows `validate`, the rest from `test`."""
    past, new_rows = sides.at(validate), sides.at(test)
    return every_row_hinted(new_rows, random) | half_escalated(past, new_rows, random) | best_escalated(past, new_rows)
