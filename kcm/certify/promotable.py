"""Whether a version that nobody asked for by name may become the champion."""

from __future__ import annotations

from collections.abc import Mapping

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certify.certificate import Certificate


def why_not_promotable(policy: Policy, certificates: Mapping[str | None, Certificate]) -> str | None:
    """Why a certified policy is never made champion by itself, with its certificate's reason; None where it may be.

    One that escalates everything saves nothing: whoever wants it says so.
    """
    if any(decision != ESCALATE_ALL for decision in (policy.decision, *policy.task_decisions.values())):
        return None
    common = certificates.get(None)
    reason = f", because {common.reason}" if common is not None else ""
    return f"it escalates everything{reason}"
