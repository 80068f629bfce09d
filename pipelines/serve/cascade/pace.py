"""Whether a challenger costs the champion's clients too much time."""

from __future__ import annotations

from collections.abc import Sequence

from kcm.bundle.answers import Judgement

MOST = 2.0  # what judging by the challenger may cost, in units of what the champion's judging costs
GRACE_S = 0.5  # seconds above that which are forgiven: a busy machine makes any step slow now and then


class Pace:
    """Adds up what the same inputs cost a challenger and its champion; the encoder counts for both."""

    def __init__(self) -> None:
        self._left_s = GRACE_S

    def too_slow(self, challenger: Sequence[Judgement], champion: Sequence[Judgement]) -> bool:
        """Whether the challenger has cost too much by now, these judgements included."""
        allowed_s, spent_s = (sum(each.cost_s for each in judgements) for judgements in (champion, challenger))
        self._left_s = min(GRACE_S, self._left_s + MOST * allowed_s - spent_s)
        return self._left_s < 0
