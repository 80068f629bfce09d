"""The job of `kcm label`: label a table, and write the results next to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import typer

from jobs.exit import NOTHING_BOUGHT, OutsidePromise
from jobs.servers import remember
from jobs.views.label import Screen, Stopped, closing, next_steps, not_proved
from kcm.errors import ConfigError
from kcm.extras import load
from kcm.inputs.visible import shown
from kcm.labelling.encoding import Mapper, in_process
from kcm.labelling.label import LabelledTable, label
from kcm.labelling.oracle import answers_in
from kcm.labelling.output import write_frame
from kcm.labelling.purchases import NoAnswers
from kcm.labelling.run_files import run_files, write_run
from kcm.large.adapters.openai import OpenAiConfig
from kcm.report.labelled_page import render_labelled
from kcm.report.page import write_page


def label_file(
    frame: pd.DataFrame,
    name: str,
    target: Path,
    *,
    servers: Sequence[OpenAiConfig],
    screen: Mapping[str, Any],
    cluster: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Label the table `name`, write `target`, certificate, page and bundle, and return the JSON result.

    `servers` are the large models; `screen` configures output and questions, see `Screen`; `cluster` is the address of
    the Ray cluster that encodes the texts; `options` go to `kcm.label`. Raises OutsidePromise if the target is not
    proved, or nothing could be bought.
    """
    mapper = _mapper(cluster)
    progress_screen = Screen(**screen)
    try:
        labelled = label(frame, llm=servers, watcher=progress_screen, mapper=mapper, **options)
    except Stopped:
        return progress_screen.result
    except NoAnswers as error:
        raise OutsidePromise(f"error: {error}", {"error": str(error), "bought": 0}, NOTHING_BOUGHT) from None
    finally:
        progress_screen.close()
    paths, lines = _write(labelled, name, target)
    for line in [*closing(labelled), *map(shown, (*map(str, paths), *lines))]:
        typer.echo(line)
    answers = options["answers"]
    result = _result(labelled, answers[-1] if answers else None)
    if not labelled.certificate.certified:
        raise OutsidePromise(f"Not proved: {'; '.join(not_proved(labelled.certificate))}", result)
    return result


def _write(labelled: LabelledTable, name: str, target: Path) -> tuple[list[Path], list[str]]:
    """Write the files of a job in place of those of an earlier one; returns them, and lines on what to do with them.

    All are written before the first takes its place, and files that this job does not make are removed.
    """
    certificate, page, bundle = (
        target.with_name(f"{target.stem}.{end}") for end in ("certificate.json", "html", "bundle")
    )
    learning, rows = run_files(target)
    lines = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        draft = Path(folder)
        write_frame(labelled.frame, draft / target.name)
        content = labelled.certificate.model_dump_json(indent=2) + "\n"
        (draft / certificate.name).write_text(content, encoding="utf-8")
        write_page(render_labelled(labelled, name, "" if labelled.no_bundle else bundle.name), draft / page.name)
        if labelled.no_bundle is None:
            try:
                write_run(labelled, target, name, draft)
            except ConfigError as error:
                lines = [f"No configuration for `kcm update`: {error.what}"]
            labelled.bundle.replace(bundle)
        elif bundle.exists():
            rmtree(bundle)
        for path in (target, certificate, page, learning, rows):
            if (draft / path.name).exists():
                (draft / path.name).replace(path)
            else:
                path.unlink(missing_ok=True)
    if labelled.models is not None and bundle.exists():  # later commands may use its server
        remember(labelled.models.server)
    lines += next_steps(labelled, bundle, learning if learning.exists() else None)
    return [path for path in (target, certificate, page, bundle, learning, rows) if path.exists()], lines


def _mapper(address: str | None) -> Mapper:
    """The place that encodes texts: this process, without Ray, or a cluster. KcmError if no cluster listens."""
    if address is None:
        return in_process
    load("pipelines.cluster.connection:require_listener", "--cluster")(address)
    return partial(load("pipelines.batch.on_cluster:map_on_cluster", "--cluster"), address)


def _result(labelled: LabelledTable, answers: str | None) -> dict[str, Any]:
    """The JSON result; with recorded answers also the number of rows that really differ from them."""
    certificate = labelled.certificate
    result = certificate.model_dump(mode="json") | {"cost": labelled.cost}
    if labelled.accuracies is not None:
        result["accuracies"] = labelled.accuracies.model_dump(mode="json")
    if answers is not None:
        result["differ"] = int((answers_in(labelled.frame, answers) != labelled.frame[labelled.column]).sum())
    return result
