"""Whether a challenger costs the champion's clients too much time."""

from __future__ import annotations

from collections.abc import Sequence

from kcm.bundle.answers import Judgement

MAX_RATIO = 2.0  # of what judging costs the challenger to what it costs the champion
GRACE_S = 0.5  # seconds beyond it that are allowed: a busy machine makes any step slow now and then


class Pace:
    """Sums up what judging the same inputs costs a challenger and its champion; the encoder counts for both."""

    def __init__(self) -> None:
        self._left_s = GRACE_S

    def too_slow(self, challenger: Sequence[Judgement], champion: Sequence[Judgement]) -> bool:
        """Whether the challenger has cost too much by now, these judgements included."""
        champion_s, challenger_s = (sum(each.cost_s for each in judgements) for judgements in (champion, challenger))
        self._left_s = min(GRACE_S, self._left_s + MAX_RATIO * champion_s - challenger_s)
        return self._left_s < 0
