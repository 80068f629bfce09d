"""What a bundle is, in a few words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.bundle.bundle import Bundle
from kcm.certify.certificate import Certificate, confidence

_WITHOUT_THRESHOLD = {
    "keep_all": "the small model answers everything",
    "escalate_all": "the large model answers everything",
}


def facts(bundle: Bundle, void: str | None = None) -> dict[str, str]:
    """Labels, tasks, models, route, promise and digest by their names; `void` says why nothing is promised here."""
    decision = bundle.policy.decision
    route = _WITHOUT_THRESHOLD.get(
        decision.decision,
        f"the small model answers above a gate score of {decision.cut:.4g} (gate {bundle.policy.gate})",
    )
    return {
        "labels": _shortened(bundle.answer_names),
        "tasks": _shortened(bundle.task_names),
        "encoder": bundle.encoder.name,
        "large": bundle.large.location,
        "route": route,
        "promise": f"none here: {void}" if void else _promise(bundle.certificates),
        "digest": bundle.digest[:12] or "not written",
    }


def _promise(certificates: Mapping[str | None, Certificate]) -> str:
    """What is promised of all decisions together."""
    common = certificates.get(None)
    if common is None or not all(each.valid for each in certificates.values()):
        return "none"
    if all(each.decision == "escalate_all" for each in certificates.values()):
        return f"loses nothing, since the large model answers everything: {common.reason}"
    certain = confidence(each.delta for each in certificates.values())
    return (
        f"loses at most {100 * common.epsilon:g} points of accuracy against the large model, with a probability of at"
        f" least {certain}"
    )


def _shortened(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
