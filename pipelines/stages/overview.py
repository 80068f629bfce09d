"""The lines about a run's rows before anything is paid: counts, and what these rows could certify."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kcm.certification.certificate import CertificateConfig
from kcm.certification.ledger import Look, look_delta, question_delta
from kcm.certification.sample_size import Outlook, Scope, outlook
from kcm.report.formats import exact_points, plural
from kcm.tasks.sequence import Summary
from kcm.tasks.splits import Fractions

_SHOWN = 8  # labels and tasks
_ONLY_GLOBAL = ". That is enough for one threshold over all tasks, not for one per task"


def overview(
    summary: Summary,
    config: CertificateConfig | None,
    scopes: Sequence[Scope],
    fractions: Fractions,
    *,
    grows: bool = False,
    servable: bool = True,
) -> Iterator[str]:
    """Lines for a person; those that start with `warning` ask for a decision.

    `config` is None if nothing is to be certified on these rows. `grows`: as in `Ledger.look`. `servable` says whether
    the large model answers rows that it has not seen.
    """
    labels = [f"{label} {count:,}" for label, count in sorted(summary.labels.items(), key=lambda pair: -pair[1])]
    yield f"{summary.num_rows:,} rows, {len(labels):,} labels: {_shortened(labels)}"
    for task, splits in list(summary.rows.items())[:_SHOWN]:
        yield f"  task {task}: " + ", ".join(f"{split} {count:,}" for split, count in splits.items())
    if (more := len(summary.rows) - _SHOWN) > 0:
        yield f"  and {more} more tasks"
    if summary.num_bad:
        yield f"{summary.num_bad:,} bad rows skipped; bad_rows.csv in the run's folder lists them"
    if summary.num_overlapping:
        yield (
            f"{summary.num_overlapping:,} rows skipped because another split has their content or group;"
            " bad_rows.csv lists them too"
        )
    if summary.num_repeating:
        yield f"{summary.num_repeating:,} rows repeat the content of other rows; rows of equal content are one unit"
    for first, second in summary.alike[:_SHOWN]:
        pair = " and ".join(f"{label!r} ({summary.labels[label]:,})" for label in (first, second))
        yield f"warning: two labels have almost the same spelling: {pair}"
    if not servable:
        yield (
            "warning: the large model is a table of recorded answers, so nothing can answer new inputs. The cascade can"
            " be certified and can predict known rows, but not be served. To serve it, set a live model in `large`"
        )
    if config is None:
        yield "these rows certify nothing: `kcm update` certifies on traffic"
        return
    spend = (look_delta if grows else question_delta)(config.delta, 1)
    yield _certifiable(outlook(summary.certify_units, config, scopes, spend), summary, config, fractions)


def later_look(look: Look, summary: Summary, config: CertificateConfig, scopes: Sequence[Scope]) -> str:
    """A line about the next look at rows that the ledger knows; a warning if it cannot certify anything."""
    needed = outlook(summary.certify_units, config, scopes, look.spend)
    facts = (
        f"the ledger has {plural(look.number - 1, 'look')} at these rows. A run with other settings may use"
        f" {100 * look.spend / look.delta:.3g}% of delta, so it needs at least {needed.needed:,} units"
    )
    return facts if needed.possible else f"warning: {facts}: everything would go to the large model. Add new rows"


def _certifiable(reach: Outlook, summary: Summary, config: CertificateConfig, fractions: Fractions) -> str:
    of_each = " in the smallest task" if reach.scope == "per_task" else ""
    have = f"{reach.num_units:,} units to certify on{of_each}"
    if config.epsilon == 0:
        need = f"to be no worse needs at least {reach.needed:,} that only the small model answers right"
    else:
        need = f"a loss of at most {exact_points(config.epsilon)} needs at least {reach.needed:,}"
    if reach.possible:
        only = "" if "per_task" in reach.scopes or len(summary.rows) == 1 else _ONLY_GLOBAL
        comfortable = 2 * reach.needed
        tight = "" if reach.num_units >= comfortable else f". That is tight: {comfortable:,} would be comfortable"
        return f"{have}; {need}{only}{tight}"
    if math.isinf(reach.times_the_rows):
        return f"warning: no rows to certify on; {need}, so everything would go to the large model"
    rows = math.ceil(summary.num_rows * reach.times_the_rows / 50) * 50
    choices = [f"about {rows:,} rows"]
    if reach.epsilon is not None:
        choices.append(f"epsilon >= {reach.epsilon:g}")
    if reach.scope == "per_task":
        choices.append("tune.scopes [global]")
    share = fractions["certify"] * reach.times_the_rows
    if share <= 0.4:
        choices.append(f"a certify share of {share:.2f} in place of {fractions['certify']:g}")
    return f"warning: {have}; {need}, so everything would go to the large model. Use " + ", or ".join(choices)


def _shortened(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_SHOWN]) + (f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")
