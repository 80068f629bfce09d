"""The job of `kcm label`: a table is labelled, and what came of it is written beside the table."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from jobs.assets import provide
from jobs.exit import OutsidePromise
from jobs.label_run import write_run
from jobs.servers import remember
from jobs.views.label import Screen, Stopped, closing, next_steps, not_proved
from kcm.errors import ConfigError
from kcm.extras import load
from kcm.labelling.encoding import DEFAULT_ENCODER, Mapper, in_process
from kcm.labelling.label import LabelledTable, label
from kcm.labelling.output import write_frame
from kcm.labelling.rounds import NoAnswers
from kcm.labelling.sources import openai_config
from kcm.report.labelled import LabelPage, render_labelled
from kcm.report.page import write_page
from pipelines.progress import Reporter

NOTHING_BOUGHT = 4  # exit code: no answer at all could be bought


def label_file(
    frame: pd.DataFrame,
    name: str,
    target: Path,
    *,
    models: Sequence[str],
    server: Mapping[str, Any],
    screen: Mapping[str, Any],
    cluster: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Label the table `name`, write `target`, certificate, page and bundle, and give the JSON result.

    `models` are asked at a `server`, see `openai_config`; `screen` says what is printed and asked, see `Screen`;
    `cluster` is the address of the Ray cluster that encodes the texts; `options` are those of `kcm.label`.
    Raises OutsidePromise if the target is not proved, or nothing could be bought.
    """
    mapper = _mapper(cluster)
    encoder = options["encoder"]
    provide(DEFAULT_ENCODER if encoder == "auto" else encoder, options["assets"], Reporter())
    shown = Screen(**screen)
    servers = [
        openai_config(model, **{key: value for key, value in server.items() if value is not None}) for model in models
    ]
    try:
        found = label(frame, llm=servers, watcher=shown, mapper=mapper, **options)
    except Stopped:
        return shown.result
    except NoAnswers as error:
        raise OutsidePromise(f"error: {error}", {"error": str(error), "bought": 0}, NOTHING_BOUGHT) from None
    finally:
        shown.close()
    certificate, page, bundle = (
        target.with_name(f"{target.stem}.{end}") for end in ("certificate.json", "html", "bundle")
    )
    write_frame(found.frame, target)
    certificate.write_text(found.certificate.model_dump_json(indent=2) + "\n", encoding="utf-8")
    written, learning = [target, certificate, page], None
    if found.no_bundle is None:
        _write_bundle(found, bundle)
        written.append(bundle)
        try:
            learning, rows = write_run(found, target, name)
            written += [learning, rows]
        except ConfigError as error:
            shown.said(f"No configuration for `kcm update`: {error.what}")
    write_page(render_labelled(LabelPage.of(found, name, "" if found.no_bundle else bundle.name)), page)
    for line in [*closing(found), *map(str, written), *next_steps(found, bundle, learning)]:
        typer.echo(line)
    answers = options["answers"]
    result = _result(found, answers[-1] if answers else None)
    if not found.certificate.certified:
        raise OutsidePromise(f"Not proved: {'; '.join(not_proved(found.certificate))}", result)
    return result


def _write_bundle(found: LabelledTable, folder: Path) -> None:
    """Write the bundle in place of an earlier one, and let later commands ask its server."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        draft = found.bundle.write(Path(scratch) / folder.name)
        if folder.exists():
            folder.replace(Path(scratch) / "earlier")
        draft.replace(folder)
    if found.models is not None:
        remember(found.models.server)


def _mapper(address: str | None) -> Mapper:
    """What computes vectors: this process, which starts no Ray, or a cluster. KcmError if nothing listens there."""
    if address is None:
        return in_process
    load("pipelines.cluster.connection:require_listener", "--cluster")(address)
    return partial(load("pipelines.batch.mapping:map_on_cluster", "--cluster"), address)


def _result(found: LabelledTable, answers: str | None) -> dict[str, Any]:
    """The JSON result; with recorded answers also the rows that really differ from them."""
    certificate = found.certificate
    result = certificate.model_dump(mode="json") | {"cost": found.cost}
    if found.accuracies is not None:
        result["accuracies"] = found.accuracies.model_dump(mode="json")
    if answers is not None:
        said = found.frame[answers].astype("string").str.strip()
        result["differ"] = int((said != found.frame[found.column].astype("string")).fillna(True).sum())
    return result
