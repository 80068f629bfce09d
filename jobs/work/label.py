"""The job of `kcm label`: label a table, and write the results next to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from jobs.exit import NOTHING_BOUGHT, OutsidePromise
from jobs.servers import remember
from jobs.views.label import Screen, Stopped, closing, next_steps, not_proved
from jobs.work.labelled_run import write_run
from kcm.errors import ConfigError
from kcm.extras import load
from kcm.inputs.visible import shown
from kcm.labelling.encoding import Mapper, in_process
from kcm.labelling.label import LabelledTable, label
from kcm.labelling.oracle import answers_in
from kcm.labelling.output import write_frame
from kcm.labelling.purchases import NoAnswers
from kcm.large.adapters.openai import OpenAiConfig
from kcm.report.labelled import render_labelled
from kcm.report.page import write_page


def label_file(
    frame: pd.DataFrame,
    name: str,
    target: Path,
    *,
    servers: Sequence[OpenAiConfig],
    screen: Mapping[str, Any],
    cluster: str | None,
    gpus: float,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Label the table `name`, write `target`, certificate, page and bundle, and return the JSON result.

    `servers` are the large models; `screen` configures output and questions, see `Screen`; `cluster` is the address of
    the Ray cluster that encodes the texts, with `gpus` for each encoder; `options` go to `kcm.label`. Raises
    OutsidePromise if the target is not proved, or nothing could be bought.
    """
    mapper = _mapper(cluster, gpus)
    progress_screen = Screen(**screen)
    try:
        labelled = label(frame, llm=servers, watcher=progress_screen, mapper=mapper, **options)
    except Stopped:
        return progress_screen.result
    except NoAnswers as error:
        raise OutsidePromise(f"error: {error}", {"error": str(error), "bought": 0}, NOTHING_BOUGHT) from None
    finally:
        progress_screen.close()
    certificate, page, bundle = (
        target.with_name(f"{target.stem}.{end}") for end in ("certificate.json", "html", "bundle")
    )
    write_frame(labelled.frame, target)
    certificate.write_text(labelled.certificate.model_dump_json(indent=2) + "\n", encoding="utf-8")
    paths, learning = [target, certificate, page], None
    if labelled.no_bundle is None:
        labelled.bundle.replace(bundle)
        if labelled.models is not None:  # later commands may use its server
            remember(labelled.models.server)
        paths.append(bundle)
        try:
            learning, rows = write_run(labelled, target, name)
            paths += [learning, rows]
        except ConfigError as error:
            progress_screen.said(f"No configuration for `kcm update`: {error.what}")
    write_page(render_labelled(labelled, name, "" if labelled.no_bundle else bundle.name), page)
    for line in [*closing(labelled), *map(shown, (*map(str, paths), *next_steps(labelled, bundle, learning)))]:
        typer.echo(line)
    answers = options["answers"]
    result = _result(labelled, answers[-1] if answers else None)
    if not labelled.certificate.certified:
        raise OutsidePromise(f"Not proved: {'; '.join(not_proved(labelled.certificate))}", result)
    return result


def _mapper(address: str | None, gpus: float) -> Mapper:
    """The place that encodes texts: this process, without Ray, or a cluster. KcmError if no cluster listens."""
    if address is None:
        return in_process
    load("pipelines.cluster.connection:require_listener", "--cluster")(address)
    return partial(load("pipelines.batch.on_cluster:map_on_cluster", "--cluster"), address, gpus)


def _result(labelled: LabelledTable, answers: str | None) -> dict[str, Any]:
    """The JSON result; with recorded answers also the number of rows that really differ from them."""
    certificate = labelled.certificate
    result = certificate.model_dump(mode="json") | {"cost": labelled.cost}
    if labelled.accuracies is not None:
        result["accuracies"] = labelled.accuracies.model_dump(mode="json")
    if answers is not None:
        result["differ"] = int((answers_in(labelled.frame, answers) != labelled.frame[labelled.column]).sum())
    return result
