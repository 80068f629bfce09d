"""Learners that take steps, as published figures were measured with them: the demo's by AdamW, and one by SGD over LDA.

What was measured of learners that take steps, and of gates beside them, stays with these settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

REVIEWS = Path(__file__).parents[1] / "jobs" / "configs" / "reviews.yaml"
BY_STEPS = (
    "learner={name: replay, memory: 1000, batch_size: 64}",
    "network={}",
    "train={num_epochs: 10, learning_rate: 0.001, weight_decay: 0.1}",
    "distill={large_weight: 3.0, judge_weight: 0.5, keep_confidence: 0.98}",
    "tune={num_trials: 10, learning_rates: [0.0005, 0.001, 0.002], judge_weights: [0.0, 0.5]}",
)

# One layer over linear discriminant analysis, by SGD and asymmetric cross-entropy: among learners that take steps it
# forgets least (docs/continual.md).
REPLAY_ON_LDA: dict[str, dict[str, Any]] = {
    "network": {
        "hidden": [],
        "spline_order": 1,
        "base_activation": "none",
        "centred": True,
        "zero_start": True,
        "base": "lda",
    },
    "learner": {"name": "replay", "memory": 1000, "batch_size": 256, "margin": 4.0},
    "train": {"optimizer": "sgd", "sgd_rate": 0.1, "num_epochs": 3, "mask_unseen": True},
}
