"""The way of a challenger: from a window of the log to a registered version with its promotion gates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.loop.champion import Champion
from pipelines.loop.gates import PromotionGate

VERDICT_TAG, WINDOW_TAG = "kcm.verdict", "kcm.window"


@dataclass(frozen=True)
class Walked:
    """The gates, and the challenger as the champion that it would be; None where the window holds too little."""

    gates: list[PromotionGate]
    candidate: Champion | None = None
    figures: dict[str, Any] = field(default_factory=dict)
