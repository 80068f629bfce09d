"""`kcm predict`: a file with the answers of a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.exit import OutsidePromise
from jobs.options import BundleSource, Overrides, load
from kcm import extras
from kcm.api.source import folder_of
from kcm.errors import KcmError
from kcm.inputs.location import Location
from pipelines.progress import Reporter

if TYPE_CHECKING:
    from pipelines.cluster.config import ClusterConfig
    from pipelines.config import RunConfig


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
    on_large_failure: Annotated[
        Literal["answer_small", "error"] | None,
        typer.Option(
            metavar="answer_small|error",
            help="What becomes of a row that the large model fails: the small model answers it, outside the promise, or"
            " it gets no answer; else as `serve.large.on_large_failure` or the bundle says.",
        ),
    ] = None,
    degraded_ok: Annotated[
        bool, typer.Option("--degraded-ok", help="Exit with 0, not 3, where rows are outside the promise.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Folder or database of paid answers; else that of CONFIG's run, or KCM_STORE, or the user's own.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Take cluster, assets and servers from a run's YAML file.")
    ] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Answer every row of files of any size as the served cascade would; given again, it goes on where it was.

    The rows are answered by this process, or on the Ray cluster that `cluster.address` of CONFIG or RAY_ADDRESS names.
    """
    if overrides and config is None:
        raise KcmError("--set overrides values of --config, which is missing")
    of_registry = config is not None and bundle.startswith("models:/")
    folder = None if of_registry else folder_of(bundle)
    suffix = format and f".{format}"
    if Location.of(file).is_local and Location.of(output).is_local:
        from pipelines.batch.outputs import predicted_files

        predicted_files(file, output, suffix)  # says what is wrong with the paths, before torch is imported
    from jobs.assets import provide_models
    from jobs.settings import ServiceSettings
    from kcm.large.response_cache import ResponseStore
    from pipelines.batch.predict import predict as predict_files
    from pipelines.paid import paid_answers

    loaded = load(config, overrides) if config else None
    settings = ServiceSettings.of(loaded)
    run_store = paid_answers(loaded) if loaded else None
    folder, reporter = folder or _registered(bundle, loaded), Reporter()
    provide_models(folder, settings.assets_path, reporter)
    result = predict_files(
        folder,
        file,
        output,
        text_column,
        image_column=image_column,
        image_root=image_root,
        task_column=task_column,
        cluster=settings.cluster,
        assets_dir=settings.assets_path,
        reporter=reporter,
        upstreams=settings.serve.large.upstreams,
        suffix=suffix,
        overwrite=overwrite,
        responses=ResponseStore.at(store) if store else run_store,
        on_large_failure=on_large_failure or settings.serve.large.on_large_failure,
        on_cluster=_on_cluster(settings.cluster),
    )
    typer.echo(output)
    if result["outside_promise"] and not degraded_ok:
        share = result["outside_promise"]
        raise OutsidePromise(f"{share:.1%} of the rows are outside the promise; --degraded-ok exits with 0", result)
    return result


def _registered(model: str, config: RunConfig | None) -> Path:
    """The folder of a version in the registry of a run."""
    served_model: Callable[..., Any] = extras.load("jobs.models:served_model", model)
    return served_model(config, model).bundle


def _on_cluster(cluster: ClusterConfig) -> Callable[..., Any] | None:
    """What maps rows on a cluster; None if no cluster has an address, and this process answers them."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    return extras.load("pipelines.batch.mapping:map_connected", f"the cluster at {address}") if address else None
