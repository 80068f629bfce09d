"""What a bundle is, in a few words for people."""

from __future__ import annotations

from collections.abc import Sequence

from kcm.bundle.bundle import Bundle

_WITHOUT_THRESHOLD = {
    "keep_all": "the small model answers everything",
    "escalate_all": "the large model answers everything",
}


def facts(bundle: Bundle) -> dict[str, str]:
    """Labels, tasks, models, route, promise and digest by their names."""
    decision = bundle.policy.decision
    route = _WITHOUT_THRESHOLD.get(
        decision.decision, f"the small model answers above a {bundle.policy.gate} of {decision.cut:.4g}"
    )
    promised = bundle.certificates.get(None)
    return {
        "labels": _shortened(bundle.answer_names),
        "tasks": _shortened(bundle.task_names),
        "encoder": bundle.encoder.name,
        "large": bundle.large.location,
        "route": route,
        "promise": (
            f"loses at most {100 * promised.epsilon:g} points of accuracy against the large model,"
            f" with probability {1 - promised.delta:.4g}"
            if promised is not None and promised.valid
            else "none"
        ),
        "digest": bundle.digest[:12] or "not written",
    }


def _shortened(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
