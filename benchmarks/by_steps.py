"""Learners that take steps, as published figures were measured with them: the demo's by AdamW.

What was measured of learners that take steps, and of gates beside them, stays with these settings.
"""

from __future__ import annotations

from pathlib import Path

REVIEWS = Path(__file__).parents[1] / "jobs" / "configs" / "reviews.yaml"
BY_STEPS = (
    "learner={name: replay, memory: 1000, batch_size: 64}",
    "network={}",
    "train={num_epochs: 10, learning_rate: 0.001, weight_decay: 0.1}",
    "distill={large_weight: 3.0, judge_weight: 0.5, keep_confidence: 0.98}",
    "tune={num_trials: 10, learning_rates: [0.0005, 0.001, 0.002], judge_weights: [0.0, 0.5]}",
)
