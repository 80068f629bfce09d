"""A champion that knows three domains meets the traffic of a fourth, learns it, and is certified on it.

The service is played in this process: its cascade answers every sentence, its log keeps every decision, and most of
what it keeps is audited. A fifth of the labels arrives late, from the people who sent the sentences; then a person
labels the few items on which challenger and large model disagree. All else is what the commands do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from loop_earliest import decisions_needed, first_certified
from loop_replay import Replay

from jobs.commands.loop.turns import approve, promote, rollback, update
from jobs.models import served_model
from jobs.views.loop import outcome
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Input
from kcm.config import load_config
from kcm.errors import ConfigError, DataError
from kcm.inputs.content import Content
from kcm.tasks.readers.reviews import read_reviews
from kcm.tasks.rows import SourceRow
from pipelines.config import RunConfig
from pipelines.loop.inbox import opened_inbox
from pipelines.loop.recertify import LineageLedger
from pipelines.loop.state import LoopState, watermark_of
from pipelines.run import run
from pipelines.serve.config import log_url
from pipelines.serve.log.decisions import DecisionLog

CONFIG = Path(__file__).with_name("loop_demo.yaml")
REQUEST = 64  # sentences of a request
LABELLED = 5  # one sentence in so many is labelled by whoever sent it
RATES = (0.0, 0.005, 0.01)  # of disagreement on what is kept, for which the needed traffic is printed

Say = Callable[[str], None]


def demonstrate(config: RunConfig, domain: str, max_rows: int | None, say: Say) -> Path:
    """Run the whole demonstration, or what is left of it; the path of `loop.json`."""
    run(config)
    state = LoopState.of(config)
    rows = [row for row in read_reviews(config.assets_path) if row.task == domain][:max_rows]
    say(needed(config, state, len(rows)))
    if state.champions.pointer.history()[-1].by == "run" and not state.attempts.turns():
        replay(config, rows, say)
    say(outcome(update(config)))
    say(took(config, state, len(rows)))
    label(config, rows, say)
    say(outcome(update(config)))
    last = state.attempts.turns()[-1]
    if last["awaits_approval"]:
        say(f"a person approves {last['version']}, which no promotion gate refused")
        approve(config, last["version"])
    history = state.champions.pointer.history()
    if history[-1].by == "update":  # there and back: both are one swap of a pointer
        back = rollback(config, reason="to show that it can be done")
        say(f"{back['rolled_back']} was rolled back to {back['version']}, and is promoted again")
        promote(config, history[-1].version)
    state.write()
    return state.path


def needed(config: RunConfig, state: LoopState, num_rows: int) -> str:
    """The traffic that a first certificate takes, and what there is of it."""
    if config.update is None:
        raise ConfigError("there is no section `update`", where=config.name)
    share, epsilon = config.serve.audit.share, config.certificate.epsilon
    spend = LineageLedger(state.store.control, config.name).next_spend(config.certificate.delta)
    certify = config.update.fractions["certify"]
    least = [decisions_needed(rate, share, epsilon, spend) for rate in RATES]
    counts = ", ".join(
        f"{units / certify:,.0f} where the sides disagree on {100 * rate:g}% of it"
        for rate, units in zip(RATES, least, strict=True)
        if units is not None
    )
    return (
        f"a certificate at epsilon {epsilon:g} and delta {spend:.3f}, with {100 * share:g}% of what is kept audited and"
        f" {100 * certify:g}% of the units for it, takes about this many decisions: {counts}; there are {num_rows:,}"
    )


def took(config: RunConfig, state: LoopState, num_rows: int) -> str:
    """The traffic that the first turn's certificate would have taken, without a label."""
    found = first_certified(config, state)
    if found is None:
        return f"{num_rows:,} decisions were too few for a certificate without labels"
    return f"the first certificate took {found:,} decisions"


def replay(config: RunConfig, rows: Sequence[SourceRow], say: Say, labelled: int = LABELLED) -> None:
    """Put the rows to the champion, request by request; labels come when all is answered, of one in `labelled`.

    What an earlier, interrupted demonstration has logged is not sent again.
    """
    release = served_model(config, None)
    cascade = load_cascade(release.bundle, config.assets_path)
    log = DecisionLog(log_url(config.serve, config.storage_folder), 30.0, config.application)
    log.open()
    try:
        done = watermark_of(config)
        played = Replay(cascade, log, release.version, config.serve.audit.share, config.serve.feedback.store_payloads)
        late: dict[str, dict[int, str]] = {}
        for start in range(done - done % REQUEST, len(rows), REQUEST):
            part = rows[start : start + REQUEST]
            request = played.answer([Input(Content(row.text or ""), group=row.group or "") for row in part])
            late[request] = {place: str(row.label) for place, row in enumerate(part) if place % labelled == 0}
        for request, labels in late.items():
            played.feedback(request, labels)
    finally:
        log.close()
    say(f"{len(rows):,} decisions are logged")


def label(config: RunConfig, rows: Sequence[SourceRow], say: Say) -> None:
    """Answer the challenger's inbox by the true labels, in its order, until they suffice."""
    truth = {row.text: str(row.label) for row in rows}
    try:
        with opened_inbox(config) as inbox:
            for item in inbox.items("drawn"):
                if inbox.standing().certified:
                    break
                inbox.answer({item.id: truth[item.text or ""]})
            now = inbox.standing()
    except DataError as error:
        say(str(error))
        return
    suffice = "suffice" if now.certified else "do not suffice"
    say(f"{now.num_labelled} labels on disagreements {suffice}: at most {100 * now.bound:.1f} points are lost by them")


def main(
    config: Annotated[Path, typer.Argument(metavar="CONFIG")] = CONFIG,
    domain: Annotated[str, typer.Option(metavar="NAME", help="Whose sentences are the traffic.")] = "tweets",
    max_rows: Annotated[int | None, typer.Option(metavar="N", help="Sentences of traffic, at most.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE")] = None,
) -> None:
    """Run the demonstration of the loop; the last line is the path of loop.json."""
    loaded = load_config(RunConfig, config, overrides or [])
    typer.echo(demonstrate(loaded, domain, max_rows, lambda line: typer.echo(line, err=True)))


if __name__ == "__main__":
    typer.run(main)
