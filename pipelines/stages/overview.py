"""What a run says of its rows before anything is paid: what they are, and what could be certified with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kcm.certification.certificate import CertificateConfig
from kcm.certification.outlook import Outlook, Scope, outlook
from kcm.tasks.sequence import Summary
from kcm.tasks.splits import Fractions

_SHOWN = 8  # labels and tasks


def overview(
    summary: Summary,
    config: CertificateConfig | None,
    scopes: Sequence[Scope],
    fractions: Fractions,
    *,
    servable: bool = True,
) -> Iterator[str]:
    """Lines for a person; those that start with `warning` ask for a decision.

    `config` is None if nothing is to be certified on these rows. `servable` says whether the large model answers rows
    that it has not seen.
    """
    labels = [f"{label} {count:,}" for label, count in sorted(summary.labels.items(), key=lambda each: -each[1])]
    yield f"{summary.num_rows:,} rows, {len(labels):,} labels: {_shortened(labels)}"
    for task, splits in list(summary.rows.items())[:_SHOWN]:
        yield f"  task {task}: " + ", ".join(f"{split} {count:,}" for split, count in splits.items())
    if (more := len(summary.rows) - _SHOWN) > 0:
        yield f"  and {more} more tasks"
    if summary.num_bad:
        yield f"{summary.num_bad:,} bad rows are left out; bad_rows.csv in the run's folder lists them"
    if summary.num_overlapping:
        yield (
            f"{summary.num_overlapping:,} rows are left out since another split has their content or group;"
            " bad_rows.csv lists them too"
        )
    if summary.num_repeating:
        yield f"{summary.num_repeating:,} rows have a content that others have too; rows of equal content are one unit"
    for first, second in summary.alike[:_SHOWN]:
        counts = summary.labels[first], summary.labels[second]
        yield f"warning: two labels are spelled almost alike: {first!r} ({counts[0]:,}) and {second!r} ({counts[1]:,})"
    if not servable:
        yield (
            "warning: the large model is a table of recorded answers, and nothing will answer new inputs: the cascade"
            " can be certified and predict known rows, and not be served; name a model that answers in section `large`"
        )
    if config is None:
        yield "nothing is certified on these rows: `kcm update` certifies on traffic"
        return
    yield _certifiable(outlook(summary.certify_units, config, scopes), summary, config, fractions)


def _certifiable(found: Outlook, summary: Summary, config: CertificateConfig, fractions: Fractions) -> str:
    of_each = " of the smallest task" if found.scope == "per_task" or config.every_task else ""
    have = f"{found.num_units:,} certify units{of_each}"
    fewest = " or ".join(f"{count:,} by {method}" for method, count in found.by_method.items())
    need = f"epsilon {config.epsilon:g} at delta {config.delta:g} needs at least {fewest}"
    if config.epsilon == 0:
        need += ", every one won by the small model; a small lead takes many more"
    if found.possible:
        only = "" if config.every_task or "per_task" in found.scopes or len(summary.rows) == 1 else _only_global()
        barely = "" if found.num_units >= 2 * found.needed else "; it is a close call, twice as many make a good start"
        return f"{have}; {need}: a certificate is possible{only}{barely}"
    if math.isinf(found.times_the_rows):
        return f"warning: there are no certify rows; {need}: everything would be escalated"
    rows = math.ceil(summary.num_rows * found.times_the_rows / 50) * 50
    choices = [f"about {rows:,} rows"]
    if found.epsilon is not None:
        choices.append(f"epsilon >= {found.epsilon:g}")
    if found.scope == "per_task":
        choices.append("tune.scopes [global]")
    share = fractions["certify"] * found.times_the_rows
    if share <= 0.4:
        choices.append(f"a certify share of {share:.2f} in place of {fractions['certify']:g}")
    return f"warning: {have}; {need}: everything would be escalated. Use " + ", or ".join(choices)


def _only_global() -> str:
    return ", for one threshold over all tasks; a threshold of their own has too few"


def _shortened(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_SHOWN]) + (f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")
