"""`kcm predict`: a file with the answers of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.models import bundle_of
from jobs.options import BundleSource, Overrides, load
from jobs.service import ServiceSettings
from kcm.errors import KcmError
from pipelines.batch.predict import predict as predict_files
from pipelines.progress import Reporter


def predict(
    bundle: BundleSource,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Rows in any kind of file that `kcm init` reads: a file, a folder or a pattern, local, s3:// or gs://.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The rows beside their answers: a file of the same kinds; a folder where FILE is one, or a pattern.",
        ),
    ],
    text_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the text, where the bundle reads texts.")
    ] = "text",
    image_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the picture, where it reads them: paths or bytes.")
    ] = "image",
    image_root: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder below which the paths of pictures must lead; else that of FILE."),
    ] = None,
    task_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column with the task, if known.")] = None,
    format: Annotated[
        Literal["csv", "jsonl", "parquet"] | None,
        typer.Option(metavar="csv|jsonl|parquet", help="Format of the files in an output folder; else the input's."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace outputs that something else has written; without it they are refused."
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Take cluster, assets and servers from a run's YAML file.")
    ] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Answer every row of files of any size as the served cascade would; given again, it goes on where it was."""
    if overrides and config is None:
        raise KcmError("--set overrides values of --config, which is missing")
    loaded = load(config, overrides) if config else None
    settings = ServiceSettings.of(loaded)
    result = predict_files(
        bundle_of(bundle, loaded),
        file,
        output,
        text_column,
        image_column=image_column,
        image_root=image_root,
        task_column=task_column,
        cluster=settings.cluster,
        assets_dir=settings.assets_path,
        reporter=Reporter(),
        upstreams=settings.serve.large.upstreams,
        suffix=format and f".{format}",
        overwrite=overwrite,
    )
    typer.echo(output)
    return result
